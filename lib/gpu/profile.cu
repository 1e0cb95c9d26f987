/* Where the time of a step goes: the step's graph once more, with an event behind every launch. How a kernel
 * is launched is read from the graph, so that nothing is told that was not done.
 */
#include "model.cuh"

#include <cxxabi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_MARKS 4096u

struct marks {
    uint32_t n;
    cudaEvent_t at[N_MARKS];
    struct apr_gpu_time time[N_MARKS]; /* of what stands before the event */
    uint64_t n_bytes;                  /* of the next */
    int32_t layer;
};

void gpu_mark_bytes(const struct apr_gpu_device *d, uint64_t n_bytes)
{
    if (d->marks) d->marks->n_bytes += n_bytes;
}
void gpu_mark_layer(const struct apr_gpu_device *d, int32_t i_layer)
{
    if (d->marks) d->marks->layer = i_layer;
}
void gpu_mark_at(const struct apr_gpu_device *d, const char *what, cudaStream_t s, const char *file,
                 uint32_t line)
{
    struct marks *k = d->marks;
    if (!k || k->n == N_MARKS) return;
    if (cudaEventCreate(&k->at[k->n]) != cudaSuccess) return;
    struct apr_gpu_time *t = &k->time[k->n];
    t->what = what, t->file = file, t->line = line, t->layer = k->layer, t->n_bytes = k->n_bytes;
    k->n_bytes = 0;
    if (cudaEventRecordWithFlags(k->at[k->n++], s, cudaEventRecordExternal) != cudaSuccess)
        (void)cudaGetLastError(); /* the event was never recorded: its time is an error */
}

/* ---- what a graph launches --------------------------------------------------------------------------------
 */

/* "void gemv_kernel<true, 0, 3, 2304>(gemv_args, ...)" as "gemv_kernel<true, 0, 3, 2304>" */
static void kernel_name(const void *kernel, char *out, size_t n_out)
{
#if CUDART_VERSION >= 12030
    const char *raw = NULL;
    if (cudaFuncGetName(&raw, kernel) != cudaSuccess || !raw) {
        (void)cudaGetLastError();
        return;
    }
    int status = 0, depth = 0;
    char *whole = abi::__cxa_demangle(raw, NULL, NULL, &status);
    const char *from = whole ? whole : raw;
    if (!strncmp(from, "void ", 5)) from += 5;
    size_t n = 0;
    for (; from[n] && (from[n] != '(' || depth); n++) depth += from[n] == '<' ? 1 : from[n] == '>' ? -1 : 0;
    snprintf(out, n_out, "%.*s", (int)n, from);
    free(whole);
#else
    (void)kernel, (void)out, (void)n_out;
#endif
}

static void describe(const struct apr_gpu_device *d, cudaGraphNode_t node, struct apr_gpu_time *t)
{
    cudaKernelNodeParams p = {};
    cudaFuncAttributes f = {};
    int n_blocks = 0, n_threads = 0;
    if (t->n_kernels++) return;
    if (cudaGraphKernelNodeGetParams(node, &p) != cudaSuccess) { /* a kernel of the driver's interface */
        (void)cudaGetLastError();
        return;
    }
    t->grid[0] = p.gridDim.x, t->grid[1] = p.gridDim.y, t->grid[2] = p.gridDim.z;
    t->block[0] = p.blockDim.x, t->block[1] = p.blockDim.y, t->block[2] = p.blockDim.z;
    t->smem_bytes = p.sharedMemBytes;
    int n_block = (int)(p.blockDim.x * p.blockDim.y * p.blockDim.z);
    if (cudaFuncGetAttributes(&f, p.func) == cudaSuccess) {
        t->n_regs = (uint32_t)f.numRegs, t->local_bytes = (uint32_t)f.localSizeBytes;
        t->smem_bytes += (uint32_t)f.sharedSizeBytes;
        kernel_name(p.func, t->kernel, sizeof t->kernel);
    }
    if (cudaOccupancyMaxActiveBlocksPerMultiprocessor(&n_blocks, p.func, n_block, p.sharedMemBytes) ==
            cudaSuccess &&
        cudaDeviceGetAttribute(&n_threads, cudaDevAttrMaxThreadsPerMultiProcessor, d->i) == cudaSuccess)
        t->occupancy = (double)n_blocks * n_block / n_threads;
    (void)cudaGetLastError();
}

/* Nodes come in the order of the capture: kernels, then the event behind them. */
static enum apr_gpu_status describe_all(const struct apr_gpu_device *d, cudaGraph_t graph, struct marks *k,
                                        struct apr_gpu_err *e)
{
    size_t n = 0;
    uint32_t i_mark = 0;
    CU(cudaGraphGetNodes(graph, NULL, &n), "nodes of a graph");
    cudaGraphNode_t *nodes = (cudaGraphNode_t *)malloc((n + 1) * sizeof *nodes);
    if (!nodes) return gpu_fail(e, APR_GPU_MEMORY, "no memory for the nodes of a graph");
    enum apr_gpu_status s = gpu_cuda(cudaGraphGetNodes(graph, nodes, &n), "nodes of a graph", e);
    for (size_t i = 0; i < n && i_mark < k->n && s == APR_GPU_OK; i++) {
        cudaGraphNodeType type;
        cudaEvent_t event;
        s = gpu_cuda(cudaGraphNodeGetType(nodes[i], &type), "node of a graph", e);
        if (s == APR_GPU_OK && type == cudaGraphNodeTypeKernel) describe(d, nodes[i], &k->time[i_mark]);
        if (s != APR_GPU_OK || type != cudaGraphNodeTypeEventRecord) continue;
        s = gpu_cuda(cudaGraphEventRecordNodeGetEvent(nodes[i], &event), "event of a graph", e);
        if (s == APR_GPU_OK && event != k->at[i_mark++])
            s = gpu_fail(e, APR_GPU_FAILED, "the nodes of a graph are in another order than its launches");
    }
    free(nodes);
    return s;
}

/* ---- a step -----------------------------------------------------------------------------------------------
 */

static enum apr_gpu_status issue(struct apr_gpu_model *m, struct batch *b, struct apr_gpu_err *e)
{
    if (b->n_rows > b->n_parts)
        return m->can_few && b->n_rows <= LOGIT_ROWS ? batch_step(m, b, e) : chunk_step(m, b, e);
    return b->n_parts == 1 ? one_issue(b->parts[0].seq, false, e) : batch_issue(m, b->n_parts, false, e);
}
static enum apr_gpu_status begin(struct apr_gpu_model *m, struct batch *b, struct apr_gpu_err *e)
{
    struct apr_gpu_seq *seqs[LOGIT_ROWS];
    int32_t ids[LOGIT_ROWS];
    if (b->n_rows > b->n_parts) return step_lay(m, b, e);
    for (uint32_t i = 0; i < b->n_parts; i++) seqs[i] = b->parts[i].seq, ids[i] = b->parts[i].ids[0];
    return b->n_parts == 1 ? one_begin(seqs[0], ids[0], e) : batch_begin(m, seqs, ids, b->n_parts, e);
}

static enum apr_gpu_status run(struct apr_gpu_model *m, struct batch *b, struct marks *k,
                               cudaGraphExec_t *exec, struct apr_gpu_err *e)
{
    cudaStream_t q = m->dev->stream;
    cudaGraph_t graph = NULL;
    GPU_TRY(begin(m, b, e)); /* and where the rows are */
    GPU_TRY(gpu_wait(m->dev, "a step", e));
    CU(cudaStreamBeginCapture(q, cudaStreamCaptureModeThreadLocal), "capture of a step");
    m->dev->marks = k;
    gpu_mark(m->dev, "", q);
    enum apr_gpu_status s = issue(m, b, e);
    if (b->n_rows == b->n_parts) gpu_mark(m->dev, "choice of a token", q);
    m->dev->marks = NULL;
    cudaError_t c = cudaStreamEndCapture(q, &graph);
    if (s == APR_GPU_OK) s = gpu_cuda(c, "capture of a step", e);
    if (s == APR_GPU_OK) s = describe_all(m->dev, graph, k, e);
    if (s == APR_GPU_OK) s = gpu_cuda(cudaGraphInstantiate(exec, graph, 0), "graph of a step", e);
    if (graph) cudaGraphDestroy(graph);
    for (int i = 0; i < 3 && s == APR_GPU_OK; i++) { /* the last one counts: code and clocks are warm */
        s = begin(m, b, e);
        if (s == APR_GPU_OK) s = comm_launch(m->dev, *exec, e);
        if (s == APR_GPU_OK) s = gpu_wait(m->dev, "a step", e);
    }
    return s;
}

/* Keys and values that attention reads, all parts together. */
static uint64_t cache_bytes(const struct apr_gpu_model *m, const struct batch *b)
{
    uint64_t n_pos = 0;
    for (uint32_t i = 0; i < b->n_parts; i++) n_pos += b->parts[i].seq->n_pos + b->parts[i].n;
    return n_pos * m->heads.n_heads_kv * m->heads.dim * (m->heads.f32 ? 8 : 4);
}

static enum apr_gpu_status times(const struct apr_gpu_model *m, const struct batch *b, struct marks *k,
                                 struct apr_gpu_time *out, uint32_t *n, struct apr_gpu_err *e)
{
    uint32_t n_room = *n;
    for (uint32_t i = *n = 0; i + 1 < k->n && *n < n_room; i++) {
        struct apr_gpu_time *t = &out[(*n)++];
        float ms = 0;
        CU(cudaEventElapsedTime(&ms, k->at[i], k->at[i + 1]), "time of a launch");
        *t = k->time[i + 1];
        t->s = 1e-3 * ms;
        if (!strncmp(t->what, "attention", 9)) t->n_bytes += cache_bytes(m, b);
    }
    return APR_GPU_OK;
}

static enum apr_gpu_status check(const struct apr_gpu_model *m, struct batch *b, struct apr_gpu_err *e)
{
    for (uint32_t i = 0; i < b->n_parts; i++) {
        const struct apr_gpu_part *p = &b->parts[i];
        if (p->n == 0 || p->n > p->seq->n_ctx - p->seq->n_pos || (p->n > 1 && b->n_parts > 1))
            return gpu_fail(e, APR_GPU_UNSUPPORTED,
                            "a profile takes one token of each sequence, or one part of more");
        GPU_TRY(seq_hold(p->seq, p->seq->n_pos + p->n, e));
        b->n_rows += p->n;
    }
    if (m->opts.exact || b->n_parts == 0 || b->n_parts > LOGIT_ROWS || (b->n_parts > 1 && !m->can_few) ||
        b->n_rows > m->opts.n_chunk)
        return gpu_fail(e, APR_GPU_UNSUPPORTED, "a profile of %u tokens of %u sequences", b->n_rows,
                        b->n_parts);
    return APR_GPU_OK;
}

enum apr_gpu_status profile(struct apr_gpu_model *m, const struct apr_gpu_part *parts, uint32_t n_parts,
                            struct apr_gpu_time *out, uint32_t *n, struct apr_gpu_err *e)
{
    cudaGraphExec_t exec = NULL;
    struct batch b = {parts, n_parts, 0, 0, NULL, NULL};
    GPU_TRY(gpu_enter(m->dev, e));
    GPU_TRY(check(m, &b, e));
    struct marks *k = (struct marks *)calloc(1, sizeof *k);
    if (!k) return gpu_fail(e, APR_GPU_MEMORY, "no memory for a profile");
    k->layer = -1;
    enum apr_gpu_status s = run(m, &b, k, &exec, e);
    if (s == APR_GPU_OK) s = times(m, &b, k, out, n, e);
    for (uint32_t i = 0; i < k->n; i++) cudaEventDestroy(k->at[i]);
    if (exec) cudaGraphExecDestroy(exec);
    free(k);
    return s;
}

/* ---- launches by themselves -------------------------------------------------------------------------------
 */

static __global__ void empty_kernel() {}

static enum apr_gpu_status time_graph(struct apr_gpu_device *d, cudaGraphExec_t exec, double *s,
                                      struct apr_gpu_err *e)
{
    cudaEvent_t t0, t1;
    float best = 1e30f;
    CU(cudaEventCreate(&t0), "event");
    CU(cudaEventCreate(&t1), "event");
    enum apr_gpu_status st = APR_GPU_OK;
    for (int i = 0; i < 20 && st == APR_GPU_OK; i++) {
        float ms = 0;
        (void)cudaEventRecord(t0, d->stream); /* an error shows in the time */
        st = gpu_cuda(cudaGraphLaunch(exec, d->stream), "empty launches", e);
        (void)cudaEventRecord(t1, d->stream);
        if (st == APR_GPU_OK) st = gpu_wait(d, "empty launches", e);
        if (st == APR_GPU_OK) st = gpu_cuda(cudaEventElapsedTime(&ms, t0, t1), "empty launches", e);
        if (ms < best) best = ms;
    }
    cudaEventDestroy(t0);
    cudaEventDestroy(t1);
    *s = 1e-3 * best;
    return st;
}

enum apr_gpu_status launch_cost(struct apr_gpu_device *d, uint32_t n, double *s, struct apr_gpu_err *e)
{
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    enum apr_gpu_status st = APR_GPU_OK;
    GPU_TRY(gpu_enter(d, e));
    if (n == 0) return gpu_fail(e, APR_GPU_FAILED, "the cost of no launches");
    CU(cudaStreamBeginCapture(d->stream, cudaStreamCaptureModeThreadLocal), "capture");
    for (uint32_t i = 0; i < n && st == APR_GPU_OK; i++)
        st = gpu_launch(d, (const void *)empty_kernel, dim3((unsigned)d->n_sm), 128, 0, NULL, d->stream,
                        "an empty kernel", e);
    cudaError_t c = cudaStreamEndCapture(d->stream, &graph);
    if (st == APR_GPU_OK) st = gpu_cuda(c, "capture", e);
    if (st == APR_GPU_OK) st = gpu_cuda(cudaGraphInstantiate(&exec, graph, 0), "graph", e);
    if (st == APR_GPU_OK) st = time_graph(d, exec, s, e);
    *s /= n;
    if (exec) cudaGraphExecDestroy(exec);
    if (graph) cudaGraphDestroy(graph);
    return st;
}

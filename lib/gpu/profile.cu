/* Where the time of a step goes: the step's graph once more, with an event behind every launch. */
#include "model.cuh"

#include <stdlib.h>

#define N_MARKS 2048u

struct marks {
    uint32_t n;
    cudaEvent_t at[N_MARKS];
    const char *what[N_MARKS];
};

void gpu_mark(const struct apr_gpu_device *d, const char *what, cudaStream_t s)
{
    struct marks *k = d->marks;
    if (!k || k->n == N_MARKS) return;
    if (cudaEventCreate(&k->at[k->n]) != cudaSuccess) return;
    k->what[k->n] = what;
    if (cudaEventRecordWithFlags(k->at[k->n++], s, cudaEventRecordExternal) != cudaSuccess)
        (void)cudaGetLastError(); /* the event was never recorded: its time is an error */
}

static enum apr_gpu_status run(struct apr_gpu_model *m, const struct apr_gpu_part *parts, uint32_t n_parts,
                               cudaGraphExec_t *exec, struct apr_gpu_err *e)
{
    struct apr_gpu_seq *seqs[LOGIT_ROWS];
    int32_t ids[LOGIT_ROWS];
    cudaStream_t q = m->dev->stream;
    cudaGraph_t graph = NULL;
    for (uint32_t i = 0; i < n_parts; i++) seqs[i] = parts[i].seq, ids[i] = parts[i].ids[0];
    CU(cudaStreamBeginCapture(q, cudaStreamCaptureModeThreadLocal), "capture of a step");
    gpu_mark(m->dev, "", q);
    enum apr_gpu_status s = n_parts == 1 ? one_issue(seqs[0], e) : batch_issue(m, n_parts, e);
    gpu_mark(m->dev, "choice of a token", q);
    cudaError_t c = cudaStreamEndCapture(q, &graph);
    if (s == APR_GPU_OK) s = gpu_cuda(c, "capture of a step", e);
    if (s == APR_GPU_OK) s = gpu_cuda(cudaGraphInstantiate(exec, graph, 0), "graph of a step", e);
    if (graph) cudaGraphDestroy(graph);
    for (int i = 0; i < 3 && s == APR_GPU_OK; i++) { /* the last one counts: code and clocks are warm */
        s = n_parts == 1 ? one_begin(seqs[0], ids[0], e) : batch_begin(m, seqs, ids, n_parts, e);
        if (s == APR_GPU_OK) s = gpu_cuda(cudaGraphLaunch(*exec, q), "a step", e);
        if (s == APR_GPU_OK) s = gpu_cuda(cudaStreamSynchronize(q), "a step", e);
    }
    return s;
}

enum apr_gpu_status profile(struct apr_gpu_model *m, const struct apr_gpu_part *parts, uint32_t n_parts,
                            struct apr_gpu_time *out, uint32_t *n, struct apr_gpu_err *e)
{
    cudaGraphExec_t exec = NULL;
    uint32_t n_room = *n;
    *n = 0;
    CU(cudaSetDevice(m->dev->i), "device");
    if (m->opts.exact || n_parts == 0 || n_parts > LOGIT_ROWS || (n_parts > 1 && !m->can_few))
        return gpu_fail(e, APR_GPU_UNSUPPORTED, "a profile of %u sequences", n_parts);
    for (uint32_t i = 0; i < n_parts; i++)
        if (parts[i].n != 1 || parts[i].seq->n_pos == parts[i].seq->n_ctx)
            return gpu_fail(e, APR_GPU_UNSUPPORTED, "a profile takes one token of each sequence");
    for (uint32_t i = 0; i < n_parts; i++) GPU_TRY(seq_hold(parts[i].seq, parts[i].seq->n_pos + 1, e));
    struct marks *k = (struct marks *)calloc(1, sizeof *k);
    if (!k) return gpu_fail(e, APR_GPU_MEMORY, "no memory for a profile");
    m->dev->marks = k;
    enum apr_gpu_status s = run(m, parts, n_parts, &exec, e);
    m->dev->marks = NULL;
    for (uint32_t i = 1; i < k->n && s == APR_GPU_OK && *n < n_room; i++) {
        float ms = 0;
        s = gpu_cuda(cudaEventElapsedTime(&ms, k->at[i - 1], k->at[i]), "time of a launch", e);
        out[(*n)++] = {k->what[i], 1e-3 * ms};
    }
    for (uint32_t i = 0; i < k->n; i++) cudaEventDestroy(k->at[i]);
    if (exec) cudaGraphExecDestroy(exec);
    free(k);
    return s;
}

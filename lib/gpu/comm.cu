/* Short sums over devices through each other's memory, in one kernel; long ones by NCCL.
 *
 * Every device has a slot for each of the others, twice (for every other exchange). An exchange is one launch
 * of N_BLOCKS blocks: a block writes its slice into its slot on every device, raises its flag there to the
 * number of the exchange, waits for the flags of the others, and adds the slices in the order of the devices:
 * the same bits everywhere. Bytes moved: n - 1 times the slice out and in; the bound is the latency of a
 * write and a flag over NVLink. Sums of one or a few tokens (LINE_FLOATS) go in lines of 16 bytes, two values
 * each with the number of the exchange, so that a value and its flag arrive at once: one way instead of two.
 * A slot is written again only two exchanges later: then the exchange between has brought something from its
 * reader, which had read the slot before that.
 */
#include "async.cuh"
#include "comm.cuh"

#include <pthread.h>
#include <stdlib.h>

#define N_BLOCKS    32u
#define N_THREADS   256u
#define SLOT        (1u << 19)   /* floats */
#define LINE_FLOATS 32768u       /* most of a sum in lines */
#define MANY_BYTES  (512u << 10) /* that a device sends: NCCL's rings are faster from here on */

struct peers {                        /* what an exchange needs; lives in constant kernel arguments */
    float *slots[APR_GPU_DEVICES];    /* [2][n][SLOT] of each device */
    unsigned *flags[APR_GPU_DEVICES]; /* [n][N_BLOCKS] of each device */
    uint4 *lines[APR_GPU_DEVICES];    /* [2][n][LINE_FLOATS / 2] of each device */
    unsigned *epoch;                  /* [N_BLOCKS] of this device: exchanges so far */
    const volatile int *stop;         /* on the host */
    uint32_t i, n;
    bool early; /* the next launch may take its place while this one waits */
};
struct end {
    struct comm comm;
    struct peers peers;
};
struct comm_net {
    struct apr_gpu_device *dev[APR_GPU_DEVICES];
    struct end ends[APR_GPU_DEVICES];
    uint32_t n;
    enum apr_gpu_link link;
    bool has_peers;
    struct nccl *nccl;
    int *stop; /* pinned: 1 ends kernels that wait */
    pthread_mutex_t lock;
    pthread_cond_t all_here;
    uint32_t n_here, i_meeting;
    bool aborted;
};

/* ---- the exchange -----------------------------------------------------------------------------------------
 */

static __device__ __forceinline__ void raise_flag(unsigned *flag, unsigned to)
{
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(flag), "r"(to) : "memory");
}
static __device__ __forceinline__ unsigned see_flag(const unsigned *flag)
{
    unsigned v;
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(v) : "l"(flag) : "memory");
    return v;
}

/* from: n floats in whole fours, 16-byte aligned. SUM: to[k] is the sum of all devices' k-th. Otherwise a
 * device's floats are rows of n_rows (the last device's of n_all less those of the others), and to is
 * [tokens, n_all]. */
struct exchange {
    const float *from;
    float *to;
    uint32_t n, n_each, n_all, n_toks;
};

static __device__ __forceinline__ void send(const struct peers &p, const struct exchange &x, uint32_t parity,
                                            uint32_t k0, uint32_t k1)
{
    for (uint32_t r = 1; r < p.n; r++) {
        const uint32_t j = (p.i + r) % p.n; /* not all to the same at once */
        float4 *to = (float4 *)(p.slots[j] + (uint64_t)(parity * p.n + p.i) * SLOT);
        for (uint32_t k = k0 + threadIdx.x; k < k1; k += N_THREADS) to[k] = ((const float4 *)x.from)[k];
    }
    __threadfence_system();
    __syncthreads();
}
static __device__ __forceinline__ void await(const struct peers &p, unsigned epoch)
{
    const uint32_t j = threadIdx.x;
    if (j < p.n && j != p.i) {
        raise_flag(&p.flags[j][p.i * N_BLOCKS + blockIdx.x], epoch);
        const unsigned *flag = &p.flags[p.i][j * N_BLOCKS + blockIdx.x];
        for (uint32_t k = 1; (int)(see_flag(flag) - epoch) < 0; k++)
            if (k % 4096 == 0 && *p.stop) break;
    }
    __syncthreads();
}

template <bool SUM>
static __global__ void __launch_bounds__(N_THREADS)
    exchange_kernel(const __grid_constant__ peers p, const __grid_constant__ exchange x)
{
    const uint32_t n4 = (x.n + 3) / 4, k0 = (uint32_t)((uint64_t)n4 * blockIdx.x / N_BLOCKS),
                   k1 = (uint32_t)((uint64_t)n4 * (blockIdx.x + 1) / N_BLOCKS);
    if (p.early) let_next_start();
    wait_for_input();
    const unsigned epoch = p.epoch[blockIdx.x] + 1;
    const uint32_t parity = epoch & 1;
    const float4 *mine = (const float4 *)(p.slots[p.i] + (uint64_t)parity * p.n * SLOT);
    send(p, x, parity, k0, k1);
    await(p, epoch);
    if (threadIdx.x == 0) p.epoch[blockIdx.x] = epoch;
    for (uint32_t k = k0 + threadIdx.x; k < k1; k += N_THREADS) {
        float4 sum = make_float4(0, 0, 0, 0);
        for (uint32_t r = 0; r < p.n; r++) {
            float4 v = r == p.i ? ((const float4 *)x.from)[k] : __ldcg(mine + (uint64_t)r * (SLOT / 4) + k);
            if (SUM) {
                sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
                continue;
            }
            const float w[4] = {v.x, v.y, v.z, v.w};
            const uint32_t n_rows = r + 1 == p.n ? x.n_all - r * x.n_each : x.n_each;
            for (uint32_t l = 4 * k; l < 4 * k + 4; l++)
                if (l < x.n_toks * n_rows)
                    x.to[(uint64_t)(l / n_rows) * x.n_all + r * x.n_each + l % n_rows] = w[l % 4];
        }
        if (SUM) ((float4 *)x.to)[k] = sum;
    }
}

/* A value, its flag, twice. Neither compiler nor cache may keep one: other devices write them. */
static __device__ __forceinline__ void put_line(uint4 *to, float2 v, unsigned epoch)
{
    asm volatile("st.volatile.global.v4.u32 [%0], {%1, %2, %3, %2};" ::"l"(to), "r"(__float_as_uint(v.x)),
                 "r"(epoch), "r"(__float_as_uint(v.y))
                 : "memory");
}
static __device__ __forceinline__ float2 await_line(const uint4 *from, unsigned epoch,
                                                    const volatile int *stop)
{
    uint4 v;
    for (uint32_t k = 1;; k++) {
        asm volatile("ld.volatile.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                     : "l"(from)
                     : "memory");
        if ((v.y == epoch && v.w == epoch) || (k % 4096 == 0 && *stop)) break;
    }
    return make_float2(__uint_as_float(v.x), __uint_as_float(v.z));
}

/* x: n floats, an even number, 8-byte aligned. */
static __global__ void __launch_bounds__(N_THREADS)
    line_kernel(const __grid_constant__ peers p, float *x, uint32_t n)
{
    const uint32_t n2 = n / 2, k0 = n2 * blockIdx.x / N_BLOCKS, k1 = n2 * (blockIdx.x + 1) / N_BLOCKS;
    float2 *xs = (float2 *)x;
    if (p.early) let_next_start();
    wait_for_input();
    const unsigned epoch = p.epoch[blockIdx.x] + 1;
    const uint32_t half = (epoch & 1) * p.n * (LINE_FLOATS / 2);
    for (uint32_t k = k0 + threadIdx.x; k < k1; k += N_THREADS)
        for (uint32_t r = 1; r < p.n; r++)
            put_line(p.lines[(p.i + r) % p.n] + half + p.i * (LINE_FLOATS / 2) + k, xs[k], epoch);
    for (uint32_t k = k0 + threadIdx.x; k < k1; k += N_THREADS) {
        float2 sum = make_float2(0, 0);
        for (uint32_t r = 0; r < p.n; r++) {
            const uint4 *from = p.lines[p.i] + half + r * (LINE_FLOATS / 2) + k;
            const float2 v = r == p.i ? xs[k] : await_line(from, epoch, p.stop);
            sum.x += v.x, sum.y += v.y;
        }
        xs[k] = sum;
    }
    __syncthreads();
    if (threadIdx.x == 0) p.epoch[blockIdx.x] = epoch;
}

/* all: [n][n_toks rows of n_each] -> out: [n_toks, n_all] */
static __global__ void spread_kernel(const float *all, uint32_t n_toks, uint32_t n_each, uint32_t n,
                                     uint32_t n_all, float *out)
{
    const uint32_t i = blockIdx.x * 256 + threadIdx.x, t = blockIdx.y;
    if (i >= n_all) return;
    const uint32_t r = i / n_each, n_rows = r + 1 == n ? n_all - r * n_each : n_each;
    out[(uint64_t)t * n_all + i] =
        all[(uint64_t)r * n_toks * n_each + (uint64_t)t * n_rows + (i - r * n_each)];
}

/* Ranks of one device: loading a kernel may wait for those that run, which wait for each other. */
static enum apr_gpu_status be_alone(struct apr_gpu_device *d, struct apr_gpu_err *e)
{
    cudaStreamCaptureStatus capturing;
    if (d->comm->net->link != APR_GPU_LINK_SAME) return APR_GPU_OK;
    CU(cudaStreamIsCapturing(d->stream, &capturing), "stream");
    if (capturing != cudaStreamCaptureStatusNone) return APR_GPU_OK;
    GPU_TRY(gpu_wait(d, "an exchange", e));
    return comm_meet(d, e);
}

static enum apr_gpu_status exchange(struct apr_gpu_device *d, const struct exchange *x, bool sum,
                                    struct apr_gpu_err *e)
{
    struct peers *p = &d->comm->net->ends[d->comm->i].peers;
    const void *kernel = sum ? (const void *)exchange_kernel<true> : (const void *)exchange_kernel<false>;
    void *args[] = {p, (void *)x, NULL};
    if (sum && x->n <= LINE_FLOATS && x->n % 2 == 0)
        kernel = (const void *)line_kernel, args[1] = (void *)&x->to, args[2] = (void *)&x->n;
    GPU_TRY(be_alone(d, e));
    return gpu_launch(d, kernel, dim3(N_BLOCKS), N_THREADS, 0, args, d->stream, "exchange", e);
}

static enum apr_gpu_status check_alive(const struct comm_net *net, struct apr_gpu_err *e)
{
    return net->aborted ? gpu_fail(e, APR_GPU_LOST, "another device failed") : APR_GPU_OK;
}

/* Through slots where NCCL would be slower, or is not there. */
static bool by_slots(const struct comm_net *net, uint64_t n)
{
    if (net->nccl) return net->has_peers && n <= SLOT && 4 * n * (net->n - 1) <= MANY_BYTES;
    return true;
}

enum apr_gpu_status comm_sum(struct apr_gpu_device *d, float *x, uint64_t n, struct apr_gpu_err *e)
{
    if (!d->comm) return APR_GPU_OK;
    struct comm_net *net = d->comm->net;
    GPU_TRY(check_alive(net, e));
    if (!by_slots(net, n)) {
        GPU_TRY(nccl_sum(net->nccl, d->comm->i, x, n, d->stream, e));
        gpu_mark(d, "sum over devices", d->stream);
        return APR_GPU_OK;
    }
    for (uint64_t i = 0; i < n; i += SLOT) {
        const struct exchange ex = {x + i, x + i, (uint32_t)(n - i < SLOT ? n - i : SLOT), 0, 0, 0};
        GPU_TRY(exchange(d, &ex, true, e));
    }
    return APR_GPU_OK;
}

uint32_t comm_share(const struct apr_gpu_device *d, uint32_t n_all)
{
    if (!d->comm) return n_all;
    const uint32_t n_each = comm_each(n_all, d->comm->n);
    return d->comm->i + 1 == d->comm->n ? n_all - d->comm->i * n_each : n_each;
}

enum apr_gpu_status comm_rows(struct apr_gpu_device *d, const float *part, uint32_t n_toks, uint32_t n_all,
                              float *all, float *out, struct apr_gpu_err *e)
{
    if (!d->comm) return APR_GPU_OK;
    struct comm_net *net = d->comm->net;
    const uint32_t n_each = comm_each(n_all, net->n), n_mine = comm_share(d, n_all);
    GPU_TRY(check_alive(net, e));
    if (!by_slots(net, (uint64_t)n_toks * n_each)) {
        GPU_TRY(nccl_gather(net->nccl, d->comm->i, part, (uint64_t)n_toks * n_each, all, d->stream, e));
        spread_kernel<<<dim3((n_all + 255) / 256, n_toks), 256, 0, d->stream>>>(all, n_toks, n_each, net->n,
                                                                                n_all, out);
        gpu_mark(d, "gathering", d->stream);
        return gpu_cuda(cudaGetLastError(), "gathering", e);
    }
    const uint32_t n_most = SLOT / n_each & ~3u; /* pieces begin at whole fours */
    if (n_most == 0 && n_toks > SLOT / n_each)
        return gpu_fail(e, APR_GPU_UNSUPPORTED, "%u tokens of %u rows without NCCL", n_toks, n_each);
    for (uint32_t t = 0, k; t < n_toks; t += k) {
        k = n_toks <= SLOT / n_each ? n_toks : n_toks - t < n_most ? n_toks - t : n_most;
        const struct exchange ex = {
            part + (uint64_t)t * n_mine, out + (uint64_t)t * n_all, k * n_each, n_each, n_all, k};
        GPU_TRY(exchange(d, &ex, false, e));
    }
    return APR_GPU_OK;
}

/* ---- threads ----------------------------------------------------------------------------------------------
 */

enum apr_gpu_status comm_meet(struct apr_gpu_device *d, struct apr_gpu_err *e)
{
    if (!d->comm) return APR_GPU_OK;
    struct comm_net *net = d->comm->net;
    pthread_mutex_lock(&net->lock);
    const uint32_t i_meeting = net->i_meeting;
    if (++net->n_here == net->n) {
        net->n_here = 0;
        net->i_meeting++;
        pthread_cond_broadcast(&net->all_here);
    }
    while (net->i_meeting == i_meeting && !net->aborted) pthread_cond_wait(&net->all_here, &net->lock);
    enum apr_gpu_status s = check_alive(net, e);
    pthread_mutex_unlock(&net->lock);
    return s;
}

enum apr_gpu_status comm_launch(struct apr_gpu_device *d, cudaGraphExec_t graph, struct apr_gpu_err *e)
{
    const bool same = d->comm && d->comm->net->link == APR_GPU_LINK_SAME;
    if (same) {
        CU(cudaGraphUpload(graph, d->stream), "a step");
        GPU_TRY(gpu_wait(d, "a step", e));
        GPU_TRY(comm_meet(d, e));
    }
    CU(cudaGraphLaunch(graph, d->stream), "a step");
    return same ? gpu_wait(d, "a step", e) : APR_GPU_OK;
}

void comm_abort(struct comm_net *net)
{
    pthread_mutex_lock(&net->lock);
    net->aborted = true;
    *net->stop = 1;
    pthread_cond_broadcast(&net->all_here);
    pthread_mutex_unlock(&net->lock);
    nccl_abort(net->nccl);
}

/* ---- opening ----------------------------------------------------------------------------------------------
 */

static bool reach_each_other(struct apr_gpu_device *const *d, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; j < n; j++) {
            int can = 0;
            if (d[i]->i == d[j]->i) continue;
            if (cudaDeviceCanAccessPeer(&can, d[i]->i, d[j]->i) != cudaSuccess || !can) {
                (void)cudaGetLastError();
                return false;
            }
        }
    return true;
}

static enum apr_gpu_status reach(struct apr_gpu_device *const *d, uint32_t n, struct apr_gpu_err *e)
{
    for (uint32_t i = 0; i < n; i++) {
        CU(cudaSetDevice(d[i]->i), "device");
        for (uint32_t j = 0; j < n; j++) {
            if (d[i]->i == d[j]->i) continue;
            cudaError_t c = cudaDeviceEnablePeerAccess(d[j]->i, 0);
            if (c == cudaErrorPeerAccessAlreadyEnabled)
                (void)cudaGetLastError();
            else
                CU(c, "access to another device");
        }
    }
    return APR_GPU_OK;
}

static enum apr_gpu_status open_slots(struct comm_net *net, struct apr_gpu_err *e)
{
    const uint64_t n_slots = 2ull * net->n * SLOT * sizeof(float), n_flags = 4ull * net->n * N_BLOCKS,
                   n_lines = 2ull * net->n * (LINE_FLOATS / 2) * sizeof(uint4);
    struct peers p = {};
    GPU_TRY(reach(net->dev, net->n, e));
    p.stop = net->stop, p.n = net->n;
    p.early = net->link != APR_GPU_LINK_SAME; /* there, who waits would take the place of whom it waits for */
    for (uint32_t i = 0; i < net->n; i++) {
        CU(cudaSetDevice(net->dev[i]->i), "device");
        CU(cudaMalloc((void **)&p.slots[i], n_slots), "slots of sums");
        net->ends[i].peers.slots[i] = p.slots[i]; /* so that close finds it */
        CU(cudaMalloc((void **)&p.flags[i], n_flags), "flags of sums");
        net->ends[i].peers.flags[i] = p.flags[i];
        CU(cudaMemset(p.flags[i], 0, n_flags), "flags of sums");
        CU(cudaMalloc((void **)&p.lines[i], n_lines), "lines of sums");
        net->ends[i].peers.lines[i] = p.lines[i];
        CU(cudaMemset(p.lines[i], 0, n_lines), "lines of sums");
        CU(cudaMalloc((void **)&net->ends[i].peers.epoch, 4 * N_BLOCKS), "flags of sums");
        CU(cudaMemset(net->ends[i].peers.epoch, 0, 4 * N_BLOCKS), "flags of sums");
        CU(cudaDeviceSynchronize(), "flags of sums");
    }
    for (uint32_t i = 0; i < net->n; i++) {
        unsigned *epoch = net->ends[i].peers.epoch;
        net->ends[i].peers = p;
        net->ends[i].peers.epoch = epoch, net->ends[i].peers.i = i;
    }
    net->has_peers = true;
    return APR_GPU_OK;
}

static enum apr_gpu_status fill(struct comm_net *net, struct apr_gpu_err *e)
{
    CU(cudaHostAlloc((void **)&net->stop, sizeof *net->stop, cudaHostAllocPortable), "pinned memory");
    *net->stop = 0;
    if (net->link != APR_GPU_LINK_SAME) GPU_TRY(nccl_open(net->dev, net->n, &net->nccl, e));
    if (net->link == APR_GPU_LINK_NCCL || !reach_each_other(net->dev, net->n)) return APR_GPU_OK;
    return open_slots(net, e);
}

enum apr_gpu_status comm_open(struct apr_gpu_device *const *d, uint32_t n, enum apr_gpu_link link,
                              struct comm_net **out, struct apr_gpu_err *e)
{
    struct comm_net *net = (struct comm_net *)calloc(1, sizeof *net);
    if (!net) return gpu_fail(e, APR_GPU_MEMORY, "no memory for a link");
    pthread_mutex_init(&net->lock, NULL);
    pthread_cond_init(&net->all_here, NULL);
    net->n = n, net->link = link;
    for (uint32_t i = 0; i < n; i++) net->dev[i] = d[i];
    enum apr_gpu_status s = fill(net, e);
    if (s != APR_GPU_OK) return comm_close(net), s;
    for (uint32_t i = 0; i < n; i++) {
        net->ends[i].comm = {net, i, n};
        d[i]->comm = &net->ends[i].comm;
    }
    *out = net;
    return APR_GPU_OK;
}

void comm_close(struct comm_net *net)
{
    if (!net) return;
    nccl_close(net->nccl);
    for (uint32_t i = 0; i < net->n; i++) {
        const struct peers *p = &net->ends[i].peers;
        (void)cudaSetDevice(net->dev[i]->i);
        cudaFree(p->slots[i]);
        cudaFree(p->flags[i]);
        cudaFree(p->lines[i]);
        cudaFree(p->epoch);
        net->dev[i]->comm = NULL;
    }
    cudaFreeHost(net->stop);
    pthread_cond_destroy(&net->all_here);
    pthread_mutex_destroy(&net->lock);
    free(net);
}

/* What stands between the matrices of the general pass: norms, activations, residuals, the choice of experts.
 *
 * All are bound by the memory or by launch time; sums are F32 in a fixed tree.
 */
#include "async.cuh"
#include "general.cuh"

#include "../config.h"

#define N_THREADS 256

static __device__ float warp_sum(float v)
{
#pragma unroll
    for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
    return v;
}
static __device__ float block_sum(float v)
{
    __shared__ float room[N_THREADS / 32];
    v = warp_sum(v);
    __syncthreads(); /* the last sum has been read */
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = v;
    __syncthreads();
    v = 0;
    for (int i = 0; i < N_THREADS / 32; i++) v += room[i];
    return v;
}

/* One block a row: y = (x - mean) / sqrt(variance + eps) * w + b, or without b x / rms * w. A thread reads
 * what it has written itself, no other's. */
static __device__ void norm_row(const float *row, const float *w, const float *b, float eps, uint32_t n,
                                float *y)
{
    float mean = 0, sum = 0;
    if (b) {
        for (uint32_t i = threadIdx.x; i < n; i += N_THREADS) sum += row[i];
        mean = block_sum(sum) / (float)n;
        sum = 0;
    }
    for (uint32_t i = threadIdx.x; i < n; i += N_THREADS) sum += (row[i] - mean) * (row[i] - mean);
    const float factor = 1.0f / sqrtf(block_sum(sum) / (float)n + eps);
    for (uint32_t i = threadIdx.x; i < n; i += N_THREADS)
        y[i] = (row[i] - mean) * factor * w[i] + (b ? b[i] : 0.0f);
}
static __global__ void norm_kernel(const float *x, const float *w, const float *b, float eps, uint32_t n,
                                   float *y)
{
    let_next_start();
    wait_for_input();
    norm_row(x + (uint64_t)blockIdx.x * n, w, b, eps, n, y + (uint64_t)blockIdx.x * n);
}
enum apr_gpu_status norm_rows(const struct apr_gpu_device *d, const float *x, const float *w, const float *b,
                              float eps, uint32_t n, uint32_t n_cols, float *y, cudaStream_t s,
                              struct apr_gpu_err *e)
{
    void *args[] = {&x, &w, &b, &eps, &n_cols, &y};
    return gpu_launch(d, (const void *)norm_kernel, dim3(n), N_THREADS, 0, args, s, "norm", e);
}

static __global__ void residual_kernel(residual r, uint32_t n)
{
    const float *add = r.y + (uint64_t)blockIdx.x * n;
    float *row = r.x + (uint64_t)blockIdx.x * n, factor = 1, sum = 0;
    let_next_start();
    wait_for_input();
    if (r.post) {
        for (uint32_t i = threadIdx.x; i < n; i += N_THREADS) sum += add[i] * add[i];
        factor = 1.0f / sqrtf(block_sum(sum) / (float)n + r.eps);
    }
    for (uint32_t i = threadIdx.x; i < n; i += N_THREADS)
        row[i] += r.scale * (r.post ? add[i] * factor * r.post[i] : add[i]);
    if (r.w) norm_row(row, r.w, r.b, r.eps, n, r.h + (uint64_t)blockIdx.x * n);
}
enum apr_gpu_status residual_rows(const struct apr_gpu_device *d, const struct residual *r, uint32_t n,
                                  uint32_t n_cols, cudaStream_t s, struct apr_gpu_err *e)
{
    void *args[] = {(void *)r, &n_cols};
    return gpu_launch(d, (const void *)residual_kernel, dim3(n), N_THREADS, 0, args, s, "residual", e);
}

/* ---- activations: enum apr_activation ---- */

struct silu {
    static __device__ float of(float x) { return x / (1.0f + expf(-x)); }
};
struct gelu {
    static __device__ float of(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678f)); }
};
struct gelu_tanh {
    static __device__ float of(float x)
    {
        return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
    }
};
struct relu {
    static __device__ float of(float x) { return x < 0 ? 0.0f : x; } /* NaN passes */
};
template <class ACT> static __global__ void activate_kernel(float *up, const float *gate, uint64_t n)
{
    const uint64_t i = (uint64_t)blockIdx.x * N_THREADS + threadIdx.x;
    let_next_start();
    wait_for_input();
    if (i < n) up[i] = gate ? ACT::of(gate[i]) * up[i] : ACT::of(up[i]);
}
enum apr_gpu_status activate(const struct apr_gpu_device *d, uint32_t activation, float *up,
                             const float *gate, uint64_t n, cudaStream_t s, struct apr_gpu_err *e)
{
    static const void *const kernels[] = {
        (const void *)activate_kernel<silu>, (const void *)activate_kernel<gelu>,
        (const void *)activate_kernel<gelu_tanh>, (const void *)activate_kernel<relu>};
    static_assert(APR_SILU == 0 && APR_GELU == 1 && APR_GELU_TANH == 2 && APR_RELU == 3, "order of kernels");
    void *args[] = {&up, &gate, &n};
    return gpu_launch(d, kernels[activation], dim3((unsigned)((n + N_THREADS - 1) / N_THREADS)), N_THREADS, 0,
                      args, s, "activation", e);
}

/* ---- ends ---- */

/* The row of the position is added; as embed_rows, a lane a piece. */
static __global__ void positions_kernel(struct mat m, const struct step *rows, float *out)
{
    const int32_t pos = rows[blockIdx.x].pos;
    if (pos < 0 || (uint32_t)pos >= m.n_rows) return; /* the host has refused the latter */
    const uint32_t row = (uint32_t)pos;
    float *x = out + (uint64_t)blockIdx.x * m.n_cols;
    for (uint32_t i = threadIdx.x; i < m.n_chunks * 8; i += blockDim.x) {
        float v[32];
        const uint32_t c = i / 8;
        const uint8_t *t = m.tiles + ((uint64_t)(row / TILE_ROWS) * m.n_chunks + c) * tile_bytes(m.kind);
        const uint32_t n = (uint32_t)tile_values(m.kind, t, (int)(row % TILE_ROWS / 4),
                                                 (int)(row % 4 * 8 + i % 8), v),
                       col = c * tile_cols(m.kind) + i % 8 * n;
        for (uint32_t k = 0; k < n; k++)
            if (col + k < m.n_cols) x[col + k] += v[k];
    }
}
void add_positions(const struct mat *positions, const struct step *rows, uint32_t n, float *x, cudaStream_t s)
{
    positions_kernel<<<n, 128, 0, s>>>(*positions, rows, x);
}

static __global__ void logits_kernel(float *x, uint64_t n, float scale, float softcap)
{
    const uint64_t i = (uint64_t)blockIdx.x * N_THREADS + threadIdx.x;
    if (i >= n) return;
    const float v = x[i] * scale;
    x[i] = softcap > 0 ? softcap * tanhf(v / softcap) : v;
}
void finish_logits(float *logits, uint64_t n, float scale, float softcap, cudaStream_t s)
{
    if (scale == 1 && !(softcap > 0)) return;
    logits_kernel<<<(unsigned)((n + N_THREADS - 1) / N_THREADS), N_THREADS, 0, s>>>(logits, n, scale,
                                                                                    softcap);
}

static __global__ void widen_kernel(const __half *x, uint64_t n, float *y)
{
    const uint64_t i = (uint64_t)blockIdx.x * N_THREADS + threadIdx.x;
    if (i < n) y[i] = __half2float(x[i]);
}
void widen_rows(const __half *x, uint64_t n, float *y, cudaStream_t s)
{
    widen_kernel<<<(unsigned)((n + N_THREADS - 1) / N_THREADS), N_THREADS, 0, s>>>(x, n, y);
}

/* ---- experts ---- */

struct choice {
    uint32_t n, n_used, n_groups, n_groups_used;
    bool sigmoid, norm_topk;
    float scale;
    const float *bias;
};

/* The same on all lanes; the first of equals. */
static __device__ uint32_t best_of(const float *x, uint32_t n, int lane)
{
    float top = -INFINITY;
    uint32_t at = n;
    for (uint32_t i = (uint32_t)lane; i < n; i += 32)
        if (x[i] > top) top = x[i], at = i;
#pragma unroll
    for (int o = 16; o; o >>= 1) {
        const float v = __shfl_xor_sync(~0u, top, o);
        const uint32_t k = __shfl_xor_sync(~0u, at, o);
        if (v > top || (v == top && k < at)) top = v, at = k;
    }
    return at < n ? at : 0; /* NaN throughout: an expert that exists */
}

/* Experts outside the best groups become -inf; a group is worth its best expert, or its best two where a bias
 * steers the choice (DeepSeek-V2, 2.2.2; DeepSeek-V3, 2.1.2). */
static __device__ void limit_groups(const choice &c, float *x)
{
    const uint32_t n_each = c.n / c.n_groups;
    for (uint32_t n_drop = c.n_groups - c.n_groups_used; n_drop; n_drop--) {
        uint32_t worst = c.n_groups;
        float worst_score = 0;
        for (uint32_t g = 0; g < c.n_groups; g++) {
            float first = -INFINITY, second = -INFINITY;
            for (uint32_t i = 0; i < n_each; i++) {
                const float v = x[g * n_each + i];
                if (v > first)
                    second = first, first = v;
                else if (v > second)
                    second = v;
            }
            const float s = c.bias && n_each > 1 ? first + second : first;
            if (s > -INFINITY && (worst == c.n_groups || s <= worst_score)) worst = g, worst_score = s;
        }
        if (worst == c.n_groups) return;
        for (uint32_t i = 0; i < n_each; i++) x[worst * n_each + i] = -INFINITY;
    }
}

/* One warp a token. room: [2 n]. */
static __global__ void choose_kernel(choice c, const float *scores, uint32_t *expert, float *weight)
{
    extern __shared__ float room[];
    float *p = room, *x = room + c.n, top = -INFINITY, sum = 0;
    const uint32_t t = blockIdx.x;
    const int lane = (int)threadIdx.x;
    scores += (uint64_t)t * c.n;
    for (uint32_t i = (uint32_t)lane; i < c.n; i += 32) top = fmaxf(top, scores[i]);
#pragma unroll
    for (int o = 16; o; o >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, o));
    for (uint32_t i = (uint32_t)lane; i < c.n; i += 32) {
        p[i] = c.sigmoid ? (float)(1 / (1 + exp(-(double)scores[i]))) : expf(scores[i] - top);
        sum += p[i];
    }
    sum = warp_sum(sum);
    for (uint32_t i = (uint32_t)lane; i < c.n; i += 32) {
        if (!c.sigmoid) p[i] /= sum;
        x[i] = p[i] + (c.bias ? c.bias[i] : 0.0f);
    }
    __syncwarp();
    if (c.n_groups > 1 && lane == 0) limit_groups(c, x);
    __syncwarp();
    double total = 0;
    for (uint32_t k = 0; k < c.n_used; k++) {
        const uint32_t at = best_of(x, c.n, lane);
        total += (double)p[at];
        __syncwarp();
        if (lane == 0) {
            x[at] = -INFINITY;
            expert[t * c.n_used + k] = at;
            weight[t * c.n_used + k] = p[at];
        }
        __syncwarp();
    }
    double scale = (double)c.scale;
    if (c.norm_topk) scale /= total + 1e-20;
    for (uint32_t k = (uint32_t)lane; k < c.n_used; k += 32) {
        float *w = &weight[t * c.n_used + k];
        *w = (float)((double)*w * scale);
    }
}
void choose_experts(const struct general *g, const float *bias, uint32_t n, cudaStream_t s)
{
    const choice c = {g->n_experts,      g->n_used,    g->n_groups,     g->n_groups_used,
                      g->router_sigmoid, g->norm_topk, g->expert_scale, bias};
    choose_kernel<<<n, 32, 8 * g->n_experts, s>>>(c, g->scores, g->expert, g->weight);
}

uint32_t group_slots(const struct general *g, uint32_t n_items)
{
    return (n_items + GROUP - 1) / GROUP * GROUP + g->n_experts * GROUP;
}
/* One block. counts: [n_experts], then where the next item of each goes. The order within an expert is any:
 * items are computed by themselves. */
static __global__ void group_kernel(const uint32_t *expert, uint32_t n_items, uint32_t n_experts,
                                    uint32_t n_slots, int32_t *order)
{
    extern __shared__ uint32_t counts[];
    for (uint32_t i = threadIdx.x; i < n_experts; i += blockDim.x) counts[i] = 0;
    for (uint32_t i = threadIdx.x; i < n_slots; i += blockDim.x) order[i] = -1;
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < n_items; i += blockDim.x) atomicAdd(&counts[expert[i]], 1u);
    __syncthreads();
    if (threadIdx.x == 0)
        for (uint32_t i = 0, at = 0; i < n_experts; i++) {
            const uint32_t n = counts[i];
            counts[i] = at;
            at += (n + GROUP - 1) / GROUP * GROUP;
        }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < n_items; i += blockDim.x)
        order[atomicAdd(&counts[expert[i]], 1u)] = (int32_t)i;
}
void group_experts(const struct general *g, uint32_t n_items, cudaStream_t s)
{
    group_kernel<<<1, 1024, 4 * g->n_experts, s>>>(g->expert, n_items, g->n_experts, group_slots(g, n_items),
                                                   g->order);
}

/* Shares in the order of their scores. */
static __global__ void combine_kernel(const float *out, const float *weight, uint32_t n_used, uint32_t n,
                                      float *y)
{
    const uint32_t i = blockIdx.x * N_THREADS + threadIdx.x, t = blockIdx.y;
    if (i >= n) return;
    float v = 0;
    for (uint32_t k = t * n_used; k < (t + 1) * n_used; k++) v = fmaf(weight[k], out[(uint64_t)k * n + i], v);
    y[(uint64_t)t * n + i] = v;
}
void combine_experts(const struct general *g, uint32_t n, uint32_t n_cols, float *y, cudaStream_t s)
{
    combine_kernel<<<dim3((n_cols + N_THREADS - 1) / N_THREADS, n), N_THREADS, 0, s>>>(g->e_out, g->weight,
                                                                                       g->n_used, n_cols, y);
}

static __global__ void shared_kernel(float *y, const float *x, const float *w, uint32_t n)
{
    const uint32_t i = blockIdx.x * N_THREADS + threadIdx.x, t = blockIdx.y;
    if (i >= n) return;
    const float weight = w ? (float)(1 / (1 + exp(-(double)w[t]))) : 1.0f;
    y[(uint64_t)t * n + i] += weight * x[(uint64_t)t * n + i];
}
void add_shared(float *y, const float *x, const float *w, uint32_t n, uint32_t n_cols, cudaStream_t s)
{
    shared_kernel<<<dim3((n_cols + N_THREADS - 1) / N_THREADS, n), N_THREADS, 0, s>>>(y, x, w, n_cols);
}

/* What stands between the products of up to 64 tokens: parts are added, normed or gated, and written in the
 * order in which tensor cores take them. Bound by launch time and the L2 cache.
 */
#include "async.cuh"
#include "few.cuh"

#define N_THREADS 1024

static __device__ __forceinline__ float block_sum(float v)
{
    __shared__ float room[N_THREADS / 32];
#pragma unroll
    for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = v;
    __syncthreads();
    float sum = 0;
    for (int i = 0; i < N_THREADS / 32; i++) sum += room[i];
    return sum;
}

/* Columns of a thread at a time: a step waits for these loads, so there must be many of them. */
#define N_AT_ONCE 4
struct norm_args {
    few_sums s;
    const float *bias, *w;
    float *x;
    float eps;
    uint32_t n_cols, n8;
    __half *out;
};
/* x of columns i0 + k * N_THREADS: with the parts, and back where there are any. */
static __device__ __forceinline__ void take_columns(const norm_args &a, uint32_t t, uint32_t i0,
                                                    float v[N_AT_ONCE])
{
    float *row = a.x + (uint64_t)t * a.n_cols;
    uint32_t i[N_AT_ONCE];
    bool there[N_AT_ONCE];
    float add[N_AT_ONCE] = {};
#pragma unroll
    for (int k = 0; k < N_AT_ONCE; k++) {
        i[k] = i0 + k * N_THREADS, there[k] = i[k] < a.n_cols;
        v[k] = there[k] ? __ldcg(row + i[k]) : 0.0f;
    }
    if (!a.s.part) return;
    few_add<N_AT_ONCE, 8>(a.s, t, i, there, add);
#pragma unroll
    for (int k = 0; k < N_AT_ONCE; k++)
        if (there[k]) row[i[k]] = v[k] += add[k] + (a.bias ? a.bias[i[k]] : 0.0f);
}

/* One block a token; the first columns stay in registers. */
static __global__ void __launch_bounds__(N_THREADS) norm_kernel(const __grid_constant__ norm_args a)
{
    const uint32_t t = blockIdx.x, n_step = N_AT_ONCE * N_THREADS;
    float first[N_AT_ONCE], w[N_AT_ONCE], v[N_AT_ONCE], sum = 0;
    let_next_start();
#pragma unroll
    for (int k = 0; k < N_AT_ONCE; k++) {
        const uint32_t i = threadIdx.x + k * N_THREADS;
        w[k] = i < a.n_cols ? a.w[i] : 0.0f;
    }
    wait_for_input();
    take_columns(a, t, threadIdx.x, first);
#pragma unroll
    for (int k = 0; k < N_AT_ONCE; k++) sum += first[k] * first[k];
    for (uint32_t i = threadIdx.x + n_step; i < a.n_cols; i += n_step) {
        take_columns(a, t, i, v);
        for (int k = 0; k < N_AT_ONCE; k++) sum += v[k] * v[k];
    }
    const float factor = 1.0f / sqrtf(block_sum(sum) / (float)a.n_cols + a.eps);
    const uint32_t n_padded = (a.n_cols + 255) / 256 * 256;
#pragma unroll
    for (int k = 0; k < N_AT_ONCE; k++) {
        const uint32_t i = threadIdx.x + k * N_THREADS;
        if (i < n_padded) a.out[frag_at(a.n8, t, i)] = __float2half_rn(first[k] * factor * w[k]);
    }
    const float *row = a.x + (uint64_t)t * a.n_cols;
    for (uint32_t i = threadIdx.x + n_step; i < n_padded; i += N_THREADS)
        a.out[frag_at(a.n8, t, i)] = __float2half_rn(i < a.n_cols ? row[i] * factor * a.w[i] : 0.0f);
}
enum apr_gpu_status few_norm(const struct apr_gpu_device *d, const struct few_sums *s, const float *bias,
                             float *x, const float *w, float eps, uint32_t n, uint32_t n_cols, uint32_t n8,
                             __half *out, cudaStream_t q, struct apr_gpu_err *e)
{
    struct norm_args a = {{}, bias, w, x, eps, n_cols, n8, out};
    if (s) a.s = *s;
    void *args[] = {&a};
    return gpu_launch(d, (const void *)norm_kernel, dim3(n), N_THREADS, 0, args, q, "norm", e);
}

static __global__ void __launch_bounds__(256) rows_kernel(few_sums s, few_out o, uint32_t n_all, float *y)
{
    const uint32_t i = blockIdx.x * 256 + threadIdx.x, t = blockIdx.y;
    let_next_start();
    wait_for_input();
    if (i >= n_all) return;
    uint32_t k = 0, r = i;
    while (k + 1 < o.n_m && r >= o.n_rows[k]) r -= o.n_rows[k++];
    y[(uint64_t)t * n_all + i] = few_sum(s, t, s.row0[k] + r) + (o.bias[k] ? o.bias[k][r] : 0.0f);
}
enum apr_gpu_status few_rows(const struct apr_gpu_device *d, const struct few_sums *s,
                             const struct few_out *o, uint32_t n, float *y, cudaStream_t q,
                             struct apr_gpu_err *e)
{
    uint32_t n_all = 0;
    for (uint32_t i = 0; i < o->n_m; i++) n_all += o->n_rows[i];
    void *args[] = {(void *)s, (void *)o, &n_all, &y};
    return gpu_launch(d, (const void *)rows_kernel, dim3((n_all + 255) / 256, n), 256, 0, args, q, "sums", e);
}

static __global__ void __launch_bounds__(256) swiglu_kernel(few_sums s, few_out o, uint32_t n8, __half *out)
{
    const uint32_t i = blockIdx.x * 256 + threadIdx.x, t = blockIdx.y;
    let_next_start();
    wait_for_input();
    if (i >= o.n_rows[0]) { /* up to whole chunks of columns */
        out[frag_at(n8, t, i)] = __float2half_rn(0);
        return;
    }
    const uint32_t row[2] = {s.row0[0] + i, s.row0[1] + i};
    const bool there[2] = {true, true};
    float v[2] = {};
    few_add<2, 8>(s, t, row, there, v);
    const float g = v[0] + (o.bias[0] ? o.bias[0][i] : 0.0f), u = v[1] + (o.bias[1] ? o.bias[1][i] : 0.0f);
    out[frag_at(n8, t, i)] = __float2half_rn(g / (1.0f + expf(-g)) * u * MID_SCALE);
}
enum apr_gpu_status few_swiglu(const struct apr_gpu_device *d, const struct few_sums *s,
                               const struct few_out *o, uint32_t n, uint32_t n8, __half *out, cudaStream_t q,
                               struct apr_gpu_err *e)
{
    void *args[] = {(void *)s, (void *)o, &n8, &out};
    return gpu_launch(d, (const void *)swiglu_kernel, dim3((o->n_rows[0] + 255) / 256, n), 256, 0, args, q,
                      "SwiGLU", e);
}

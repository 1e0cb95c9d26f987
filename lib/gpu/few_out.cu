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

/* One block a token. */
static __global__ void __launch_bounds__(N_THREADS)
    norm_kernel(few_sums s, const float *bias, float *x, const float *w, float eps, uint32_t n_cols,
                uint32_t n8, __half *out)
{
    const uint32_t t = blockIdx.x;
    float *row = x + (uint64_t)t * n_cols, sum = 0;
    let_next_start();
    wait_for_input();
    for (uint32_t i = threadIdx.x; i < n_cols; i += N_THREADS) {
        float v = __ldcg(row + i);
        if (s.part) row[i] = v += few_sum(s, t, i) + (bias ? bias[i] : 0.0f);
        sum += v * v;
    }
    float factor = 1.0f / sqrtf(block_sum(sum) / (float)n_cols + eps);
    for (uint32_t i = threadIdx.x; i < (n_cols + 255) / 256 * 256; i += N_THREADS)
        out[frag_at(n8, t, i)] = __float2half_rn(i < n_cols ? row[i] * factor * w[i] : 0.0f);
}
enum apr_gpu_status few_norm(const struct apr_gpu_device *d, const struct few_sums *s, const float *bias,
                             float *x, const float *w, float eps, uint32_t n, uint32_t n_cols, uint32_t n8,
                             __half *out, cudaStream_t q, struct apr_gpu_err *e)
{
    few_sums none = {}, *sums = s ? (few_sums *)s : &none;
    void *args[] = {sums, &bias, &x, &w, &eps, &n_cols, &n8, &out};
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
    float g = few_sum(s, t, s.row0[0] + i) + (o.bias[0] ? o.bias[0][i] : 0.0f),
          u = few_sum(s, t, s.row0[1] + i) + (o.bias[1] ? o.bias[1][i] : 0.0f);
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

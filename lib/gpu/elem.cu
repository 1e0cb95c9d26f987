/* What stands between the matrices: norms, SwiGLU, biases, and the choice of the largest logit.
 *
 * All are bound by the memory (or by launch time): each value is read once and written once.
 */
#include "plugin.cuh"

static __device__ float warp_sum(float v)
{
#pragma unroll
    for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
    return v;
}

/* One block a row; sums in F32, a fixed tree. */
static __global__ void rmsnorm_kernel(const float *x, const float *w, float eps, uint32_t n, float *y,
                                      __half *y16)
{
    __shared__ float room[8];
    const float *row = x + (uint64_t)blockIdx.x * n;
    float sum = 0;
    for (uint32_t i = threadIdx.x; i < n; i += 256) sum += row[i] * row[i];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0;
    for (int i = 0; i < 8; i++) sum += room[i];
    float factor = 1.0f / sqrtf(sum / (float)n + eps);
    for (uint32_t i = threadIdx.x; i < n; i += 256) {
        float v = row[i] * factor * w[i];
        if (y) y[(uint64_t)blockIdx.x * n + i] = v;
        if (y16) y16[(uint64_t)blockIdx.x * n + i] = __float2half_rn(v);
    }
}
void rmsnorm_rows(const float *x, const float *w, float eps, uint32_t n, uint32_t n_cols, float *y,
                  __half *y16, cudaStream_t s)
{
    rmsnorm_kernel<<<n, 256, 0, s>>>(x, w, eps, n_cols, y, y16);
}

static __device__ __forceinline__ float silu(float x)
{
    return x / (1.0f + expf(-x));
}
/* gate_up: [n, 2 n_inter], the gate first; F32 inside. */
static __global__ void swiglu_kernel(const __half *gate_up, uint32_t n_inter, __half *h)
{
    uint32_t i = 2 * (blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= n_inter) return;
    const __half *row = gate_up + (uint64_t)blockIdx.y * 2 * n_inter;
    float2 g = __half22float2(*(const __half2 *)(row + i)),
           u = __half22float2(*(const __half2 *)(row + n_inter + i));
    g.x *= 1 / MID_SCALE, g.y *= 1 / MID_SCALE;
    *(__half2 *)(h + (uint64_t)blockIdx.y * n_inter + i) =
        __floats2half2_rn(silu(g.x) * u.x, silu(g.y) * u.y);
}
void swiglu_rows(const __half *gate_up, uint32_t n, uint32_t n_inter, __half *h, cudaStream_t s)
{
    swiglu_kernel<<<dim3((n_inter / 2 + 255) / 256, n), 256, 0, s>>>(gate_up, n_inter, h);
}

static __global__ void swiglu_f32_kernel(const float *gate, const float *up, uint64_t n, float *h)
{
    uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) h[i] = silu(gate[i]) * up[i];
}
void swiglu_f32(const float *gate, const float *up, uint64_t n, float *h, cudaStream_t s)
{
    swiglu_f32_kernel<<<(unsigned)((n + 255) / 256), 256, 0, s>>>(gate, up, n, h);
}

static __global__ void bias_kernel(float *y, const float *bias, uint32_t n_cols, uint32_t stride)
{
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n_cols) y[(uint64_t)blockIdx.y * stride + i] += bias[i];
}
void bias_rows(float *y, const float *bias, uint32_t n, uint32_t n_cols, uint32_t stride, cudaStream_t s)
{
    bias_kernel<<<dim3((n_cols + 255) / 256, n), 256, 0, s>>>(y, bias, n_cols, stride);
}

/* A float as an integer of the same order; NaN above everything, so that it is found. */
static __device__ __forceinline__ uint32_t ordered(float v)
{
    uint32_t u = __float_as_uint(v);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

/* The first index of the largest logit becomes the next token; every step moves one position on. */
static __global__ void argmax_kernel(const float *logits, uint32_t n, unsigned long long *bests,
                                     unsigned *counts, struct step *rows)
{
    __shared__ unsigned long long room[8];
    struct step *st = &rows[blockIdx.y];
    unsigned long long top = 0, *best = &bests[blockIdx.y];
    uint32_t n_bad = 0;
    if (st->pos < 0) return;
    logits += (uint64_t)blockIdx.y * n;
    for (uint32_t i = blockIdx.x * 256 + threadIdx.x; i < n; i += gridDim.x * 256) {
        float v = logits[i];
        n_bad += !isfinite(v);
        unsigned long long k = (unsigned long long)ordered(v) << 32 | (0xffffffffu - i);
        top = k > top ? k : top;
    }
    if (n_bad) atomicAdd(&st->n_bad, n_bad);
#pragma unroll
    for (int o = 16; o; o >>= 1) {
        unsigned long long k = __shfl_xor_sync(~0u, top, o);
        top = k > top ? k : top;
    }
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = top;
    __syncthreads();
    if (threadIdx.x) return;
    for (int i = 1; i < 8; i++) top = room[i] > top ? room[i] : top;
    atomicMax(best, top);
    __threadfence();
    if (atomicAdd(&counts[blockIdx.y], 1u) != gridDim.x - 1) return;
    __threadfence();
    int32_t id = (int32_t)(0xffffffffu - (uint32_t) * (volatile unsigned long long *)best);
    if (st->out) st->out[st->n_done] = id;
    st->id = id;
    st->pos++;
    st->n_done++;
    *best = 0;
    counts[blockIdx.y] = 0;
}
void argmax_rows(const float *logits, uint32_t n, uint32_t n_rows, uint64_t *best, unsigned *count,
                 struct step *rows, cudaStream_t s)
{
    argmax_kernel<<<dim3(n_rows > 4 ? 16 : 64, n_rows), 256, 0, s>>>(logits, n, (unsigned long long *)best,
                                                                     count, rows);
}

/* How a kernel of gemv.cu takes its input: as it is, or normed and quantized on the way to shared memory. */
#ifndef APR_GEMV_IN_CUH
#define APR_GEMV_IN_CUH

#include "runs.cuh"

static __device__ __noinline__ float block_sum(float v, float *room)
{
#pragma unroll
    for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = v;
    __syncthreads();
    float sum = 0;
#pragma unroll
    for (int i = 0; i < N_WARPS; i++) sum += room[i];
    return sum;
}

static __device__ __forceinline__ float4 load4(const float *p)
{
    return __ldcg((const float4 *)p);
}

/* What is known before the predecessor has finished: the norm's weights, for inputs of up to N_HELD columns.
 */
#define N_HELD4 3
#define N_HELD  (4 * N_HELD4 * N_THREADS)
struct held {
    float4 w[N_HELD4];
};
static __device__ __forceinline__ void hold_norm(const gemv_args &a, held *h)
{
    if (!a.norm || a.n_cols > N_HELD) return;
#pragma unroll
    for (uint32_t k = 0; k < N_HELD4; k++) {
        uint32_t i = 4 * (threadIdx.x + k * N_THREADS);
        if (i < a.n_cols) h->w[k] = *(const float4 *)(a.norm + i);
    }
}

static __device__ float norm_factor(const gemv_args &a, float *room)
{
    float sum = 0;
#pragma unroll 1
    for (uint32_t i = 4 * threadIdx.x; i < a.n_cols; i += 4 * N_THREADS) {
        float4 v = load4(a.x + i);
        sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
    return 1.0f / sqrtf(block_sum(sum, room) / (float)a.n_cols + a.eps);
}

/* Four values of a lane, 16 of four lanes: to integers with their scale. v is zero beyond the last column.
 * Not inlined: a short kernel pays for every line of code that it runs through once. */
static __device__ __noinline__ void quantize4(float4 v, uint32_t i, act_block *to)
{
    act_scale s = act_scale_of(top16(top_of(v.x, v.y, v.z, v.w)));
    int q0 = __float2int_rn(v.x * s.inv), q1 = __float2int_rn(v.y * s.inv), q2 = __float2int_rn(v.z * s.inv),
        q3 = __float2int_rn(v.w * s.inv);
    int sum = q0 + q1 + q2 + q3;
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    *(int2 *)&to[i / 256].x[i % 32 / 8][i % 256 / 32][i % 8] =
        make_int2((q0 & 65535) | q1 << 16, (q2 & 65535) | q3 << 16);
    if (i % 16 == 0) act_put_scale(to, i, s.d, sum);
}

static __device__ __forceinline__ float4 normed4(const gemv_args &a, uint32_t i, float factor)
{
    if (i >= a.n_cols) return make_float4(0, 0, 0, 0);
    float4 v = load4(a.x + i);
    if (!a.norm) return v;
    float4 w = *(const float4 *)(a.norm + i);
    return make_float4(v.x * factor * w.x, v.y * factor * w.y, v.z * factor * w.z, v.w * factor * w.w);
}

/* RMSNorm of an input that fits the registers: read once. */
template <bool QUANT>
static __device__ __forceinline__ void take_held(const gemv_args &a, const held &h, uint8_t *act, float *room)
{
    float4 v[N_HELD4];
    float sum = 0;
#pragma unroll
    for (uint32_t k = 0; k < N_HELD4; k++) {
        uint32_t i = 4 * (threadIdx.x + k * N_THREADS);
        v[k] = i < a.n_cols ? load4(a.x + i) : make_float4(0, 0, 0, 0);
    }
#pragma unroll
    for (uint32_t k = 0; k < N_HELD4; k++)
        sum += v[k].x * v[k].x + v[k].y * v[k].y + v[k].z * v[k].z + v[k].w * v[k].w;
    float factor = rsqrtf(__fdividef(block_sum(sum, room), (float)a.n_cols) + a.eps);
    uint32_t n_padded = (a.n_cols + 255) / 256 * 256;
#pragma unroll
    for (uint32_t k = 0; k < N_HELD4; k++) {
        uint32_t i = 4 * (threadIdx.x + k * N_THREADS);
        if (i >= n_padded) break; /* the same for a whole warp */
        bool in = i < a.n_cols;
        float4 y = make_float4(in ? v[k].x * factor * h.w[k].x : 0, in ? v[k].y * factor * h.w[k].y : 0,
                               in ? v[k].z * factor * h.w[k].z : 0, in ? v[k].w * factor * h.w[k].w : 0);
        if (QUANT)
            quantize4(y, i, (act_block *)act);
        else
            *(float4 *)((float *)act + i) = y;
    }
}

/* An input that is as its readers want it. Its first 16s are asked for before they are needed, so that other
 * requests of the warp follow them. */
#define N_ASKED 6
struct asked {
    uint4 v[N_ASKED];
};
template <bool QUANT> struct plain {
    const uint4 *from;
    uint32_t n, n_there; /* 16s; behind n_there zeros. n is 0 where the input is to be normed or quantized */
    __device__ __forceinline__ explicit plain(const gemv_args &a)
    {
        const uint32_t n_chunks = (a.n_cols + 255) / 256;
        const bool is_plain = QUANT ? a.xq != NULL : a.norm == NULL;
        from = QUANT ? (const uint4 *)a.xq : (const uint4 *)a.x;
        n = !is_plain ? 0 : n_chunks * (QUANT ? (uint32_t)sizeof(act_block) / 16 : 64);
        n_there = QUANT ? n : is_plain ? (a.n_cols + 3) / 4 : 0;
    }
    __device__ __forceinline__ uint4 at(uint32_t i) const
    {
        return i < n_there ? __ldcg(from + i) : make_uint4(0, 0, 0, 0);
    }
    __device__ __forceinline__ void ask(asked *x) const
    {
#pragma unroll
        for (uint32_t k = 0; k < N_ASKED; k++) x->v[k] = at(threadIdx.x + k * N_THREADS);
    }
    __device__ __forceinline__ void put(const asked &x, uint8_t *act) const
    {
#pragma unroll
        for (uint32_t k = 0; k < N_ASKED; k++) {
            const uint32_t i = threadIdx.x + k * N_THREADS;
            if (i < n) ((uint4 *)act)[i] = x.v[k];
        }
#pragma unroll 1
        for (uint32_t i = threadIdx.x + N_ASKED * N_THREADS; i < n; i += N_THREADS) ((uint4 *)act)[i] = at(i);
    }
};

/* To shared memory, for the whole block. */
template <bool QUANT>
static __device__ __forceinline__ void take_input(const gemv_args &a, const plain<QUANT> &as_is,
                                                  const asked &x, const held &h, uint8_t *act, float *room)
{
    if (as_is.n) {
        as_is.put(x, act);
    } else if (a.norm && a.n_cols <= N_HELD) {
        take_held<QUANT>(a, h, act, room);
    } else {
        const float factor = a.norm ? norm_factor(a, room) : 1.0f;
        const uint32_t n_padded = (a.n_cols + 255) / 256 * 256;
#pragma unroll 1
        for (uint32_t i = 4 * threadIdx.x; i < n_padded; i += 4 * N_THREADS) {
            float4 v = normed4(a, i, factor);
            if (QUANT)
                quantize4(v, i, (act_block *)act);
            else
                *(float4 *)((float *)act + i) = v;
        }
    }
    __syncthreads();
}

#endif

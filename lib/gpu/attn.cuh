/* Shared by the attention of a step and of a prompt: where a position stands in the cache, and what is done
 * to a head before it is used. */
#ifndef APR_ATTN_CUH
#define APR_ATTN_CUH

#include "async.cuh"
#include "plugin.cuh"

#define PAGE 16u

template <class T>
static __device__ __forceinline__ T *cache_at(void *base, const int32_t *table, const struct heads &h,
                                              uint32_t i_kv, uint32_t pos)
{
    return (T *)base + (((uint64_t)table[pos / PAGE] * h.n_heads_kv + i_kv) * PAGE + pos % PAGE) * h.dim_pad;
}

/* One head by one warp: RMSNorm over the head where the model has it, rotation by turn
 * [dim / 2] (cos, sin); to: [dim_pad]. */
static __device__ __noinline__ void head_prepare(const struct heads &h, const float *x, const float *norm,
                                                 const float2 *turn, float scale, float *to, int lane)
{
    float factor = 1.0f;
    if (norm) {
        float sum = 0;
        for (uint32_t i = lane; i < h.dim; i += 32) sum += x[i] * x[i];
        for (int o = 16; o; o >>= 1) sum += __shfl_xor_sync(~0u, sum, o);
        factor = 1.0f / sqrtf(sum / (float)h.dim + h.eps);
    }
    uint32_t n_half = h.dim / 2;
    for (uint32_t i = lane; i < n_half; i += 32) {
        uint32_t a = h.pairs ? 2 * i : i, b = h.pairs ? 2 * i + 1 : i + n_half;
        float u = x[a] * factor * (norm ? norm[a] : 1.0f), v = x[b] * factor * (norm ? norm[b] : 1.0f);
        float2 r = turn[i];
        to[a] = (u * r.x - v * r.y) * scale;
        to[b] = (u * r.y + v * r.x) * scale;
    }
    for (uint32_t i = h.dim + lane; i < h.dim_pad; i += 32) to[i] = 0;
}

/* A head in a warp's registers: pairs of values to be rotated, lane by lane. */
template <int DIM> struct head_pairs {
    static constexpr int N = DIM >= 64 ? DIM / 64 : 1;
    float2 x[N];
    /* from: NULL: no head */
    __device__ __forceinline__ void load(const heads &h, const float *from, int lane)
    {
#pragma unroll
        for (int p = 0; p < N; p++) {
            const uint32_t i = lane + 32 * p, a = h.pairs ? 2 * i : i,
                           b = h.pairs ? 2 * i + 1 : i + h.dim / 2;
            x[p] =
                from && i < h.dim / 2 ? make_float2(__ldcg(from + a), __ldcg(from + b)) : make_float2(0, 0);
        }
    }
    /* RMSNorm over the head where the model has it, rotation; put(column, value) for all DIM columns */
    template <class PUT>
    __device__ __forceinline__ void turn(const heads &h, const float *norm, const float2 by[N], float scale,
                                         int lane, PUT put) const
    {
        float sum = 0, factor = scale;
        if (norm) {
#pragma unroll
            for (int p = 0; p < N; p++) sum += x[p].x * x[p].x + x[p].y * x[p].y;
            for (int o = 16; o; o >>= 1) sum += __shfl_xor_sync(~0u, sum, o);
            factor *= 1.0f / sqrtf(sum / (float)h.dim + h.eps);
        }
#pragma unroll
        for (int p = 0; p < N; p++) {
            const uint32_t i = lane + 32 * p, a = h.pairs ? 2 * i : i,
                           b = h.pairs ? 2 * i + 1 : i + h.dim / 2;
            if (i >= h.dim / 2) continue;
            const float u = x[p].x * (norm ? norm[a] : 1.0f), v = x[p].y * (norm ? norm[b] : 1.0f);
            put(a, (u * by[p].x - v * by[p].y) * factor);
            put(b, (u * by[p].y + v * by[p].x) * factor);
        }
        for (uint32_t i = h.dim + lane; i < DIM; i += 32) put(i, 0.0f);
    }
};

template <bool TRANS> static __device__ __forceinline__ void ldmatrix4(uint32_t r[4], const void *p)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(p);
    if (TRANS)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(at));
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(at));
}
static __device__ __forceinline__ uint32_t pack2(float x, float y)
{
    __half2 v = __floats2half2_rn(x, y);
    return *(uint32_t *)&v;
}

/* Where value (token, column) of an F16 input stands: in rows, or in the order of the fragments of tensor
 * cores (tiles.cuh). */
static __device__ __forceinline__ void put_half(const struct act &out, uint32_t t, uint32_t i, float v)
{
    uint64_t at = out.n8 ? frag_at(out.n8, t, i) : (uint64_t)t * out.n_cols + i;
    out.h[at] = __float2half_rn(v);
}

#endif

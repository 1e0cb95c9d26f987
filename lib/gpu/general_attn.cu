/* Attention of the general pass: partial rotation, windows, soft caps, latent attention.
 *
 * The cache's layout is attn_step.cu's, rows of any_heads.pad values; latent attention keeps one row for all
 * heads in the keys, whose first v_dim values are the values too. A block takes one (token, head), its eight
 * warps the positions w, w + 8, ... four at a time; scores, softmax and sums are F32, the warps' shares are
 * joined in order. Bound by latency and the L2 cache: every head reads its keys itself.
 */
#include "async.cuh"
#include "general.cuh"

#define PAGE    16u
#define N_WARPS 8

template <class T>
static __device__ __forceinline__ T *at_pos(void *base, const int32_t *table, const any_heads &h,
                                            uint32_t i_kv, uint32_t pos)
{
    return (T *)base + (((uint64_t)table[pos / PAGE] * h.n_heads_kv + i_kv) * PAGE + pos % PAGE) * h.pad;
}

static __device__ __forceinline__ float warp_sum(float v)
{
#pragma unroll
    for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
    return v;
}

/* 2 n_half values turn, in place. */
static __device__ void turn_head(const any_heads &h, const struct step &row, float *x, int lane)
{
    const float2 *turn = (row.is_long && h.rope_long ? h.rope_long : h.rope) + (uint64_t)row.pos * h.n_half;
    for (uint32_t i = (uint32_t)lane; i < h.n_half; i += 32) {
        const uint32_t a = h.pairs ? 2 * i : i, b = h.pairs ? 2 * i + 1 : i + h.n_half;
        const float u = x[a], v = x[b];
        x[a] = u * turn[i].x - v * turn[i].y;
        x[b] = u * turn[i].y + v * turn[i].x;
    }
    __syncwarp();
}
static __device__ void norm_head(const float *w, float eps, uint32_t n, float *x, int lane)
{
    float sum = 0;
    for (uint32_t i = (uint32_t)lane; i < n; i += 32) sum += x[i] * x[i];
    const float factor = 1.0f / sqrtf(warp_sum(sum) / (float)n + eps);
    for (uint32_t i = (uint32_t)lane; i < n; i += 32) x[i] = x[i] * factor * w[i];
    __syncwarp();
}
/* n values and zeros up to the row's end. */
static __device__ void store_head(const any_heads &h, void *cache, const int32_t *table, uint32_t i_kv,
                                  uint32_t pos, const float *x, uint32_t n, int lane)
{
    for (uint32_t i = (uint32_t)lane; i < h.pad; i += 32) {
        const float v = i < n ? x[i] : 0.0f;
        if (h.f32)
            at_pos<float>(cache, table, h, i_kv, pos)[i] = v;
        else
            at_pos<__half>(cache, table, h, i_kv, pos)[i] = __float2half_rn(v);
    }
}

/* One warp a (token, head of q, k or v). */
static __global__ void any_store_kernel(any_heads h, struct kv kv, const struct step *rows, uint32_t n,
                                        float *qkv)
{
    const uint32_t n_all = h.n_heads + 2 * h.n_heads_kv, i = blockIdx.x * 4 + threadIdx.y, t = i / n_all,
                   j = i % n_all;
    const int lane = (int)threadIdx.x;
    if (t >= n || rows[t].pos < 0) return;
    const uint32_t pos = (uint32_t)rows[t].pos;
    float *x = qkv + ((uint64_t)t * n_all + j) * h.k_dim;
    const bool is_q = j < h.n_heads, is_v = j >= h.n_heads + h.n_heads_kv;
    const float *norm = is_q ? h.q_norm : h.k_norm;
    if (!is_v && norm) norm_head(norm, h.eps, h.k_dim, x, lane);
    if (!is_v) turn_head(h, rows[t], x, lane);
    if (is_q) return;
    const uint32_t i_kv = j - h.n_heads - (is_v ? h.n_heads_kv : 0);
    store_head(h, is_v ? kv.v : kv.k, rows[t].table, i_kv, pos, x, h.k_dim, lane);
}
void any_store(const struct any_heads *h, const struct kv *kv, const struct step *rows, uint32_t n,
               float *qkv, cudaStream_t s)
{
    const uint32_t n_warps = n * (h->n_heads + 2 * h->n_heads_kv);
    any_store_kernel<<<(n_warps + 3) / 4, dim3(32, 4), 0, s>>>(*h, *kv, rows, n, qkv);
}

/* One warp a (token, head); the last of a token norms the latent and stores it with the shared key. */
static __global__ void latent_store_kernel(any_heads h, struct kv kv, const struct step *rows, uint32_t n,
                                           latent_store l)
{
    const uint32_t i = blockIdx.x * 4 + threadIdx.y, t = i / (h.n_heads + 1), j = i % (h.n_heads + 1),
                   n_head = l.n_nope + l.n_rope, n_row = l.kv_rank + l.n_rope;
    const int lane = (int)threadIdx.x;
    if (t >= n || rows[t].pos < 0) return;
    const uint32_t pos = (uint32_t)rows[t].pos;
    if (j == h.n_heads) {
        float *row = l.kv_a + (uint64_t)t * n_row;
        norm_head(l.kv_a_norm, h.eps, l.kv_rank, row, lane);
        turn_head(h, rows[t], row + l.kv_rank, lane);
        store_head(h, kv.k, rows[t].table, 0, pos, row, n_row, lane);
        return;
    }
    const float *q = l.q + ((uint64_t)t * h.n_heads + j) * n_head + l.n_nope;
    float *to = l.q_cache + ((uint64_t)t * h.n_heads + j) * n_row + l.kv_rank;
    for (uint32_t k = (uint32_t)lane; k < l.n_rope; k += 32) to[k] = q[k];
    __syncwarp();
    turn_head(h, rows[t], to, lane);
}
void latent_store_rows(const struct any_heads *h, const struct kv *kv, const struct step *rows, uint32_t n,
                       const struct latent_store *l, cudaStream_t s)
{
    latent_store_kernel<<<(n * (h->n_heads + 1) + 3) / 4, dim3(32, 4), 0, s>>>(*h, *kv, rows, n, *l);
}

/* ---- attention --------------------------------------------------------------------------------------------
 */

static __device__ __forceinline__ float2 two(const float *p)
{
    return *(const float2 *)p;
}
static __device__ __forceinline__ float2 two(const __half *p)
{
    return __half22float2(*(const __half2 *)p);
}

#define AT_ONCE 4 /* positions of a warp side by side */

/* P: pairs of values that a lane holds of a head: 2 lane + 64 i. Rows of the cache are padded to whole pairs
 * with zeros, and so is q. */
template <class T, int P>
static __global__ void __launch_bounds__(32 * N_WARPS)
    any_attend_kernel(any_heads h, struct kv kv, const struct step *rows, const float *q, uint32_t q_stride,
                      float *out)
{
    extern __shared__ float room[]; /* [N_WARPS][v_dim + 2] */
    const uint32_t t = blockIdx.x, j = blockIdx.y, i_kv = j / (h.n_heads / h.n_heads_kv);
    const int lane = (int)threadIdx.x % 32, w = (int)threadIdx.x / 32;
    if (rows[t].pos < 0) return;
    const int32_t *table = rows[t].table;
    const uint32_t n_pos = (uint32_t)rows[t].pos + 1,
                   first = h.window && n_pos > h.window ? n_pos - h.window : 0;
    float2 query[P], o[P] = {};
    float m = -INFINITY, l = 0;
#pragma unroll
    for (int i = 0; i < P; i++) {
        const uint32_t d = 2 * (uint32_t)lane + 64 * i;
        const float *from = q + (uint64_t)t * q_stride + j * h.k_dim + d;
        query[i] = make_float2(d < h.k_dim ? from[0] : 0.0f, d + 1 < h.k_dim ? from[1] : 0.0f);
    }
    for (uint32_t p0 = first + AT_ONCE * (uint32_t)w; p0 < n_pos; p0 += AT_ONCE * N_WARPS) {
        float s[AT_ONCE] = {};
        const T *value[AT_ONCE];
        float top = m, sum = 0;
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
            const uint32_t p = p0 + k < n_pos ? p0 + k : p0;
            const T *key = at_pos<T>(kv.k, table, h, i_kv, p);
            value[k] = h.v_in_k ? key : at_pos<T>(kv.v, table, h, i_kv, p);
#pragma unroll
            for (int i = 0; i < P; i++) {
                const uint32_t d = 2 * (uint32_t)lane + 64 * i;
                if (d >= h.pad) continue;
                const float2 v = two(key + d);
                s[k] = fmaf(query[i].x, v.x, fmaf(query[i].y, v.y, s[k]));
            }
        }
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
            s[k] = warp_sum(s[k]) * h.scale;
            if (h.softcap > 0) s[k] = h.softcap * tanhf(s[k] / h.softcap);
            if (p0 + k >= n_pos) s[k] = -INFINITY;
            top = fmaxf(top, s[k]);
        }
        const float shrink = expf(m - top); /* m -inf at first: 0; the first of four is always there */
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) sum += s[k] = expf(s[k] - top);
        m = top, l = l * shrink + sum;
#pragma unroll
        for (int i = 0; i < P; i++) {
            const uint32_t d = 2 * (uint32_t)lane + 64 * i;
            o[i].x *= shrink, o[i].y *= shrink;
            if (d >= h.v_dim) continue;
#pragma unroll
            for (int k = 0; k < AT_ONCE; k++) {
                const float2 v = two(value[k] + d);
                o[i].x = fmaf(s[k], v.x, o[i].x), o[i].y = fmaf(s[k], v.y, o[i].y);
            }
        }
    }
    float *mine = room + w * (h.v_dim + 2);
    if (lane == 0) mine[0] = m, mine[1] = l;
#pragma unroll
    for (int i = 0; i < P; i++) {
        const uint32_t d = 2 * (uint32_t)lane + 64 * i;
        if (d < h.v_dim) mine[2 + d] = o[i].x;
        if (d + 1 < h.v_dim) mine[3 + d] = o[i].y;
    }
    __syncthreads();
    float top = -INFINITY, scale[N_WARPS], total = 0;
#pragma unroll
    for (int i = 0; i < N_WARPS; i++) top = fmaxf(top, room[i * (h.v_dim + 2)]);
#pragma unroll
    for (int i = 0; i < N_WARPS; i++) { /* a warp without positions has l = 0 and m = -inf */
        const float *r = room + i * (h.v_dim + 2);
        scale[i] = r[1] != 0 ? expf(r[0] - top) : 0.0f;
        if (r[1] != 0) total += r[1] * scale[i]; /* NaN passes */
    }
    for (uint32_t d = threadIdx.x; d < h.v_dim; d += 32 * N_WARPS) {
        float v = 0;
#pragma unroll
        for (int i = 0; i < N_WARPS; i++)
            if (room[i * (h.v_dim + 2) + 1] != 0) v = fmaf(scale[i], room[i * (h.v_dim + 2) + 2 + d], v);
        out[((uint64_t)t * h.n_heads + j) * h.v_dim + d] = v / total;
    }
}

typedef void attend_fn(any_heads h, struct kv kv, const struct step *rows, const float *q, uint32_t q_stride,
                       float *out);
enum apr_gpu_status any_attend(const struct any_heads *h, const struct kv *kv, const struct step *rows,
                               uint32_t n, const float *q, uint32_t q_stride, float *out, cudaStream_t s,
                               struct apr_gpu_err *e)
{
    static const struct {
        uint32_t n_dims;
        attend_fn *fn[2]; /* F16, F32 */
    } ways[] = {{64, {any_attend_kernel<__half, 1>, any_attend_kernel<float, 1>}},
                {128, {any_attend_kernel<__half, 2>, any_attend_kernel<float, 2>}},
                {256, {any_attend_kernel<__half, 4>, any_attend_kernel<float, 4>}},
                {ANY_DIM_MOST, {any_attend_kernel<__half, 10>, any_attend_kernel<float, 10>}}};
    size_t i = 0;
    while (h->pad > ways[i].n_dims)
        if (++i == sizeof ways / sizeof *ways)
            return gpu_fail(e, APR_GPU_UNSUPPORTED, "heads of %u values, expected up to %u", h->pad,
                            ANY_DIM_MOST);
    const uint32_t n_smem = N_WARPS * (h->v_dim + 2) * 4;
    ways[i].fn[h->f32]<<<dim3(n, h->n_heads), 32 * N_WARPS, n_smem, s>>>(*h, *kv, rows, q, q_stride, out);
    return gpu_cuda(cudaGetLastError(), "attention", e);
}

/* Attention over a paged cache: one token (split over the cache), or a prompt (flash attention).
 *
 * Cache: per layer [page][KV head][16 positions][dim_pad] of F16, K after bias, norm and rotation; dim_pad is
 * the head size rounded up to 32, 64, 128 or 256, the rest zero. Scores, softmax and sums are F32.
 *
 * One token: a block for each (KV head, split); all query heads of the KV head share one read of K and V, so
 * the bytes moved are the cache once. The bound is the memory for long caches and latency for short ones.
 * Splits are whole 16s; a split writes (max, sum, values), the last block of a KV head to arrive adds them
 * in the order of the splits. An empty split does not exist (hazard: -inf minus -inf).
 *
 * A prompt: 64 queries of one head a block, mma.sync m16n8k16 with F16 operands and F32 sums; the bound is
 * the tensor cores'.
 */
#include "plugin.cuh"

#define PAGE 16u

static __device__ __forceinline__ void wait_for_input()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
static __device__ __forceinline__ void let_next_start()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

struct step_args {
    struct heads h;
    struct kv kv;
    const struct step *st;
    const float *qkv;
    float *part;
    unsigned *count;
    struct act out;
};

template <class T>
static __device__ __forceinline__ T *cache_at(void *base, const struct kv &kv, const struct heads &h, uint32_t i_kv,
                                              uint32_t pos)
{
    return (T *)base + (((uint64_t)kv.table[pos / PAGE] * h.n_heads_kv + i_kv) * PAGE + pos % PAGE) * h.dim_pad;
}

/* One head by one warp: RMSNorm over the head where the model has it, rotation; to: [dim_pad]. */
static __device__ void head_prepare(const struct heads &h, const float *x, const float *norm, uint32_t pos, float scale,
                                    float *to, int lane)
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
        float2 r = h.rope[(uint64_t)pos * n_half + i];
        to[a] = (u * r.x - v * r.y) * scale;
        to[b] = (u * r.y + v * r.x) * scale;
    }
    for (uint32_t i = h.dim + lane; i < h.dim_pad; i += 32) to[i] = 0;
}

static __device__ __forceinline__ void load8(const __half *p, float v[8])
{
    uint4 w = *(const uint4 *)p;
    const uint32_t u[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 f = __half22float2(*(const __half2 *)&u[i]);
        v[2 * i] = f.x, v[2 * i + 1] = f.y;
    }
}
static __device__ __forceinline__ void load8(const float *p, float v[8])
{
    float4 a = *(const float4 *)p, b = *(const float4 *)(p + 4);
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}
static __device__ __forceinline__ void store1(__half *p, float v)
{
    *p = __float2half_rn(v);
}
static __device__ __forceinline__ void store1(float *p, float v)
{
    *p = v;
}

#define N_WARPS 4
#define G_MAX   8

/* Sums v[g] over the LPK lanes of a key. Afterwards lane l of the key holds head (l * G_MAX / LPK) in v[0]
 * (LPK >= 8), or heads 2 (l % 4) and 2 (l % 4) + 1 in v[0], v[1] (LPK = 4). */
template <int LPK>
static __device__ __forceinline__ void scatter_sum(float v[G_MAX], int lane)
{
    constexpr int N_STEPS = LPK >= 8 ? 3 : 2;
    int n = G_MAX;
#pragma unroll
    for (int i = 0; i < N_STEPS; i++) {
        const int mask = LPK >> (i + 1);
        n /= 2;
        bool up = lane & mask;
#pragma unroll
        for (int k = 0; k < G_MAX / 2; k++) {
            if (k >= (G_MAX >> (i + 1))) continue;
            float send = up ? v[k] : v[k + (G_MAX >> (i + 1))], keep = up ? v[k + (G_MAX >> (i + 1))] : v[k];
            v[k] = keep + __shfl_xor_sync(~0u, send, mask);
        }
    }
#pragma unroll
    for (int mask = LPK >> 4; mask >= 1; mask >>= 1) v[0] += __shfl_xor_sync(~0u, v[0], mask);
    (void)n;
}

/* Several partial results of a head: rescaled to the common maximum and added in order. */
static __device__ __forceinline__ void merge(float *m, float *l, float *o, float m2, float l2, float o2)
{
    float top = fmaxf(*m, m2), s1 = __expf(*m - top), s2 = __expf(m2 - top);
    *o = *o * s1 + o2 * s2;
    *l = *l * s1 + l2 * s2;
    *m = top;
}

/* 16 neighbouring values, one a thread of a half-warp: out as F32 and as int8 with a scale. The whole warp
 * calls; there: within the head (the head size is a multiple of 16). */
static __device__ __forceinline__ void put_act(const struct act &out, uint32_t i, float v, bool there)
{
    if (there && out.f) out.f[i] = v;
    if (!out.q) return;
    float top = fabsf(v);
#pragma unroll
    for (int o = 8; o; o >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, o));
    float d = top / 127.0f, inv = top > 0 ? 127.0f / top : 0;
    if (!(top < 3.0e38f)) d = __int_as_float(0x7fc00000), inv = 0;
    int q = __float2int_rn(v * inv), sum = q;
#pragma unroll
    for (int o = 8; o; o >>= 1) sum += __shfl_xor_sync(~0u, sum, o);
    if (!there) return;
    act_block *b = out.q + i / 256;
    uint32_t j = i % 256 / 32, upper = i % 32 / 16;
    (upper ? b->hi[j] : b->lo[j])[i % 16] = (int8_t)q;
    if (i % 16 == 0) {
        ((float *)&b->s[j])[upper] = d;
        ((float *)&b->s[j])[2 + upper] = d * (float)sum;
    }
}

template <class T, int DIM>
static __global__ void __launch_bounds__(32 * N_WARPS) step_kernel(const __grid_constant__ step_args a)
{
    constexpr int LPK = DIM / 8, KEYS = 32 / LPK;
    __shared__ float q_s[G_MAX][DIM];
    __shared__ float score[N_WARPS][G_MAX][32];
    __shared__ float o_s[N_WARPS][G_MAX][DIM];
    __shared__ float m_s[N_WARPS][G_MAX], l_s[N_WARPS][G_MAX];
    __shared__ bool last;
    const struct heads &h = a.h;
    const int lane = (int)threadIdx.x % 32, w = (int)threadIdx.x / 32;
    const uint32_t i_kv = blockIdx.y, group = h.n_heads / h.n_heads_kv, g0 = blockIdx.z * G_MAX;
    const uint32_t n_g = group - g0 < G_MAX ? group - g0 : G_MAX, i_head = i_kv * group + g0;

    let_next_start();
    wait_for_input();
    const uint32_t pos = (uint32_t)a.st->pos, n = pos + 1;
    const uint32_t n_want = (n + 63) / 64 < ATTN_SPLITS ? (n + 63) / 64 : ATTN_SPLITS;
    const uint32_t n_span = ((n + n_want - 1) / n_want + 15) / 16 * 16, n_used = (n + n_span - 1) / n_span;
    if (blockIdx.x >= n_used) return;
    const uint32_t p0 = blockIdx.x * n_span, p1 = p0 + n_span < n ? p0 + n_span : n;

    for (uint32_t g = (uint32_t)w; g < n_g; g += N_WARPS)
        head_prepare(h, a.qkv + (uint64_t)(i_head + g) * h.dim, h.q_norm, pos, h.scale, q_s[g], lane);
    if (blockIdx.x == n_used - 1 && w == N_WARPS - 1) { /* this step's key and value */
        const float *k = a.qkv + (uint64_t)(h.n_heads + i_kv) * h.dim, *v = k + (uint64_t)h.n_heads_kv * h.dim;
        T *to_k = cache_at<T>(a.kv.k, a.kv, h, i_kv, pos), *to_v = cache_at<T>(a.kv.v, a.kv, h, i_kv, pos);
        float *tmp = o_s[0][0];
        head_prepare(h, k, h.k_norm, pos, 1.0f, tmp, lane);
        __syncwarp();
        for (uint32_t i = lane; i < h.dim_pad; i += 32) {
            store1(to_k + i, tmp[i]);
            store1(to_v + i, i < h.dim ? v[i] : 0.0f);
        }
    }
    __syncthreads();

    float q[G_MAX][8], acc[G_MAX][8] = {}, m[G_MAX], l[G_MAX] = {};
    const int part = lane % LPK;
#pragma unroll
    for (int g = 0; g < G_MAX; g++) {
        m[g] = -INFINITY;
#pragma unroll
        for (int i = 0; i < 8; i++) q[g][i] = (uint32_t)g < n_g ? q_s[g][8 * part + i] : 0.0f;
    }
    for (uint32_t base = p0 + 32 * w; base < p1; base += 32 * N_WARPS) {
#pragma unroll 4
        for (int s = 0; s < 32 / KEYS; s++) {
            uint32_t p = base + s * KEYS + lane / LPK;
            float k[8] = {}, v[G_MAX];
            if (p < p1) load8(cache_at<T>(a.kv.k, a.kv, h, i_kv, p) + 8 * part, k);
#pragma unroll
            for (int g = 0; g < G_MAX; g++) {
                v[g] = 0;
#pragma unroll
                for (int i = 0; i < 8; i++) v[g] = fmaf(q[g][i], k[i], v[g]);
            }
            scatter_sum<LPK>(v, lane);
            int key = s * KEYS + lane / LPK;
            if (LPK >= 8) {
                if (part % (LPK >= 8 ? LPK / 8 : 1) == 0) score[w][part / (LPK >= 8 ? LPK / 8 : 1)][key] = v[0];
            } else {
                score[w][2 * part][key] = v[0];
                score[w][2 * part + 1][key] = v[1];
            }
        }
        __syncwarp();
#pragma unroll
        for (int g = 0; g < G_MAX; g++) {
            if ((uint32_t)g >= n_g) break;
            float s = base + lane < p1 ? score[w][g][lane] : -INFINITY, top = s;
#pragma unroll
            for (int o = 16; o; o >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, o));
            top = fmaxf(top, m[g]);
            float shrink = __expf(m[g] - top), e = __expf(s - top);
            m[g] = top;
            l[g] = l[g] * shrink + e;
            score[w][g][lane] = e;
#pragma unroll
            for (int i = 0; i < 8; i++) acc[g][i] *= shrink;
        }
        __syncwarp();
#pragma unroll 4
        for (int s = 0; s < 32 / KEYS; s++) {
            uint32_t key = s * KEYS + lane / LPK, p = base + key;
            if (p >= p1) continue;
            float v[8];
            load8(cache_at<T>(a.kv.v, a.kv, h, i_kv, p) + 8 * part, v);
#pragma unroll
            for (int g = 0; g < G_MAX; g++) {
                float e = score[w][g][key];
#pragma unroll
                for (int i = 0; i < 8; i++) acc[g][i] = fmaf(e, v[i], acc[g][i]);
            }
        }
        __syncwarp();
    }
    __syncthreads(); /* o_s held the key */
#pragma unroll
    for (int g = 0; g < G_MAX; g++) {
#pragma unroll
        for (int o = 16; o; o >>= 1) l[g] += __shfl_xor_sync(~0u, l[g], o);
#pragma unroll
        for (int i = 0; i < 8; i++) {
#pragma unroll
            for (int o = LPK; o < 32; o <<= 1) acc[g][i] += __shfl_xor_sync(~0u, acc[g][i], o);
            if (lane < LPK) o_s[w][g][8 * part + i] = acc[g][i];
        }
        if (lane == 0) m_s[w][g] = m[g], l_s[w][g] = l[g];
    }
    __syncthreads();

    float *mine = a.part + ((uint64_t)i_head * ATTN_SPLITS) * (DIM + 2);
    for (uint32_t t = threadIdx.x; t < n_g * DIM; t += 32 * N_WARPS) {
        uint32_t g = t / DIM, i = t % DIM;
        float mm = m_s[0][g], ll = l_s[0][g], oo = o_s[0][g][i];
        for (int k = 1; k < N_WARPS; k++)
            if (m_s[k][g] > -INFINITY || !(m_s[k][g] <= 0)) merge(&mm, &ll, &oo, m_s[k][g], l_s[k][g], o_s[k][g][i]);
        if (n_used == 1) {
            put_act(a.out, (i_head + g) * h.dim + i, oo / ll, i < h.dim);
            continue;
        }
        float *to = mine + ((uint64_t)g * ATTN_SPLITS + blockIdx.x) * (DIM + 2);
        to[2 + i] = oo;
        if (i == 0) to[0] = mm, to[1] = ll;
    }
    if (n_used == 1) return;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) last = atomicAdd(&a.count[i_kv * gridDim.z + blockIdx.z], 1u) == n_used - 1;
    __syncthreads();
    if (!last) return;
    __threadfence();
    for (uint32_t t = threadIdx.x; t < n_g * DIM; t += 32 * N_WARPS) {
        uint32_t g = t / DIM, i = t % DIM;
        const float *from = mine + (uint64_t)g * ATTN_SPLITS * (DIM + 2);
        float mm = __ldcg(from), ll = __ldcg(from + 1), oo = __ldcg(from + 2 + i);
        for (uint32_t k = 1; k < n_used; k++) {
            from += DIM + 2;
            merge(&mm, &ll, &oo, __ldcg(from), __ldcg(from + 1), __ldcg(from + 2 + i));
        }
        put_act(a.out, (i_head + g) * h.dim + i, oo / ll, i < h.dim);
    }
    if (threadIdx.x == 0) a.count[i_kv * gridDim.z + blockIdx.z] = 0;
}

template <class T>
static const void *step_kernel_of(uint32_t dim)
{
    return dim == 32   ? (const void *)step_kernel<T, 32>
           : dim == 64 ? (const void *)step_kernel<T, 64>
           : dim == 128 ? (const void *)step_kernel<T, 128> : (const void *)step_kernel<T, 256>;
}

enum apr_gpu_status attn_step(const struct apr_gpu_device *d, const struct heads *h, const struct kv *kv,
                              const struct step *st, const float *qkv, const struct attn_room *room,
                              const struct act *out, cudaStream_t s, struct apr_gpu_err *e)
{
    step_args a = {*h, *kv, st, qkv, room->part, room->count, *out};
    uint32_t group = h->n_heads / h->n_heads_kv;
    cudaLaunchConfig_t c = {};
    cudaLaunchAttribute at[1];
    void *args[] = {&a};
    c.gridDim = dim3(ATTN_SPLITS, h->n_heads_kv, (group + G_MAX - 1) / G_MAX);
    c.blockDim = dim3(32 * N_WARPS);
    c.stream = s;
    at[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    at[0].val.programmaticStreamSerializationAllowed = 1;
    c.attrs = at;
    c.numAttrs = d->sm >= 90 ? 1 : 0;
    return gpu_cuda(cudaLaunchKernelExC(&c, h->f32 ? step_kernel_of<float>(h->dim_pad) : step_kernel_of<__half>(h->dim_pad), args),
                    "attention of a token", e);
}

/* ---- prompts ---------------------------------------------------------------------------------------------- */

/* One warp a (token, head of q, k or v). q is rotated in place (reference mode) or goes to q16. */
static __global__ void rotate_store_kernel(struct heads h, struct kv kv, uint32_t pos0, uint32_t n, float *qkv, __half *q16)
{
    __shared__ float room[4][256];
    uint32_t n_all = h.n_heads + 2 * h.n_heads_kv, i = blockIdx.x * 4 + threadIdx.y, t = i / n_all, j = i % n_all;
    int lane = (int)threadIdx.x;
    if (t >= n) return;
    float *x = qkv + ((uint64_t)t * n_all + j) * h.dim, *to = room[threadIdx.y];
    uint32_t pos = pos0 + t;
    if (j < h.n_heads) {
        head_prepare(h, x, h.q_norm, pos, h.scale, to, lane);
        __syncwarp();
        for (uint32_t k = lane; k < h.dim_pad; k += 32) {
            if (q16) q16[((uint64_t)t * h.n_heads + j) * h.dim_pad + k] = __float2half_rn(to[k]);
            if (!q16 && k < h.dim) x[k] = to[k];
        }
        return;
    }
    bool is_k = j < h.n_heads + h.n_heads_kv;
    uint32_t i_kv = j - h.n_heads - (is_k ? 0 : h.n_heads_kv);
    if (is_k) {
        head_prepare(h, x, h.k_norm, pos, 1.0f, to, lane);
    } else {
        for (uint32_t k = lane; k < h.dim_pad; k += 32) to[k] = k < h.dim ? x[k] : 0.0f;
    }
    __syncwarp();
    for (uint32_t k = lane; k < h.dim_pad; k += 32) {
        if (h.f32)
            cache_at<float>(is_k ? kv.k : kv.v, kv, h, i_kv, pos)[k] = to[k];
        else
            cache_at<__half>(is_k ? kv.k : kv.v, kv, h, i_kv, pos)[k] = __float2half_rn(to[k]);
    }
}
void attn_rotate_store(const struct heads *h, const struct kv *kv, uint32_t pos0, uint32_t n, float *qkv, __half *q16,
                       cudaStream_t s)
{
    uint32_t n_warps = n * (h->n_heads + 2 * h->n_heads_kv);
    rotate_store_kernel<<<(n_warps + 3) / 4, dim3(32, 4), 0, s>>>(*h, *kv, pos0, n, qkv, q16);
}

/* Reference: one warp a (token, head), F32 throughout, positions ascending. */
static __global__ void exact_kernel(struct heads h, struct kv kv, uint32_t pos0, uint32_t n, const float *qkv, float *out)
{
    uint32_t i = blockIdx.x * 4 + threadIdx.y, t = i / h.n_heads, j = i % h.n_heads, i_kv = j / (h.n_heads / h.n_heads_kv);
    int lane = (int)threadIdx.x;
    if (t >= n) return;
    const float *q = qkv + ((uint64_t)t * (h.n_heads + 2 * h.n_heads_kv) + j) * h.dim;
    float m = -INFINITY, l = 0, o[8] = {};
    for (uint32_t p = 0; p <= pos0 + t; p++) {
        const float *k = cache_at<float>(kv.k, kv, h, i_kv, p), *v = cache_at<float>(kv.v, kv, h, i_kv, p);
        float s = 0;
        for (uint32_t d = lane; d < h.dim; d += 32) s = fmaf(q[d], k[d], s);
        for (int b = 16; b; b >>= 1) s += __shfl_xor_sync(~0u, s, b);
        float top = fmaxf(m, s), shrink = expf(m - top), e = expf(s - top);
        m = top;
        l = l * shrink + e;
        for (int d = 0; d < 8; d++)
            if (lane + 32 * d < (int)h.dim) o[d] = fmaf(e, v[lane + 32 * d], o[d] * shrink);
    }
    for (int d = 0; d < 8; d++)
        if (lane + 32 * d < (int)h.dim) out[((uint64_t)t * h.n_heads + j) * h.dim + lane + 32 * d] = o[d] / l;
}

static __device__ __forceinline__ void mma16816(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <bool TRANS>
static __device__ __forceinline__ void ldmatrix4(uint32_t r[4], const void *p)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(p);
    if (TRANS)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at));
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at));
}
static __device__ __forceinline__ void copy16(void *to, const void *from, bool there)
{
    int n = there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((uint32_t)__cvta_generic_to_shared(to)), "l"(from), "r"(n));
}
static __device__ __forceinline__ uint32_t pack2(float x, float y)
{
    __half2 v = __floats2half2_rn(x, y);
    return *(uint32_t *)&v;
}

#define Q_ROWS 64 /* queries of a block */
#define K_ROWS 64 /* keys of a round */

/* q16: [n, n_heads, DIM] scaled (log2 e is put on here). Rows of shared memory are padded by 8 halves: no bank conflicts. */
template <int DIM>
static __global__ void __launch_bounds__(128) flash_kernel(struct heads h, struct kv kv, uint32_t pos0, uint32_t n,
                                                           const __half *q16, __nv_bfloat16 *out)
{
    constexpr int ROW = DIM + 8, STAGE = K_ROWS * ROW;
    extern __shared__ __align__(128) __half room16[];
    __half *qs = room16, *ks = qs + Q_ROWS * ROW, *vs = ks + 2 * STAGE;
    const int lane = (int)threadIdx.x % 32, w = (int)threadIdx.x / 32;
    const uint32_t i_head = blockIdx.y, i_kv = i_head / (h.n_heads / h.n_heads_kv), t0 = (gridDim.x - 1 - blockIdx.x) * Q_ROWS;
    const uint32_t n_keys = pos0 + (t0 + Q_ROWS < n ? t0 + Q_ROWS : n);

    for (int i = (int)threadIdx.x; i < Q_ROWS * DIM / 8; i += 128) {
        uint32_t r = i / (DIM / 8), c = i % (DIM / 8) * 8;
        copy16(qs + r * ROW + c, q16 + ((uint64_t)(t0 + r < n ? t0 + r : 0) * h.n_heads + i_head) * DIM + c, t0 + r < n);
    }
    auto load_keys = [&](uint32_t k0, int stage) {
        for (int i = (int)threadIdx.x; i < K_ROWS * DIM / 8; i += 128) {
            uint32_t r = i / (DIM / 8), c = i % (DIM / 8) * 8, p = k0 + r;
            bool there = p < n_keys;
            copy16(ks + stage * STAGE + r * ROW + c, cache_at<__half>(kv.k, kv, h, i_kv, there ? p : 0) + c, there);
            copy16(vs + stage * STAGE + r * ROW + c, cache_at<__half>(kv.v, kv, h, i_kv, there ? p : 0) + c, there);
        }
        asm volatile("cp.async.commit_group;");
    };
    load_keys(0, 0);

    float o[DIM / 8][4] = {}, m[2] = {-INFINITY, -INFINITY}, l[2] = {0, 0};
    uint32_t q[DIM / 16][4];
    const float log2e = 1.44269504f;
    const uint32_t n_rounds = (n_keys + K_ROWS - 1) / K_ROWS;
    for (uint32_t it = 0; it < n_rounds; it++) {
        if (it + 1 < n_rounds) {
            load_keys((it + 1) * K_ROWS, (int)(it + 1) % 2);
            asm volatile("cp.async.wait_group 1;" ::: "memory");
        } else {
            asm volatile("cp.async.wait_group 0;" ::: "memory");
        }
        __syncthreads();
        if (it == 0) {
#pragma unroll
            for (int c = 0; c < DIM / 16; c++) ldmatrix4<false>(q[c], qs + (16 * w + lane % 16) * ROW + 16 * c + lane / 16 * 8);
        }
        const __half *k = ks + it % 2 * STAGE, *v = vs + it % 2 * STAGE;
        float s[K_ROWS / 8][4] = {};
#pragma unroll
        for (int c = 0; c < DIM / 16; c++) {
#pragma unroll
            for (int j = 0; j < K_ROWS / 16; j++) {
                uint32_t b[4]; /* keys 16 j .. + 7 then + 8 .. + 15, each two halves of 16 columns */
                ldmatrix4<false>(b, k + (16 * j + lane % 8 + lane / 16 * 8) * ROW + 16 * c + lane / 8 % 2 * 8);
                mma16816(s[2 * j], q[c], b[0], b[1]);
                mma16816(s[2 * j + 1], q[c], b[2], b[3]);
            }
        }
        const uint32_t row0 = t0 + 16 * w + lane / 4;
        if ((it + 1) * K_ROWS > pos0 + t0 + 1) { /* the diagonal, or beyond the last key */
#pragma unroll
            for (int j = 0; j < K_ROWS / 8; j++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    uint32_t key = it * K_ROWS + 8 * j + lane % 4 * 2 + i % 2, row = row0 + i / 2 * 8;
                    if (key > pos0 + row) s[j][i] = -INFINITY;
                }
        }
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float top = m[r];
#pragma unroll
            for (int j = 0; j < K_ROWS / 8; j++) top = fmaxf(top, fmaxf(s[j][2 * r], s[j][2 * r + 1]));
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
            float safe = top == -INFINITY ? 0 : top, shrink = exp2f((m[r] - safe) * log2e), sum = 0;
            m[r] = top;
#pragma unroll
            for (int j = 0; j < K_ROWS / 8; j++) {
                s[j][2 * r] = exp2f((s[j][2 * r] - safe) * log2e);
                s[j][2 * r + 1] = exp2f((s[j][2 * r + 1] - safe) * log2e);
                sum += s[j][2 * r] + s[j][2 * r + 1];
            }
            l[r] = l[r] * shrink + sum;
#pragma unroll
            for (int d = 0; d < DIM / 8; d++) o[d][2 * r] *= shrink, o[d][2 * r + 1] *= shrink;
        }
#pragma unroll
        for (int j = 0; j < K_ROWS / 16; j++) {
            uint32_t p[4] = {pack2(s[2 * j][0], s[2 * j][1]), pack2(s[2 * j][2], s[2 * j][3]),
                             pack2(s[2 * j + 1][0], s[2 * j + 1][1]), pack2(s[2 * j + 1][2], s[2 * j + 1][3])};
#pragma unroll
            for (int d = 0; d < DIM / 16; d++) {
                uint32_t b[4];
                ldmatrix4<true>(b, v + (16 * j + lane % 16) * ROW + 16 * d + lane / 16 * 8);
                mma16816(o[2 * d], p, b[0], b[1]);
                mma16816(o[2 * d + 1], p, b[2], b[3]);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        l[r] += __shfl_xor_sync(~0u, l[r], 1);
        l[r] += __shfl_xor_sync(~0u, l[r], 2);
        uint32_t t = t0 + 16 * w + lane / 4 + 8 * r;
        if (t >= n) continue;
        float inv = 1.0f / l[r];
#pragma unroll
        for (int d = 0; d < DIM / 8; d++) {
            uint32_t c = 8 * d + lane % 4 * 2;
            if (c >= h.dim) continue;
            __nv_bfloat162 v = __floats2bfloat162_rn(o[d][2 * r] * inv, o[d][2 * r + 1] * inv);
            *(__nv_bfloat162 *)(out + ((uint64_t)t * h.n_heads + i_head) * h.dim + c) = v;
        }
    }
}

template <int DIM>
static enum apr_gpu_status flash(const struct heads *h, const struct kv *kv, uint32_t pos0, uint32_t n, const __half *q16,
                                 __nv_bfloat16 *out, cudaStream_t s, struct apr_gpu_err *e)
{
    int n_smem = (Q_ROWS + 4 * K_ROWS) * (DIM + 8) * 2;
    CU(cudaFuncSetAttribute(flash_kernel<DIM>, cudaFuncAttributeMaxDynamicSharedMemorySize, n_smem), "shared memory of attention");
    flash_kernel<DIM><<<dim3((n + Q_ROWS - 1) / Q_ROWS, h->n_heads), 128, n_smem, s>>>(*h, *kv, pos0, n, q16, out);
    return gpu_cuda(cudaGetLastError(), "attention of a prompt", e);
}

enum apr_gpu_status attn_prompt(const struct heads *h, const struct kv *kv, uint32_t pos0, uint32_t n, const __half *q16,
                                const float *qkv, __nv_bfloat16 *out16, float *out, cudaStream_t s, struct apr_gpu_err *e)
{
    if (h->f32) {
        exact_kernel<<<(n * h->n_heads + 3) / 4, dim3(32, 4), 0, s>>>(*h, *kv, pos0, n, qkv, out);
        return gpu_cuda(cudaGetLastError(), "attention of a prompt", e);
    }
    switch (h->dim_pad) {
    case 32:
        return flash<32>(h, kv, pos0, n, q16, out16, s, e);
    case 64:
        return flash<64>(h, kv, pos0, n, q16, out16, s, e);
    case 128:
        return flash<128>(h, kv, pos0, n, q16, out16, s, e);
    case 256:
        return flash<256>(h, kv, pos0, n, q16, out16, s, e);
    }
    return gpu_fail(e, APR_GPU_UNSUPPORTED, "a head of %u values", h->dim);
}

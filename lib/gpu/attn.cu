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
static __device__ __forceinline__ T *cache_at(void *base, const struct kv &kv, const struct heads &h,
                                              uint32_t i_kv, uint32_t pos)
{
    return (T *)base +
           (((uint64_t)kv.table[pos / PAGE] * h.n_heads_kv + i_kv) * PAGE + pos % PAGE) * h.dim_pad;
}

/* One head by one warp: RMSNorm over the head where the model has it, rotation; to: [dim_pad]. */
static __device__ __noinline__ void head_prepare(const struct heads &h, const float *x, const float *norm,
                                                 uint32_t pos, float scale, float *to, int lane)
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
#define N_WARPS 8
#define G_MAX   8 /* query heads that share one read of a KV head */

/* Sums v[g] over the LPK lanes of a key. Afterwards lane l of the key holds head l * G_MAX / LPK in v[0]
 * (LPK >= 8), or heads 2 l and 2 l + 1 in v[0], v[1] (LPK = 4). */
template <int LPK> static __device__ __forceinline__ void scatter_sum(float v[G_MAX], int lane)
{
    constexpr int N_STEPS = LPK >= 8 ? 3 : 2;
#pragma unroll
    for (int i = 0; i < N_STEPS; i++) {
        const int mask = LPK >> (i + 1), n = G_MAX >> (i + 1);
        bool up = lane & mask;
#pragma unroll
        for (int k = 0; k < G_MAX / 2; k++) {
            if (k >= n) continue;
            float send = up ? v[k] : v[k + n], keep = up ? v[k + n] : v[k];
            v[k] = keep + __shfl_xor_sync(~0u, send, mask);
        }
    }
#pragma unroll
    for (int mask = LPK >> 4; mask >= 1; mask >>= 1) v[0] += __shfl_xor_sync(~0u, v[0], mask);
}

/* 16 neighbouring values, one a thread of a half-warp: out as F32 and as int8 with a scale. The whole warp
 * calls; there: within the head (the head size is a multiple of 16). */
static __device__ __noinline__ void put_act(const struct act &out, uint32_t i, float v, bool there)
{
    if (there && out.f) out.f[i] = v;
    if (!out.q) return;
    float top = fabsf(v);
#pragma unroll
    for (int o = 8; o; o >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, o));
    float d = top * (1.0f / 127.0f), inv = top > 1e-30f ? __fdividef(127.0f, top) : 0;
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

static __device__ __forceinline__ void copy16(void *to, const void *from, bool there)
{
    int n = there ? 16 : 0;
    asm volatile(
        "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((uint32_t)__cvta_generic_to_shared(to)),
        "l"(from), "r"(n));
}
static __device__ __forceinline__ void copies_commit()
{
    asm volatile("cp.async.commit_group;");
}
template <int N> static __device__ __forceinline__ void copies_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* Which pages a split has: whole pages, at least one a warp while there are enough. */
struct span {
    uint32_t n_pages, n_used, first, last; /* pages first .. last - 1 of this block */
};
static __device__ __forceinline__ span span_of(uint32_t n, uint32_t i_split)
{
    span s;
    s.n_pages = (n + PAGE - 1) / PAGE;
    uint32_t n_want = (s.n_pages + N_WARPS - 1) / N_WARPS;
    if (n_want > ATTN_SPLITS) n_want = ATTN_SPLITS;
    uint32_t n_each = (s.n_pages + n_want - 1) / n_want;
    s.n_used = (s.n_pages + n_each - 1) / n_each;
    s.first = i_split * n_each;
    s.last = s.first + n_each < s.n_pages ? s.first + n_each : s.n_pages;
    return s;
}

/* Of one warp: scores of a page, then their exponentials; running maximum and sum of each head. */
struct warp_room {
    float score[G_MAX][PAGE];
    float m[G_MAX], l[G_MAX], shrink[G_MAX];
};
/* What a block shares besides the pages. */
template <int DIM> struct step_room {
    float q[G_MAX][DIM];
    float fresh[2][DIM]; /* this step's key and value */
    warp_room warp[N_WARPS];
    float scale[G_MAX][ATTN_SPLITS], sum[G_MAX];
    bool last;
};
/* Of one warp: a page of keys and of values. One of each, so that a block fits beside one of the kernel
 * before. */
template <int DIM> __host__ __device__ constexpr uint32_t pages_bytes()
{
    return 2 * PAGE * DIM * 2;
}

/* One page against all heads of the group: scores, running softmax, values. The loops are not unrolled: a
 * block runs through them once or twice, and fetching code costs more than branching. */
template <int DIM>
static __device__ __forceinline__ void page_step(const __half *k, const __half *v, uint32_t n_keys,
                                                 const float q[G_MAX][8], warp_room *r, float acc[G_MAX][8],
                                                 int lane)
{
    constexpr int LPK = DIM / 8, KEYS = 32 / LPK;
    const int part = lane % LPK, half = lane / 16;
#pragma unroll 1
    for (int s = 0; s < (int)PAGE / KEYS; s++) {
        float x[8], d[G_MAX];
        int key = s * KEYS + lane / LPK;
        load8(k + key * DIM + 8 * part, x);
#pragma unroll
        for (int g = 0; g < G_MAX; g++) {
            d[g] = 0;
#pragma unroll
            for (int i = 0; i < 8; i++) d[g] = fmaf(q[g][i], x[i], d[g]);
        }
        scatter_sum<LPK>(d, lane);
        if (LPK >= 8) {
            if (part % (LPK >= 8 ? LPK / 8 : 1) == 0) r->score[part / (LPK >= 8 ? LPK / 8 : 1)][key] = d[0];
        } else {
            r->score[2 * part][key] = d[0];
            r->score[2 * part + 1][key] = d[1];
        }
    }
    __syncwarp();
#pragma unroll 1
    for (int g = half; g < G_MAX; g += 2) { /* two heads at a time, a half-warp each, a key a lane */
        float s = (uint32_t)lane % 16 < n_keys ? r->score[g][lane % 16] : -INFINITY, top = s;
#pragma unroll
        for (int o = 8; o; o >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, o));
        top = fmaxf(top, r->m[g]);
        float e = __expf(s - top), sum = e, shrink = __expf(r->m[g] - top);
#pragma unroll
        for (int o = 8; o; o >>= 1) sum += __shfl_xor_sync(~0u, sum, o);
        r->score[g][lane % 16] = e;
        __syncwarp();
        if (lane % 16 == 0) r->m[g] = top, r->l[g] = r->l[g] * shrink + sum, r->shrink[g] = shrink;
    }
    __syncwarp();
#pragma unroll
    for (int g = 0; g < G_MAX; g++) {
        float shrink = r->shrink[g];
#pragma unroll
        for (int i = 0; i < 8; i++) acc[g][i] *= shrink;
    }
#pragma unroll 1
    for (int s = 0; s < (int)PAGE / KEYS; s++) {
        float x[8];
        int key = s * KEYS + lane / LPK;
        load8(v + key * DIM + 8 * part, x);
        if ((uint32_t)key >= n_keys) continue; /* what stands there was never written */
#pragma unroll
        for (int g = 0; g < G_MAX; g++) {
            float e = r->score[g][key];
#pragma unroll
            for (int i = 0; i < 8; i++) acc[g][i] = fmaf(e, x[i], acc[g][i]);
        }
    }
    __syncwarp();
}

/* The values of this warp to shared memory. */
template <int DIM> static __device__ __forceinline__ void warp_result(float *o, float acc[G_MAX][8], int lane)
{
    constexpr int LPK = DIM / 8;
#pragma unroll
    for (int g = 0; g < G_MAX; g++) {
#pragma unroll
        for (int i = 0; i < 8; i++) {
#pragma unroll
            for (int b = LPK; b < 32; b <<= 1) acc[g][i] += __shfl_xor_sync(~0u, acc[g][i], b);
        }
        if (lane < LPK) {
            *(float4 *)(o + g * DIM + 8 * lane) = make_float4(acc[g][0], acc[g][1], acc[g][2], acc[g][3]);
            *(float4 *)(o + g * DIM + 8 * lane + 4) = make_float4(acc[g][4], acc[g][5], acc[g][6], acc[g][7]);
        }
    }
}

/* n partial results (m, l): their scales to the common maximum, and the sum; one warp a head, a lane a part.
 */
static __device__ __noinline__ void scales_of(float m, float l, bool there, float *scale, float *sum,
                                              int lane)
{
    float top = there ? m : -INFINITY;
#pragma unroll
    for (int o = 16; o; o >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, o));
    float s = there && l != 0 ? __expf(m - top) : 0, total = there && l != 0 ? l * s : 0;
    if (there && l != l) total = l; /* NaN must show */
#pragma unroll
    for (int o = 16; o; o >>= 1) total += __shfl_xor_sync(~0u, total, o);
    if (there) scale[lane] = s;
    if (lane == 0) *sum = total;
}

template <int DIM>
static __global__ void __launch_bounds__(32 * N_WARPS, 1) step_kernel(const __grid_constant__ step_args a)
{
    extern __shared__ __align__(128) uint8_t pages[];
    __shared__ step_room<DIM> r;
    const struct heads &h = a.h;
    const int lane = (int)threadIdx.x % 32, w = (int)threadIdx.x / 32;
    const uint32_t i_kv = blockIdx.y, group = h.n_heads / h.n_heads_kv, g0 = blockIdx.z * G_MAX;
    const uint32_t n_g = group - g0 < G_MAX ? group - g0 : G_MAX, i_head = i_kv * group + g0;

    let_next_start();
    /* the state was written before this graph began, and so was the cache up to this step */
    const uint32_t pos = (uint32_t)__ldcg(&a.st->pos);
    const span sp = span_of(pos + 1, blockIdx.x);
    if (blockIdx.x >= sp.n_used) return;
    __half *mine = (__half *)(pages + w * pages_bytes<DIM>());
    auto fetch = [&](uint32_t page) {
        if (page < sp.last) {
            uint64_t off = ((uint64_t)__ldg(a.kv.table + page) * h.n_heads_kv + i_kv) * PAGE * DIM;
            for (uint32_t i = 8 * (uint32_t)lane; i < PAGE * DIM; i += 256) {
                copy16(mine + i, (const __half *)a.kv.k + off + i, true);
                copy16(mine + PAGE * DIM + i, (const __half *)a.kv.v + off + i, true);
            }
        }
        copies_commit();
    };
    fetch(sp.first + w);
    wait_for_input();

    for (uint32_t g = (uint32_t)w; g < n_g; g += N_WARPS)
        head_prepare(h, a.qkv + (uint64_t)(i_head + g) * h.dim, h.q_norm, pos, h.scale, r.q[g], lane);
    if (sp.last == sp.n_pages && w == N_WARPS - 1) { /* this step's key and value */
        const float *k = a.qkv + (uint64_t)(h.n_heads + i_kv) * h.dim,
                    *v = k + (uint64_t)h.n_heads_kv * h.dim;
        __half *to_k = cache_at<__half>(a.kv.k, a.kv, h, i_kv, pos),
               *to_v = cache_at<__half>(a.kv.v, a.kv, h, i_kv, pos);
        head_prepare(h, k, h.k_norm, pos, 1.0f, r.fresh[0], lane);
        for (uint32_t i = lane; i < DIM; i += 32) r.fresh[1][i] = i < h.dim ? v[i] : 0.0f;
        __syncwarp();
        for (uint32_t i = lane; i < DIM && blockIdx.z == 0; i += 32) {
            to_k[i] = __float2half_rn(r.fresh[0][i]);
            to_v[i] = __float2half_rn(r.fresh[1][i]);
        }
    }
    __syncthreads();

    float q[G_MAX][8], acc[G_MAX][8] = {};
    warp_room *mine_r = &r.warp[w];
    if (lane < G_MAX)
        mine_r->m[lane] = -1e30f, mine_r->l[lane] = 0; /* finite: no page yet must not make NaN */
    __syncwarp();
#pragma unroll
    for (int g = 0; g < G_MAX; g++)
#pragma unroll
        for (int i = 0; i < 8; i++) q[g][i] = (uint32_t)g < n_g ? r.q[g][8 * (lane % (DIM / 8)) + i] : 0.0f;
    for (uint32_t p = sp.first + w; p < sp.last; p += N_WARPS) {
        __half *k = mine, *v = k + PAGE * DIM;
        copies_wait<0>();
        __syncwarp();
        if (p == sp.n_pages - 1) {
            for (uint32_t i = lane; i < DIM; i += 32) {
                k[pos % PAGE * DIM + i] = __float2half_rn(r.fresh[0][i]);
                v[pos % PAGE * DIM + i] = __float2half_rn(r.fresh[1][i]);
            }
            __syncwarp();
        }
        uint32_t n_keys = pos + 1 - p * PAGE < PAGE ? pos + 1 - p * PAGE : PAGE;
        page_step<DIM>(k, v, n_keys, q, mine_r, acc, lane);
        fetch(p + N_WARPS);
    }
    copies_wait<0>();
    __syncthreads();
    float *o = (float *)pages; /* [N_WARPS][G_MAX][DIM] */
    warp_result<DIM>(o + w * G_MAX * DIM, acc, lane);
    __syncthreads();
    for (int g = w; g < (int)n_g; g += N_WARPS)
        scales_of(r.warp[lane % N_WARPS].m[g], r.warp[lane % N_WARPS].l[g], lane < N_WARPS, r.scale[g],
                  &r.sum[g], lane);
    __syncthreads();

    float *part = a.part + (uint64_t)i_head * ATTN_SPLITS * (DIM + 2);
    for (uint32_t t = threadIdx.x; t < n_g * DIM; t += 32 * N_WARPS) {
        uint32_t g = t / DIM, i = t % DIM;
        float v = 0;
#pragma unroll
        for (int k = 0; k < N_WARPS; k++) v = fmaf(r.scale[g][k], o[(k * G_MAX + g) * DIM + i], v);
        if (sp.n_used == 1) {
            put_act(a.out, (i_head + g) * h.dim + i, v / r.sum[g], i < h.dim);
            continue;
        }
        float *to = part + ((uint64_t)g * ATTN_SPLITS + blockIdx.x) * (DIM + 2);
        to[2 + i] = v;
        if (i == 0) {
            float top = r.warp[0].m[g];
            for (int k = 1; k < N_WARPS; k++) top = fmaxf(top, r.warp[k].m[g]);
            to[0] = top, to[1] = r.sum[g];
        }
    }
    if (sp.n_used == 1) return;
    unsigned *count = &a.count[i_kv * gridDim.z + blockIdx.z];
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) r.last = atomicAdd(count, 1u) == sp.n_used - 1;
    __syncthreads();
    if (!r.last) return;
    __threadfence();
    for (uint32_t g = (uint32_t)w; g < n_g; g += N_WARPS) {
        const float *from = part + ((uint64_t)g * ATTN_SPLITS + lane) * (DIM + 2);
        bool there = (uint32_t)lane < sp.n_used;
        scales_of(there ? __ldcg(from) : 0, there ? __ldcg(from + 1) : 0, there, r.scale[g], &r.sum[g], lane);
    }
    __syncthreads();
    for (uint32_t t = threadIdx.x; t < n_g * DIM; t += 32 * N_WARPS) {
        uint32_t g = t / DIM, i = t % DIM;
        const float *from = part + (uint64_t)g * ATTN_SPLITS * (DIM + 2) + 2 + i;
        float v = 0;
#pragma unroll 8
        for (uint32_t k = 0; k < sp.n_used; k++)
            v = fmaf(r.scale[g][k], __ldcg(from + (uint64_t)k * (DIM + 2)), v);
        put_act(a.out, (i_head + g) * h.dim + i, v / r.sum[g], i < h.dim);
    }
    if (threadIdx.x == 0) *count = 0;
}

template <int DIM>
static enum apr_gpu_status launch_step(cudaLaunchConfig_t *c, const step_args *a, struct apr_gpu_err *e)
{
    uint32_t n_smem = N_WARPS * pages_bytes<DIM>(), n_out = N_WARPS * G_MAX * DIM * 4;
    void *args[] = {(void *)a};
    c->dynamicSmemBytes = n_smem > n_out ? n_smem : n_out;
    CU(cudaFuncSetAttribute(step_kernel<DIM>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                            (int)c->dynamicSmemBytes),
       "shared memory of attention");
    return gpu_cuda(cudaLaunchKernelExC(c, (const void *)step_kernel<DIM>, args), "attention of a token", e);
}

enum apr_gpu_status attn_step(const struct apr_gpu_device *d, const struct heads *h, const struct kv *kv,
                              const struct step *st, const float *qkv, const struct attn_room *room,
                              const struct act *out, cudaStream_t s, struct apr_gpu_err *e)
{
    step_args a = {*h, *kv, st, qkv, room->part, room->count, *out};
    uint32_t group = h->n_heads / h->n_heads_kv;
    cudaLaunchConfig_t c = {};
    cudaLaunchAttribute at[1];
    c.gridDim = dim3(ATTN_SPLITS, h->n_heads_kv, (group + G_MAX - 1) / G_MAX);
    c.blockDim = dim3(32 * N_WARPS);
    c.stream = s;
    at[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    at[0].val.programmaticStreamSerializationAllowed = 1;
    c.attrs = at;
    c.numAttrs = d->sm >= 90 ? 1 : 0;
    switch (h->dim_pad) {
    case 32:
        return launch_step<32>(&c, &a, e);
    case 64:
        return launch_step<64>(&c, &a, e);
    case 128:
        return launch_step<128>(&c, &a, e);
    case 256:
        return launch_step<256>(&c, &a, e);
    }
    return gpu_fail(e, APR_GPU_UNSUPPORTED, "a head of %u values", h->dim);
}

/* ---- prompts ----------------------------------------------------------------------------------------------
 */

/* One warp a (token, head of q, k or v). q is rotated in place (reference mode) or goes to q16. */
static __global__ void rotate_store_kernel(struct heads h, struct kv kv, uint32_t pos0, uint32_t n,
                                           float *qkv, __half *q16)
{
    __shared__ float room[4][256];
    uint32_t n_all = h.n_heads + 2 * h.n_heads_kv, i = blockIdx.x * 4 + threadIdx.y, t = i / n_all,
             j = i % n_all;
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
void attn_rotate_store(const struct heads *h, const struct kv *kv, uint32_t pos0, uint32_t n, float *qkv,
                       __half *q16, cudaStream_t s)
{
    uint32_t n_warps = n * (h->n_heads + 2 * h->n_heads_kv);
    rotate_store_kernel<<<(n_warps + 3) / 4, dim3(32, 4), 0, s>>>(*h, *kv, pos0, n, qkv, q16);
}

/* Reference: one warp a (token, head), F32 throughout, positions ascending. */
static __global__ void exact_kernel(struct heads h, struct kv kv, uint32_t pos0, uint32_t n, const float *qkv,
                                    float *out)
{
    uint32_t i = blockIdx.x * 4 + threadIdx.y, t = i / h.n_heads, j = i % h.n_heads,
             i_kv = j / (h.n_heads / h.n_heads_kv);
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
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
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

#define Q_ROWS 64 /* queries of a block */
#define K_ROWS 64 /* keys of a round */

/* q16: [n, n_heads, DIM] scaled (log2 e is put on here). Rows of shared memory are padded by 8 halves: no
 * bank conflicts. */
template <int DIM>
static __global__ void __launch_bounds__(128) flash_kernel(struct heads h, struct kv kv, uint32_t pos0,
                                                           uint32_t n, const __half *q16, __nv_bfloat16 *out)
{
    constexpr int ROW = DIM + 8, STAGE = K_ROWS * ROW;
    extern __shared__ __align__(128) __half room16[];
    __half *qs = room16, *ks = qs + Q_ROWS * ROW, *vs = ks + 2 * STAGE;
    const int lane = (int)threadIdx.x % 32, w = (int)threadIdx.x / 32;
    const uint32_t i_head = blockIdx.y, i_kv = i_head / (h.n_heads / h.n_heads_kv),
                   t0 = (gridDim.x - 1 - blockIdx.x) * Q_ROWS;
    const uint32_t n_keys = pos0 + (t0 + Q_ROWS < n ? t0 + Q_ROWS : n);

    for (int i = (int)threadIdx.x; i < Q_ROWS * DIM / 8; i += 128) {
        uint32_t r = i / (DIM / 8), c = i % (DIM / 8) * 8;
        copy16(qs + r * ROW + c, q16 + ((uint64_t)(t0 + r < n ? t0 + r : 0) * h.n_heads + i_head) * DIM + c,
               t0 + r < n);
    }
    auto load_keys = [&](uint32_t k0, int stage) {
        for (int i = (int)threadIdx.x; i < K_ROWS * DIM / 8; i += 128) {
            uint32_t r = i / (DIM / 8), c = i % (DIM / 8) * 8, p = k0 + r;
            bool there = p < n_keys;
            copy16(ks + stage * STAGE + r * ROW + c, cache_at<__half>(kv.k, kv, h, i_kv, there ? p : 0) + c,
                   there);
            copy16(vs + stage * STAGE + r * ROW + c, cache_at<__half>(kv.v, kv, h, i_kv, there ? p : 0) + c,
                   there);
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
            for (int c = 0; c < DIM / 16; c++)
                ldmatrix4<false>(q[c], qs + (16 * w + lane % 16) * ROW + 16 * c + lane / 16 * 8);
        }
        const __half *k = ks + it % 2 * STAGE, *v = vs + it % 2 * STAGE;
        float s[K_ROWS / 8][4] = {};
#pragma unroll
        for (int c = 0; c < DIM / 16; c++) {
#pragma unroll
            for (int j = 0; j < K_ROWS / 16; j++) {
                uint32_t b[4]; /* keys 16 j .. + 7 then + 8 .. + 15, each two halves of 16 columns */
                ldmatrix4<false>(b,
                                 k + (16 * j + lane % 8 + lane / 16 * 8) * ROW + 16 * c + lane / 8 % 2 * 8);
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
                             pack2(s[2 * j + 1][0], s[2 * j + 1][1]),
                             pack2(s[2 * j + 1][2], s[2 * j + 1][3])};
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
static enum apr_gpu_status flash(const struct heads *h, const struct kv *kv, uint32_t pos0, uint32_t n,
                                 const __half *q16, __nv_bfloat16 *out, cudaStream_t s, struct apr_gpu_err *e)
{
    int n_smem = (Q_ROWS + 4 * K_ROWS) * (DIM + 8) * 2;
    CU(cudaFuncSetAttribute(flash_kernel<DIM>, cudaFuncAttributeMaxDynamicSharedMemorySize, n_smem),
       "shared memory of attention");
    flash_kernel<DIM>
        <<<dim3((n + Q_ROWS - 1) / Q_ROWS, h->n_heads), 128, n_smem, s>>>(*h, *kv, pos0, n, q16, out);
    return gpu_cuda(cudaGetLastError(), "attention of a prompt", e);
}

enum apr_gpu_status attn_prompt(const struct heads *h, const struct kv *kv, uint32_t pos0, uint32_t n,
                                const __half *q16, const float *qkv, __nv_bfloat16 *out16, float *out,
                                cudaStream_t s, struct apr_gpu_err *e)
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

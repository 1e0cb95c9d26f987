/* Attention of one new token of each of several sequences, split over the cache.
 *
 * Cache: per layer [page][KV head][16 positions][dim_pad] of F16, K after bias, norm and rotation; dim_pad is
 * the head size rounded up to 32, 64, 128 or 256, the rest zero. Scores, softmax and sums are F32.
 *
 * A block for each (token, KV head, split); all query heads of the KV head share one read of K and V, so the
 * bytes moved are the cache once. The bound is the memory for long caches and latency for short ones. Splits
 * are whole 16s; a split writes (max, sum, values), the last block of a KV head to arrive adds them in the
 * order of the splits. An empty split does not exist (hazard: -inf minus -inf).
 */
#include "attn.cuh"

struct step_args {
    struct heads h;
    struct kv kv;
    const struct step *rows;
    const uint32_t *which;  /* rows of this launch; NULL: all of them in order */
    uint32_t n_splits, n_z; /* most splits; blocks that share the heads of a KV head */
    const float *qkv;
    struct attn_room room;
    struct act out;
};

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

/* 16 neighbouring values, one a thread of a half-warp: out in the forms that are wanted. The whole warp
 * calls; there: within the head (the head size is a multiple of 16). */
static __device__ __noinline__ void put_act(const struct act &out, uint32_t t, uint32_t i, float v,
                                            bool there)
{
    if (there && out.f) out.f[i] = v;
    if (there && out.h) put_half(out, t, i, v);
    if (!out.q) return;
    float top = fabsf(v);
#pragma unroll
    for (int o = 8; o; o >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, o));
    act_scale s = act_scale_of(top);
    int q = __float2int_rn(v * s.inv), sum = q;
#pragma unroll
    for (int o = 8; o; o >>= 1) sum += __shfl_xor_sync(~0u, sum, o);
    if (!there) return;
    act_put(out.q, i, (int16_t)q);
    if (i % 16 == 0) act_put_scale(out.q, i, s.d, sum);
}

/* Which pages a split has: whole pages, at least one a warp while there are enough. */
struct span {
    uint32_t n_pages, n_used, first, last; /* pages first .. last - 1 of this block */
};
static __device__ __forceinline__ span span_of(uint32_t n, uint32_t n_most, uint32_t i_split)
{
    span s;
    s.n_pages = (n + PAGE - 1) / PAGE;
    uint32_t n_want = (s.n_pages + N_WARPS - 1) / N_WARPS;
    if (n_want > n_most) n_want = n_most;
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

/* What one block works on. */
template <int DIM> struct block {
    const step_args &a;
    step_room<DIM> &r;
    __half *pages;              /* of all warps */
    uint32_t i_row, t, pos;     /* of this launch; of the step; of its sequence */
    uint32_t i_kv, i_head, n_g; /* the first query head of n_g */
    const int32_t *table;
    span sp;
    int lane, w;
    __device__ __half *mine() const { return pages + w * (pages_bytes<DIM>() / 2); }
    __device__ float *part(uint32_t g, uint32_t i_split) const
    {
        return a.room.part +
               (((uint64_t)i_row * a.h.n_heads + i_head + g) * a.n_splits + i_split) * (DIM + 2);
    }
};

template <int DIM> static __device__ __forceinline__ void fetch(const block<DIM> &b, uint32_t page)
{
    if (page < b.sp.last) {
        __half *to = b.mine();
        uint64_t off = ((uint64_t)__ldg(b.table + page) * b.a.h.n_heads_kv + b.i_kv) * PAGE * DIM;
        for (uint32_t i = 8 * (uint32_t)b.lane; i < PAGE * DIM; i += 256) {
            copy16(to + i, (const __half *)b.a.kv.k + off + i, true);
            copy16(to + PAGE * DIM + i, (const __half *)b.a.kv.v + off + i, true);
        }
    }
    copies_commit();
}

/* Queries of the group; in the last split this token's key and value, which the first block of a KV head
 * also writes to the cache. */
template <int DIM> static __device__ __forceinline__ void prepare(const block<DIM> &b, bool stores)
{
    const struct heads &h = b.a.h;
    const float *qkv = b.a.qkv + (uint64_t)b.t * (h.n_heads + 2 * h.n_heads_kv) * h.dim;
    const int lane = b.lane;
    for (uint32_t g = (uint32_t)b.w; g < b.n_g; g += N_WARPS)
        head_prepare(h, qkv + (uint64_t)(b.i_head + g) * h.dim, h.q_norm, b.pos, h.scale, b.r.q[g], lane);
    if (b.sp.last != b.sp.n_pages || b.w != N_WARPS - 1) return;
    const float *k = qkv + (uint64_t)(h.n_heads + b.i_kv) * h.dim, *v = k + (uint64_t)h.n_heads_kv * h.dim;
    __half *to_k = cache_at<__half>(b.a.kv.k, b.table, h, b.i_kv, b.pos),
           *to_v = cache_at<__half>(b.a.kv.v, b.table, h, b.i_kv, b.pos);
    head_prepare(h, k, h.k_norm, b.pos, 1.0f, b.r.fresh[0], lane);
    for (uint32_t i = lane; i < DIM; i += 32) b.r.fresh[1][i] = i < h.dim ? v[i] : 0.0f;
    __syncwarp();
    for (uint32_t i = lane; i < DIM && stores; i += 32) {
        to_k[i] = __float2half_rn(b.r.fresh[0][i]);
        to_v[i] = __float2half_rn(b.r.fresh[1][i]);
    }
}

/* The pages of this warp; acc: its share of the values. */
template <int DIM> static __device__ __forceinline__ void walk(const block<DIM> &b, float acc[G_MAX][8])
{
    const int lane = b.lane;
    warp_room *r = &b.r.warp[b.w];
    float q[G_MAX][8];
    if (lane < G_MAX) r->m[lane] = -1e30f, r->l[lane] = 0; /* finite: no page yet must not make NaN */
    __syncwarp();
#pragma unroll
    for (int g = 0; g < G_MAX; g++)
#pragma unroll
        for (int i = 0; i < 8; i++)
            q[g][i] = (uint32_t)g < b.n_g ? b.r.q[g][8 * (lane % (DIM / 8)) + i] : 0.0f;
    for (uint32_t p = b.sp.first + b.w; p < b.sp.last; p += N_WARPS) {
        __half *k = b.mine(), *v = k + PAGE * DIM;
        copies_wait<0>();
        __syncwarp();
        if (p == b.sp.n_pages - 1) {
            for (uint32_t i = lane; i < DIM; i += 32) {
                k[b.pos % PAGE * DIM + i] = __float2half_rn(b.r.fresh[0][i]);
                v[b.pos % PAGE * DIM + i] = __float2half_rn(b.r.fresh[1][i]);
            }
            __syncwarp();
        }
        uint32_t n_keys = b.pos + 1 - p * PAGE < PAGE ? b.pos + 1 - p * PAGE : PAGE;
        page_step<DIM>(k, v, n_keys, q, r, acc, lane);
        fetch(b, p + N_WARPS);
    }
    copies_wait<0>();
}

/* The warps' shares together: the result where there is one split, else this split's part. */
template <int DIM> static __device__ __forceinline__ void join_warps(const block<DIM> &b)
{
    step_room<DIM> &r = b.r;
    const float *o = (const float *)b.pages; /* [N_WARPS][G_MAX][DIM] */
    for (int g = b.w; g < (int)b.n_g; g += N_WARPS)
        scales_of(r.warp[b.lane % N_WARPS].m[g], r.warp[b.lane % N_WARPS].l[g], b.lane < N_WARPS, r.scale[g],
                  &r.sum[g], b.lane);
    __syncthreads();
    for (uint32_t k = threadIdx.x; k < b.n_g * DIM; k += 32 * N_WARPS) {
        uint32_t g = k / DIM, i = k % DIM;
        float v = 0;
#pragma unroll
        for (int w = 0; w < N_WARPS; w++) v = fmaf(r.scale[g][w], o[(w * G_MAX + g) * DIM + i], v);
        if (b.sp.n_used == 1) {
            put_act(b.a.out, b.t, (b.i_head + g) * b.a.h.dim + i, v / r.sum[g], i < b.a.h.dim);
            continue;
        }
        float *to = b.part(g, blockIdx.x);
        to[2 + i] = v;
        if (i == 0) {
            float top = r.warp[0].m[g];
            for (int w = 1; w < N_WARPS; w++) top = fmaxf(top, r.warp[w].m[g]);
            to[0] = top, to[1] = r.sum[g];
        }
    }
}

/* The splits together, by the block that came last. */
template <int DIM> static __device__ __forceinline__ void join_splits(const block<DIM> &b, unsigned *count)
{
    step_room<DIM> &r = b.r;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) r.last = atomicAdd(count, 1u) == b.sp.n_used - 1;
    __syncthreads();
    if (!r.last) return;
    __threadfence();
    for (uint32_t g = (uint32_t)b.w; g < b.n_g; g += N_WARPS) {
        const float *from = b.part(g, (uint32_t)b.lane);
        bool there = (uint32_t)b.lane < b.sp.n_used;
        scales_of(there ? __ldcg(from) : 0, there ? __ldcg(from + 1) : 0, there, r.scale[g], &r.sum[g],
                  b.lane);
    }
    __syncthreads();
    for (uint32_t k = threadIdx.x; k < b.n_g * DIM; k += 32 * N_WARPS) {
        uint32_t g = k / DIM, i = k % DIM;
        const float *from = b.part(g, 0) + 2 + i;
        float v = 0;
#pragma unroll 8
        for (uint32_t s = 0; s < b.sp.n_used; s++)
            v = fmaf(r.scale[g][s], __ldcg(from + (uint64_t)s * (DIM + 2)), v);
        put_act(b.a.out, b.t, (b.i_head + g) * b.a.h.dim + i, v / r.sum[g], i < b.a.h.dim);
    }
    if (threadIdx.x == 0) *count = 0;
}

template <int DIM>
static __global__ void __launch_bounds__(32 * N_WARPS, 1) step_kernel(const __grid_constant__ step_args a)
{
    extern __shared__ __align__(128) uint8_t pages[];
    __shared__ step_room<DIM> r;
    const uint32_t i_row = blockIdx.z / a.n_z, z = blockIdx.z % a.n_z, i_kv = blockIdx.y,
                   group = a.h.n_heads / a.h.n_heads_kv, g0 = z * G_MAX, t = a.which ? a.which[i_row] : i_row;
    let_next_start();
    /* the state was written before this step began, and so was the cache of the positions before */
    const int32_t pos = __ldcg(&a.rows[t].pos);
    if (pos < 0) return; /* a row that only fills up the batch */
    const span sp = span_of((uint32_t)pos + 1, a.n_splits, blockIdx.x);
    if (blockIdx.x >= sp.n_used) return;
    const block<DIM> b = {a,
                          r,
                          (__half *)pages,
                          i_row,
                          t,
                          (uint32_t)pos,
                          i_kv,
                          i_kv * group + g0,
                          group - g0 < G_MAX ? group - g0 : G_MAX,
                          a.rows[t].table,
                          sp,
                          (int)threadIdx.x % 32,
                          (int)threadIdx.x / 32};
    float acc[G_MAX][8] = {};
    fetch(b, sp.first + b.w);
    wait_for_input();
    prepare(b, z == 0);
    __syncthreads();
    walk(b, acc);
    __syncthreads();
    warp_result<DIM>((float *)pages + b.w * G_MAX * DIM, acc, b.lane);
    __syncthreads();
    join_warps(b);
    if (sp.n_used > 1) join_splits(b, &a.room.count[((uint64_t)i_row * a.h.n_heads_kv + i_kv) * a.n_z + z]);
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

uint32_t attn_splits(const struct apr_gpu_device *d, const struct heads *h, uint32_t n_rows)
{
    uint32_t n = 2 * (uint32_t)d->n_sm / (n_rows * h->n_heads_kv);
    return n < 1 ? 1 : n > ATTN_SPLITS ? ATTN_SPLITS : n;
}

enum apr_gpu_status attn_step(const struct apr_gpu_device *d, const struct heads *h, const struct kv *kv,
                              const struct step *rows, const uint32_t *which, uint32_t n_rows,
                              const float *qkv, const struct attn_room *room, const struct act *out,
                              cudaStream_t s, struct apr_gpu_err *e)
{
    uint32_t group = h->n_heads / h->n_heads_kv, n_z = (group + G_MAX - 1) / G_MAX;
    step_args a = {*h, *kv, rows, which, attn_splits(d, h, n_rows), n_z, qkv, *room, *out};
    cudaLaunchConfig_t c = {};
    cudaLaunchAttribute at[1];
    c.gridDim = dim3(a.n_splits, h->n_heads_kv, n_z * n_rows);
    c.blockDim = dim3(32 * N_WARPS);
    c.stream = s;
    gpu_overlap(d, &c, at);
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

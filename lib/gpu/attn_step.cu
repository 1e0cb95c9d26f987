/* Attention of one new token of each of several sequences, split over the cache.
 *
 * Cache: per layer [page][KV head][16 positions][dim_pad] of F16, K after bias, norm and rotation; dim_pad is
 * the head size rounded up to 32, 64, 128 or 256, the rest zero. Scores, softmax and sums are F32.
 *
 * A block for each (token, KV head, split); all query heads of the KV head share one read of K and V, so the
 * bytes moved are the cache once. The bound is the memory for long caches and latency for short ones. Splits
 * are whole 16s; scores and values are products of 16 heads and 16 positions on tensor cores (F16 operands,
 * mma.m16n8k16), the same as in a prompt. A split writes (max, sum, values), the last block of a KV head to
 * arrive adds them in the order of the splits. An empty split does not exist (hazard: -inf minus -inf).
 */
#include "attn.cuh"

struct step_args {
    struct heads h;
    struct kv kv;
    const struct step *rows;
    const uint32_t *which;  /* rows of this launch; NULL: all of them in order */
    bool is_flat;           /* one row: a block for every SM, those without a share keep its place */
    uint32_t n_splits, n_z; /* most splits; blocks that share the heads of a KV head */
    uint32_t n_ahead;       /* pages that a warp has room for: 1 or 2 */
    const float *qkv;
    struct attn_room room;
    struct act out;
};

#define N_WARPS 8
#define G_MAX   16 /* query heads that share one read of a KV head: the rows of an A fragment */

/* Four neighbouring values of a lane: out in the forms that are wanted, a scale for the 16 of four lanes. The
 * whole warp calls; there: within the head (the head size is a multiple of 16). */
static __device__ __noinline__ void put_act4(const struct act &out, uint32_t t, uint32_t i, float4 v,
                                             bool there)
{
    const float x[4] = {v.x, v.y, v.z, v.w};
    if (there && out.f) *(float4 *)(out.f + i) = v;
    if (there && out.h)
        for (uint32_t k = 0; k < 4; k++) put_half(out, t, i + k, x[k]);
    if (!out.q) return;
    const float top = top16(top_of(v.x, v.y, v.z, v.w));
    act_scale s = act_scale_of(top);
    int q[4], sum = 0;
#pragma unroll
    for (int k = 0; k < 4; k++) sum += q[k] = __float2int_rn(x[k] * s.inv);
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    if (!there) return;
    *(int2 *)&out.q[i / 256].x[i % 32 / 8][i % 256 / 32][i % 8] =
        make_int2((q[0] & 65535) | q[1] << 16, (q[2] & 65535) | q[3] << 16);
    if (i % 16 == 0) act_put_scale(out.q, i, s.d, sum);
}

/* Asked for here, and not where it is first used. */
static __device__ __forceinline__ const int32_t *load_early(const int32_t *const *p)
{
    uint64_t v;
    asm volatile("ld.global.cg.u64 %0, [%1];" : "=l"(v) : "l"(p));
    return (const int32_t *)v;
}

/* Which pages a split has: whole pages, at least one a warp while there are enough, later two: adding up many
 * splits costs more than a second page. */
struct span {
    uint32_t n_pages, n_used, first, last; /* pages first .. last - 1 of this block */
};
static __device__ __forceinline__ span span_of(uint32_t n, uint32_t n_most, uint32_t i_split)
{
    span s;
    s.n_pages = (n + PAGE - 1) / PAGE;
    const uint32_t n_least = s.n_pages < 16 * N_WARPS ? N_WARPS : 2 * N_WARPS;
    uint32_t n_want = (s.n_pages + n_least - 1) / n_least;
    if (n_want > n_most) n_want = n_most;
    uint32_t n_each = (s.n_pages + n_want - 1) / n_want;
    s.n_used = (s.n_pages + n_each - 1) / n_each;
    s.first = i_split * n_each;
    s.last = s.first + n_each < s.n_pages ? s.first + n_each : s.n_pages;
    return s;
}

/* What a block shares besides the pages. */
template <int DIM> struct __align__(16) step_room
{
    __half q[G_MAX * DIM]; /* as a page */
    float fresh[2][DIM];   /* this step's key and value */
    float m[N_WARPS][G_MAX], l[N_WARPS][G_MAX];
    float scale[G_MAX][ATTN_SPLITS], sum[G_MAX];
    bool last;
};
/* Of one warp: a page of keys and of values; two such where a block has an SM alone. The values of all warps,
 * [N_WARPS][G_MAX][DIM] F32, fit in the same place afterwards. */
template <int DIM> __host__ __device__ constexpr uint32_t pages_bytes()
{
    return 2 * PAGE * DIM * 2;
}
static_assert(N_WARPS * pages_bytes<128>() == N_WARPS * G_MAX * 128 * 4, "values fit where pages were");

/* Where 8 values of a page stand: neighbouring rows begin in different banks (ldmatrix reads 8 rows). */
template <int DIM> static __device__ __forceinline__ uint32_t in_page(uint32_t key, uint32_t i)
{
    constexpr uint32_t MASK = DIM >= 64 ? 7 : 3;
    return key * DIM + ((i / 8) ^ (DIM >= 64 ? key & MASK : key / 2 & MASK)) * 8 + i % 8;
}

/* A warp's running result for 16 heads: rows g and g + 8 of lane 4 g + i, as in an accumulator. */
template <int DIM> struct running {
    float o[DIM / 8][4], m[2], l[2]; /* l: of this lane's columns */
};

/* One page against all heads of the group: scores, running softmax, values. q: 16 heads, as a page. */
template <int DIM>
static __device__ __forceinline__ void page_step(const __half *k, const __half *v, uint32_t n_keys,
                                                 const __half *q, running<DIM> &r, int lane)
{
    const float log2e = 1.44269504f;
    float s[2][4] = {};
#pragma unroll
    for (int c = 0; c < DIM / 16; c++) {
        uint32_t a[4], b[4]; /* keys 0 .. 7, then 8 .. 15, each two halves of 16 columns */
        ldmatrix4<false>(a, q + in_page<DIM>(lane % 16, 16 * c + lane / 16 * 8));
        ldmatrix4<false>(b, k + in_page<DIM>(lane % 8 + lane / 16 * 8, 16 * c + lane / 8 % 2 * 8));
        mma16816(s[0], a, b[0], b[1]);
        mma16816(s[1], a, b[2], b[3]);
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float top = r.m[i];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            float *x = &s[j / 2][2 * i + j % 2];
            if ((uint32_t)(j / 2 * 8 + lane % 4 * 2 + j % 2) >= n_keys) *x = -INFINITY;
            top = fmaxf(top, *x);
        }
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2)); /* finite: a page has a key, and m begins so */
        float shrink = exp2f((r.m[i] - top) * log2e), sum = 0;
        r.m[i] = top;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            float *x = &s[j / 2][2 * i + j % 2];
            sum += *x = exp2f((*x - top) * log2e);
        }
        r.l[i] = r.l[i] * shrink + sum;
#pragma unroll
        for (int d = 0; d < DIM / 8; d++) r.o[d][2 * i] *= shrink, r.o[d][2 * i + 1] *= shrink;
    }
    const uint32_t p[4] = {pack2(s[0][0], s[0][1]), pack2(s[0][2], s[0][3]), pack2(s[1][0], s[1][1]),
                           pack2(s[1][2], s[1][3])};
#pragma unroll
    for (int d = 0; d < DIM / 16; d++) {
        uint32_t b[4];
        ldmatrix4<true>(b, v + in_page<DIM>(lane % 16, 16 * d + lane / 16 * 8));
        mma16816(r.o[2 * d], p, b[0], b[1]);
        mma16816(r.o[2 * d + 1], p, b[2], b[3]);
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
    __half *pages;                   /* of all warps */
    uint32_t i_split, i_row, t, pos; /* of this launch; of the step; of its sequence */
    uint32_t i_kv, i_head, n_g;      /* the first query head of n_g */
    const int32_t *table;
    span sp;
    int lane, w;
    __device__ __half *mine(uint32_t i) const { return pages + (i * N_WARPS + w) * (pages_bytes<DIM>() / 2); }
    __device__ float *part(uint32_t g, uint32_t i_split) const
    {
        return a.room.part +
               (((uint64_t)i_row * a.h.n_heads + i_head + g) * a.n_splits + i_split) * (DIM + 2);
    }
};

template <int DIM>
static __device__ __forceinline__ void fetch(const block<DIM> &b, uint32_t page, uint32_t i_room)
{
    if (page < b.sp.last) {
        __half *to = b.mine(i_room);
        uint64_t off = ((uint64_t)__ldg(b.table + page) * b.a.h.n_heads_kv + b.i_kv) * PAGE * DIM;
        for (uint32_t i = 8 * (uint32_t)b.lane; i < PAGE * DIM; i += 256) {
            const uint32_t at = in_page<DIM>(i / DIM, i % DIM);
            copy16(to + at, (const __half *)b.a.kv.k + off + i, true);
            copy16(to + PAGE * DIM + at, (const __half *)b.a.kv.v + off + i, true);
        }
    }
    copies_commit();
}

/* Queries of the group; in the last split this token's key and value, which the first block of a KV head
 * also writes to the cache. All that is read comes first: it is in the L2 cache, and a step waits for it. */
template <int DIM>
static __device__ __forceinline__ void prepare(const block<DIM> &b, const float2 *turn, bool stores)
{
    const struct heads &h = b.a.h;
    const float *qkv = b.a.qkv + (uint64_t)b.t * (h.n_heads + 2 * h.n_heads_kv) * h.dim;
    const float *k = qkv + (uint64_t)(h.n_heads + b.i_kv) * h.dim, *v = k + (uint64_t)h.n_heads_kv * h.dim;
    const int lane = b.lane;
    const bool fresh = b.sp.last == b.sp.n_pages && b.w == N_WARPS - 1;
    head_pairs<DIM> q[2], key;
    float value[DIM / 32];
#pragma unroll
    for (uint32_t i = 0; i < 2; i++) {
        const uint32_t g = b.w + N_WARPS * i;
        q[i].load(h, g < b.n_g ? qkv + (uint64_t)(b.i_head + g) * h.dim : NULL, lane);
    }
    key.load(h, fresh ? k : NULL, lane);
#pragma unroll
    for (int i = 0; i < DIM / 32; i++)
        value[i] = fresh && lane + 32u * i < h.dim ? __ldcg(v + lane + 32 * i) : 0.0f;
#pragma unroll
    for (uint32_t i = 0; i < 2; i++)
        q[i].turn(h, h.q_norm, turn, h.scale, lane, [&](uint32_t c, float x) {
            b.r.q[in_page<DIM>(b.w + N_WARPS * i, c)] = __float2half_rn(x);
        });
    if (!fresh) return;
    key.turn(h, h.k_norm, turn, 1.0f, lane, [&](uint32_t c, float x) { b.r.fresh[0][c] = x; });
#pragma unroll
    for (int i = 0; i < DIM / 32; i++) b.r.fresh[1][lane + 32 * i] = value[i];
    __syncwarp();
    __half *to_k = cache_at<__half>(b.a.kv.k, b.table, h, b.i_kv, b.pos),
           *to_v = cache_at<__half>(b.a.kv.v, b.table, h, b.i_kv, b.pos);
#pragma unroll 1
    for (uint32_t i = lane; i < DIM && stores; i += 32) {
        to_k[i] = __float2half_rn(b.r.fresh[0][i]);
        to_v[i] = __float2half_rn(b.r.fresh[1][i]);
    }
}

/* This token's key and value into the last page, and zeros behind them: what stands there was never written.
 */
template <int DIM> static __device__ __forceinline__ void complete_page(const block<DIM> &b, __half *k)
{
    __half *v = k + PAGE * DIM;
    const uint32_t at = b.pos % PAGE;
    for (uint32_t i = b.lane; i < DIM; i += 32) {
        k[in_page<DIM>(at, i)] = __float2half_rn(b.r.fresh[0][i]);
        v[in_page<DIM>(at, i)] = __float2half_rn(b.r.fresh[1][i]);
    }
#pragma unroll 1
    for (uint32_t i = 8 * (uint32_t)b.lane; i < (PAGE - 1 - at) * DIM; i += 256)
        *(uint4 *)(v + in_page<DIM>(at + 1 + i / DIM, i % DIM)) = make_uint4(0, 0, 0, 0);
    __syncwarp();
}

/* The pages of this warp. */
template <int DIM> static __device__ __forceinline__ void walk(const block<DIM> &b, running<DIM> &r)
{
#pragma unroll 1
    for (uint32_t p = b.sp.first + b.w, i_room = 0; p < b.sp.last; p += N_WARPS) {
        __half *k = b.mine(i_room), *v = k + PAGE * DIM;
        if (b.a.n_ahead == 2)
            copies_wait<1>();
        else
            copies_wait<0>();
        __syncwarp();
        if (p == b.sp.n_pages - 1) complete_page(b, k);
        page_step<DIM>(k, v, b.pos + 1 - p * PAGE < PAGE ? b.pos + 1 - p * PAGE : PAGE, b.r.q, r, b.lane);
        __syncwarp();
        fetch(b, p + b.a.n_ahead * N_WARPS, i_room);
        i_room = b.a.n_ahead - 1 - i_room;
    }
    copies_wait<0>();
}

/* Where 8 values of a head stand: neighbouring heads begin in different banks. */
template <int DIM> static __device__ __forceinline__ uint32_t in_values(uint32_t g, uint32_t i)
{
    return g * DIM + (i ^ (g & 3) * 8);
}

/* The values of this warp to shared memory. */
template <int DIM> static __device__ __forceinline__ void warp_result(const block<DIM> &b, running<DIM> &r)
{
    float *o = (float *)b.pages + b.w * G_MAX * DIM;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint32_t g = (uint32_t)(b.lane / 4 + 8 * i);
        r.l[i] += __shfl_xor_sync(~0u, r.l[i], 1);
        r.l[i] += __shfl_xor_sync(~0u, r.l[i], 2);
        if (b.lane % 4 == 0) b.r.m[b.w][g] = r.m[i], b.r.l[b.w][g] = r.l[i];
        if (g >= b.n_g) continue;
#pragma unroll
        for (int d = 0; d < DIM / 8; d++)
            *(float2 *)(o + in_values<DIM>(g, 8 * d + b.lane % 4 * 2)) =
                make_float2(r.o[d][2 * i], r.o[d][2 * i + 1]);
    }
}

/* Columns i .. i + 3 of a head's result; v: not yet divided by the sum of the weights. */
template <int DIM>
static __device__ __forceinline__ void put_out(const block<DIM> &b, uint32_t g, uint32_t i, float4 v)
{
    const float by = 1.0f / b.r.sum[g];
    put_act4(b.a.out, b.t, (b.i_head + g) * b.a.h.dim + i,
             make_float4(v.x * by, v.y * by, v.z * by, v.w * by), i < b.a.h.dim);
}

/* The warps' shares together, a warp a head, four columns a lane: the result where there is one split, else
 * this split's part. */
template <int DIM> static __device__ __forceinline__ void join_warps(const block<DIM> &b)
{
    step_room<DIM> &r = b.r;
    const float *o = (const float *)b.pages; /* [N_WARPS][G_MAX][DIM] */
#pragma unroll 1
    for (uint32_t g = (uint32_t)b.w; g < b.n_g; g += N_WARPS) {
        scales_of(r.m[b.lane % N_WARPS][g], r.l[b.lane % N_WARPS][g], b.lane < N_WARPS, r.scale[g], &r.sum[g],
                  b.lane);
        __syncwarp();
        float *to = b.part(g, b.i_split);
#pragma unroll
        for (uint32_t i = 4 * (uint32_t)b.lane; i - 4 * (uint32_t)b.lane < DIM; i += 128) {
            float4 v = make_float4(0, 0, 0, 0);
#pragma unroll
            for (int w = 0; w < N_WARPS; w++) {
                const float s = r.scale[g][w];
                float4 x = i < DIM ? *(const float4 *)&o[w * G_MAX * DIM + in_values<DIM>(g, i)] : v;
                v = make_float4(fmaf(s, x.x, v.x), fmaf(s, x.y, v.y), fmaf(s, x.z, v.z), fmaf(s, x.w, v.w));
            }
            if (b.sp.n_used == 1) {
                put_out(b, g, i, v);
            } else if (i < DIM) {
                *(float2 *)(to + 2 + i) = make_float2(v.x, v.y);
                *(float2 *)(to + 4 + i) = make_float2(v.z, v.w);
            }
        }
        if (b.sp.n_used == 1 || b.lane) continue;
        float top = r.m[0][g];
#pragma unroll 1
        for (int w = 1; w < N_WARPS; w++) top = fmaxf(top, r.m[w][g]);
        to[0] = top, to[1] = r.sum[g];
    }
}

/* The splits together, by the block that came last: a warp a head, 12 splits asked for at a time. */
#define AT_ONCE 12u
template <int DIM> static __device__ __forceinline__ void join_splits(const block<DIM> &b, unsigned *count)
{
    step_room<DIM> &r = b.r;
    const uint32_t n = b.sp.n_used;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) r.last = atomicAdd(count, 1u) == n - 1;
    __syncthreads();
    if (!r.last) return;
    __threadfence();
#pragma unroll 1
    for (uint32_t g = (uint32_t)b.w; g < b.n_g; g += N_WARPS) {
        const float *from = b.part(g, (uint32_t)b.lane);
        bool there = (uint32_t)b.lane < n;
        scales_of(there ? __ldcg(from) : 0, there ? __ldcg(from + 1) : 0, there, r.scale[g], &r.sum[g],
                  b.lane);
        __syncwarp();
#pragma unroll
        for (uint32_t i = 4 * (uint32_t)b.lane; i - 4 * (uint32_t)b.lane < DIM; i += 128) {
            float4 v = make_float4(0, 0, 0, 0);
#pragma unroll 1
            for (uint32_t s0 = 0; s0 < n; s0 += AT_ONCE) {
                float2 x[AT_ONCE][2];
#pragma unroll
                for (uint32_t k = 0; k < AT_ONCE; k++) {
                    const float2 *p = (const float2 *)(b.part(g, s0 + k) + 2 + i);
                    bool in = i < DIM && s0 + k < n;
                    x[k][0] = in ? __ldcg(p) : make_float2(0, 0),
                    x[k][1] = in ? __ldcg(p + 1) : make_float2(0, 0);
                }
#pragma unroll
                for (uint32_t k = 0; k < AT_ONCE; k++) {
                    const float s = s0 + k < n ? r.scale[g][s0 + k] : 0;
                    v = make_float4(fmaf(s, x[k][0].x, v.x), fmaf(s, x[k][0].y, v.y), fmaf(s, x[k][1].x, v.z),
                                    fmaf(s, x[k][1].y, v.w));
                }
            }
            put_out(b, g, i, v);
        }
    }
    if (threadIdx.x == 0) *count = 0;
}

template <int DIM>
static __global__ void __launch_bounds__(32 * N_WARPS, DIM > 128 ? 1 : 2)
    step_kernel(const __grid_constant__ step_args a)
{
    extern __shared__ __align__(128) uint8_t pages[];
    __shared__ step_room<DIM> r;
    const uint32_t i_split = a.is_flat ? blockIdx.x % a.n_splits : blockIdx.x,
                   i_group = a.is_flat ? blockIdx.x / a.n_splits : blockIdx.y,
                   i_row = a.is_flat ? 0 : blockIdx.z / a.n_z,
                   i_kv = a.is_flat ? i_group % a.h.n_heads_kv : i_group,
                   z = a.is_flat ? i_group / a.h.n_heads_kv : blockIdx.z % a.n_z,
                   group = a.h.n_heads / a.h.n_heads_kv, g0 = z * G_MAX, t = a.which ? a.which[i_row] : i_row;
    let_next_start();
    if (z >= a.n_z) return wait_for_input();
    /* the state was written before this step began, and so was the cache of the positions before */
    const int32_t pos = __ldcg(&a.rows[t].pos), *table = load_early(&a.rows[t].table);
    if (pos < 0) return; /* a row that only fills up the batch */
    const span sp = span_of((uint32_t)pos + 1, a.n_splits, i_split);
    if (i_split >= sp.n_used) return wait_for_input();
    const block<DIM> b = {a,
                          r,
                          (__half *)pages,
                          i_split,
                          i_row,
                          t,
                          (uint32_t)pos,
                          i_kv,
                          i_kv * group + g0,
                          group - g0 < G_MAX ? group - g0 : G_MAX,
                          table,
                          sp,
                          (int)threadIdx.x % 32,
                          (int)threadIdx.x / 32};
    running<DIM> run = {{}, {-1e30f, -1e30f}, {0, 0}}; /* finite: no page must not make NaN */
    for (uint32_t i = 0; i < a.n_ahead; i++) fetch(b, sp.first + b.w + i * N_WARPS, i);
    float2 turn[head_pairs<DIM>::N];
#pragma unroll
    for (int p = 0; p < head_pairs<DIM>::N; p++) {
        const uint32_t i = b.lane + 32 * p, n = a.h.dim / 2;
        turn[p] = i < n ? a.h.rope[(uint64_t)pos * n + i] : make_float2(0, 0);
    }
    wait_for_input();
    prepare(b, turn, z == 0);
    __syncthreads();
    walk(b, run);
    __syncthreads();
    warp_result(b, run);
    __syncthreads();
    join_warps(b);
    if (sp.n_used > 1) join_splits(b, &a.room.count[((uint64_t)i_row * a.h.n_heads_kv + i_kv) * a.n_z + z]);
}

template <int DIM>
static enum apr_gpu_status launch_step(const struct apr_gpu_device *d, cudaLaunchConfig_t *c,
                                       const step_args *a, struct apr_gpu_err *e)
{
    void *args[] = {(void *)a};
    c->dynamicSmemBytes = a->n_ahead * N_WARPS * pages_bytes<DIM>();
    if (a->is_flat && c->dynamicSmemBytes < gpu_alone_smem(d)) c->dynamicSmemBytes = gpu_alone_smem(d);
    GPU_TRY(gpu_allow_smem((const void *)step_kernel<DIM>, (uint32_t)c->dynamicSmemBytes, "attention", e));
    CU(cudaLaunchKernelExC(c, (const void *)step_kernel<DIM>, args), "attention");
    return APR_GPU_OK;
}

uint32_t attn_splits(const struct apr_gpu_device *d, const struct heads *h, uint32_t n_rows)
{
    uint32_t n_z = (h->n_heads / h->n_heads_kv + G_MAX - 1) / G_MAX,
             n = (n_rows == 1 ? 1 : 2) * (uint32_t)d->n_sm / (n_rows * h->n_heads_kv * n_z);
    return n < 1 ? 1 : n > ATTN_SPLITS ? ATTN_SPLITS : n;
}

enum apr_gpu_status attn_step(const struct apr_gpu_device *d, const struct heads *h, const struct kv *kv,
                              const struct step *rows, const uint32_t *which, uint32_t n_rows,
                              const float *qkv, const struct attn_room *room, const struct act *out,
                              cudaStream_t s, struct apr_gpu_err *e)
{
    uint32_t group = h->n_heads / h->n_heads_kv, n_z = (group + G_MAX - 1) / G_MAX;
    const bool is_flat = n_rows == 1;
    const uint32_t n_two = 2 * N_WARPS * 4 * PAGE * h->dim_pad + (16u << 10); /* and what a block shares */
    const step_args a = {*h,      *kv,
                         rows,    which,
                         is_flat, attn_splits(d, h, n_rows),
                         n_z,     is_flat && n_two <= (uint32_t)d->max_smem ? 2u : 1u,
                         qkv,     *room,
                         *out};
    cudaLaunchConfig_t c = {};
    cudaLaunchAttribute at[1];
    const uint32_t n_blocks = a.n_splits * h->n_heads_kv * n_z;
    c.gridDim = dim3(a.n_splits, h->n_heads_kv, n_z * n_rows);
    if (a.is_flat) c.gridDim = dim3(n_blocks > (uint32_t)d->n_sm ? n_blocks : (uint32_t)d->n_sm);
    c.blockDim = dim3(32 * N_WARPS);
    c.stream = s;
    gpu_overlap(d, &c, at);
    switch (h->dim_pad) {
    case 32:
        return launch_step<32>(d, &c, &a, e);
    case 64:
        return launch_step<64>(d, &c, &a, e);
    case 128:
        return launch_step<128>(d, &c, &a, e);
    case 256:
        return launch_step<256>(d, &c, &a, e);
    }
    return gpu_fail(e, APR_GPU_UNSUPPORTED, "a head of %u values", h->dim);
}

/* A draw from all tokens at one temperature, without the host.
 *
 * Row: [n_vocab] F32, read three times from the L2 cache, 600 KB of a 152k vocabulary each: for the largest,
 * for the weights exp(x / t - most) of each of 32 blocks' ranges of ids, and, by the block that ends last,
 * the range on which the draw falls. exp is the one of kern/exp.h, bit by bit; weights are integers
 * (sampler/cands.h), so their sums are the host's in any order, and the token is. Bound: two launches, not
 * the memory.
 */
#include "kern/exp.h"
#include "sample.cuh"

#define WEIGHT 0x1p43f /* sampler/cands.c */

/* The steps of apr_scalar_exp, for x <= 0. */
static __device__ __forceinline__ float exp_of(float x)
{
    const float t = __fmaf_rn(x, APR_EXP_LOG2E, APR_EXP_MAGIC), n = __fsub_rn(t, APR_EXP_MAGIC);
    float r = __fmaf_rn(n, -APR_EXP_LN2_HI, x);
    r = __fmaf_rn(n, -APR_EXP_LN2_LO, r);
    float p = __fmaf_rn(r, APR_EXP_P4, APR_EXP_P3);
    p = __fmaf_rn(r, p, APR_EXP_P2);
    p = __fmaf_rn(r, p, APR_EXP_P1);
    p = __fmaf_rn(r, p, APR_EXP_P0);
    p = __fadd_rn(1, __fmaf_rn(__fmul_rn(r, r), p, r));
    return x < APR_EXP_MIN ? 0 : __uint_as_float(__float_as_uint(p) + (__float_as_uint(t) << 23));
}
static __device__ __forceinline__ key_t64 weight_of(float x, float t, float most)
{
    const float e = exp_of(__fsub_rn(__fdiv_rn(x, t), most));
    return e > 0 ? __float2ull_rn(__fmul_rn(e, WEIGHT)) : 0; /* NaN weighs nothing */
}

static __global__ void __launch_bounds__(PICK_THREADS)
    top_kernel(const float *logits, uint32_t n, struct sampler *samplers, struct step *rows)
{
    __shared__ unsigned top;
    struct step *st = &rows[blockIdx.y];
    struct sampler *s = &samplers[blockIdx.y];
    if (st->pos < 0 || s->orders.chain.top_k) return;
    const float *x = logits + (uint64_t)blockIdx.y * n;
    uint32_t mine = 0, n_bad = 0;
    if (threadIdx.x == 0) top = 0;
    __syncthreads();
#pragma unroll 4
    for (uint32_t i = blockIdx.x * PICK_THREADS + threadIdx.x; i < n; i += PICK_BLOCKS * PICK_THREADS) {
        const uint32_t order = key_order(x[i]);
        n_bad += !isfinite(x[i]);
        mine = order > mine ? order : mine;
    }
    if (n_bad) atomicAdd(&st->n_bad, n_bad);
    mine = __reduce_max_sync(~0u, mine);
    if (threadIdx.x % 32 == 0) atomicMax(&top, mine);
    __syncthreads();
    if (threadIdx.x == 0) atomicMax(&s->top, top);
}

/* Sum over the block's threads before this one; *all: over all of them. */
static __device__ key_t64 sum_before(key_t64 v, key_t64 *all)
{
    __shared__ key_t64 warps[PICK_THREADS / 32];
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    key_t64 sum = v, before = 0;
    for (uint32_t o = 1; o < 32; o *= 2) {
        const key_t64 left = __shfl_up_sync(~0u, sum, o);
        if (lane >= o) sum += left;
    }
    __syncthreads(); /* who reads the call before */
    if (lane == 31) warps[warp] = sum;
    __syncthreads();
    *all = 0;
    for (uint32_t i = 0; i < PICK_THREADS / 32; i++) {
        if (i == warp) before = *all;
        *all += warps[i];
    }
    return before + sum - v;
}

/* Of range i_block of ids: the token on which n_below falls, which has n_before in front of it. */
static __device__ void draw_from(const float *x, uint32_t n, uint32_t i_block, uint32_t n_ids, float t,
                                 float most, key_t64 n_before, key_t64 n_below, struct step *st)
{
    const uint32_t first = i_block * n_ids, end = first + n_ids < n ? first + n_ids : n;
    for (uint32_t i = first; i < end; i += PICK_THREADS) {
        const uint32_t id = i + threadIdx.x;
        const key_t64 mine = id < end ? weight_of(x[id], t, most) : 0;
        key_t64 all;
        const key_t64 before = n_before + sum_before(mine, &all);
        if (before <= n_below && n_below < before + mine) step_on(st, (int32_t)id); /* one thread */
        n_before += all;
        if (n_below < n_before) return;
    }
}

static __global__ void __launch_bounds__(PICK_THREADS)
    draw_kernel(const float *logits, uint32_t n, struct sampler *samplers, struct step *rows)
{
    struct step *st = &rows[blockIdx.y];
    struct sampler *s = &samplers[blockIdx.y];
    if (st->pos < 0 || s->orders.chain.top_k) return;
    const float *x = logits + (uint64_t)blockIdx.y * n, t = s->orders.chain.t_before,
                most = __fdiv_rn(key_logit(s->top), t);
    const uint32_t n_ids = (n + PICK_BLOCKS - 1) / PICK_BLOCKS, first = blockIdx.x * n_ids,
                   end = first + n_ids < n ? first + n_ids : n;
    key_t64 mine = 0, all, n_before = 0, n_all = 0;
    for (uint32_t i = first + threadIdx.x; i < end; i += PICK_THREADS) mine += weight_of(x[i], t, most);
    (void)sum_before(mine, &all);
    if (threadIdx.x == 0) s->weights[blockIdx.x] = all;
    if (!ends_row(&s->n_done)) return;
    for (uint32_t i = 0; i < PICK_BLOCKS; i++) n_all += __ldcg(&s->weights[i]);
    const key_t64 u = s->orders.bits[st->n_done % STEPS_AHEAD] >> 11, /* of 2^53 */
        n_below = __umul64hi(u << 11, n_all);
    uint32_t i_block = 0;
    while (i_block + 1 < PICK_BLOCKS && n_before + __ldcg(&s->weights[i_block]) <= n_below)
        n_before += __ldcg(&s->weights[i_block++]);
    const uint32_t n_bad = __ldcg(&st->n_bad);
    __syncthreads(); /* all have read n_done */
    if (n_all && !n_bad)
        draw_from(x, n, i_block, n_ids, t, most, n_before, n_below, st);
    else if (threadIdx.x == 0)
        step_on(st, st->id); /* any token will do: the host gets n_bad */
    if (threadIdx.x == 0) s->top = 0, s->n_done = 0;
}

void draw_all(const float *logits, uint32_t n, uint32_t n_rows, struct sampler *samplers, struct step *rows,
              cudaStream_t s)
{
    const dim3 grid(PICK_BLOCKS, n_rows);
    top_kernel<<<grid, PICK_THREADS, 0, s>>>(logits, n, samplers, rows);
    draw_kernel<<<grid, PICK_THREADS, 0, s>>>(logits, n, samplers, rows);
}

/* Matrices times one token: y = W x, with what comes before (RMSNorm, quantization) and after (bias,
 * residual, SwiGLU) in the same kernel.
 *
 * Bytes moved are the tiles, once; the bound is the memory's read bandwidth. One block of 16 warps an SM,
 * alone there (gpu_alone_smem). A block owns the groups of 16 rows i_block, i_block + n_blocks, ...; their
 * tiles, laid end to end, are cut into 16 equal runs, one a warp. Each warp streams its run through a ring of
 * its own in shared memory (cp.async), so that about 100 KB are in flight on every SM; most of the ring is
 * filled before the kernel waits for its predecessor, because weights depend on nothing. Partial sums of
 * (group, warp) meet in shared memory and are added in the order of the warps.
 *
 * A layer has four such kernels of 5 to 25 us each, so that code that a block runs through once costs as much
 * as what it does: there is one kernel for all of them, loops outside the products are not unrolled, and what
 * a row needs besides its sum is asked for behind the input.
 */
#include "async.cuh"
#include "gemv_in.cuh"

#include <string.h>

/* ---- output -----------------------------------------------------------------------------------------------
 */

/* A row of the block: thread t has row t % 16 of group t / 16, whose sum is that of warps w0 .. w1. */
struct place {
    uint32_t i, i_seg, i_group, w0, w1;
    bool there;
};
static __device__ __forceinline__ place place_of(const gemv_args &a, uint32_t i, const share &mine)
{
    place p = {i, 0, 0, 0, 0, false};
    if (i >= mine.n_groups) return p;
    locate(a, i, &p.i_seg, &p.i_group);
    /* warp w has units n_units * w / N_WARPS up to those of w + 1 */
    const uint32_t u = i * a.n_chunks;
    p.w0 = ((u + 1) * N_WARPS - 1) / mine.n_units;
    p.w1 = ((u + a.n_chunks) * N_WARPS - 1) / mine.n_units;
    p.there = p.i_group * TILE_ROWS + threadIdx.x % TILE_ROWS < a.seg[p.i_seg].n_rows;
    return p;
}
/* part: [group + warp][16]; the warps' sums in order. */
static __device__ __forceinline__ float place_sum(const float *part, const place &p, uint32_t n_units)
{
    float sum = 0;
    if (n_units >= N_WARPS) {
#pragma unroll 4
        for (uint32_t w = p.w0; w <= p.w1; w++) sum += part[(p.i + w) * TILE_ROWS + threadIdx.x % TILE_ROWS];
        return sum;
    }
#pragma unroll 1
    for (uint32_t w = p.w0; w <= p.w1; w++)
        if (n_units >= N_WARPS || n_units * w / N_WARPS < n_units * (w + 1) / N_WARPS)
            sum += part[(p.i + w) * TILE_ROWS + threadIdx.x % TILE_ROWS];
    return sum;
}
static __device__ __forceinline__ float bias_of(const gemv_args &a, const place &p)
{
    const float *b = a.seg[p.i_seg].bias;
    return b && p.there ? b[p.i_group * TILE_ROWS + threadIdx.x % TILE_ROWS] : 0.0f;
}

/* What a thread's first row needs besides the sum, found before it is there. */
struct early {
    place p, up; /* up: of SwiGLU's second matrix */
    float bias, up_bias, x, w;
};
static __device__ __forceinline__ early early_of(const gemv_args &a, uint32_t t, const share &mine)
{
    early e = {};
    const uint32_t i = t / TILE_ROWS;
    e.p = place_of(a, a.how == GEMV_SWIGLU ? 2 * i : i, mine);
    e.bias = bias_of(a, e.p);
    if (a.how == GEMV_SWIGLU) {
        e.up = place_of(a, 2 * i + 1, mine);
        e.up_bias = bias_of(a, e.up);
    }
    if (a.how == GEMV_ADD && a.next_norm && e.p.there)
        e.w = a.next_norm[e.p.i_group * TILE_ROWS + threadIdx.x % TILE_ROWS];
    return e;
}
/* ... and what is known when the kernel before has ended: the residual */
static __device__ __forceinline__ void early_x(const gemv_args &a, early *e)
{
    if (a.how == GEMV_ADD && e->p.there)
        e->x = __ldcg(a.y + e->p.i_group * TILE_ROWS + threadIdx.x % TILE_ROWS);
}

/* Values of 16 rows in a half-warp, as integers with one scale. The whole warp calls; there: a group. */
static __device__ __forceinline__ void put16(act_block *to, uint32_t row, uint32_t r, float v, bool there)
{
    uint32_t top = __float_as_uint(fabsf(v)); /* as an integer: NaN must show */
#pragma unroll
    for (int o = 8; o; o >>= 1) top = max(top, __shfl_xor_sync(~0u, top, o));
    act_scale sc = act_scale_of(__uint_as_float(top));
    int q = __float2int_rn(v * sc.inv), sum = q;
#pragma unroll
    for (int o = 8; o; o >>= 1) sum += __shfl_xor_sync(~0u, sum, o);
    if (!there) return;
    act_put(to, row, (int16_t)q);
    if (r == 0) act_put_scale(to, row, sc.d, sum);
}

static __device__ __forceinline__ void put_row(const gemv_args &a, const early &e, float v)
{
    if (e.p.there)
        a.y[a.seg[e.p.i_seg].i_row + e.p.i_group * TILE_ROWS + threadIdx.x % TILE_ROWS] = v + e.bias;
}

/* To the residual; then times the next norm's weights for its reader, who needs the sum of squares too. */
static __device__ __forceinline__ void put_added(const gemv_args &a, const early &e, float v, bool in)
{
    const uint32_t r = threadIdx.x % TILE_ROWS, row = e.p.i_group * TILE_ROWS + r;
    const float x = e.p.there ? e.x + (v + e.bias) : 0.0f;
    if (e.p.there) a.y[row] = x;
    if (!a.next_norm) return;
    if (a.next.f && e.p.there) a.next.f[row] = x * e.w;
    if (a.next.q) put16(a.next.q, row, r, x * e.w, in);
    float sum = x * x;
#pragma unroll
    for (int o = 8; o; o >>= 1) sum += __shfl_xor_sync(~0u, sum, o);
    if (in && r == 0) a.next_sq[e.p.i_group] = sum;
}

/* silu(gate) * up: as float, or as integers with one scale. */
static __device__ __forceinline__ void put_swiglu(const gemv_args &a, const early &e, float gate, float up,
                                                  bool in)
{
    const uint32_t r = threadIdx.x % TILE_ROWS, row = e.p.i_group * TILE_ROWS + r;
    gate += e.bias, up += e.up_bias;
    const float h = e.p.there ? __fdividef(gate, 1.0f + __expf(-gate)) * up : 0.0f;
    if (a.out.f && e.p.there) a.out.f[row] = h;
    if (a.out.q) put16(a.out.q, row, r, h, in);
}

/* All rows of the block; whole warps at a time. */
static __device__ __forceinline__ void put_all(const gemv_args &a, const float *part, const share &mine,
                                               float factor, early e)
{
    const uint32_t n = (a.how == GEMV_SWIGLU ? mine.n_groups / 2 : mine.n_groups) * TILE_ROWS;
#pragma unroll 1
    for (uint32_t t = threadIdx.x; t - threadIdx.x % 32 < n; t += N_THREADS) {
        if (t >= N_THREADS) e = early_of(a, t, mine), early_x(a, &e);
        const bool in = t < n;
        const float v = in ? factor * place_sum(part, e.p, mine.n_units) : 0.0f;
        if (a.how == GEMV_SWIGLU)
            put_swiglu(a, e, v, in ? factor * place_sum(part, e.up, mine.n_units) : 0.0f, in);
        else if (a.how == GEMV_ADD)
            put_added(a, e, v, in);
        else
            put_row(a, e, v);
    }
}

/* ---- the kernel -------------------------------------------------------------------------------------------
 */

static __device__ __forceinline__ void mac(int kind, const uint8_t *tile, const uint8_t *act,
                                           uint32_t i_chunk, int lane, float acc[4], bool quant)
{
    if (quant) {
        const act_block *a = (const act_block *)act;
        if (kind == TILE_Q4_K)
            tile_mac_q4_k((const tile_q4_k *)tile, a + i_chunk, lane, acc);
        else if (kind == TILE_Q6_K)
            tile_mac_q6_k((const tile_q6_k *)tile, a + i_chunk, lane, acc);
        else if (kind == TILE_Q5_K)
            tile_mac_q5_k((const tile_q5_k *)tile, a + i_chunk, lane, acc);
        else
            tile_mac_q8_0((const tile_q8_0 *)tile, a + i_chunk / 2, (int)(i_chunk % 2), lane, acc);
    } else {
        const float *x = (const float *)act + i_chunk * tile_cols(kind);
        if (kind == TILE_BF16)
            tile_mac_16<true>((const tile_16 *)tile, x, lane, acc);
        else if (kind == TILE_F16)
            tile_mac_16<false>((const tile_16 *)tile, x, lane, acc);
        else
            tile_mac_f32((const tile_f32 *)tile, x, lane, acc);
    }
}

/* sums over the eight lanes of a quarter; the first writes row 4 p + quarter */
static __device__ __forceinline__ void flush(float acc[4], float *to, int lane)
{
#pragma unroll
    for (int p = 0; p < 4; p++) {
        float v = acc[p];
        v += __shfl_xor_sync(~0u, v, 4);
        v += __shfl_xor_sync(~0u, v, 2);
        v += __shfl_xor_sync(~0u, v, 1);
        if (lane % 8 == 0) to[4 * p + lane / 8] = v;
        acc[p] = 0;
    }
}

/* Tiles that a warp asks for before the input, which arrives behind them. */
#define EARLY 2

#define DEPTH_MOST 3
/* All but the last n groups of copies have arrived. */
static __device__ __forceinline__ void copies_wait_but(uint32_t n)
{
    if (n == 0)
        copies_wait<0>();
    else if (n == 1)
        copies_wait<1>();
    else
        copies_wait<2>();
}
static_assert(DEPTH_MOST == 3, "copies_wait_but");

/* One kernel for all products of a token: code that several of them run is in the instruction cache. */
template <bool QUANT>
static __global__ void __launch_bounds__(N_THREADS, 1) gemv_kernel(const __grid_constant__ gemv_args a)
{
    extern __shared__ __align__(128) uint8_t room[];
    __shared__ float sums[N_WARPS];
    const int lane = (int)threadIdx.x % 32;
    const uint32_t w = threadIdx.x / 32;
    uint8_t *act = room, *ring = room + a.act_bytes + a.part_bytes + w * a.n_depth * a.n_slot;
    float *part = (float *)(room + a.act_bytes);
    const share mine = share_of(a);
    const uint32_t u0 = mine.n_units * w / N_WARPS, u1 = mine.n_units * (w + 1) / N_WARPS;

    let_next_start();
    const uint64_t once = read_once();
    cursor in = {}, at = {};
    if (u0 < u1) in.seek(a, u0), at = in;
    uint32_t n_in = u0;
    /* one group of copies, also where there is no tile */
    auto issue = [&](uint32_t slot) {
        if (n_in < u1) {
            uint8_t *to = ring + slot * a.n_slot;
#pragma unroll 1
            for (uint32_t o = 16 * (uint32_t)lane; o < in.bytes; o += 512)
                copy16_once(to + o, in.tile + o, once);
            n_in++;
            in.next(a, n_in < u1);
        }
        copies_commit();
    };
    uint32_t slot = 0;
#pragma unroll 1
    for (; slot < a.n_depth && slot < EARLY; slot++) issue(slot);
    held h;
    hold_norm(a, &h);
    const plain<QUANT> as_is(a);
    asked x;
    wait_for_input();
    as_is.ask(&x);
    float sq = 0;
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < a.n_sq; i += N_THREADS) sq += __ldcg(a.sq + i);
#pragma unroll 1
    for (; slot < a.n_depth; slot++) issue(slot);
    take_input<QUANT>(a, as_is, x, h, act, sums);
    /* the first warps have no more tiles than others, and only they have rows */
    early first = early_of(a, threadIdx.x, mine);
    early_x(a, &first);

    float acc[4] = {0, 0, 0, 0};
    slot = 0;
#pragma unroll 1
    for (uint32_t u = u0; u < u1; u++) {
        copies_wait_but(a.n_depth - 1);
        __syncwarp();
        mac(at.kind, ring + slot * a.n_slot, act, at.i_chunk, lane, acc, QUANT);
        __syncwarp();
        issue(slot);
        if (++slot == a.n_depth) slot = 0;
        const uint32_t i = at.i;
        if (at.next(a, u + 1 < u1) || u + 1 == u1) flush(acc, part + (i + w) * TILE_ROWS, lane);
    }
    float factor = 1.0f;
    if (a.n_sq)
        factor = rsqrtf(__fdividef(block_sum(sq, sums), (float)a.n_cols) + a.eps);
    else
        __syncthreads();
    put_all(a, part, mine, factor, first);
}

static void args_of(const struct apr_gpu_device *d, const struct gemv *g, struct gemv_args *a)
{
    const bool quant = tile_is_quantized(g->m[0]->kind);
    uint32_t i_row = 0;
    memset(a, 0, sizeof *a);
    a->how = g->how;
    a->n_seg = (uint32_t)g->n_m;
    a->n_cols = g->m[0]->n_cols, a->n_chunks = g->m[0]->n_chunks;
    for (int i = 0; i < g->n_m; i++) {
        const struct mat *m = g->m[i];
        a->seg[i] = {m->tiles, m->bias, m->n_rows, m->n_groups, i_row, tile_bytes(m->kind), m->kind};
        i_row += m->n_rows;
        a->n_groups += m->n_groups;
        if (tile_bytes(m->kind) > a->n_slot) a->n_slot = tile_bytes(m->kind);
    }
    if (g->how == GEMV_SWIGLU) a->n_groups = g->m[0]->n_groups;
    a->n_blocks = a->n_groups < (uint32_t)d->n_sm ? a->n_groups : (uint32_t)d->n_sm;
    a->x = g->in.f, a->xq = quant && !g->norm ? g->in.q : NULL;
    a->norm = g->norm, a->eps = g->eps, a->y = g->y, a->out = g->out;
    a->sq = g->sq, a->n_sq = g->sq ? (a->n_cols + TILE_ROWS - 1) / TILE_ROWS : 0;
    a->next_norm = g->next_norm, a->next = g->next, a->next_sq = g->next_sq;
}

/* Shared memory: the input, partial sums, and rings as deep as there is room. Returns its bytes; more than
 * the device has: it does not fit. */
#define SHARED_BYTES (N_WARPS * 4) /* what the kernels have besides */
static uint32_t lay_out(const struct apr_gpu_device *d, const struct gemv *g, struct gemv_args *a)
{
    const uint32_t n_padded = (a->n_cols + 255) / 256 * 256, n_most = (uint32_t)d->max_smem - SHARED_BYTES,
                   n_local = (a->n_groups + a->n_blocks - 1) / a->n_blocks * (g->how == GEMV_SWIGLU ? 2 : 1);
    a->act_bytes =
        tile_is_quantized(g->m[0]->kind) ? n_padded / 256 * (uint32_t)sizeof(act_block) : n_padded * 4;
    a->part_bytes = ((n_local + N_WARPS) * TILE_ROWS * 4 + 127) / 128 * 128;
    const uint32_t n_bytes = a->act_bytes + a->part_bytes, n_ring = N_WARPS * a->n_slot;
    a->n_depth = DEPTH_MOST;
    while (a->n_depth > 1 && n_bytes + a->n_depth * n_ring > n_most) a->n_depth--;
    return n_bytes + a->n_depth * n_ring;
}

enum apr_gpu_status gemv_run(const struct apr_gpu_device *d, const struct gemv *g, cudaStream_t s,
                             struct apr_gpu_err *e)
{
    struct gemv_args a;
    args_of(d, g, &a);
    const uint32_t n_smem = lay_out(d, g, &a), least = gpu_alone_smem(d);
    for (int i = 0; i < g->n_m; i++) gpu_mark_bytes(d, mat_bytes(g->m[i]));
    if (n_smem + SHARED_BYTES > (uint32_t)d->max_smem)
        return gpu_fail(e, APR_GPU_UNSUPPORTED,
                        "a matrix of %u columns needs %u bytes of shared memory, the device has %d", a.n_cols,
                        n_smem, d->max_smem);
    void *args[] = {&a};
    const void *kernel =
        tile_is_quantized(g->m[0]->kind) ? (const void *)gemv_kernel<true> : (const void *)gemv_kernel<false>;
    return gpu_launch(d, kernel, dim3((unsigned)d->n_sm), N_THREADS, n_smem < least ? least : n_smem, args, s,
                      g->what, e);
}

/* Matrices times 1 to 64 tokens on tensor cores, weights made F16 in registers.
 *
 * Bytes moved are the tiles once, and for every tile_rows rows the activations from the L2 cache; the bound
 * is the memory's read bandwidth up to about 32 tokens. A block takes items of (tile_rows rows, 256 columns),
 * a warp 32 rows of them, through a ring of stages in shared memory (cp.async); weights are asked for before
 * the kernel waits for its predecessor. Sums are F32, in one order (few.cuh).
 */
#include "async.cuh"
#include "few.cuh"
#include "frag.cuh"

#include <string.h>

struct few_seg {
    const uint8_t *tiles;
    uint32_t i_tile, n_groups, group_bytes, chunk_bytes; /* of 16 rows: all columns, 256 columns */
    int kind;
    float scale;
};
struct few_args {
    few_seg seg[FEW_SEGS];
    uint32_t n_seg, slot_bytes;
    const uint4 *x;
    float *part;
    few_sums s;
};

/* An item: which tile of rows, which 256 columns. */
struct place {
    uint32_t tile, chunk;
    __device__ __forceinline__ void next(uint32_t n_chunks)
    {
        if (++chunk == n_chunks) chunk = 0, tile++;
    }
};

static __device__ __forceinline__ const few_seg &seg_of(const few_args &a, uint32_t tile)
{
    uint32_t i = 0;
    while (i + 1 < a.n_seg && tile >= a.seg[i + 1].i_tile) i++;
    return a.seg[i];
}

/* This warp's 32 rows of an item. */
template <int WARPS>
static __device__ __forceinline__ void ask_weights(const few_args &a, uint64_t once, place at, uint8_t *stage,
                                                   int w, int lane)
{
    const few_seg &s = seg_of(a, at.tile);
#pragma unroll
    for (int m = 0; m < 2; m++) {
        uint32_t g = (at.tile - s.i_tile) * 2 * WARPS + 2 * w + m, off = at.chunk * s.chunk_bytes,
                 n = g < s.n_groups ? min(s.chunk_bytes, s.group_bytes - off) : 0;
        const uint8_t *from = s.tiles + (n ? (uint64_t)g * s.group_bytes + off : 0);
        uint8_t *to = stage + (2 * w + m) * a.slot_bytes;
        for (uint32_t o = 16 * (uint32_t)lane; o < s.chunk_bytes; o += 512) {
            if (o < n)
                copy16_once(to + o, from + o, once);
            else
                copy16(to + o, s.tiles, false);
        }
    }
}
template <int N8, int WARPS>
static __device__ __forceinline__ void ask_tokens(const few_args &a, place at, uint8_t *to)
{
    const uint4 *from = a.x + (uint64_t)at.chunk * N8 * (FRAG_CHUNK_BYTES / 16);
    for (uint32_t i = threadIdx.x; i < N8 * FRAG_CHUNK_BYTES / 16; i += 32 * WARPS)
        copy16(to + 16 * i, from + i, true);
}

template <int KIND, int N8>
static __device__ __forceinline__ void item(const uint8_t *w0, const uint8_t *w1, const uint4 *x, int lane,
                                            float acc[2][N8][4])
{
#pragma unroll 1
    for (int h = 0; h < 2; h++) {
        frag<KIND> f[2];
        f[0].open(w0, lane / 4, lane % 4, h);
        f[1].open(w1, lane / 4, lane % 4, h);
#pragma unroll
        for (int w = 0; w < 4; w++) {
            uint32_t a[2][2][4];
#pragma unroll
            for (int m = 0; m < 2; m++) f[m].get(w, 0, a[m][0]), f[m].get(w, 1, a[m][1]);
#pragma unroll
            for (int t = 0; t < N8; t++) {
                uint4 b = x[(t * 8 + 4 * h + w) * 32 + lane];
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    mma16816(acc[m][t], a[m][0], b.x, b.y);
                    mma16816(acc[m][t], a[m][1], b.z, b.w);
                }
            }
        }
    }
}

template <int N8>
static __device__ __forceinline__ void item_of(int kind, const uint8_t *w0, const uint8_t *w1, const uint4 *x,
                                               int lane, float acc[2][N8][4])
{
    if (kind == TILE_Q4_K)
        item<TILE_Q4_K, N8>(w0, w1, x, lane, acc);
    else if (kind == TILE_Q6_K)
        item<TILE_Q6_K, N8>(w0, w1, x, lane, acc);
    else if (kind == TILE_Q5_K)
        item<TILE_Q5_K, N8>(w0, w1, x, lane, acc);
    else if (kind == TILE_Q8_0)
        item<TILE_Q8_0, N8>(w0, w1, x, lane, acc);
    else if (kind == TILE_BF16)
        item<TILE_BF16, N8>(w0, w1, x, lane, acc);
    else
        item<TILE_F16, N8>(w0, w1, x, lane, acc);
}

/* This block's share of a tile of rows. */
template <int N8, int WARPS>
static __device__ __forceinline__ void put_tile(const few_args &a, uint32_t tile, int w, int lane,
                                                float acc[2][N8][4])
{
    const float scale = seg_of(a, tile).scale;
    uint32_t slot = blockIdx.x - few_block_of(a.s, tile * a.s.n_chunks);
    float *to = a.part + (uint64_t)slot * a.s.n_toks * a.s.n_rows + tile * 32 * WARPS + 32 * w + lane / 4;
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int t = 0; t < N8; t++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                uint32_t tok = 8 * t + lane % 4 * 2 + i % 2;
                to[(uint64_t)tok * a.s.n_rows + 16 * m + i / 2 * 8] = acc[m][t][i] * scale;
                acc[m][t][i] = 0;
            }
}

template <int N8, int WARPS, int STAGES>
static __global__ void __launch_bounds__(32 * WARPS, WARPS == 4 ? 3 : 1)
    few_kernel(const __grid_constant__ few_args a)
{
    extern __shared__ __align__(128) uint8_t room[];
    const uint32_t x_bytes = N8 * FRAG_CHUNK_BYTES, stage_bytes = 2 * WARPS * a.slot_bytes + x_bytes,
                   n_chunks = a.s.n_chunks;
    const int lane = (int)threadIdx.x % 32, w = (int)threadIdx.x / 32;
    const uint32_t i0 = (uint32_t)((uint64_t)a.s.n_items * blockIdx.x / a.s.n_blocks),
                   n = (uint32_t)((uint64_t)a.s.n_items * (blockIdx.x + 1) / a.s.n_blocks) - i0;
    place in = {i0 / n_chunks, i0 % n_chunks}, at = in, x_in = in;
    float acc[2][N8][4] = {};
    const uint64_t once = read_once();

    let_next_start();
    for (uint32_t i = 0; i < STAGES - 1 && i < n; i++, in.next(n_chunks))
        ask_weights<WARPS>(a, once, in, room + i * stage_bytes + x_bytes, w, lane);
    wait_for_input();
    for (uint32_t i = 0; i < STAGES - 1; i++) {
        if (i < n) ask_tokens<N8, WARPS>(a, x_in, room + i * stage_bytes), x_in.next(n_chunks);
        copies_commit();
    }
    for (uint32_t k = 0; k < n; k++) {
        copies_wait<STAGES - 2>();
        __syncthreads();
        if (k + STAGES - 1 < n) {
            uint8_t *to = room + (k + STAGES - 1) % STAGES * stage_bytes;
            ask_weights<WARPS>(a, once, in, to + x_bytes, w, lane);
            ask_tokens<N8, WARPS>(a, in, to);
            in.next(n_chunks);
        }
        copies_commit();
        const uint8_t *stage = room + k % STAGES * stage_bytes, *w0 = stage + x_bytes + 2 * w * a.slot_bytes;
        item_of<N8>(seg_of(a, at.tile).kind, w0, w0 + a.slot_bytes, (const uint4 *)stage, lane, acc);
        if (at.chunk + 1 == n_chunks || k + 1 == n) put_tile<N8, WARPS>(a, at.tile, w, lane, acc);
        at.next(n_chunks);
    }
}

/* ---- launching --------------------------------------------------------------------------------------------
 */

struct few_way {
    const void *kernel;
    uint32_t n_warps, n_stages, smem;
    struct few_args args;
};

static uint32_t chunk_bytes(int kind)
{
    return ACT_COLS / tile_cols(kind) * tile_bytes(kind);
}

bool few_can(const struct mat *const *m, int n_m)
{
    for (int i = 0; i < n_m; i++)
        if (m[i]->kind == TILE_F32 || tile_is_raw(m[i]->kind) || m[i]->n_cols != m[0]->n_cols) return false;
    return n_m <= FEW_SEGS;
}

static void choose(const struct apr_gpu_device *d, uint32_t n8, struct few_way *y)
{
    static const struct {
        uint32_t n8, n_warps, n_stages;
        const void *kernel;
    } ways[] = {
        {1, 4, 3, (const void *)few_kernel<1, 4, 3>}, {2, 4, 3, (const void *)few_kernel<2, 4, 3>},
        {4, 8, 3, (const void *)few_kernel<4, 8, 3>}, {4, 8, 2, (const void *)few_kernel<4, 8, 2>},
        {4, 4, 2, (const void *)few_kernel<4, 4, 2>}, {8, 8, 3, (const void *)few_kernel<8, 8, 3>},
        {8, 8, 2, (const void *)few_kernel<8, 8, 2>}, {8, 4, 2, (const void *)few_kernel<8, 4, 2>},
    };
    y->kernel = NULL;
    for (size_t i = 0; i < sizeof ways / sizeof *ways && !y->kernel; i++) {
        y->smem =
            ways[i].n_stages * (2 * ways[i].n_warps * y->args.slot_bytes + ways[i].n8 * FRAG_CHUNK_BYTES);
        if (ways[i].n8 != n8 || y->smem > (uint32_t)d->max_smem) continue;
        y->kernel = ways[i].kernel, y->n_warps = ways[i].n_warps, y->n_stages = ways[i].n_stages;
    }
}

static enum apr_gpu_status cut_up(const struct apr_gpu_device *d, const struct few *f, struct few_way *y,
                                  struct apr_gpu_err *e)
{
    struct few_args *a = &y->args;
    memset(y, 0, sizeof *y);
    for (int i = 0; i < f->n_m; i++)
        if (chunk_bytes(f->m[i]->kind) > a->slot_bytes) a->slot_bytes = chunk_bytes(f->m[i]->kind);
    choose(d, f->n8, y);
    if (!y->kernel)
        return gpu_fail(e, APR_GPU_UNSUPPORTED,
                        "a step of %u tokens needs %u bytes of shared memory, the "
                        "device has %d",
                        8 * f->n8, y->smem, d->max_smem);
    uint32_t n_tiles = 0, tile_rows = 32 * y->n_warps, n_room = (uint32_t)d->sm_smem / (y->smem + 1024);
    for (int i = 0; i < f->n_m; i++) {
        const struct mat *m = f->m[i];
        a->seg[i] = {m->tiles,
                     n_tiles,
                     m->n_groups,
                     m->n_chunks * tile_bytes(m->kind),
                     chunk_bytes(m->kind),
                     m->kind,
                     f->x_scale / mat_scale(m->kind)};
        a->s.row0[i] = n_tiles * tile_rows;
        n_tiles += (m->n_rows + tile_rows - 1) / tile_rows;
    }
    a->n_seg = (uint32_t)f->n_m;
    a->x = (const uint4 *)f->x;
    a->part = f->part;
    a->s.part = f->part;
    a->s.n_toks = 8 * f->n8, a->s.n_rows = n_tiles * tile_rows, a->s.tile_rows = tile_rows;
    a->s.n_chunks = (f->m[0]->n_cols + ACT_COLS - 1) / ACT_COLS, a->s.n_items = n_tiles * a->s.n_chunks;
    n_room = y->n_warps == 8 ? 1 : n_room < 1 ? 1 : n_room > 3 ? 3 : n_room;
    a->s.n_blocks = (uint32_t)d->n_sm * n_room;
    if (a->s.n_blocks > a->s.n_items) a->s.n_blocks = a->s.n_items;
    return APR_GPU_OK;
}

uint64_t few_part_bytes(const struct apr_gpu_device *d, const struct few *f)
{
    struct few_way y;
    struct apr_gpu_err e;
    if (cut_up(d, f, &y, &e) != APR_GPU_OK) return 0;
    const struct few_sums *s = &y.args.s;
    uint64_t n_slots = ((uint64_t)s->n_chunks * s->n_blocks + s->n_items - 1) / s->n_items + 1;
    return 4 * n_slots * s->n_toks * s->n_rows;
}

enum apr_gpu_status few_run(const struct apr_gpu_device *d, const struct few *f, struct few_sums *sums,
                            cudaStream_t s, struct apr_gpu_err *e)
{
    struct few_way y;
    GPU_TRY(cut_up(d, f, &y, e));
    *sums = y.args.s;
    for (int i = 0; i < f->n_m; i++) gpu_mark_bytes(d, mat_bytes(f->m[i]));
    void *args[] = {&y.args};
    return gpu_launch(d, y.kernel, dim3(y.args.s.n_blocks), 32 * y.n_warps, y.smem, args, s, f->what, e);
}

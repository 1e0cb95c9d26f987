/* How a kernel of gemv.cu goes through its tiles. */
#ifndef APR_RUNS_CUH
#define APR_RUNS_CUH

#include "plugin.cuh"

#define N_WARPS   16
#define N_THREADS (32 * N_WARPS)

struct seg {
    const uint8_t *tiles;
    const float *bias;
    uint32_t n_rows, n_groups, i_row, tile_bytes; /* i_row: of y */
    int kind;
};
struct gemv_args {
    struct seg seg[3];
    uint32_t n_seg, n_cols, n_chunks; /* tiles of one width: every group of rows has n_chunks of them */
    uint32_t n_blocks, n_groups;      /* n_groups: of all segments; of a pair for SwiGLU */
    enum gemv_out how;
    uint32_t n_depth, n_slot;       /* a warp's ring: tiles, bytes of the largest */
    uint32_t act_bytes, part_bytes; /* shared memory of the input and of partial sums, before the rings */
    const float *x, *norm;
    const struct act_block *xq;
    float eps;
    float *y;
    struct act out;
    /* the input was multiplied by the norm's weights when it was made, and comes with the sums of its squares
     */
    const float *sq;
    uint32_t n_sq;
    /* GEMV_ADD: the result times next_norm for who reads it next, and the sums of its squares of 16 rows */
    const float *next_norm;
    struct act next;
    float *next_sq;
};

/* The i-th group of this block: which segment, which of its groups. For SwiGLU gate and up alternate. */
static __device__ __forceinline__ void locate(const gemv_args &a, uint32_t i, uint32_t *i_seg,
                                              uint32_t *i_group)
{
    const bool pairs = a.how == GEMV_SWIGLU;
    uint32_t g = blockIdx.x + (pairs ? i / 2 : i) * a.n_blocks, s = pairs ? i % 2 : 0;
#pragma unroll 1
    while (!pairs && s + 1 < a.n_seg && g >= a.seg[s].n_groups) g -= a.seg[s++].n_groups;
    *i_seg = s;
    *i_group = g;
}

/* A place in the block's tiles: chunk i_chunk of its i-th group. */
struct cursor {
    uint32_t i, i_chunk, bytes;
    int kind;
    const uint8_t *tile;
    __device__ __forceinline__ void open(const gemv_args &a)
    {
        uint32_t s, g;
        locate(a, i, &s, &g);
        kind = a.seg[s].kind;
        bytes = a.seg[s].tile_bytes;
        tile = a.seg[s].tiles + ((uint64_t)g * a.n_chunks + i_chunk) * bytes;
    }
    __device__ __forceinline__ void seek(const gemv_args &a, uint32_t i_unit)
    {
        i = i_unit / a.n_chunks, i_chunk = i_unit % a.n_chunks;
        open(a);
    }
    /* true: the next tile begins another group */
    __device__ __forceinline__ bool next(const gemv_args &a, bool more)
    {
        tile += bytes;
        if (++i_chunk < a.n_chunks) return false;
        i++, i_chunk = 0;
        if (more) open(a);
        return true;
    }
};

/* What a block has to do: its groups (of gate and of up where they alternate) and their tiles; a warp's run
 * of tiles is n_units * w / N_WARPS up to that of w + 1. */
struct share {
    uint32_t n_groups, n_units;
};
static __device__ __forceinline__ share share_of(const gemv_args &a)
{
    share s;
    s.n_groups = blockIdx.x < a.n_groups ? (a.n_groups - blockIdx.x + a.n_blocks - 1) / a.n_blocks : 0;
    if (a.how == GEMV_SWIGLU) s.n_groups *= 2;
    s.n_units = s.n_groups * a.n_chunks;
    return s;
}

#endif

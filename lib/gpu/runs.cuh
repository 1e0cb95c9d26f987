/* How a kernel of gemv.cu goes through its tiles. */
#ifndef APR_RUNS_CUH
#define APR_RUNS_CUH

#include "plugin.cuh"

#define N_WARPS   16
#define N_THREADS (32 * N_WARPS)

struct seg {
    const uint8_t *tiles;
    const float *bias;
    uint32_t n_rows, n_groups, n_chunks, i_row; /* i_row: of y */
    int kind;
};
struct gemv_args {
    struct seg seg[3];
    uint32_t n_seg, n_cols, n_blocks, n_groups; /* n_groups: of all segments; of a pair for SwiGLU */
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
template <int HOW>
static __device__ __forceinline__ void locate(const gemv_args &a, uint32_t i, uint32_t *i_seg,
                                              uint32_t *i_group)
{
    if (HOW == GEMV_SWIGLU) {
        *i_seg = i % 2;
        *i_group = blockIdx.x + i / 2 * a.n_blocks;
        return;
    }
    uint32_t g = blockIdx.x + i * a.n_blocks, s = 0;
    while (s + 1 < a.n_seg && g >= a.seg[s].n_groups) g -= a.seg[s++].n_groups;
    *i_seg = s;
    *i_group = g;
}

/* A place in the block's tiles: chunk i_chunk of its i-th group. */
template <int HOW> struct cursor {
    uint32_t i, i_chunk, n_chunks, bytes;
    int kind;
    const uint8_t *tile;
    __device__ void open(const gemv_args &a)
    {
        uint32_t s, g;
        locate<HOW>(a, i, &s, &g);
        n_chunks = a.seg[s].n_chunks;
        kind = a.seg[s].kind;
        bytes = tile_bytes(kind);
        tile = a.seg[s].tiles + ((uint64_t)g * n_chunks + i_chunk) * bytes;
    }
    __device__ void seek(const gemv_args &a, uint32_t i_unit)
    {
        for (i = 0;; i++) {
            uint32_t s, g;
            locate<HOW>(a, i, &s, &g);
            if (i_unit < a.seg[s].n_chunks) break;
            i_unit -= a.seg[s].n_chunks;
        }
        i_chunk = i_unit;
        open(a);
    }
    /* true: the next tile begins another group */
    __device__ bool next(const gemv_args &a, bool more)
    {
        tile += bytes;
        if (++i_chunk < n_chunks) return false;
        i++, i_chunk = 0;
        if (more) open(a);
        return true;
    }
};

static __device__ __forceinline__ uint32_t units_before(const gemv_args &a, uint32_t i)
{
    uint32_t n = 0, s, g;
    for (uint32_t k = 0; k < i; k++) {
        locate<GEMV_ROWS>(a, k, &s, &g);
        n += a.seg[s].n_chunks;
    }
    return n;
}

/* What a block has to do: its groups (of gate and of up where they alternate) and their tiles; a warp's run
 * of tiles is n_units * w / N_WARPS up to that of w + 1. */
struct share {
    uint32_t n_groups, n_units;
};
template <int HOW> static __device__ __forceinline__ share share_of(const gemv_args &a)
{
    share s;
    s.n_groups = blockIdx.x < a.n_groups ? (a.n_groups - blockIdx.x + a.n_blocks - 1) / a.n_blocks : 0;
    if (HOW == GEMV_SWIGLU) s.n_groups *= 2;
    s.n_units =
        a.n_seg == 1 || HOW == GEMV_SWIGLU ? s.n_groups * a.seg[0].n_chunks : units_before(a, s.n_groups);
    return s;
}

#endif

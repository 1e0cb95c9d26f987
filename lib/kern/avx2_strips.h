/* What the AVX2 kernels of strips share: their tiles.
 *
 * Only for the avx2_strips*.c files. A file that has tile() and strip_q4_k makes q4_k_tiles by
 *
 *     APR_STRIP_TILES(q4_k)
 */
#ifndef APR_KERN_AVX2_STRIPS_H
#define APR_KERN_AVX2_STRIPS_H

#include "avx2_vec.h"
#include "strip_walk.h"
#include "strips.h"

/* Where a strip is read twice, 8 rows at a time, memory would rest during the second time: half a block of
 * the next strip is fetched at each of the 2 n_blocks steps. An address past the end is harmless. */
APR_INLINE void apr_strip_fetch_next(const uint8_t *strip, size_t n_blocks, size_t n_bytes, size_t i_step)
{
    uintptr_t at = (uintptr_t)strip + n_blocks * n_bytes + i_step * (n_bytes / 2);
    for (size_t b = 0; b < n_bytes / 2; b += 64) __builtin_prefetch((const void *)(at + b), 0, 2);
}

#define APR_STRIP_TILE(lower, n_toks, n_halves)                                                              \
    static void lower##_##n_toks(const uint8_t *strip, size_t n_blocks, const uint8_t *x,                    \
                                 size_t x_row_bytes, float *y, size_t y_stride)                              \
    {                                                                                                        \
        tile(strip_##lower, strip, n_blocks, x, x_row_bytes, n_toks, n_halves, y, y_stride);                 \
    }
#define APR_STRIP_TILES(lower)                                                                               \
    APR_STRIP_TILE(lower, 1, 2)                                                                              \
    APR_STRIP_TILE(lower, 2, 2)                                                                              \
    APR_STRIP_TILE(lower, 3, 1)                                                                              \
    APR_STRIP_TILE(lower, 4, 1)                                                                              \
    APR_STRIP_TILE(lower, 5, 1)                                                                              \
    APR_STRIP_TILE(lower, 6, 1)                                                                              \
    static const struct apr_strip_tile lower##_tiles[] = {{6, lower##_6}, {5, lower##_5}, {4, lower##_4},    \
                                                          {3, lower##_3}, {2, lower##_2}, {1, lower##_1}};

#endif

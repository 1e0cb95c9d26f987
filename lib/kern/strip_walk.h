/* How kernels of strips walk: which strips are held in cache while which tokens pass, and what is fetched
 * ahead.
 *
 * For the files of the vector tables. No state, no ownership.
 *
 *     apr_strip_walk(tiles, w, w_row_bytes, n_rows, n_blocks, x, x_row_bytes, n_toks, y, y_stride);
 */
#ifndef APR_KERN_STRIP_WALK_H
#define APR_KERN_STRIP_WALK_H

#include "kern.h"

/* A strip is one ascending stream and the next strip follows it. Kernels that are short against the time that
 * memory takes leave it to the hardware (one core, strips streamed: AVX-512 Q4_K 30.4 GB/s without and 29.6
 * with prefetches, Q8_0 34.0 and 27.2); the long ones ask for what lies so far ahead (AVX2 Q6_K: 15.3 GB/s
 * without, 18.5 with). */
#define APR_STRIP_AHEAD_BYTES 2048u
/* Strips of so many bytes stay in the second cache while all tokens pass. */
#define APR_STRIP_HOLD_BYTES ((size_t)96 << 10)

/* Fetches the lines that lie as far ahead of bytes from .. to of p, a little at a time: many at once would
 * hold up the loads. An address past the end is harmless: a prefetch never faults. */
static inline __attribute__((always_inline)) void apr_strip_prefetch(const uint8_t *p, size_t from, size_t to)
{
#pragma GCC unroll 32
    for (size_t b = (from + 63) / 64 * 64; b < to; b += 64)
        __builtin_prefetch((const void *)((uintptr_t)p + APR_STRIP_AHEAD_BYTES + b), 0, 3);
}

/* Between the loads of a tile of several tokens lies much arithmetic, so that the hardware fetches too late:
 * what lies farther ahead is asked for, into the second cache (Q8_0, strips streamed: AVX2, 4 tokens, one
 * core of a Zen 4 8.1 GB/s without, 12.2 with; AVX-512, 16 cores of a Sapphire Rapids, 2 tokens 72 .. 86 GB/s
 * and 107 .. 129, 4 tokens 52 .. 76 and 88, of 90 to 110 that they read). */
#define APR_STRIP_FAR_BYTES 8192u
static inline __attribute__((always_inline)) void apr_strip_fetch_far(const uint8_t *block, size_t n_bytes)
{
#pragma GCC unroll 32
    for (size_t b = 0; b < n_bytes; b += 64)
        __builtin_prefetch((const void *)((uintptr_t)block + APR_STRIP_FAR_BYTES + b), 0, 2);
}

/* One strip times the tokens of a tile. */
typedef void apr_strip_tile_fn(const uint8_t *strip, size_t n_blocks, const uint8_t *x, size_t x_row_bytes,
                               float *y, size_t y_stride);
struct apr_strip_tile {
    size_t n_toks;
    apr_strip_tile_fn *fn;
};

/* tiles: falling n_toks, the last for one token. Where there is one of each size, tokens are split evenly: a
 * tile of one costs the strip's unpacking anew. */
static inline void apr_strip_walk(const struct apr_strip_tile *tiles, const uint8_t *w, size_t w_row_bytes,
                                  size_t n_rows, size_t n_blocks, const uint8_t *x, size_t x_row_bytes,
                                  size_t n_toks, float *y, size_t y_stride)
{
    size_t n_strip = APR_STRIP_ROWS * w_row_bytes, n_hold = APR_STRIP_ROWS;
    if (n_strip < APR_STRIP_HOLD_BYTES) n_hold *= APR_STRIP_HOLD_BYTES / n_strip;
    for (size_t r0 = 0; r0 < n_rows; r0 += n_hold) {
        size_t r1 = n_rows - r0 < n_hold ? n_rows : r0 + n_hold;
        const struct apr_strip_tile *tile;
        for (size_t t = 0; t < n_toks; t += tile->n_toks) {
            size_t n_left = n_toks - t, n_tiles = (n_left + tiles->n_toks - 1) / tiles->n_toks;
            size_t n_most = tiles->n_toks == tiles[1].n_toks + 1 ? (n_left + n_tiles - 1) / n_tiles : n_left;
            for (tile = tiles; tile->n_toks > n_most;) tile++;
            for (size_t r = r0; r < r1; r += APR_STRIP_ROWS)
                tile->fn(w + r * w_row_bytes, n_blocks, x + t * x_row_bytes, x_row_bytes,
                         y + t * y_stride + r, y_stride);
        }
    }
}

#endif

/* Interleaved weights: strips of 16 rows, one ascending stream of bytes, as large as the rows they replace.
 *
 * A strip is n_blocks blocks of 16 rows each. Every 32-bit word of the rows' own block becomes 16 words, one
 * a row, in the order in which a kernel wants them: a 64-byte vector holds 4 consecutive columns of 16 rows
 * (or twice 4, in nibbles), so one broadcast of 4 activations serves 16 rows and no sum across lanes is
 * needed. AVX2 takes it in two halves. Bits keep their places in the word, but for the fifth bits of Q5_0 and
 * Q5_1: bit i of byte b is that of value 4 i + b. The 16-bit fields become 16 halves each. They follow the
 * words, or, in a block whose address is an odd multiple of 32, stand before them: so words are always
 * aligned to 64.
 *
 * The structs document the words, kernels read through them; the same order as data is apr_strip_plan, by
 * which strips are made and taken apart. See ../quant/blocks.h for the meaning of the fields.
 *
 *     apr_strip_write(apr_strip_plan_of(APR_Q4_K), rows, row_bytes, n_blocks, strip);
 */
#ifndef APR_KERN_STRIPS_H
#define APR_KERN_STRIPS_H

#include <stddef.h>
#include <stdint.h>

#include "../quant/blocks.h"
#include "kern.h"

typedef uint32_t apr_words[APR_STRIP_ROWS]; /* of row 0, 1, .. */
#define APR_HALVES_BYTES ((size_t)32)       /* of 16 rows */

/* qs[i]: values 4 i .. 4 i + 3 in the low nibbles, 16 more in the high ones */
struct apr_strip_q4_0 {
    apr_words qs[4];
};
struct apr_strip_q4_1 {
    apr_words qs[4];
};
struct apr_strip_q5_0 {
    apr_words qh; /* bit i of byte b: value 4 i + b */
    apr_words qs[4];
};
struct apr_strip_q5_1 {
    apr_words qh;
    apr_words qs[4];
};
struct apr_strip_q8_0 {
    apr_words qs[8];
};
struct apr_strip_q2_k {
    apr_words scales[4];
    apr_words qs[16];
};
struct apr_strip_q3_k {
    apr_words scales[3];
    apr_words hmask[8];
    apr_words qs[16];
};
struct apr_strip_q4_k {
    apr_words scales[3];
    apr_words qs[32];
};
struct apr_strip_q5_k {
    apr_words scales[3];
    apr_words qh[8];
    apr_words qs[32];
};
/* step[8 h + i]: low bits of values 128 h + 4 i .. + 3 and, in ql[1], of those 32 behind; all their high bits
 */
struct apr_strip_q6_k {
    apr_words scales[4];
    struct {
        apr_words ql[2];
        apr_words qh;
    } step[16];
};
#define APR_STRIP_SIZE(lower, n_halves)                                                                      \
    _Static_assert(sizeof(struct apr_strip_##lower) % 64 == 0 &&                                             \
                       sizeof(struct apr_strip_##lower) + (n_halves)*APR_HALVES_BYTES ==                     \
                           APR_STRIP_ROWS * sizeof(struct apr_block_##lower),                                \
                   "a strip is as large as its rows")
APR_STRIP_SIZE(q4_0, 1);
APR_STRIP_SIZE(q4_1, 2);
APR_STRIP_SIZE(q5_0, 1);
APR_STRIP_SIZE(q5_1, 2);
APR_STRIP_SIZE(q8_0, 1);
APR_STRIP_SIZE(q2_k, 2);
APR_STRIP_SIZE(q3_k, 1);
APR_STRIP_SIZE(q4_k, 2);
APR_STRIP_SIZE(q5_k, 2);
APR_STRIP_SIZE(q6_k, 1);
#undef APR_STRIP_SIZE

#define APR_STRIP_MAX_WORDS 52
/* Where the parts of the block at b are. */
static inline size_t apr_strip_off_words(const void *b, size_t n_halves)
{
    return (uintptr_t)b % 64 ? n_halves * APR_HALVES_BYTES : 0;
}
static inline size_t apr_strip_off_halves(const void *b, size_t words_bytes)
{
    return (uintptr_t)b % 64 ? 0 : words_bytes;
}
/* Which fields of a block become halves and words, in the strip's order. */
struct apr_strip_plan {
    uint8_t block_bytes; /* of the rows */
    uint8_t n_halves, n_words;
    uint8_t i_fifth; /* the word of fifth bits; n_words: none */
    uint8_t off_halves[2];
    uint8_t off_words[APR_STRIP_MAX_WORDS]; /* in the rows' block */
};
/* NULL: the type has no strips. */
const struct apr_strip_plan *apr_strip_plan_of(enum apr_type type);
/* One strip from 16 rows of n_blocks blocks; strip is aligned to 32. */
void apr_strip_write(const struct apr_strip_plan *p, const uint8_t *rows, size_t row_bytes, size_t n_blocks,
                     uint8_t *strip);
/* The block of one row out of one block of a strip. */
void apr_strip_read(const struct apr_strip_plan *p, const uint8_t *b, size_t i_row, uint8_t *block);
/* A word of fifth bits in the order of the strip. */
uint32_t apr_strip_fifths(uint32_t bits);

#endif

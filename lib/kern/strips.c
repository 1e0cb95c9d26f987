/* The order of fields in a strip, as data, and the plain way to follow it. */
#include "strips.h"

#include <string.h>

/* n words from off on, each 4 bytes behind the other */
#define WORDS4(off)      (off), (off) + 4, (off) + 8, (off) + 12
#define WORDS8(off)      WORDS4(off), WORDS4((off) + 16)
#define WORDS16(off)     WORDS8(off), WORDS8((off) + 32)
#define AT(lower, field) offsetof(struct apr_block_##lower, field)
/* ql[0], ql[1], qh of Q6_K's step i of half h */
#define STEP(h, i)                                                                                           \
    AT(q6_k, ql) + 64 * (h) + 4 * (i), AT(q6_k, ql) + 64 * (h) + 32 + 4 * (i),                               \
        AT(q6_k, qh) + 32 * (h) + 4 * (i)
#define STEPS(h)                                                                                             \
    STEP(h, 0), STEP(h, 1), STEP(h, 2), STEP(h, 3), STEP(h, 4), STEP(h, 5), STEP(h, 6), STEP(h, 7)
#define PLAN(lower, n_halves_, n_words_, i_fifth_)                                                           \
    .block_bytes = sizeof(struct apr_block_##lower), .n_halves = (n_halves_), .n_words = (n_words_),         \
    .i_fifth = (i_fifth_)
/* clang-format off */
static const struct apr_strip_plan plans[APR_N_TYPES] = {
    [APR_Q4_0] = {PLAN(q4_0, 1, 4, 4), .off_halves = {AT(q4_0, d)}, .off_words = {WORDS4(AT(q4_0, qs))}},
    [APR_Q4_1] = {PLAN(q4_1, 2, 4, 4), .off_halves = {AT(q4_1, d), AT(q4_1, m)},
                  .off_words = {WORDS4(AT(q4_1, qs))}},
    [APR_Q5_0] = {PLAN(q5_0, 1, 5, 0), .off_halves = {AT(q5_0, d)},
                  .off_words = {AT(q5_0, qh), WORDS4(AT(q5_0, qs))}},
    [APR_Q5_1] = {PLAN(q5_1, 2, 5, 0), .off_halves = {AT(q5_1, d), AT(q5_1, m)},
                  .off_words = {AT(q5_1, qh), WORDS4(AT(q5_1, qs))}},
    [APR_Q8_0] = {PLAN(q8_0, 1, 8, 8), .off_halves = {AT(q8_0, d)}, .off_words = {WORDS8(AT(q8_0, qs))}},
    [APR_Q2_K] = {PLAN(q2_k, 2, 20, 20), .off_halves = {AT(q2_k, d), AT(q2_k, dmin)},
                  .off_words = {WORDS4(AT(q2_k, scales)), WORDS16(AT(q2_k, qs))}},
    [APR_Q3_K] = {PLAN(q3_k, 1, 27, 27), .off_halves = {AT(q3_k, d)},
                  .off_words = {AT(q3_k, scales), AT(q3_k, scales) + 4, AT(q3_k, scales) + 8,
                                WORDS8(AT(q3_k, hmask)), WORDS16(AT(q3_k, qs))}},
    [APR_Q4_K] = {PLAN(q4_k, 2, 35, 35), .off_halves = {AT(q4_k, d), AT(q4_k, dmin)},
                  .off_words = {AT(q4_k, scales), AT(q4_k, scales) + 4, AT(q4_k, scales) + 8,
                                WORDS16(AT(q4_k, qs)), WORDS16(AT(q4_k, qs) + 64)}},
    [APR_Q5_K] = {PLAN(q5_k, 2, 43, 43), .off_halves = {AT(q5_k, d), AT(q5_k, dmin)},
                  .off_words = {AT(q5_k, scales), AT(q5_k, scales) + 4, AT(q5_k, scales) + 8,
                                WORDS8(AT(q5_k, qh)), WORDS16(AT(q5_k, qs)), WORDS16(AT(q5_k, qs) + 64)}},
    [APR_Q6_K] = {PLAN(q6_k, 1, 52, 52), .off_halves = {AT(q6_k, d)},
                  .off_words = {WORDS4(AT(q6_k, scales)), STEPS(0), STEPS(1)}},
};
/* clang-format on */

const struct apr_strip_plan *apr_strip_plan_of(enum apr_type type)
{
    return type < APR_N_TYPES && plans[type].block_bytes ? &plans[type] : NULL;
}

/* Exchanges the bits under mask with those n places above. */
static uint32_t exchange(uint32_t v, uint32_t mask, int n)
{
    uint32_t t = (v >> n ^ v) & mask;
    return v ^ t ^ t << n;
}

/* Place 4 i + b becomes place 8 b + i: the five bits of the place are rotated by two, in four exchanges. */
uint32_t apr_strip_fifths(uint32_t bits)
{
    bits = exchange(bits, 0x22222222U, 1);  /* of bits 0 and 1 of the place */
    bits = exchange(bits, 0x0a0a0a0aU, 3);  /* 0 and 2 */
    bits = exchange(bits, 0x00cc00ccU, 6);  /* 1 and 3 */
    return exchange(bits, 0x0000f0f0U, 12); /* 2 and 4 */
}

static uint32_t unfifths(uint32_t bits)
{
    bits = exchange(bits, 0x0000f0f0U, 12);
    bits = exchange(bits, 0x00cc00ccU, 6);
    bits = exchange(bits, 0x0a0a0a0aU, 3);
    return exchange(bits, 0x22222222U, 1);
}

static void block_write(const struct apr_strip_plan *p, const uint8_t *rows, size_t row_bytes, uint8_t *b)
{
    uint8_t *words = b + apr_strip_off_words(b, p->n_halves);
    uint8_t *halves = b + apr_strip_off_halves(b, p->n_words * sizeof(apr_words));
    for (size_t r = 0; r < APR_STRIP_ROWS; r++, rows += row_bytes) {
        for (size_t h = 0; h < p->n_halves; h++)
            memcpy(halves + h * APR_HALVES_BYTES + 2 * r, rows + p->off_halves[h], 2);
        for (size_t w = 0; w < p->n_words; w++) {
            uint32_t u;
            memcpy(&u, rows + p->off_words[w], sizeof u);
            if (w == p->i_fifth) u = apr_strip_fifths(u);
            memcpy(words + w * sizeof(apr_words) + 4 * r, &u, sizeof u);
        }
    }
}

void apr_strip_write(const struct apr_strip_plan *p, const uint8_t *rows, size_t row_bytes, size_t n_blocks,
                     uint8_t *strip)
{
    for (size_t i = 0; i < n_blocks; i++)
        block_write(p, rows + i * p->block_bytes, row_bytes, strip + i * APR_STRIP_ROWS * p->block_bytes);
}

void apr_strip_read(const struct apr_strip_plan *p, const uint8_t *b, size_t i_row, uint8_t *block)
{
    const uint8_t *words = b + apr_strip_off_words(b, p->n_halves);
    const uint8_t *halves = b + apr_strip_off_halves(b, p->n_words * sizeof(apr_words));
    for (size_t h = 0; h < p->n_halves; h++)
        memcpy(block + p->off_halves[h], halves + h * APR_HALVES_BYTES + 2 * i_row, 2);
    for (size_t w = 0; w < p->n_words; w++) {
        uint32_t u;
        memcpy(&u, words + w * sizeof(apr_words) + 4 * i_row, sizeof u);
        if (w == p->i_fifth) u = unfifths(u);
        memcpy(block + p->off_words[w], &u, sizeof u);
    }
}

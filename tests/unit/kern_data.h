/* Inputs for the kernel tests: random numbers, buffers that end at a page nobody may touch, and weights of
 * every type whose scales are numbers while all other bits are random.
 *
 * Buffers live until the process ends; a test allocates few.
 *
 *     float *x = kern_data_guarded(n * sizeof *x); // x[n] faults
 */
#ifndef APR_TEST_KERN_DATA_H
#define APR_TEST_KERN_DATA_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kern/kern.h"
#include "quant/blocks.h"

static inline uint32_t kern_data_u32(void)
{
    static uint64_t state = 88172645463325252U;
    state = state * 6364136223846793005U + 1442695040888963407U;
    return (uint32_t)(state >> 32);
}

/* -scale .. scale, with a zero now and then */
static inline float kern_data_f32(float scale)
{
    uint32_t u = kern_data_u32();
    return u % 61 == 0 ? 0 : ((float)(u >> 8) * 0x1p-23f - 1) * scale;
}

static inline void *kern_data_guarded(size_t n_bytes)
{
    const size_t page = 4096;
    size_t n_pages = (n_bytes + page - 1) / page;
    uint8_t *p = mmap(NULL, (n_pages + 1) * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    assert_int_equal(mprotect(p + n_pages * page, page, PROT_NONE), 0);
    return p + n_pages * page - n_bytes;
}

/* Equal bits; NaNs are equal to each other whatever their payload. */
static inline bool kern_data_same(const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (memcmp(&a[i], &b[i], sizeof *a) != 0 && !(isnan(a[i]) && isnan(b[i]))) return false;
    }
    return true;
}

/* Where the halves of a block stand; -1: none. */
static const struct kern_data_type {
    enum apr_type type;
    int off_d, off_dmin;
} kern_data_types[] = {
    {APR_F32, -1, -1},
    {APR_F16, -1, -1},
    {APR_BF16, -1, -1},
    {APR_F64, -1, -1},
    {APR_I8, -1, -1},
    {APR_NATIVE_Q8, -1, -1},
    {APR_NATIVE_Q4, offsetof(struct apr_block_native_q4, d), -1},
    {APR_Q4_0, offsetof(struct apr_block_q4_0, d), -1},
    {APR_Q4_1, offsetof(struct apr_block_q4_1, d), offsetof(struct apr_block_q4_1, m)},
    {APR_Q5_0, offsetof(struct apr_block_q5_0, d), -1},
    {APR_Q5_1, offsetof(struct apr_block_q5_1, d), offsetof(struct apr_block_q5_1, m)},
    {APR_Q8_0, offsetof(struct apr_block_q8_0, d), -1},
    {APR_Q2_K, offsetof(struct apr_block_q2_k, d), offsetof(struct apr_block_q2_k, dmin)},
    {APR_Q3_K, offsetof(struct apr_block_q3_k, d), -1},
    {APR_Q4_K, offsetof(struct apr_block_q4_k, d), offsetof(struct apr_block_q4_k, dmin)},
    {APR_Q5_K, offsetof(struct apr_block_q5_k, d), offsetof(struct apr_block_q5_k, dmin)},
    {APR_Q6_K, offsetof(struct apr_block_q6_k, d), -1},
    {APR_IQ2_XXS, offsetof(struct apr_block_iq2_xxs, d), -1},
    {APR_IQ2_XS, offsetof(struct apr_block_iq2_xs, d), -1},
    {APR_IQ2_S, offsetof(struct apr_block_iq2_s, d), -1},
    {APR_IQ3_XXS, offsetof(struct apr_block_iq3_xxs, d), -1},
    {APR_IQ3_S, offsetof(struct apr_block_iq3_s, d), -1},
    {APR_IQ1_S, offsetof(struct apr_block_iq1_s, d), -1},
    {APR_IQ1_M, -1, -1},
    {APR_IQ4_NL, offsetof(struct apr_block_iq4_nl, d), -1},
    {APR_IQ4_XS, offsetof(struct apr_block_iq4_xs, d), -1},
    {APR_TQ1_0, offsetof(struct apr_block_tq1_0, d), -1},
    {APR_TQ2_0, offsetof(struct apr_block_tq2_0, d), -1},
    {APR_MXFP4, -1, -1},
};
#define KERN_DATA_N_TYPES (sizeof kern_data_types / sizeof kern_data_types[0])

static inline size_t kern_data_row_bytes(enum apr_type type, size_t n_cols)
{
    const struct apr_quant *q = apr_quant_of(type);
    return n_cols / q->block_elems * q->block_bytes + q->head_bytes;
}

/* One row. bits_of(): all other bits of block types; d, dmin: the halves of block types, as floats */
static inline void kern_data_row(const struct kern_data_type *t, uint8_t *row, size_t n_cols,
                                 uint8_t (*byte_of)(void), float (*d_of)(void))
{
    const struct apr_quant *q = apr_quant_of(t->type);
    size_t n_bytes = kern_data_row_bytes(t->type, n_cols);
    for (size_t i = 0; i < n_bytes; i++) row[i] = byte_of();
    for (size_t i = 0; i < n_cols / q->block_elems; i++) {
        uint8_t *block = row + i * q->block_bytes;
        uint16_t h = apr_f32_to_f16(d_of()), m = apr_f32_to_f16(d_of());
        if (t->off_d >= 0) memcpy(block + t->off_d, &h, sizeof h);
        if (t->off_dmin >= 0) memcpy(block + t->off_dmin, &m, sizeof m);
        if (t->type == APR_F16) memcpy(block, &h, sizeof h);
        if (t->type == APR_MXFP4) block[0] = (uint8_t)(112 + block[0] % 16); /* near 1 */
        for (int j = 0; j < 4 && t->type == APR_IQ1_M; j++)                  /* the half in four nibbles */
            block[49 + 2 * j] = (uint8_t)((block[49 + 2 * j] & 15) | (h >> 4 * j & 15) << 4);
        float f = d_of();
        uint16_t b = apr_f32_to_bf16(f);
        double g = f;
        if (t->type == APR_BF16) memcpy(block, &b, sizeof b);
        if (t->type == APR_F32) memcpy(block, &f, sizeof f);
        if (t->type == APR_F64) memcpy(block, &g, sizeof g);
    }
    float scale = d_of();
    if (t->type == APR_NATIVE_Q8) memcpy(row, &scale, sizeof scale);
}

static inline size_t kern_data_act_bytes(enum apr_act act, size_t n_cols)
{
    return act == APR_ACT_Q8_32    ? n_cols / 32 * sizeof(struct apr_act32)
           : act == APR_ACT_Q8_256 ? n_cols / 256 * sizeof(struct apr_act256)
                                   : n_cols * sizeof(float);
}

/* x as the layout act wants it, made by the scalar table */
static inline void kern_data_act(enum apr_act act, const float *x, void *a, size_t n_cols)
{
    if (act == APR_ACT_Q8_32) apr_kern_scalar.to_act32(x, a, n_cols);
    if (act == APR_ACT_Q8_256) apr_kern_scalar.to_act256(x, a, n_cols);
    if (act == APR_ACT_F32) memcpy(a, x, n_cols * sizeof *x);
}

#endif

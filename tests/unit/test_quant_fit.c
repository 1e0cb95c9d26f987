/* Quantizers: every instruction set writes the same bytes; hard rows; round trips; weights. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/blocks.h"
#include "quant/fit.h"
#include "quant/quant.h"

enum { N = 1024, MAX_BYTES = N * 4 + 4 };

static uint64_t seed = 88172645463325252U;

static uint64_t next_random(void) /* xorshift64 */
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static double uniform(void)
{
    return ((double)(next_random() >> 11) + 0.5) * 0x1p-53;
}

static double gauss(void)
{
    return sqrt(-2 * log(uniform())) * cos(6.283185307179586 * uniform());
}

/* Rows that a quantizer meets and rows that it should survive. */
static float value(int kind, size_t i)
{
    switch (kind) {
    case 0:
        return 0;
    case 1:
        return (float)gauss();
    case 2:
        return (float)(0.02 * gauss() / sqrt(uniform()));
    case 3:
        return 1.5F;
    case 4:
        return -0.75F;
    case 5:
        return -(float)fabs(gauss()) - 3;
    case 6:
        return (float)fabs(gauss()) + 3;
    case 7:
        return (float)gauss() * 1e-6F; /* scales are subnormal halves */
    case 8:
        return (float)gauss() * 1e-40F; /* subnormal floats */
    case 9:
        return (float)gauss() * 1e6F; /* scales near the largest half */
    case 10:
        return (float)gauss() * 1e30F; /* cannot be stored */
    case 11:
        return i % 2 ? FLT_MAX : -FLT_MAX;
    case 12:
        return i == 77 ? 100.0F : 0;
    case 13:
        return i % 32 == 5 ? -40.0F : (float)gauss() * 1e-3F;
    case 14:
        return (float)(int)(i % 16) - 8; /* levels exactly */
    case 15:
        return i < 512 ? 0 : (float)gauss();
    case 16:
        return i % 2 ? 0.0F : -0.0F;
    case 17:
        return (float)exp(3 * gauss()) * (next_random() & 1 ? 1 : -1);
    case 18:
        return i % 256 < 16 ? FLT_MIN : (float)uniform();
    }
    return 0;
}

enum { N_KINDS = 19, N_ROWS = 400 };

static void make_row(int row, float *x, float *weights)
{
    int kind = row < 3 * N_KINDS ? row % N_KINDS : row % 2 ? 1 : 2;
    for (size_t i = 0; i < N; i++) {
        x[i] = value(kind, i);
        weights[i] = row % 5 == 0 && i % 3 == 0 ? 0 : (float)exp(2 * gauss());
    }
    if (row % 7 == 6) memset(weights, 0, N * sizeof *weights); /* a column that no text ever used */
}

static size_t row_bytes(const struct apr_quant *q)
{
    return q->head_bytes + (size_t)N / q->block_elems * q->block_bytes;
}

static void every_instruction_set_writes_the_same_bytes(void **state)
{
    (void)state;
    static float x[N], weights[N];
    static uint8_t a[MAX_BYTES], b[MAX_BYTES];
    for (int row = 0; row < N_ROWS; row++) {
        make_row(row, x, weights);
        const struct apr_quant *q;
        for (size_t i = 0; (q = apr_quant_at(i)) != NULL; i++) {
            if (!q->from_f32) continue;
            for (int with = 0; with < 2; with++) {
                memset(a, 0xa5, sizeof a);
                memset(b, 0x5a, sizeof b);
                assert_int_equal(setenv("APR_KERN", "scalar", 1), 0);
                q->from_f32(x, a, N, with ? weights : NULL);
                assert_int_equal(unsetenv("APR_KERN"), 0);
                q->from_f32(x, b, N, with ? weights : NULL);
                if (memcmp(a, b, row_bytes(q)) != 0) fail_msg("%s, row %d, weights %d", q->name, row, with);
                assert_int_equal(a[row_bytes(q)], 0xa5);
                assert_int_equal(b[row_bytes(q)], 0x5a);
            }
        }
    }
    if (apr_fit_pick() == &apr_fit_base)
        print_message("note: this CPU has one instruction set, compared with itself\n");
}

static void blocks_do_not_depend_on_their_neighbours(void **state)
{
    (void)state;
    static float x[N], weights[N];
    static uint8_t whole[MAX_BYTES], part[MAX_BYTES];
    for (int row = 0; row < 2 * N_KINDS; row++) {
        make_row(row, x, weights);
        const struct apr_quant *q;
        for (size_t i = 0; (q = apr_quant_at(i)) != NULL; i++) {
            if (!q->from_f32 || q->is_flat) continue;
            q->from_f32(x, whole, N, weights);
            size_t n = q->block_elems;
            for (size_t k = 0; k < N / n; k++)
                q->from_f32(x + k * n, part + k * q->block_bytes, n, weights + k * n);
            if (memcmp(whole, part, row_bytes(q)) != 0) fail_msg("%s, row %d", q->name, row);
        }
    }
}

static double error_of(const struct apr_quant *q, const float *x, const float *weights)
{
    static uint8_t blocks[MAX_BYTES];
    static float y[N];
    q->from_f32(x, blocks, N, weights);
    q->to_f32(blocks, y, N);
    double error = 0, energy = 0;
    for (size_t i = 0; i < N; i++) {
        double w = weights ? (double)weights[i] : 1, off = (double)x[i] - (double)y[i];
        error += w * off * off;
        energy += w * (double)x[i] * (double)x[i];
    }
    return error / energy;
}

/* Relative squared error on normal values: what the number of bits allows (about 4 times per bit). */
static void errors_fit_the_bits(void **state)
{
    (void)state;
    static const struct {
        enum apr_type type;
        double max;
    } bounds[] = {{APR_Q2_K, 0.085},    {APR_Q3_K, 0.031},    {APR_Q4_0, 0.0085},  {APR_Q4_1, 0.0075},
                  {APR_Q4_K, 0.0062},   {APR_Q5_0, 0.0021},   {APR_Q5_1, 0.0018},  {APR_Q5_K, 0.0016},
                  {APR_IQ4_NL, 0.0068}, {APR_IQ4_XS, 0.0068}, {APR_Q6_K, 0.00042}, {APR_Q8_0, 4e-5},
                  {APR_BF16, 4e-6},     {APR_F16, 6e-8}};
    static float x[N], weights[N];
    for (size_t i = 0; i < N; i++) x[i] = (float)gauss();
    for (size_t i = 0; i < N; i++) weights[i] = (float)exp(gauss());
    for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
        const struct apr_quant *q = apr_quant_of(bounds[i].type);
        double plain = error_of(q, x, NULL), weighted = error_of(q, x, weights);
        if (plain > bounds[i].max || weighted > bounds[i].max) {
            fail_msg("%s: %g and %g with weights, at most %g", q->name, plain, weighted, bounds[i].max);
        }
    }
}

static void importance_weights_pay(void **state)
{
    (void)state;
    static const enum apr_type types[] = {APR_Q2_K, APR_Q3_K, APR_Q4_0, APR_Q4_1,   APR_Q4_K,  APR_Q5_0,
                                          APR_Q5_1, APR_Q5_K, APR_Q6_K, APR_IQ4_NL, APR_IQ4_XS};
    static float x[N], weights[N], y[N], z[N];
    static uint8_t blocks[MAX_BYTES];
    for (size_t i = 0; i < N; i++) x[i] = (float)gauss();
    for (size_t i = 0; i < N; i++) weights[i] = (float)exp(2 * gauss());
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        const struct apr_quant *q = apr_quant_of(types[t]);
        double with = 0, without = 0;
        q->from_f32(x, blocks, N, weights);
        q->to_f32(blocks, y, N);
        q->from_f32(x, blocks, N, NULL);
        q->to_f32(blocks, z, N);
        for (size_t i = 0; i < N; i++) {
            with += (double)weights[i] * pow((double)(x[i] - y[i]), 2);
            without += (double)weights[i] * pow((double)(x[i] - z[i]), 2);
        }
        if (with >= 0.95 * without) fail_msg("%s: %g with weights, %g without", q->name, with, without);
    }
}

/* Rows from integers and exactly rounded operations only, so that every machine makes the same ones. */
static void exact_row(int kind, float *x, float *weights)
{
    for (size_t i = 0; i < N; i++) {
        int64_t sum = 0; /* of twelve uniform numbers less its mean: nearly normal */
        for (int k = 0; k < 12; k++) sum += (int64_t)(next_random() >> 44);
        double v = (double)(sum - 6 * 0x100000) * 0x1p-20, u = (double)(next_random() >> 44) * 0x1p-20;
        if (kind == 1) v = v / (u + 0x1p-6); /* heavy tails */
        if (kind == 2) v = u * 2 - 1;
        x[i] = apr_bf16_to_f32(apr_f32_to_bf16((float)(v * 0.02)));
        weights[i] = (float)(1 + (next_random() >> 60)) * (float)(1 + (next_random() >> 61));
    }
}

/* Lines of "TYPE KIND WITH_WEIGHTS ERROR": llama.cpp's (weighted) squared error on 64 such rows, seeded
 * alike. */
static void random_rows_are_not_worse_than_llama_cpp(void **state)
{
    (void)state;
    FILE *f = fopen("tests/data/quant/peer-errors.txt", "r");
    assert_non_null(f);
    static float x[N], y[N], weights[N];
    static uint8_t blocks[MAX_BYTES];
    char line[128];
    size_t n_lines = 0;
    for (; fgets(line, sizeof line, f); n_lines++) {
        char *at = strchr(line, ' ');
        assert_non_null(at);
        *at++ = '\0';
        const struct apr_quant *q = apr_quant_named(line);
        assert_non_null(q);
        int kind = (int)strtol(at, &at, 10), with = (int)strtol(at, &at, 10);
        double theirs = strtod(at, NULL), ours = 0;
        seed = 88172645463325252U + (uint64_t)kind;
        for (int row = 0; row < 64; row++) {
            exact_row(kind, x, weights);
            q->from_f32(x, blocks, N, with ? weights : NULL);
            q->to_f32(blocks, y, N);
            for (size_t i = 0; i < N; i++) {
                double off = (double)x[i] - (double)y[i];
                ours += (with ? (double)weights[i] : 1) * off * off;
            }
        }
        assert_true(ours > 0.3 * theirs); /* the rows are the same ones */
        if (ours > theirs * (1 + 1e-6))
            fail_msg("%s, rows %d, weights %d: %g, %g", q->name, kind, with, ours, theirs);
    }
    fclose(f);
    assert_int_equal(n_lines, 72);
}

/* What fits the levels exactly is kept; what no half can scale becomes infinite, never a wrong number. */
static void extremes(void **state)
{
    (void)state;
    static float x[N], y[N];
    static uint8_t blocks[MAX_BYTES];
    const struct apr_quant *q;
    for (size_t k = 0; (q = apr_quant_at(k)) != NULL; k++) {
        if (!q->from_f32 || !q->is_quantized || q->is_flat) continue;
        memset(x, 0, sizeof x);
        q->from_f32(x, blocks, N, NULL);
        q->to_f32(blocks, y, N);
        for (size_t i = 0; i < N; i++) assert_true(y[i] == 0);

        for (size_t i = 0; i < N; i++) x[i] = -0.5F;
        q->from_f32(x, blocks, N, NULL);
        q->to_f32(blocks, y, N);
        for (size_t i = 0; i < N; i++) assert_true(fabsf(y[i] + 0.5F) < 0.002F);

        x[3] = 1e30F;
        q->from_f32(x, blocks, N, NULL);
        q->to_f32(blocks, y, N);
        bool found = false;
        for (size_t i = 0; i < q->block_elems; i++) found = found || !isfinite(y[i]);
        if (!found) fail_msg("%s stores 1e30 as a number", q->name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_instruction_set_writes_the_same_bytes),
        cmocka_unit_test(blocks_do_not_depend_on_their_neighbours),
        cmocka_unit_test(errors_fit_the_bits),
        cmocka_unit_test(importance_weights_pay),
        cmocka_unit_test(random_rows_are_not_worse_than_llama_cpp),
        cmocka_unit_test(extremes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

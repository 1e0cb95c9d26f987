/* Values of every type against vectors that GGML computed (tests/data/quant), halves exhaustively, the table.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hash.h"
#include "quant/blocks.h"
#include "quant/quant.h"

static float float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static FILE *vectors(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "tests/data/quant/%s.txt", name);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    return f;
}

/* The next hexadecimal number of n_digits; false at the end of the file. */
static bool next_hex(FILE *f, int n_digits, unsigned *out)
{
    char digits[9];
    int c = fgetc(f);
    while (c == ' ' || c == '\n') c = fgetc(f);
    if (c == EOF) return false;
    for (int i = 0; i < n_digits; i++, c = i < n_digits ? fgetc(f) : 0) digits[i] = (char)c;
    digits[n_digits] = '\0';
    char *end;
    *out = (unsigned)strtoul(digits, &end, 16);
    assert_ptr_equal(end, digits + n_digits);
    return true;
}

/* A file is a list of: the block as hexadecimal bytes, then its values as the bits of floats. */
static void check_vectors(const char *name)
{
    const struct apr_quant *q = apr_quant_named(name);
    assert_non_null(q);
    FILE *f = vectors(name);
    size_t n_blocks = 0;
    for (unsigned byte; next_hex(f, 2, &byte); n_blocks++) {
        uint8_t room[257], *block = room + 1; /* odd on purpose: files promise no alignment */
        block[0] = (uint8_t)byte;
        for (uint32_t i = 1; i < q->block_bytes; i++) {
            assert_true(next_hex(f, 2, &byte));
            block[i] = (uint8_t)byte;
        }
        float x[257];
        x[q->block_elems] = 12345;
        q->to_f32(block, x, q->block_elems);
        assert_true(x[q->block_elems] == 12345);
        for (uint32_t i = 0; i < q->block_elems; i++) {
            unsigned want;
            assert_true(next_hex(f, 8, &want));
            if (isnan(float_of(want)) && isnan(x[i])) continue;
            if (bits_of(x[i]) != want)
                fail_msg("%s: %zu, %u: %a, not %a", name, n_blocks, i, x[i], float_of(want));
        }
    }
    fclose(f);
    assert_true(n_blocks >= 8);
}

static void values_equal_ggml(void **state)
{
    (void)state;
    static const char *const names[] = {"q4_0",  "q4_1",    "q5_0",   "q5_1",  "q8_0",    "q2_k",
                                        "q3_k",  "q4_k",    "q5_k",   "q6_k",  "iq4_nl",  "iq4_xs",
                                        "iq2_s", "iq2_xxs", "iq2_xs", "iq3_s", "iq3_xxs", "iq1_s",
                                        "iq1_m", "tq1_0",   "tq2_0",  "mxfp4"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) check_vectors(names[i]);
}

/* Lines of "TYPE OFF_D HASH": XXH3-64 of the values that GGML computed from 512 blocks of random bytes,
 * enough to meet every vector of every grid. A half at OFF_D is made finite; NaNs count as 7fc00000. */
static void values_of_whole_grids_equal_ggml(void **state)
{
    (void)state;
    FILE *f = vectors("value-hashes");
    char line[128];
    size_t n_lines = 0;
    for (; fgets(line, sizeof line, f); n_lines++) {
        char *at = strchr(line, ' ');
        assert_non_null(at);
        *at++ = '\0';
        const struct apr_quant *q = apr_quant_named(line);
        assert_non_null(q);
        long off_d = strtol(at, &at, 10);
        uint64_t want = strtoull(at, NULL, 16), seed = 88172645463325252U + (uint64_t)q->type;
        struct apr_xxh3 *hash = apr_xxh3_begin();
        for (int b = 0; b < 512; b++) {
            uint8_t block[256];
            float x[256];
            for (uint32_t i = 0; i < q->block_bytes; i++) {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                block[i] = (uint8_t)(seed >> 32);
            }
            if (off_d >= 0 && (block[off_d + 1] & 0x7c) == 0x7c) block[off_d + 1] ^= 0x40;
            q->to_f32(block, x, q->block_elems);
            for (uint32_t i = 0; i < q->block_elems; i++) {
                uint32_t bits = isnan(x[i]) ? 0x7fc00000 : bits_of(x[i]);
                apr_xxh3_add(hash, &bits, sizeof bits);
            }
        }
        if (apr_xxh3_end(hash) != want) fail_msg("%s: values differ", q->name);
    }
    fclose(f);
    assert_int_equal(n_lines, 12);
}

static void halves_equal_ggml(void **state)
{
    (void)state;
    FILE *f = vectors("halves");
    unsigned x, h, h_x, b, b_x;
    size_t n = 0;
    for (; next_hex(f, 8, &x); n++) {
        assert_true(next_hex(f, 4, &h) && next_hex(f, 8, &h_x) && next_hex(f, 4, &b) && next_hex(f, 8, &b_x));
        assert_int_equal(apr_f32_to_f16(float_of(x)), h);
        assert_int_equal(bits_of(apr_f16_to_f32((uint16_t)h)), h_x);
        assert_int_equal(apr_f32_to_bf16(float_of(x)), b);
        assert_int_equal(bits_of(apr_bf16_to_f32((uint16_t)b)), b_x);
    }
    fclose(f);
    assert_int_equal(n, 400);
}

static float half_by_formula(unsigned h)
{
    int exponent = h >> 10 & 31;
    double fraction = h & 1023U;
    double v = exponent == 31 ? (double)INFINITY
               : exponent     ? ldexp(1024 + fraction, exponent - 25)
                              : ldexp(fraction, -24);
    return (float)(h & 0x8000U ? -v : v);
}

static void every_half(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 0x10000; h++) {
        float x = apr_f16_to_f32((uint16_t)h);
        if ((h & 0x7c00U) == 0x7c00U && (h & 1023U)) {
            assert_true(isnan(x));
            assert_int_equal(apr_f32_to_f16(x), h | 0x200U);
            continue;
        }
        assert_int_equal(bits_of(x), bits_of(half_by_formula(h)));
        assert_int_equal(apr_f32_to_f16(x), h);
        if ((h & 0x7fffU) >= 0x7bffU) continue;
        /* The middle to the next half goes to the even one, its neighbours to the nearer one. */
        float middle = (float)(((double)x + (double)half_by_formula(h + 1)) / 2);
        assert_int_equal(apr_f32_to_f16(middle), h & 1 ? h + 1 : h);
        assert_int_equal(apr_f32_to_f16(nextafterf(middle, 0)), h);
        assert_int_equal(apr_f32_to_f16(nextafterf(middle, middle > 0 ? 1e9F : -1e9F)), h + 1);
    }
    assert_int_equal(apr_f32_to_f16(65519.996F), 0x7bff);
    assert_int_equal(apr_f32_to_f16(65520), 0x7c00);
    assert_int_equal(apr_f32_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(apr_f32_to_f16(1e-30F), 0);
    assert_int_equal(apr_f32_to_f16(-1e-30F), 0x8000);
    assert_true((apr_f32_to_f16(NAN) & 0x7fffU) > 0x7c00U);
    assert_true((apr_f32_to_bf16(float_of(0x7f800001)) & 0x7fffU) > 0x7f80U);
    assert_int_equal(apr_f32_to_bf16(3.4028235e38F), 0x7f80);
}

static void plain_numbers(void **state)
{
    (void)state;
    uint8_t room[64] = {0};
    double d[3] = {1.0 / 3, -1e300, 5e-324};
    memcpy(room + 1, d, sizeof d);
    float x[4] = {0};
    apr_quant_of(APR_F64)->to_f32(room + 1, x, 3);
    assert_true(x[0] == 1.0F / 3 && isinf(x[1]) && x[2] == 0);
    int8_t i[3] = {-128, 0, 127};
    apr_quant_of(APR_I8)->to_f32(i, x, 3);
    assert_true(x[0] == -128 && x[1] == 0 && x[2] == 127);
    float f[3] = {1.5F, -2, 3e38F};
    memcpy(room + 3, f, sizeof f);
    apr_quant_of(APR_F32)->to_f32(room + 3, x, 3);
    assert_memory_equal(x, f, sizeof f);
    apr_quant_of(APR_BF16)->from_f32(f, room + 1, 3, NULL);
    apr_quant_of(APR_BF16)->to_f32(room + 1, x, 3);
    assert_true(x[0] == 1.5F && x[1] == -2 && fabsf(x[2] / 3e38F - 1) < 0.004F);
    apr_quant_of(APR_F16)->from_f32(f, room + 1, 2, NULL);
    apr_quant_of(APR_F16)->to_f32(room + 1, x, 2);
    assert_true(x[0] == 1.5F && x[1] == -2);
}

static void native_q4(void **state)
{
    (void)state;
    float x[40], y[40];
    for (int i = 0; i < 40; i++) x[i] = (float)(i % 15 - 7) * 0.25F;
    x[39] = 7 * 0.25F; /* so that the short block has the same scale */
    struct apr_block_native_q4 b[2];
    const struct apr_quant *q = apr_quant_of(APR_NATIVE_Q4);
    q->from_f32(x, b, 40, NULL);
    q->to_f32(b, y, 40);
    assert_memory_equal(x, y, sizeof x);      /* multiples of the scale are kept */
    assert_int_equal(b[0].qs[0], 1 | 2 << 4); /* neighbours share a byte: -7 + 8, -6 + 8 */
    for (int i = 4; i < 16; i++) assert_int_equal(b[1].qs[i], 0);
    memset(x, 0, sizeof x);
    q->from_f32(x, b, 40, NULL);
    assert_int_equal(b[0].d, 0x3c00);
    static const uint16_t damaged[] = {0x7c00, 0xfc00, 0x7e00, 0x03ff, 0x8001}; /* inf, NaN, subnormal */
    memset(b, 0x5a, sizeof b);
    for (size_t i = 0; i < sizeof damaged / sizeof damaged[0]; i++) {
        b[0].d = damaged[i];
        q->to_f32(b, y, 32);
        for (int j = 0; j < 32; j++) assert_true(y[j] == 0);
    }
    b[0].d = 0x0400;
    q->to_f32(b, y, 32);
    assert_true(y[0] == 2 * 0x1p-14F && y[1] == -3 * 0x1p-14F);
}

static void native_q8(void **state)
{
    (void)state;
    float x[3] = {-1.27F, 0.635F, 0.01F}, y[3];
    uint8_t room[16];
    const struct apr_quant *q = apr_quant_of(APR_NATIVE_Q8);
    q->from_f32(x, room + 1, 3, NULL);
    assert_int_equal((int8_t)room[5], -127);
    assert_int_equal((int8_t)room[6], 64); /* 63.5 rounds away from zero */
    assert_int_equal((int8_t)room[7], 1);
    q->to_f32(room + 1, y, 3);
    assert_true(fabsf(y[0] + 1.27F) < 1e-6F);
    assert_true(apr_native_q8_scale(0) == 1);
    float scale = NAN;
    memcpy(room + 1, &scale, sizeof scale);
    q->to_f32(room + 1, y, 3);
    assert_true(y[0] == 0 && y[2] == 0);
}

static void table_is_consistent(void **state)
{
    (void)state;
    size_t n = 0;
    for (const struct apr_quant *q; (q = apr_quant_at(n)) != NULL; n++) {
        assert_ptr_equal(apr_quant_of(q->type), q);
        assert_ptr_equal(apr_quant_named(q->name), q);
        assert_string_equal(apr_type_name(q->type), q->name);
        assert_true(q->block_elems > 0 && q->block_bytes > 0);
        assert_true(!q->from_f32 || q->to_f32);
        assert_true((uint32_t)q->type < APR_N_TYPES);
        for (size_t j = 0; j < n; j++) assert_true(apr_quant_at(j)->type != q->type);
    }
    assert_int_equal(n, 38);
    assert_null(apr_quant_of(4));
    assert_null(apr_quant_of(77));
    assert_null(apr_quant_of(UINT32_MAX));
    assert_string_equal(apr_type_name(77), "type 77");
    assert_int_equal(apr_quant_named("q4k")->type, APR_Q4_K);
    assert_int_equal(apr_quant_named("fp16")->type, APR_F16);
    assert_null(apr_quant_named("q4"));
    assert_null(apr_quant_named(""));
}

static void sizes(void **state)
{
    (void)state;
    struct apr_err e;
    uint64_t n;
    assert_int_equal(apr_row_bytes(APR_Q4_K, 512, &n, &e), APR_OK);
    assert_int_equal(n, 288);
    assert_int_equal(apr_row_bytes(APR_Q4_K, 896, &n, &e), APR_EFORMAT);
    assert_string_equal(e.text, "896 columns are not a multiple of 256, the block of Q4_K");
    assert_int_equal(apr_row_bytes(APR_F64, UINT64_MAX / 4, &n, &e), APR_EFORMAT);
    assert_int_equal(apr_row_bytes((enum apr_type)99, 1, &n, &e), APR_EFORMAT);
    assert_int_equal(apr_row_bytes(APR_NATIVE_Q8, 8, &n, &e), APR_EFORMAT);
    assert_int_equal(apr_data_bytes(APR_Q6_K, 3, 256, &n, &e), APR_OK);
    assert_int_equal(n, 630);
    assert_int_equal(apr_data_bytes(APR_NATIVE_Q4, 3, 11, &n, &e), APR_OK);
    assert_int_equal(n, 36); /* 33 values: two blocks */
    assert_int_equal(apr_data_bytes(APR_NATIVE_Q8, 3, 11, &n, &e), APR_OK);
    assert_int_equal(n, 37);
    assert_int_equal(apr_data_bytes(APR_NATIVE_Q8, UINT64_MAX, 1, &n, &e), APR_EFORMAT);
    assert_int_equal(apr_data_bytes(APR_F32, UINT64_MAX / 2, 2, &n, &e), APR_EFORMAT);
    assert_int_equal(apr_data_bytes((enum apr_type)99, 1, 1, &n, &e), APR_EFORMAT);
    assert_int_equal(apr_data_bytes(APR_Q4_K, 0, 256, &n, &e), APR_OK);
    assert_int_equal(n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_equal_ggml),
        cmocka_unit_test(halves_equal_ggml),
        cmocka_unit_test(values_of_whole_grids_equal_ggml),
        cmocka_unit_test(every_half),
        cmocka_unit_test(plain_numbers),
        cmocka_unit_test(native_q4),
        cmocka_unit_test(native_q8),
        cmocka_unit_test(table_is_consistent),
        cmocka_unit_test(sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

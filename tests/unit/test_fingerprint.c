/* Fingerprints against a plain computation: sort, add in long double. Types with blocks, NaN and infinities,
 * odd lengths, pieces and chunks crossed, any number of threads; the reading of reports. */
#include "tiny.h"

#include <math.h>
#include <stdlib.h>

#include "../../lib/fingerprint.h"
#include "../../lib/values.h"

#define N_MAX ((size_t)150001) /* 2.3 chunks, no multiple of anything */

static float values[N_MAX], sorted[N_MAX];
static const struct apr_kern *kern;
static struct apr_pool *pools[2];

static int setup(void **state)
{
    struct apr_err e;
    (void)state;
    pools[0] = apr_pool_open(1);
    pools[1] = apr_pool_open(3);
    return apr_kern_pick(&kern, &e) != APR_OK;
}

static int teardown(void **state)
{
    (void)state;
    apr_pool_close(pools[0]);
    apr_pool_close(pools[1]);
    return 0;
}

static uint32_t bits_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static int by_value(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* A mapped F32 tensor that borrows x. */
static struct apr_tensor tensor_of(const float *x, size_t n)
{
    return (struct apr_tensor){.name = "t",
                               .type = APR_F32,
                               .n_dims = 1,
                               .dims = {n},
                               .n_bytes = n * sizeof *x,
                               .data = (const uint8_t *)x};
}

static void check_plain(const float *x, size_t n, const struct apr_fingerprint *f)
{
    uint32_t checksum = 0;
    uint64_t n_nan = 0, n_inf = 0, n_zero = 0;
    long double sum = 0, dev = 0;
    size_t n_finite = 0;
    for (size_t i = 0; i < n; i++) {
        checksum += bits_of(x[i]);
        n_nan += isnan(x[i]) != 0;
        n_inf += isinf(x[i]) != 0;
        n_zero += fabsf(x[i]) < 1e-10F;
        if (!isfinite(x[i])) continue;
        sum += (long double)x[i];
        sorted[n_finite++] = x[i];
    }
    assert_int_equal(f->checksum, checksum);
    assert_int_equal(f->n_nan, n_nan);
    assert_int_equal(f->n_inf, n_inf);
    assert_int_equal(f->n_elems, n);
    if (n) assert_true(f->zero_fraction == (double)n_zero / (double)n);
    if (n_finite == 0) {
        assert_true(isnan(f->mean) && isnan(f->std) && isnan(f->min) && isnan(f->max));
        for (int i = 0; i < APR_N_PERCENTILES; i++) assert_true(isnan(f->percentile[i]));
        return;
    }
    const long double mean = sum / (long double)n_finite;
    for (size_t i = 0; i < n_finite; i++)
        dev += ((long double)sorted[i] - mean) * ((long double)sorted[i] - mean);
    const double std = (double)sqrtl(dev / (long double)n_finite);
    qsort(sorted, n_finite, sizeof *sorted, by_value);
    const double largest = fmax(fabs((double)sorted[0]), fabs((double)sorted[n_finite - 1]));
    assert_true(fabs(f->mean - (double)mean) <= 1e-13 * largest); /* double sums of floats */
    assert_true(fabs(f->std - std) <= 1e-12 * largest);
    assert_true(f->min == (double)sorted[0] && f->max == (double)sorted[n_finite - 1]);
    for (int i = 0; i < APR_N_PERCENTILES; i++)
        assert_true(f->percentile[i] == (double)sorted[(n_finite - 1) * apr_percentiles[i] / 100]);
}

static void check(const float *x, size_t n)
{
    struct apr_model *m = apr_model_new("test");
    struct apr_tensor t = tensor_of(x, n);
    struct apr_fingerprint f[2];
    struct apr_err e;
    for (int k = 0; k < 2; k++) OK(apr_fingerprint_tensor(m, &t, kern, pools[k], &f[k], &e));
    check_plain(x, n, &f[0]);
    assert_memory_equal(&f[0], &f[1], sizeof f[0]); /* bits, whatever the number of threads */
    apr_model_close(m);
}

static void equals_plain(void **state)
{
    (void)state;
    static const size_t lengths[] = {0, 1, 2, 3, 20, 21, 255, 4095, 4096, 4097, 65536, 65537, N_MAX};
    uint64_t s = 99;
    for (size_t k = 0; k < sizeof lengths / sizeof lengths[0]; k++) {
        for (size_t i = 0; i < lengths[k]; i++) { /* a bell of small numbers */
            s = s * 6364136223846793005u + 1442695040888963407u;
            values[i] =
                (float)((double)(s >> 40) / 16777216.0 + (double)(s << 24 >> 40) / 16777216.0 - 1.0) * 0.1F;
        }
        check(values, lengths[k]);
    }
}

/* Every bit pattern may come: subnormals, both zeros, all magnitudes, NaN, infinities. */
static void equals_plain_for_all_patterns(void **state)
{
    (void)state;
    uint64_t s = 7;
    for (size_t i = 0; i < N_MAX; i++) {
        s = s * 6364136223846793005u + 1442695040888963407u;
        values[i] = float_of((uint32_t)(s >> 32));
    }
    check(values, N_MAX);
    for (size_t i = 0; i < 1000; i++) values[i] = i % 3 == 0 ? NAN : i % 3 == 1 ? INFINITY : -INFINITY;
    check(values, 1000);
    for (size_t i = 0; i < 1000; i++) values[i] = i % 2 ? 0.0F : -0.0F;
    check(values, 1000);
}

/* The percentiles lie in one bucket of the upper 16 bits: the lower half decides. */
static void percentiles_within_one_bucket(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_MAX; i++) values[i] = float_of(0x3f800000u + (uint32_t)(i * 7919 % 60000));
    check(values, N_MAX);
    for (size_t i = 0; i < N_MAX; i++) values[i] = float_of(0xbf800000u + (uint32_t)(i * 7919 % 60000));
    check(values, N_MAX);
}

/* Each value by itself, and in pieces of odd length, as the quantization library gives it. */
static void values_of_blocks(void **state)
{
    (void)state;
    static const enum apr_type types[] = {APR_Q4_K, APR_Q8_0, APR_BF16, APR_NATIVE_Q8, APR_NATIVE_Q4};
    for (size_t k = 0; k < sizeof types / sizeof types[0]; k++) {
        const struct apr_quant *q = apr_quant_of(types[k]);
        static uint8_t blocks[1 << 16];
        static float x[9216], want[9216], got[9216];
        const size_t n = 9216;
        struct apr_model *m = apr_model_new("test");
        struct apr_tensor t = {.name = "t", .type = types[k], .n_dims = 2, .dims = {9, 1024}, .data = blocks};
        struct apr_values v;
        struct apr_err e;
        for (size_t i = 0; i < n; i++) x[i] = sinf((float)i) * 0.3F;
        q->from_f32(x, blocks, n, NULL);
        q->to_f32(blocks, want, n);
        OK(apr_tensor_bytes(types[k], 2, t.dims, &t.n_bytes, &e));
        OK(apr_values_open(&v, m, &t, kern, &e));
        assert_int_equal(v.n, n);
        for (size_t i = 0; i < n; i++) apr_values_get(&v, i, 1, &got[i]);
        assert_memory_equal(got, want, sizeof want);
        memset(got, 0, sizeof got);
        for (size_t i = 0, step = 1; i < n; i += step, step = step * 3 + 1) {
            if (step > n - i) step = n - i;
            apr_values_get(&v, i, step, got + i);
        }
        assert_memory_equal(got, want, sizeof want);
        t.n_bytes--; /* a size that the shape does not need */
        assert_int_equal(apr_values_open(&v, m, &t, kern, &e), APR_EFORMAT);
        apr_model_close(m);
    }
}

/* Rows that end in padding: the padding is no value. */
static void values_of_padded_rows(void **state)
{
    (void)state;
    const struct apr_quant *q = apr_quant_of(APR_Q8_0);
    uint8_t blocks[3 * 2 * 34];
    float x[64] = {0}, want[3 * 40], got[3 * 40];
    struct apr_model *m = apr_model_new("test");
    struct apr_tensor t = {.name = "t",
                           .type = APR_Q8_0,
                           .packing = APR_ROWS_PADDED,
                           .n_dims = 2,
                           .dims = {3, 40},
                           .n_bytes = sizeof blocks,
                           .data = blocks};
    struct apr_values v;
    struct apr_err e;
    for (size_t r = 0; r < 3; r++) {
        for (size_t i = 0; i < 40; i++) x[i] = (float)(r * 40 + i) - 50;
        q->from_f32(x, blocks + r * 68, 64, NULL);
        float row[64];
        q->to_f32(blocks + r * 68, row, 64);
        memcpy(want + r * 40, row, 40 * sizeof *row);
    }
    OK(apr_values_open(&v, m, &t, kern, &e));
    apr_values_get(&v, 0, 120, got);
    assert_memory_equal(got, want, sizeof want);
    apr_values_get(&v, 33, 60, got);
    assert_memory_equal(got, want + 33, 60 * sizeof *want);
    apr_model_close(m);
}

static void sigma(void **state)
{
    (void)state;
    assert_true(apr_fingerprint_sigma(1, 3, 0.5, 1000) == 4);
    assert_true(apr_fingerprint_sigma(1, 1.5, 0, 1000) == 500);
    assert_true(apr_fingerprint_sigma(NAN, NAN, 1, 1) == 0);
    assert_true(isinf(apr_fingerprint_sigma(NAN, 1, 1, 1)) && isinf(apr_fingerprint_sigma(1, NAN, 1, 1)));
}

static enum apr_code read_report(const char *text, struct apr_fingerprints *f, struct apr_err *e)
{
    char path[] = "/tmp/apr-fingerprint-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
    enum apr_code code = apr_fingerprints_of_json(f, path, e);
    unlink(path);
    return code;
}

static void reports(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "[]",
        "{}",
        "{\"fingerprints\":[]}",
        "{\"fingerprints\":{}}",
        "{\"fingerprints\":[1]}",
        "{\"fingerprints\":[{\"shape\":[1]}]}",
        "{\"fingerprints\":[{\"name\":\"a\"}]}",
        "{\"fingerprints\":[{\"name\":\"a\",\"shape\":[-1]}]}",
        "{\"fingerprints\":[{\"name\":5,\"shape\":[1]}]}",
        "{\"fingerprints\":[{\"name\":\"a\",\"shape\":[1,1,1,1,1,1,1,1,1]}]}",
        "{\"fingerprints\":[{\"name\":\"a\",\"shape\":[1],\"mean\":\"x\"}]}",
        "{\"fingerprints\":[{\"name\":\"a\",\"shape\":[1],\"nan_count\":-1}]}",
        "{\"fingerprints\":[{\"name\":\"a\",\"shape\":[1]},{\"name\":\"a\",\"shape\":[1]}]}"};
    struct apr_fingerprints f;
    struct apr_err e;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (read_report(bad[i], &f, &e) != APR_EFORMAT) fail_msg("accepted: %s", bad[i]);
        apr_fingerprints_free(&f);
    }
    OK(read_report(
        "{\"fingerprints\":[{\"name\":\"b\",\"shape\":[2,3],\"mean\":0.5,\"std\":null,\"checksum\":7},"
        "{\"name\":\"a\",\"shape\":[]}]}",
        &f, &e));
    assert_int_equal(f.n, 2);
    assert_null(apr_fingerprints_find(&f, "c"));
    const struct apr_fingerprint *b = apr_fingerprints_find(&f, "b");
    assert_non_null(b);
    assert_true(b->mean == 0.5 && isnan(b->std) && b->is_known && b->n_dims == 2 && b->dims[1] == 3);
    assert_false(apr_fingerprint_same_shape(b, apr_fingerprints_find(&f, "a")));
    apr_fingerprints_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_plain),
        cmocka_unit_test(equals_plain_for_all_patterns),
        cmocka_unit_test(percentiles_within_one_bucket),
        cmocka_unit_test(values_of_blocks),
        cmocka_unit_test(values_of_padded_rows),
        cmocka_unit_test(sigma),
        cmocka_unit_test(reports),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

/* The conversion loop: importance of columns reaches the quantizer by column and by matrix of a stacked
 * tensor, across the borders of chunks and pieces, with any number of threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "convert.h"

/* 2.4 million values: more than one piece, and rows that straddle chunks. */
enum { N_MATRICES = 3, N_ROWS = 1050, N_COLS = 768, N = N_MATRICES * N_ROWS * N_COLS };

static float *values, *importance; /* [N_MATRICES, N_ROWS, N_COLS], [N_MATRICES, N_COLS] */

static enum apr_code give(struct apr_model *m, const struct apr_tensor *t, uint64_t off, void *dst, size_t n,
                          struct apr_err *e)
{
    (void)m, (void)t, (void)e;
    memcpy(dst, (const char *)values + off, n);
    return APR_OK;
}

static int make_values(void **state)
{
    (void)state;
    uint64_t seed = 88172645463325252U;
    values = malloc(N * sizeof *values);
    importance = malloc(N_MATRICES * N_COLS * sizeof *importance);
    assert_true(values && importance);
    for (size_t i = 0; i < N + N_MATRICES * N_COLS; i++) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        float u = (float)(seed >> 40) * 0x1p-24F;
        if (i < N)
            values[i] = u - 0.5F;
        else
            importance[i - N] = u * u * u;
    }
    return 0;
}

static int free_values(void **state)
{
    (void)state;
    free(values);
    free(importance);
    return 0;
}

static void convert(enum apr_type type, const float *weights, unsigned n_threads, struct apr_buf *out)
{
    struct apr_err e = {0};
    struct apr_model *m = apr_model_new("test");
    struct apr_tensor *t;
    assert_int_equal(apr_model_add_tensor(m, &t, &e), APR_OK);
    *t = (struct apr_tensor){.name = "experts",
                             .type = APR_F32,
                             .n_dims = 3,
                             .dims = {N_MATRICES, N_ROWS, N_COLS},
                             .n_bytes = N * sizeof(float)};
    m->compute = give;
    struct apr_plan_tensor row = {.src = t, .name = "experts", .type = type, .n_dims = 3};
    memcpy(row.dims, t->dims, sizeof row.dims);
    assert_int_equal(apr_tensor_bytes(type, 3, row.dims, &row.n_bytes, &e), APR_OK);
    row.importance = weights;
    row.n_importance = weights ? N_MATRICES * N_COLS : 0;
    struct apr_kvs kvs;
    apr_kvs_init(&kvs, &m->arena);
    struct apr_plan plan = {.tensors = &row, .n_tensors = 1, .kvs = &kvs};
    assert_int_equal(apr_plan_layout(&plan, 32, &e), APR_OK);
    struct apr_convert c = {
        .model = m, .plan = &plan, .fmt = apr_fmt_named("gguf"), .pool = apr_pool_open(n_threads)};
    assert_int_equal(apr_kern_pick(&c.kern, &e), APR_OK);
    struct apr_sink *s;
    apr_buf_init(out, 32u << 20);
    apr_sink_mem(&s, out);
    enum apr_code code = apr_convert_run(&c, s, NULL, &e);
    if (code != APR_OK) fail_msg("%s", e.text);
    assert_int_equal(apr_sink_finish(s, &e), APR_OK);
    apr_pool_close(c.pool);
    apr_model_close(m);
}

/* Row by row, with the importance of the row's matrix. */
static void expect(enum apr_type type, const float *weights, const struct apr_buf *got)
{
    const struct apr_quant *q = apr_quant_of(type);
    size_t n_row = N_COLS / q->block_elems * q->block_bytes, n_all = n_row * N_MATRICES * N_ROWS;
    uint8_t row[N_COLS * sizeof(float)];
    assert_true(got->n_bytes >= n_all);
    const uint8_t *data = got->data + (got->n_bytes - (n_all + 31) / 32 * 32);
    for (size_t r = 0; r < N_MATRICES * N_ROWS; r++) {
        q->from_f32(values + r * N_COLS, row, N_COLS, weights ? weights + r / N_ROWS * N_COLS : NULL);
        if (memcmp(row, data + r * n_row, n_row) != 0) fail_msg("%s: row %zu differs", q->name, r);
    }
}

static void importance_reaches_every_row(void **state)
{
    (void)state;
    static const enum apr_type types[] = {APR_Q4_K, APR_Q4_0};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        struct apr_buf one, two, plain;
        convert(types[i], importance, 1, &one);
        convert(types[i], importance, 2, &two);
        convert(types[i], NULL, 2, &plain);
        assert_int_equal(one.n_bytes, two.n_bytes);
        assert_memory_equal(one.data, two.data, one.n_bytes);
        assert_memory_not_equal(one.data, plain.data, one.n_bytes);
        expect(types[i], importance, &one);
        expect(types[i], NULL, &plain);
        apr_buf_free(&one);
        apr_buf_free(&two);
        apr_buf_free(&plain);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(importance_reaches_every_row)};
    return cmocka_run_group_tests(tests, make_values, free_values);
}

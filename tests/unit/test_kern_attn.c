/* Attention over a page, and the choice of the table. */
#include "kern_data.h"

#define MAX_Q   17
#define MAX_POS 33
#define MAX_DIM 264

static float *q, *weights, *k32; /* [MAX_Q, MAX_DIM], [MAX_Q, MAX_POS], [MAX_POS, MAX_DIM] */
static uint16_t *k16_end;        /* guard page behind the cache */
static float *k32_end;

static int make_buffers(void **state)
{
    (void)state;
    q = kern_data_guarded(MAX_Q * MAX_DIM * sizeof *q);
    weights = kern_data_guarded(MAX_Q * MAX_POS * sizeof *weights);
    k32 = kern_data_guarded(MAX_POS * MAX_DIM * sizeof *k32);
    k32_end = k32 + MAX_POS * MAX_DIM;
    k16_end = (uint16_t *)kern_data_guarded(MAX_POS * MAX_DIM * sizeof *k16_end) + MAX_POS * MAX_DIM;
    return 0;
}

static void fill(void)
{
    for (size_t i = 0; i < MAX_Q * MAX_DIM; i++) q[i] = kern_data_f32(2);
    for (size_t i = 0; i < MAX_Q * MAX_POS; i++) weights[i] = kern_data_f32(1);
    for (size_t i = 0; i < MAX_POS * MAX_DIM; i++) {
        k16_end[-1 - (ptrdiff_t)i] = apr_f32_to_f16(kern_data_f32(3));
        k32[i] = kern_data_f32(3);
    }
}

struct page {
    size_t n_q, n_pos, n_dim, stride;
    bool is_f16;
};

/* The last position ends at the guard page. */
static size_t page_elems(const struct page *p)
{
    return (p->n_pos - 1) * p->stride + p->n_dim;
}

static void scores(const struct apr_kern *k, const struct page *p, float *out, size_t s_stride)
{
    if (p->is_f16) {
        k->attn_scores_f16(q, p->n_q, k16_end - page_elems(p), p->stride, p->n_pos, p->n_dim, 0.125f, out,
                           s_stride);
    } else {
        k->attn_scores_f32(q, p->n_q, k32_end - page_elems(p), p->stride, p->n_pos, p->n_dim, 0.125f, out,
                           s_stride);
    }
}

static void values(const struct apr_kern *k, const struct page *p, float *out)
{
    if (p->is_f16) {
        k->attn_values_f16(weights, MAX_POS, p->n_q, k16_end - page_elems(p), p->stride, p->n_pos, p->n_dim,
                           out);
    } else {
        k->attn_values_f32(weights, MAX_POS, p->n_q, k32_end - page_elems(p), p->stride, p->n_pos, p->n_dim,
                           out);
    }
}

static double at(const struct page *p, size_t pos, size_t i)
{
    size_t back = page_elems(p) - pos * p->stride - i;
    return p->is_f16 ? apr_f16_to_f32(*(k16_end - back)) : *(k32_end - back);
}

/* Tolerance: n_dim (n_pos) roundings of 6e-8 of terms below 6 (3). */
static void check_double(const struct page *p, const float *s, size_t s_stride, const float *before,
                         const float *after)
{
    for (size_t j = 0; j < p->n_q; j++) {
        for (size_t pos = 0; pos < p->n_pos; pos++) {
            double want = 0;
            for (size_t i = 0; i < p->n_dim; i++) want += q[j * p->n_dim + i] * at(p, pos, i);
            assert_true(fabs(s[j * s_stride + pos] - want * 0.125) <= 4e-7 * (double)p->n_dim + 1e-9);
        }
        for (size_t i = 0; i < p->n_dim; i++) {
            double want = before[j * p->n_dim + i];
            for (size_t pos = 0; pos < p->n_pos; pos++) want += weights[j * MAX_POS + pos] * at(p, pos, i);
            assert_true(fabs(after[j * p->n_dim + i] - want) <= 1e-6 * (double)(p->n_pos + 1));
        }
    }
}

static void check(const struct page *p)
{
    static float s[2][MAX_Q * (MAX_POS + 1)], o[2][MAX_Q * MAX_DIM + 1], before[MAX_Q * MAX_DIM + 1];
    const struct apr_kern *k;
    const size_t s_stride = p->n_pos + 1; /* a guard behind the scores of every head */
    fill();
    for (size_t i = 0; i < MAX_Q * MAX_DIM; i++) before[i] = kern_data_f32(1);
    before[p->n_q * p->n_dim] = -12345;
    for (size_t i = 0; i < MAX_Q * (MAX_POS + 1); i++) s[0][i] = s[1][i] = -12345;
    memcpy(o[0], before, sizeof o[0]);
    scores(&apr_kern_scalar, p, s[0], s_stride);
    values(&apr_kern_scalar, p, o[0]);
    check_double(p, s[0], s_stride, before, o[0]);
    for (size_t t = 1; (k = apr_kern_at(t)) != NULL; t++) {
        memcpy(o[1], before, sizeof o[1]);
        scores(k, p, s[1], s_stride);
        values(k, p, o[1]);
        if (!kern_data_same(s[0], s[1], sizeof s[0] / sizeof **s)) {
            fail_msg("%s scores: %zu heads, %zu positions, %zu dims", k->name, p->n_q, p->n_pos, p->n_dim);
        }
        if (!kern_data_same(o[0], o[1], sizeof o[0] / sizeof **o)) {
            fail_msg("%s values: %zu heads, %zu positions, %zu dims", k->name, p->n_q, p->n_pos, p->n_dim);
        }
    }
}

static void test_pages(void **state)
{
    (void)state;
    static const size_t dims[] = {1, 7, 8, 12, 32, 48, 64, 72, 80, 100, 128, 256};
    static const size_t positions[] = {1, 2, 15, 16, 33};
    for (size_t n_q = 1; n_q <= MAX_Q; n_q++) {
        for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
            struct page p = {.n_q = n_q, .n_dim = dims[i], .n_pos = positions[(n_q + i) % 5]};
            p.stride = p.n_dim + (n_q % 3 == 0 ? 8 : 0);
            p.is_f16 = true;
            check(&p);
            p.is_f16 = false;
            check(&p);
        }
    }
}

/* A head's results do not depend on the heads beside it, nor on how a cache is cut into pages. */
static void test_pages_invariant(void **state)
{
    (void)state;
    static float whole[MAX_Q * 128], parts[MAX_Q * 128];
    const struct apr_kern *k;
    fill();
    for (size_t t = 0; (k = apr_kern_at(t)) != NULL; t++) {
        const float *v = k32;
        memset(whole, 0, sizeof whole);
        memset(parts, 0, sizeof parts);
        k->attn_values_f32(weights, MAX_POS, 7, v, 128, 33, 128, whole);
        for (size_t j = 0; j < 7; j++) {
            for (size_t p = 0; p < 33; p += 16) {
                size_t n = p + 16 < 33 ? 16 : 33 - p;
                k->attn_values_f32(weights + j * MAX_POS + p, MAX_POS, 1, v + p * 128, 128, n, 128,
                                   parts + j * 128);
            }
        }
        assert_memory_equal(whole, parts, sizeof whole);
    }
}

/* Products that round to -0: a tail of dimensions must not turn the other lanes to +0. */
static void test_negative_zero(void **state)
{
    (void)state;
    static float out[9];
    const struct apr_kern *k;
    for (size_t i = 0; i < MAX_Q * MAX_DIM; i++) q[i] = -0x1p-140f;
    for (size_t i = 0; i < MAX_DIM; i++) {
        k16_end[-1 - (ptrdiff_t)i] = apr_f32_to_f16(0x1p-14f);
        k32_end[-1 - (ptrdiff_t)i] = 0x1p-14f;
    }
    for (size_t n_dim = 8; n_dim < 24; n_dim++) {
        struct page p = {.n_q = 8, .n_pos = 1, .n_dim = n_dim, .stride = n_dim};
        for (size_t t = 0; (k = apr_kern_at(t)) != NULL; t++) {
            for (int f16 = 0; f16 < 2; f16++) {
                p.is_f16 = f16;
                scores(k, &p, out, 1);
                for (size_t j = 0; j < 8; j++) assert_true(out[j] == 0 && signbit(out[j]));
            }
        }
    }
}

static void test_pick(void **state)
{
    (void)state;
    const struct apr_kern *k, *last = NULL;
    struct apr_err e;
    assert_ptr_equal(apr_kern_at(0), &apr_kern_scalar);
    for (size_t t = 0; (k = apr_kern_at(t)) != NULL; t++) {
        const struct apr_kern *picked;
        assert_int_equal(setenv("APR_KERN", k->name, 1), 0);
        assert_int_equal(apr_kern_pick(&picked, &e), APR_OK);
        assert_ptr_equal(picked, k);
        last = k;
    }
    assert_int_equal(setenv("APR_KERN", "", 1), 0);
    assert_int_equal(apr_kern_pick(&k, &e), APR_OK);
    assert_ptr_equal(k, last);
    assert_int_equal(unsetenv("APR_KERN"), 0);
    assert_int_equal(apr_kern_pick(&k, &e), APR_OK);
    assert_ptr_equal(k, last);
    assert_int_equal(setenv("APR_KERN", "neon\n", 1), 0);
    assert_int_equal(apr_kern_pick(&k, &e), APR_EUSAGE);
    assert_null(k);
    assert_non_null(strstr(e.text, "scalar, sse4, avx2, avx512bf16, avx512, neon, dotprod, simd128"));
    assert_null(strchr(e.text, '\n'));
    assert_int_equal(unsetenv("APR_KERN"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_pages_invariant),
        cmocka_unit_test(test_negative_zero),
        cmocka_unit_test(test_pick),
    };
    return cmocka_run_group_tests(tests, make_buffers, NULL);
}

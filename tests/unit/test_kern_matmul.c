/* Matrix products: every table equals the scalar one bit for bit, the scalar one equals a sum in double. */
#include "kern_data.h"

#define MAX_COLS 1280
#define MAX_ROWS 145
#define FEW_ROWS 17
#define MAX_TOKS 53

static uint8_t random_byte(void)
{
    return (uint8_t)(kern_data_u32() >> 13);
}

static float random_d(void)
{
    return kern_data_f32(0.5f);
}

struct problem {
    const struct kern_data_type *t;
    bool exact;
    size_t n_cols, n_rows, n_toks;
    uint8_t *w; /* [n_rows, row_bytes] up to a guard page */
    size_t row_bytes;
    uint8_t *x; /* [n_toks, act_bytes] up to a guard page */
    size_t act_bytes;
};

static const struct apr_matmul *row_of(const struct apr_kern *k, const struct problem *p)
{
    return &k->matmul[p->t->type];
}

/* Tables with an order of their own for BF16 have a test of their own, too (test_kern_pairs.c). */
static bool has_order(const struct apr_kern *k, const struct problem *p)
{
    return p->exact || row_of(k, p)->act == row_of(&apr_kern_scalar, p)->act;
}

static enum apr_act act_of(const struct problem *p)
{
    return p->exact ? APR_ACT_F32 : row_of(&apr_kern_scalar, p)->act;
}

/* The end of both buffers is the end of what a kernel may read. */
static struct problem problem(const struct kern_data_type *t, bool exact, size_t n_cols, size_t n_rows,
                              size_t n_toks, uint8_t *w_end, uint8_t *x_end)
{
    struct problem p = {.t = t, .exact = exact, .n_cols = n_cols, .n_rows = n_rows, .n_toks = n_toks};
    p.row_bytes = kern_data_row_bytes(t->type, n_cols);
    p.act_bytes = kern_data_act_bytes(act_of(&p), n_cols);
    p.w = w_end - n_rows * p.row_bytes;
    p.x = x_end - n_toks * p.act_bytes;
    return p;
}

static void multiply(const struct apr_kern *k, const struct problem *p, float *y, size_t y_stride,
                     void *scratch)
{
    const struct apr_matmul *m = row_of(k, p);
    (p->exact ? m->exact : m->fast)(p->w, p->row_bytes, p->n_rows, p->n_cols, p->x, p->act_bytes, p->n_toks,
                                    y, y_stride, scratch);
}

static uint8_t *w_end, *x_end;
static float *x; /* [MAX_TOKS, MAX_COLS] */
static void *scratch;

static int make_buffers(void **state)
{
    (void)state;
    size_t w_bytes = MAX_ROWS * MAX_COLS * sizeof(double), x_bytes = MAX_TOKS * MAX_COLS * sizeof(double);
    w_end = (uint8_t *)kern_data_guarded(w_bytes) + w_bytes;
    x_end = (uint8_t *)kern_data_guarded(x_bytes) + x_bytes;
    x = kern_data_guarded(MAX_TOKS * MAX_COLS * sizeof *x);
    for (size_t i = 0; i < MAX_TOKS * MAX_COLS; i++) x[i] = kern_data_f32(i % 7 == 0 ? 30.0f : 1.0f);
    /* scratch ends at a guard page too; what is promised is 64-byte alignment */
    scratch = kern_data_guarded((apr_kern_scratch_bytes(MAX_COLS) + 63) / 64 * 64);
    return 0;
}

static void fill(const struct problem *p)
{
    for (size_t r = 0; r < p->n_rows; r++) {
        kern_data_row(p->t, p->w + r * p->row_bytes, p->n_cols, random_byte, random_d);
    }
    for (size_t t = 0; t < p->n_toks; t++) {
        kern_data_act(act_of(p), x + t * MAX_COLS, p->x + t * p->act_bytes, p->n_cols);
    }
}

/* y has a column and a row of guards: a kernel writes its rows and nothing else. */
static void expect_same(const struct problem *p)
{
    static float want[MAX_TOKS * (MAX_ROWS + 1)], got[MAX_TOKS * (MAX_ROWS + 1)];
    const struct apr_kern *k;
    for (size_t i = 0; i < MAX_TOKS * (MAX_ROWS + 1); i++) want[i] = -12345;
    multiply(&apr_kern_scalar, p, want, p->n_rows + 1, scratch);
    for (size_t i = 1; (k = apr_kern_at(i)) != NULL; i++) {
        if (!has_order(k, p)) continue;
        for (size_t j = 0; j < MAX_TOKS * (MAX_ROWS + 1); j++) got[j] = -12345;
        multiply(k, p, got, p->n_rows + 1, scratch);
        if (!kern_data_same(want, got, MAX_TOKS * (MAX_ROWS + 1))) {
            fail_msg("%s %s %s: %zu columns, %zu rows, %zu tokens differ from scalar", k->name,
                     apr_type_name(p->t->type), p->exact ? "exact" : "fast", p->n_cols, p->n_rows, p->n_toks);
        }
    }
}

static void test_shapes(void **state)
{
    (void)state;
    static const size_t plain_cols[] = {1, 5, 7, 8, 9, 16, 31, 100, 511, 512, 513, 1033, 1024};
    static const size_t block_cols[] = {1, 2, 3, 5};
    for (size_t i = 0; i < 2 * KERN_DATA_N_TYPES; i++) {
        const struct kern_data_type *t = &kern_data_types[i / 2];
        size_t elems = t->type == APR_NATIVE_Q4 ? APR_QK : apr_quant_of(t->type)->block_elems;
        const size_t *cols = elems == 1 ? plain_cols : block_cols;
        size_t n = elems == 1 ? sizeof plain_cols / sizeof *cols : sizeof block_cols / sizeof *cols;
        for (size_t c = 0; c < n; c++) {
            for (size_t n_toks = 1; n_toks <= 17; n_toks++) {
                size_t n_rows = 1 + (n_toks * 7 + c * 5 + i) % FEW_ROWS;
                struct problem p = problem(t, i % 2, cols[c] * elems, n_rows, n_toks, w_end, x_end);
                fill(&p);
                expect_same(&p);
            }
        }
        for (size_t n_rows = 1; n_rows <= FEW_ROWS; n_rows++) {
            size_t n_toks = 1 + n_rows * 5 % 8;
            struct problem p = problem(t, i % 2, cols[n - 1] * elems, n_rows, n_toks, w_end, x_end);
            fill(&p);
            expect_same(&p);
        }
        struct problem p = problem(t, i % 2, cols[n - 1] * elems, 5, MAX_TOKS, w_end, x_end);
        fill(&p);
        expect_same(&p);
    }
}

/* More rows and columns than a kernel takes at a time, and rows that are left over. */
static void test_several_pieces(void **state)
{
    (void)state;
    for (size_t i = 0; i < KERN_DATA_N_TYPES; i++) {
        const struct kern_data_type *t = &kern_data_types[i];
        size_t elems = t->type == APR_NATIVE_Q4 ? APR_QK : apr_quant_of(t->type)->block_elems;
        for (size_t n_toks = 2; n_toks <= 11; n_toks += 3) {
            struct problem p = problem(t, false, MAX_COLS - elems, MAX_ROWS, n_toks, w_end, x_end);
            fill(&p);
            expect_same(&p);
        }
    }
}

/* A token's result in a batch is its result alone, wherever it stands. */
static void test_batch_invariance(void **state)
{
    (void)state;
    static float batch[MAX_TOKS * MAX_ROWS], alone[MAX_ROWS];
    const struct apr_kern *k;
    for (size_t i = 0; i < 2 * KERN_DATA_N_TYPES; i++) {
        const struct kern_data_type *t = &kern_data_types[i / 2];
        struct problem p = problem(t, i % 2, 1024, 6, 15, w_end, x_end);
        fill(&p);
        for (size_t j = 0; (k = apr_kern_at(j)) != NULL; j++) {
            if (!has_order(k, &p)) continue;
            multiply(k, &p, batch, p.n_rows, scratch);
            for (size_t tok = 0; tok < p.n_toks; tok++) {
                struct problem one = p;
                one.n_toks = 1;
                one.x = p.x + tok * p.act_bytes;
                multiply(k, &one, alone, p.n_rows, scratch);
                assert_memory_equal(alone, batch + tok * p.n_rows, p.n_rows * sizeof *alone);
            }
        }
    }
}

static float one(void)
{
    return 1;
}

static uint8_t fixed_byte;
static uint8_t a_byte(void)
{
    return fixed_byte;
}

/* The largest integers: all quants and scales at their ends, all activations at +-127. */
static void test_extremes(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {0xff, 0x7f, 0x80, 0x81, 0x00, 0x3f, 0xf0, 0x0f};
    for (size_t i = 0; i < KERN_DATA_N_TYPES; i++) {
        const struct kern_data_type *t = &kern_data_types[i];
        if (act_of(&(struct problem){.t = t}) == APR_ACT_F32) continue;
        for (size_t b = 0; b < sizeof bytes; b++) {
            struct problem p = problem(t, false, 512, 9, 9, w_end, x_end);
            fixed_byte = bytes[b];
            float row[512];
            for (size_t r = 0; r < p.n_rows; r++) kern_data_row(t, p.w + r * p.row_bytes, 512, a_byte, one);
            for (size_t tok = 0; tok < p.n_toks; tok++) {
                for (size_t k = 0; k < 512; k++) row[k] = tok == 0 ? 1 : tok == 1 ? -1 : k % tok ? 1 : -1;
                kern_data_act(act_of(&p), row, p.x + tok * p.act_bytes, 512);
            }
            expect_same(&p);
        }
    }
}

/* NaN and infinity in scales and activations come out as such from every table. */
static void test_not_finite(void **state)
{
    (void)state;
    static float y[3 * 9];
    const struct apr_kern *k;
    for (size_t i = 0; i < 2 * KERN_DATA_N_TYPES; i++) {
        struct problem p = problem(&kern_data_types[i / 2], i % 2, 256, 9, 3, w_end, x_end);
        float keep = x[MAX_COLS + 77];
        x[MAX_COLS + 77] = i % 3 ? NAN : INFINITY;
        fill(&p);
        x[MAX_COLS + 77] = keep;
        expect_same(&p);
        for (size_t j = 0; (k = apr_kern_at(j)) != NULL; j++) {
            if (!has_order(k, &p)) continue;
            multiply(k, &p, y, 9, scratch);
            for (size_t r = 0; r < 9; r++) {
                assert_true(isfinite(y[r]) && isfinite(y[18 + r]));
                if (act_of(&p) != APR_ACT_F32) assert_true(isnan(y[9 + r]));
                /* a plain zero weight times infinity is NaN, any other is infinite */
                assert_true(!isfinite(y[9 + r]));
            }
        }
    }
}

static float tiny_d(void)
{
    return 0x1p-14f;
}

/* Products that round to -0: a tail shorter than 8 must not turn the other lanes to +0. */
static void test_negative_zero(void **state)
{
    (void)state;
    static const enum apr_type types[] = {APR_F32, APR_F16, APR_BF16, APR_F64};
    static float y[9 * 5];
    const struct apr_kern *k;
    for (size_t i = 0; i < 4 * 16 * 2; i++) {
        const struct kern_data_type *t = kern_data_types;
        while (t->type != types[i / 32]) t++;
        struct problem p = problem(t, false, 1 + i % 16, 5, i % 32 < 16 ? 3 : 9, w_end, x_end);
        fixed_byte = 0;
        for (size_t r = 0; r < p.n_rows; r++)
            kern_data_row(t, p.w + r * p.row_bytes, p.n_cols, a_byte, tiny_d);
        float *xs = (float *)(void *)p.x;
        for (size_t j = 0; j < p.n_toks * p.n_cols; j++) xs[j] = -0x1p-140f;
        expect_same(&p);
        for (size_t j = 0; (k = apr_kern_at(j)) != NULL && p.n_cols >= 8; j++) {
            if (!has_order(k, &p)) continue;
            multiply(k, &p, y, 5, scratch);
            for (size_t r = 0; r < p.n_toks * 5; r++) assert_true(y[r] == 0 && signbit(y[r]));
        }
    }
}

/* Rows so long that few of them are held in cache: blocks of rows and of tokens take turns. */
static void test_long_rows(void **state)
{
    (void)state;
    enum { N = 11008 + 5, ROWS = 21, TOKS = 19 };
    static float want[TOKS * ROWS], got[TOKS * ROWS];
    uint16_t *w = kern_data_guarded(ROWS * N * sizeof *w);
    float *a = kern_data_guarded(TOKS * N * sizeof *a);
    const struct apr_kern *k;
    for (size_t i = 0; i < ROWS * N; i++) w[i] = apr_f32_to_bf16(kern_data_f32(1));
    for (size_t i = 0; i < TOKS * N; i++) a[i] = kern_data_f32(2);
    void *room = kern_data_guarded((apr_kern_scratch_bytes(N) + 63) / 64 * 64);
    const struct apr_matmul *m = &apr_kern_scalar.matmul[APR_BF16];
    m->exact(w, N * sizeof *w, ROWS, N, a, N * sizeof *a, TOKS, want, ROWS, room);
    for (size_t i = 1; (k = apr_kern_at(i)) != NULL; i++) {
        k->matmul[APR_BF16].exact(w, N * sizeof *w, ROWS, N, a, N * sizeof *a, TOKS, got, ROWS, room);
        assert_memory_equal(want, got, sizeof want);
    }
}

static double act_value(enum apr_act act, const uint8_t *a, size_t k)
{
    if (act == APR_ACT_F32) return ((const float *)(const void *)a)[k];
    if (act == APR_ACT_Q8_32) {
        const struct apr_act32 *b = (const struct apr_act32 *)(const void *)a + k / 32;
        return (double)b->d * b->q[k % 32];
    }
    const struct apr_act256 *b = (const struct apr_act256 *)(const void *)a + k / 256;
    return (double)b->d * b->q[k % 256];
}

/* Tolerance: a chain of n roundings of 6e-8 each, of terms no larger than sum |w| |x|; widening rounds the
 * weight once more. Integer dots round less. Quantized activations are taken as they are. */
static void test_against_double(void **state)
{
    (void)state;
    static float y[4 * 5], wide[1024];
    for (size_t i = 0; i < 2 * KERN_DATA_N_TYPES; i++) {
        struct problem p = problem(&kern_data_types[i / 2], i % 2, 1024, 5, 4, w_end, x_end);
        fill(&p);
        multiply(&apr_kern_scalar, &p, y, 5, scratch);
        for (size_t r = 0; r < 5; r++) {
            apr_quant_of(p.t->type)->to_f32(p.w + r * p.row_bytes, wide, 1024);
            float w_max = 0;
            for (size_t k = 0; k < 1024; k++) w_max = fmaxf(w_max, fabsf(wide[k]));
            for (size_t t = 0; t < 4; t++) {
                double sum = 0, sum_abs = 0;
                for (size_t k = 0; k < 1024; k++) {
                    double v = act_value(act_of(&p), p.x + t * p.act_bytes, k);
                    sum += wide[k] * v;
                    sum_abs += fabs(v);
                }
                double error = fabs((double)y[t * 5 + r] - sum);
                if (error > 1e-6 * w_max * sum_abs) {
                    fail_msg("%s: row %zu token %zu: %g, expected %g", apr_type_name(p.t->type), r, t,
                             (double)y[t * 5 + r], sum);
                }
            }
        }
    }
}

static float wild_d(void)
{
    static const float d[] = {0, -0.0f, 0x1p-24f, -0x1p-20f, 65504, 1, -3.5f, 0x1p-14f, INFINITY};
    return d[kern_data_u32() % (sizeof d / sizeof d[0])];
}

/* Widening: the bits of quant's functions, at any length and alignment, no byte more than the row. */
static void test_to_f32(void **state)
{
    (void)state;
    static float want[MAX_COLS + 1], got[MAX_COLS + 1];
    const struct apr_kern *k;
    for (size_t i = 0; i < 40 * KERN_DATA_N_TYPES; i++) {
        const struct kern_data_type *t = &kern_data_types[i / 40];
        const struct apr_quant *q = apr_quant_of(t->type);
        size_t elems = t->type == APR_NATIVE_Q4 ? APR_QK : q->block_elems;
        size_t n = elems == 1 ? 1 + i % 40 : elems * (1 + i % 4);
        uint8_t *row = w_end - kern_data_row_bytes(t->type, n);
        kern_data_row(t, row, n, random_byte, i % 40 < 20 ? random_d : wild_d);
        q->to_f32(row, want, n);
        for (size_t j = 0; (k = apr_kern_at(j)) != NULL; j++) {
            got[n] = -12345;
            k->to_f32[t->type](row, got, n);
            if (!kern_data_same(want, got, n)) fail_msg("%s: widening %s differs", k->name, q->name);
            assert_true(got[n] == -12345);
        }
    }
    for (uint32_t h = 0; h < 65536; h += 8) { /* every half and every bfloat, NaN payloads too */
        uint16_t in[8];
        for (uint32_t j = 0; j < 8; j++) in[j] = (uint16_t)(h + j);
        for (size_t j = 0; (k = apr_kern_at(j)) != NULL; j++) {
            apr_quant_of(APR_F16)->to_f32(in, want, 8);
            k->to_f32[APR_F16](in, got, 8);
            assert_memory_equal(want, got, 8 * sizeof *want);
            apr_quant_of(APR_BF16)->to_f32(in, want, 8);
            k->to_f32[APR_BF16](in, got, 8);
            assert_memory_equal(want, got, 8 * sizeof *want);
        }
    }
}

/* The same types can be multiplied and widened by every table. */
static void test_tables_complete(void **state)
{
    (void)state;
    const struct apr_kern *k;
    for (size_t j = 0; (k = apr_kern_at(j)) != NULL; j++) {
        size_t n = 0;
        for (size_t i = 0; i < APR_N_TYPES; i++) {
            const struct apr_quant *q = apr_quant_of((uint32_t)i);
            bool computable = q && q->to_f32;
            assert_int_equal(k->matmul[i].fast != NULL, computable);
            assert_int_equal(k->matmul[i].exact != NULL, computable);
            assert_int_equal(k->to_f32[i] != NULL, computable);
            n += computable;
        }
        assert_int_equal(n, KERN_DATA_N_TYPES);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables_complete), cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_several_pieces),  cmocka_unit_test(test_batch_invariance),
        cmocka_unit_test(test_extremes),        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_negative_zero),   cmocka_unit_test(test_long_rows),
        cmocka_unit_test(test_against_double),  cmocka_unit_test(test_to_f32),
    };
    return cmocka_run_group_tests(tests, make_buffers, NULL);
}

/* BF16 weights in the tables that multiply pairs of BF16: their order of sums, written down plainly, bit for
 * bit; any shape; and how activations are split. */
#include "kern_data.h"

#define MAX_COLS 1312
#define MAX_ROWS 37
#define MAX_TOKS 39

static uint16_t *w_end, *x_end; /* what a kernel may read ends there */
static void *scratch;

static int make_buffers(void **state)
{
    (void)state;
    w_end = (uint16_t *)kern_data_guarded(MAX_ROWS * MAX_COLS * sizeof *w_end) + MAX_ROWS * MAX_COLS;
    x_end = (uint16_t *)kern_data_guarded(MAX_TOKS * 2 * MAX_COLS * sizeof *x_end) + MAX_TOKS * 2 * MAX_COLS;
    scratch = kern_data_guarded((apr_kern_scratch_bytes(MAX_COLS) + 63) / 64 * 64);
    return 0;
}

/* Column k of a row of n; zero behind the end */
static float at(const uint16_t *row, size_t k, size_t n)
{
    return k < n ? apr_bf16_to_f32(row[k]) : 0;
}

/* As kern.h says of avx512bf16. */
static float rounded_dot(const uint16_t *w, const uint16_t *x, size_t n)
{
    float v[8] = {0};
    for (size_t k = 0; k < n; k += 16) {
        for (size_t l = 0; l < 8; l++) {
            size_t i = k + 2 * l;
            v[l] = fmaf(at(w, i + 1, n), at(x, i + 1, n), v[l]);
            v[l] = fmaf(at(w, i, n), at(x, i, n), v[l]);
        }
    }
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

static const struct {
    char name[16];
    float (*dot)(const uint16_t *w, const uint16_t *x, size_t n);
} orders[] = {{"avx512bf16", rounded_dot}};
#define N_ORDERS (sizeof orders / sizeof orders[0])

static const struct apr_kern *table(const char *name)
{
    const struct apr_kern *k;
    for (size_t i = 0; (k = apr_kern_at(i)) != NULL; i++)
        if (strcmp(k->name, name) == 0) return k;
    return NULL;
}

struct problem {
    size_t n_cols, n_rows, n_toks;
    uint16_t *w, *x;
};

static struct problem problem(const struct apr_kern *k, size_t n_cols, size_t n_rows, size_t n_toks)
{
    struct problem p = {n_cols, n_rows, n_toks, w_end - n_rows * n_cols, x_end - n_toks * 2 * n_cols};
    float row[MAX_COLS];
    for (size_t i = 0; i < n_rows * n_cols; i++) p.w[i] = apr_f32_to_bf16(kern_data_f32(1));
    for (size_t t = 0; t < n_toks; t++) {
        for (size_t i = 0; i < n_cols; i++) row[i] = kern_data_f32(i % 7 == 0 ? 30.0f : 1.0f);
        k->split_bf16(row, p.x + t * 2 * n_cols, p.x + (t * 2 + 1) * n_cols, n_cols);
    }
    return p;
}

static void multiply(const struct apr_kern *k, const struct problem *p, float *y, size_t y_stride)
{
    k->matmul[APR_BF16].fast(p->w, p->n_cols * sizeof *p->w, p->n_rows, p->n_cols, p->x,
                             2 * p->n_cols * sizeof *p->x, p->n_toks, y, y_stride, scratch);
}

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static void expect_order(size_t i_order, const struct apr_kern *k, const struct problem *p)
{
    static float y[MAX_TOKS * (MAX_ROWS + 1)];
    size_t stride = p->n_rows + 1;
    for (size_t i = 0; i < p->n_toks * stride; i++) y[i] = -12345;
    multiply(k, p, y, stride);
    for (size_t t = 0; t < p->n_toks; t++) {
        for (size_t r = 0; r < p->n_rows; r++) {
            float want = orders[i_order].dot(p->w + r * p->n_cols, p->x + t * 2 * p->n_cols, p->n_cols);
            if (bits_of(want) != bits_of(y[t * stride + r]))
                fail_msg("%s: %zu columns, %zu rows, %zu tokens: row %zu of token %zu is %a, not %a", k->name,
                         p->n_cols, p->n_rows, p->n_toks, r, t, (double)y[t * stride + r], (double)want);
        }
        assert_true(y[t * stride + p->n_rows] == -12345);
    }
}

static void test_orders(void **state)
{
    (void)state;
    static const size_t cols[] = {1, 2, 5, 15, 16, 17, 31, 32, 33, 63, 64, 100, 256, 511, 1033, 1312};
    size_t n_tables = 0;
    for (size_t o = 0; o < N_ORDERS; o++) {
        const struct apr_kern *k = table(orders[o].name);
        if (!k) continue;
        n_tables++;
        for (size_t c = 0; c < sizeof cols / sizeof *cols; c++) {
            for (size_t i = 1; i <= MAX_TOKS; i += 1 + i / 8) {
                struct problem p = problem(k, cols[c], 1 + (i * 7 + c * 5) % MAX_ROWS, i);
                expect_order(o, k, &p);
            }
        }
    }
    if (n_tables == 0) skip();
}

/* A token's result in a batch is its result alone, wherever it stands. */
static void test_batch_invariance(void **state)
{
    (void)state;
    static float batch[MAX_TOKS * MAX_ROWS], alone[MAX_ROWS];
    size_t n_tables = 0;
    for (size_t o = 0; o < N_ORDERS; o++) {
        const struct apr_kern *k = table(orders[o].name);
        if (!k) continue;
        n_tables++;
        struct problem p = problem(k, 800, 33, MAX_TOKS);
        multiply(k, &p, batch, p.n_rows);
        for (size_t t = 0; t < p.n_toks; t++) {
            struct problem one = p;
            one.n_toks = 1;
            one.x = p.x + t * 2 * p.n_cols;
            multiply(k, &one, alone, p.n_rows);
            assert_memory_equal(alone, batch + t * p.n_rows, p.n_rows * sizeof *alone);
        }
    }
    if (n_tables == 0) skip();
}

/* high is x rounded, high + low is x to 2^-16 or better, and what is no number stays so. */
static void test_split(void **state)
{
    (void)state;
    enum { N = 77 };
    float x[N];
    uint16_t high[N + 1], low[N + 1];
    const struct apr_kern *k;
    for (size_t t = 0; (k = apr_kern_at(t)) != NULL; t++) {
        if (!k->split_bf16) continue;
        for (size_t n = 0; n <= N; n++) {
            for (size_t i = 0; i < N; i++) x[i] = ldexpf(kern_data_f32(1), (int)(kern_data_u32() % 60) - 30);
            x[1] = NAN, x[4] = -INFINITY, x[6] = 0, x[9] = -0.0f;
            high[n] = low[n] = 0x1234;
            k->split_bf16(x, high, low, n);
            for (size_t i = 0; i < n; i++) {
                float h = apr_bf16_to_f32(high[i]), l = apr_bf16_to_f32(low[i]);
                assert_int_equal(high[i], apr_f32_to_bf16(x[i]));
                if (isfinite(h))
                    assert_true(fabsf((h + l) - x[i]) <= ldexpf(fabsf(x[i]), -16));
                else
                    assert_int_equal(low[i], 0);
            }
            assert_true(high[n] == 0x1234 && low[n] == 0x1234);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_orders),
        cmocka_unit_test(test_batch_invariance),
        cmocka_unit_test(test_split),
    };
    return cmocka_run_group_tests(tests, make_buffers, NULL);
}

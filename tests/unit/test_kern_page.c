/* Rows of a cache in every type: what is stored, what scores and values make of it, and that no table, split
 * or neighbour changes a bit. */
#include "kern_data.h"

#include "kern/page.h"

#define MAX_DIM 128u
#define N_Q     9u

/* Error of one stored value in units of the largest of its block: half a step, and the rounding of scales
 * (which below 2^-14 are rounded to a multiple of 2^-24). */
static const struct {
    const char *name;
    enum apr_type type;
    double err;
} want[] = {
    {"f16", APR_F16, 0x1p-11},
    {"q8_0", APR_Q8_0, 0.5 / 127 + 0x1p-10},
    {"q4_0", APR_Q4_0, 1.0 / 7},
    {"f32", APR_F32, 0},
};

static float q[N_Q * MAX_DIM], weights[N_Q * APR_PAGE_POS], x[APR_PAGE_POS * MAX_DIM];
static float room[APR_PAGE_POS * MAX_DIM];

static size_t row_bytes_of(const struct apr_page_type *t, size_t n_dim)
{
    uint64_t n = 0;
    struct apr_err e;
    assert_int_equal(apr_row_bytes(t->type, n_dim, &n, &e), APR_OK);
    return (size_t)n;
}

static void fill(void)
{
    for (size_t i = 0; i < N_Q * MAX_DIM; i++) q[i] = kern_data_f32(2);
    for (size_t i = 0; i < N_Q * APR_PAGE_POS; i++) weights[i] = kern_data_f32(1);
    for (size_t i = 0; i < APR_PAGE_POS * MAX_DIM; i++) x[i] = kern_data_f32(3);
}

/* Rows of n_stored values that end at a page nobody may touch. */
static struct apr_page stored(const struct apr_kern *k, const struct apr_page_type *t, size_t n_stored,
                              size_t n_dim, size_t n_pos)
{
    static uint8_t *end;
    if (!end) end = (uint8_t *)kern_data_guarded(APR_PAGE_POS * MAX_DIM * 4) + APR_PAGE_POS * MAX_DIM * 4;
    size_t row_bytes = row_bytes_of(t, n_stored);
    uint8_t *rows = end - n_pos * row_bytes;
    for (size_t p = 0; p < n_pos; p++) t->store(k, x + p * n_stored, rows + p * row_bytes, n_stored);
    return (struct apr_page){rows, row_bytes, n_pos, n_dim};
}

static void table_has_every_type(void **state)
{
    (void)state;
    size_t n = sizeof want / sizeof want[0];
    for (size_t i = 0; i < n; i++) {
        assert_string_equal(apr_page_type_at(i)->name, want[i].name);
        assert_int_equal(apr_page_type_at(i)->type, want[i].type);
        assert_ptr_equal(apr_page_type_of(want[i].type), apr_page_type_at(i));
        assert_ptr_equal(apr_page_type_named(want[i].name), apr_page_type_at(i));
    }
    assert_null(apr_page_type_at(n));
    assert_null(apr_page_type_of(APR_Q6_K));
    assert_null(apr_page_type_named("q5_1"));
    assert_null(apr_page_type_named(""));
}

/* The Walsh-Hadamard matrix by its definition: (-1)^popcount(i & j) / sqrt(32). */
static void turn(const float *from, double *to)
{
    for (unsigned i = 0; i < 32; i++) {
        to[i] = 0;
        for (unsigned j = 0; j < 32; j++)
            to[i] += (__builtin_popcount(i & j) % 2 ? -1.0 : 1.0) * (double)from[j];
        to[i] /= sqrt(32);
    }
}

static void turning_is_the_transform_and_its_own_inverse(void **state)
{
    (void)state;
    static float y[96];
    double want_y[96];
    fill();
    memcpy(y, x, sizeof y);
    for (size_t i = 0; i < 96; i += 32) turn(x + i, want_y + i);
    apr_page_turn(y, 96);
    for (size_t i = 0; i < 96; i++) assert_true(fabs(want_y[i] - (double)y[i]) < 1e-5);
    apr_page_turn(y, 96);
    for (size_t i = 0; i < 96; i++) assert_true(fabs((double)x[i] - (double)y[i]) < 1e-5);
}

static void stored_values_are_near(void **state)
{
    (void)state;
    const struct apr_kern *k = apr_kern_at(0);
    static float back[MAX_DIM];
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++)
        for (int round = 0; round < 200; round++) {
            const struct apr_page_type *t = apr_page_type_at(i);
            float scale = exp2f((float)(round % 24) - 12);
            double in[64];
            for (size_t j = 0; j < 64; j++) in[j] = (double)(x[j] = kern_data_f32(scale));
            for (size_t j = 0; j < 64 && t->is_turned; j += 32) turn(x + j, in + j);
            struct apr_page p = stored(k, t, 64, 64, 1);
            k->to_f32[t->type](p.rows, back, 64);
            for (size_t j = 0; j < 64; j++) {
                double max = 0;
                for (size_t l = j / 32 * 32; l < j / 32 * 32 + 32; l++) max = fmax(max, fabs(in[l]));
                if (fabs((double)back[j] - in[j]) > want[i].err * max + 127 * 0x1p-25)
                    fail_msg("%s: %g stored as %g (largest %g)", t->name, in[j], (double)back[j], max);
            }
        }
}

/* Against double sums over the values as stored; tolerance: n roundings of 6e-8 of terms below 8 (4). */
static void check_sums(const struct apr_kern *k, const struct apr_page_type *t, const struct apr_page *p)
{
    static float rows[APR_PAGE_POS * MAX_DIM], s[N_Q * APR_PAGE_POS], out[N_Q * MAX_DIM];
    size_t n_dim = p->n_dim;
    for (size_t i = 0; i < p->n_pos; i++)
        k->to_f32[t->type]((const uint8_t *)p->rows + i * p->row_bytes, rows + i * n_dim, n_dim);
    memset(out, 0, sizeof out);
    t->scores(k, p, q, N_Q, 0.125f, s, APR_PAGE_POS, room);
    t->values(k, p, weights, APR_PAGE_POS, N_Q, out, room);
    for (size_t j = 0; j < N_Q; j++) {
        for (size_t i = 0; i < p->n_pos; i++) {
            double dot = 0;
            for (size_t d = 0; d < n_dim; d++) dot += (double)q[j * n_dim + d] * (double)rows[i * n_dim + d];
            assert_true(fabs(dot * 0.125 - (double)s[j * APR_PAGE_POS + i]) < 6e-8 * (double)n_dim);
        }
        for (size_t d = 0; d < n_dim; d++) {
            double sum = 0;
            for (size_t i = 0; i < p->n_pos; i++)
                sum += (double)weights[j * APR_PAGE_POS + i] * (double)rows[i * n_dim + d];
            assert_true(fabs(sum - (double)out[j * n_dim + d]) < 6e-8 * 4 * (double)p->n_pos);
        }
    }
}

static void sums_equal_double(void **state)
{
    (void)state;
    const struct apr_kern *k;
    fill();
    for (size_t i_kern = 0; (k = apr_kern_at(i_kern)) != NULL; i_kern++)
        for (size_t i = 0; apr_page_type_at(i); i++)
            for (size_t n_pos = 1; n_pos <= APR_PAGE_POS; n_pos += 5)
                for (size_t n_dim = 32; n_dim <= MAX_DIM; n_dim += 32) {
                    struct apr_page p = stored(k, apr_page_type_at(i), n_dim, n_dim, n_pos);
                    check_sums(k, apr_page_type_at(i), &p);
                    if (n_dim < 64) continue; /* values that are the first columns of longer rows */
                    p = stored(k, apr_page_type_at(i), n_dim, n_dim - 32, n_pos);
                    check_sums(k, apr_page_type_at(i), &p);
                }
}

/* The bytes stored and the bits read are those of the scalar table, and a query's are its own. */
static void tables_agree(void **state)
{
    (void)state;
    static float s[2][N_Q * APR_PAGE_POS], out[2][N_Q * MAX_DIM];
    static uint8_t rows[APR_PAGE_POS * MAX_DIM * 4];
    const struct apr_kern *k;
    fill();
    for (size_t i = 0; apr_page_type_at(i); i++) {
        const struct apr_page_type *t = apr_page_type_at(i);
        for (size_t i_kern = 0; (k = apr_kern_at(i_kern)) != NULL; i_kern++) {
            size_t which = i_kern > 0;
            struct apr_page p = stored(k, t, 96, 96, 13);
            if (!which) memcpy(rows, p.rows, 13 * p.row_bytes);
            assert_memory_equal(rows, p.rows, 13 * p.row_bytes);
            memset(out[which], 0, sizeof out[0]);
            for (size_t j = 0; j < N_Q; j += which ? 1 : N_Q) { /* one by one, or all at once */
                size_t n_q = which ? 1 : N_Q;
                t->scores(k, &p, q + j * 96, n_q, 0.3f, s[which] + j * APR_PAGE_POS, APR_PAGE_POS, room);
                t->values(k, &p, weights + j * APR_PAGE_POS, APR_PAGE_POS, n_q, out[which] + j * 96, room);
            }
            assert_memory_equal(s[0], s[which], sizeof s[0]);
            assert_memory_equal(out[0], out[which], sizeof out[0]);
        }
    }
}

/* What is no number stays none, in its block alone; what is too large for a half scale shows itself. */
static void bad_values_show(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY, 3e38f};
    static float back[96];
    const struct apr_kern *k = apr_kern_at(0);
    for (size_t i = 0; apr_page_type_at(i); i++)
        for (size_t b = 0; b < sizeof bad / sizeof *bad; b++) {
            const struct apr_page_type *t = apr_page_type_at(i);
            for (size_t j = 0; j < 96; j++) x[j] = kern_data_f32(1);
            x[40] = bad[b];
            struct apr_page p = stored(k, t, 96, 96, 1);
            k->to_f32[t->type](p.rows, back, 96);
            for (size_t j = 0; j < 96; j++)
                if (j < 32 || j >= 64) assert_true(isfinite(back[j]));
            assert_true(t->type == APR_F32 ? back[40] == bad[b] || isnan(bad[b]) : !isfinite(back[40]));
        }
}

static void zeros_stay(void **state)
{
    (void)state;
    static float back[64];
    memset(x, 0, sizeof x);
    for (size_t i = 0; apr_page_type_at(i); i++) {
        const struct apr_page_type *t = apr_page_type_at(i);
        struct apr_page p = stored(apr_kern_at(0), t, 64, 64, 1);
        apr_kern_at(0)->to_f32[t->type](p.rows, back, 64);
        for (size_t j = 0; j < 64; j++) assert_true(back[j] == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_has_every_type),
        cmocka_unit_test(turning_is_the_transform_and_its_own_inverse),
        cmocka_unit_test(stored_values_are_near),
        cmocka_unit_test(sums_equal_double),
        cmocka_unit_test(tables_agree),
        cmocka_unit_test(bad_values_show),
        cmocka_unit_test(zeros_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

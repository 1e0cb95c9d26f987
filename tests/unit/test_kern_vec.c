/* Vector slots: every table equals the scalar one bit for bit, the scalar one equals double arithmetic. */
#include "kern_data.h"

#define MAX_N 1100

static float in[MAX_N], in2[MAX_N], in3[MAX_N];

static void fill(float scale)
{
    for (size_t i = 0; i < MAX_N; i++) {
        in[i] = kern_data_f32(scale);
        in2[i] = kern_data_f32(2);
        in3[i] = kern_data_f32(1);
    }
}

static const size_t lengths[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 100, 1023, 1100};
#define N_LENGTHS (sizeof lengths / sizeof lengths[0])
static const float awkward[] = {0,      -0.0f, NAN,    INFINITY, -INFINITY, 3e38f, -3e38f, 1e-40f, -1e-45f,
                                1e-10f, 88.7f, 88.73f, -87.0f,   -87.01f,   65520, 65519,  6e-8f,  -2.9e-8f};
#define N_AWKWARD (sizeof awkward / sizeof awkward[0])

/* Runs slot(k, y) for every table on lengths n, with y guarded behind n, and compares. */
typedef void slot_fn(const struct apr_kern *k, float *y, size_t n);

static void same_in_all_tables(const char *what, slot_fn *slot)
{
    static float want[MAX_N + 1], got[MAX_N + 1];
    const struct apr_kern *k;
    for (size_t i = 0; i < N_LENGTHS * 4; i++) {
        size_t n = lengths[i / 4];
        fill(i % 4 == 0 ? 1e-3f : i % 4 == 1 ? 10 : 90);
        if (i % 4 == 3) in[kern_data_u32() % n] = awkward[kern_data_u32() % N_AWKWARD];
        want[n] = got[n] = -12345;
        slot(&apr_kern_scalar, want, n);
        for (size_t t = 1; (k = apr_kern_at(t)) != NULL; t++) {
            slot(k, got, n);
            if (!kern_data_same(want, got, n + 1)) fail_msg("%s %s: %zu values differ", k->name, what, n);
        }
    }
}

static void slot_rmsnorm(const struct apr_kern *k, float *y, size_t n)
{
    k->rmsnorm(in, in2, 1e-6f, y, n);
}

static void slot_add(const struct apr_kern *k, float *y, size_t n)
{
    memcpy(y, in2, n * sizeof *y);
    k->add(y, in, n);
}

static void slot_silu_mul(const struct apr_kern *k, float *y, size_t n)
{
    k->silu_mul(in, in2, y, n);
}

static void slot_rope(const struct apr_kern *k, float *y, size_t n)
{
    memcpy(y, in, n * sizeof *y);
    k->rope_half(y, in2, in3, n);
}

static void slot_softmax(const struct apr_kern *k, float *y, size_t n)
{
    memcpy(y, in, n * sizeof *y);
    k->softmax(y, n);
}

static void slot_exps(const struct apr_kern *k, float *y, size_t n)
{
    memcpy(y, in, n * sizeof *y);
    k->exps(y, 1.5f, n);
}

static void slot_max(const struct apr_kern *k, float *y, size_t n)
{
    size_t i_max;
    memset(y, 0, n * sizeof *y);
    y[0] = k->max(in, n, &i_max);
    if (n > 1) y[1] = (float)i_max;
}

static void slot_layernorm(const struct apr_kern *k, float *y, size_t n)
{
    k->layernorm(in, in2, in3, 1e-5f, y, n);
}

static void slot_mul(const struct apr_kern *k, float *y, size_t n)
{
    memcpy(y, in2, n * sizeof *y);
    k->mul(y, in, n);
}

static void slot_scale(const struct apr_kern *k, float *y, size_t n)
{
    memcpy(y, in, n * sizeof *y);
    k->scale(y, 1.37f, n);
}

static void slot_add_scaled(const struct apr_kern *k, float *y, size_t n)
{
    memcpy(y, in2, n * sizeof *y);
    k->add_scaled(y, in, -0.37f, n);
}

static void slot_silu(const struct apr_kern *k, float *y, size_t n)
{
    memcpy(y, in, n * sizeof *y);
    k->silu(y, y, n);
}

static void slot_gelu(const struct apr_kern *k, float *y, size_t n)
{
    k->gelu(in, y, n);
}

static void slot_gelu_tanh(const struct apr_kern *k, float *y, size_t n)
{
    memcpy(y, in, n * sizeof *y);
    k->gelu_tanh(y, y, n);
}

static void slot_relu(const struct apr_kern *k, float *y, size_t n)
{
    k->relu(in, y, n);
}

static void slot_softcap(const struct apr_kern *k, float *y, size_t n)
{
    memcpy(y, in, n * sizeof *y);
    k->softcap(y, 30, n);
}

static void slot_rope_pairs(const struct apr_kern *k, float *y, size_t n)
{
    memcpy(y, in, n * sizeof *y);
    k->rope_pairs(y, in2, in3, n);
}

static void test_same_bits(void **state)
{
    (void)state;
    same_in_all_tables("rmsnorm", slot_rmsnorm);
    same_in_all_tables("add", slot_add);
    same_in_all_tables("silu_mul", slot_silu_mul);
    same_in_all_tables("rope_half", slot_rope);
    same_in_all_tables("softmax", slot_softmax);
    same_in_all_tables("exps", slot_exps);
    same_in_all_tables("max", slot_max);
    same_in_all_tables("layernorm", slot_layernorm);
    same_in_all_tables("mul", slot_mul);
    same_in_all_tables("scale", slot_scale);
    same_in_all_tables("add_scaled", slot_add_scaled);
    same_in_all_tables("silu", slot_silu);
    same_in_all_tables("gelu", slot_gelu);
    same_in_all_tables("gelu_tanh", slot_gelu_tanh);
    same_in_all_tables("relu", slot_relu);
    same_in_all_tables("softcap", slot_softcap);
    same_in_all_tables("rope_pairs", slot_rope_pairs);
}

static void test_f32_to_f16(void **state)
{
    (void)state;
    static uint16_t got[MAX_N + 1];
    const struct apr_kern *k;
    for (int round = 0; round < 200; round++) {
        for (size_t i = 0; i < MAX_N; i++) {
            uint32_t u = kern_data_u32();
            memcpy(&in[i], &u, sizeof u);
        }
        if (round % 2) fill(round == 1 ? 1e-7f : 7e4f);
        for (size_t i = 0; i < N_AWKWARD; i++) in[i * 3] = awkward[i];
        size_t n = lengths[(size_t)round % N_LENGTHS];
        for (size_t t = 0; (k = apr_kern_at(t)) != NULL; t++) {
            got[n] = 0x1234;
            k->f32_to_f16(in, got, n);
            for (size_t i = 0; i < n; i++) assert_int_equal(got[i], apr_f32_to_f16(in[i]));
            assert_int_equal(got[n], 0x1234);
        }
    }
}

/* The quantizers: same bytes, |q| <= 127, the nearest integer, right sums. */
static void test_act(void **state)
{
    (void)state;
    static struct apr_act32 a[2][32];
    static struct apr_act256 b[2][4];
    const struct apr_kern *k;
    for (int round = 0; round < 300; round++) {
        fill(round % 5 == 0 ? 1e-35f : round % 5 == 1 ? 1e30f : 3);
        if (round % 5 == 2) in[kern_data_u32() % 1024] = awkward[kern_data_u32() % N_AWKWARD];
        if (round % 5 == 3) memset(in + 64 * (round % 4), 0, 256 * sizeof *in);
        if (round % 5 == 4) { /* halves between integers, and both ends */
            for (size_t i = 0; i < 1024; i++) in[i] = (float)(kern_data_u32() % 509) / 2 - 127;
        }
        apr_kern_scalar.to_act32(in, a[0], 1024);
        apr_kern_scalar.to_act256(in, b[0], 1024);
        for (size_t i = 0; i < 1024; i++) {
            const struct apr_act32 *s = &a[0][i / 32];
            const struct apr_act256 *l = &b[0][i / 256];
            assert_in_range(s->q[i % 32] + 127, 0, 254);
            assert_in_range(l->q[i % 256] + 127, 0, 254);
            /* half a step and what rounding of d and of the factor adds */
            if (s->d > 0) assert_true(fabs((double)in[i] / s->d - s->q[i % 32]) <= 0.5 + 4e-5);
            if (l->d > 0) assert_true(fabs((double)in[i] / l->d - l->q[i % 256]) <= 0.5 + 4e-5);
            assert_true(!isfinite(in[i]) ? isnan(s->d) && isnan(l->d) : true);
        }
        for (size_t i = 0; i < 32; i++) {
            int sum = 0;
            for (int j = 0; j < 32; j++) sum += a[0][i].q[j];
            assert_int_equal(sum, a[0][i].sum);
        }
        for (size_t i = 0; i < 64; i++) {
            int sum = 0;
            for (size_t j = 0; j < 16; j++) sum += b[0][i / 16].q[i % 16 * 16 + j];
            assert_int_equal(sum, b[0][i / 16].sums[i % 16]);
        }
        for (size_t t = 1; (k = apr_kern_at(t)) != NULL; t++) {
            k->to_act32(in, a[1], 1024);
            k->to_act256(in, b[1], 1024);
            assert_memory_equal(a[0], a[1], sizeof a[0]);
            assert_memory_equal(b[0], b[1], sizeof b[0]);
        }
    }
}

/* Statistics: every table the same bytes, and what a plain loop counts. */
static void test_stats(void **state)
{
    (void)state;
    const struct apr_kern *k;
    for (int round = 0; round < 400; round++) {
        size_t n = lengths[(size_t)round % N_LENGTHS];
        fill(5);
        for (int i = 0; i < round % 7; i++) in[kern_data_u32() % n] = awkward[kern_data_u32() % N_AWKWARD];
        if (round % 11 == 0) in[n - 1] = NAN;
        if (round % 13 == 0) {
            for (size_t i = 0; i < n; i++) in[i] = i % 2 ? -0.0f : 0.0f;
        }
        struct apr_stats want = {.min = INFINITY, .max = -INFINITY}, got;
        for (size_t i = 0; i < n; i++) {
            want.n_nan += isnan(in[i]) != 0;
            want.n_inf += isinf(in[i]) != 0;
            want.n_zero += fabs((double)in[i]) < 1e-10;
            if (!isfinite(in[i])) continue;
            want.sum += in[i];
            want.sum_sq += (double)in[i] * in[i];
            want.min = fminf(want.min, in[i]);
            want.max = fmaxf(want.max, in[i]);
        }
        struct apr_stats first = {0};
        for (size_t t = 0; (k = apr_kern_at(t)) != NULL; t++) {
            apr_stats_init(&got);
            k->stats(in, n, &got);
            if (t == 0) first = got;
            assert_memory_equal(&first, &got, sizeof got);
            assert_int_equal(got.n, n);
            assert_int_equal(got.n_nan, want.n_nan);
            assert_int_equal(got.n_inf, want.n_inf);
            assert_int_equal(got.n_zero, want.n_zero);
            assert_true(got.min == want.min && got.max == want.max);
            assert_true(fabs(got.sum - want.sum) <= 1e-12 * (fabs(want.sum) + want.sum_sq));
            assert_true(fabs(got.sum_sq - want.sum_sq) <= 1e-12 * want.sum_sq);
            k->stats(in, n, &got); /* adds */
            assert_int_equal(got.n, 2 * n);
            assert_true(got.min == want.min && got.max == want.max);
        }
    }
}

/* silu(x) = x * sigmoid(x): exp within 1.5e-7, then one addition, one division, one product. */
static void test_exp_against_double(void **state)
{
    (void)state;
    const float up = 1;
    float y, two[2];
    for (int i = -73000; i < 87600; i++) {
        float x = (float)i * 0.00137f;
        apr_kern_scalar.silu_mul(&x, &up, &y, 1);
        double want = (double)x / (1 + exp(-(double)x));
        /* exp overflows to infinity at 88.72, where silu is below 1e-36 */
        assert_true(fabs((double)y - want) <= 3e-7 * fabs(want) + 1e-36);
        two[0] = 0;
        two[1] = -fabsf(x);
        apr_kern_scalar.softmax(two, 2);
        want = 1 / (1 + exp(fabs((double)x)));
        assert_true(fabs((double)two[1] - want) <= 3e-7 * want + 2e-38);
    }
}

/* The bounds that act.h states, over everything that is not cut off. */
static void test_gates_against_double(void **state)
{
    (void)state;
    for (int i = -100000; i <= 100000; i++) {
        float x = (float)i * 0.00023f, y;
        double v = x, want = v * 0.5 * erfc(-v / sqrt(2));
        apr_kern_scalar.gelu(&x, &y, 1);
        assert_true(fabs((double)y - want) <= 2.5e-7 * fabs(v));
        apr_kern_scalar.gelu_tanh(&x, &y, 1);
        want = 0.5 * v * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (v + 0.044715 * v * v * v)));
        assert_true(fabs((double)y - want) <= 4e-7 * fabs(v));
        apr_kern_scalar.relu(&x, &y, 1);
        assert_true(y == (x > 0 ? x : 0));
        y = x;
        apr_kern_scalar.softcap(&y, 2.5f, 1);
        want = 2.5 * tanh(v / 2.5);
        assert_true(fabs((double)y - want) <= 5e-7 * fabs(want));
        apr_kern_scalar.silu(&x, &y, 1);
        want = v / (1 + exp(-v));
        assert_true(fabs((double)y - want) <= 3e-7 * fabs(want));
    }
}

static void test_softmax_cases(void **state)
{
    (void)state;
    const struct apr_kern *k;
    float x[21];
    for (size_t t = 0; (k = apr_kern_at(t)) != NULL; t++) {
        for (size_t n = 1; n <= 21; n++) {
            for (size_t i = 0; i < n; i++) x[i] = 3e38f; /* all equal and huge */
            k->softmax(x, n);
            for (size_t i = 0; i < n; i++) assert_true(fabs(x[i] - 1.0 / (double)n) < 1e-7);
            for (size_t i = 0; i < n; i++) x[i] = i == n / 2 ? -3e38f : -INFINITY; /* all masked but one */
            k->softmax(x, n);
            for (size_t i = 0; i < n; i++) assert_true(x[i] == (i == n / 2 ? 1.0f : 0.0f));
            for (size_t i = 0; i < n; i++) x[i] = -INFINITY;
            k->softmax(x, n);
            for (size_t i = 0; i < n; i++) assert_true(x[i] == 0);
            for (size_t i = 0; i < n; i++) x[i] = i == n - 1 ? NAN : 1;
            k->softmax(x, n);
            for (size_t i = 0; i < n; i++) assert_true(isnan(x[i]));
            x[0] = INFINITY;
            for (size_t i = 1; i < n; i++) x[i] = 1;
            k->softmax(x, n);
            assert_true(isnan(x[0]));
        }
    }
}

static void test_max_cases(void **state)
{
    (void)state;
    const struct apr_kern *k;
    static float x[100];
    size_t i_max;
    for (size_t t = 0; (k = apr_kern_at(t)) != NULL; t++) {
        for (size_t n = 1; n <= 100; n++) {
            for (size_t i = 0; i < n; i++) x[i] = -1;
            size_t at = kern_data_u32() % n;
            x[at] = x[n - 1] = 2; /* the first of two */
            assert_true(k->max(x, n, &i_max) == 2);
            assert_int_equal(i_max, at);
            x[kern_data_u32() % n] = NAN;
            assert_true(isnan(k->max(x, n, &i_max)));
            assert_int_equal(i_max, n);
            for (size_t i = 0; i < n; i++) x[i] = -INFINITY;
            assert_true(k->max(x, n, &i_max) == -INFINITY);
            assert_int_equal(i_max, 0);
        }
        assert_true(k->max(x, 0, &i_max) == -INFINITY);
        assert_int_equal(i_max, 0);
    }
}

/* rmsnorm and rope against double: a handful of float roundings of 6e-8. */
static void test_against_double(void **state)
{
    (void)state;
    static float y[MAX_N];
    fill(100);
    double sum = 0;
    for (size_t i = 0; i < MAX_N; i++) sum += (double)in[i] * in[i];
    apr_kern_scalar.rmsnorm(in, in2, 1e-6f, y, MAX_N);
    for (size_t i = 0; i < MAX_N; i++) {
        double want = in[i] / sqrt(sum / MAX_N + 1e-6) * in2[i];
        assert_true(fabs(y[i] - want) <= 3e-7 * fabs(want));
    }
    memcpy(y, in, sizeof y);
    apr_kern_scalar.rope_half(y, in2, in3, MAX_N);
    for (size_t i = 0; i < MAX_N / 2; i++) {
        double a = in[i], b = in[i + MAX_N / 2], c = in2[i], s = in3[i];
        double scale = fabs(a) + fabs(b);
        assert_true(fabs(y[i] - (a * c - b * s)) <= 3e-7 * scale);
        assert_true(fabs(y[i + MAX_N / 2] - (b * c + a * s)) <= 3e-7 * scale);
    }
    memcpy(y, in, sizeof y);
    apr_kern_scalar.rope_pairs(y, in2, in3, MAX_N);
    for (size_t i = 0; i < MAX_N / 2; i++) {
        double a = in[2 * i], b = in[2 * i + 1], c = in2[i], s = in3[i];
        assert_true(fabs(y[2 * i] - (a * c - b * s)) <= 3e-7 * (fabs(a) + fabs(b)));
        assert_true(fabs(y[2 * i + 1] - (b * c + a * s)) <= 3e-7 * (fabs(a) + fabs(b)));
    }
}

/* A mean a thousand times the deviation must not cost digits. */
static void test_layernorm_against_double(void **state)
{
    (void)state;
    static float y[MAX_N];
    for (int round = 0; round < 2; round++) {
        fill(1);
        for (size_t i = 0; i < MAX_N; i++) in[i] += round ? 1000 : 0.1f;
        double sum = 0, var = 0;
        for (size_t i = 0; i < MAX_N; i++) sum += (double)in[i];
        for (size_t i = 0; i < MAX_N; i++) var += pow((double)in[i] - sum / MAX_N, 2);
        apr_kern_scalar.layernorm(in, in2, in3, 1e-5f, y, MAX_N);
        for (size_t i = 0; i < MAX_N; i++) {
            double unit = ((double)in[i] - sum / MAX_N) / sqrt(var / MAX_N + 1e-5);
            double want = unit * (double)in2[i] + (double)in3[i];
            assert_true(fabs((double)y[i] - want) <= 2e-7 * (fabs(unit * (double)in2[i]) + fabs(want)));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_f32_to_f16),
        cmocka_unit_test(test_act),
        cmocka_unit_test(test_stats),
        cmocka_unit_test(test_exp_against_double),
        cmocka_unit_test(test_gates_against_double),
        cmocka_unit_test(test_softmax_cases),
        cmocka_unit_test(test_max_cases),
        cmocka_unit_test(test_against_double),
        cmocka_unit_test(test_layernorm_against_double),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

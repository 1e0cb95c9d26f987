/* Fused multiply-add: every table rounds once, with and without the instruction, on every architecture. */
#include "kern_data.h"

#include "kern/fma_odd.h"

#define HASH 0x4d296cd664e434bdU
enum { N = 1024, N_ROUNDS = 1500 };

static float a, b[N], c[N];

static float float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static bool same_bits(const void *x, const void *y, size_t n_bytes)
{
    return memcmp(x, y, n_bytes) == 0;
}

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

/* A number of few bits now and then, so that sums fall in the middle of two floats; exponents within reach of
 * each other, or such that the result is subnormal. */
static float hard(uint32_t low_exp, uint32_t n_exps)
{
    uint32_t u = kern_data_u32(), keep = kern_data_u32() % 24;
    uint32_t fraction = (u & 0x7fffffU) >> keep << keep;
    return float_of((u & 0x80000000U) | (low_exp + kern_data_u32() % n_exps) << 23 | fraction);
}

static void fill(int round)
{
    const bool tiny = round % 3 == 1;
    a = hard(tiny ? 60 : 120, 16);
    for (size_t i = 0; i < N; i++) {
        b[i] = hard(tiny ? 50 : 115, 24);
        c[i] = tiny ? hard(0, 4) : hard(100, 60);
        if (round % 3 == 2) { /* c cancels the product but for what rounding it lost */
            c[i] = float_of(bits_of(-a * b[i]) + kern_data_u32() % 5 - 2);
        }
    }
}

/* The hash is that of a CPU with the instruction: other machines have no other bits. */
static void test_rounded_once(void **state)
{
    (void)state;
    static float want[N], got[N];
    const struct apr_kern *k;
    uint64_t hash = 14695981039346656037U; /* FNV-1a */
    for (int round = 0; round < N_ROUNDS; round++) {
        fill(round);
        for (size_t i = 0; i < N; i++) {
            want[i] = fmaf(a, b[i], c[i]);
            hash = (hash ^ bits_of(want[i])) * 1099511628211U;
            if (bits_of(apr_fma_odd(a, b[i], c[i])) != bits_of(want[i]))
                fail_msg("%a * %a + %a: by odd rounding %a, fused %a", (double)a, (double)b[i], (double)c[i],
                         (double)apr_fma_odd(a, b[i], c[i]), (double)want[i]);
        }
        for (size_t t = 0; (k = apr_kern_at(t)) != NULL; t++) {
            memcpy(got, c, sizeof got);
            k->add_scaled(got, b, a, N);
            if (!same_bits(want, got, sizeof got)) fail_msg("%s: not rounded once, round %d", k->name, round);
        }
    }
    assert_true(hash == HASH);
}

static void test_not_finite(void **state)
{
    (void)state;
    static const float odd[] = {0, -0.0f, 1, -1, 3e38f, -3e38f, INFINITY, -INFINITY, NAN, 1e-45f, -1e-45f};
    enum { N_ODD = sizeof odd / sizeof *odd };
    const struct apr_kern *k;
    for (size_t i = 0; i < N_ODD * N_ODD; i++) {
        float want[N_ODD], got[N_ODD], x[N_ODD];
        for (size_t j = 0; j < N_ODD; j++) {
            x[j] = odd[i / N_ODD];
            want[j] = fmaf(odd[i % N_ODD], x[j], odd[j]);
            float soft = apr_fma_odd(odd[i % N_ODD], x[j], odd[j]);
            assert_true(kern_data_same(&want[j], &soft, 1));
        }
        for (size_t t = 0; (k = apr_kern_at(t)) != NULL; t++) {
            memcpy(got, odd, sizeof got);
            k->add_scaled(got, x, odd[i % N_ODD], N_ODD);
            assert_true(kern_data_same(want, got, N_ODD));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rounded_once),
        cmocka_unit_test(test_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

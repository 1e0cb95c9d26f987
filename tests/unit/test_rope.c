/* Rotary positions: what each scaling must do, told by properties that do not repeat its formula. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "../../tools/apr-infer/rope.h"

#define N_DIMS 64u
#define N_HALF (N_DIMS / 2)
#define N_TOKS 8u

static struct apr_arena arena;

static struct apr_rope_table make(const struct apr_rope *rope, bool pairs)
{
    struct apr_rope_table t;
    struct apr_err e = {0};
    const struct apr_rope_from from = {.rope = rope, .pairs = pairs, .n_ctx_train = 4096};
    if (apr_rope_open(&t, &from, N_TOKS, &arena, &e) != APR_OK) fail_msg("%s", e.text);
    return t;
}

static struct apr_rope plain(void)
{
    return (struct apr_rope){.theta = 10000, .n_dims = N_DIMS, .n_ctx_orig = 1024, .factor = 4};
}

static void plain_angles(void **state)
{
    (void)state;
    struct apr_rope rope = plain();
    struct apr_rope_table t = make(&rope, false);
    apr_rope_at(&t, 0, 100, N_TOKS, 108);
    for (size_t k = 0; k < N_TOKS; k++)
        for (size_t i = 0; i < N_HALF; i++) {
            double angle = (double)(100 + k) / pow(10000, 2.0 * (double)i / N_DIMS);
            assert_true(fabs((double)t.cos[k * N_HALF + i] - cos(angle)) < 1e-7);
            assert_true(fabs((double)t.sin[k * N_HALF + i] - sin(angle)) < 1e-7);
        }
}

/* The two orders of a head are one rotation: even and odd values side by side, or one half after the other.
 */
static void both_orders(void **state)
{
    (void)state;
    struct apr_rope rope = plain();
    struct apr_rope_table half = make(&rope, false), pairs = make(&rope, true);
    float a[N_DIMS + 3], b[N_DIMS + 3];
    for (size_t i = 0; i < N_DIMS + 3; i++) a[i] = (float)i * 0.37f - 5;
    for (size_t i = 0; i < N_HALF; i++) {
        b[2 * i] = a[i];
        b[2 * i + 1] = a[i + N_HALF];
    }
    memcpy(b + N_DIMS, a + N_DIMS, 3 * sizeof *a);
    apr_rope_at(&half, 0, 77, N_TOKS, 85);
    apr_rope_at(&pairs, 0, 77, N_TOKS, 85);
    apr_rope_head(&half, &apr_kern_scalar, 5, a);
    apr_rope_head(&pairs, &apr_kern_scalar, 5, b);
    for (size_t i = 0; i < N_HALF; i++) {
        assert_true(a[i] == b[2 * i]);
        assert_true(a[i + N_HALF] == b[2 * i + 1]);
    }
    for (size_t i = N_DIMS; i < N_DIMS + 3; i++) { /* what lies behind n_dims does not turn */
        assert_true(a[i] == (float)i * 0.37f - 5);
        assert_true(b[i] == a[i]);
    }
}

static void linear_stretches_all(void **state)
{
    (void)state;
    struct apr_rope rope = plain(), linear = plain();
    linear.scaling = APR_ROPE_LINEAR;
    struct apr_rope_table a = make(&rope, false), b = make(&linear, false);
    for (size_t i = 0; i < N_HALF; i++) assert_true(fabs(b.inv_freq[i] * 4 - a.inv_freq[i]) < 1e-15);
    assert_true(b.scale == 1);
}

/* Pairs that turn often keep their frequency, those that hardly turn are divided by the factor; between them
 * it falls steadily. */
static void bands(const struct apr_rope *rope, size_t n_kept, size_t n_divided)
{
    struct apr_rope base = plain();
    struct apr_rope_table a = make(&base, false), b = make(rope, false);
    size_t kept = 0, divided = 0;
    double last = 0;
    for (size_t i = 0; i < N_HALF; i++) {
        double by = a.inv_freq[i] / b.inv_freq[i];
        assert_true(by >= last - 1e-12 && by >= 1 - 1e-12 && by <= 4 + 1e-12);
        last = by;
        kept += by < 1 + 1e-12;
        divided += by > 4 - 1e-12;
    }
    assert_true(kept >= n_kept && divided >= n_divided && kept + divided < N_HALF);
}

static void llama3_and_yarn_bands(void **state)
{
    (void)state;
    struct apr_rope llama3 = plain(), yarn = plain();
    llama3.scaling = APR_ROPE_LLAMA3;
    llama3.low_freq_factor = 1;
    llama3.high_freq_factor = 4;
    bands(&llama3, 8, 8);
    yarn.scaling = APR_ROPE_YARN;
    yarn.beta_fast = 32;
    yarn.beta_slow = 1;
    yarn.truncate = true;
    bands(&yarn, 4, 8);
    /* YaRN: 0.1 ln 4 + 1 */
    assert_true(fabs(make(&yarn, false).scale - 1.1386294361119891) < 1e-12);
    yarn.mscale = yarn.mscale_all_dim = 0.7; /* the same above and below */
    assert_true(fabs(make(&yarn, false).scale - 1) < 1e-12);
    yarn.attn_factor = 1.25; /* what is given wins */
    struct apr_rope_table t = make(&yarn, false);
    apr_rope_at(&t, 0, 0, 1, 1);
    assert_true(t.cos[0] == 1.25f && t.sin[0] == 0);
}

static void dynamic_depends_on_the_length(void **state)
{
    (void)state;
    struct apr_rope base = plain(), dynamic = plain();
    dynamic.scaling = APR_ROPE_DYNAMIC;
    struct apr_rope_table a = make(&base, false), b = make(&dynamic, false);
    apr_rope_at(&a, 0, 7, 1, 1024);
    apr_rope_at(&b, 0, 7, 1, 1024); /* inside the context: plain */
    assert_memory_equal(a.cos, b.cos, N_HALF * sizeof(float));
    apr_rope_at(&b, 0, 7, 1, 4096);
    assert_true(b.cos[0] == a.cos[0]);                  /* the fastest pair keeps its frequency */
    assert_true(b.sin[N_HALF - 1] < a.sin[N_HALF - 1]); /* the slowest one turns less: by 4 * 4 - 3 = 13 */
    double by = (double)a.sin[N_HALF - 1] / (double)b.sin[N_HALF - 1];
    assert_true(fabs(by - 13) < 1e-3);
}

static void longrope_has_two_sets(void **state)
{
    (void)state;
    struct apr_rope rope = plain();
    rope.scaling = APR_ROPE_LONG;
    rope.n_factors = N_HALF;
    for (size_t i = 0; i < N_HALF; i++) {
        rope.short_factor[i] = 1;
        rope.long_factor[i] = 2 + (float)i;
    }
    struct apr_rope base = plain();
    struct apr_rope_table a = make(&base, false), b = make(&rope, false);
    assert_false(apr_rope_is_long(&b, 1024));
    assert_true(apr_rope_is_long(&b, 1025));
    assert_false(apr_rope_is_long(&a, 1025));
    for (size_t i = 0; i < N_HALF; i++) {
        assert_true(b.inv_freq[i] == a.inv_freq[i]);
        assert_true(fabs(b.long_inv_freq[i] * (2 + (double)i) / a.inv_freq[i] - 1) < 1e-14);
    }
    /* sqrt(1 + ln 4 / ln 1024) */
    assert_true(fabs(b.scale - sqrt(1.2)) < 1e-12);
    rope.n_factors = 0;
    struct apr_rope_table t;
    struct apr_err e = {0};
    const struct apr_rope_from from = {.rope = &rope, .n_ctx_train = 4096};
    assert_int_equal(apr_rope_open(&t, &from, N_TOKS, &arena, &e), APR_ELOAD);
}

/* GGUF's divisors, and models that do not turn. */
static void divisors_and_none(void **state)
{
    (void)state;
    struct apr_rope rope = plain(), none = {.n_dims = N_DIMS};
    struct apr_rope_table a = make(&rope, false), t;
    struct apr_err e = {0};
    float freqs[N_HALF], x[N_DIMS] = {1, 2, 3};
    for (size_t i = 0; i < N_HALF; i++) freqs[i] = 1 + (float)i;
    const struct apr_rope_from from = {.rope = &rope, .n_ctx_train = 4096, .freqs = freqs};
    assert_int_equal(apr_rope_open(&t, &from, N_TOKS, &arena, &e), APR_OK);
    for (size_t i = 0; i < N_HALF; i++)
        assert_true(fabs(t.inv_freq[i] * (1 + (double)i) / a.inv_freq[i] - 1) < 1e-14);
    t = make(&none, false);
    apr_rope_at(&t, 0, 9, N_TOKS, 100);
    apr_rope_head(&t, &apr_kern_scalar, 3, x);
    assert_true(x[0] == 1 && x[1] == 2 && x[2] == 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_angles),
        cmocka_unit_test(both_orders),
        cmocka_unit_test(linear_stretches_all),
        cmocka_unit_test(llama3_and_yarn_bands),
        cmocka_unit_test(dynamic_depends_on_the_length),
        cmocka_unit_test(longrope_has_two_sets),
        cmocka_unit_test(divisors_and_none),
    };
    apr_arena_init(&arena);
    int n_failed = cmocka_run_group_tests(tests, NULL, NULL);
    apr_arena_free(&arena);
    return n_failed;
}

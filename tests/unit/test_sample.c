/* The sampling chain against brute force, its order, its determinism, and the distribution of its draws. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../tools/apr-infer/sampler/sampler.h"

#define N 1000u

static struct apr_arena arena;

static int setup(void **state)
{
    (void)state;
    apr_arena_init(&arena);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    apr_arena_free(&arena);
    return 0;
}

static void noise(float *x, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) / 1e6f - 8.0f;
    }
}

static struct apr_sample_opts neutral(double temperature)
{
    struct apr_sample_opts o;
    apr_sample_defaults(&o);
    o.temperature = temperature;
    return o;
}

static struct apr_sampler open_sampler(const struct apr_sample_opts *o, size_t n)
{
    struct apr_sampler s;
    struct apr_err e = {0};
    const struct apr_sampler_site site = {.n_vocab = n, .n_ctx = 4096, .kern = &apr_kern_scalar};
    assert_int_equal(apr_sampler_init(&s, o, &site, &arena, &e), APR_OK);
    return s;
}

static void chain(struct apr_sampler *s, const float *x)
{
    struct apr_err e = {0};
    assert_int_equal(apr_sampler_chain(s, x, &e), APR_OK);
}

static int32_t next(struct apr_sampler *s, const float *x)
{
    struct apr_err e = {0};
    int32_t id = -1;
    assert_int_equal(apr_sampler_next(s, x, &id, &e), APR_OK);
    return id;
}

static void accept(struct apr_sampler *s, int32_t id)
{
    struct apr_err e = {0};
    assert_int_equal(apr_sampler_accept(s, id, &e), APR_OK);
}

static bool has(const struct apr_sampler *s, int32_t id)
{
    for (size_t i = 0; i < s->c.n; i++)
        if (s->c.at[i].id == id) return true;
    return false;
}

static void greedy_takes_the_first_maximum(void **state)
{
    (void)state;
    struct apr_sample_opts o = neutral(0);
    o.repeat_penalty = 100; /* temperature 0 applies no penalty */
    struct apr_sampler s = open_sampler(&o, 6);
    float x[] = {1, 5, 3, 5, -1, 4};
    accept(&s, 1);
    assert_int_equal(next(&s, x), 1);
}

static void top_k_is_the_k_largest(void **state)
{
    (void)state;
    float x[N];
    static const int64_t ks[] = {1, 2, 7, 40, 64, 500, 999, 1000, 5000};
    for (size_t i = 0; i < sizeof ks / sizeof *ks; i++) {
        struct apr_sample_opts o = neutral(1);
        o.top_k = ks[i];
        struct apr_sampler s = open_sampler(&o, N);
        noise(x, N, (unsigned)ks[i]);
        x[17] = x[400] = x[800]; /* equal logits: the smaller id first */
        chain(&s, x);
        size_t k = (size_t)ks[i] < N ? (size_t)ks[i] : N;
        assert_int_equal(s.c.n, k);
        for (size_t a = 0; a < N; a++) {
            size_t n_before = 0;
            for (size_t b = 0; b < N; b++) n_before += x[b] > x[a] || (b < a && x[b] == x[a]);
            assert_int_equal(has(&s, (int32_t)a), n_before < k);
        }
    }
}

static int descending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

static void top_p_is_the_smallest_set(void **state)
{
    (void)state;
    float x[N];
    double p[N];
    static const double tops[] = {0.001, 0.1, 0.5, 0.8, 0.95, 0.999};
    for (size_t i = 0; i < sizeof tops / sizeof *tops; i++) {
        struct apr_sample_opts o = neutral(1);
        o.top_p = tops[i];
        struct apr_sampler s = open_sampler(&o, N);
        noise(x, N, 5);
        for (size_t k = 0; k < N; k++) x[k] /= 3; /* a flat distribution: many survive */
        double sum = 0, mass = 0;
        for (size_t k = 0; k < N; k++) sum += p[k] = exp((double)x[k]);
        qsort(p, N, sizeof *p, descending);
        size_t n = 0;
        while (mass < tops[i] * sum) mass += p[n++];
        chain(&s, x);
        assert_int_equal(s.c.n, n);
    }
}

static void min_p_is_relative_to_the_likeliest(void **state)
{
    (void)state;
    struct apr_sample_opts o = neutral(2); /* the temperature comes later and must not matter here */
    o.min_p = 0.1;
    struct apr_sampler s = open_sampler(&o, 4);
    float x[] = {0, (float)log(0.11), (float)log(0.09), -50};
    chain(&s, x);
    assert_int_equal(s.c.n, 2);
    assert_true(has(&s, 0) && has(&s, 1));
    assert_float_equal(s.c.at[1].logit, log(0.11) / 2, 1e-6);
}

static void penalty_counts_a_token_once(void **state)
{
    (void)state;
    struct apr_sample_opts o = neutral(1);
    o.repeat_penalty = 2;
    o.repeat_last_n = 3;
    struct apr_sampler s = open_sampler(&o, 5);
    const int32_t seen[] = {4, 1, 1, 2}; /* 4 has left the window of 3 */
    for (size_t i = 0; i < 4; i++) accept(&s, seen[i]);
    float x[] = {3, 3, -3, 3, 3};
    const float want[] = {3, 1.5f, -6, 3, 3};
    for (int twice = 0; twice < 2; twice++) { /* the caller's logits stay as they are */
        chain(&s, x);
        for (size_t i = 0; i < 5; i++) assert_float_equal(s.c.at[i].logit, want[s.c.at[i].id], 0);
    }
}

static void draws_follow_the_probabilities(void **state)
{
    (void)state;
    enum { N_DRAWS = 40000 };
    struct apr_sample_opts o = neutral(0.7);
    o.seed = 42;
    struct apr_sampler s = open_sampler(&o, 4);
    const float logits[] = {1, 0, -1, 0.5f};
    double p[4], sum = 0, chi2 = 0;
    size_t n[4] = {0};
    for (int i = 0; i < 4; i++) sum += p[i] = exp((double)logits[i] / 0.7);
    for (int i = 0; i < N_DRAWS; i++) {
        float x[4];
        memcpy(x, logits, sizeof x);
        n[next(&s, x)]++;
    }
    for (int i = 0; i < 4; i++) {
        double want = p[i] / sum * N_DRAWS;
        chi2 += ((double)n[i] - want) * ((double)n[i] - want) / want;
    }
    assert_true(chi2 < 16.27); /* 3 degrees of freedom, one in a thousand */
    double total = 0;
    for (size_t i = 0; i < s.c.n; i++) total += s.c.at[i].p;
    assert_float_equal(total, 1, 1e-12);
}

static void a_seed_is_a_sequence(void **state)
{
    (void)state;
    int32_t first[64] = {0};
    for (int pass = 0; pass < 3; pass++) {
        struct apr_sample_opts o = neutral(1);
        o.top_p = 0.9;
        o.seed = pass < 2 ? 7 : 8;
        struct apr_sampler s = open_sampler(&o, N);
        size_t n_same = 0;
        for (unsigned i = 0; i < 64; i++) {
            float x[N];
            noise(x, N, i);
            int32_t id = next(&s, x);
            if (pass == 0) first[i] = id;
            n_same += first[i] == id;
        }
        assert_true(pass < 2 ? n_same == 64 : n_same < 64);
    }
}

static void ranges_are_checked(void **state)
{
    (void)state;
    struct apr_err e = {0};
    struct apr_sample_opts bad[6];
    for (size_t i = 0; i < 6; i++) bad[i] = neutral(1);
    assert_int_equal(apr_sample_check(&bad[0], &e), APR_OK);
    bad[0].temperature = -1;
    bad[1].top_p = 0;
    bad[2].min_p = 1.5;
    bad[3].repeat_penalty = 0;
    bad[4].repeat_last_n = -2;
    bad[5].temperature = (double)NAN;
    for (size_t i = 0; i < 6; i++) assert_int_equal(apr_sample_check(&bad[i], &e), APR_EUSAGE);
}

static void the_models_own_values(void **state)
{
    (void)state;
    struct apr_sample_opts o = neutral(0);
    struct apr_generation g = {.has_top_k = true, .top_k = 20, .has_temperature = true, .temperature = 0.7};
    apr_sample_from_model(&o, &g); /* do_sample false: greedy */
    assert_float_equal(o.temperature, 0, 0);
    g.do_sample = true;
    apr_sample_from_model(&o, &g);
    assert_float_equal(o.temperature, 0.7, 0);
    assert_int_equal(o.top_k, 20);
    assert_float_equal(o.top_p, 1, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_first_maximum),
        cmocka_unit_test(top_k_is_the_k_largest),
        cmocka_unit_test(top_p_is_the_smallest_set),
        cmocka_unit_test(min_p_is_relative_to_the_likeliest),
        cmocka_unit_test(penalty_counts_a_token_once),
        cmocka_unit_test(draws_follow_the_probabilities),
        cmocka_unit_test(a_seed_is_a_sequence),
        cmocka_unit_test(ranges_are_checked),
        cmocka_unit_test(the_models_own_values),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

/* Draws: their frequencies are the chain's own probabilities, whatever limits them; large vocabularies; and
 * what is refused. The steps themselves: test_sampler.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../tools/apr-infer/sampler/sampler.h"

static struct apr_arena arena;
static uint64_t random_state;

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

static double uniform(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 11) * 0x1p-53;
}

/* ---- many tokens ---- */

static void a_large_vocabulary(void **state)
{
    enum { N = 20000 };
    static float x[N];
    struct apr_err e = {0};
    (void)state;
    random_state = 99;
    for (int round = 0; round < 12; round++) {
        struct apr_sampler s;
        struct apr_sample_opts o;
        const struct apr_sampler_site site = {.n_vocab = N, .kern = &apr_kern_scalar};
        double sum = 0, mass = 0, least = INFINITY, p = 0.1 + 0.07 * round;
        for (size_t i = 0; i < N; i++) x[i] = (float)((round % 4 + 1) * (uniform() + uniform() + uniform()));
        apr_sample_defaults(&o);
        o.temperature = 1;
        o.top_p = p;
        assert_int_equal(apr_sampler_init(&s, &o, &site, &arena, &e), APR_OK);
        assert_int_equal(apr_sampler_chain(&s, x, &e), APR_OK);
        for (size_t i = 0; i < N; i++) sum += exp((double)x[i]);
        for (size_t i = 0; i < s.c.n; i++) {
            double own = exp((double)s.c.at[i].logit) / sum;
            mass += own;
            least = fmin(least, own);
            if (i) assert_true(s.c.at[i].logit <= s.c.at[i - 1].logit);
        }
        assert_true(mass >= p - 1e-5 && mass - least < p + 1e-5); /* sums of f32 probabilities */
        o.top_p = 1;
        o.top_k = 40;
        assert_int_equal(apr_sampler_init(&s, &o, &site, &arena, &e), APR_OK);
        assert_int_equal(apr_sampler_chain(&s, x, &e), APR_OK);
        size_t n_above = 0;
        for (size_t i = 0; i < N; i++) n_above += x[i] > s.c.at[39].logit;
        assert_true(s.c.n == 40 && n_above <= 39);
    }
}

/* Nothing narrows the vocabulary: the token at u of all probabilities, in the order of ids. */
static void a_draw_from_everything(void **state)
{
    enum { N = 20011 };
    static float x[N];
    static double before[N + 1];
    struct apr_err e = {0};
    (void)state;
    random_state = 7;
    for (int round = 0; round < 8; round++) {
        struct apr_sampler s;
        struct apr_sample_opts o;
        const struct apr_sampler_site site = {.n_vocab = N, .kern = &apr_kern_scalar};
        apr_sample_defaults(&o);
        o.temperature = 0.5 + 0.25 * (round % 4);
        assert_int_equal(apr_sampler_init(&s, &o, &site, &arena, &e), APR_OK);
        for (size_t i = 0; i < N; i++) x[i] = (float)((round + 1) * uniform());
        for (size_t i = 0; i < N && round % 4 == 2; i++) /* masked in pieces, the end too */
            if (i / 700 % 3 || i > N - 900) x[i] = -INFINITY;
        for (size_t i = 0; i < N && round % 4 == 3; i++) /* but for one */
            if (i != 64 * 17 + 63) x[i] = -INFINITY;
        for (size_t i = 0; i < N; i++) before[i + 1] = before[i] + exp((double)x[i] / o.temperature);
        for (int k = 0; k < 300; k++) {
            int32_t id;
            assert_int_equal(apr_sampler_next(&s, x, &id, &e), APR_OK);
            const double at = apr_rng_uniform(&s.rng, APR_RNG_DRAW) * before[N], off = 3e-6 * before[N];
            assert_true(x[id] > -INFINITY);
            assert_true(before[id] <= at + off && at - off <= before[id + 1]); /* probabilities in f32 */
            assert_int_equal(apr_sampler_accept(&s, id, &e), APR_OK);
        }
        int32_t last;
        double p;
        apr_cands_begin(&s.c, x);
        assert_true(apr_cands_draw_all(&s.c, 1 - 0x1p-53, &last, &p)); /* the largest u */
        assert_true(p > 0);
        for (size_t i = (size_t)last + 1; i < N; i++) assert_true(x[i] == -INFINITY);
    }
}

/* ---- draws ---- */

#define N_DRAWS 60000

static double chi_square(const size_t *n, const double *p, size_t n_cells)
{
    double chi2 = 0;
    for (size_t i = 0; i < n_cells; i++) {
        double want = p[i] * N_DRAWS;
        if (p[i] > 0)
            chi2 += ((double)n[i] - want) * ((double)n[i] - want) / want;
        else
            assert_int_equal(n[i], 0);
    }
    return chi2;
}

/* The whole chain at several seeds: the frequencies are the chain's own probabilities. */
static void draws_of_a_chain(void **state)
{
    enum { N = 40 };
    float x[N];
    (void)state;
    for (uint64_t seed = 0; seed < 8; seed++) {
        struct apr_err e = {0};
        struct apr_sampler s;
        struct apr_sample_opts o;
        size_t n[N] = {0}, n_cells = 0;
        double p[N] = {0};
        const struct apr_sampler_site site = {.n_vocab = N, .kern = &apr_kern_scalar};
        random_state = seed;
        for (size_t i = 0; i < N; i++) x[i] = (float)(4 * uniform());
        apr_sample_defaults(&o);
        o.temperature = 0.9;
        o.seed = seed;
        o.top_k = 25;
        o.top_p = 0.95;
        o.min_p = 0.02;
        assert_int_equal(apr_sampler_init(&s, &o, &site, &arena, &e), APR_OK);
        assert_int_equal(apr_sampler_chain(&s, x, &e), APR_OK);
        for (size_t i = 0; i < s.c.n; i++) p[s.c.at[i].id] = s.c.at[i].p;
        n_cells = s.c.n;
        for (int i = 0; i < N_DRAWS; i++) {
            int32_t id;
            assert_int_equal(apr_sampler_next(&s, x, &id, &e), APR_OK);
            n[id]++;
        }
        /* Wilson-Hilferty: the cube root of chi2 / k is nearly normal; 4 standard deviations. */
        double k = (double)(n_cells - 1),
               z = (cbrt(chi_square(n, p, N) / k) - (1 - 2 / (9 * k))) / sqrt(2 / (9 * k));
        assert_true(fabs(z) < 4);
    }
}

/* XTC acts in the given share of the tokens. */
static void xtc_acts_as_often_as_told(void **state)
{
    const float x[] = {2, 1.9f, 0};
    size_t n_acted = 0;
    struct apr_err e = {0};
    struct apr_sampler s;
    struct apr_sample_opts o;
    const struct apr_sampler_site site = {.n_vocab = 3, .kern = &apr_kern_scalar};
    (void)state;
    apr_sample_defaults(&o);
    o.temperature = 1;
    o.xtc_probability = 0.3;
    assert_int_equal(apr_sampler_init(&s, &o, &site, &arena, &e), APR_OK);
    for (int i = 0; i < N_DRAWS; i++) {
        int32_t id;
        assert_int_equal(apr_sampler_next(&s, x, &id, &e), APR_OK);
        n_acted += s.c.n == 2;
    }
    assert_true(fabs((double)n_acted / N_DRAWS - 0.3) < 4 * sqrt(0.3 * 0.7 / N_DRAWS));
}

/* Mirostat holds the mean surprise at tau. */
static void mirostat_finds_its_surprise(void **state)
{
    enum { N = 500 };
    float x[N];
    double sum = 0;
    struct apr_err e = {0};
    struct apr_sampler s;
    struct apr_sample_opts o;
    const struct apr_sampler_site site = {.n_vocab = N, .kern = &apr_kern_scalar};
    (void)state;
    apr_sample_defaults(&o);
    o.temperature = 1;
    o.mirostat = 2;
    o.mirostat_tau = 3;
    random_state = 5;
    assert_int_equal(apr_sampler_init(&s, &o, &site, &arena, &e), APR_OK);
    for (int i = 0; i < 4000; i++) {
        int32_t id;
        for (size_t k = 0; k < N; k++) x[k] = (float)(5 * uniform());
        assert_int_equal(apr_sampler_next(&s, x, &id, &e), APR_OK);
        for (size_t k = 0; k < s.c.n; k++)
            if (s.c.at[k].id == id && i >= 1000) sum -= log2(s.c.at[k].p) / 3000;
    }
    assert_true(fabs(sum - 3) < 0.1);
}

/* A token that the grammar refuses is drawn again: together the draws follow p over what is allowed. */
static void draws_under_a_grammar(void **state)
{
    static const char grammar[] = "root ::= [bdf]+";
    const float x[] = {1, 0.5f, 2, -0.5f, 0, 1};
    const uint32_t off[] = {0, 1, 2, 3, 4, 5, 6};
    size_t n[6] = {0};
    double p[6] = {0}, sum = 0;
    struct apr_err e = {0};
    struct apr_sampler s;
    struct apr_sample_opts o;
    struct apr_grammar *g;
    struct apr_generation none = {.n_eos = 0};
    uint64_t bits[1];
    struct apr_limit limit = {.ends = &none, .n_vocab = 6, .n_left = SIZE_MAX, .bits = bits};
    const struct apr_sampler_site site = {.n_vocab = 6, .kern = &apr_kern_scalar};
    (void)state;
    assert_int_equal(apr_grammar_parse(&g, grammar, strlen(grammar), APR_GRAMMAR_GBNF, "g", &e), APR_OK);
    assert_int_equal(apr_trie_build(&limit.trie, (const uint8_t *)"abcdef", off, 6, &e), APR_OK);
    assert_int_equal(apr_matcher_open(&limit.matcher, g, limit.trie, &e), APR_OK);
    apr_sample_defaults(&o);
    o.temperature = 1;
    assert_int_equal(apr_sampler_init(&s, &o, &site, &arena, &e), APR_OK);
    s.limit = &limit;
    for (size_t i = 1; i < 6; i += 2) sum += p[i] = exp((double)x[i]);
    for (size_t i = 0; i < 6; i++) p[i] /= sum;
    for (int i = 0; i < N_DRAWS; i++) {
        int32_t id;
        assert_int_equal(apr_sampler_next(&s, x, &id, &e), APR_OK);
        n[id]++;
    }
    assert_true(limit.n_masks > N_DRAWS / 4);
    assert_true(chi_square(n, p, 6) < 13.8); /* 2 degrees of freedom, one in a thousand */
    apr_limit_close(&limit);
    apr_grammar_free(g);
}

/* ---- faults ---- */

static void nan_and_empty(void **state)
{
    struct apr_err e = {0};
    struct apr_sampler s;
    struct apr_sample_opts o;
    const struct apr_sampler_site site = {.n_vocab = 3, .kern = &apr_kern_scalar};
    const float bad[][3] = {{0, NAN, 1}, {0, INFINITY, 1}, {-INFINITY, -INFINITY, -INFINITY}};
    int32_t id;
    (void)state;
    for (int t = 0; t < 2; t++) {
        apr_sample_defaults(&o);
        o.temperature = t;
        assert_int_equal(apr_sampler_init(&s, &o, &site, &arena, &e), APR_OK);
        for (size_t i = 0; i < 3; i++) assert_int_equal(apr_sampler_next(&s, bad[i], &id, &e), APR_EINFER);
    }
}

static void what_does_nothing_is_refused(void **state)
{
    static const struct {
        const char *option, *samplers;
        double v;
        enum apr_code code;
    } rows_[] = {
        {"--top-k", NULL, 5, APR_OK},
        {"--top-k", "top_p;temperature", 5, APR_EUSAGE},
        {"--top-k", "top-k;temp", 5, APR_OK},
        {"--top-k", "top_k;top_q", 5, APR_EUSAGE},
        {"--top-k", "top_k;top_k", 5, APR_EUSAGE},
        {"--top-k", "", 5, APR_EUSAGE},
        {"--dry-base", NULL, 2, APR_EUSAGE},
        {"--dry-base", NULL, 1.75, APR_OK},
        {"--xtc-threshold", NULL, 0.2, APR_EUSAGE},
        {"--dynatemp-exponent", NULL, 2, APR_EUSAGE},
        {"--mirostat", NULL, 2, APR_OK},
        {"--mirostat", NULL, 1, APR_EUSAGE},
        {"--mirostat", "top_k", 2, APR_EUSAGE},
        {"--mirostat-tau", NULL, 4, APR_EUSAGE},
        {"--mirostat-tau", "mirostat", 4, APR_OK},
        {"--mirostat-tau", "mirostat;top_k", 4, APR_EUSAGE},
        {"--repeat-last-n", NULL, 5, APR_EUSAGE},
        {"--typical-p", NULL, 1.5, APR_EUSAGE},
    };
    size_t n;
    const struct apr_sample_param *p = apr_sample_params(&n);
    (void)state;
    for (size_t i = 0; i < sizeof rows_ / sizeof *rows_; i++) {
        struct apr_sample_opts given, o;
        struct apr_err e = {0};
        apr_sample_unset(&given);
        for (size_t k = 0; k < n; k++)
            if (!strcmp(p[k].option, rows_[i].option)) apr_sample_set(&given, &p[k], rows_[i].v);
        given.samplers = rows_[i].samplers;
        enum apr_code code = apr_sample_resolve(&given, NULL, &o, &e);
        if (code != rows_[i].code)
            fail_msg("%s %s: status %d", rows_[i].option, rows_[i].samplers, (int)code);
    }
}

/* DRY does not look across a breaker. A vocabulary is needed for its text, so the ring is marked by hand. */
static void dry_stops_at_a_breaker(void **state)
{
    const float x[4] = {0};
    struct apr_err e = {0};
    struct apr_sampler s;
    struct apr_sample_opts o;
    const struct apr_sampler_site site = {.n_vocab = 4, .n_ctx = 16, .kern = &apr_kern_scalar};
    (void)state;
    for (int broken = 0; broken < 2; broken++) {
        apr_sample_defaults(&o);
        o.temperature = 1;
        o.dry_multiplier = 1;
        assert_int_equal(apr_sampler_init(&s, &o, &site, &arena, &e), APR_OK);
        const int32_t past[] = {0, 1, 2, 3, 0, 1};
        for (size_t i = 0; i < 6; i++) assert_int_equal(apr_sampler_accept(&s, past[i], &e), APR_OK);
        if (broken) s.past.breaks[4] = true;
        assert_int_equal(apr_sampler_chain(&s, x, &e), APR_OK);
        for (size_t i = 0; i < 4; i++)
            assert_true(s.c.at[i].logit == (s.c.at[i].id == 2 && !broken ? -1.0f : 0.0f));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_large_vocabulary),
        cmocka_unit_test(a_draw_from_everything),
        cmocka_unit_test(draws_of_a_chain),
        cmocka_unit_test(xtc_acts_as_often_as_told),
        cmocka_unit_test(mirostat_finds_its_surprise),
        cmocka_unit_test(draws_under_a_grammar),
        cmocka_unit_test(nan_and_empty),
        cmocka_unit_test(what_does_nothing_is_refused),
        cmocka_unit_test(dry_stops_at_a_breaker),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

/* Rejection sampling: the core against its definition, and whole short texts against plain sampling, for
 * every kind of chain that remembers or rolls dice of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../tools/apr-infer/sampler/sampler.h"

#define N_VOCAB 6u
#define N_TEXT  3u
#define N_CELLS (N_VOCAB * N_VOCAB * N_VOCAB)
#define N_RUNS  50000u

static uint64_t random_state = 1;

static double uniform(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 11) * 0x1p-53;
}

/* The cube root of chi2 / k is nearly normal (Wilson, Hilferty 1931). */
static double z_of(double chi2, size_t n_cells)
{
    double k = (double)(n_cells - 1);
    return (cbrt(chi2 / k) - (1 - 2 / (9 * k))) / sqrt(2 / (9 * k));
}

/* ---- the core ---- */

static void random_weights(struct apr_cand *c, size_t n, double sharp, bool some_zero)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        c[i] = (struct apr_cand){.id = (int32_t)i, .p = exp(sharp * uniform())};
        if (some_zero && i && uniform() < 0.4) c[i].p = 0;
        sum += c[i].p;
    }
    for (size_t i = 0; i < n; i++) c[i].p /= sum;
}

static size_t draw(const struct apr_cand *c, size_t n)
{
    double u = uniform(), run = 0;
    size_t last = 0;
    for (size_t i = 0; i < n; i++) {
        if (c[i].p <= 0) continue;
        last = i;
        run += c[i].p;
        if (u < run) break;
    }
    return last;
}

static void what_comes_out_is_p(void **state)
{
    enum { N = 9, N_DRAWS = 20000 };
    (void)state;
    for (int round = 0; round < 40; round++) {
        struct apr_cand p[N], q[N];
        size_t n[N] = {0}, n_accepted = 0;
        double chi2 = 0, overlap = 0;
        random_weights(p, N, 1 + round % 5, round % 3 == 0);
        random_weights(q, N, 1 + round % 7, round % 4 == 0);
        for (size_t i = 0; i < N; i++) overlap += fmin(p[i].p, q[i].p);
        for (size_t i = 0; i < N; i++) p[i].p *= 0.5; /* weights, not probabilities */
        for (int k = 0; k < N_DRAWS; k++) {
            struct apr_proposal x = {.id = (int32_t)draw(q, N), .q = q, .n_q = N};
            size_t at = apr_judge(p, N, &x, uniform(), uniform());
            n[at]++;
            n_accepted += p[at].id == x.id;
        }
        size_t n_cells = 0;
        for (size_t i = 0; i < N; i++) {
            double want = 2 * p[i].p * N_DRAWS;
            if (want > 0)
                chi2 += ((double)n[i] - want) * ((double)n[i] - want) / want;
            else
                assert_int_equal(n[i], 0);
            n_cells += want > 0;
        }
        assert_true(z_of(chi2, n_cells) < 4);
        double deviation = sqrt(overlap * (1 - overlap) / N_DRAWS); /* accepted: sum of min(p, q), no less */
        assert_true(fabs((double)n_accepted / N_DRAWS - overlap) < 4 * deviation + 1e-9);
    }
}

static void edges(void **state)
{
    const struct apr_cand p[] = {{.id = 3, .p = 0.25}, {.id = 1, .p = 0.75}, {.id = 9, .p = 0}};
    const struct apr_cand same[] = {{.id = 1, .p = 0.75}, {.id = 3, .p = 0.25}};
    const struct apr_cand far[] = {{.id = 5, .p = 1}};
    const struct apr_cand zero[] = {{.id = 9, .p = 1}};
    const double most = 1 - 0x1p-53;
    (void)state;
    /* p = q: always accepted. */
    assert_int_equal(apr_judge(p, 3, &(struct apr_proposal){3, same, 2}, most, 0), 0);
    assert_int_equal(apr_judge(p, 3, &(struct apr_proposal){1, same, 2}, most, 0), 1);
    /* No candidate, or one of weight 0: never accepted, and then it is p. */
    assert_int_equal(apr_judge(p, 3, &(struct apr_proposal){5, far, 1}, 0, 0.2), 0);
    assert_int_equal(apr_judge(p, 3, &(struct apr_proposal){5, far, 1}, 0, 0.3), 1);
    assert_int_equal(apr_judge(p, 3, &(struct apr_proposal){9, zero, 1}, 0, most), 1);
    assert_int_equal(apr_judge(p, 1, &(struct apr_proposal){5, far, 1}, most, most), 0);
}

/* ---- texts ---- */

struct scene {
    struct apr_arena arena;
    struct apr_sample_opts o;
    struct apr_limit *limit;        /* its grammar is where it began after N_TEXT tokens */
    float logits[N_VOCAB][N_VOCAB]; /* after each token */
    struct apr_cand q[N_VOCAB][N_VOCAB];
};

static void make_scene(struct scene *s, uint64_t seed)
{
    random_state = seed;
    *s = (struct scene){.limit = NULL};
    apr_sample_defaults(&s->o);
    s->o.temperature = 0.9;
    for (size_t i = 0; i < N_VOCAB; i++) {
        for (size_t j = 0; j < N_VOCAB; j++) s->logits[i][j] = (float)(3 * uniform());
        random_weights(s->q[i], N_VOCAB, 3, false);
    }
}

/* Texts of N_TEXT tokens with other seeds each, counted; judged: a token is proposed at every position. */
static void count_texts(struct scene *sc, bool judged, uint64_t seed, size_t *n)
{
    const struct apr_sampler_site site = {.n_vocab = N_VOCAB, .n_ctx = 16, .kern = &apr_kern_scalar};
    struct apr_arena arena;
    struct apr_sampler s;
    struct apr_err e = {0};
    apr_arena_init(&arena);
    assert_int_equal(apr_sampler_init(&s, &sc->o, &site, &arena, &e), APR_OK);
    s.limit = sc->limit;
    for (size_t run = 0; run < N_RUNS; run++) {
        size_t cell = 0;
        int32_t id = 0;
        apr_rng_seed(&s.rng, seed + run);
        s.mu = 2 * sc->o.mirostat_tau;
        s.past.n_seen = 0;
        for (size_t i = 0; i < N_TEXT; i++) {
            struct apr_proposal x = {.q = sc->q[id], .n_q = N_VOCAB};
            x.id = (int32_t)draw(sc->q[id], N_VOCAB);
            s.proposal = judged ? &x : NULL;
            assert_int_equal(apr_sampler_next(&s, sc->logits[id], &id, &e), APR_OK);
            assert_int_equal(apr_sampler_accept(&s, id, &e), APR_OK);
            cell = cell * N_VOCAB + (size_t)id;
        }
        n[cell]++;
    }
    apr_arena_free(&arena);
}

/* Two samples of the same size from one distribution? */
static double z_between(const size_t *a, const size_t *b)
{
    double chi2 = 0;
    size_t n_cells = 0;
    for (size_t i = 0; i < N_CELLS; i++) {
        double x = (double)a[i], y = (double)b[i];
        if (x + y < 10) continue;
        chi2 += (x - y) * (x - y) / (x + y);
        n_cells++;
    }
    assert_true(n_cells > 8);
    return z_of(chi2, n_cells);
}

static void expect_same_texts(struct scene *sc)
{
    static size_t plain[N_CELLS], judged[N_CELLS];
    memset(plain, 0, sizeof plain);
    memset(judged, 0, sizeof judged);
    count_texts(sc, false, 1, plain);
    count_texts(sc, true, 1u << 30, judged);
    double z = z_between(plain, judged);
    if (!(z < 4)) fail_msg("z %g", z);
}

static void plain_chains(void **state)
{
    struct scene s;
    (void)state;
    make_scene(&s, 11);
    expect_same_texts(&s);
    s.o.top_k = 4;
    s.o.top_p = 0.9;
    s.o.min_p = 0.05;
    expect_same_texts(&s);
}

static void chains_that_remember(void **state)
{
    struct scene s;
    (void)state;
    make_scene(&s, 12);
    s.o.repeat_penalty = 1.6;
    s.o.frequency_penalty = 0.5;
    expect_same_texts(&s);
    make_scene(&s, 13);
    s.o.mirostat = 2;
    s.o.mirostat_tau = 1.2;
    s.o.mirostat_eta = 0.9;
    expect_same_texts(&s);
}

static void chains_with_dice(void **state)
{
    struct scene s;
    (void)state;
    make_scene(&s, 14);
    s.o.xtc_probability = 0.5;
    s.o.xtc_threshold = 0.2;
    expect_same_texts(&s);
}

/* With top_k the chain over what the grammar allows is another one than the free chain's allowed part. */
static void chains_under_a_grammar(void **state)
{
    static const char text[] = "root ::= ([bdf] [abe] [acdf])*";
    const uint32_t off[] = {0, 1, 2, 3, 4, 5, 6};
    struct apr_generation none = {.n_eos = 0};
    uint64_t bits[1];
    struct apr_limit limit = {.ends = &none, .n_vocab = N_VOCAB, .n_left = SIZE_MAX, .bits = bits};
    struct apr_grammar *g;
    struct apr_err e = {0};
    struct scene s;
    (void)state;
    assert_int_equal(apr_grammar_parse(&g, text, strlen(text), APR_GRAMMAR_GBNF, "g", &e), APR_OK);
    assert_int_equal(apr_trie_build(&limit.trie, (const uint8_t *)"abcdef", off, N_VOCAB, &e), APR_OK);
    assert_int_equal(apr_matcher_open(&limit.matcher, g, limit.trie, &e), APR_OK);
    for (int i = 0; i < 3; i++) {
        make_scene(&s, 15);
        s.o.temperature = 2;
        s.limit = &limit;
        if (i) s.o.top_k = 3;
        if (i == 2) {
            s.o.top_k = 0;
            s.o.mirostat = 2;
            s.o.mirostat_tau = 2;
        }
        expect_same_texts(&s);
    }
    apr_limit_close(&limit);
    apr_grammar_free(g);
}

/* The comparison can fail: a rule that accepts where p / q > 0.5 gives other texts. */
static void another_rule_is_seen(void **state)
{
    static size_t right[N_CELLS], wrong[N_CELLS];
    struct scene s;
    (void)state;
    make_scene(&s, 11);
    memset(right, 0, sizeof right);
    memset(wrong, 0, sizeof wrong);
    count_texts(&s, true, 1, right);
    for (size_t run = 0; run < N_RUNS; run++) {
        size_t cell = 0, id = 0;
        for (size_t i = 0; i < N_TEXT; i++) {
            struct apr_cand p[N_VOCAB];
            double sum = 0;
            for (size_t k = 0; k < N_VOCAB; k++) sum += p[k].p = exp((double)s.logits[id][k] / 0.9);
            for (size_t k = 0; k < N_VOCAB; k++) p[k].p /= sum;
            size_t x = draw(s.q[id], N_VOCAB);
            id = p[x].p / s.q[id][x].p > 0.5 ? x : draw(p, N_VOCAB);
            cell = cell * N_VOCAB + id;
        }
        wrong[cell]++;
    }
    assert_true(z_between(right, wrong) > 10);
}

/* A proposal without chance, or greedy choice: exactly the token of plain sampling, and its random numbers.
 */
static void no_chance_no_change(void **state)
{
    struct scene sc;
    struct apr_arena arena;
    (void)state;
    make_scene(&sc, 16);
    apr_arena_init(&arena);
    for (int t = 0; t < 2; t++) {
        const struct apr_sampler_site site = {.n_vocab = N_VOCAB, .n_ctx = 16, .kern = &apr_kern_scalar};
        struct apr_sampler a, b;
        struct apr_err e = {0};
        sc.o.temperature = t;
        assert_int_equal(apr_sampler_init(&a, &sc.o, &site, &arena, &e), APR_OK);
        assert_int_equal(apr_sampler_init(&b, &sc.o, &site, &arena, &e), APR_OK);
        for (size_t i = 0; i < 500; i++) {
            struct apr_proposal x = {.id = (int32_t)(i % N_VOCAB), .q = t ? NULL : sc.q[0], .n_q = N_VOCAB};
            int32_t id_a, id_b;
            b.proposal = &x;
            assert_int_equal(apr_sampler_next(&a, sc.logits[i % N_VOCAB], &id_a, &e), APR_OK);
            assert_int_equal(apr_sampler_next(&b, sc.logits[i % N_VOCAB], &id_b, &e), APR_OK);
            assert_int_equal(id_a, id_b);
        }
    }
    apr_arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_comes_out_is_p),  cmocka_unit_test(edges),
        cmocka_unit_test(plain_chains),         cmocka_unit_test(chains_that_remember),
        cmocka_unit_test(chains_with_dice),     cmocka_unit_test(chains_under_a_grammar),
        cmocka_unit_test(another_rule_is_seen), cmocka_unit_test(no_chance_no_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

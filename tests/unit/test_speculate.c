/* Prompt lookup, the choice of lengths, and the bookkeeping of proposals with a model that is a table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../tools/apr-infer/speculate/spec.h"

static uint64_t random_state = 1;

static size_t below(size_t n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (size_t)(random_state >> 33) % n;
}

/* ---- lookup ---- */

/* The longest end of ids[0 .. n) with at most n_max tokens that stands before. */
static size_t longest_repeat(const int32_t *ids, size_t n, size_t n_max)
{
    for (size_t k = n_max < n ? n_max : n; k; k--)
        for (size_t i = 0; i + k < n; i++)
            if (!memcmp(ids + i, ids + n - k, k * sizeof *ids)) return k;
    return 0;
}

/* out follows some place where the last n_match tokens stand. */
static bool follows(const int32_t *ids, size_t n, size_t n_match, const int32_t *out, size_t n_out)
{
    for (size_t i = n_match; i < n; i++) {
        if (memcmp(ids + i - n_match, ids + n - n_match, n_match * sizeof *ids) != 0) continue;
        size_t k = 0;
        while (k < n_out && out[k] == (i + k < n ? ids[i + k] : out[i + k - n])) k++;
        if (k == n_out) return true;
    }
    return false;
}

static void finds_the_longest(void **state)
{
    enum { N = 600, N_OUT = 7 };
    (void)state;
    for (size_t round = 0; round < 60; round++) {
        int32_t ids[N] = {0}, out[N_OUT];
        size_t n_letters = 2 + round % 9, n_min = 1 + round % 3, n_max = n_min + round % 6, n_match;
        struct apr_arena arena;
        struct apr_ngrams l;
        struct apr_err e = {0};
        apr_arena_init(&arena);
        apr_ngrams_init(&l, n_min, n_max, &arena);
        for (size_t n = 1; n <= N; n++) {
            ids[n - 1] = n > 50 && below(3) ? ids[n - 50] : (int32_t)below(n_letters);
            assert_int_equal(apr_ngrams_add(&l, ids, n, &e), APR_OK);
            size_t want = longest_repeat(ids, n, n_max),
                   n_out = apr_ngrams_find(&l, ids, n, N_OUT, out, &n_match);
            if (want < n_min) {
                assert_int_equal(n_out, 0);
                continue;
            }
            assert_int_equal(n_out, N_OUT);
            assert_true(n_match >= want && (n_match == want || want == n_max));
            assert_true(follows(ids, n, n_match, out, n_out));
        }
        apr_arena_free(&arena);
    }
}

/* A text that repeats itself goes on repeating: what is copied may be what was just proposed. */
static void a_period_goes_on(void **state)
{
    const int32_t ids[] = {9, 1, 2, 3, 1, 2, 3};
    int32_t out[8];
    size_t n_match;
    struct apr_arena arena;
    struct apr_ngrams l;
    struct apr_err e = {0};
    (void)state;
    apr_arena_init(&arena);
    apr_ngrams_init(&l, 1, 8, &arena);
    for (size_t n = 1; n <= 7; n++) assert_int_equal(apr_ngrams_add(&l, ids, n, &e), APR_OK);
    assert_int_equal(apr_ngrams_find(&l, ids, 7, 8, out, &n_match), 8);
    assert_int_equal(n_match, 3);
    for (int32_t i = 0; i < 8; i++) assert_int_equal(out[i], 1 + i % 3);
    assert_int_equal(apr_ngrams_find(&l, ids, 7, 0, out, &n_match), 0);
    apr_arena_free(&arena);
}

/* An answer that copies the prompt with every 20th token changed: nearly all of the rest is proposed. */
static void follows_an_edited_copy(void **state)
{
    enum { N = 1000, N_OUT = 8 };
    int32_t ids[2 * N], out[N_OUT];
    size_t n = 0, n_right = 0, n_asked = 0, n_match;
    struct apr_arena arena;
    struct apr_ngrams l;
    struct apr_err e = {0};
    (void)state;
    apr_arena_init(&arena);
    apr_ngrams_init(&l, 1, 8, &arena);
    for (; n < N; n++) { /* few words, so that short n-grams stand in many places */
        ids[n] = (int32_t)below(30);
        assert_int_equal(apr_ngrams_add(&l, ids, n + 1, &e), APR_OK);
    }
    while (n < 2 * N) {
        size_t n_out = apr_ngrams_find(&l, ids, n, N_OUT, out, &n_match), k = 0;
        n_asked++;
        do { /* one token that is chosen anyway, and those before it that were right */
            ids[n] = n % 20 ? ids[n - N] : 100 + (int32_t)n;
            n++;
            assert_int_equal(apr_ngrams_add(&l, ids, n, &e), APR_OK);
        } while (n < 2 * N && k < n_out && ids[n - 1] == out[k] && ++k);
        n_right += k;
    }
    assert_true(n_right > N * 3 / 4);
    assert_true(n_asked < N / 4);
    apr_arena_free(&arena);
}

static double cpu_s(void)
{
    struct timespec t;
    assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t), 0);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds a token for adding and asking, over n tokens of n_letters. */
static double cost(size_t n, size_t n_letters, size_t period)
{
    struct apr_arena arena;
    struct apr_ngrams l;
    struct apr_err e = {0};
    int32_t out[16], *ids = malloc(n * sizeof *ids);
    size_t n_match;
    assert_non_null(ids);
    apr_arena_init(&arena);
    apr_ngrams_init(&l, 1, 16, &arena);
    for (size_t i = 0; i < n; i++) ids[i] = i < period ? (int32_t)below(n_letters) : ids[i - period];
    double start = cpu_s();
    for (size_t i = 1; i <= n; i++) {
        assert_int_equal(apr_ngrams_add(&l, ids, i, &e), APR_OK);
        (void)apr_ngrams_find(&l, ids, i, 16, out, &n_match);
    }
    double s = (cpu_s() - start) / (double)n;
    apr_arena_free(&arena);
    free(ids);
    return s;
}

/* The same for 16 times the text, whatever stands in it: one letter, two, a short period, all different. */
static void a_token_costs_the_same_in_a_long_text(void **state)
{
    const struct {
        size_t n_letters, period;
    } rows[] = {{1, SIZE_MAX}, {2, SIZE_MAX}, {50, 7}, {50000, SIZE_MAX}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double small = cost(4000, rows[i].n_letters, rows[i].period),
               large = cost(64000, rows[i].n_letters, rows[i].period);
        if (large > 5 * small + 2e-6) fail_msg("row %zu: %g s a token, then %g", i, small, large);
    }
}

/* ---- lengths ---- */

/* What a pace chooses in the end on a machine whose step of w tokens costs base + each * (w - 1), when a
 * token is right with probability chance. */
static size_t settles_at(double base, double each, double chance, size_t n_min, size_t n_max)
{
    struct apr_pace p;
    size_t n = 0;
    apr_pace_init(&p, n_min, n_max);
    for (size_t i = 0; i < 400; i++) {
        size_t k = 0;
        n = apr_pace_length(&p, 3, n_max);
        while (k < n && (double)below(1000000) * 1e-6 < chance) k++;
        apr_pace_stepped(&p, n + 1, base + each * (double)n);
        if (n) apr_pace_judged(&p, 3, k, k < n);
    }
    return n;
}

static void lengths_follow_cost_and_odds(void **state)
{
    struct apr_pace p;
    (void)state;
    assert_true(settles_at(1, 0.001, 0.98, 0, 16) >= 14); /* further tokens are nearly free */
    assert_true(settles_at(1, 1, 0.9, 0, 16) <= 1);       /* they cost as much as the first */
    assert_true(settles_at(1, 0.1, 0.01, 0, 16) == 0);    /* never right */
    assert_int_equal(settles_at(1, 1, 0.1, 5, 16), 5);    /* as many as were asked for */
    size_t n = settles_at(1, 0.15, 0.8, 0, 16);           /* best: 1 + .8 + ... over 1 + .15 n is at 4 */
    assert_true(n >= 2 && n <= 7);
    apr_pace_init(&p, 0, 16);
    assert_int_equal(apr_pace_length(&p, 3, 16), 0); /* the first step is a plain one */
    apr_pace_stepped(&p, 1, 0.05);
    assert_true(apr_pace_length(&p, 3, 16) > 0);
    assert_true(apr_pace_length(&p, 3, 2) <= 2);
}

/* One slow step does not spoil a width for ever, and what was never right is tried again. */
static void mistakes_fade(void **state)
{
    struct apr_pace p;
    (void)state;
    apr_pace_init(&p, 0, 8);
    for (size_t i = 0; i < 20; i++) {
        apr_pace_stepped(&p, 1, 1);
        apr_pace_stepped(&p, 9, 1.2);
        apr_pace_judged(&p, 5, 8, false);
    }
    assert_int_equal(apr_pace_length(&p, 5, 8), 8);
    apr_pace_stepped(&p, 9, 50);
    for (size_t i = 0; i < 400; i++) apr_pace_stepped(&p, 1, 1);
    assert_true(apr_pace_length(&p, 5, 8) >= 4);
    for (size_t i = 0; i < 400; i++) { /* wide steps become dear, and proposals wrong */
        apr_pace_stepped(&p, 1, 1);
        apr_pace_stepped(&p, 9, 3);
    }
    for (size_t i = 0; i < 50; i++) apr_pace_judged(&p, 5, 0, true);
    assert_int_equal(apr_pace_length(&p, 5, 8), 0);
    size_t n_idle = 0;
    while (n_idle < 2000 && !apr_pace_length(&p, 5, 8)) n_idle++;
    assert_true(n_idle > 5 && n_idle < 2000);
}

/* With a draft that is sampled the clock has no say. */
static void fixed_lengths_ignore_time(void **state)
{
    struct apr_pace a, b;
    (void)state;
    apr_pace_init(&a, 0, 16);
    apr_pace_init(&b, 0, 16);
    apr_pace_fix(&a, 0.1);
    apr_pace_fix(&b, 0.1);
    for (size_t i = 0; i < 300; i++) {
        size_t n = apr_pace_length(&a, APR_PACE_DRAFT, 16), k = below(n + 1);
        assert_int_equal(apr_pace_length(&b, APR_PACE_DRAFT, 16), n);
        apr_pace_stepped(&a, n + 1, 1);
        apr_pace_stepped(&b, n + 1, (double)below(1000));
        apr_pace_drafted(&a, n, 1);
        apr_pace_drafted(&b, n, (double)below(1000));
        if (n) apr_pace_judged(&a, APR_PACE_DRAFT, k, k < n);
        if (n) apr_pace_judged(&b, APR_PACE_DRAFT, k, k < n);
    }
}

/* ---- a model that is a table ---- */

#define N_VOCAB 20u

struct table {
    int32_t ids[4096]; /* the sequence */
    size_t n, n_most;  /* n_most: the longest that it was */
    size_t n_runs;
};

/* Copies what stood 40 tokens before, but for some places. */
static int32_t choice(const int32_t *ids, size_t n)
{
    if (n < 40 || n % 13 == 0) return (int32_t)((n * 7 + (size_t)ids[n - 1]) % N_VOCAB);
    return ids[n - 40];
}

static enum apr_code run(void *ctx, const int32_t *ids, size_t n, float *logits, struct apr_err *e)
{
    struct table *t = ctx;
    (void)e;
    assert_true(n >= 1);
    for (size_t i = 0; i < n; i++) {
        t->ids[t->n++] = ids[i];
        memset(logits + i * N_VOCAB, 0, N_VOCAB * sizeof *logits);
        logits[i * N_VOCAB + (size_t)choice(t->ids, t->n)] = 1;
    }
    if (t->n > t->n_most) t->n_most = t->n;
    t->n_runs++;
    return APR_OK;
}

static void take_back(void *ctx, size_t n)
{
    struct table *t = ctx;
    assert_true(n <= t->n);
    t->n -= n;
}

static int32_t largest(const float *x)
{
    int32_t at = 0;
    for (int32_t i = 1; i < (int32_t)N_VOCAB; i++)
        if (x[i] > x[at]) at = i;
    return at;
}

static void text_and_counts_are_right(void **state)
{
    enum { N = 700, N_PROMPT = 45 };
    (void)state;
    for (int64_t n_min = 0; n_min <= (int64_t)APR_MAX_DRAFT; n_min += 9) {
        static struct table t;
        struct apr_arena arena;
        struct apr_err e = {0};
        struct apr_spec s;
        struct apr_spec_opts given, o;
        const struct apr_spec_model m = {run, take_back, &t};
        float first[N_VOCAB];
        const float *at = first;
        int32_t plain[N_PROMPT + N], id = 0;
        apr_arena_init(&arena);
        apr_spec_defaults(&given);
        given.lookup = true;
        given.n_min = n_min;
        given.n_max = APR_MAX_DRAFT;
        assert_int_equal(apr_spec_resolve(&given, &o, &e), APR_OK);
        for (size_t i = 0; i < N_PROMPT; i++) plain[i] = (int32_t)(i * i % N_VOCAB);
        for (size_t i = N_PROMPT; i < N_PROMPT + N; i++) plain[i] = choice(plain, i);
        t = (struct table){.n = 0};
        for (size_t i = 0; i < N_PROMPT; i++) (void)run(&t, &plain[i], 1, first, &e);
        t.n_runs = 0;
        assert_int_equal(apr_spec_open(&s, &o, NULL, N_VOCAB, &arena, &e), APR_OK);
        assert_int_equal(apr_spec_begin(&s, plain, N_PROMPT, &e), APR_OK);
        for (size_t i = 0; i < N; i++) {
            id = largest(at);
            assert_int_equal(id, plain[N_PROMPT + i]);
            assert_null(apr_spec_proposal(&s)); /* lookups involve no chance */
            if (i + 1 < N) assert_int_equal(apr_spec_next(&s, id, N - i - 1, &m, &at, &e), APR_OK);
            assert_int_equal(t.n - apr_spec_n_open(&s), N_PROMPT + i + (i + 1 < N));
        }
        take_back(&t, apr_spec_end(&s));
        assert_int_equal(apr_spec_n_open(&s), 0);
        assert_int_equal(t.n, N_PROMPT + N - 1);
        assert_int_equal(t.n_most, N_PROMPT + N - 1); /* never more than what could still come */
        assert_int_equal(s.stats.n_steps, t.n_runs);
        assert_int_equal(s.stats.n_steps + s.stats.n_accepted, N - 1);
        assert_true(s.stats.n_accepted <= s.stats.n_proposed && s.stats.n_accepted > 0);
        if (n_min) assert_true(t.n_runs < N / 3);
        apr_spec_close(&s);
        apr_arena_free(&arena);
    }
}

/* ---- options ---- */

static void options(void **state)
{
    static const struct {
        bool lookup;
        const char *ngram, *draft;
        int64_t n_max, n_min;
        double p_min;
        const char *fault; /* NULL: none */
        size_t gram_min, gram_max;
    } rows[] = {
        {true, NULL, NULL, 16, 0, -1, NULL, 1, 8},
        {true, "3", NULL, 16, 0, -1, NULL, 3, 3},
        {true, "2..5", NULL, 1, 1, -1, NULL, 2, 5},
        {true, "16..16", "m", 63, 63, 1, NULL, 16, 16},
        {true, "5..2", NULL, 16, 0, -1, "--lookup-ngram", 0, 0},
        {true, "0..2", NULL, 16, 0, -1, "--lookup-ngram", 0, 0},
        {true, "2..", NULL, 16, 0, -1, "--lookup-ngram", 0, 0},
        {true, "2..17", NULL, 16, 0, -1, "--lookup-ngram", 0, 0},
        {true, "2..3x", NULL, 16, 0, -1, "--lookup-ngram", 0, 0},
        {true, "-1", NULL, 16, 0, -1, "--lookup-ngram", 0, 0},
        {true, "", NULL, 16, 0, -1, "--lookup-ngram", 0, 0},
        {false, "2", "m", 16, 0, -1, "--lookup-ngram", 0, 0},
        {false, NULL, NULL, 16, 0, -1, "--draft-max", 0, 0},
        {true, NULL, NULL, 64, 0, -1, "--draft-max", 0, 0},
        {true, NULL, NULL, 0, 0, -1, "--draft-max", 0, 0},
        {true, NULL, NULL, 4, 5, -1, "--draft-min", 0, 0},
        {true, NULL, NULL, 4, 1, 0.5, "--draft-p-min", 0, 0},
        {false, NULL, "m", 4, 1, 1.5, "--draft-p-min", 0, 0},
        {false, NULL, "-", 4, 1, -1, "--draft", 0, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct apr_spec_opts given, o;
        struct apr_err e = {0};
        apr_spec_defaults(&given);
        assert_null(apr_spec_given(&given));
        given.lookup = rows[i].lookup;
        given.ngram = rows[i].ngram;
        given.draft = rows[i].draft;
        given.n_max = rows[i].n_max;
        given.n_min = rows[i].n_min;
        if (rows[i].p_min >= 0) given.p_min = rows[i].p_min;
        enum apr_code code = apr_spec_resolve(&given, &o, &e);
        if (rows[i].fault) {
            assert_int_equal(code, APR_EUSAGE);
            if (!strstr(e.text, rows[i].fault)) fail_msg("row %zu: %s", i, e.text);
            continue;
        }
        if (code != APR_OK) fail_msg("row %zu: %s", i, e.text);
        assert_int_equal(o.n_gram_min, rows[i].gram_min);
        assert_int_equal(o.n_gram_max, rows[i].gram_max);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_the_longest),
        cmocka_unit_test(a_period_goes_on),
        cmocka_unit_test(follows_an_edited_copy),
        cmocka_unit_test(a_token_costs_the_same_in_a_long_text),
        cmocka_unit_test(lengths_follow_cost_and_odds),
        cmocka_unit_test(mistakes_fade),
        cmocka_unit_test(fixed_lengths_ignore_time),
        cmocka_unit_test(text_and_counts_are_right),
        cmocka_unit_test(options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

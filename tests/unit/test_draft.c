/* A draft model: whose vocabulary it must be, what it guesses, and whole texts of the demonstration model
 * with a draft of another temperature against plain sampling. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../tools/apr-infer/generate.h"
#include "../../tools/apr-infer/speculate/speculate.h"

#define MODEL  "tests/data/apr-demo-8M-Instruct"
#define N_TEXT 4u
#define N_RUNS 600u

static struct apr_err err;
#define OK(call)                                                                                             \
    do {                                                                                                     \
        if ((call) != APR_OK) fail_msg("%s: %s", #call, err.text);                                           \
    } while (0)

static const struct apr_globals globals = {.quiet = true};

/* ---- vocabularies ---- */

static void the_same_vocabulary(void **state)
{
    struct apr_str a[] = {{"x", 1}, {"yy", 2}, {"z", 1}, {"[PAD3]", 6}},
                   b[] = {{"x", 1}, {"yy", 2}, {"Z", 1}};
    int32_t types[] = {APR_TOK_NORMAL, APR_TOK_NORMAL, APR_TOK_NORMAL, APR_TOK_UNUSED};
    struct apr_vocab v = {.kind = APR_VOCAB_BPE, .n_toks = 4, .toks = a, .types = types}, w = v;
    (void)state;
    OK(apr_draft_check_vocab(&v, &w, "d", &err));
    w.n_toks = 3; /* the fourth is padding */
    OK(apr_draft_check_vocab(&v, &w, "d", &err));
    OK(apr_draft_check_vocab(&w, &v, "d", &err));
    w.n_toks = 2;
    assert_int_equal(apr_draft_check_vocab(&v, &w, "d", &err), APR_ELOAD);
    assert_non_null(strstr(err.text, "token 2 is \"(no token)\", expected \"z\""));
    w.n_toks = 3;
    w.toks = b;
    assert_int_equal(apr_draft_check_vocab(&v, &w, "d", &err), APR_ELOAD);
    assert_non_null(strstr(err.text, "--draft d: token 2 is \"Z\", expected \"z\""));
    w = v;
    w.kind = APR_VOCAB_SPM;
    assert_int_equal(apr_draft_check_vocab(&v, &w, "d", &err), APR_ELOAD);
    w.kind = APR_VOCAB_NONE;
    assert_int_equal(apr_draft_check_vocab(&v, &w, "d", &err), APR_ELOAD);
}

/* ---- guesses ---- */

struct scene {
    struct apr_arena arena;
    struct apr_ctx ctx;
    struct apr_engine_opts engine;
    struct apr_session s;
    struct apr_ids prompt;
};

static void open_scene(struct scene *sc)
{
    static const char text[] = "The capital of";
    *sc = (struct scene){.ctx = {.g = &globals, .gated = true}};
    apr_arena_init(&sc->arena);
    sc->ctx.arena = &sc->arena;
    apr_engine_defaults(&sc->engine);
    sc->engine.device = "cpu";
    sc->engine.n_threads = 1;
    sc->engine.n_ctx = 64;
    OK(apr_session_open(&sc->s, MODEL, &sc->engine, &sc->ctx, &err));
    OK(apr_tok_encode(sc->s.tok, text, strlen(text), 0, &sc->prompt, &err));
}

static void close_scene(struct scene *sc)
{
    apr_ids_free(&sc->prompt);
    apr_session_close(&sc->s);
    apr_arena_free(&sc->arena);
}

/* Whatever became of earlier guesses, the next ones are those of a draft that never saw them. */
static void guesses_depend_on_the_text_alone(void **state)
{
    struct scene sc;
    struct apr_draft d, fresh;
    struct apr_sample_opts greedy;
    int32_t a[8], b[8], text[40];
    struct apr_proposal x[8];
    size_t n, n_a, n_b;
    (void)state;
    open_scene(&sc);
    apr_sample_defaults(&greedy);
    OK(apr_draft_open(&d, MODEL, &sc.engine, &sc.s, &greedy, &sc.ctx, &err));
    OK(apr_draft_open(&fresh, MODEL, &sc.engine, &sc.s, &greedy, &sc.ctx, &err));
    memcpy(text, sc.prompt.at, sc.prompt.n * sizeof *text);
    n = sc.prompt.n;
    OK(apr_draft_begin(&d, text, n, &err));
    for (size_t round = 0; round < 6; round++) {
        OK(apr_draft_begin(&fresh, text, 1, &err));
        OK(apr_draft_guess(&d, text, n, 4, 0, a, x, &n_a, &err));
        OK(apr_draft_guess(&fresh, text, n, 4, 0, b, x, &n_b, &err));
        assert_int_equal(n_a, n_b);
        assert_memory_equal(a, b, n_a * sizeof *a);
        assert_null(x[0].q);
        for (size_t k = 0; k < round % 3 && k < n_a; k++) text[n++] = a[k]; /* some were right */
        text[n++] = (int32_t)(300 + round);
    }
    OK(apr_draft_guess(&d, text, n, 4, 1.01, a, x, &n_a, &err)); /* nothing is that sure */
    assert_int_equal(n_a, 0);
    apr_draft_close(&fresh);
    apr_draft_close(&d);
    close_scene(&sc);
}

/* q is a distribution in the order of its ids, and holds the guess. */
static void guesses_carry_their_distribution(void **state)
{
    struct scene sc;
    struct apr_draft d;
    struct apr_sample_opts o;
    int32_t out[8];
    struct apr_proposal x[8];
    size_t n;
    (void)state;
    open_scene(&sc);
    apr_sample_defaults(&o);
    o.temperature = 1.5;
    OK(apr_draft_open(&d, MODEL, &sc.engine, &sc.s, &o, &sc.ctx, &err));
    OK(apr_draft_begin(&d, sc.prompt.at, sc.prompt.n, &err));
    OK(apr_draft_guess(&d, sc.prompt.at, sc.prompt.n, 6, 0, out, x, &n, &err));
    assert_true(n > 0);
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        bool has = false;
        assert_int_equal(x[i].id, out[i]);
        assert_true(x[i].n_q > 1 && x[i].n_q <= APR_DRAFT_TOP);
        for (size_t k = 0; k < x[i].n_q; k++) {
            sum += x[i].q[k].p;
            has |= x[i].q[k].id == out[i];
            if (k) assert_true(x[i].q[k].id > x[i].q[k - 1].id);
        }
        assert_true(has && fabs(sum - 1) < 1e-9);
    }
    apr_draft_close(&d);
    close_scene(&sc);
}

/* ---- texts ---- */

static enum apr_code run_rows(void *ctx, const int32_t *ids, size_t n, float *logits, struct apr_err *e)
{
    struct apr_session *s = ctx;
    return apr_forward_rows(&s->fwd, &s->cache, ids, n, logits, e);
}

static void take_back(void *ctx, size_t n)
{
    struct apr_session *s = ctx;
    apr_cache_truncate(&s->cache, s->cache.n_pos - n);
}

/* First and last tokens of texts by other seeds, counted in a few classes; spec NULL: plain. */
static void count_texts(struct scene *sc, struct apr_sampler *sampler, struct apr_spec *spec, uint64_t seed,
                        size_t n[N_TEXT][32])
{
    struct apr_session *s = &sc->s;
    size_t n_vocab = s->model->config.n_vocab;
    float *first = apr_arena_get(&sc->arena, n_vocab * sizeof *first),
          *next = apr_arena_get(&sc->arena, n_vocab * sizeof *next);
    const struct apr_spec_model m = {run_rows, take_back, s};
    apr_cache_truncate(&s->cache, 0);
    OK(apr_forward_prompt(&s->fwd, &s->cache, sc->prompt.at, sc->prompt.n, &err));
    OK(apr_forward_logits(&s->fwd, s->fwd.n_toks - 1, 1, first, &err));
    for (size_t run = 0; run < N_RUNS; run++) {
        const float *at = first;
        int32_t id;
        apr_rng_seed(&sampler->rng, seed + run);
        sampler->past.n_seen = 0;
        if (spec) OK(apr_spec_begin(spec, sc->prompt.at, sc->prompt.n, &err));
        if (spec) apr_rng_seed(&spec->draft->sampler.rng, ~(seed + run));
        for (size_t i = 0; i < N_TEXT; i++) {
            sampler->proposal = spec ? apr_spec_proposal(spec) : NULL;
            OK(apr_sampler_next(sampler, at, &id, &err));
            OK(apr_sampler_accept(sampler, id, &err));
            n[i][id % 32]++;
            if (i + 1 == N_TEXT) break;
            if (spec) {
                OK(apr_spec_next(spec, id, N_TEXT - 1 - i, &m, &at, &err));
            } else {
                OK(apr_forward_rows(&s->fwd, &s->cache, &id, 1, next, &err));
                at = next;
            }
        }
        if (spec) take_back(s, apr_spec_end(spec));
        apr_cache_truncate(&s->cache, sc->prompt.n);
    }
}

static double z_between(const size_t *a, const size_t *b)
{
    double chi2 = 0, k = -1;
    for (size_t i = 0; i < 32; i++) {
        double x = (double)a[i], y = (double)b[i];
        if (x + y < 10) continue;
        chi2 += (x - y) * (x - y) / (x + y);
        k++;
    }
    assert_true(k > 3);
    return (cbrt(chi2 / k) - (1 - 2 / (9 * k))) / sqrt(2 / (9 * k)); /* Wilson, Hilferty 1931 */
}

static void sampled_texts_are_distributed_alike(void **state)
{
    struct scene sc;
    struct apr_draft d;
    struct apr_spec spec;
    struct apr_sampler sampler;
    struct apr_sample_opts o, other;
    struct apr_spec_opts given, resolved;
    static size_t plain[N_TEXT][32], judged[N_TEXT][32];
    (void)state;
    open_scene(&sc);
    apr_sample_defaults(&o);
    o.temperature = 2;
    o.top_k = 12;
    o.repeat_penalty = 1.5;
    o.xtc_probability = 0.3;
    other = o;
    other.temperature = 1.2;
    const struct apr_sampler_site site = {sc.s.model->config.n_vocab, sc.s.n_ctx, sc.s.kern, sc.s.tok};
    OK(apr_sampler_init(&sampler, &o, &site, &sc.arena, &err));
    count_texts(&sc, &sampler, NULL, 1, plain);
    OK(apr_draft_open(&d, MODEL, &sc.engine, &sc.s, &other, &sc.ctx, &err));
    apr_spec_defaults(&given);
    given.draft = MODEL;
    given.n_min = given.n_max = N_TEXT;
    given.p_min = 0;
    OK(apr_spec_resolve(&given, &resolved, &err));
    OK(apr_spec_open(&spec, &resolved, &d, sc.s.model->config.n_vocab, &sc.arena, &err));
    count_texts(&sc, &sampler, &spec, 1u << 20, judged);
    /* Both kinds of outcome came up often. */
    assert_true(spec.stats.n_proposed > N_RUNS && spec.stats.n_accepted > N_RUNS / 8);
    assert_true(spec.stats.n_proposed - spec.stats.n_accepted > N_RUNS / 8);
    for (size_t i = 0; i < N_TEXT; i++) {
        double z = z_between(plain[i], judged[i]);
        if (!(z < 4)) fail_msg("token %zu: z %g", i, z);
    }
    apr_spec_close(&spec);
    apr_draft_close(&d);
    close_scene(&sc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_vocabulary),
        cmocka_unit_test(guesses_depend_on_the_text_alone),
        cmocka_unit_test(guesses_carry_their_distribution),
        cmocka_unit_test(sampled_texts_are_distributed_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Running one test of bench. */
#include "bench.h"

#include <stdio.h>
#include <string.h>

#include "ckd.h"

/* Buffers of a test. */
struct work {
    struct apr_bench *b;
    const struct apr_bench_test *t;
    int32_t *ids;      /* [depth + prompt + gen] */
    float *logits;     /* [n_vocab] */
    double *run_s;     /* [n_repetitions] */
    double *rates;     /* [n_repetitions] */
    double *latencies; /* [n_latencies] milliseconds */
    size_t n_latencies;
};

static double ms_since(int64_t ns)
{
    return (double)(apr_now_ns() - ns) * 1e-6;
}

/* xorshift64 */
void apr_bench_draw(uint32_t n_vocab, int32_t *ids, size_t n)
{
    uint64_t x = UINT64_C(0x9e3779b97f4a7c15);
    for (size_t i = 0; i < n; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        ids[i] = (int32_t)((x >> 11) % n_vocab);
    }
}

static void choose_tokens(const struct apr_bench *b, int32_t *ids, size_t n)
{
    if (!b->text) {
        apr_bench_draw(b->session->model->config.n_vocab, ids, n);
        return;
    }
    for (size_t i = 0; i < n; i++) ids[i] = b->text->at[i % b->text->n];
}

static enum apr_code step(const struct work *w, const int32_t *ids, size_t n, struct apr_err *e)
{
    struct apr_session *s = w->b->session;
    TRY(apr_forward_prompt(&s->fwd, &s->cache, ids, n, e));
    return apr_forward_logits(&s->fwd, s->fwd.n_toks - 1, 1, w->logits, e);
}

/* Latencies of made tokens are kept where they are the test. */
static enum apr_code repetition(struct work *w, bool is_kept, double *seconds, struct apr_err *e)
{
    const struct apr_bench_test *t = w->t;
    struct apr_session *s = w->b->session;
    size_t n_fixed = s->cache.n_pos < t->n_depth ? s->cache.n_pos : t->n_depth;
    apr_cache_truncate(&s->cache, n_fixed);
    if (n_fixed < t->n_depth)
        TRY(apr_forward_prompt(&s->fwd, &s->cache, w->ids + n_fixed, t->n_depth - n_fixed, e));
    const int32_t *ids = w->ids + t->n_depth;
    int64_t ns_start = apr_now_ns();
    if (t->n_prompt) TRY(step(w, ids, t->n_prompt, e));
    for (size_t i = 0; i < t->n_gen; i++) {
        int64_t ns_token = apr_now_ns();
        TRY(step(w, ids + t->n_prompt + i, 1, e));
        if (is_kept && !t->n_prompt) w->latencies[w->n_latencies++] = ms_since(ns_token);
    }
    double ms = ms_since(ns_start);
    *seconds = ms * 1e-3;
    if (is_kept && t->n_prompt) w->latencies[w->n_latencies++] = ms;
    return APR_OK;
}

static enum apr_code work_alloc(struct work *w, struct apr_arena *arena, struct apr_err *e)
{
    const struct apr_bench_test *t = w->t;
    size_t n_reps = (size_t)w->b->n_repetitions, n_each = t->n_prompt ? 1 : t->n_gen, n_toks, n;
    if (ckd_add(&n_toks, t->n_depth, t->n_prompt) || ckd_add(&n_toks, n_toks, t->n_gen) ||
        ckd_mul(&n, n_reps, n_each))
        return apr_fail(e, APR_EUSAGE, "the test has too many tokens");
    TRY(apr_arena_try(arena, &w->ids, n_toks, sizeof *w->ids, "tokens", e));
    TRY(apr_arena_try(arena, &w->logits, w->b->session->model->config.n_vocab, sizeof *w->logits, "logits",
                      e));
    TRY(apr_arena_try(arena, &w->run_s, n_reps, sizeof *w->run_s, "timings", e));
    TRY(apr_arena_try(arena, &w->rates, n_reps, sizeof *w->rates, "timings", e));
    TRY(apr_arena_try(arena, &w->latencies, n, sizeof *w->latencies, "timings", e));
    choose_tokens(w->b, w->ids, n_toks);
    return APR_OK;
}

static void describe(const struct apr_session *s, struct apr_bench_row *row, struct apr_arena *arena)
{
    const struct apr_model *m = s->model;
    uint64_t n_bytes_of[APR_N_TYPES] = {0};
    size_t i_most = 0;
    for (uint64_t i = 0; i < m->n_tensors; i++) {
        const struct apr_tensor *t = &m->tensors[i];
        row->n_model_bytes += t->n_bytes;
        row->n_params += apr_tensor_elems(t);
        if ((size_t)t->type < APR_N_TYPES) n_bytes_of[t->type] += t->n_bytes;
    }
    for (size_t i = 0; i < APR_N_TYPES; i++)
        if (n_bytes_of[i] > n_bytes_of[i_most]) i_most = i;
    row->model = apr_arena_strdup(arena, m->name);
    row->type = apr_type_name((uint32_t)i_most);
    row->kernels = s->fwd.offload ? apr_arena_strdup(arena, apr_offload_name(s->fwd.offload)) : s->kern->name;
    row->n_token_bytes = s->fwd.w.n_bytes;
    row->k_type = s->blocks.types.at[APR_CACHE_K]->name;
    row->v_type = s->blocks.types.at[s->blocks.v_dim ? APR_CACHE_V : APR_CACHE_K]->name;
    row->n_cache_bytes = apr_cache_bytes(&s->cache, s->cache.n_pos);
    row->n_threads = apr_pool_threads(s->pool);
    row->n_chunk = s->fwd.n_batch;
    row->load_s = s->load_s;
}

enum apr_code apr_bench_run(struct apr_bench *b, const struct apr_bench_test *t, struct apr_bench_row *row,
                            struct apr_arena *arena, struct apr_err *e)
{
    struct work w = {.b = b, .t = t};
    double *samples, seconds;
    size_t n = (size_t)b->n_repetitions, n_toks = t->n_prompt + t->n_gen;
    *row = (struct apr_bench_row){.test = *t, .n = n};
    TRY(work_alloc(&w, arena, e));
    TRY(apr_arena_try(arena, &samples, n, sizeof *samples, "timings", e));
    apr_cache_truncate(&b->session->cache, 0);
    for (uint64_t i = 0; i < b->n_warmup; i++) TRY(repetition(&w, false, &seconds, e));
    for (size_t i = 0; i < n; i++) {
        TRY(repetition(&w, true, &w.run_s[i], e));
        samples[i] = w.rates[i] = w.run_s[i] > 0 ? (double)n_toks / w.run_s[i] : 0;
    }
    row->samples = samples;
    row->rate = apr_summary_of(w.rates, n);
    row->run_s = apr_summary_of(w.run_s, n);
    row->latency_ms = apr_summary_of(w.latencies, w.n_latencies);
    describe(b->session, row, arena);
    return APR_OK;
}

const char *apr_bench_name(const struct apr_bench_test *t, char *out, size_t n_out)
{
    char prompt[32] = "", gen[32] = "", depth[32] = "";
    if (t->n_prompt) (void)snprintf(prompt, sizeof prompt, "pp%zu", t->n_prompt);
    if (t->n_gen) (void)snprintf(gen, sizeof gen, "tg%zu", t->n_gen);
    if (t->n_depth) (void)snprintf(depth, sizeof depth, " @ d%zu", t->n_depth);
    (void)snprintf(out, n_out, "%s%s%s%s", prompt, *prompt && *gen ? "+" : "", gen, depth);
    return out;
}

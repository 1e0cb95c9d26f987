/* Running one test of bench. */
#include "bench.h"

#include <stdio.h>
#include <string.h>

#include "ckd.h"

/* Buffers of a test. */
struct work {
    struct apr_bench *b;
    const struct apr_bench_test *t;
    int32_t *ids;           /* [sequences, depth + prompt + gen] */
    float *logits;          /* [sequences, n_vocab] */
    struct apr_part *parts; /* [sequences] */
    int32_t *next, *chosen; /* [sequences] and [sequences, APR_N_AHEAD] of a device */
    bool is_stepped;        /* the device has no way of its own */
    double *run_s;          /* [n_repetitions] */
    double *rates;          /* [n_repetitions] */
    double *latencies;      /* [n_latencies] milliseconds */
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

static size_t n_sequences(const struct apr_bench_test *t)
{
    return t->n_seqs ? t->n_seqs : 1;
}

static struct apr_cache *cache_of(const struct work *w, size_t i_seq)
{
    return w->t->n_seqs ? &w->b->seqs[i_seq] : &w->b->session->cache;
}

static const int32_t *ids_of(const struct work *w, size_t i_seq)
{
    return w->ids + i_seq * (w->t->n_depth + w->t->n_prompt + w->t->n_gen);
}

/* The cache holds the tokens of the depth and nothing else. */
static enum apr_code fill(const struct work *w, size_t i_seq, struct apr_err *e)
{
    struct apr_cache *c = cache_of(w, i_seq);
    size_t n_fixed = c->n_pos < w->t->n_depth ? c->n_pos : w->t->n_depth;
    apr_cache_truncate(c, n_fixed);
    if (c->is_lost) apr_cache_truncate(c, n_fixed = 0); /* now, not in the time that is measured */
    if (n_fixed == w->t->n_depth) return APR_OK;
    return apr_forward_prompt(&w->b->session->fwd, c, ids_of(w, i_seq) + n_fixed, w->t->n_depth - n_fixed, e);
}

/* The next token of every sequence, with its logits. */
static enum apr_code step_together(const struct work *w, size_t i_gen, struct apr_err *e)
{
    struct apr_forward *f = &w->b->session->fwd;
    for (size_t i = 0; i < w->t->n_seqs; i++)
        w->parts[i] =
            (struct apr_part){.cache = cache_of(w, i), .ids = ids_of(w, i) + w->t->n_depth + i_gen, .n = 1};
    TRY(apr_forward_step(f, w->parts, w->t->n_seqs, e));
    if (!f->offload) return apr_forward_logits(f, 0, w->t->n_seqs, w->logits, e);
    for (size_t i = 0; i < w->t->n_seqs; i++) TRY(apr_forward_check(f, i, i, apr_forward_kept(f, i), e));
    return APR_OK;
}

/* A device goes on alone, as it does for apr run and apr batch. */
static bool goes_alone(const struct work *w)
{
    const struct apr_forward *f = &w->b->session->fwd;
    return f->offload && !f->c.exact && !w->is_stepped;
}

/* Tokens of a sequence that one step of the host makes, at most. */
static size_t n_in_one_go(const struct work *w)
{
    if (!goes_alone(w)) return 1;
    return w->t->n_gen < APR_N_AHEAD ? w->t->n_gen : APR_N_AHEAD;
}

/* The device's tokens from here on: next of each sequence, and n - 1 that it chooses. next becomes what
 * follows. */
static enum apr_code go_alone(const struct work *w, size_t n, size_t *n_made, struct apr_err *e)
{
    const size_t n_seqs = n_sequences(w->t);
    for (size_t i = 0; i < n_seqs; i++)
        w->parts[i] = (struct apr_part){.cache = cache_of(w, i), .ids = &w->next[i], .n = 1};
    TRY(apr_offload_ahead_rows(w->b->session->fwd.offload, w->parts, NULL, n_seqs, n, w->chosen, n_made, e));
    for (size_t i = 0; i < n_seqs; i++) w->next[i] = w->chosen[i * APR_N_AHEAD + *n_made - 1];
    return APR_OK;
}

/* Tokens i_gen .. of every sequence: one, or as many as the device makes in one go. */
static enum apr_code make(struct work *w, size_t i_gen, size_t *n_made, struct apr_err *e)
{
    const struct apr_bench_test *t = w->t;
    if (goes_alone(w)) {
        enum apr_code code = go_alone(w, t->n_gen - i_gen, n_made, e);
        if (code != APR_EUNAVAIL) return code;
        w->is_stepped = true; /* no kernels for batches of its types */
    }
    *n_made = 1;
    if (t->n_seqs) return step_together(w, i_gen, e);
    return step(w, w->ids + t->n_depth + t->n_prompt + i_gen, 1, e);
}

/* Latencies of made tokens are kept where they are the test. */
static enum apr_code repetition(struct work *w, bool is_kept, double *seconds, struct apr_err *e)
{
    const struct apr_bench_test *t = w->t;
    size_t n_made;
    for (size_t i = 0; i < n_sequences(t); i++) TRY(fill(w, i, e));
    const int32_t *ids = w->ids + t->n_depth;
    for (size_t i = 0; i < n_sequences(t) && t->n_gen; i++)
        w->next[i] = ids_of(w, i)[t->n_depth + t->n_prompt];
    int64_t ns_start = apr_now_ns();
    if (t->n_prompt) TRY(step(w, ids, t->n_prompt, e));
    for (size_t i = 0; i < t->n_gen; i += n_made) {
        int64_t ns_made = apr_now_ns();
        TRY(make(w, i, &n_made, e));
        if (is_kept && !t->n_prompt) w->latencies[w->n_latencies++] = ms_since(ns_made) / (double)n_made;
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
    size_t n_seqs = n_sequences(t);
    if (ckd_add(&n_toks, t->n_depth, t->n_prompt) || ckd_add(&n_toks, n_toks, t->n_gen) ||
        ckd_mul(&n_toks, n_toks, n_seqs) || ckd_mul(&n, n_reps, n_each))
        return apr_fail(e, APR_EUSAGE, "the test has too many tokens");
    TRY(apr_arena_try(arena, &w->ids, n_toks, sizeof *w->ids, "tokens", e));
    TRY(apr_arena_try(arena, &w->parts, n_seqs, sizeof *w->parts, "sequences", e));
    TRY(apr_arena_try(arena, &w->next, n_seqs, sizeof *w->next, "tokens", e));
    TRY(apr_arena_try(arena, &w->chosen, n_seqs, APR_N_AHEAD * sizeof *w->chosen, "tokens", e));
    TRY(apr_arena_try(arena, &w->logits, n_seqs, w->b->session->model->config.n_vocab * sizeof *w->logits,
                      "logits", e));
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
    row->n_threads = apr_pool_threads(s->pool);
    row->n_chunk = s->fwd.n_batch;
    row->load_s = s->load_s;
}

enum apr_code apr_bench_run(struct apr_bench *b, const struct apr_bench_test *t, struct apr_bench_row *row,
                            struct apr_arena *arena, struct apr_err *e)
{
    struct work w = {.b = b, .t = t};
    double *samples, seconds;
    size_t n = (size_t)b->n_repetitions, n_toks = n_sequences(t) * (t->n_prompt + t->n_gen);
    *row = (struct apr_bench_row){.test = *t, .n = n};
    TRY(work_alloc(&w, arena, e));
    TRY(apr_arena_try(arena, &samples, n, sizeof *samples, "timings", e));
    for (size_t i = 0; i < n_sequences(t); i++) apr_cache_truncate(cache_of(&w, i), 0);
    for (uint64_t i = 0; i < b->n_warmup; i++) TRY(repetition(&w, false, &seconds, e));
    for (size_t i = 0; i < n; i++) {
        TRY(repetition(&w, true, &w.run_s[i], e));
        samples[i] = w.rates[i] = w.run_s[i] > 0 ? (double)n_toks / w.run_s[i] : 0;
    }
    row->samples = samples;
    row->n_latency_toks = t->n_prompt ? 0 : n_in_one_go(&w);
    row->rate = apr_summary_of(w.rates, n);
    row->run_s = apr_summary_of(w.run_s, n);
    row->latency_ms = apr_summary_of(w.latencies, w.n_latencies);
    describe(b->session, row, arena);
    row->n_cache_bytes = n_sequences(t) * apr_cache_bytes(cache_of(&w, 0), cache_of(&w, 0)->n_pos);
    return APR_OK;
}

enum apr_code apr_bench_seqs(struct apr_bench *b, size_t n, size_t n_pos, struct apr_arena *arena,
                             struct apr_err *e)
{
    struct apr_session *s = b->session;
    size_t n_all;
    if (n > s->fwd.n_batch)
        return apr_fail(e, APR_EUSAGE, "%zu sequences do not fit steps of %zu tokens (--prefill-chunk)", n,
                        s->fwd.n_batch);
    if (ckd_add(&n_all, n_pos, (size_t)APR_PAGE_POS) || ckd_mul(&n_all, n_all, n))
        return apr_fail(e, APR_EUSAGE, "%zu sequences of %zu positions are too many", n, n_pos);
    TRY(apr_arena_try(arena, &b->seqs, n, sizeof *b->seqs, "sequences", e));
    b->n_seqs = n;
    apr_blocks_allow(&s->blocks, n_all);
    for (size_t i = 0; i < n; i++) TRY(apr_cache_init(&b->seqs[i], &s->blocks, n_pos, e));
    return APR_OK;
}

void apr_bench_seqs_free(struct apr_bench *b)
{
    for (size_t i = 0; i < b->n_seqs; i++) apr_cache_free(&b->seqs[i]);
    b->n_seqs = 0;
}

const char *apr_bench_name(const struct apr_bench_test *t, char *out, size_t n_out)
{
    char prompt[32] = "", gen[32] = "", seqs[32] = "", depth[32] = "";
    if (t->n_prompt) (void)snprintf(prompt, sizeof prompt, "pp%zu", t->n_prompt);
    if (t->n_gen) (void)snprintf(gen, sizeof gen, "tg%zu", t->n_gen);
    if (t->n_seqs) (void)snprintf(seqs, sizeof seqs, " x %zu", t->n_seqs);
    if (t->n_depth) (void)snprintf(depth, sizeof depth, " @ d%zu", t->n_depth);
    (void)snprintf(out, n_out, "%s%s%s%s%s", prompt, *prompt && *gen ? "+" : "", gen, seqs, depth);
    return out;
}

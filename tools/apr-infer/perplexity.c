/* Perplexity and divergence. */
#include "perplexity.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define N_ROWS     32u /* tokens whose logits are held */
#define MAX_KL_LEN ((size_t)1 << 34)

/* What one predicted token gives. */
struct judged {
    double nll, ref_nll, kl, dp;
    bool same_top;
};

struct rows {
    const struct apr_kern *kern;
    size_t n_vocab;
    const float *logits, *ref; /* [N_ROWS, n_vocab]; ref NULL without a reference */
    const int32_t *next;       /* [N_ROWS] the tokens that are predicted */
    struct judged judged[N_ROWS];
};

struct rows_from {
    float *to; /* [n_rows, n_vocab] */
    size_t n_vocab;
};

struct run {
    struct apr_ppl *p;
    struct apr_session *s, *ref; /* ref or NULL */
    float *logits, *ref_logits;
    struct rows rows;
    size_t i_window;
    size_t n_batch;
};

static void nll_add(struct apr_nll *n, double nll)
{
    n->sum += nll;
    n->sum_sq += nll * nll;
    n->n++;
}

/* ln of the sum of exp(logits), and where the largest is. */
static double log_sum(const struct apr_kern *kern, const float *logits, size_t n_vocab, size_t *i_max)
{
    double max = (double)kern->max(logits, n_vocab, i_max), sum = 0;
    for (size_t i = 0; i < n_vocab; i++)
        if (i != *i_max) sum += exp((double)logits[i] - max);
    return max + log1p(sum);
}

double apr_nll_of(const struct apr_kern *kern, const float *logits, size_t n_vocab, int32_t id)
{
    size_t i_max;
    double max = (double)kern->max(logits, n_vocab, &i_max), sum = 0;
    for (size_t i = 0; i < n_vocab; i++)
        if (i != i_max) sum += exp((double)logits[i] - max);
    return log1p(sum) - ((double)logits[id] - max);
}

static void compare(const struct rows *r, size_t i_row, struct judged *j)
{
    const float *m = r->logits + i_row * r->n_vocab, *ref = r->ref + i_row * r->n_vocab;
    size_t i_max, i_max_ref;
    double log_z = log_sum(r->kern, m, r->n_vocab, &i_max),
           log_z_ref = log_sum(r->kern, ref, r->n_vocab, &i_max_ref), kl = 0;
    for (size_t i = 0; i < r->n_vocab; i++) {
        double lp_ref = (double)ref[i] - log_z_ref;
        kl += exp(lp_ref) * (lp_ref - ((double)m[i] - log_z));
    }
    j->ref_nll = apr_nll_of(r->kern, ref, r->n_vocab, r->next[i_row]);
    j->kl = kl > 0 ? kl : 0; /* rounding may leave it below */
    j->dp = exp(-j->nll) - exp(-j->ref_nll);
    j->same_top = i_max == i_max_ref;
}

static void judge_task(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    struct rows *r = ctx;
    (void)i_thread;
    for (size_t i = i_begin; i < i_end; i++) {
        r->judged[i].nll = apr_nll_of(r->kern, r->logits + i * r->n_vocab, r->n_vocab, r->next[i]);
        if (r->ref) compare(r, i, &r->judged[i]);
    }
}

/* Token i_next of the window was predicted. */
static enum apr_code count(struct run *r, size_t i_next, const struct judged *j, struct apr_err *e)
{
    struct apr_ppl *p = r->p;
    bool is_strided = p->stride < p->window;
    bool in_second = !is_strided && i_next > p->window / 2;
    if (is_strided && r->i_window && i_next < p->window - p->stride) return APR_OK;
    nll_add(&p->all, j->nll);
    if (in_second) nll_add(&p->second_half, j->nll);
    if (!r->ref) return APR_OK;
    nll_add(&p->ref_all, j->ref_nll);
    if (in_second) nll_add(&p->ref_second_half, j->ref_nll);
    if (p->kl_of_second_half && !in_second) return APR_OK;
    p->n_same_top += j->same_top;
    p->dp_sum += j->dp;
    p->dp_sum_sq += j->dp * j->dp;
    return apr_buf_append(&p->kls, &j->kl, sizeof j->kl, e);
}

static enum apr_code take_rows(void *ctx, size_t i_tok, size_t n_rows, const float *logits, struct apr_err *e)
{
    const struct rows_from *from = ctx;
    (void)e;
    memcpy(from->to + i_tok * from->n_vocab, logits, n_rows * from->n_vocab * sizeof *logits);
    return APR_OK;
}

/* A device computes tokens and logits at once, at most N_ROWS; otherwise the logits are of rows i .. of the
 * chunk that begins at ids and has been run. */
static enum apr_code get_rows(struct apr_session *s, const int32_t *ids, size_t i, size_t n_rows,
                              float *logits, struct apr_err *e)
{
    struct rows_from from = {.to = logits, .n_vocab = s->model->config.n_vocab};
    if (!s->fwd.offload) return apr_forward_logits(&s->fwd, i, n_rows, logits, e);
    return apr_forward_all_logits(&s->fwd, &s->cache, ids, n_rows, take_rows, &from, e);
}

static enum apr_code run_chunk(struct apr_session *s, const int32_t *ids, size_t n, struct apr_err *e)
{
    return s->fwd.offload ? APR_OK : apr_forward_chunk(&s->fwd, &s->cache, ids, n, e);
}

/* The chunk that both models have just run: tokens i_tok .. of the window, which are at. */
static enum apr_code judge_chunk(struct run *r, const int32_t *ids, const int32_t *at, size_t i_tok, size_t n,
                                 struct apr_err *e)
{
    for (size_t i = 0; i < n; i += N_ROWS) {
        size_t n_rows = n - i < N_ROWS ? n - i : N_ROWS, i_first = i_tok + i + 1;
        TRY(get_rows(r->s, at, i, n_rows, r->logits, e));
        if (r->ref) TRY(get_rows(r->ref, at, i, n_rows, r->ref_logits, e));
        if (i_first + n_rows > r->p->window) n_rows = r->p->window - i_first;
        r->rows.next = ids + i_first;
        apr_parallel_for(r->s->pool, n_rows, 1, judge_task, &r->rows);
        for (size_t k = 0; k < n_rows; k++) TRY(count(r, i_first + k, &r->rows.judged[k], e));
    }
    return APR_OK;
}

static enum apr_code one_window(struct run *r, const int32_t *ids, struct apr_err *e)
{
    struct apr_ppl *p = r->p;
    int32_t bos = (int32_t)p->bos;
    apr_cache_truncate(&r->s->cache, 0);
    if (r->ref) apr_cache_truncate(&r->ref->cache, 0);
    for (size_t i = 0, n; i < p->window; i += n) {
        bool is_bos = i == 0 && p->bos >= 0;
        n = is_bos ? 1 : p->window - i < r->n_batch ? p->window - i : r->n_batch;
        const int32_t *at = is_bos ? &bos : ids + i;
        TRY(run_chunk(r->s, at, n, e));
        if (r->ref) TRY(run_chunk(r->ref, at, n, e));
        TRY(judge_chunk(r, ids, at, i, n, e));
    }
    p->n_windows++;
    p->n_toks += p->window;
    r->i_window++;
    return APR_OK;
}

static enum apr_code run_open(struct run *r, struct apr_arena *arena, struct apr_err *e)
{
    const struct apr_model *m = r->s->model;
    size_t n_vocab = m->config.n_vocab;
    r->n_batch = r->s->fwd.n_batch;
    if (r->ref && r->ref->model->config.n_vocab != n_vocab)
        return apr_fail(e, APR_ELOAD,
                        "%s has %zu tokens, %s has %" PRIu32 ": their predictions cannot be compared",
                        m->path, n_vocab, r->ref->model->path, r->ref->model->config.n_vocab);
    if (r->ref && r->ref->fwd.n_batch < r->n_batch) r->n_batch = r->ref->fwd.n_batch;
    TRY(apr_session_fits(r->s, r->p->window, 0, e));
    if (r->ref) TRY(apr_session_fits(r->ref, r->p->window, 0, e));
    size_t n_rows = r->n_batch < N_ROWS ? r->n_batch : N_ROWS;
    if (r->s->fwd.offload || (r->ref && r->ref->fwd.offload)) r->n_batch = n_rows;
    TRY(apr_arena_try(arena, &r->logits, n_rows * n_vocab, sizeof(float), "logits", e));
    if (r->ref) TRY(apr_arena_try(arena, &r->ref_logits, n_rows * n_vocab, sizeof(float), "logits", e));
    r->rows =
        (struct rows){.kern = r->s->kern, .n_vocab = n_vocab, .logits = r->logits, .ref = r->ref_logits};
    return APR_OK;
}

enum apr_code apr_ppl_run(struct apr_ppl *p, struct apr_session *s, struct apr_session *ref,
                          const int32_t *ids, size_t n_ids, struct apr_err *e)
{
    struct run r = {.p = p, .s = s, .ref = ref};
    struct apr_progress bar;
    struct apr_arena arena;
    if (n_ids < 2) return apr_fail(e, APR_EUSAGE, "%zu tokens: perplexity needs at least 2", n_ids);
    if (n_ids < p->window) p->window = n_ids;
    if (!p->stride || p->stride > p->window) p->stride = p->window;
    apr_arena_init(&arena);
    apr_buf_init(&p->kls, MAX_KL_LEN);
    enum apr_code code = run_open(&r, &arena, e);
    int64_t ns_start = apr_now_ns();
    apr_progress_begin(&bar, "perplexity", ((n_ids - p->window) / p->stride + 1) * p->window, "tokens");
    for (size_t i = 0; code == APR_OK && n_ids - i >= p->window; i += p->stride) {
        code = one_window(&r, ids + i, e);
        apr_progress_add(&bar, p->window);
        if (p->stride > n_ids - i) break;
    }
    apr_progress_end(&bar);
    p->compute_s = (double)(apr_now_ns() - ns_start) * 1e-9;
    apr_arena_free(&arena);
    return code;
}

void apr_ppl_free(struct apr_ppl *p)
{
    apr_buf_free(&p->kls);
}

double apr_nll_ppl(const struct apr_nll *n)
{
    return n->n ? exp(n->sum / (double)n->n) : (double)NAN;
}

double apr_nll_stderr(const struct apr_nll *n)
{
    if (n->n < 2) return 0;
    double mean = n->sum / (double)n->n, var = n->sum_sq / (double)n->n - mean * mean;
    return var > 0 ? sqrt(var / (double)(n->n - 1)) * exp(mean) : 0;
}

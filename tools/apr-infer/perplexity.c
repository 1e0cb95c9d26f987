/* Perplexity. */
#include "perplexity.h"

#include <math.h>

struct window {
    struct apr_ppl *p;
    const int32_t *ids; /* of the window */
    size_t n_vocab;
    const struct apr_kern *kern;
};

static void nll_add(struct apr_nll *n, double nll)
{
    n->sum += nll;
    n->sum_sq += nll * nll;
    n->n++;
}

/* -ln softmax(logits)[id] */
static double nll_of(const struct window *w, const float *logits, int32_t id)
{
    size_t i_max;
    double max = (double)w->kern->max(logits, w->n_vocab, &i_max), sum = 0;
    for (size_t i = 0; i < w->n_vocab; i++)
        if (i != i_max) sum += exp((double)logits[i] - max);
    return log1p(sum) - ((double)logits[id] - max);
}

static enum apr_code take_rows(void *ctx, size_t i_tok, size_t n_rows, const float *logits, struct apr_err *e)
{
    const struct window *w = ctx;
    (void)e;
    for (size_t r = 0; r < n_rows; r++) {
        size_t i_next = i_tok + r + 1;
        if (i_next >= w->p->window) break;
        double nll = nll_of(w, logits + r * w->n_vocab, w->ids[i_next]);
        nll_add(&w->p->all, nll);
        if (i_next > w->p->window / 2) nll_add(&w->p->second_half, nll);
    }
    return APR_OK;
}

enum apr_code apr_ppl_run(struct apr_ppl *p, struct apr_session *s, const int32_t *ids, size_t n_ids,
                          size_t window, struct apr_err *e)
{
    *p = (struct apr_ppl){.window = n_ids < window ? n_ids : window};
    if (n_ids < 2) return apr_fail(e, APR_EUSAGE, "%zu tokens: perplexity needs at least 2", n_ids);
    TRY(apr_session_fits(s, p->window, 0, e));
    int64_t ns_start = apr_now_ns();
    struct apr_progress bar;
    apr_progress_begin(&bar, "perplexity", n_ids / p->window * p->window, "tokens");
    enum apr_code code = APR_OK;
    for (size_t i = 0; n_ids - i >= p->window && code == APR_OK; i += p->window) {
        struct window w = {.p = p, .ids = ids + i, .n_vocab = s->model->config.n_vocab, .kern = s->kern};
        apr_cache_truncate(&s->cache, 0);
        code = apr_forward_all_logits(&s->fwd, &s->cache, w.ids, p->window, take_rows, &w, e);
        p->n_windows++;
        p->n_toks += p->window;
        apr_progress_add(&bar, p->window);
    }
    apr_progress_end(&bar);
    p->compute_s = (double)(apr_now_ns() - ns_start) * 1e-9;
    return code;
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

/* Watching the residual stream. */
#include "trace.h"

#include <math.h>
#include <string.h>

static void take(struct apr_trace *t, uint32_t i_point, const float *x)
{
    const struct apr_forward *f = &t->session->fwd;
    size_t n = f->w.cfg->n_hidden;
    struct apr_trace_point *p = &t->points[i_point];
    for (size_t i = 0; i < f->n_toks; i++) f->c.kern->stats(x + i * n, n, &p->stats);
    memcpy(p->last, x + (f->n_toks - 1) * n, n * sizeof *x);
}

static void probe(void *ctx, enum apr_op op, uint32_t i_layer)
{
    struct apr_trace *t = ctx;
    const struct apr_forward *f = &t->session->fwd;
    if (t->inside) apr_inside_see(t->inside, op, i_layer);
    if (op == APR_OP_EMBED) take(t, 0, f->x);
    if (op != APR_OP_FFN_ADD) return;
    take(t, i_layer + 1, f->x);
    if (i_layer + 1 < f->w.cfg->n_layers) return;
    apr_forward_hidden(f, 0, f->n_toks, t->rows);
    take(t, i_layer + 2, t->rows);
}

enum apr_code apr_trace_run(struct apr_trace *t, struct apr_session *s, const int32_t *ids, size_t n_ids,
                            struct apr_inside *inside, struct apr_arena *arena, struct apr_err *e)
{
    size_t n_hidden = s->model->config.n_hidden;
    *t = (struct apr_trace){.session = s, .inside = inside, .n_points = s->model->config.n_layers + 2};
    if (!n_ids) return apr_fail(e, APR_EUSAGE, "the prompt has no tokens");
    TRY(apr_session_fits(s, n_ids, 0, e));
    TRY(apr_arena_try(arena, &t->points, t->n_points, sizeof *t->points, "layers", e));
    TRY(apr_arena_try(arena, &t->rows, s->fwd.n_batch, n_hidden * sizeof *t->rows, "hidden states", e));
    for (uint32_t i = 0; i < t->n_points; i++) {
        apr_stats_init(&t->points[i].stats);
        TRY(apr_arena_try(arena, &t->points[i].last, n_hidden, sizeof *t->rows, "hidden states", e));
    }
    apr_cache_truncate(&s->cache, 0);
    s->fwd.probe = probe;
    s->fwd.probe_ctx = t;
    enum apr_code code = apr_forward_prompt(&s->fwd, &s->cache, ids, n_ids, e);
    s->fwd.probe = NULL;
    if (code == APR_OK && inside) code = apr_inside_cached(inside, &s->cache, arena, e);
    return code;
}

static double n_finite(const struct apr_stats *s)
{
    return (double)(s->n - s->n_nan - s->n_inf);
}

double apr_stats_mean(const struct apr_stats *s)
{
    double n = n_finite(s);
    return n > 0 ? s->sum / n : 0;
}

double apr_stats_sd(const struct apr_stats *s)
{
    double n = n_finite(s), mean = apr_stats_mean(s), var = n > 0 ? s->sum_sq / n - mean * mean : 0;
    return var > 0 ? sqrt(var) : 0;
}

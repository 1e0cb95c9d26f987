/* Opening and closing. */
#include "speculate.h"

enum apr_code apr_speculate_open(struct apr_speculate *sp, const struct apr_spec_opts *opts,
                                 const struct apr_engine_opts *engine, const struct apr_session *s,
                                 const struct apr_sampler *sampler, const struct apr_ctx *ctx,
                                 struct apr_err *e)
{
    struct apr_spec_opts o;
    struct apr_draft *draft = opts->draft ? &sp->draft : NULL;
    *sp = (struct apr_speculate){.is_on = false};
    if (!apr_spec_is_on(opts)) return APR_OK;
    TRY(apr_spec_resolve(opts, &o, e));
    int64_t n_most = (int64_t)s->fwd.n_batch - 1; /* a step is one chunk */
    if (o.n_max > n_most) o.n_max = n_most;
    if (o.n_min > n_most) o.n_min = n_most;
    if (draft) TRY(apr_draft_open(draft, o.draft, engine, s, &sampler->opts, ctx, e));
    enum apr_code code = apr_spec_open(&sp->spec, &o, draft, s->model->config.n_vocab, ctx->arena, e);
    sp->is_on = code == APR_OK;
    if (code != APR_OK && draft) apr_draft_close(draft);
    return code;
}

void apr_speculate_close(struct apr_speculate *sp)
{
    if (!sp->is_on) return;
    apr_spec_close(&sp->spec);
    if (sp->spec.draft) apr_draft_close(&sp->draft);
    sp->is_on = false;
}

struct apr_spec *apr_speculate_spec(struct apr_speculate *sp)
{
    return sp->is_on ? &sp->spec : NULL;
}

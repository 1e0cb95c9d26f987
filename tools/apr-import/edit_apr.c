/* The beginning of an .apr anew: metadata built from the model with the user's values, everything else the
 * same. */
#include <inttypes.h>
#include <string.h>

#include "edit.h"
#include "fmt/apr.h"
#include "fmt/apr_meta.h"
#include "plan.h"

/* Data stays where it is, so the plan must come to the same places. */
static enum apr_code check_places(const struct apr_model *m, const struct apr_plan *p, struct apr_err *e)
{
    for (uint64_t i = 0; i < p->n_tensors; i++) {
        const struct apr_tensor *t = p->tensors[i].src;
        if (t->off_file - m->header.off_data == p->tensors[i].off_data && t->n_bytes == p->tensors[i].n_bytes)
            continue;
        return apr_fail(
            e, APR_ECONTRACT,
            "%s: tensor %s lies in another place or packing than apr writes; convert the file first", m->path,
            t->name);
    }
    return APR_OK;
}

static enum apr_code make_head(struct edit *d, struct apr_plan *plan, struct apr_err *e)
{
    struct apr_sink *s;
    struct apr_writer *w;
    apr_sink_mem(&s, &d->head);
    enum apr_code code = apr_fmt_named("apr")->begin(plan, s, &w, e);
    if (code == APR_OK) apr_fmt_named("apr")->abort(w);
    enum apr_code finished = apr_sink_finish(s, code == APR_OK ? e : &(struct apr_err){.code = APR_OK});
    return code != APR_OK ? code : finished;
}

enum apr_code edit_apr(struct edit *d, struct apr_model *m, struct apr_arena *a, struct apr_err *e)
{
    struct apr_plan plan = {.n_tensors = 0};
    struct apr_plan_how how = {.fmt = m->fmt};
    json_t *meta = NULL;
    if (m->header.flags & (APR_FLAG_LZ4 | APR_FLAG_ZSTD))
        return apr_fail(e, APR_EUSAGE, "%s: is compressed; apr convert --set writes it anew", m->path);
    TRY(apr_plan_make(m, &how, a, &plan, e));
    TRY(check_places(m, &plan, e));
    TRY(apr_override_apply(d->over, m, e));
    for (size_t i = 0; i < d->unset.n; i++) TRY(apr_override_unset(d->unset.at[i], m, e));
    TRY(apr_meta_build(m, &meta, e));
    plan.meta = meta;
    plan.vocab = &m->vocab;
    enum apr_code code = make_head(d, &plan, e);
    json_decref(meta);
    d->n_old_head = m->header.off_data;
    d->has_footer = m->header.has_footer;
    return code;
}

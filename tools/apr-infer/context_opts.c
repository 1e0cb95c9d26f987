/* Checks of the options about contexts. */
#include "context_opts.h"

#include <inttypes.h>

void apr_context_defaults(struct apr_context_opts *o)
{
    *o = (struct apr_context_opts){.n_keep = APR_KEEP_OPENING};
}

enum apr_code apr_context_check(const struct apr_context_opts *o, struct apr_err *e)
{
    if (o->n_keep != APR_KEEP_OPENING && !o->shift)
        return apr_fail(e, APR_EUSAGE, "--keep does nothing without --context-shift");
    if (o->n_keep != APR_KEEP_OPENING && o->n_keep < -1)
        return apr_fail(e, APR_EUSAGE, "--keep: found %" PRId64 ", expected 0 or more, or -1", o->n_keep);
    if (!o->saved && (o->saved_all || o->saved_read_only))
        return apr_fail(e, APR_EUSAGE, "--prompt-cache-%s does nothing without --prompt-cache",
                        o->saved_all ? "all" : "ro");
    if (o->saved_all && o->saved_read_only)
        return apr_fail(e, APR_EUSAGE, "--prompt-cache-all and --prompt-cache-ro exclude each other");
    if (o->saved && !*o->saved) return apr_fail(e, APR_EUSAGE, "--prompt-cache: the name is empty");
    return APR_OK;
}

bool apr_context_wants_opening(const struct apr_context_opts *o)
{
    return o->shift && o->n_keep == APR_KEEP_OPENING;
}

enum apr_code apr_context_shift(const struct apr_context_opts *o, const struct apr_ids *opening,
                                const struct apr_ids *prompt, size_t n_ctx, struct apr_shift *shift,
                                struct apr_err *e)
{
    size_t n = 0;
    *shift = (struct apr_shift){.is_on = o->shift};
    if (!o->shift) return APR_OK;
    while (n < opening->n && n < prompt->n && opening->at[n] == prompt->at[n]) n++;
    if (o->n_keep != APR_KEEP_OPENING)
        n = o->n_keep < 0 || (uint64_t)o->n_keep > prompt->n ? prompt->n : (size_t)o->n_keep;
    shift->n_keep = n;
    return apr_shift_check(n, n_ctx, e);
}

const char *apr_context_given(const struct apr_context_opts *o)
{
    return o->shift                        ? "context-shift"
           : o->n_keep != APR_KEEP_OPENING ? "keep"
           : o->saved                      ? "prompt-cache"
           : o->saved_all                  ? "prompt-cache-all"
           : o->saved_read_only            ? "prompt-cache-ro"
                                           : NULL;
}

/* Functions that every template finds: Jinja's range, dict, namespace, joiner, and transformers'
 * raise_exception and strftime_now; see fn.h. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "fn.h"
#include "ops.h"
#include "repr.h"

#define MAX_RANGE 100000 /* as Jinja's sandbox */

#define GLOBAL(name_)                                                                                        \
    static enum apr_code name_(struct apr_jj_run *r, struct apr_jj_val self, const struct apr_jj_args *a,    \
                               struct apr_jj_val *out)

GLOBAL(g_range)
{
    int64_t from = 0, to = 0, step = 1;
    struct apr_jj_list *l = NULL;
    (void)self;
    TRY(apr_jj_arg_int(r, a->at[0], "range", &to));
    if (a->at[1].kind != APR_JJ_ABSENT) {
        from = to;
        TRY(apr_jj_arg_int(r, a->at[1], "range", &to));
    }
    TRY(apr_jj_arg_int(r, a->at[2], "range", &step));
    uint64_t span = step > 0 ? (to > from ? (uint64_t)to - (uint64_t)from : 0)
                             : (from > to ? (uint64_t)from - (uint64_t)to : 0);
    uint64_t width = step < 0 ? 0 - (uint64_t)step : (uint64_t)step;
    if (!width) return apr_jj_fail(r, "range() arg 3 must not be zero");
    uint64_t n = span / width + (span % width != 0);
    if (n > MAX_RANGE) return apr_jj_fail(r, "range too big, the maximum is %d", MAX_RANGE);
    TRY(apr_jj_list_new(r, (size_t)n, &l));
    for (uint64_t i = 0; i < n; i++)
        TRY(apr_jj_list_push(r, l, apr_jj_int((int64_t)((uint64_t)from + i * (uint64_t)step))));
    *out = apr_jj_of_list(l, APR_JJ_RANGE);
    return APR_OK;
}

/* dict(mapping, a=1) and namespace(mapping, a=1). */
static enum apr_code make_dict(struct apr_jj_run *r, const struct apr_jj_args *a, struct apr_jj_dict **out)
{
    TRY(apr_jj_dict_new(r, out));
    if (a->n > 1) return apr_jj_fail(r, "dict() takes at most one positional argument");
    if (a->n && a->at[0].kind == APR_JJ_DICT) {
        const struct apr_jj_dict *d = a->at[0].u.d;
        for (size_t i = 0; i < d->n; i++) TRY(apr_jj_dict_set(r, *out, d->at[i].key, d->at[i].v));
    } else if (a->n) {
        const struct apr_jj_list *l = NULL, *pair = NULL;
        TRY(apr_jj_items(r, a->at[0], &l));
        for (size_t i = 0; i < l->n; i++) {
            TRY(apr_jj_items(r, l->at[i], &pair));
            if (pair->n != 2) return apr_jj_fail(r, "dict() needs pairs, found %zu values", pair->n);
            TRY(apr_jj_dict_set(r, *out, pair->at[0], pair->at[1]));
        }
    }
    for (size_t i = 0; i < a->n_kw; i++)
        TRY(apr_jj_dict_set(r, *out, apr_jj_of_str(a->kw_names[i]), a->kw[i]));
    return APR_OK;
}

GLOBAL(g_dict)
{
    struct apr_jj_dict *d = NULL;
    (void)self;
    TRY(make_dict(r, a, &d));
    *out = apr_jj_of_dict(d);
    return APR_OK;
}

GLOBAL(g_namespace)
{
    struct apr_jj_dict *d = NULL;
    (void)self;
    TRY(make_dict(r, a, &d));
    *out = (struct apr_jj_val){.kind = APR_JJ_NS, .u.d = d};
    return APR_OK;
}

/* joiner(sep): nothing at the first call, sep at the others. self is the list [sep, called]. */
GLOBAL(joiner_call)
{
    struct apr_jj_val *at = self.u.l->at;
    (void)a;
    if (at[1].u.b) {
        *out = at[0];
        return APR_OK;
    }
    at[1] = apr_jj_bool(true);
    return apr_jj_text(r, "", out);
}

GLOBAL(g_joiner)
{
    static const struct apr_jj_fn call = {"joiner", "", 0, joiner_call};
    struct apr_jj_list *l = NULL;
    struct apr_jj_func *f = NULL;
    struct apr_jj_val sep = a->at[0];
    (void)self;
    if (sep.kind == APR_JJ_ABSENT) TRY(apr_jj_text(r, ", ", &sep));
    TRY(apr_jj_list_new(r, 2, &l));
    TRY(apr_jj_list_push(r, l, sep));
    TRY(apr_jj_list_push(r, l, apr_jj_bool(false)));
    TRY(apr_jj_alloc(r, 1, sizeof *f, &f));
    *f = (struct apr_jj_func){.fn = &call, .self = apr_jj_of_list(l, APR_JJ_PLAIN)};
    *out = (struct apr_jj_val){.kind = APR_JJ_FUNC, .u.fn = f};
    return APR_OK;
}

/* The message alone, without the template's name or line: callers show it to the user as it is. */
GLOBAL(g_raise_exception)
{
    struct apr_jj_val text;
    (void)self;
    (void)out;
    TRY(apr_jj_to_str(r, a->at[0], &text));
    int n = (int)(text.u.s->n > sizeof r->e->text ? sizeof r->e->text : text.u.s->n);
    return apr_fail(r->e, APR_ECONTRACT, "%.*s", n, text.u.s->p);
}

GLOBAL(g_strftime_now)
{
    const struct apr_jj_str *format = NULL;
    char pattern[256], text[2048];
    struct tm tm;
    (void)self;
    TRY(apr_jj_arg_str(r, a->at[0], "strftime_now", &format));
    if (format->n > sizeof pattern - 2 || memchr(format->p, 0, format->n))
        return apr_jj_fail(r, "strftime_now: the format cannot be used");
    snprintf(pattern, sizeof pattern, "%.*s.", (int)format->n, format->p); /* never an empty result */
    time_t now = r->now_s == INT64_MIN ? time(NULL) : (time_t)r->now_s;
    if (!(r->now_s == INT64_MIN ? localtime_r(&now, &tm) : gmtime_r(&now, &tm)))
        return apr_jj_fail(r, "strftime_now: the time is out of range");
    size_t n = strftime(text, sizeof text, pattern, &tm);
    if (!n || !apr_jj_utf8_valid(text, n - 1)) return apr_jj_fail(r, "strftime_now: the result is too long");
    return apr_jj_str_new(r, text, n - 1, false, out);
}

const struct apr_jj_fn apr_jj_globals[] = {
    {"range", "start,stop,step", 1, g_range},
    {"dict", "*", 0, g_dict},
    {"namespace", "*", 0, g_namespace},
    {"joiner", "sep", 0, g_joiner},
    {"raise_exception", "message", 1, g_raise_exception},
    {"strftime_now", "format", 1, g_strftime_now},
    {NULL, NULL, 0, NULL},
};

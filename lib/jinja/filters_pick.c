/* Filters that apply another filter or a test to each item: map, select, reject, selectattr, rejectattr; see
 * fn.h. */
#include "attr.h"
#include "fn.h"
#include "ops.h"

#define FILTER(name_)                                                                                        \
    static enum apr_code name_(struct apr_jj_run *r, struct apr_jj_val self, const struct apr_jj_args *a,    \
                               struct apr_jj_val *out)

/* The arguments behind the first n_used positional ones. */
static struct apr_jj_args rest_of(const struct apr_jj_args *a, size_t n_used)
{
    struct apr_jj_args rest = *a;
    if (n_used) rest.at += n_used;
    rest.n -= n_used;
    return rest;
}

static enum apr_code map_attribute(struct apr_jj_run *r, const struct apr_jj_list *l,
                                   const struct apr_jj_args *a, struct apr_jj_list *mapped)
{
    struct apr_jj_val path = {0}, other = {0}, v;
    for (size_t i = 0; i < a->n_kw; i++) {
        if (apr_jj_str_eq(a->kw_names[i], "attribute"))
            path = a->kw[i];
        else if (apr_jj_str_eq(a->kw_names[i], "default"))
            other = a->kw[i];
        else
            return apr_jj_fail(r, "map: unexpected keyword argument");
    }
    if (path.kind == APR_JJ_ABSENT) return apr_jj_fail(r, "map requires a filter argument");
    for (size_t i = 0; i < l->n; i++) {
        TRY(apr_jj_get_path(r, l->at[i], path, other, &v));
        TRY(apr_jj_list_push(r, mapped, v));
    }
    return APR_OK;
}

FILTER(f_map)
{
    const struct apr_jj_list *l = NULL;
    const struct apr_jj_str *name = NULL;
    struct apr_jj_list *mapped = NULL;
    struct apr_jj_val v;
    TRY(apr_jj_items(r, self, &l));
    TRY(apr_jj_list_new(r, l->n, &mapped));
    *out = apr_jj_of_list(mapped, APR_JJ_GEN);
    if (!a->n) return map_attribute(r, l, a, mapped);
    TRY(apr_jj_arg_str(r, a->at[0], "map", &name));
    const struct apr_jj_fn *fn = apr_jj_find_filter(name);
    if (!fn) return apr_jj_fail(r, "no filter named '%.*s'", (int)(name->n > 100 ? 100 : name->n), name->p);
    struct apr_jj_args rest = rest_of(a, 1);
    for (size_t i = 0; i < l->n; i++) {
        TRY(apr_jj_enter(r)); /* a filter may be map itself */
        TRY(apr_jj_call_fn(r, fn, l->at[i], &rest, &v));
        r->depth--;
        TRY(apr_jj_list_push(r, mapped, v));
    }
    return APR_OK;
}

/* Keeps the items, or their attribute at a->at[0], for which the test says want. */
static enum apr_code pick(struct apr_jj_run *r, struct apr_jj_val self, const struct apr_jj_args *a,
                          bool by_attr, bool want, struct apr_jj_val *out)
{
    const struct apr_jj_list *l = NULL;
    const struct apr_jj_str *name = NULL;
    const struct apr_jj_fn *fn = NULL;
    struct apr_jj_list *kept = NULL;
    TRY(apr_jj_items(r, self, &l));
    TRY(apr_jj_list_new(r, 0, &kept));
    if (by_attr && !a->n) return apr_jj_fail(r, "missing parameter for attribute name");
    if (a->n > by_attr) {
        TRY(apr_jj_arg_str(r, a->at[by_attr], "name of a test", &name));
        fn = apr_jj_find_test(name);
        if (!fn) return apr_jj_fail(r, "no test named '%.*s'", (int)(name->n > 100 ? 100 : name->n), name->p);
    }
    struct apr_jj_args rest = rest_of(a, (size_t)by_attr + (fn != NULL));
    for (size_t i = 0; i < l->n; i++) {
        struct apr_jj_val v = l->at[i], answer;
        bool yes = false;
        if (by_attr) TRY(apr_jj_get_path(r, v, a->at[0], (struct apr_jj_val){0}, &v));
        answer = v;
        if (fn) TRY(apr_jj_call_fn(r, fn, v, &rest, &answer));
        TRY(apr_jj_truth(r, answer, &yes));
        if (yes == want) TRY(apr_jj_list_push(r, kept, l->at[i]));
    }
    *out = apr_jj_of_list(kept, APR_JJ_GEN);
    return APR_OK;
}

FILTER(f_select)
{
    return pick(r, self, a, false, true, out);
}

FILTER(f_reject)
{
    return pick(r, self, a, false, false, out);
}

FILTER(f_selectattr)
{
    return pick(r, self, a, true, true, out);
}

FILTER(f_rejectattr)
{
    return pick(r, self, a, true, false, out);
}

const struct apr_jj_fn apr_jj_filters_pick[] = {
    {"map", "*", 0, f_map},
    {"select", "*", 0, f_select},
    {"reject", "*", 0, f_reject},
    {"selectattr", "*", 0, f_selectattr},
    {"rejectattr", "*", 0, f_rejectattr},
    {NULL, NULL, 0, NULL},
};

/* Methods of dictionaries, lists and loops, and what string methods and filters share; see methods.h, fn.h.
 */
#include "methods.h"

#include "ast.h"
#include "fn.h"
#include "ops.h"
#include "repr.h"

#define METHOD(name_)                                                                                        \
    static enum apr_code name_(struct apr_jj_run *r, struct apr_jj_val self, const struct apr_jj_args *a,    \
                               struct apr_jj_val *out)

enum apr_code apr_jj_join(struct apr_jj_run *r, const struct apr_jj_str *sep, const struct apr_jj_list *l,
                          bool strict, struct apr_jj_val *out)
{
    struct apr_jj_sb b;
    apr_jj_sb_init(&b, r);
    for (size_t i = 0; i < l->n; i++) {
        if (strict && l->at[i].kind != APR_JJ_STR)
            return apr_jj_fail(r, "sequence item %zu: expected str instance, %s found", i,
                               apr_jj_type_name(l->at[i]));
        TRY(apr_jj_charge(r, 1));
        if (i) TRY(apr_jj_sb_str(&b, sep));
        TRY(apr_jj_put_str(&b, l->at[i]));
    }
    return apr_jj_sb_done(&b, out);
}

enum apr_code apr_jj_justify(struct apr_jj_run *r, const struct apr_jj_str *s, int64_t width, int side,
                             const struct apr_jj_str *fill, struct apr_jj_val *out)
{
    struct apr_jj_sb b;
    int64_t n = (int64_t)apr_jj_str_len(s);
    size_t n_pad = width > n ? (size_t)(width - n) : 0;
    size_t n_left = side > 0   ? n_pad
                    : side < 0 ? 0
                               : n_pad / 2 + (n_pad & (size_t)width & 1); /* as CPython */
    apr_jj_sb_init(&b, r);
    TRY(apr_jj_sb_fill(&b, fill, n_left));
    TRY(apr_jj_sb_str(&b, s));
    TRY(apr_jj_sb_fill(&b, fill, n_pad - n_left));
    return apr_jj_sb_done(&b, out);
}

METHOD(d_get)
{
    const struct apr_jj_val *v = NULL;
    TRY(apr_jj_dict_get(r, self.u.d, a->at[0], &v));
    *out = v ? *v : a->at[1].kind != APR_JJ_ABSENT ? a->at[1] : apr_jj_none();
    return APR_OK;
}

/* keys, values, items: seq tells which. */
static enum apr_code view(struct apr_jj_run *r, const struct apr_jj_dict *d, enum apr_jj_seq seq,
                          struct apr_jj_val *out)
{
    struct apr_jj_list *l = NULL, *pair = NULL;
    TRY(apr_jj_list_new(r, d->n, &l));
    for (size_t i = 0; i < d->n; i++) {
        struct apr_jj_val v = seq == APR_JJ_KEYS ? d->at[i].key : d->at[i].v;
        if (seq == APR_JJ_ITEMS) {
            TRY(apr_jj_list_new(r, 2, &pair));
            TRY(apr_jj_list_push(r, pair, d->at[i].key));
            TRY(apr_jj_list_push(r, pair, d->at[i].v));
            v = apr_jj_of_list(pair, APR_JJ_TUPLE);
        }
        TRY(apr_jj_list_push(r, l, v));
    }
    *out = apr_jj_of_list(l, seq);
    return APR_OK;
}

METHOD(d_items)
{
    (void)a;
    return view(r, self.u.d, APR_JJ_ITEMS, out);
}

METHOD(d_keys)
{
    (void)a;
    return view(r, self.u.d, APR_JJ_KEYS, out);
}

METHOD(d_values)
{
    (void)a;
    return view(r, self.u.d, APR_JJ_VALUES, out);
}

METHOD(m_copy) /* values do not change, so a copy is the value itself */
{
    (void)r;
    (void)a;
    *out = self;
    return APR_OK;
}

const struct apr_jj_fn apr_jj_dict_methods[] = {
    {"get", "key,default", 1, d_get}, {"items", "", 0, d_items}, {"keys", "", 0, d_keys},
    {"values", "", 0, d_values},      {"copy", "", 0, m_copy},   {NULL, NULL, 0, NULL},
};

METHOD(l_index)
{
    bool yes = false;
    for (size_t i = 0; i < self.u.l->n; i++) {
        TRY(apr_jj_equal(r, self.u.l->at[i], a->at[0], &yes));
        if (!yes) continue;
        *out = apr_jj_int((int64_t)i);
        return APR_OK;
    }
    return apr_jj_fail(r, "the value is not in the list");
}

METHOD(l_count)
{
    bool yes = false;
    int64_t n = 0;
    for (size_t i = 0; i < self.u.l->n; i++) {
        TRY(apr_jj_equal(r, self.u.l->at[i], a->at[0], &yes));
        n += yes;
    }
    *out = apr_jj_int(n);
    return APR_OK;
}

const struct apr_jj_fn apr_jj_list_methods[] = {
    {"index", "value", 1, l_index},
    {"count", "value", 1, l_count},
    {"copy", "", 0, m_copy},
    {NULL, NULL, 0, NULL},
};

METHOD(loop_cycle)
{
    if (!a->n) return apr_jj_fail(r, "no items for cycling given");
    *out = a->at[self.u.loop->i % a->n];
    return APR_OK;
}

METHOD(loop_changed)
{
    struct apr_jj_list *l = NULL;
    bool same = false;
    TRY(apr_jj_list_new(r, a->n, &l));
    for (size_t i = 0; i < a->n; i++) TRY(apr_jj_list_push(r, l, a->at[i]));
    struct apr_jj_val now = apr_jj_of_list(l, APR_JJ_TUPLE);
    if (self.u.loop->changed.kind != APR_JJ_ABSENT) TRY(apr_jj_equal(r, self.u.loop->changed, now, &same));
    self.u.loop->changed = now;
    *out = apr_jj_bool(!same);
    return APR_OK;
}

const struct apr_jj_fn apr_jj_loop_methods[] = {
    {"cycle", "*", 1, loop_cycle},
    {"changed", "*", 0, loop_changed},
    {NULL, NULL, 0, NULL},
};

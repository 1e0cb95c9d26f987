/* Filters about sequences as a whole: first, join, sort, batch ...; see fn.h. */
#include <string.h>

#include "attr.h"
#include "case.h"
#include "fn.h"
#include "methods.h"
#include "ops.h"
#include "repr.h"

#define FILTER(name_)                                                                                        \
    static enum apr_code name_(struct apr_jj_run *r, struct apr_jj_val self, const struct apr_jj_args *a,    \
                               struct apr_jj_val *out)

static const struct apr_jj_val absent = {0};

static enum apr_code copy_list(struct apr_jj_run *r, const struct apr_jj_list *from, struct apr_jj_list **out)
{
    TRY(apr_jj_list_new(r, from->n, out));
    for (size_t i = 0; i < from->n; i++) TRY(apr_jj_list_push(r, *out, from->at[i]));
    return APR_OK;
}

FILTER(f_list)
{
    const struct apr_jj_list *l = NULL;
    struct apr_jj_list *copy = NULL;
    (void)a;
    TRY(apr_jj_items(r, self, &l));
    TRY(copy_list(r, l, &copy));
    *out = apr_jj_of_list(copy, APR_JJ_PLAIN);
    return APR_OK;
}

static enum apr_code one_of(struct apr_jj_run *r, struct apr_jj_val self, bool last, struct apr_jj_val *out)
{
    const struct apr_jj_list *l = NULL;
    struct apr_jj_val name;
    if (self.kind == APR_JJ_LIST && self.seq == APR_JJ_GEN && !last && self.u.l->i_next < self.u.l->n) {
        *out = self.u.l->at[self.u.l->i_next++]; /* the rest stays in the generator */
        return APR_OK;
    }
    TRY(apr_jj_items(r, self, &l));
    if (l->n) {
        *out = l->at[last ? l->n - 1 : 0];
        return APR_OK;
    }
    TRY(apr_jj_text(r, last ? "the last item of an empty sequence" : "the first item of an empty sequence",
                    &name));
    return apr_jj_undefined(r, name, NULL, out);
}

FILTER(f_first)
{
    (void)a;
    return one_of(r, self, false, out);
}

FILTER(f_last)
{
    (void)a;
    if (self.kind == APR_JJ_LIST && self.seq == APR_JJ_GEN)
        return apr_jj_fail(r, "'generator' object is not reversible");
    return one_of(r, self, true, out);
}

/* The attribute of each item, where one is asked for. */
static enum apr_code take_attr(struct apr_jj_run *r, const struct apr_jj_list *from, struct apr_jj_val path,
                               const struct apr_jj_list **out)
{
    struct apr_jj_list *l = NULL;
    struct apr_jj_val v;
    *out = from;
    if (path.kind == APR_JJ_ABSENT || path.kind == APR_JJ_NONE) return APR_OK;
    TRY(apr_jj_list_new(r, from->n, &l));
    for (size_t i = 0; i < from->n; i++) {
        TRY(apr_jj_get_path(r, from->at[i], path, absent, &v));
        TRY(apr_jj_list_push(r, l, v));
    }
    *out = l;
    return APR_OK;
}

FILTER(f_join)
{
    static const struct apr_jj_str nothing = {.p = "", .n = 0};
    const struct apr_jj_list *l = NULL;
    struct apr_jj_val sep = apr_jj_of_str(&nothing);
    TRY(apr_jj_items(r, self, &l));
    if (a->at[0].kind != APR_JJ_ABSENT) TRY(apr_jj_to_str(r, a->at[0], &sep));
    TRY(take_attr(r, l, a->at[1], &l));
    return apr_jj_join(r, sep.u.s, l, false, out);
}

FILTER(f_reverse)
{
    const struct apr_jj_list *l = NULL;
    struct apr_jj_list *back = NULL;
    struct apr_jj_sb b;
    (void)a;
    TRY(apr_jj_items(r, self, &l));
    if (self.kind == APR_JJ_STR) {
        apr_jj_sb_init(&b, r);
        for (size_t i = l->n; i-- > 0;) TRY(apr_jj_sb_str(&b, l->at[i].u.s));
        return apr_jj_sb_done(&b, out);
    }
    TRY(apr_jj_list_new(r, l->n, &back));
    for (size_t i = l->n; i-- > 0;) TRY(apr_jj_list_push(r, back, l->at[i]));
    *out = apr_jj_of_list(back, APR_JJ_GEN);
    return APR_OK;
}

FILTER(f_sum)
{
    const struct apr_jj_list *l = NULL;
    TRY(apr_jj_items(r, self, &l));
    TRY(take_attr(r, l, a->at[0], &l));
    *out = a->at[1].kind == APR_JJ_ABSENT ? apr_jj_int(0) : a->at[1];
    for (size_t i = 0; i < l->n; i++) TRY(apr_jj_binary(r, APR_JJ_OP_ADD, *out, l->at[i], out));
    return APR_OK;
}

/* What an item is compared by: its attribute, strings in lower case unless case counts. */
static enum apr_code sort_key(struct apr_jj_run *r, struct apr_jj_val v, struct apr_jj_val path,
                              bool case_counts, struct apr_jj_val *out)
{
    if (path.kind != APR_JJ_ABSENT && path.kind != APR_JJ_NONE) TRY(apr_jj_get_path(r, v, path, absent, &v));
    *out = v;
    if (v.kind == APR_JJ_STR && !case_counts) return apr_jj_case(r, v.u.s, APR_JJ_LOWER, out);
    return APR_OK;
}

static enum apr_code sort_keys(struct apr_jj_run *r, const struct apr_jj_list *l, struct apr_jj_val path,
                               bool case_counts, struct apr_jj_val **out)
{
    TRY(apr_jj_alloc(r, l->n + 1, sizeof **out, out));
    for (size_t i = 0; i < l->n; i++) TRY(sort_key(r, l->at[i], path, case_counts, &(*out)[i]));
    return APR_OK;
}

/* Stable merge sort of the order[n] of keys; a comparison may fail. */
static enum apr_code merge_sort(struct apr_jj_run *r, const struct apr_jj_val *keys, size_t *order,
                                size_t *spare, size_t n, bool reverse)
{
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t lo = 0; lo < n; lo += 2 * width) {
            size_t mid = lo + width < n ? lo + width : n, hi = lo + 2 * width < n ? lo + 2 * width : n;
            size_t i = lo, j = mid;
            for (size_t k = lo; k < hi; k++) {
                int sign = 0;
                if (i < mid && j < hi) TRY(apr_jj_order(r, keys[order[i]], keys[order[j]], &sign));
                bool left = j == hi || (i < mid && (reverse ? sign >= 0 : sign <= 0));
                spare[k] = order[left ? i++ : j++];
            }
        }
        memcpy(order, spare, n * sizeof *order);
    }
    return APR_OK;
}

static enum apr_code sort_list(struct apr_jj_run *r, const struct apr_jj_list *l,
                               const struct apr_jj_val *keys, bool reverse, struct apr_jj_list **out)
{
    size_t *order = NULL, *spare = NULL;
    TRY(apr_jj_alloc(r, l->n + 1, sizeof *order, &order));
    TRY(apr_jj_alloc(r, l->n + 1, sizeof *spare, &spare));
    for (size_t i = 0; i < l->n; i++) order[i] = i;
    TRY(merge_sort(r, keys, order, spare, l->n, reverse));
    TRY(apr_jj_list_new(r, l->n, out));
    for (size_t i = 0; i < l->n; i++) TRY(apr_jj_list_push(r, *out, l->at[order[i]]));
    return APR_OK;
}

/* "a,b": a list of the attributes, compared one after the other; a list of one where there is no comma. */
static enum apr_code multi_key(struct apr_jj_run *r, struct apr_jj_val v, struct apr_jj_val paths,
                               bool case_counts, struct apr_jj_val *out)
{
    static const struct apr_jj_str comma = {.p = ",", .n = 1};
    struct apr_jj_list *l = NULL;
    struct apr_jj_val part = paths, key;
    TRY(apr_jj_list_new(r, 1, &l));
    for (size_t begin = 0;;) {
        ssize_t at = paths.kind == APR_JJ_STR ? apr_jj_str_find(paths.u.s, &comma, begin) : -1;
        if (paths.kind == APR_JJ_STR)
            TRY(apr_jj_str_part(r, paths.u.s, begin, (at < 0 ? paths.u.s->n : (size_t)at) - begin, &part));
        TRY(sort_key(r, v, part, case_counts, &key));
        TRY(apr_jj_list_push(r, l, key));
        if (at < 0) break;
        begin = (size_t)at + 1;
    }
    *out = apr_jj_of_list(l, APR_JJ_PLAIN);
    return APR_OK;
}

FILTER(f_sort)
{
    const struct apr_jj_list *l = NULL;
    struct apr_jj_list *sorted = NULL;
    struct apr_jj_val *keys = NULL;
    bool reverse = false, case_counts = false;
    TRY(apr_jj_truth(r, a->at[0], &reverse));
    TRY(apr_jj_truth(r, a->at[1], &case_counts));
    TRY(apr_jj_items(r, self, &l));
    TRY(apr_jj_alloc(r, l->n + 1, sizeof *keys, &keys));
    for (size_t i = 0; i < l->n; i++) TRY(multi_key(r, l->at[i], a->at[2], case_counts, &keys[i]));
    TRY(sort_list(r, l, keys, reverse, &sorted));
    *out = apr_jj_of_list(sorted, APR_JJ_PLAIN);
    return APR_OK;
}

/* The (key, value) pairs of a mapping. */
static enum apr_code pairs_of(struct apr_jj_run *r, struct apr_jj_val v, struct apr_jj_list **out)
{
    TRY(apr_jj_list_new(r, v.u.d->n, out));
    for (size_t i = 0; i < v.u.d->n; i++) {
        struct apr_jj_list *pair = NULL;
        TRY(apr_jj_list_new(r, 2, &pair));
        TRY(apr_jj_list_push(r, pair, v.u.d->at[i].key));
        TRY(apr_jj_list_push(r, pair, v.u.d->at[i].v));
        TRY(apr_jj_list_push(r, *out, apr_jj_of_list(pair, APR_JJ_TUPLE)));
    }
    return APR_OK;
}

FILTER(f_dictsort)
{
    static const struct apr_jj_str key = {.p = "key", .n = 3};
    const struct apr_jj_str *by = &key;
    struct apr_jj_list *l = NULL, *sorted = NULL;
    struct apr_jj_val *keys = NULL;
    bool reverse = false, case_counts = false;
    TRY(apr_jj_truth(r, a->at[0], &case_counts));
    TRY(apr_jj_arg_str(r, a->at[1], "dictsort", &by));
    TRY(apr_jj_truth(r, a->at[2], &reverse));
    if (!apr_jj_str_eq(by, "key") && !apr_jj_str_eq(by, "value"))
        return apr_jj_fail(r, "dictsort: by must be 'key' or 'value'");
    if (self.kind == APR_JJ_UNDEF) return apr_jj_undef_error(r, self);
    if (self.kind != APR_JJ_DICT) return apr_jj_fail(r, "'%s' has no items", apr_jj_object_name(self));
    TRY(pairs_of(r, self, &l));
    TRY(sort_keys(r, l, apr_jj_int(apr_jj_str_eq(by, "value")), case_counts, &keys));
    TRY(sort_list(r, l, keys, reverse, &sorted));
    *out = apr_jj_of_list(sorted, APR_JJ_PLAIN);
    return APR_OK;
}

FILTER(f_items)
{
    struct apr_jj_list *l = NULL;
    (void)a;
    if (self.kind == APR_JJ_UNDEF)
        TRY(apr_jj_list_new(r, 0, &l));
    else if (self.kind == APR_JJ_DICT)
        TRY(pairs_of(r, self, &l));
    else
        return apr_jj_fail(r, "Can only get item pairs from a mapping.");
    *out = apr_jj_of_list(l, APR_JJ_GEN);
    return APR_OK;
}

static enum apr_code extreme(struct apr_jj_run *r, struct apr_jj_val self, const struct apr_jj_args *a,
                             int want, struct apr_jj_val *out)
{
    const struct apr_jj_list *l = NULL;
    struct apr_jj_val *keys = NULL;
    bool case_counts = false;
    size_t i_best = 0;
    TRY(apr_jj_truth(r, a->at[0], &case_counts));
    TRY(apr_jj_items(r, self, &l));
    TRY(sort_keys(r, l, a->at[1], case_counts, &keys));
    if (!l->n) return one_of(r, self, false, out);
    for (size_t i = 1; i < l->n; i++) {
        int sign = 0;
        TRY(apr_jj_order(r, keys[i], keys[i_best], &sign));
        if (want > 0 ? sign > 0 : sign < 0) i_best = i;
    }
    *out = l->at[i_best];
    return APR_OK;
}

FILTER(f_max)
{
    return extreme(r, self, a, 1, out);
}

FILTER(f_min)
{
    return extreme(r, self, a, -1, out);
}

FILTER(f_unique)
{
    const struct apr_jj_list *l = NULL;
    struct apr_jj_list *kept = NULL;
    struct apr_jj_dict *seen = NULL;
    struct apr_jj_val *keys = NULL;
    bool case_counts = false;
    TRY(apr_jj_truth(r, a->at[0], &case_counts));
    TRY(apr_jj_items(r, self, &l));
    TRY(sort_keys(r, l, a->at[1], case_counts, &keys));
    TRY(apr_jj_list_new(r, 0, &kept));
    TRY(apr_jj_dict_new(r, &seen));
    for (size_t i = 0; i < l->n; i++) {
        const struct apr_jj_val *hit = NULL;
        TRY(apr_jj_dict_get(r, seen, keys[i], &hit));
        if (hit) continue;
        TRY(apr_jj_dict_set(r, seen, keys[i], apr_jj_none()));
        TRY(apr_jj_list_push(r, kept, l->at[i]));
    }
    *out = apr_jj_of_list(kept, APR_JJ_GEN);
    return APR_OK;
}

FILTER(f_groupby)
{
    const struct apr_jj_list *l = NULL;
    struct apr_jj_list *sorted = NULL, *groups = NULL, *group = NULL, *members = NULL;
    struct apr_jj_val *keys = NULL, key, last = apr_jj_none();
    bool case_counts = false, same = false;
    TRY(apr_jj_truth(r, a->at[2], &case_counts));
    TRY(apr_jj_items(r, self, &l));
    TRY(sort_keys(r, l, a->at[0], case_counts, &keys));
    TRY(sort_list(r, l, keys, false, &sorted));
    TRY(apr_jj_list_new(r, 0, &groups));
    for (size_t i = 0; i < sorted->n; i++) {
        TRY(sort_key(r, sorted->at[i], a->at[0], case_counts, &key));
        if (key.kind == APR_JJ_UNDEF && a->at[1].kind != APR_JJ_ABSENT) key = a->at[1];
        TRY(apr_jj_equal(r, key, last, &same));
        if (!i || !same) {
            struct apr_jj_val name;
            TRY(apr_jj_get_path(r, sorted->at[i], a->at[0], absent, &name));
            TRY(apr_jj_list_new(r, 2, &group));
            TRY(apr_jj_list_new(r, 0, &members));
            TRY(apr_jj_list_push(r, group, name.kind == APR_JJ_UNDEF ? key : name));
            TRY(apr_jj_list_push(r, group, apr_jj_of_list(members, APR_JJ_PLAIN)));
            TRY(apr_jj_list_push(r, groups, apr_jj_of_list(group, APR_JJ_TUPLE)));
        }
        TRY(apr_jj_list_push(r, members, sorted->at[i]));
        last = key;
    }
    *out = apr_jj_of_list(groups, APR_JJ_PLAIN);
    return APR_OK;
}

/* batch: lists of n items each; a short last one is filled up when a filler is given. */
FILTER(f_batch)
{
    const struct apr_jj_list *l = NULL;
    struct apr_jj_list *rows = NULL, *row = NULL;
    int64_t n = 0;
    TRY(apr_jj_arg_int(r, a->at[0], "batch", &n));
    if (n < 1) return apr_jj_fail(r, "batch: expected a count >= 1");
    TRY(apr_jj_items(r, self, &l));
    TRY(apr_jj_list_new(r, 0, &rows));
    for (size_t i = 0; i < l->n; i++) {
        if (i % (size_t)n == 0) {
            TRY(apr_jj_list_new(r, 0, &row));
            TRY(apr_jj_list_push(r, rows, apr_jj_of_list(row, APR_JJ_PLAIN)));
        }
        TRY(apr_jj_list_push(r, row, l->at[i]));
    }
    bool fill = a->at[1].kind != APR_JJ_ABSENT && a->at[1].kind != APR_JJ_NONE;
    while (fill && row && row->n < (size_t)n) TRY(apr_jj_list_push(r, row, a->at[1]));
    *out = apr_jj_of_list(rows, APR_JJ_GEN);
    return APR_OK;
}

/* slice: n lists, the longer ones first. */
FILTER(f_slice)
{
    const struct apr_jj_list *l = NULL;
    struct apr_jj_list *rows = NULL, *row = NULL;
    int64_t n = 0;
    TRY(apr_jj_arg_int(r, a->at[0], "slice", &n));
    if (n < 1) return apr_jj_fail(r, "slice: expected a count >= 1");
    TRY(apr_jj_items(r, self, &l));
    TRY(apr_jj_list_new(r, 0, &rows));
    size_t n_each = l->n / (size_t)n, n_longer = l->n % (size_t)n, i = 0;
    bool fill = a->at[1].kind != APR_JJ_ABSENT && a->at[1].kind != APR_JJ_NONE;
    for (size_t k = 0; k < (size_t)n; k++) {
        TRY(apr_jj_list_new(r, 0, &row));
        TRY(apr_jj_list_push(r, rows, apr_jj_of_list(row, APR_JJ_PLAIN)));
        size_t n_row = n_each + (k < n_longer);
        for (size_t m = 0; m < n_row; m++) TRY(apr_jj_list_push(r, row, l->at[i++]));
        if (fill && n_longer && k >= n_longer) TRY(apr_jj_list_push(r, row, a->at[1]));
    }
    *out = apr_jj_of_list(rows, APR_JJ_GEN);
    return APR_OK;
}

const struct apr_jj_fn apr_jj_filters_seq[] = {
    {"list", "", 0, f_list},
    {"first", "", 0, f_first},
    {"last", "", 0, f_last},
    {"join", "d,attribute", 0, f_join},
    {"reverse", "", 0, f_reverse},
    {"sum", "attribute,start", 0, f_sum},
    {"sort", "reverse,case_sensitive,attribute", 0, f_sort},
    {"dictsort", "case_sensitive,by,reverse", 0, f_dictsort},
    {"items", "", 0, f_items},
    {"max", "case_sensitive,attribute", 0, f_max},
    {"min", "case_sensitive,attribute", 0, f_min},
    {"unique", "case_sensitive,attribute", 0, f_unique},
    {"groupby", "attribute,default,case_sensitive", 1, f_groupby},
    {"batch", "linecount,fill_with", 1, f_batch},
    {"slice", "slices,fill_with", 1, f_slice},
    {NULL, NULL, 0, NULL},
};

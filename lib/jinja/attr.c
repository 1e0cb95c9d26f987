/* See attr.h. v.name looks for a method, then for a member; v['name'] the other way round. */
#include "attr.h"

#include <string.h>

#include "ast.h"
#include "fn.h"

static struct apr_jj_val loop_item(const struct apr_jj_loop *l, size_t i)
{
    return l->items->at[i];
}

/* *hit is false when a loop has no such attribute. */
static enum apr_code loop_attr(struct apr_jj_run *r, const struct apr_jj_loop *l,
                               const struct apr_jj_str *name, bool *hit, struct apr_jj_val *out)
{
    const struct {
        const char *name;
        int64_t v;
    } numbers[] = {
        {"index", (int64_t)l->i + 1},
        {"index0", (int64_t)l->i},
        {"revindex", (int64_t)(l->items->n - l->i)},
        {"revindex0", (int64_t)(l->items->n - l->i) - 1},
        {"length", (int64_t)l->items->n},
        {"depth", (int64_t)l->depth0 + 1},
        {"depth0", (int64_t)l->depth0},
    };
    *hit = true;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (apr_jj_str_eq(name, numbers[i].name)) {
            *out = apr_jj_int(numbers[i].v);
            return APR_OK;
        }
    if (apr_jj_str_eq(name, "first"))
        *out = apr_jj_bool(l->i == 0);
    else if (apr_jj_str_eq(name, "last"))
        *out = apr_jj_bool(l->i + 1 == l->items->n);
    else if (apr_jj_str_eq(name, "previtem") && l->i > 0)
        *out = loop_item(l, l->i - 1);
    else if (apr_jj_str_eq(name, "nextitem") && l->i + 1 < l->items->n)
        *out = loop_item(l, l->i + 1);
    else if (apr_jj_str_eq(name, "previtem") || apr_jj_str_eq(name, "nextitem"))
        return apr_jj_undefined(r, apr_jj_of_str(name), NULL, out);
    else
        *hit = false;
    return APR_OK;
}

static enum apr_code bound_method(struct apr_jj_run *r, const struct apr_jj_fn *fn, struct apr_jj_val self,
                                  struct apr_jj_val *out)
{
    struct apr_jj_func *f = NULL;
    TRY(apr_jj_alloc(r, 1, sizeof *f, &f));
    *f = (struct apr_jj_func){.fn = fn, .self = self};
    *out = (struct apr_jj_val){.kind = APR_JJ_FUNC, .u.fn = f};
    return APR_OK;
}

/* What Python's getattr would give. *hit is false when there is nothing of that name. */
static enum apr_code python_attr(struct apr_jj_run *r, struct apr_jj_val v, const struct apr_jj_str *name,
                                 bool *hit, struct apr_jj_val *out)
{
    const struct apr_jj_fn *fn = apr_jj_find_method(v, name);
    const struct apr_jj_val *member;
    *hit = true;
    if (apr_jj_method_unsafe(v, name)) {
        struct apr_jj_undef *un = NULL;
        TRY(apr_jj_alloc(r, 1, sizeof *un, &un));
        *un =
            (struct apr_jj_undef){.name = apr_jj_of_str(name), .owner = apr_jj_type_name(v), .unsafe = true};
        *out = (struct apr_jj_val){.kind = APR_JJ_UNDEF, .u.un = un};
        return APR_OK;
    }
    if (fn) return bound_method(r, fn, v, out);
    if (v.kind == APR_JJ_LOOP) return loop_attr(r, v.u.loop, name, hit, out);
    if (v.kind == APR_JJ_NS && (member = apr_jj_dict_find(v.u.d, name->p, name->n)) != NULL) {
        *out = *member;
        return APR_OK;
    }
    if (v.kind == APR_JJ_MACRO && apr_jj_str_eq(name, "name")) {
        *out = apr_jj_of_str(v.u.m->node->name);
        return APR_OK;
    }
    *hit = false;
    return APR_OK;
}

enum apr_code apr_jj_get_attr(struct apr_jj_run *r, struct apr_jj_val v, const struct apr_jj_str *name,
                              struct apr_jj_val *out)
{
    bool hit = false;
    const struct apr_jj_val *member;
    if (v.kind == APR_JJ_UNDEF) return apr_jj_undef_error(r, v);
    TRY(python_attr(r, v, name, &hit, out));
    if (hit) return APR_OK;
    if (v.kind == APR_JJ_DICT && (member = apr_jj_dict_find(v.u.d, name->p, name->n)) != NULL) {
        *out = *member;
        return APR_OK;
    }
    return apr_jj_undefined(r, apr_jj_of_str(name), apr_jj_object_name(v), out);
}

static enum apr_code list_item(struct apr_jj_run *r, struct apr_jj_val v, int64_t i, struct apr_jj_val *out)
{
    int64_t n = (int64_t)v.u.l->n;
    if (i < 0) i += n;
    if (i < 0 || i >= n)
        return apr_jj_undefined(r, apr_jj_int(i < 0 ? i - n : i), apr_jj_object_name(v), out);
    *out = v.u.l->at[i];
    return APR_OK;
}

static enum apr_code str_item(struct apr_jj_run *r, struct apr_jj_val v, int64_t i, struct apr_jj_val *out)
{
    int64_t n = (int64_t)apr_jj_str_len(v.u.s);
    TRY(apr_jj_charge(r, v.u.s->n / 64));
    if (i < 0) i += n;
    if (i < 0 || i >= n) return apr_jj_undefined(r, apr_jj_int(i), apr_jj_object_name(v), out);
    size_t off = apr_jj_cp_off(v.u.s, (size_t)i), n_bytes;
    apr_jj_cp_at(v.u.s->p + off, v.u.s->p + v.u.s->n, &n_bytes);
    return apr_jj_str_part(r, v.u.s, off, n_bytes, out);
}

enum apr_code apr_jj_get_item(struct apr_jj_run *r, struct apr_jj_val v, struct apr_jj_val key,
                              struct apr_jj_val *out)
{
    bool hit = false;
    bool index = key.kind == APR_JJ_INT || key.kind == APR_JJ_BOOL;
    int64_t i = key.kind == APR_JJ_BOOL ? key.u.b : key.u.i;
    if (v.kind == APR_JJ_UNDEF) return apr_jj_undef_error(r, v);
    if (v.kind == APR_JJ_DICT) {
        const struct apr_jj_val *member = NULL;
        if (key.kind != APR_JJ_LIST || key.seq == APR_JJ_TUPLE) TRY(apr_jj_dict_get(r, v.u.d, key, &member));
        if (member) {
            *out = *member;
            return APR_OK;
        }
    }
    if (v.kind == APR_JJ_LIST && v.seq <= APR_JJ_RANGE && index) return list_item(r, v, i, out);
    if (v.kind == APR_JJ_STR && index) return str_item(r, v, i, out);
    if (key.kind == APR_JJ_STR) {
        TRY(python_attr(r, v, key.u.s, &hit, out));
        if (hit) return APR_OK;
    }
    return apr_jj_undefined(r, key, apr_jj_object_name(v), out);
}

/* Python's slice.indices for a sequence of n items. */
static enum apr_code slice_bounds(struct apr_jj_run *r, const struct apr_jj_val part[3], int64_t n,
                                  int64_t at[3])
{
    static const char *const what[] = {"slice start", "slice end", "slice step"};
    at[2] = 1;
    for (int i = 2; i >= 0; i--) {
        bool given = part[i].kind != APR_JJ_ABSENT && part[i].kind != APR_JJ_NONE;
        if (given) TRY(apr_jj_arg_int(r, part[i], what[i], &at[i]));
        if (i == 2) { /* a longer step gives the same items, and adding it cannot overflow */
            at[2] = at[2] > n + 1 ? n + 1 : at[2] < -n - 1 ? -n - 1 : at[2];
            continue;
        }
        int64_t low = at[2] < 0 ? -1 : 0, high = at[2] < 0 ? n - 1 : n;
        if (!given) {
            at[i] = (i == 0) == (at[2] > 0) ? low : high;
            continue;
        }
        if (at[i] < 0) at[i] = at[i] < -n ? low : at[i] + n;
        if (at[i] > high) at[i] = high;
        if (at[i] < low) at[i] = low;
    }
    return at[2] ? APR_OK : apr_jj_fail(r, "slice step cannot be zero");
}

static enum apr_code slice_str(struct apr_jj_run *r, const struct apr_jj_str *s, const int64_t at[3],
                               struct apr_jj_val *out)
{
    TRY(apr_jj_charge(r, s->n / 64));
    if (at[2] == 1) {
        size_t begin = apr_jj_cp_off(s, (size_t)at[0]), end = apr_jj_cp_off(s, (size_t)at[1]);
        return apr_jj_str_part(r, s, begin, end > begin ? end - begin : 0, out);
    }
    struct apr_jj_sb b;
    size_t *offs = NULL, n = apr_jj_str_len(s), off = 0;
    TRY(apr_jj_alloc(r, n + 1, sizeof *offs, &offs));
    for (size_t i = 0; i < n; i++) {
        size_t n_bytes;
        offs[i] = off;
        apr_jj_cp_at(s->p + off, s->p + s->n, &n_bytes);
        off += n_bytes;
    }
    offs[n] = off;
    apr_jj_sb_init(&b, r);
    for (int64_t i = at[0]; at[2] > 0 ? i < at[1] : i > at[1]; i += at[2])
        TRY(apr_jj_sb_part(&b, s, offs[i], offs[i + 1] - offs[i]));
    return apr_jj_sb_done(&b, out);
}

enum apr_code apr_jj_get_slice(struct apr_jj_run *r, struct apr_jj_val v, const struct apr_jj_val part[3],
                               struct apr_jj_val *out)
{
    int64_t at[3] = {0, 0, 1};
    struct apr_jj_list *l = NULL;
    if (v.kind == APR_JJ_UNDEF) return apr_jj_undef_error(r, v);
    if (v.kind == APR_JJ_STR) {
        TRY(slice_bounds(r, part, (int64_t)apr_jj_str_len(v.u.s), at));
        return slice_str(r, v.u.s, at, out);
    }
    if (v.kind != APR_JJ_LIST || v.seq > APR_JJ_RANGE)
        return apr_jj_undefined(r, apr_jj_none(), apr_jj_object_name(v), out);
    TRY(slice_bounds(r, part, (int64_t)v.u.l->n, at));
    TRY(apr_jj_list_new(r, 0, &l));
    for (int64_t i = at[0]; at[2] > 0 ? i < at[1] : i > at[1]; i += at[2]) {
        TRY(apr_jj_list_push(r, l, v.u.l->at[i]));
        TRY(apr_jj_charge(r, 1));
    }
    *out = apr_jj_of_list(l, (enum apr_jj_seq)v.seq);
    return APR_OK;
}

static enum apr_code path_step(struct apr_jj_run *r, struct apr_jj_val *v, struct apr_jj_val key,
                               struct apr_jj_val other)
{
    TRY(apr_jj_get_item(r, *v, key, v));
    if (v->kind == APR_JJ_UNDEF && other.kind != APR_JJ_ABSENT) *v = other;
    return APR_OK;
}

enum apr_code apr_jj_get_path(struct apr_jj_run *r, struct apr_jj_val v, struct apr_jj_val path,
                              struct apr_jj_val other, struct apr_jj_val *out)
{
    *out = v;
    if (path.kind != APR_JJ_STR) return path_step(r, out, path, other);
    const char *p = path.u.s->p, *end = p + path.u.s->n;
    for (;;) {
        const char *dot = memchr(p, '.', (size_t)(end - p));
        const char *stop = dot ? dot : end;
        int64_t index = 0;
        bool digits = stop > p && stop - p < 10;
        struct apr_jj_val key;
        for (const char *c = p; c < stop; c++) {
            if (*c < '0' || *c > '9') digits = false;
            index = digits ? index * 10 + (*c - '0') : 0;
        }
        TRY(apr_jj_str_new(r, p, (size_t)(stop - p), false, &key));
        TRY(path_step(r, out, digits ? apr_jj_int(index) : key, other));
        if (!dot) return APR_OK;
        p = dot + 1;
    }
}

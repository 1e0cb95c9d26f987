/* Methods of strings; see methods.h and fn.h. Positions are code points, as in Python. */
#include "methods.h"

#include <string.h>

#include "case.h"
#include "fn.h"
#include "format.h"
#include "ops.h"

#define METHOD(name_)                                                                                        \
    static enum apr_code name_(struct apr_jj_run *r, struct apr_jj_val self, const struct apr_jj_args *a,    \
                               struct apr_jj_val *out)

static enum apr_code strip(struct apr_jj_run *r, struct apr_jj_val self, const struct apr_jj_args *a,
                           bool left, bool right, struct apr_jj_val *out)
{
    const struct apr_jj_str *chars = NULL;
    if (a->at[0].kind != APR_JJ_NONE) TRY(apr_jj_arg_str(r, a->at[0], "strip", &chars));
    return apr_jj_str_strip(r, self.u.s, chars, left, right, out);
}

METHOD(m_strip)
{
    return strip(r, self, a, true, true, out);
}

METHOD(m_lstrip)
{
    return strip(r, self, a, true, false, out);
}

METHOD(m_rstrip)
{
    return strip(r, self, a, false, true, out);
}

static enum apr_code push_part(struct apr_jj_run *r, struct apr_jj_list *l, const struct apr_jj_str *s,
                               size_t begin, size_t end)
{
    struct apr_jj_val part;
    TRY(apr_jj_str_part(r, s, begin, end - begin, &part));
    return apr_jj_list_push(r, l, part);
}

/* split(): at runs of white space, none at the ends. */
static enum apr_code split_words(struct apr_jj_run *r, const struct apr_jj_str *s, int64_t n_max,
                                 struct apr_jj_list *l)
{
    size_t off = 0, n;
    for (;;) {
        while (off < s->n && apr_jj_is_space(apr_jj_cp_at(s->p + off, s->p + s->n, &n))) off += n;
        if (off == s->n) return APR_OK;
        size_t begin = off;
        if (n_max >= 0 && (int64_t)l->n >= n_max) return push_part(r, l, s, begin, s->n);
        while (off < s->n && !apr_jj_is_space(apr_jj_cp_at(s->p + off, s->p + s->n, &n))) off += n;
        TRY(push_part(r, l, s, begin, off));
    }
}

METHOD(m_split)
{
    const struct apr_jj_str *s = self.u.s, *sep = NULL;
    struct apr_jj_list *l = NULL;
    int64_t n_max = -1;
    if (a->at[0].kind != APR_JJ_NONE) TRY(apr_jj_arg_str(r, a->at[0], "split", &sep));
    TRY(apr_jj_arg_int(r, a->at[1], "split", &n_max));
    TRY(apr_jj_charge(r, s->n / 64));
    TRY(apr_jj_list_new(r, 0, &l));
    *out = apr_jj_of_list(l, APR_JJ_PLAIN);
    if (!sep) return split_words(r, s, n_max, l);
    if (!sep->n) return apr_jj_fail(r, "empty separator");
    size_t begin = 0;
    while (n_max < 0 || (int64_t)l->n < n_max) {
        ssize_t at = apr_jj_str_find(s, sep, begin);
        if (at < 0) break;
        TRY(push_part(r, l, s, begin, (size_t)at));
        begin = (size_t)at + sep->n;
    }
    return push_part(r, l, s, begin, s->n);
}

METHOD(m_rsplit)
{
    const struct apr_jj_str *s = self.u.s, *sep = NULL;
    struct apr_jj_list *l = NULL;
    int64_t n_max = -1;
    if (a->at[0].kind != APR_JJ_NONE) TRY(apr_jj_arg_str(r, a->at[0], "rsplit", &sep));
    TRY(apr_jj_arg_int(r, a->at[1], "rsplit", &n_max));
    if (n_max < 0) return m_split(r, self, a, out);
    if (!sep) return apr_jj_fail(r, "rsplit() with a limit needs a separator");
    if (!sep->n) return apr_jj_fail(r, "empty separator");
    TRY(apr_jj_list_new(r, 0, &l));
    size_t end = s->n;
    while ((int64_t)l->n < n_max) {
        ssize_t at;
        TRY(apr_jj_str_rfind(r, s, sep, end, &at));
        if (at < 0) break;
        TRY(push_part(r, l, s, (size_t)at + sep->n, end));
        end = (size_t)at;
    }
    TRY(push_part(r, l, s, 0, end));
    for (size_t i = 0; i < l->n / 2; i++) { /* found from the right */
        struct apr_jj_val v = l->at[i];
        l->at[i] = l->at[l->n - 1 - i];
        l->at[l->n - 1 - i] = v;
    }
    *out = apr_jj_of_list(l, APR_JJ_PLAIN);
    return APR_OK;
}

METHOD(m_splitlines)
{
    struct apr_jj_list *l = NULL;
    bool keep = false;
    TRY(apr_jj_truth(r, a->at[0], &keep));
    TRY(apr_jj_split_lines(r, self.u.s, keep, &l));
    *out = apr_jj_of_list(l, APR_JJ_PLAIN);
    return APR_OK;
}

static enum apr_code partition(struct apr_jj_run *r, const struct apr_jj_str *s, const struct apr_jj_val *arg,
                               bool from_right, struct apr_jj_val *out)
{
    const struct apr_jj_str *sep = NULL;
    struct apr_jj_list *l = NULL;
    TRY(apr_jj_arg_str(r, *arg, "partition", &sep));
    if (!sep->n) return apr_jj_fail(r, "empty separator");
    TRY(apr_jj_charge(r, s->n / 16));
    TRY(apr_jj_list_new(r, 3, &l));
    *out = apr_jj_of_list(l, APR_JJ_TUPLE);
    ssize_t at = from_right ? -1 : apr_jj_str_find(s, sep, 0);
    if (from_right) TRY(apr_jj_str_rfind(r, s, sep, s->n, &at));
    size_t begin = at < 0 ? (from_right ? 0 : s->n) : (size_t)at, end = at < 0 ? begin : begin + sep->n;
    TRY(push_part(r, l, s, 0, begin));
    TRY(push_part(r, l, s, begin, end));
    return push_part(r, l, s, end, s->n);
}

METHOD(m_partition)
{
    return partition(r, self.u.s, &a->at[0], false, out);
}

METHOD(m_rpartition)
{
    return partition(r, self.u.s, &a->at[0], true, out);
}

/* Byte range of s[start:end]; false when start is behind the end of s. */
static enum apr_code sub_range(struct apr_jj_run *r, const struct apr_jj_str *s, const struct apr_jj_args *a,
                               struct apr_jj_str *sub, bool *inside)
{
    int64_t n = (int64_t)apr_jj_str_len(s), start = 0, end = n;
    TRY(apr_jj_charge(r, s->n / 32));
    if (a->at[1].kind != APR_JJ_NONE) TRY(apr_jj_arg_int(r, a->at[1], "start", &start));
    if (a->at[2].kind != APR_JJ_NONE) TRY(apr_jj_arg_int(r, a->at[2], "end", &end));
    if (start < 0) start = start < -n ? 0 : start + n;
    if (end < 0) end = end < -n ? 0 : end + n;
    if (end > n) end = n;
    *inside = start <= end;
    if (!*inside) start = end;
    size_t begin = apr_jj_cp_off(s, (size_t)start);
    *sub = (struct apr_jj_str){.p = s->p + begin, .n = apr_jj_cp_off(s, (size_t)end) - begin};
    return APR_OK;
}

static bool affix(const struct apr_jj_str *s, const struct apr_jj_str *part, bool at_end)
{
    return part->n <= s->n && memcmp(at_end ? s->p + s->n - part->n : s->p, part->p, part->n) == 0;
}

static enum apr_code has_affix(struct apr_jj_run *r, struct apr_jj_val self, const struct apr_jj_args *a,
                               bool at_end, struct apr_jj_val *out)
{
    const struct apr_jj_str *part = NULL;
    struct apr_jj_str sub;
    bool inside = false, yes = false;
    TRY(sub_range(r, self.u.s, a, &sub, &inside));
    if (a->at[0].kind == APR_JJ_LIST && a->at[0].seq == APR_JJ_TUPLE) {
        for (size_t i = 0; !yes && i < a->at[0].u.l->n; i++) {
            TRY(apr_jj_arg_str(r, a->at[0].u.l->at[i], "prefix", &part));
            yes = inside && affix(&sub, part, at_end);
        }
    } else {
        TRY(apr_jj_arg_str(r, a->at[0], at_end ? "endswith" : "startswith", &part));
        yes = inside && affix(&sub, part, at_end);
    }
    *out = apr_jj_bool(yes);
    return APR_OK;
}

METHOD(m_startswith)
{
    return has_affix(r, self, a, false, out);
}

METHOD(m_endswith)
{
    return has_affix(r, self, a, true, out);
}

static enum apr_code find(struct apr_jj_run *r, struct apr_jj_val self, const struct apr_jj_args *a,
                          bool from_right, struct apr_jj_val *out)
{
    const struct apr_jj_str *part = NULL;
    struct apr_jj_str sub;
    bool inside = false;
    TRY(apr_jj_arg_str(r, a->at[0], "find", &part));
    TRY(sub_range(r, self.u.s, a, &sub, &inside));
    ssize_t at = inside && !from_right ? apr_jj_str_find(&sub, part, 0) : -1;
    if (inside && from_right) TRY(apr_jj_str_rfind(r, &sub, part, sub.n, &at));
    struct apr_jj_str before = {.p = self.u.s->p};
    if (at >= 0) before.n = (size_t)(sub.p - self.u.s->p) + (size_t)at;
    *out = apr_jj_int(at < 0 ? -1 : (int64_t)apr_jj_str_len(&before));
    return APR_OK;
}

METHOD(m_find)
{
    return find(r, self, a, false, out);
}

METHOD(m_rfind)
{
    return find(r, self, a, true, out);
}

METHOD(m_index)
{
    TRY(find(r, self, a, false, out));
    return out->u.i < 0 ? apr_jj_fail(r, "substring not found") : APR_OK;
}

METHOD(m_rindex)
{
    TRY(find(r, self, a, true, out));
    return out->u.i < 0 ? apr_jj_fail(r, "substring not found") : APR_OK;
}

METHOD(m_count)
{
    const struct apr_jj_str *part = NULL;
    struct apr_jj_str sub;
    bool inside = false;
    int64_t n = 0;
    TRY(apr_jj_arg_str(r, a->at[0], "count", &part));
    TRY(sub_range(r, self.u.s, a, &sub, &inside));
    if (!part->n) {
        *out = apr_jj_int(inside ? (int64_t)apr_jj_str_len(&sub) + 1 : 0);
        return APR_OK;
    }
    for (ssize_t at = apr_jj_str_find(&sub, part, 0); at >= 0;
         at = apr_jj_str_find(&sub, part, (size_t)at + part->n))
        n++;
    *out = apr_jj_int(n);
    return APR_OK;
}

enum apr_code apr_jj_replace(struct apr_jj_run *r, const struct apr_jj_str *s, const struct apr_jj_str *old,
                             const struct apr_jj_str *new_text, int64_t n_max, struct apr_jj_val *out)
{
    struct apr_jj_sb b;
    size_t begin = 0;
    TRY(apr_jj_charge(r, s->n / 64));
    apr_jj_sb_init(&b, r);
    for (; n_max != 0; n_max--) {
        size_t n_skip = 0;
        if (!old->n && begin < s->n) apr_jj_cp_at(s->p + begin, s->p + s->n, &n_skip);
        ssize_t at = apr_jj_str_find(s, old, begin);
        if (at < 0) break;
        TRY(apr_jj_sb_part(&b, s, begin, (size_t)at - begin));
        TRY(apr_jj_sb_str(&b, new_text));
        TRY(apr_jj_sb_part(&b, s, (size_t)at, n_skip)); /* an empty old text stands between all characters */
        begin = (size_t)at + old->n + n_skip;
        if (!old->n && !n_skip) break;
    }
    TRY(apr_jj_sb_part(&b, s, begin, s->n - begin));
    return apr_jj_sb_done(&b, out);
}

METHOD(m_replace)
{
    const struct apr_jj_str *old = NULL, *new_text = NULL;
    int64_t n_max = -1;
    TRY(apr_jj_arg_str(r, a->at[0], "replace", &old));
    TRY(apr_jj_arg_str(r, a->at[1], "replace", &new_text));
    if (a->at[2].kind != APR_JJ_NONE) TRY(apr_jj_arg_int(r, a->at[2], "replace", &n_max));
    return apr_jj_replace(r, self.u.s, old, new_text, n_max, out);
}

METHOD(m_join)
{
    const struct apr_jj_list *l = NULL;
    TRY(apr_jj_items(r, a->at[0], &l));
    return apr_jj_join(r, self.u.s, l, true, out);
}

static enum apr_code remove_affix(struct apr_jj_run *r, struct apr_jj_val self, const struct apr_jj_args *a,
                                  bool at_end, struct apr_jj_val *out)
{
    const struct apr_jj_str *part = NULL;
    TRY(apr_jj_arg_str(r, a->at[0], "removeprefix", &part));
    size_t n = affix(self.u.s, part, at_end) ? part->n : 0;
    return apr_jj_str_part(r, self.u.s, at_end ? 0 : n, self.u.s->n - n, out);
}

METHOD(m_removeprefix)
{
    return remove_affix(r, self, a, false, out);
}

METHOD(m_removesuffix)
{
    return remove_affix(r, self, a, true, out);
}

static enum apr_code justify(struct apr_jj_run *r, struct apr_jj_val self, const struct apr_jj_args *a,
                             int side, struct apr_jj_val *out)
{
    static const struct apr_jj_str space = {.p = " ", .n = 1};
    const struct apr_jj_str *fill = &space;
    int64_t width = 0;
    TRY(apr_jj_arg_int(r, a->at[0], "width", &width));
    TRY(apr_jj_arg_str(r, a->at[1], "fill character", &fill));
    if (apr_jj_str_len(fill) != 1) return apr_jj_fail(r, "the fill character must be one character");
    return apr_jj_justify(r, self.u.s, width, side, fill, out);
}

METHOD(m_ljust)
{
    return justify(r, self, a, -1, out);
}

METHOD(m_rjust)
{
    return justify(r, self, a, 1, out);
}

METHOD(m_center)
{
    return justify(r, self, a, 0, out);
}

METHOD(m_zfill)
{
    static const struct apr_jj_str zero = {.p = "0", .n = 1};
    const struct apr_jj_str *s = self.u.s;
    struct apr_jj_sb b;
    int64_t width = 0, n = (int64_t)apr_jj_str_len(s);
    size_t n_sign = s->n && (s->p[0] == '-' || s->p[0] == '+');
    TRY(apr_jj_arg_int(r, a->at[0], "width", &width));
    apr_jj_sb_init(&b, r);
    TRY(apr_jj_sb_part(&b, s, 0, n_sign));
    TRY(apr_jj_sb_fill(&b, &zero, width > n ? (size_t)(width - n) : 0));
    TRY(apr_jj_sb_part(&b, s, n_sign, s->n - n_sign));
    return apr_jj_sb_done(&b, out);
}

const struct apr_jj_fn apr_jj_str_methods[] = {
    {"strip", "chars", 0, m_strip},
    {"lstrip", "chars", 0, m_lstrip},
    {"rstrip", "chars", 0, m_rstrip},
    {"split", "sep,maxsplit", 0, m_split},
    {"rsplit", "sep,maxsplit", 0, m_rsplit},
    {"splitlines", "keepends", 0, m_splitlines},
    {"partition", "sep", 1, m_partition},
    {"rpartition", "sep", 1, m_rpartition},
    {"startswith", "prefix,start,end", 1, m_startswith},
    {"endswith", "suffix,start,end", 1, m_endswith},
    {"find", "sub,start,end", 1, m_find},
    {"rfind", "sub,start,end", 1, m_rfind},
    {"index", "sub,start,end", 1, m_index},
    {"rindex", "sub,start,end", 1, m_rindex},
    {"count", "sub,start,end", 1, m_count},
    {"replace", "old,new,count", 2, m_replace},
    {"join", "iterable", 1, m_join},
    {"removeprefix", "prefix", 1, m_removeprefix},
    {"removesuffix", "suffix", 1, m_removesuffix},
    {"ljust", "width,fillchar", 1, m_ljust},
    {"rjust", "width,fillchar", 1, m_rjust},
    {"center", "width,fillchar", 1, m_center},
    {"zfill", "width", 1, m_zfill},
    {"format", "*", 0, apr_jj_str_format},
    {NULL, NULL, 0, NULL},
};

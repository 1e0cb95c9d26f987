/* Filters about single values: default, numbers, tojson; see fn.h. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attr.h"
#include "fn.h"
#include "ops.h"
#include "repr.h"

#define FILTER(name_)                                                                                        \
    static enum apr_code name_(struct apr_jj_run *r, struct apr_jj_val self, const struct apr_jj_args *a,    \
                               struct apr_jj_val *out)

FILTER(f_default)
{
    bool boolean = false, yes = true;
    TRY(apr_jj_truth(r, a->at[1], &boolean));
    if (boolean && self.kind != APR_JJ_UNDEF) TRY(apr_jj_truth(r, self, &yes));
    *out = self;
    if (self.kind != APR_JJ_UNDEF && yes) return APR_OK;
    *out = a->at[0];
    return a->at[0].kind == APR_JJ_ABSENT ? apr_jj_text(r, "", out) : APR_OK;
}

FILTER(f_length)
{
    int64_t n = 0;
    (void)a;
    TRY(apr_jj_length(r, self, &n));
    *out = apr_jj_int(n);
    return APR_OK;
}

FILTER(f_abs)
{
    (void)a;
    if (apr_jj_is_number(self) && apr_jj_as_double(self) >= 0) return apr_jj_negate(r, self, false, out);
    return apr_jj_negate(r, self, true, out);
}

/* s without white space and single underscores as a C string; false when it is too long to be a number. */
static bool number_text(const struct apr_jj_str *s, char *out, size_t n_out)
{
    size_t n = 0, begin = 0, end = s->n;
    while (begin < end && apr_jj_is_space((uint8_t)s->p[begin])) begin++;
    while (end > begin && apr_jj_is_space((uint8_t)s->p[end - 1])) end--;
    for (size_t i = begin; i < end; i++) {
        if (n + 1 >= n_out || !s->p[i]) return false;
        if (s->p[i] == '_' && i > begin && i + 1 < end && s->p[i - 1] != '_') continue;
        out[n++] = s->p[i];
    }
    out[n] = 0;
    return n > 0;
}

static bool text_float(const struct apr_jj_str *s, double *f)
{
    char text[400], *end;
    if (!number_text(s, text, sizeof text) || strpbrk(text, "xX_")) return false;
    *f = strtod(text, &end);
    return !*end;
}

static bool text_int(const struct apr_jj_str *s, int64_t base, int64_t *i)
{
    char text[128], *end;
    if (!number_text(s, text, sizeof text) || base < 2 || base > 36) return false;
    errno = 0;
    *i = strtoll(text, &end, (int)base);
    return !*end && !errno;
}

FILTER(f_int)
{
    int64_t base = 10, i = 0;
    double f = 0;
    TRY(apr_jj_arg_int(r, a->at[1], "int", &base));
    *out = a->at[0].kind == APR_JJ_ABSENT ? apr_jj_int(0) : a->at[0];
    if (self.kind == APR_JJ_INT || self.kind == APR_JJ_BOOL) {
        *out = apr_jj_int(self.kind == APR_JJ_INT ? self.u.i : self.u.b);
    } else if (self.kind == APR_JJ_STR && text_int(self.u.s, base, &i)) {
        *out = apr_jj_int(i);
    } else if (self.kind == APR_JJ_FLOAT || (self.kind == APR_JJ_STR && text_float(self.u.s, &f))) {
        if (self.kind == APR_JJ_FLOAT) f = self.u.f;
        if (isfinite(f) && fabs(f) < 9.2e18) *out = apr_jj_int((int64_t)f);
    } else if (self.kind == APR_JJ_UNDEF) {
        return apr_jj_undef_error(r, self);
    }
    out->data = self.data;
    return APR_OK;
}

FILTER(f_float)
{
    double f = 0;
    *out = a->at[0].kind == APR_JJ_ABSENT ? apr_jj_float(0) : a->at[0];
    if (self.kind == APR_JJ_UNDEF) return apr_jj_undef_error(r, self);
    if (apr_jj_is_number(self))
        *out = apr_jj_float(apr_jj_as_double(self));
    else if (self.kind == APR_JJ_STR && text_float(self.u.s, &f))
        *out = apr_jj_float(f);
    out->data = self.data;
    return APR_OK;
}

FILTER(f_round)
{
    static const struct apr_jj_str common = {.p = "common", .n = 6};
    const struct apr_jj_str *method = &common;
    char text[400];
    int64_t prec = 0;
    TRY(apr_jj_arg_int(r, a->at[0], "round", &prec));
    TRY(apr_jj_arg_str(r, a->at[1], "round", &method));
    bool up = apr_jj_str_eq(method, "ceil"), down = apr_jj_str_eq(method, "floor");
    if (!up && !down && !apr_jj_str_eq(method, "common"))
        return apr_jj_fail(r, "round: the method must be common, ceil or floor");
    if (!apr_jj_is_number(self)) return apr_jj_fail(r, "type %s cannot be rounded", apr_jj_type_name(self));
    *out = self;
    double f = apr_jj_as_double(self), scale = pow(10, (double)prec);
    if (up || down) {
        *out = apr_jj_float((up ? ceil(f * scale) : floor(f * scale)) / scale);
    } else if (self.kind == APR_JJ_FLOAT && isfinite(f)) {
        if (prec >= 0 && prec <= 40) { /* correctly rounded from the exact value, as Python's round */
            snprintf(text, sizeof text, "%.*f", (int)prec, f);
            *out = apr_jj_float(strtod(text, NULL));
        } else if (prec < 0) {
            *out = apr_jj_float(nearbyint(f * scale) / scale);
        }
    } else if (prec < 0 && self.kind == APR_JJ_INT) {
        return apr_jj_fail(r, "round: an integer cannot be rounded to a negative precision");
    }
    out->data = self.data;
    return APR_OK;
}

FILTER(f_attr)
{
    const struct apr_jj_str *name = NULL;
    TRY(apr_jj_arg_str(r, a->at[0], "attr", &name));
    if (self.kind == APR_JJ_DICT && !apr_jj_find_method(self, name)) /* attributes only, not members */
        return apr_jj_undefined(r, a->at[0], apr_jj_object_name(self), out);
    return apr_jj_get_attr(r, self, name, out);
}

/* indent=2, indent="\t" or None. */
static enum apr_code json_indent(struct apr_jj_run *r, struct apr_jj_val arg, struct apr_jj_json_style *style)
{
    static const struct apr_jj_str space = {.p = " ", .n = 1};
    struct apr_jj_sb b;
    struct apr_jj_val text = arg;
    int64_t n = 0;
    if (arg.kind == APR_JJ_ABSENT || arg.kind == APR_JJ_NONE) return APR_OK;
    if (arg.kind != APR_JJ_STR) {
        TRY(apr_jj_arg_int(r, arg, "tojson: indent", &n));
        apr_jj_sb_init(&b, r);
        TRY(apr_jj_sb_fill(&b, &space, n > 0 ? (size_t)n : 0));
        TRY(apr_jj_sb_done(&b, &text));
    }
    style->indent = text.u.s;
    return APR_OK;
}

FILTER(f_tojson)
{
    static const struct apr_jj_str comma = {.p = ", ", .n = 2}, tight = {.p = ",", .n = 1},
                                   colon = {.p = ": ", .n = 2};
    struct apr_jj_json_style style = {.item_sep = &comma, .key_sep = &colon};
    struct apr_jj_sb b;
    bool data = false;
    TRY(apr_jj_truth(r, a->at[0], &style.ensure_ascii));
    TRY(json_indent(r, a->at[1], &style));
    if (style.indent) style.item_sep = &tight;
    if (a->at[2].kind != APR_JJ_ABSENT && a->at[2].kind != APR_JJ_NONE) {
        if (a->at[2].kind != APR_JJ_LIST || a->at[2].u.l->n != 2)
            return apr_jj_fail(r, "tojson: separators must be a pair of strings");
        TRY(apr_jj_arg_str(r, a->at[2].u.l->at[0], "tojson: separators", &style.item_sep));
        TRY(apr_jj_arg_str(r, a->at[2].u.l->at[1], "tojson: separators", &style.key_sep));
    }
    TRY(apr_jj_truth(r, a->at[3], &style.sort_keys));
    TRY(apr_jj_any_data(r, self, &data));
    apr_jj_sb_init(&b, r);
    TRY(apr_jj_put_json(&b, self, &style, 0, data));
    return apr_jj_sb_done(&b, out);
}

const struct apr_jj_fn apr_jj_filters_value[] = {
    {"default", "default_value,boolean", 0, f_default},
    {"d", "default_value,boolean", 0, f_default},
    {"length", "", 0, f_length},
    {"count", "", 0, f_length},
    {"abs", "", 0, f_abs},
    {"int", "default,base", 0, f_int},
    {"float", "default", 0, f_float},
    {"round", "precision,method", 0, f_round},
    {"attr", "name", 1, f_attr},
    {"tojson", "ensure_ascii,indent,separators,sort_keys", 0, f_tojson},
    {NULL, NULL, 0, NULL},
};

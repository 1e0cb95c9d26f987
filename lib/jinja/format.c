/* See format.h. */
#include "format.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "repr.h"

#define MAX_WIDTH 4096
#define MAX_PREC  64

struct spec {
    bool minus, plus, space, zero, alt;
    int width, prec; /* prec -1: not given */
    char conv;
};

/* One % specification behind its name; *i is moved past it. */
static enum apr_code read_spec(struct apr_jj_run *r, const struct apr_jj_str *s, size_t *i, struct spec *f)
{
    *f = (struct spec){.prec = -1};
    for (; *i < s->n; ++*i) {
        char c = s->p[*i];
        if (c == '-')
            f->minus = true;
        else if (c == '+')
            f->plus = true;
        else if (c == ' ')
            f->space = true;
        else if (c == '0')
            f->zero = true;
        else if (c == '#')
            f->alt = true;
        else
            break;
    }
    for (; *i < s->n && s->p[*i] >= '0' && s->p[*i] <= '9'; ++*i) {
        f->width = f->width * 10 + (s->p[*i] - '0');
        if (f->width > MAX_WIDTH) return apr_jj_fail(r, "format width over %d", MAX_WIDTH);
    }
    if (*i < s->n && s->p[*i] == '.') {
        f->prec = 0;
        for (++*i; *i < s->n && s->p[*i] >= '0' && s->p[*i] <= '9'; ++*i) {
            f->prec = f->prec * 10 + (s->p[*i] - '0');
            if (f->prec > MAX_WIDTH) return apr_jj_fail(r, "format precision over %d", MAX_WIDTH);
        }
    }
    if (*i >= s->n) return apr_jj_fail(r, "incomplete format");
    f->conv = s->p[(*i)++];
    return APR_OK;
}

static enum apr_code pad(struct apr_jj_sb *b, size_t n, char c)
{
    for (; n; n--) TRY(apr_jj_sb_bytes(b, &c, 1, false));
    return APR_OK;
}

static enum apr_code put_text(struct apr_jj_sb *b, const struct spec *f, struct apr_jj_val v)
{
    struct apr_jj_val text;
    struct apr_jj_sb sb;
    if (f->conv == 's') {
        TRY(apr_jj_to_str(b->r, v, &text));
    } else {
        apr_jj_sb_init(&sb, b->r);
        TRY(apr_jj_put_repr(&sb, v));
        TRY(apr_jj_sb_done(&sb, &text));
    }
    size_t n_cp = apr_jj_str_len(text.u.s), width = (size_t)f->width;
    if (f->prec >= 0 && n_cp > (size_t)f->prec) n_cp = (size_t)f->prec;
    if (!f->minus && n_cp < width) TRY(pad(b, width - n_cp, ' '));
    TRY(apr_jj_sb_part(b, text.u.s, 0, apr_jj_cp_off(text.u.s, n_cp)));
    return f->minus && n_cp < width ? pad(b, width - n_cp, ' ') : APR_OK;
}

/* digits: the number without its sign, as snprintf made it. */
static enum apr_code put_signed(struct apr_jj_sb *b, const struct spec *f, bool negative, const char *digits,
                                bool data)
{
    const char *sign = negative ? "-" : f->plus ? "+" : f->space ? " " : "";
    size_t n = strlen(sign) + strlen(digits), width = (size_t)f->width, n_pad = n < width ? width - n : 0;
    if (!f->minus && !f->zero) TRY(pad(b, n_pad, ' '));
    TRY(apr_jj_sb_bytes(b, sign, strlen(sign), data));
    if (!f->minus && f->zero) TRY(pad(b, n_pad, '0'));
    TRY(apr_jj_sb_bytes(b, digits, strlen(digits), data));
    return f->minus ? pad(b, n_pad, ' ') : APR_OK;
}

static enum apr_code put_int(struct apr_jj_sb *b, const struct spec *f, struct apr_jj_val v)
{
    char digits[80];
    if (!apr_jj_is_number(v))
        return apr_jj_fail(b->r, "%%%c format: a number is required, not %s", f->conv, apr_jj_type_name(v));
    double d = apr_jj_as_double(v);
    if (v.kind == APR_JJ_FLOAT && (!isfinite(d) || fabs(d) >= 9.2e18))
        return apr_jj_fail(b->r, "integer outside 64 bits");
    int64_t i = v.kind == APR_JJ_INT ? v.u.i : (int64_t)d;
    unsigned long long mag = i < 0 ? 0 - (unsigned long long)i : (unsigned long long)i;
    int prec = f->prec < 0 ? 1 : f->prec > MAX_PREC ? MAX_PREC : f->prec;
    if (f->conv == 'x')
        snprintf(digits, sizeof digits, "%s%.*llx", f->alt ? "0x" : "", prec, mag);
    else if (f->conv == 'X')
        snprintf(digits, sizeof digits, "%s%.*llX", f->alt ? "0X" : "", prec, mag);
    else if (f->conv == 'o')
        snprintf(digits, sizeof digits, "%s%.*llo", f->alt ? "0o" : "", prec, mag);
    else
        snprintf(digits, sizeof digits, "%.*llu", prec, mag);
    return put_signed(b, f, i < 0, digits, v.data);
}

static enum apr_code put_float(struct apr_jj_sb *b, const struct spec *f, struct apr_jj_val v)
{
    char digits[512];
    if (!apr_jj_is_number(v)) return apr_jj_fail(b->r, "must be real number, not %s", apr_jj_type_name(v));
    double d = apr_jj_as_double(v), mag = fabs(d);
    int prec = f->prec < 0 ? 6 : f->prec > MAX_PREC ? MAX_PREC : f->prec;
    if (f->conv == 'f' || f->conv == 'F')
        snprintf(digits, sizeof digits, "%.*f", prec, mag);
    else if (f->conv == 'e')
        snprintf(digits, sizeof digits, "%.*e", prec, mag);
    else if (f->conv == 'E')
        snprintf(digits, sizeof digits, "%.*E", prec, mag);
    else if (f->conv == 'g')
        snprintf(digits, sizeof digits, "%.*g", prec, mag);
    else
        snprintf(digits, sizeof digits, "%.*G", prec, mag);
    return put_signed(b, f, signbit(d) && !isnan(d), digits, v.data);
}

static enum apr_code put_value(struct apr_jj_sb *b, const struct spec *f, struct apr_jj_val v)
{
    if (f->conv == 's' || f->conv == 'r' || f->conv == 'a') return put_text(b, f, v);
    if (strchr("diuxXo", f->conv)) return put_int(b, f, v);
    if (strchr("fFeEgG", f->conv)) return put_float(b, f, v);
    if (f->conv == 'c' && v.kind == APR_JJ_STR && apr_jj_str_len(v.u.s) == 1) return apr_jj_sb_str(b, v.u.s);
    return apr_jj_fail(b->r, "unsupported format character '%c'",
                       f->conv >= ' ' && f->conv < 127 ? f->conv : '?');
}

/* %(name): looks name up in the dict. */
static enum apr_code named_value(struct apr_jj_run *r, const struct apr_jj_str *s, size_t *i,
                                 struct apr_jj_val values, struct apr_jj_val *v)
{
    const char *close = memchr(s->p + *i, ')', s->n - *i);
    if (!close) return apr_jj_fail(r, "incomplete format key");
    size_t end = (size_t)(close - s->p);
    if (values.kind != APR_JJ_DICT) return apr_jj_fail(r, "format requires a mapping");
    const struct apr_jj_val *hit = apr_jj_dict_find(values.u.d, s->p + *i + 1, end - *i - 1);
    if (!hit) return apr_jj_fail(r, "format key is missing");
    *v = *hit;
    *i = end + 1;
    return APR_OK;
}

enum apr_code apr_jj_percent(struct apr_jj_run *r, const struct apr_jj_str *s, struct apr_jj_val values,
                             struct apr_jj_val *out)
{
    struct apr_jj_sb b;
    bool tuple = values.kind == APR_JJ_LIST && values.seq == APR_JJ_TUPLE;
    size_t i = 0, n_used = 0, n_values = tuple ? values.u.l->n : 1;
    apr_jj_sb_init(&b, r);
    while (i < s->n) {
        const char *hit = memchr(s->p + i, '%', s->n - i);
        size_t n = hit ? (size_t)(hit - s->p) - i : s->n - i;
        struct apr_jj_val v = apr_jj_none();
        struct spec f;
        TRY(apr_jj_sb_part(&b, s, i, n));
        i += n;
        if (!hit) break;
        i++;
        bool named = i < s->n && s->p[i] == '(';
        if (named) TRY(named_value(r, s, &i, values, &v));
        TRY(read_spec(r, s, &i, &f));
        if (f.conv == '%') {
            TRY(apr_jj_sb_part(&b, s, i - 1, 1));
            continue;
        }
        if (!named) {
            if (n_used == n_values) return apr_jj_fail(r, "not enough arguments for format string");
            v = tuple ? values.u.l->at[n_used] : values;
            n_used++;
        }
        TRY(put_value(&b, &f, v));
    }
    if (n_used < n_values && values.kind != APR_JJ_DICT)
        return apr_jj_fail(r, "not all arguments converted during string formatting");
    return apr_jj_sb_done(&b, out);
}

/* The value of the replacement field between { and }. */
static enum apr_code field_value(struct apr_jj_run *r, const struct apr_jj_args *a, const char *p, size_t n,
                                 size_t *n_auto, struct apr_jj_val *v)
{
    size_t index = 0;
    bool digits = n > 0 && n < 6;
    for (size_t i = 0; i < n; i++) {
        if (p[i] && strchr(".[:!{", p[i]))
            return apr_jj_fail(r, "str.format: only plain fields are supported");
        if (p[i] < '0' || p[i] > '9') digits = false;
    }
    if (digits)
        for (size_t i = 0; i < n; i++) index = index * 10 + (size_t)(p[i] - '0');
    if (!n) index = (*n_auto)++;
    if (!n || digits) {
        if (index >= a->n) return apr_jj_fail(r, "str.format: argument %zu is missing", index);
        *v = a->at[index];
        return APR_OK;
    }
    for (size_t i = 0; i < a->n_kw; i++)
        if (a->kw_names[i]->n == n && memcmp(a->kw_names[i]->p, p, n) == 0) {
            *v = a->kw[i];
            return APR_OK;
        }
    return apr_jj_fail(r, "str.format: argument '%.*s' is missing", (int)(n > 100 ? 100 : n), p);
}

enum apr_code apr_jj_str_format(struct apr_jj_run *r, struct apr_jj_val self, const struct apr_jj_args *a,
                                struct apr_jj_val *out)
{
    const struct apr_jj_str *s = self.u.s;
    struct apr_jj_sb b;
    size_t n_auto = 0;
    apr_jj_sb_init(&b, r);
    for (size_t i = 0; i < s->n;) {
        char c = s->p[i];
        if ((c == '{' || c == '}') && i + 1 < s->n && s->p[i + 1] == c) {
            TRY(apr_jj_sb_part(&b, s, i, 1));
            i += 2;
        } else if (c == '}') {
            return apr_jj_fail(r, "single '}' in format string");
        } else if (c == '{') {
            struct apr_jj_val v;
            const char *close = memchr(s->p + i, '}', s->n - i);
            if (!close) return apr_jj_fail(r, "single '{' in format string");
            size_t end = (size_t)(close - s->p);
            TRY(field_value(r, a, s->p + i + 1, end - i - 1, &n_auto, &v));
            TRY(apr_jj_put_str(&b, v));
            i = end + 1;
        } else {
            size_t n = 1;
            while (i + n < s->n && s->p[i + n] != '{' && s->p[i + n] != '}') n++;
            TRY(apr_jj_sb_part(&b, s, i, n));
            i += n;
        }
    }
    return apr_jj_sb_done(&b, out);
}

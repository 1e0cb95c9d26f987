/* See repr.h. */
#include "repr.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "ast.h"

/* Digits and decimal exponent of the shortest text that reads back as f > 0: f = 0.d1d2d3... x 10^*exp10. */
static size_t shortest(double f, char digits[20], int *exp10)
{
    char text[40];
    for (int prec = 0; prec < 17; prec++) {
        snprintf(text, sizeof text, "%.*e", prec, f);
        if (strtod(text, NULL) == f) break; /* both sides use the same locale */
    }
    size_t n = 0;
    const char *p = text;
    for (; *p != 'e'; p++)
        if (*p >= '0' && *p <= '9') digits[n++] = *p;
    *exp10 = (int)strtol(p + 1, NULL, 10) + 1;
    while (n > 1 && digits[n - 1] == '0') n--;
    return n;
}

size_t apr_jj_float_text(double f, char out[40])
{
    char d[20];
    int e = 0;
    size_t n = 0, k;
    if (isnan(f)) return (size_t)snprintf(out, 40, "nan");
    if (signbit(f)) out[n++] = '-';
    f = fabs(f);
    if (isinf(f)) return n + (size_t)snprintf(out + n, 40 - n, "inf");
    if (f == 0) return n + (size_t)snprintf(out + n, 40 - n, "0.0");
    k = shortest(f, d, &e);
    if (e > 16 || e < -3) { /* 1e+16, 1.5e-05 */
        out[n++] = d[0];
        if (k > 1) out[n++] = '.';
        memcpy(out + n, d + 1, k - 1);
        n += k - 1;
        return n + (size_t)snprintf(out + n, 40 - n, "e%c%02d", e > 0 ? '+' : '-', abs(e - 1));
    }
    if (e <= 0) {
        out[n++] = '0';
        out[n++] = '.';
        for (int i = e; i < 0; i++) out[n++] = '0';
    }
    for (size_t i = 0; i < k || (int)i < e; i++) {
        if (e > 0 && (int)i == e) out[n++] = '.';
        out[n++] = i < k ? d[i] : '0';
    }
    if (e > 0 && (int)k <= e) {
        out[n++] = '.';
        out[n++] = '0';
    }
    out[n] = 0;
    return n;
}

static bool printable(int32_t cp)
{
    if (cp == ' ') return true;
    utf8proc_category_t c = utf8proc_category(cp);
    return c != UTF8PROC_CATEGORY_CN && c < UTF8PROC_CATEGORY_ZS;
}

/* Python's escape of a character in repr(); "" when it stands for itself. */
static void escape_of(int32_t cp, char quote, char esc[12])
{
    static const char named[] = "\n\r\t\\", letters[] = "nrt\\";
    const char *hit = cp > 0 && cp < 0x80 ? strchr(named, (char)cp) : NULL;
    esc[0] = 0;
    if (hit || cp == quote)
        (void)snprintf(esc, 12, "\\%c", hit ? letters[hit - named] : quote);
    else if (!printable(cp))
        (void)snprintf(esc, 12, cp < 0x100 ? "\\x%02x" : cp < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)cp);
}

static enum apr_code put_quoted(struct apr_jj_sb *b, const struct apr_jj_str *s)
{
    bool single = memchr(s->p, '\'', s->n) != NULL, twice = memchr(s->p, '"', s->n) != NULL;
    char quote = single && !twice ? '"' : '\'', esc[12];
    TRY(apr_jj_sb_bytes(b, &quote, 1, false));
    for (size_t off = 0, n; off < s->n; off += n) {
        escape_of(apr_jj_cp_at(s->p + off, s->p + s->n, &n), quote, esc);
        if (esc[0])
            TRY(apr_jj_sb_bytes(b, esc, strlen(esc), apr_jj_str_is_data(s, off)));
        else
            TRY(apr_jj_sb_part(b, s, off, n));
    }
    return apr_jj_sb_bytes(b, &quote, 1, false);
}

static enum apr_code put_list(struct apr_jj_sb *b, struct apr_jj_val v)
{
    static const char *const open[] = {
        "[", "(", "range(", "", "dict_items([", "dict_keys([", "dict_values(["};
    static const char *const close[] = {"]", ")", ")", "", "])", "])", "])"};
    const struct apr_jj_list *l = v.u.l;
    if (v.seq == APR_JJ_GEN) return apr_jj_sb_text(b, "<generator object>");
    TRY(apr_jj_sb_text(b, open[v.seq]));
    if (v.seq == APR_JJ_RANGE) { /* range(0, 3), range(0, 10, 2) */
        int64_t from = l->n ? l->at[0].u.i : 0, step = l->n > 1 ? l->at[1].u.i - from : 1;
        char text[80];
        int64_t end = l->n ? l->at[l->n - 1].u.i + step : 0;
        snprintf(text, sizeof text, step == 1 ? "%lld, %lld" : "%lld, %lld, %lld", (long long)from,
                 (long long)end, (long long)step);
        TRY(apr_jj_sb_text(b, text));
        return apr_jj_sb_text(b, ")");
    }
    for (size_t i = 0; i < l->n; i++) {
        if (i) TRY(apr_jj_sb_text(b, ", "));
        TRY(apr_jj_put_repr(b, l->at[i]));
    }
    if (v.seq == APR_JJ_TUPLE && l->n == 1) TRY(apr_jj_sb_text(b, ","));
    return apr_jj_sb_text(b, close[v.seq]);
}

static enum apr_code put_dict(struct apr_jj_sb *b, struct apr_jj_val v)
{
    TRY(apr_jj_sb_text(b, v.kind == APR_JJ_NS ? "<Namespace {" : "{"));
    for (size_t i = 0; i < v.u.d->n; i++) {
        if (i) TRY(apr_jj_sb_text(b, ", "));
        TRY(apr_jj_put_repr(b, v.u.d->at[i].key));
        TRY(apr_jj_sb_text(b, ": "));
        TRY(apr_jj_put_repr(b, v.u.d->at[i].v));
    }
    return apr_jj_sb_text(b, v.kind == APR_JJ_NS ? "}>" : "}");
}

static enum apr_code put_scalar(struct apr_jj_sb *b, struct apr_jj_val v)
{
    char text[40];
    if (v.kind == APR_JJ_INT)
        snprintf(text, sizeof text, "%lld", (long long)v.u.i);
    else if (v.kind == APR_JJ_FLOAT)
        apr_jj_float_text(v.u.f, text);
    else
        snprintf(text, sizeof text, "%s", v.kind != APR_JJ_BOOL ? "None" : v.u.b ? "True" : "False");
    return apr_jj_sb_bytes(b, text, strlen(text), v.data);
}

static enum apr_code put_any(struct apr_jj_sb *b, struct apr_jj_val v)
{
    switch ((enum apr_jj_kind)v.kind) {
    case APR_JJ_UNDEF:
        return apr_jj_sb_text(b, "Undefined");
    case APR_JJ_ABSENT:
    case APR_JJ_NONE:
    case APR_JJ_BOOL:
    case APR_JJ_INT:
    case APR_JJ_FLOAT:
        return put_scalar(b, v);
    case APR_JJ_STR:
        return put_quoted(b, v.u.s);
    case APR_JJ_LIST:
        return put_list(b, v);
    case APR_JJ_DICT:
    case APR_JJ_NS:
        return put_dict(b, v);
    case APR_JJ_MACRO:
        TRY(apr_jj_sb_text(b, "<Macro '"));
        TRY(apr_jj_sb_str(b, v.u.m->node->name));
        return apr_jj_sb_text(b, "'>");
    case APR_JJ_FUNC:
        TRY(apr_jj_sb_text(b, "<function "));
        TRY(apr_jj_sb_text(b, v.u.fn->fn->name));
        return apr_jj_sb_text(b, ">");
    case APR_JJ_LOOP:
        return apr_jj_sb_text(b, "<LoopContext>");
    }
    return apr_jj_fail(b->r, "value of unknown kind");
}

enum apr_code apr_jj_put_repr(struct apr_jj_sb *b, struct apr_jj_val v)
{
    TRY(apr_jj_enter(b->r));
    TRY(put_any(b, v));
    b->r->depth--;
    return APR_OK;
}

enum apr_code apr_jj_put_str(struct apr_jj_sb *b, struct apr_jj_val v)
{
    if (v.kind == APR_JJ_STR) return apr_jj_sb_str(b, v.u.s);
    if (v.kind == APR_JJ_UNDEF) return APR_OK;
    return apr_jj_put_repr(b, v);
}

enum apr_code apr_jj_to_str(struct apr_jj_run *r, struct apr_jj_val v, struct apr_jj_val *out)
{
    struct apr_jj_sb b;
    if (v.kind == APR_JJ_STR) {
        *out = v;
        return APR_OK;
    }
    apr_jj_sb_init(&b, r);
    TRY(apr_jj_put_str(&b, v));
    return apr_jj_sb_done(&b, out);
}

enum apr_code apr_jj_any_data(struct apr_jj_run *r, struct apr_jj_val v, bool *yes)
{
    TRY(apr_jj_enter(r));
    *yes = v.data || (v.kind == APR_JJ_STR && apr_jj_str_any_data(v.u.s));
    if (v.kind == APR_JJ_LIST)
        for (size_t i = 0; !*yes && i < v.u.l->n; i++) TRY(apr_jj_any_data(r, v.u.l->at[i], yes));
    if (v.kind == APR_JJ_DICT)
        for (size_t i = 0; !*yes && i < v.u.d->n; i++) {
            TRY(apr_jj_any_data(r, v.u.d->at[i].key, yes));
            if (!*yes) TRY(apr_jj_any_data(r, v.u.d->at[i].v, yes));
        }
    r->depth--;
    return APR_OK;
}

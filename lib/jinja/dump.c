/* json.dumps as Python writes it; declared in repr.h. The whole text counts as data when any part is. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "repr.h"

static enum apr_code put(struct apr_jj_sb *b, const char *text, bool data)
{
    return apr_jj_sb_bytes(b, text, strlen(text), data);
}

static enum apr_code put_escape(struct apr_jj_sb *b, int32_t cp, bool data)
{
    char esc[16];
    static const char named[] = "\b\f\n\r\t\"\\", letters[] = "bfnrt\"\\";
    const char *hit = cp ? memchr(named, cp, sizeof named - 1) : NULL;
    if (cp < 0x80 && hit)
        snprintf(esc, sizeof esc, "\\%c", letters[hit - named]);
    else if (cp < 0x10000)
        snprintf(esc, sizeof esc, "\\u%04x", (unsigned)cp);
    else
        snprintf(esc, sizeof esc, "\\u%04x\\u%04x", 0xD7C0u + ((unsigned)cp >> 10),
                 0xDC00u + ((unsigned)cp & 0x3FF));
    return put(b, esc, data);
}

static enum apr_code put_string(struct apr_jj_sb *b, const struct apr_jj_str *s, bool ascii, bool data)
{
    size_t from = 0;
    TRY(put(b, "\"", data));
    for (size_t off = 0, n; off < s->n; off += n) {
        int32_t cp = apr_jj_cp_at(s->p + off, s->p + s->n, &n);
        if (cp >= 0x20 && cp != '"' && cp != '\\' && (cp < 0x7F || !ascii)) continue;
        TRY(apr_jj_sb_bytes(b, s->p + from, off - from, data));
        TRY(put_escape(b, cp, data));
        from = off + n;
    }
    TRY(apr_jj_sb_bytes(b, s->p + from, s->n - from, data));
    return put(b, "\"", data);
}

static enum apr_code put_number(struct apr_jj_sb *b, struct apr_jj_val v, bool data)
{
    char text[40];
    if (v.kind == APR_JJ_INT)
        snprintf(text, sizeof text, "%lld", (long long)v.u.i);
    else if (v.kind == APR_JJ_FLOAT && isfinite(v.u.f))
        apr_jj_float_text(v.u.f, text);
    else if (v.kind == APR_JJ_FLOAT)
        snprintf(text, sizeof text, "%s", isnan(v.u.f) ? "NaN" : v.u.f > 0 ? "Infinity" : "-Infinity");
    else
        snprintf(text, sizeof text, "%s", v.kind != APR_JJ_BOOL ? "null" : v.u.b ? "true" : "false");
    return put(b, text, data);
}

static enum apr_code new_line(struct apr_jj_sb *b, const struct apr_jj_json_style *style, size_t level,
                              bool data)
{
    if (!style->indent) return APR_OK;
    TRY(put(b, "\n", data));
    for (size_t i = 0; i < level; i++) TRY(apr_jj_sb_bytes(b, style->indent->p, style->indent->n, data));
    return APR_OK;
}

static enum apr_code put_key(struct apr_jj_sb *b, struct apr_jj_val key,
                             const struct apr_jj_json_style *style, bool data)
{
    if (key.kind == APR_JJ_STR) return put_string(b, key.u.s, style->ensure_ascii, data);
    if (!apr_jj_is_number(key) && key.kind != APR_JJ_NONE)
        return apr_jj_fail(b->r, "keys must be str, int, float, bool or None, not %s", apr_jj_type_name(key));
    TRY(put(b, "\"", data));
    TRY(put_number(b, key, data));
    return put(b, "\"", data);
}

static int by_key(const void *a, const void *b)
{
    const struct apr_jj_entry *x = a, *y = b;
    return apr_jj_str_cmp(x->key.u.s, y->key.u.s);
}

static enum apr_code sorted(struct apr_jj_run *r, const struct apr_jj_dict *d, struct apr_jj_entry **out)
{
    struct apr_jj_entry *at = NULL;
    TRY(apr_jj_alloc(r, d->n, sizeof *at, &at));
    memcpy(at, d->at, d->n * sizeof *at);
    for (size_t i = 0; i < d->n; i++)
        if (at[i].key.kind != APR_JJ_STR) return apr_jj_fail(r, "keys that are not strings cannot be sorted");
    qsort(at, d->n, sizeof *at, by_key);
    *out = at;
    return APR_OK;
}

static enum apr_code put_dict(struct apr_jj_sb *b, const struct apr_jj_dict *d,
                              const struct apr_jj_json_style *style, size_t level, bool data)
{
    struct apr_jj_entry *at = d->at;
    if (!d->n) return put(b, "{}", data);
    if (style->sort_keys) TRY(sorted(b->r, d, &at));
    TRY(put(b, "{", data));
    for (size_t i = 0; i < d->n; i++) {
        if (i) TRY(apr_jj_sb_bytes(b, style->item_sep->p, style->item_sep->n, data));
        TRY(new_line(b, style, level + 1, data));
        TRY(put_key(b, at[i].key, style, data));
        TRY(apr_jj_sb_bytes(b, style->key_sep->p, style->key_sep->n, data));
        TRY(apr_jj_put_json(b, at[i].v, style, level + 1, data));
    }
    TRY(new_line(b, style, level, data));
    return put(b, "}", data);
}

static enum apr_code put_list(struct apr_jj_sb *b, const struct apr_jj_list *l,
                              const struct apr_jj_json_style *style, size_t level, bool data)
{
    if (!l->n) return put(b, "[]", data);
    TRY(put(b, "[", data));
    for (size_t i = 0; i < l->n; i++) {
        if (i) TRY(apr_jj_sb_bytes(b, style->item_sep->p, style->item_sep->n, data));
        TRY(new_line(b, style, level + 1, data));
        TRY(apr_jj_put_json(b, l->at[i], style, level + 1, data));
    }
    TRY(new_line(b, style, level, data));
    return put(b, "]", data);
}

enum apr_code apr_jj_put_json(struct apr_jj_sb *b, struct apr_jj_val v, const struct apr_jj_json_style *style,
                              size_t level, bool data)
{
    TRY(apr_jj_enter(b->r));
    if (v.kind == APR_JJ_STR)
        TRY(put_string(b, v.u.s, style->ensure_ascii, data));
    else if (apr_jj_is_number(v) || v.kind == APR_JJ_NONE)
        TRY(put_number(b, v, data));
    else if (v.kind == APR_JJ_DICT)
        TRY(put_dict(b, v.u.d, style, level, data));
    else if (v.kind == APR_JJ_LIST && v.seq <= APR_JJ_TUPLE)
        TRY(put_list(b, v.u.l, style, level, data));
    else if (v.kind == APR_JJ_UNDEF)
        return apr_jj_fail(b->r, "Object of type Undefined is not JSON serializable");
    else
        return apr_jj_fail(b->r, "Object of type %s is not JSON serializable", apr_jj_type_name(v));
    b->r->depth--;
    return APR_OK;
}

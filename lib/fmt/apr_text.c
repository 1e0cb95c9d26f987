/* Scanner and printer of the long arrays. See apr_text.h. */
#include "apr_text.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../json.h"

struct scan {
    char *p, *end;
    const char *begin;
    uint64_t off;
    const char *file;
    struct apr_arena *arena;
};

static enum apr_code bad(const struct scan *s, const char *p, const char *expected, struct apr_err *e)
{
    return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": metadata: expected %s", s->file,
                    s->off + (uint64_t)(p - s->begin), expected);
}

/* ---- UTF-8 -------------------------------------------------------------------------------------------- */

/* Bytes of the sequence at p, 0 when it is not UTF-8 (overlong, surrogate, beyond U+10FFFF, cut). */
static size_t utf8_bytes(const uint8_t *p, size_t n)
{
    uint8_t lo = 0x80, hi = 0xbf;
    size_t k;
    if (p[0] < 0x80) return 1;
    if (p[0] >= 0xc2 && p[0] <= 0xdf) return n >= 2 && (p[1] & 0xc0) == 0x80 ? 2 : 0;
    if (p[0] == 0xe0) lo = 0xa0;
    if (p[0] == 0xed) hi = 0x9f;
    if (p[0] == 0xf0) lo = 0x90;
    if (p[0] == 0xf4) hi = 0x8f;
    k = p[0] >= 0xe0 && p[0] <= 0xef ? 3 : p[0] >= 0xf0 && p[0] <= 0xf4 ? 4 : 0;
    if (k == 0 || n < k || p[1] < lo || p[1] > hi || (p[2] & 0xc0) != 0x80) return 0;
    return k == 3 || (p[3] & 0xc0) == 0x80 ? k : 0;
}

static enum apr_code check_utf8(const struct scan *s, struct apr_err *e)
{
    const uint8_t *p = (const uint8_t *)s->begin;
    size_t n = (size_t)(s->end - s->begin), i = 0;
    while (i < n) {
        uint64_t eight;
        size_t k;
        if (n - i >= sizeof eight) {
            memcpy(&eight, p + i, sizeof eight);
            if ((eight & 0x8080808080808080u) == 0) {
                i += sizeof eight;
                continue;
            }
        }
        k = utf8_bytes(p + i, n - i);
        if (k == 0) return bad(s, s->begin + i, "UTF-8", e);
        i += k;
    }
    return APR_OK;
}

/* ---- pieces ------------------------------------------------------------------------------------------- */

static void skip_space(struct scan *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\t' || *s->p == '\r')) s->p++;
}

static bool take(struct scan *s, char c)
{
    skip_space(s);
    if (s->p == s->end || *s->p != c) return false;
    s->p++;
    return true;
}

static int hex4(const char *p)
{
    int v = 0;
    for (int i = 0; i < 4; i++) {
        int d = p[i] >= '0' && p[i] <= '9'   ? p[i] - '0'
                : p[i] >= 'a' && p[i] <= 'f' ? p[i] - 'a' + 10
                : p[i] >= 'A' && p[i] <= 'F' ? p[i] - 'A' + 10
                                             : -1;
        if (d < 0) return -1;
        v = v << 4 | d;
    }
    return v;
}

static char *put_utf8(char *to, unsigned c)
{
    if (c < 0x80) {
        *to++ = (char)c;
    } else if (c < 0x800) {
        *to++ = (char)(0xc0 | c >> 6);
        *to++ = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *to++ = (char)(0xe0 | c >> 12);
        *to++ = (char)(0x80 | (c >> 6 & 0x3f));
        *to++ = (char)(0x80 | (c & 0x3f));
    } else {
        *to++ = (char)(0xf0 | c >> 18);
        *to++ = (char)(0x80 | (c >> 12 & 0x3f));
        *to++ = (char)(0x80 | (c >> 6 & 0x3f));
        *to++ = (char)(0x80 | (c & 0x3f));
    }
    return to;
}

/* The escape at s->p (a backslash) to *to; the result is never longer than the escape. */
static bool unescape(struct scan *s, char **to)
{
    static const char from[] = "\"\\/bfnrt", into[] = "\"\\/\b\f\n\r\t";
    const char *at;
    int high, low;
    if (s->end - s->p < 2) return false;
    at = s->p[1] ? strchr(from, s->p[1]) : NULL;
    if (at) {
        *(*to)++ = into[at - from];
        s->p += 2;
        return true;
    }
    if (s->p[1] != 'u' || s->end - s->p < 6 || (high = hex4(s->p + 2)) < 0) return false;
    s->p += 6;
    if (high >= 0xdc00 && high <= 0xdfff) return false;
    if (high < 0xd800 || high > 0xdbff) {
        *to = put_utf8(*to, (unsigned)high);
        return true;
    }
    if (s->end - s->p < 6 || s->p[0] != '\\' || s->p[1] != 'u') return false;
    low = hex4(s->p + 2);
    if (low < 0xdc00 || low > 0xdfff) return false;
    s->p += 6;
    *to = put_utf8(*to, 0x10000u + ((unsigned)(high - 0xd800) << 10) + (unsigned)(low - 0xdc00));
    return true;
}

/* A string, unescaped in place; a NUL takes the place of its closing quote or stands before it. */
static enum apr_code take_string(struct scan *s, struct apr_str *out, struct apr_err *e)
{
    char *to;
    if (!take(s, '"')) return bad(s, s->p, "a string", e);
    out->p = s->p;
    while (s->p < s->end && *s->p != '"' && *s->p != '\\' && (unsigned char)*s->p >= 0x20) s->p++;
    to = s->p;
    while (s->p < s->end && *s->p != '"') {
        if ((unsigned char)*s->p < 0x20) return bad(s, s->p, "no control character in a string", e);
        if (*s->p != '\\')
            *to++ = *s->p++;
        else if (!unescape(s, &to))
            return bad(s, s->p, "an escape", e);
    }
    if (s->p == s->end) return bad(s, s->p, "the end of a string", e);
    s->p++;
    *to = '\0';
    out->n_bytes = (size_t)(to - out->p);
    return APR_OK;
}

/* Steps over any value; brackets inside strings do not count. */
static enum apr_code skip_value(struct scan *s, struct apr_err *e)
{
    unsigned depth = 0;
    const char *begin = s->p;
    for (; s->p < s->end; s->p++) {
        if (*s->p == '"') {
            for (s->p++; s->p < s->end && *s->p != '"'; s->p++)
                if (*s->p == '\\') s->p++;
            if (s->p >= s->end) return bad(s, s->end, "the end of a string", e);
        } else if (*s->p == '{' || *s->p == '[') {
            if (++depth > APR_JSON_MAX_DEPTH) return bad(s, s->p, "fewer levels", e);
        } else if (depth == 0 && (*s->p == ',' || *s->p == '}' || *s->p == ']')) {
            break;
        } else if (*s->p == '}' || *s->p == ']') {
            depth--;
        }
    }
    return s->p == begin ? bad(s, s->p, "a value", e) : APR_OK;
}

/* ---- arrays ------------------------------------------------------------------------------------------- */

typedef enum apr_code take_elem_fn(struct scan *s, struct apr_buf *b, struct apr_err *e);

static enum apr_code take_text(struct scan *s, struct apr_buf *b, struct apr_err *e)
{
    struct apr_str text;
    TRY(take_string(s, &text, e));
    return apr_buf_append(b, &text, sizeof text, e);
}

static enum apr_code take_int(struct scan *s, struct apr_buf *b, struct apr_err *e)
{
    int64_t v = 0;
    int32_t out;
    bool is_negative = take(s, '-');
    const char *begin = s->p;
    while (s->p < s->end && *s->p >= '0' && *s->p <= '9' && s->p - begin < 10) v = 10 * v + (*s->p++ - '0');
    if (s->p == begin || v > INT32_MAX) return bad(s, begin, "an integer of 32 bits", e);
    out = (int32_t)(is_negative ? -v : v);
    return apr_buf_append(b, &out, sizeof out, e);
}

/* Up to 15 digits and a power of ten up to 22 are exact in double arithmetic; the rest is strtod's. */
static enum apr_code take_float(struct scan *s, struct apr_buf *b, struct apr_err *e)
{
    static const double tens[] = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                  1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
    char text[64], *stop;
    size_t n = 0, n_digits = 0, n_frac = 0;
    uint64_t mantissa = 0;
    bool in_frac = false, is_plain = true;
    double v;
    float out;
    skip_space(s);
    while (s->p < s->end && n + 1 < sizeof text && *s->p && strchr("+-.eE0123456789", *s->p)) {
        char c = text[n++] = *s->p++;
        if (c >= '0' && c <= '9') {
            mantissa = n_digits < 15 ? 10 * mantissa + (uint64_t)(c - '0') : mantissa;
            n_digits++;
            n_frac += in_frac;
        } else if (c == '.' && !in_frac) {
            in_frac = true;
        } else if (c != '-' || n != 1) {
            is_plain = false;
        }
    }
    text[n] = '\0';
    if (is_plain && n_digits && n_digits <= 15) {
        v = (double)mantissa / tens[n_frac];
        if (text[0] == '-') v = -v;
    } else {
        v = strtod(text, &stop);
        if (n == 0 || *stop || !n_digits) return bad(s, s->p - n, "a number", e);
    }
    out = (float)v;
    if (!isfinite(out)) return bad(s, s->p - n, "a number that a float holds", e);
    return apr_buf_append(b, &out, sizeof out, e);
}

/* An array, or null. */
static enum apr_code take_array(struct scan *s, take_elem_fn *elem, size_t elem_bytes, void *out_ptr,
                                uint64_t *n, struct apr_err *e)
{
    struct apr_buf b;
    enum apr_code code = APR_OK;
    void *copy = NULL;
    skip_space(s);
    if (s->end - s->p >= 4 && memcmp(s->p, "null", 4) == 0) {
        s->p += 4;
        return APR_OK;
    }
    if (!take(s, '[')) return bad(s, s->p, "an array", e);
    apr_buf_init(&b, SIZE_MAX / 2);
    if (!take(s, ']')) {
        do code = elem(s, &b, e);
        while (code == APR_OK && take(s, ','));
        if (code == APR_OK && !take(s, ']')) code = bad(s, s->p, "',' or ']'", e);
    }
    if (code == APR_OK) code = apr_arena_try(s->arena, &copy, b.n_bytes + 1, 1, "the vocabulary", e);
    if (code == APR_OK && b.n_bytes) memcpy(copy, b.data, b.n_bytes);
    *n = b.n_bytes / elem_bytes;
    apr_buf_free(&b);
    memcpy(out_ptr, &copy, sizeof copy);
    return code;
}

/* ---- the object --------------------------------------------------------------------------------------- */

static bool is_long_array(const char *key)
{
    return strcmp(key, "tokenizer.vocabulary") == 0 || strcmp(key, "tokenizer.merges") == 0 ||
           strcmp(key, "tokenizer.token_type") == 0 || strcmp(key, "tokenizer.scores") == 0;
}

static enum apr_code take_long_array(struct scan *s, const char *key, struct apr_text *out, struct apr_err *e)
{
    if (strcmp(key, "tokenizer.vocabulary") == 0)
        return take_array(s, take_text, sizeof *out->toks, &out->toks, &out->n_toks, e);
    if (strcmp(key, "tokenizer.merges") == 0)
        return take_array(s, take_text, sizeof *out->merges, &out->merges, &out->n_merges, e);
    if (strcmp(key, "tokenizer.token_type") == 0)
        return take_array(s, take_int, sizeof *out->types, &out->types, &out->n_types, e);
    return take_array(s, take_float, sizeof *out->scores, &out->scores, &out->n_scores, e);
}

static enum apr_code take_member(struct scan *s, struct apr_text *out, struct apr_err *e)
{
    struct apr_str key;
    json_t *value = NULL;
    const char *begin;
    TRY(take_string(s, &key, e));
    if (memchr(key.p, 0, key.n_bytes)) return bad(s, key.p, "a key without NUL", e);
    if (!take(s, ':')) return bad(s, s->p, "':'", e);
    skip_space(s);
    if (is_long_array(key.p)) return take_long_array(s, key.p, out, e);
    begin = s->p;
    TRY(skip_value(s, e));
    enum apr_code code = apr_json_parse(begin, (size_t)(s->p - begin), s->file, &value, e);
    if (code != APR_OK) {
        char shown[128], text[sizeof e->text];
        memcpy(text, e->text, sizeof text);
        return apr_fail(e, code, "%s: byte %" PRIu64 ": metadata key \"%s\": %.600s", s->file,
                        s->off + (uint64_t)(begin - s->begin),
                        apr_escape(shown, sizeof shown, key.p, key.n_bytes), text);
    }
    if (json_object_get(out->root, key.p)) out->has_duplicates = true;
    if (json_object_set_new(out->root, key.p, value) != 0) return bad(s, begin, "memory for a value", e);
    return APR_OK;
}

static enum apr_code take_object(struct scan *s, struct apr_text *out, struct apr_err *e)
{
    TRY(check_utf8(s, e));
    if (!take(s, '{')) return bad(s, s->p, "a JSON object", e);
    if (!take(s, '}')) {
        do TRY(take_member(s, out, e));
        while (take(s, ','));
        if (!take(s, '}')) return bad(s, s->p, "',' or '}'", e);
    }
    skip_space(s);
    return s->p == s->end ? APR_OK : bad(s, s->p, "the end of the object", e);
}

enum apr_code apr_text_cut(char *text, size_t n_bytes, uint64_t off, const char *file, struct apr_arena *a,
                           struct apr_text *out, struct apr_err *e)
{
    struct scan s = {.p = text, .begin = text, .end = text + n_bytes, .off = off, .file = file, .arena = a};
    enum apr_code code;
    *out = (struct apr_text){.root = json_object()};
    code = take_object(&s, out, e);
    if (code != APR_OK) {
        json_decref(out->root);
        out->root = NULL;
    }
    return code;
}

/* ---- printing ----------------------------------------------------------------------------------------- */

static enum apr_code put_strings(const char *key, const struct apr_str *s, uint64_t n, struct apr_buf *b,
                                 struct apr_err *e)
{
    TRY(apr_buf_printf(b, e, ",\"%s\":[", key));
    for (uint64_t i = 0; i < n; i++) {
        if (i) TRY(apr_buf_append(b, ",", 1, e));
        for (size_t k = 0; k < s[i].n_bytes;) {
            size_t n_char = utf8_bytes((const uint8_t *)s[i].p + k, s[i].n_bytes - k);
            if (n_char == 0)
                return apr_fail(e, APR_ELOAD, "%s[%" PRIu64 "] is not UTF-8, which .apr metadata must be",
                                key, i);
            k += n_char;
        }
        TRY(apr_json_put_str(b, s[i].p, s[i].n_bytes, e));
    }
    return apr_buf_append(b, "]", 1, e);
}

enum apr_code apr_text_put(const struct apr_vocab *v, struct apr_buf *b, struct apr_err *e)
{
    if (!v || !v->n_toks) return APR_OK;
    TRY(put_strings("tokenizer.vocabulary", v->toks, v->n_toks, b, e));
    if (v->n_merges) TRY(put_strings("tokenizer.merges", v->merges, v->n_merges, b, e));
    if (v->types) {
        TRY(apr_buf_printf(b, e, ",\"tokenizer.token_type\":["));
        for (uint32_t i = 0; i < v->n_toks; i++)
            TRY(apr_buf_printf(b, e, i ? ",%" PRId32 : "%" PRId32, v->types[i]));
        TRY(apr_buf_append(b, "]", 1, e));
    }
    if (v->scores) {
        TRY(apr_buf_printf(b, e, ",\"tokenizer.scores\":["));
        for (uint32_t i = 0; i < v->n_toks; i++) {
            if (!isfinite(v->scores[i]))
                return apr_fail(e, APR_EFORMAT, "tokenizer.scores[%" PRIu32 "]: expected a finite number", i);
            TRY(apr_buf_printf(b, e, i ? ",%.9g" : "%.9g", (double)v->scores[i])); /* 9 digits name a float */
        }
        TRY(apr_buf_append(b, "]", 1, e));
    }
    return APR_OK;
}

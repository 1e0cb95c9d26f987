/* See str.h. White space is Python's: Unicode class White_Space plus U+001C..U+001F. */
#include "str.h"

#include <string.h>

#include <utf8proc.h>

#include "run.h"

#define MAX_TRIED  16u /* bytes of a needle that is compared place by place */
#define STRIP_STEP 8u  /* bytes cut off for which one step is charged */

#define GROW_FROM 256u /* bytes from which a concatenation leaves room behind itself */

void apr_jj_sb_init(struct apr_jj_sb *b, struct apr_jj_run *r)
{
    *b = (struct apr_jj_sb){.r = r};
}

enum apr_code apr_jj_sb_new(struct apr_jj_run *r, struct apr_jj_sb **out)
{
    TRY(apr_jj_alloc(r, 1, sizeof **out, out));
    apr_jj_sb_init(*out, r);
    return APR_OK;
}

static enum apr_code make_room(struct apr_jj_sb *b, size_t n)
{
    struct apr_jj_run *r = b->r;
    if (n > r->max_str_bytes - b->n) return apr_jj_fail(r, "text longer than %zu bytes", r->max_str_bytes);
    if (n <= b->n_cap - b->n) return APR_OK;
    size_t n_cap = b->n_cap ? b->n_cap : 64;
    while (n_cap < b->n + n) n_cap *= 2;
    char *p = NULL;
    uint8_t *mark = NULL;
    TRY(apr_jj_alloc(r, n_cap, 1, &p));
    TRY(apr_jj_alloc(r, n_cap, 1, &mark));
    if (b->n) {
        memcpy(p, b->p, b->n);
        memcpy(mark, b->mark, b->n);
    }
    b->p = p;
    b->mark = mark;
    b->n_cap = n_cap;
    return APR_OK;
}

enum apr_code apr_jj_sb_bytes(struct apr_jj_sb *b, const char *p, size_t n, bool data)
{
    if (!n) return APR_OK;
    TRY(make_room(b, n));
    memcpy(b->p + b->n, p, n);
    memset(b->mark + b->n, data, n);
    b->n += n;
    if (data)
        b->any_data = true;
    else
        b->any_text = true;
    return APR_OK;
}

enum apr_code apr_jj_sb_text(struct apr_jj_sb *b, const char *text)
{
    return apr_jj_sb_bytes(b, text, strlen(text), false);
}

enum apr_code apr_jj_sb_part(struct apr_jj_sb *b, const struct apr_jj_str *s, size_t off, size_t n)
{
    if (!s->mark) return apr_jj_sb_bytes(b, s->p + off, n, s->data);
    if (!n) return APR_OK;
    TRY(make_room(b, n));
    memcpy(b->p + b->n, s->p + off, n);
    memcpy(b->mark + b->n, s->mark + off, n);
    b->n += n;
    b->any_data = b->any_text = true;
    return APR_OK;
}

enum apr_code apr_jj_sb_str(struct apr_jj_sb *b, const struct apr_jj_str *s)
{
    return apr_jj_sb_part(b, s, 0, s->n);
}

enum apr_code apr_jj_sb_cp(struct apr_jj_sb *b, int32_t cp, bool data)
{
    utf8proc_uint8_t utf8[4];
    utf8proc_ssize_t n = utf8proc_encode_char(cp, utf8);
    return apr_jj_sb_bytes(b, (const char *)utf8, n > 0 ? (size_t)n : 0, data);
}

enum apr_code apr_jj_sb_fill(struct apr_jj_sb *b, const struct apr_jj_str *s, size_t n_times)
{
    if (!s->n || !n_times) return APR_OK;
    if (n_times > b->r->max_str_bytes / s->n)
        return apr_jj_fail(b->r, "text longer than %zu bytes", b->r->max_str_bytes);
    TRY(apr_jj_charge(b->r, n_times / 16));
    TRY(make_room(b, n_times * s->n));
    for (size_t i = 0; i < n_times; i++) TRY(apr_jj_sb_str(b, s));
    return APR_OK;
}

enum apr_code apr_jj_sb_done(struct apr_jj_sb *b, struct apr_jj_val *out)
{
    struct apr_jj_str *s = NULL;
    TRY(apr_jj_alloc(b->r, 1, sizeof *s, &s));
    *s = (struct apr_jj_str){.p = b->n ? b->p : "", .n = b->n, .data = b->any_data};
    if (b->any_data && b->any_text) s->mark = b->mark;
    *out = apr_jj_of_str(s);
    return APR_OK;
}

enum apr_code apr_jj_str_new(struct apr_jj_run *r, const char *p, size_t n, bool data, struct apr_jj_val *out)
{
    struct apr_jj_str *s = NULL;
    char *copy = NULL;
    TRY(apr_jj_alloc(r, 1, sizeof *s, &s));
    TRY(apr_jj_alloc(r, n + 1, 1, &copy));
    if (n) memcpy(copy, p, n);
    *s = (struct apr_jj_str){.p = copy, .n = n, .data = data};
    *out = apr_jj_of_str(s);
    return APR_OK;
}

enum apr_code apr_jj_text(struct apr_jj_run *r, const char *static_text, struct apr_jj_val *out)
{
    struct apr_jj_str *s = NULL;
    TRY(apr_jj_alloc(r, 1, sizeof *s, &s));
    *s = (struct apr_jj_str){.p = static_text, .n = strlen(static_text)};
    *out = apr_jj_of_str(s);
    return APR_OK;
}

enum apr_code apr_jj_str_part(struct apr_jj_run *r, const struct apr_jj_str *s, size_t off, size_t n,
                              struct apr_jj_val *out)
{
    struct apr_jj_str *part = NULL;
    TRY(apr_jj_alloc(r, 1, sizeof *part, &part));
    *part =
        (struct apr_jj_str){.p = s->p + off, .n = n, .mark = s->mark ? s->mark + off : NULL, .data = s->data};
    *out = apr_jj_of_str(part);
    return APR_OK;
}

/* Copies s behind what the room holds already. */
static void grow_put(struct apr_jj_grow *g, const struct apr_jj_str *s)
{
    if (!s->n) return;
    memcpy(g->base + g->n_used, s->p, s->n);
    if (s->mark)
        memcpy(g->mark + g->n_used, s->mark, s->n);
    else
        memset(g->mark + g->n_used, s->data, s->n);
    g->n_used += s->n;
}

enum apr_code apr_jj_str_concat(struct apr_jj_run *r, const struct apr_jj_str *a, const struct apr_jj_str *b,
                                struct apr_jj_val *out)
{
    struct apr_jj_sb sb;
    struct apr_jj_grow *g = a->grow;
    struct apr_jj_str *s = NULL;
    if (a->n > r->max_str_bytes || b->n > r->max_str_bytes - a->n)
        return apr_jj_fail(r, "text longer than %zu bytes", r->max_str_bytes);
    size_t n = a->n + b->n;
    if (n < GROW_FROM) {
        apr_jj_sb_init(&sb, r);
        TRY(apr_jj_sb_str(&sb, a));
        TRY(apr_jj_sb_str(&sb, b));
        return apr_jj_sb_done(&sb, out);
    }
    TRY(apr_jj_alloc(r, 1, sizeof *s, &s));
    TRY(apr_jj_charge(r, b->n / 64));
    if (!g || a->p + a->n != g->base + g->n_used || b->n > g->n_cap - g->n_used) {
        TRY(apr_jj_alloc(r, 1, sizeof *g, &g));
        *g = (struct apr_jj_grow){.n_cap = 2 * n};
        TRY(apr_jj_alloc(r, g->n_cap, 1, &g->base));
        TRY(apr_jj_alloc(r, g->n_cap, 1, &g->mark));
        grow_put(g, a);
    }
    size_t off = g->n_used - a->n;
    grow_put(g, b);
    *s = (struct apr_jj_str){.p = g->base + off, .n = n, .mark = g->mark + off, .grow = g};
    *out = apr_jj_of_str(s);
    return APR_OK;
}

bool apr_jj_str_any_data(const struct apr_jj_str *s)
{
    if (!s->n) return false;
    return s->mark ? memchr(s->mark, 1, s->n) != NULL : s->data;
}

bool apr_jj_str_is_data(const struct apr_jj_str *s, size_t off)
{
    return s->mark ? s->mark[off] : s->data;
}

bool apr_jj_str_eq(const struct apr_jj_str *s, const char *text)
{
    return s->n == strlen(text) && memcmp(s->p, text, s->n) == 0;
}

int apr_jj_str_cmp(const struct apr_jj_str *a, const struct apr_jj_str *b)
{
    size_t n = a->n < b->n ? a->n : b->n;
    int c = n ? memcmp(a->p, b->p, n) : 0; /* byte order of UTF-8 is code point order */
    return c ? c : (a->n > b->n) - (a->n < b->n);
}

size_t apr_jj_str_len(const struct apr_jj_str *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++) n += ((uint8_t)s->p[i] & 0xC0) != 0x80;
    return n;
}

size_t apr_jj_cp_off(const struct apr_jj_str *s, size_t i_cp)
{
    size_t off = 0;
    while (off < s->n && i_cp) {
        off++;
        while (off < s->n && ((uint8_t)s->p[off] & 0xC0) == 0x80) off++;
        i_cp--;
    }
    return off;
}

ssize_t apr_jj_str_find(const struct apr_jj_str *s, const struct apr_jj_str *needle, size_t off)
{
    if (off > s->n) return -1;
    if (!needle->n) return (ssize_t)off;
    if (needle->n > s->n - off) return -1;
    const char *hit = memmem(s->p + off, s->n - off, needle->p, needle->n);
    return hit ? hit - s->p : -1;
}

static enum apr_code reversed(struct apr_jj_run *r, const char *p, size_t n, struct apr_jj_str *out)
{
    char *at = NULL;
    TRY(apr_jj_alloc(r, n, 1, &at));
    for (size_t i = 0; i < n; i++) at[i] = p[n - 1 - i];
    *out = (struct apr_jj_str){.p = at, .n = n};
    return APR_OK;
}

/* memmem is linear whatever it is given, and knows one direction. Trying every place costs as much as the
 * needle is long, which a template decides: only short ones are searched for like that. */
enum apr_code apr_jj_str_rfind(struct apr_jj_run *r, const struct apr_jj_str *s,
                               const struct apr_jj_str *needle, size_t end, ssize_t *at)
{
    struct apr_jj_str hay, key;
    *at = -1;
    if (needle->n > end) return APR_OK;
    TRY(apr_jj_charge(r, end / 16));
    if (needle->n <= MAX_TRIED) {
        size_t off = end - needle->n;
        while (off > 0 && needle->n && memcmp(s->p + off, needle->p, needle->n) != 0) off--;
        if (!needle->n || memcmp(s->p + off, needle->p, needle->n) == 0) *at = (ssize_t)off;
        return APR_OK;
    }
    TRY(reversed(r, s->p, end, &hay));
    TRY(reversed(r, needle->p, needle->n, &key));
    ssize_t back = apr_jj_str_find(&hay, &key, 0);
    if (back >= 0) *at = (ssize_t)(end - (size_t)back - needle->n);
    return APR_OK;
}

int32_t apr_jj_cp_at(const char *p, const char *end, size_t *n_bytes)
{
    utf8proc_int32_t cp;
    utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)p, end - p, &cp);
    if (n <= 0) { /* cannot happen in checked text */
        *n_bytes = 1;
        return 0xFFFD;
    }
    *n_bytes = (size_t)n;
    return cp;
}

size_t apr_jj_cp_back(const char *p, size_t off)
{
    size_t n = 1;
    while (n < off && n < 4 && ((uint8_t)p[off - n] & 0xC0) == 0x80) n++;
    return n;
}

bool apr_jj_is_space(int32_t cp)
{
    if (cp < 0x80) return (cp >= 9 && cp <= 13) || (cp >= 0x1C && cp <= 0x20);
    return cp == 0x85 || cp == 0xA0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 ||
           cp == 0x2029 || cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

bool apr_jj_utf8_valid(const char *p, size_t n)
{
    utf8proc_int32_t cp;
    for (size_t i = 0; i < n;) {
        utf8proc_ssize_t k =
            utf8proc_iterate((const utf8proc_uint8_t *)p + i, (utf8proc_ssize_t)(n - i), &cp);
        if (k <= 0) return false;
        i += (size_t)k;
    }
    return true;
}

static bool cut(const struct apr_jj_str *s, size_t off, size_t n, const struct apr_jj_str *chars)
{
    size_t k;
    if (!chars) return apr_jj_is_space(apr_jj_cp_at(s->p + off, s->p + s->n, &k));
    struct apr_jj_str one = {.p = s->p + off, .n = n};
    return apr_jj_str_find(chars, &one, 0) >= 0;
}

enum apr_code apr_jj_str_strip(struct apr_jj_run *r, const struct apr_jj_str *s,
                               const struct apr_jj_str *chars, bool left, bool right, struct apr_jj_val *out)
{
    size_t off = 0, end = s->n;
    const size_t n_tried = chars ? 1 + chars->n / 16 : 1;
    while (left && off < end) {
        size_t n;
        apr_jj_cp_at(s->p + off, s->p + s->n, &n);
        if (!cut(s, off, n, chars)) break;
        off += n;
        if (off % STRIP_STEP < n) TRY(apr_jj_charge(r, n_tried));
    }
    while (right && end > off) {
        size_t n = apr_jj_cp_back(s->p, end);
        if (!cut(s, end - n, n, chars)) break;
        end -= n;
        if (end % STRIP_STEP < n) TRY(apr_jj_charge(r, n_tried));
    }
    return apr_jj_str_part(r, s, off, end - off, out);
}

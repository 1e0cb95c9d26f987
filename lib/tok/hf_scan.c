/* See hf_scan.h. */
#include "hf_scan.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "../json.h"
#include "utf8.h"

struct cur {
    const char *base, *p, *end;
    const char *file;
    struct apr_arena *arena;
    struct apr_err *e;
};

static enum apr_code bad(struct cur *c, const char *what)
{
    return apr_fail(c->e, APR_EFORMAT, "%s: byte %zu: %s", c->file, (size_t)(c->p - c->base), what);
}

static int peek(struct cur *c)
{
    while (c->p < c->end && (*c->p == ' ' || *c->p == '\n' || *c->p == '\r' || *c->p == '\t')) c->p++;
    return c->p < c->end ? (unsigned char)*c->p : -1;
}

static bool take(struct cur *c, char want)
{
    if (peek(c) != (unsigned char)want) return false;
    c->p++;
    return true;
}

static enum apr_code need(struct cur *c, char want)
{
    char what[] = "expected X";
    what[9] = want;
    return take(c, want) ? APR_OK : bad(c, what);
}

/* From the opening quote to behind the closing one; the text between. */
static enum apr_code raw_string(struct cur *c, const char **text, size_t *n, bool *escaped)
{
    TRY(need(c, '"'));
    *text = c->p;
    *escaped = false;
    for (; c->p < c->end; c->p++) {
        if (*c->p == '"') {
            *n = (size_t)(c->p++ - *text);
            return APR_OK;
        }
        if ((unsigned char)*c->p < 0x20) return bad(c, "control character in a string");
        if (*c->p != '\\') continue;
        *escaped = true;
        c->p++;
    }
    return bad(c, "string without an end");
}

static enum apr_code skip_value(struct cur *c)
{
    int depth = 0;
    do {
        int ch = peek(c);
        const char *text;
        size_t n;
        bool escaped;
        if (ch < 0) return bad(c, "the document ends inside a value");
        if (ch == '"') {
            TRY(raw_string(c, &text, &n, &escaped));
            continue;
        }
        if (ch == '{' || ch == '[') depth++;
        if (ch == '}' || ch == ']') depth--;
        bool simple = !strchr("{}[],:", ch);
        do c->p++;
        while (simple && c->p < c->end && !strchr("{}[],:\" \t\r\n", *c->p));
    } while (depth > 0);
    return depth < 0 ? bad(c, "bracket out of place") : APR_OK;
}

static int hex4(const char *p)
{
    int v = 0;
    for (int i = 0; i < 4; i++) {
        const char *digits = "0123456789abcdef";
        const char *at = p[i] ? strchr(digits, p[i] >= 'A' && p[i] <= 'F' ? p[i] + 32 : p[i]) : NULL;
        if (!at) return -1;
        v = v * 16 + (int)(at - digits);
    }
    return v;
}

/* \uXXXX, also as a surrogate pair; p is behind the u. */
static size_t unicode_escape(const char *p, const char *end, uint32_t *cp)
{
    int hi = end - p >= 4 ? hex4(p) : -1;
    if (hi <= 0) return 0;
    *cp = (uint32_t)hi;
    if (hi < 0xd800 || hi > 0xdfff) return 4;
    int lo = hi < 0xdc00 && end - p >= 10 && p[4] == '\\' && p[5] == 'u' ? hex4(p + 6) : -1;
    if (lo < 0xdc00 || lo > 0xdfff) return 0;
    *cp = 0x10000 + (((uint32_t)hi - 0xd800) << 10) + ((uint32_t)lo - 0xdc00);
    return 10;
}

static enum apr_code unescape(struct cur *c, const char *p, size_t n, char *out, size_t *n_out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *end = p + n;
    char *at = out;
    while (p < end) {
        if (*p != '\\') {
            *at++ = *p++;
            continue;
        }
        p++;
        const char *simple = p < end && *p ? strchr(from, *p) : NULL;
        if (simple) {
            *at++ = to[simple - from];
            p++;
            continue;
        }
        uint32_t cp;
        size_t k = p < end && *p == 'u' ? unicode_escape(p + 1, end, &cp) : 0;
        if (k == 0) return bad(c, "bad escape in the string before");
        p += k + 1;
        at += apr_utf8_put(cp, (uint8_t *)at);
    }
    *n_out = (size_t)(at - out);
    return APR_OK;
}

/* Decoded into *room, which advances; an escape never gets longer. */
static enum apr_code string(struct cur *c, char **room, struct apr_str *out)
{
    const char *text;
    size_t n;
    bool escaped;
    TRY(raw_string(c, &text, &n, &escaped));
    if (escaped)
        TRY(unescape(c, text, n, *room, &n));
    else
        memcpy(*room, text, n);
    if (apr_utf8_valid((const uint8_t *)*room, n) != n) return bad(c, "the string before is not UTF-8");
    (*room)[n] = '\0';
    *out = (struct apr_str){*room, n};
    *room += n + 1;
    return APR_OK;
}

static enum apr_code integer(struct cur *c, int64_t *v)
{
    bool negative = take(c, '-');
    const char *start = c->p;
    *v = 0;
    if (peek(c) < '0' || *c->p > '9') return bad(c, "expected an integer");
    for (; c->p < c->end && *c->p >= '0' && *c->p <= '9'; c->p++) {
        if (c->p - start >= 18) return bad(c, "integer out of range");
        *v = *v * 10 + (*c->p - '0');
    }
    if (negative) *v = -*v;
    if (c->p < c->end && strchr(".eE", *c->p)) return bad(c, "expected an integer");
    return APR_OK;
}

static enum apr_code number(struct cur *c, double *v)
{
    char text[64];
    size_t n = 0;
    if (peek(c) < 0) return bad(c, "expected a number");
    while (c->p < c->end && n + 1 < sizeof text && strchr("+-.eE0123456789", *c->p) && *c->p)
        text[n++] = *c->p++;
    text[n] = '\0';
    char *stop;
    *v = strtod(text, &stop);
    return n > 0 && *stop == '\0' ? APR_OK : bad(c, "expected a number");
}

/* Entries of the object or array at the cursor, which does not move: its commas at depth 1, plus one. */
static enum apr_code count(struct cur *c, uint64_t *n, size_t *n_bytes)
{
    const char *start = c->p;
    c->p++;
    int close = *start == '{' ? '}' : ']';
    *n = peek(c) == close ? 0 : 1;
    while (peek(c) != close) {
        if (*c->p == ',') {
            ++*n;
            c->p++;
        } else if (*c->p == ':') {
            c->p++;
        } else {
            TRY(skip_value(c));
        }
        if (c->p >= c->end) return bad(c, "the document ends inside a list");
    }
    *n_bytes = (size_t)(c->p + 1 - start);
    c->p = start;
    return APR_OK;
}

static enum apr_code end_of_item(struct cur *c, uint64_t i, uint64_t n)
{
    return i + 1 < n ? need(c, ',') : APR_OK;
}

/* {"token": id, ...}, or Unigram's [["piece", score], ...] whose ids are the places. */
static enum apr_code vocab(struct cur *c, struct apr_hf_parts *parts)
{
    bool object = peek(c) == '{';
    uint64_t n;
    size_t n_bytes;
    char *room;
    TRY(count(c, &n, &n_bytes));
    TRY(apr_arena_try(c->arena, &room, n_bytes + 1, 1, "vocabulary", c->e));
    TRY(apr_arena_try(c->arena, &parts->toks, n, sizeof *parts->toks, "vocabulary", c->e));
    parts->n_toks = n;
    c->p++;
    for (uint64_t i = 0; i < n; i++) {
        struct apr_hf_tok *tok = &parts->toks[i];
        if (!object) TRY(need(c, '['));
        TRY(string(c, &room, &tok->text));
        TRY(need(c, object ? ':' : ','));
        tok->id = (int64_t)i;
        if (object) TRY(integer(c, &tok->id));
        if (!object) TRY(number(c, &tok->score));
        if (!object) TRY(need(c, ']'));
        TRY(end_of_item(c, i, n));
    }
    return need(c, object ? '}' : ']');
}

/* Blanks inside a part stand as U+0120, so that the first blank separates the parts. */
static void hide_blanks(struct apr_str *s, char **room)
{
    size_t n = 0;
    if (!memchr(s->p, ' ', s->n_bytes)) return;
    char *out = *room;
    for (size_t i = 0; i < s->n_bytes; i++) {
        if (s->p[i] == ' ') out[n++] = '\xc4';
        out[n++] = s->p[i] == ' ' ? '\xa0' : s->p[i];
    }
    out[n] = '\0';
    *s = (struct apr_str){out, n};
    *room += n + 1;
}

/* ["left", "right"] or "left right". */
static enum apr_code merge(struct cur *c, char **room, struct apr_str *out)
{
    if (peek(c) == '"') return string(c, room, out);
    struct apr_str left, right;
    TRY(need(c, '['));
    TRY(string(c, room, &left));
    TRY(need(c, ','));
    TRY(string(c, room, &right));
    TRY(need(c, ']'));
    hide_blanks(&left, room);
    hide_blanks(&right, room);
    /* The usual case: right stands behind left and its NUL, which becomes the blank. */
    if (left.p + left.n_bytes + 1 == right.p) {
        char *joined = *room - (left.n_bytes + right.n_bytes + 2);
        joined[left.n_bytes] = ' ';
        *out = (struct apr_str){joined, left.n_bytes + right.n_bytes + 1};
        return APR_OK;
    }
    char *joined = *room;
    memcpy(joined, left.p, left.n_bytes);
    joined[left.n_bytes] = ' ';
    memcpy(joined + left.n_bytes + 1, right.p, right.n_bytes + 1);
    *out = (struct apr_str){joined, left.n_bytes + right.n_bytes + 1};
    *room += out->n_bytes + 1;
    return APR_OK;
}

static enum apr_code merges(struct cur *c, struct apr_hf_parts *parts)
{
    uint64_t n;
    size_t n_bytes;
    char *room;
    TRY(count(c, &n, &n_bytes));
    /* A byte of a part is stored once, with blanks twice more as two bytes, and once more when parts are
     * joined. */
    TRY(apr_arena_try(c->arena, &room, n_bytes + 1, 5, "merges", c->e));
    TRY(apr_arena_try(c->arena, &parts->merges, n, sizeof *parts->merges, "merges", c->e));
    parts->n_merges = n;
    c->p++;
    for (uint64_t i = 0; i < n; i++) {
        TRY(merge(c, &room, &parts->merges[i]));
        TRY(end_of_item(c, i, n));
    }
    return need(c, ']');
}

/* Copies what lies between done and the cursor's part, writes a stand-in, reads the part. */
static enum apr_code cut_out(struct cur *c, const char **done, const char *stand_in,
                             struct apr_hf_parts *parts,
                             enum apr_code (*read)(struct cur *, struct apr_hf_parts *))
{
    TRY(apr_buf_append(&parts->rest, *done, (size_t)(c->p - *done), c->e));
    TRY(apr_buf_append(&parts->rest, stand_in, strlen(stand_in), c->e));
    TRY(read(c, parts));
    *done = c->p;
    return APR_OK;
}

static bool is(const char *text, size_t n, const char *want)
{
    return n == strlen(want) && memcmp(text, want, n) == 0;
}

static enum apr_code model(struct cur *c, const char **done, struct apr_hf_parts *parts)
{
    TRY(need(c, '{'));
    while (peek(c) != '}') {
        const char *key;
        size_t n;
        bool escaped;
        TRY(raw_string(c, &key, &n, &escaped));
        TRY(need(c, ':'));
        int open = peek(c);
        if (is(key, n, "vocab") && (open == '{' || open == '[') && !parts->toks)
            TRY(cut_out(c, done, open == '{' ? "{}" : "[]", parts, vocab));
        else if (is(key, n, "merges") && open == '[' && !parts->merges)
            TRY(cut_out(c, done, "[]", parts, merges));
        else
            TRY(skip_value(c));
        if (!take(c, ',')) break;
    }
    return need(c, '}');
}

enum apr_code apr_hf_scan(const char *text, size_t n, const char *file, struct apr_arena *arena,
                          struct apr_hf_parts *parts, struct apr_err *e)
{
    struct cur c = {text, text, text + n, file, arena, e};
    const char *done = text;
    TRY(need(&c, '{'));
    while (peek(&c) != '}') {
        const char *key;
        size_t n_key;
        bool escaped;
        TRY(raw_string(&c, &key, &n_key, &escaped));
        TRY(need(&c, ':'));
        if (is(key, n_key, "model") && peek(&c) == '{')
            TRY(model(&c, &done, parts));
        else
            TRY(skip_value(&c));
        if (!take(&c, ',')) break;
    }
    return apr_buf_append(&parts->rest, done, (size_t)(text + n - done), e);
}

enum apr_code apr_hf_scan_vocab(const char *text, size_t n, const char *file, struct apr_arena *arena,
                                struct apr_hf_parts *parts, struct apr_err *e)
{
    struct cur c = {text, text, text + n, file, arena, e};
    if (peek(&c) != '{') return bad(&c, "expected an object");
    TRY(vocab(&c, parts));
    return peek(&c) < 0 ? APR_OK : bad(&c, "something follows the object");
}

enum apr_code apr_hf_scan_merges_txt(const char *text, size_t n, const char *file, struct apr_arena *arena,
                                     struct apr_hf_parts *parts, struct apr_err *e)
{
    struct cur c = {text, text, text + n, file, arena, e};
    uint64_t n_lines = 1;
    for (size_t i = 0; i < n; i++) n_lines += text[i] == '\n';
    char *copy;
    TRY(apr_arena_try(arena, &copy, n + 1, 1, "merges", e));
    if (n > 0) memcpy(copy, text, n);
    TRY(apr_arena_try(arena, &parts->merges, n_lines, sizeof *parts->merges, "merges", e));
    for (size_t i = 0; i < n;) {
        const char *stop = memchr(text + i, '\n', n - i);
        size_t end = stop ? (size_t)(stop - text) : n, next = end + 1;
        if (end > i && text[end - 1] == '\r') end--;
        bool comment = i == 0 && n > 0 && text[0] == '#';
        c.p = text + i;
        if (end > i && !comment) {
            if (apr_utf8_valid((const uint8_t *)text + i, end - i) != end - i)
                return bad(&c, "the line is not UTF-8");
            parts->merges[parts->n_merges++] = (struct apr_str){copy + i, end - i};
        }
        if (end < n) copy[end] = '\0';
        i = next;
    }
    return APR_OK;
}

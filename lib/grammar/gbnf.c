/* Recursive descent over GBNF. */
#include "gbnf.h"

#include <inttypes.h>
#include <string.h>

#include "../tok/utf8.h"

#define MAX_NEST  100
#define MAX_COUNT 1000000u

struct parser {
    struct apr_rules *r;
    const char *at, *end;
    const char *file;
    uint32_t line;
    int depth;
};

static bool more(const struct parser *p)
{
    return p->at < p->end;
}

static char peek(const struct parser *p)
{
    return p->at < p->end ? *p->at : '\0';
}

static enum apr_code bad(const struct parser *p, struct apr_err *e, const char *what)
{
    char found[32];
    if (!more(p))
        return apr_fail(e, APR_EFORMAT, "%s: line %" PRIu32 ": expected %s, found the end", p->file, p->line,
                        what);
    size_t n = (size_t)(p->end - p->at) < 8 ? (size_t)(p->end - p->at) : 8;
    return apr_fail(e, APR_EFORMAT, "%s: line %" PRIu32 ": expected %s, found \"%s\"", p->file, p->line, what,
                    apr_escape(found, sizeof found, p->at, n));
}

/* Blanks and comments; line ends where they may stand. */
static void skip(struct parser *p, bool lines)
{
    for (; more(p); p->at++) {
        if (*p->at == '#') {
            while (more(p) && *p->at != '\n') p->at++;
            if (!more(p)) return;
        }
        if (*p->at == '\n' && !lines) return;
        if (*p->at == '\n') p->line++;
        if (!strchr(" \t\r\n", *p->at) || !*p->at) return;
    }
}

static bool is_name_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

static size_t name_bytes(const struct parser *p)
{
    size_t n = 0;
    while (p->at + n < p->end && is_name_byte(p->at[n])) n++;
    return n;
}

static enum apr_code name(struct parser *p, uint32_t *rule, struct apr_err *e)
{
    size_t n = name_bytes(p);
    if (!n) return bad(p, e, "a rule name");
    *rule = apr_rules_name(p->r, p->at, n);
    if (*rule == UINT32_MAX)
        return apr_fail(e, APR_EFORMAT, "%s: more than %u rules", p->file, APR_MAX_RULES);
    if (!p->r->at[*rule].line) p->r->at[*rule].line = p->line;
    p->at += n;
    return APR_OK;
}

static enum apr_code hex(struct parser *p, int n, uint32_t *c, struct apr_err *e)
{
    *c = 0;
    for (; n > 0; n--, p->at++) {
        const char *digits = "0123456789abcdef", *d;
        char x = peek(p);
        if (x >= 'A' && x <= 'F') x = (char)(x - 'A' + 'a');
        if (!x || !(d = strchr(digits, x))) return bad(p, e, "a hexadecimal digit");
        *c = *c << 4 | (uint32_t)(d - digits);
    }
    if (*c > APR_MAX_CODE || (*c >= 0xd800 && *c <= 0xdfff))
        return apr_fail(e, APR_EFORMAT, "%s: line %" PRIu32 ": U+%04" PRIX32 " is no character", p->file,
                        p->line, *c);
    return APR_OK;
}

/* One character of a literal or class, escapes resolved. */
static enum apr_code character(struct parser *p, uint32_t *c, struct apr_err *e)
{
    static const char names[] = "ntr\\\"[]-^/", values[] = "\n\t\r\\\"[]-^/";
    if (!more(p) || *p->at == '\n') return bad(p, e, "a character");
    if (*p->at != '\\') {
        int n = apr_utf8_get((const uint8_t *)p->at, (size_t)(p->end - p->at), c);
        if (n <= 0) return bad(p, e, "valid UTF-8");
        p->at += n;
        return APR_OK;
    }
    p->at++;
    char x = peek(p);
    const char *i = x ? strchr(names, x) : NULL;
    if (!i && x != 'x' && x != 'u' && x != 'U') return bad(p, e, "an escape: \\n \\t \\r \\\\ \\\" \\xHH");
    p->at++;
    if (!i) return hex(p, x == 'x' ? 2 : x == 'u' ? 4 : 8, c, e);
    *c = (uint8_t)values[i - names];
    return APR_OK;
}

static enum apr_code literal(struct parser *p, const struct apr_expr **x, struct apr_err *e)
{
    const char *close = ++p->at; /* the text is never longer than its source */
    while (close < p->end && *close != '"' && *close != '\n') close += *close == '\\' ? 2 : 1;
    uint8_t *text = apr_arena_get(p->r->arena, (size_t)(close - p->at) + 4);
    size_t n = 0;
    while (peek(p) != '"') {
        uint32_t c;
        TRY(character(p, &c, e));
        n += apr_utf8_put(c, text + n);
    }
    p->at++;
    *x = apr_ex_bytes(p->r, text, n);
    return APR_OK;
}

static enum apr_code char_class(struct parser *p, const struct apr_expr **x, struct apr_err *e)
{
    struct apr_range *at = NULL;
    size_t n = 0, cap = 0;
    p->at++;
    bool negated = peek(p) == '^';
    if (negated) p->at++;
    while (peek(p) != ']') {
        struct apr_range c;
        TRY(character(p, &c.lo, e));
        c.hi = c.lo;
        if (peek(p) == '-' && p->at + 1 < p->end && p->at[1] != ']') {
            p->at++;
            TRY(character(p, &c.hi, e));
        }
        if (c.hi < c.lo)
            return apr_fail(e, APR_EFORMAT, "%s: line %" PRIu32 ": a range of characters runs backwards",
                            p->file, p->line);
        if (n == cap) {
            cap = cap ? 2 * cap : 8;
            struct apr_range *grown = apr_arena_get(p->r->arena, cap * sizeof *grown);
            if (n) memcpy(grown, at, n * sizeof *at);
            at = grown;
        }
        at[n++] = c;
    }
    p->at++;
    if (!n && !negated)
        return apr_fail(e, APR_EFORMAT, "%s: line %" PRIu32 ": an empty class matches nothing", p->file,
                        p->line);
    *x = apr_ex_class(p->r, at, n, negated);
    return APR_OK;
}

static enum apr_code count(struct parser *p, uint32_t *n, struct apr_err *e)
{
    if (peek(p) < '0' || peek(p) > '9') return bad(p, e, "a number");
    for (*n = 0; peek(p) >= '0' && peek(p) <= '9'; p->at++) {
        *n = 10 * *n + (uint32_t)(*p->at - '0');
        if (*n > MAX_COUNT)
            return apr_fail(e, APR_EFORMAT, "%s: line %" PRIu32 ": more than %u repetitions", p->file,
                            p->line, MAX_COUNT);
    }
    return APR_OK;
}

static enum apr_code braces(struct parser *p, uint32_t *min, uint32_t *max, struct apr_err *e)
{
    p->at++;
    skip(p, false);
    *min = 0;
    if (peek(p) != ',') TRY(count(p, min, e));
    skip(p, false);
    *max = *min;
    if (peek(p) == ',') {
        p->at++;
        skip(p, false);
        *max = APR_NO_LIMIT;
        if (peek(p) != '}') TRY(count(p, max, e));
        skip(p, false);
    }
    if (peek(p) != '}') return bad(p, e, "\"}\"");
    p->at++;
    if (*max >= *min) return APR_OK;
    return apr_fail(e, APR_EFORMAT, "%s: line %" PRIu32 ": {%" PRIu32 ",%" PRIu32 "} runs backwards", p->file,
                    p->line, *min, *max);
}

static enum apr_code postfix(struct parser *p, const struct apr_expr **x, struct apr_err *e)
{
    for (int n = 0;; n++) {
        skip(p, p->depth > 0);
        char c = peek(p);
        uint32_t min = c == '+', max = c == '?' ? 1 : APR_NO_LIMIT;
        if (!c || !strchr("?*+{", c)) return APR_OK;
        if (n >= MAX_NEST) return bad(p, e, "fewer repetitions of repetitions");
        if (c == '{')
            TRY(braces(p, &min, &max, e));
        else
            p->at++;
        *x = apr_ex_repeat(p->r, *x, min, max);
    }
}

static enum apr_code alternatives(struct parser *p, const struct apr_expr **x, struct apr_err *e);

static enum apr_code group(struct parser *p, const struct apr_expr **x, struct apr_err *e)
{
    if (++p->depth > MAX_NEST)
        return apr_fail(e, APR_EFORMAT, "%s: line %" PRIu32 ": groups nest more than %d deep", p->file,
                        p->line, MAX_NEST);
    p->at++;
    TRY(alternatives(p, x, e));
    skip(p, true);
    if (peek(p) != ')') return bad(p, e, "\")\"");
    p->at++;
    p->depth--;
    return APR_OK;
}

/* False at the end of a sequence. */
static enum apr_code item(struct parser *p, const struct apr_expr **x, bool *any, struct apr_err *e)
{
    static const struct apr_range all = {0, APR_MAX_CODE};
    uint32_t rule;
    *any = true;
    switch (peek(p)) {
    case '"':
        return literal(p, x, e);
    case '[':
        return char_class(p, x, e);
    case '(':
        return group(p, x, e);
    case '.':
        p->at++;
        *x = apr_ex_class(p->r, &all, 1, false);
        return APR_OK;
    case '<':
    case '!':
        return bad(p, e, "text (tokens in grammars are not supported)");
    default: /* a name, or the end of the sequence */
        *any = name_bytes(p) > 0;
        if (!*any) return APR_OK;
        TRY(name(p, &rule, e));
        *x = apr_ex_rule(p->r, rule);
        return APR_OK;
    }
}

static enum apr_code sequence(struct parser *p, const struct apr_expr **x, struct apr_err *e)
{
    struct apr_ex_list list = {0};
    for (;;) {
        const struct apr_expr *part = NULL;
        bool any;
        skip(p, p->depth > 0);
        TRY(item(p, &part, &any, e));
        if (!any) break;
        TRY(postfix(p, &part, e));
        apr_ex_push(p->r, &list, part);
    }
    *x = apr_ex_seq(p->r, list.at, list.n);
    return APR_OK;
}

/* The next line goes on with "|". */
static void join_line(struct parser *p)
{
    struct parser ahead = *p;
    skip(&ahead, true);
    if (peek(&ahead) == '|') *p = ahead;
}

/* Texts only: as a trie, so that many of them are few places. */
static const struct apr_expr *join(struct parser *p, const struct apr_ex_list *list)
{
    struct apr_word *words = apr_arena_get(p->r->arena, list->n * sizeof *words);
    for (size_t i = 0; i < list->n; i++) {
        if (list->n < 2 || list->at[i]->kind != APR_EX_BYTES) return apr_ex_alt(p->r, list->at, list->n);
        words[i] = (struct apr_word){list->at[i]->bytes, list->at[i]->n};
    }
    return apr_ex_words(p->r, words, list->n);
}

static enum apr_code alternatives(struct parser *p, const struct apr_expr **x, struct apr_err *e)
{
    struct apr_ex_list list = {0};
    for (;;) {
        const struct apr_expr *part;
        skip(p, true);
        TRY(sequence(p, &part, e));
        apr_ex_push(p->r, &list, part);
        if (!p->depth) join_line(p);
        if (peek(p) != '|') break;
        p->at++;
    }
    *x = join(p, &list);
    return APR_OK;
}

static enum apr_code rule(struct parser *p, struct apr_err *e)
{
    uint32_t i, line = p->line;
    const struct apr_expr *body;
    TRY(name(p, &i, e));
    skip(p, true);
    if (p->end - p->at < 3 || memcmp(p->at, "::=", 3) != 0) return bad(p, e, "\"::=\"");
    p->at += 3;
    if (p->r->at[i].body)
        return apr_fail(e, APR_EFORMAT, "%s: line %" PRIu32 ": rule \"%s\" is defined twice", p->file, line,
                        p->r->at[i].name);
    TRY(alternatives(p, &body, e));
    p->r->at[i].body = body;
    skip(p, false);
    if (more(p) && *p->at != '\n') return bad(p, e, "the end of the rule");
    return APR_OK;
}

enum apr_code apr_gbnf_parse(struct apr_rules *r, const char *text, size_t n_bytes, const char *file,
                             uint32_t *root, struct apr_err *e)
{
    struct parser p = {.r = r, .at = text, .end = text + n_bytes, .file = file, .line = 1};
    for (skip(&p, true); more(&p); skip(&p, true)) TRY(rule(&p, e));
    *root = apr_rules_name(r, "root", 4);
    if (*root == UINT32_MAX || !r->at[*root].body)
        return apr_fail(e, APR_EFORMAT, "%s: no rule is named \"root\"", file);
    return APR_OK;
}

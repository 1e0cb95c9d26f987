/* Regular expressions of "pattern": the part of ECMA-262's that is regular, for characters as JSON writes
 * them.
 *
 * Alternatives, groups ( ) and (?: ), classes, quantifiers (a lazy one means the same set of texts), the
 * escapes \d \D \w \W \s \S \t \n \r \f \v \xHH \uHHHH and escaped punctuation; ^ at the beginning and $ at
 * the end of the whole or of one of its outer alternatives. A side without anchor may have any characters.
 * \D, \W and \S stand for ASCII only, so that every dialect agrees. */
#include <string.h>

#include "../tok/utf8.h"
#include "schema_in.h"

#define MAX_NEST  100
#define MAX_RANGE 512u /* ranges of a class */

struct regex {
    struct apr_sch *s;
    const struct apr_sch_path *where;
    const uint8_t *at, *end;
    int depth;
};

struct ranges {
    struct apr_range at[MAX_RANGE];
    size_t n;
};

static bool next_is(const struct regex *x, char c)
{
    return x->at < x->end && *x->at == (uint8_t)c;
}

static enum apr_code refuse(const struct regex *x, struct apr_err *e, const char *what)
{
    return apr_sch_refuse(x->s, x->where, e, "%s is not supported in a pattern (%zu bytes before its end)",
                          what, (size_t)(x->end - x->at));
}

static void add(struct ranges *r, uint32_t lo, uint32_t hi)
{
    if (r->n < MAX_RANGE) r->at[r->n++] = (struct apr_range){lo, hi};
}

/* \d and the like; false when c names no class. */
static bool named_class(char c, struct ranges *r)
{
    static const struct {
        char name;
        uint8_t n;
        struct apr_range at[6];
    } rows[] = {
        {'d', 1, {{'0', '9'}}},
        {'D', 2, {{0, '0' - 1}, {'9' + 1, 0x7f}}},
        {'w', 4, {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}},
        {'W', 5, {{0, '0' - 1}, {'9' + 1, 'A' - 1}, {'Z' + 1, '_' - 1}, {'`', '`'}, {'z' + 1, 0x7f}}},
        {'s', 2, {{'\t', '\r'}, {' ', ' '}}},
        {'S', 1, {{'!', 0x7e}}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].name != c) continue;
        for (size_t k = 0; k < rows[i].n; k++) add(r, rows[i].at[k].lo, rows[i].at[k].hi);
        return true;
    }
    return false;
}

static enum apr_code hex(struct regex *x, int n, uint32_t *c, struct apr_err *e)
{
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    *c = 0;
    for (; n > 0; n--, x->at++) {
        const char *d = x->at < x->end && *x->at ? strchr(digits, *x->at) : NULL;
        if (!d) return refuse(x, e, "an escape without its digits");
        *c = *c << 4 | (uint32_t)((d - digits) & 15);
    }
    return APR_OK;
}

/* After a backslash: a class goes to r, a character to *c with *is_char. */
static enum apr_code escape(struct regex *x, struct ranges *r, uint32_t *c, bool *is_char, struct apr_err *e)
{
    static const char names[] = "tnrfv0", values[] = "\t\n\r\f\v";
    char name = x->at < x->end ? (char)*x->at : '\0';
    *is_char = false;
    if (name && named_class(name, r)) {
        x->at++;
        return APR_OK;
    }
    *is_char = true;
    const char *i = name ? strchr(names, name) : NULL;
    if (name == 'x' || name == 'u') {
        x->at++;
        return hex(x, name == 'x' ? 2 : 4, c, e);
    }
    if (i && *i != '0') {
        *c = (uint8_t)values[i - names];
    } else if (name && strchr("^$\\.*+?()[]{}|/-\"'&~!#%,:;<=>@_` ", name)) {
        *c = (uint8_t)name;
    } else {
        return refuse(x, e, "this escape");
    }
    x->at++;
    return APR_OK;
}

static enum apr_code plain(struct regex *x, uint32_t *c, struct apr_err *e)
{
    int n = x->at < x->end ? apr_utf8_get(x->at, (size_t)(x->end - x->at), c) : 0;
    if (n <= 0) return refuse(x, e, "an end here");
    x->at += n;
    return APR_OK;
}

/* The characters of a class as JSON writes them: plain, or one of the short escapes. */
static const struct apr_expr *as_json(struct apr_sch *s, const struct ranges *r, bool negated)
{
    static const struct {
        uint32_t c;
        const char *text;
    } rows[] = {{'"', "\\\""}, {'\\', "\\\\"}, {'\n', "\\n"}, {'\t', "\\t"},
                {'\r', "\\r"}, {'\f', "\\f"},  {'\b', "\\b"}};
    const struct apr_expr *all = apr_ex_class(s->r, r->at, r->n, negated);
    struct apr_ex_list list = {0};
    struct apr_range *safe = apr_arena_get(s->r->arena, (4 * (size_t)all->n + 4) * sizeof *safe);
    size_t n_safe = 0;
    static const struct apr_range plain_parts[] = {{0x20, 0x21}, {0x23, 0x5b}, {0x5d, APR_MAX_CODE}};
    for (size_t i = 0; i < all->n; i++)
        for (size_t k = 0; k < 3; k++) {
            struct apr_range p = plain_parts[k];
            if (all->ranges[i].lo > p.lo) p.lo = all->ranges[i].lo;
            if (all->ranges[i].hi < p.hi) p.hi = all->ranges[i].hi;
            if (p.lo <= p.hi) safe[n_safe++] = p;
        }
    if (n_safe) apr_ex_push(s->r, &list, apr_ex_class(s->r, safe, n_safe, false));
    for (size_t i = 0; i < all->n; i++)
        for (size_t k = 0; k < sizeof rows / sizeof *rows; k++)
            if (rows[k].c >= all->ranges[i].lo && rows[k].c <= all->ranges[i].hi)
                apr_ex_push(s->r, &list, apr_ex_text(s->r, rows[k].text));
    if (!list.n) return all->n ? apr_ex_class(s->r, safe, 0, false) : all;
    return apr_ex_alt(s->r, list.at, list.n);
}

static enum apr_code class_item(struct regex *x, struct ranges *r, struct apr_err *e)
{
    uint32_t lo, hi;
    bool is_char = true;
    if (next_is(x, '\\')) {
        x->at++;
        TRY(escape(x, r, &lo, &is_char, e));
        if (!is_char) return APR_OK;
    } else {
        TRY(plain(x, &lo, e));
    }
    hi = lo;
    if (next_is(x, '-') && x->at + 1 < x->end && x->at[1] != ']') {
        x->at++;
        if (next_is(x, '\\')) {
            x->at++;
            TRY(escape(x, r, &hi, &is_char, e));
            if (!is_char) return refuse(x, e, "a range that ends with a class");
        } else {
            TRY(plain(x, &hi, e));
        }
    }
    if (hi < lo || r->n >= MAX_RANGE) return refuse(x, e, "such a class");
    add(r, lo, hi);
    return APR_OK;
}

static enum apr_code char_class(struct regex *x, const struct apr_expr **out, struct apr_err *e)
{
    struct ranges *r = apr_arena_get(x->s->r->arena, sizeof *r);
    x->at++;
    bool negated = next_is(x, '^');
    x->at += negated;
    while (!next_is(x, ']')) TRY(class_item(x, r, e));
    x->at++;
    *out = as_json(x->s, r, negated);
    return APR_OK;
}

static enum apr_code alternatives(struct regex *x, const struct apr_expr **out, struct apr_err *e);

static enum apr_code group(struct regex *x, const struct apr_expr **out, struct apr_err *e)
{
    x->at++;
    if (next_is(x, '?')) {
        if (x->at + 1 >= x->end || x->at[1] != ':') return refuse(x, e, "a look-around or a named group");
        x->at += 2;
    }
    if (++x->depth > MAX_NEST) return refuse(x, e, "so deep a group");
    TRY(alternatives(x, out, e));
    if (!next_is(x, ')')) return refuse(x, e, "a group without end");
    x->depth--;
    x->at++;
    return APR_OK;
}

static enum apr_code atom(struct regex *x, const struct apr_expr **out, struct apr_err *e)
{
    struct ranges one = {.n = 0};
    uint32_t c;
    bool is_char = true;
    if (next_is(x, '(')) return group(x, out, e);
    if (next_is(x, '[')) return char_class(x, out, e);
    if (next_is(x, '^') || next_is(x, '$')) return refuse(x, e, "an anchor here");
    if (next_is(x, '*') || next_is(x, '+') || next_is(x, '?') || next_is(x, '{'))
        return refuse(x, e, "a quantifier of nothing");
    if (next_is(x, '.')) {
        static const struct ranges line_ends = {.at = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}, .n = 3};
        x->at++;
        *out = as_json(x->s, &line_ends, true);
        return APR_OK;
    }
    if (next_is(x, '\\')) {
        x->at++;
        TRY(escape(x, &one, &c, &is_char, e));
    } else {
        TRY(plain(x, &c, e));
    }
    if (is_char) add(&one, c, c);
    *out = as_json(x->s, &one, false);
    return APR_OK;
}

static bool count(struct regex *x, uint32_t *n)
{
    const uint8_t *start = x->at;
    for (*n = 0; x->at < x->end && *x->at >= '0' && *x->at <= '9' && *n <= APR_SCH_MAX_COUNT; x->at++)
        *n = 10 * *n + (uint32_t)(*x->at - '0');
    return x->at > start && *n <= APR_SCH_MAX_COUNT;
}

static enum apr_code quantifier(struct regex *x, const struct apr_expr **out, struct apr_err *e)
{
    uint32_t min = next_is(x, '+'), max = next_is(x, '?') ? 1 : APR_NO_LIMIT;
    if (!next_is(x, '*') && !next_is(x, '+') && !next_is(x, '?') && !next_is(x, '{')) return APR_OK;
    if (*x->at++ == '{') {
        if (!count(x, &min)) return refuse(x, e, "such a count");
        max = min;
        if (next_is(x, ',')) {
            x->at++;
            max = APR_NO_LIMIT;
            if (!next_is(x, '}') && !count(x, &max)) return refuse(x, e, "such a count");
        }
        if (!next_is(x, '}') || max < min) return refuse(x, e, "such a count");
        x->at++;
    }
    if (next_is(x, '?')) x->at++; /* lazy */
    *out = apr_ex_repeat(x->s->r, *out, min, max);
    return APR_OK;
}

/* Up to | or ) or the end, or an anchor $ at the end. */
static enum apr_code sequence(struct regex *x, const struct apr_expr **out, struct apr_err *e)
{
    struct apr_ex_list list = {0};
    while (x->at < x->end && !next_is(x, '|') && !next_is(x, ')')) {
        const struct apr_expr *part;
        bool at_end = next_is(x, '$') && (x->at + 1 == x->end || x->at[1] == '|');
        if (at_end && !x->depth) break;
        TRY(atom(x, &part, e));
        TRY(quantifier(x, &part, e));
        apr_ex_push(x->s->r, &list, part);
    }
    *out = apr_ex_seq(x->s->r, list.at, list.n);
    return APR_OK;
}

static enum apr_code alternatives(struct regex *x, const struct apr_expr **out, struct apr_err *e)
{
    struct apr_ex_list list = {0};
    const struct apr_expr *any = apr_ex_repeat(x->s->r, x->s->c.character, 0, APR_NO_LIMIT);
    for (;; x->at++) {
        const struct apr_expr *part;
        bool outer = !x->depth, open = outer && !next_is(x, '^');
        if (outer && !open) x->at++;
        TRY(sequence(x, &part, e));
        if (open) part = apr_ex_seq2(x->s->r, any, part);
        if (outer && !next_is(x, '$'))
            part = apr_ex_seq2(x->s->r, part, any);
        else if (outer)
            x->at++;
        apr_ex_push(x->s->r, &list, part);
        if (!next_is(x, '|')) break;
    }
    *out = apr_ex_alt(x->s->r, list.at, list.n);
    return APR_OK;
}

enum apr_code apr_sch_pattern(struct apr_sch *s, const char *regex, const struct apr_sch_path *at,
                              const struct apr_expr **x, struct apr_err *e)
{
    struct regex p = {.s = s, .where = at, .at = (const uint8_t *)regex};
    p.end = p.at + strlen(regex);
    TRY(alternatives(&p, x, e));
    return p.at == p.end ? APR_OK : refuse(&p, e, "a \")\" here");
}

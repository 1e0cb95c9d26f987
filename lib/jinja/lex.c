/* See lex.h. */
#include "lex.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#define MAX_BRACES 512u

struct lexer {
    struct apr_jj_run *r;
    const char *p; /* normalised text */
    size_t n, pos;
    struct apr_jj_tok *toks;
    size_t n_toks, n_cap;
    bool line_starting; /* the last match ended a line */
    char braces[MAX_BRACES];
    size_t n_braces;
};

static enum apr_code push_tok(struct lexer *x, enum apr_jj_tok_type type, const char *p, size_t n,
                              struct apr_jj_val v)
{
    if (x->n_toks == x->n_cap) {
        size_t n_cap = x->n_cap ? 2 * x->n_cap : 64;
        struct apr_jj_tok *toks = NULL;
        TRY(apr_jj_alloc(x->r, n_cap, sizeof *toks, &toks));
        if (x->n_toks) memcpy(toks, x->toks, x->n_toks * sizeof *toks);
        x->toks = toks;
        x->n_cap = n_cap;
    }
    x->toks[x->n_toks++] = (struct apr_jj_tok){.type = type, .line = x->r->line, .p = p, .n = n, .v = v};
    return APR_OK;
}

/* Moves to end, counting the lines that are passed. */
static void move_to(struct lexer *x, size_t end)
{
    for (size_t i = x->pos; i < end; i++) x->r->line += x->p[i] == '\n';
    x->line_starting = end > x->pos && x->p[end - 1] == '\n';
    x->pos = end;
}

static bool looking_at(const struct lexer *x, size_t pos, const char *text)
{
    size_t n = strlen(text);
    return n <= x->n - pos && memcmp(x->p + pos, text, n) == 0;
}

static size_t skip_space(const struct lexer *x, size_t pos)
{
    while (pos < x->n) {
        size_t n;
        if (!apr_jj_is_space(apr_jj_cp_at(x->p + pos, x->p + x->n, &n))) break;
        pos += n;
    }
    return pos;
}

/* Whether a tag ends at pos ("%}", "-%}", "+%}"); *end is where the text goes on. */
static bool tag_end(const struct lexer *x, size_t pos, const char *close, bool plus, bool trim, size_t *end)
{
    bool minus = pos < x->n && x->p[pos] == '-';
    bool keep = plus && pos < x->n && x->p[pos] == '+';
    if (!looking_at(x, pos + (minus || keep), close)) return false;
    pos += (size_t)(minus || keep) + 2;
    if (minus)
        pos = skip_space(x, pos);
    else if (trim && !keep && pos < x->n && x->p[pos] == '\n')
        pos++;
    *end = pos;
    return true;
}

/* The text before a tag, shortened as the tag's sign and lstrip_blocks say. */
static enum apr_code push_data(struct lexer *x, size_t begin, size_t end, char sign, bool variable)
{
    const char *p = x->p + begin;
    size_t n = end - begin;
    struct apr_jj_val v;
    if (sign == '-') {
        while (n) {
            size_t k = apr_jj_cp_back(p, n);
            size_t k2;
            if (!apr_jj_is_space(apr_jj_cp_at(p + n - k, p + n, &k2))) break;
            n -= k;
        }
    } else if (sign != '+' && !variable) {
        size_t l = n;
        while (l && p[l - 1] != '\n') l--;
        if ((l > 0 || x->line_starting) && l < n && skip_space(x, begin + l) >= end) n = l;
    }
    if (!n) return APR_OK;
    TRY(apr_jj_str_new(x->r, p, n, false, &v));
    return push_tok(x, APR_JJ_T_DATA, p, n, v);
}

static char sign_at(const struct lexer *x, size_t pos)
{
    return pos < x->n && (x->p[pos] == '-' || x->p[pos] == '+') ? x->p[pos] : 0;
}

/* "{% raw %}" at pos: *body is where its text begins. */
static bool raw_begin(const struct lexer *x, size_t pos, size_t *body)
{
    pos += 2;
    pos += sign_at(x, pos) != 0;
    pos = skip_space(x, pos);
    if (!looking_at(x, pos, "raw")) return false;
    return tag_end(x, skip_space(x, pos + 3), "%}", false, false, body);
}

static enum apr_code lex_raw(struct lexer *x, size_t body)
{
    move_to(x, body);
    for (size_t at = body; at < x->n; at++) {
        if (!looking_at(x, at, "{%")) continue;
        char sign = sign_at(x, at + 2);
        size_t pos = skip_space(x, at + 2 + (sign != 0));
        size_t end;
        if (!looking_at(x, pos, "endraw")) continue;
        if (!tag_end(x, skip_space(x, pos + 6), "%}", true, true, &end)) continue;
        TRY(push_data(x, body, at, sign, false));
        move_to(x, end);
        return APR_OK;
    }
    return apr_jj_fail(x->r, "missing end of raw block");
}

static enum apr_code lex_comment(struct lexer *x)
{
    for (size_t at = x->pos + 2 + (sign_at(x, x->pos + 2) != 0); at < x->n; at++) {
        size_t end;
        if (x->p[at] != '#' && x->p[at] != '-' && x->p[at] != '+') continue;
        if (!tag_end(x, at, "#}", true, true, &end)) continue;
        move_to(x, end);
        return APR_OK;
    }
    return apr_jj_fail(x->r, "missing end of comment");
}

static int hex_of(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* Python's \xhh, \uhhhh, \Uhhhhhhhh; p is behind the letter. */
static enum apr_code unescape_hex(struct lexer *x, struct apr_jj_sb *b, const char **p, const char *end,
                                  int n_digits)
{
    int32_t cp = 0;
    for (int i = 0; i < n_digits; i++) {
        int h = *p < end ? hex_of(**p) : -1;
        if (h < 0 || cp > 0x10FFFF) return apr_jj_fail(x->r, "bad hexadecimal escape in a string");
        cp = cp * 16 + h;
        (*p)++;
    }
    if (!utf8proc_codepoint_valid(cp)) return apr_jj_fail(x->r, "a string escape is not a character");
    return apr_jj_sb_cp(b, cp, false);
}

static enum apr_code unescape_one(struct lexer *x, struct apr_jj_sb *b, const char **p, const char *end)
{
    static const char from[] = "abfnrtv\\'\"", to[] = "\a\b\f\n\r\t\v\\'\"";
    char c = *(*p)++;
    const char *hit = strchr(from, c);
    if (c && hit) return apr_jj_sb_bytes(b, &to[hit - from], 1, false);
    if (c == '\n') return APR_OK;
    if (c == 'x') return unescape_hex(x, b, p, end, 2);
    if (c == 'u') return unescape_hex(x, b, p, end, 4);
    if (c == 'U') return unescape_hex(x, b, p, end, 8);
    if (c == 'N') return apr_jj_fail(x->r, "named characters in strings are not supported");
    if (c >= '0' && c <= '7') {
        int32_t cp = c - '0';
        for (int i = 0; i < 2 && *p < end && **p >= '0' && **p <= '7'; i++) cp = cp * 8 + (*(*p)++ - '0');
        return apr_jj_sb_cp(b, cp, false);
    }
    TRY(apr_jj_sb_bytes(b, "\\", 1, false)); /* unknown escapes stay as they are */
    return apr_jj_sb_bytes(b, &c, 1, false);
}

static enum apr_code lex_string(struct lexer *x)
{
    char quote = x->p[x->pos];
    size_t end = x->pos + 1;
    struct apr_jj_sb b;
    struct apr_jj_val v;
    while (end < x->n && x->p[end] != quote) end += x->p[end] == '\\' ? 2 : 1;
    if (end >= x->n) return apr_jj_fail(x->r, "a string is not closed");
    apr_jj_sb_init(&b, x->r);
    const char *p = x->p + x->pos + 1, *stop = x->p + end;
    while (p < stop) {
        const char *back = memchr(p, '\\', (size_t)(stop - p));
        size_t n = (size_t)((back ? back : stop) - p);
        TRY(apr_jj_sb_bytes(&b, p, n, false));
        p += n;
        if (!back) break;
        p++;
        TRY(unescape_one(x, &b, &p, stop));
    }
    TRY(apr_jj_sb_done(&b, &v));
    TRY(push_tok(x, APR_JJ_T_CONST, x->p + x->pos, end + 1 - x->pos, v));
    move_to(x, end + 1);
    return APR_OK;
}

static size_t digits(const struct lexer *x, size_t pos)
{
    while (pos < x->n &&
           ((x->p[pos] >= '0' && x->p[pos] <= '9') ||
            (x->p[pos] == '_' && pos + 1 < x->n && x->p[pos + 1] >= '0' && x->p[pos + 1] <= '9')))
        pos++;
    return pos;
}

static bool digit_at(const struct lexer *x, size_t pos)
{
    return pos < x->n && x->p[pos] >= '0' && x->p[pos] <= '9';
}

/* Ends of the fraction and the exponent behind the digits that end at pos; pos itself when it is an integer.
 */
static size_t float_end(const struct lexer *x, size_t pos)
{
    if (x->n_toks && x->toks[x->n_toks - 1].type == APR_JJ_T_OP && x->toks[x->n_toks - 1].p[0] == '.')
        return pos;
    if (pos < x->n && x->p[pos] == '.' && digit_at(x, pos + 1)) pos = digits(x, pos + 1);
    if (pos < x->n && (x->p[pos] == 'e' || x->p[pos] == 'E')) {
        size_t at = pos + 1;
        if (at < x->n && (x->p[at] == '+' || x->p[at] == '-')) at++;
        if (digit_at(x, at)) pos = digits(x, at);
    }
    return pos;
}

static enum apr_code lex_number(struct lexer *x)
{
    char text[64];
    size_t begin = x->pos, end = digits(x, begin), n = 0, f_end;
    int base = 10;
    if (x->p[begin] == '0' && begin + 1 < x->n && strchr("xXoObB", x->p[begin + 1]) && x->p[begin + 1]) {
        char c = (char)(x->p[begin + 1] | 0x20);
        base = c == 'x' ? 16 : c == 'o' ? 8 : 2;
        begin += 2;
        for (end = begin; end < x->n && (hex_of(x->p[end]) >= 0 || x->p[end] == '_'); end++)
            if (x->p[end] != '_' && hex_of(x->p[end]) >= base)
                return apr_jj_fail(x->r, "bad digit in a number");
        if (end == begin) return apr_jj_fail(x->r, "a number has no digits");
    }
    f_end = base == 10 ? float_end(x, end) : end;
    for (size_t i = begin; i < f_end; i++) {
        if (n + 1 >= sizeof text) return apr_jj_fail(x->r, "a number is too long");
        if (x->p[i] != '_') text[n++] = x->p[i];
    }
    text[n] = 0;
    struct apr_jj_val v;
    if (f_end > end) {
        v = apr_jj_float(strtod(text, NULL));
    } else {
        errno = 0;
        v = apr_jj_int(strtoll(text, NULL, base));
        if (errno) return apr_jj_fail(x->r, "integer outside 64 bits");
        if (base == 10 && text[0] == '0' && strspn(text, "0") != n)
            return apr_jj_fail(x->r, "a number begins with 0");
    }
    TRY(push_tok(x, APR_JJ_T_CONST, x->p + x->pos, f_end - x->pos, v));
    move_to(x, f_end);
    return APR_OK;
}

static bool name_char(int32_t cp)
{
    if (cp < 0x80) return (cp >= '0' && cp <= '9') || ((cp | 0x20) >= 'a' && (cp | 0x20) <= 'z') || cp == '_';
    utf8proc_category_t c = utf8proc_category(cp);
    return (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_NL) || c == UTF8PROC_CATEGORY_PC;
}

static enum apr_code lex_op(struct lexer *x)
{
    static const char *const two[] = {"//", "**", "==", "!=", ">=", "<="};
    char c = x->p[x->pos];
    size_t n = 1;
    for (size_t i = 0; i < sizeof two / sizeof *two; i++)
        if (looking_at(x, x->pos, two[i])) n = 2;
    if (n == 1 && (!c || !strchr("+-/*%~[](){}><=.:|,;", c))) {
        if (c >= 0x21 && c < 0x7F) return apr_jj_fail(x->r, "unexpected '%c'", c);
        return apr_jj_fail(x->r, "unexpected character 0x%02x", (unsigned)(uint8_t)c);
    }
    if (n == 1 && strchr("({[", c)) {
        if (x->n_braces == MAX_BRACES) return apr_jj_fail(x->r, "brackets nested too deeply");
        x->braces[x->n_braces++] = c == '(' ? ')' : (char)(c + 2);
    }
    if (n == 1 && strchr(")}]", c)) {
        if (!x->n_braces) return apr_jj_fail(x->r, "unexpected '%c'", c);
        char want = x->braces[--x->n_braces];
        if (want != c) return apr_jj_fail(x->r, "unexpected '%c', expected '%c'", c, want);
    }
    TRY(push_tok(x, APR_JJ_T_OP, x->p + x->pos, n, apr_jj_none()));
    move_to(x, x->pos + n);
    return APR_OK;
}

/* The inside of a tag, up to and with its end. */
static enum apr_code lex_tag(struct lexer *x, bool variable)
{
    size_t end;
    x->n_braces = 0;
    for (;;) {
        if (!x->n_braces && tag_end(x, x->pos, variable ? "}}" : "%}", !variable, !variable, &end)) {
            TRY(push_tok(x, variable ? APR_JJ_T_VAR_END : APR_JJ_T_BLOCK_END, x->p + x->pos, 2,
                         apr_jj_none()));
            move_to(x, end);
            return APR_OK;
        }
        if (x->pos >= x->n) return apr_jj_fail(x->r, "a tag is not closed");
        size_t n;
        int32_t cp = apr_jj_cp_at(x->p + x->pos, x->p + x->n, &n);
        if (apr_jj_is_space(cp)) {
            move_to(x, skip_space(x, x->pos));
        } else if (cp >= '0' && cp <= '9') {
            TRY(lex_number(x));
        } else if (cp == '\'' || cp == '"') {
            TRY(lex_string(x));
        } else if (name_char(cp)) {
            size_t at = x->pos;
            while (at < x->n && name_char(apr_jj_cp_at(x->p + at, x->p + x->n, &n))) at += n;
            TRY(push_tok(x, APR_JJ_T_NAME, x->p + x->pos, at - x->pos, apr_jj_none()));
            move_to(x, at);
        } else {
            TRY(lex_op(x));
        }
    }
}

static enum apr_code lex_all(struct lexer *x)
{
    while (x->pos < x->n) {
        size_t at = x->pos, body;
        while (at < x->n &&
               !(x->p[at] == '{' && at + 1 < x->n && strchr("{%#", x->p[at + 1]) && x->p[at + 1]))
            at++;
        if (at == x->n) {
            TRY(push_data(x, x->pos, at, '+', true));
            move_to(x, at);
            break;
        }
        char kind = x->p[at + 1];
        TRY(push_data(x, x->pos, at, sign_at(x, at + 2), kind == '{'));
        move_to(x, at);
        if (kind == '#') {
            TRY(lex_comment(x));
        } else if (kind == '%' && raw_begin(x, at, &body)) {
            TRY(lex_raw(x, body));
        } else {
            TRY(push_tok(x, kind == '{' ? APR_JJ_T_VAR_BEGIN : APR_JJ_T_BLOCK_BEGIN, x->p + at, 2,
                         apr_jj_none()));
            move_to(x, at + 2 + (sign_at(x, at + 2) != 0));
            TRY(lex_tag(x, kind == '{'));
        }
    }
    return push_tok(x, APR_JJ_T_EOF, x->p + x->n, 0, apr_jj_none());
}

enum apr_code apr_jj_lex(struct apr_jj_run *r, const char *text, size_t n_bytes, struct apr_jj_tok **toks,
                         size_t *n_toks)
{
    struct lexer x = {.r = r, .line_starting = true};
    char *copy = NULL;
    r->line = 1;
    if (!apr_jj_utf8_valid(text, n_bytes)) return apr_jj_fail(r, "not valid UTF-8");
    TRY(apr_jj_alloc(r, n_bytes + 1, 1, &copy));
    for (size_t i = 0; i < n_bytes; i++) {
        if (text[i] == '\r' && i + 1 < n_bytes && text[i + 1] == '\n') continue;
        copy[x.n++] = text[i] == '\r' ? '\n' : text[i];
    }
    if (x.n && copy[x.n - 1] == '\n') x.n--;
    copy[x.n] = 0;
    x.p = copy;
    TRY(lex_all(&x));
    *toks = x.toks;
    *n_toks = x.n_toks;
    return APR_OK;
}

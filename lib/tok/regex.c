/* See regex.h. */
#include "regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "../arena.h"

struct apr_regex {
    struct apr_arena arena; /* holds this struct and the pattern */
    pcre2_code *code;       /* owned */
    const char *pattern;
    const char *file;
    bool trusted;
};

enum { STACK_MIN = 32 << 10, STACK_MAX = 64 << 20 };

/* Oniguruma's \s is White_Space and its \w has marks but no other numbers; \h is a hex digit (Unicode
 * mode of its Ruby syntax). PCRE2's \s adds U+180E, its \w is L, N and _, its \h is a blank. */
static const struct {
    char escape;
    const char *outside, *inside; /* a class */
} rewrites[] = {
    {'s', "\\p{White_Space}", "\\p{White_Space}"},
    {'S', "\\P{White_Space}", "\\P{White_Space}"},
    {'w', "[\\p{L}\\p{M}\\p{Nd}\\p{Pc}]", "\\p{L}\\p{M}\\p{Nd}\\p{Pc}"},
    {'W', "[^\\p{L}\\p{M}\\p{Nd}\\p{Pc}]", NULL},
    {'h', "[0-9a-fA-F]", "0-9a-fA-F"},
    {'H', "[^0-9a-fA-F]", NULL},
};

static enum apr_code put_escape(const char **at, bool in_class, struct apr_buf *out, const char *file,
                                struct apr_err *e)
{
    char c = (*at)[1];
    if (c == '\0') return apr_fail(e, APR_EFORMAT, "%s: split pattern ends in a backslash", file);
    for (size_t i = 0; i < sizeof rewrites / sizeof *rewrites; i++) {
        if (rewrites[i].escape != c) continue;
        const char *s = in_class ? rewrites[i].inside : rewrites[i].outside;
        if (!s)
            return apr_fail(e, APR_ELOAD, "%s: split pattern has \\%c inside a class: not supported", file,
                            c);
        *at += 2;
        return apr_buf_append(out, s, strlen(s), e);
    }
    TRY(apr_buf_append(out, *at, 2, e));
    *at += 2;
    return APR_OK;
}

enum apr_code apr_regex_translate(const char *pattern, struct apr_buf *out, const char *file,
                                  struct apr_err *e)
{
    bool in_class = false;
    for (const char *at = pattern; *at;) {
        if (*at == '\\') {
            TRY(put_escape(&at, in_class, out, file, e));
            continue;
        }
        if (in_class && (at[0] == '&' && at[1] == '&'))
            return apr_fail(e, APR_ELOAD, "%s: split pattern intersects classes (&&): not supported", file);
        if (in_class && at[0] == '[' &&
            at[1] != ':') { /* a set inside a set; a bare [ is an error in Oniguruma too */
            return apr_fail(e, APR_ELOAD, "%s: split pattern nests classes: not supported", file);
        }
        if (!in_class && *at == '[') {
            in_class = true;
            size_t n = at[1] == '^' ? 2 : 1;
            TRY(apr_buf_append(out, at, n, e));
            at += n;
            if (*at == ']') TRY(apr_buf_append(out, "\\", 1, e)); /* first in a class it stands for itself */
            if (*at == ']') TRY(apr_buf_append(out, at++, 1, e));
            continue;
        }
        if (in_class && at[0] == '[') { /* [:alpha:] */
            const char *close = strstr(at, ":]");
            if (!close) return apr_fail(e, APR_EFORMAT, "%s: split pattern: [: without :]", file);
            TRY(apr_buf_append(out, at, (size_t)(close + 2 - at), e));
            at = close + 2;
            continue;
        }
        if (*at == ']') in_class = false;
        TRY(apr_buf_append(out, at++, 1, e));
    }
    return APR_OK;
}

static int count_step(pcre2_callout_block *block, void *data)
{
    (void)block;
    struct apr_regex_run *run = data;
    if (run->n_steps == 0) return PCRE2_ERROR_MATCHLIMIT;
    run->n_steps--;
    return 0;
}

static enum apr_code compile(struct apr_regex *re, const char *pcre, size_t n, bool literal,
                             struct apr_err *e)
{
    pcre2_compile_context *cc = pcre2_compile_context_create(NULL);
    if (!cc) return apr_fail(e, APR_ELOAD, "%s: out of memory for the split pattern", re->file);
    pcre2_set_newline(cc, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(cc, 100);
    /* MULTILINE: in Ruby's syntax ^ and $ always match at line ends. */
    uint32_t flags = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C;
    flags = literal ? PCRE2_UTF | PCRE2_LITERAL : flags | PCRE2_MULTILINE | PCRE2_NO_AUTO_CAPTURE;
    if (!re->trusted && !literal) flags |= PCRE2_AUTO_CALLOUT;
    int code = 0;
    PCRE2_SIZE off = 0;
    re->code = pcre2_compile((PCRE2_SPTR)pcre, n, flags, &code, &off, cc);
    pcre2_compile_context_free(cc);
    if (!re->code) {
        PCRE2_UCHAR text[160] = "";
        char shown[200];
        pcre2_get_error_message(code, text, sizeof text);
        return apr_fail(e, APR_ELOAD, "%s: split pattern \"%s\": %s (at %zu)", re->file,
                        apr_escape(shown, sizeof shown, pcre, n), (const char *)text, off);
    }
    /* Without JIT (not built in, or the pattern is too large for it) the interpreter gives the same matches.
     */
    int jit = pcre2_jit_compile(re->code, PCRE2_JIT_COMPLETE);
    if (jit == PCRE2_ERROR_NOMEMORY && re->trusted) return APR_OK;
    return APR_OK;
}

enum apr_code apr_regex_open(struct apr_regex **out, const char *pattern, bool literal, bool trusted,
                             const char *file, struct apr_err *e)
{
    *out = NULL;
    size_t n = strlen(pattern);
    if (n == 0 || n > APR_REGEX_MAX_BYTES)
        return apr_fail(e, APR_EFORMAT, "%s: split pattern of %zu bytes; expected 1..%u", file, n,
                        APR_REGEX_MAX_BYTES);
    struct apr_arena arena;
    apr_arena_init(&arena);
    struct apr_regex *re = apr_arena_get(&arena, sizeof *re);
    re->trusted = trusted;
    re->pattern = apr_arena_strdup(&arena, pattern);
    re->file = apr_arena_strdup(&arena, file);
    re->arena = arena;

    struct apr_buf pcre;
    apr_buf_init(&pcre, APR_REGEX_MAX_BYTES * 32);
    enum apr_code code =
        literal ? apr_buf_append(&pcre, pattern, n, e) : apr_regex_translate(pattern, &pcre, file, e);
    if (code == APR_OK) code = compile(re, (const char *)pcre.data, pcre.n_bytes, literal, e);
    apr_buf_free(&pcre);
    if (code != APR_OK) {
        apr_regex_close(re);
        return code;
    }
    *out = re;
    return APR_OK;
}

void apr_regex_close(struct apr_regex *re)
{
    if (!re) return;
    pcre2_code_free(re->code);
    struct apr_arena arena = re->arena;
    apr_arena_free(&arena);
}

enum apr_code apr_regex_run_init(struct apr_regex_run *run, size_t n_text_bytes, struct apr_err *e)
{
    *run = (struct apr_regex_run){.n_steps = 1000000 + 1000 * (uint64_t)n_text_bytes};
    run->match = pcre2_match_data_create(1, NULL);
    run->context = pcre2_match_context_create(NULL);
    if (!run->match || !run->context) {
        apr_regex_run_free(run);
        return apr_fail(e, APR_ELOAD, "out of memory for pattern matching");
    }
    /* A known pattern backtracks at most once over a run of equal characters; far above that is a fault. */
    uint64_t limit = 10000000 + 64 * (uint64_t)n_text_bytes;
    pcre2_set_match_limit(run->context, limit < UINT32_MAX ? (uint32_t)limit : UINT32_MAX);
    return APR_OK;
}

void apr_regex_run_free(struct apr_regex_run *run)
{
    pcre2_match_data_free(run->match);
    pcre2_match_context_free(run->context);
    pcre2_jit_stack_free(run->stack);
    *run = (struct apr_regex_run){0};
}

static int match(const struct apr_regex *re, struct apr_regex_run *run, const uint8_t *p, size_t n,
                 size_t from)
{
    int rc = pcre2_match(re->code, p, n, from, PCRE2_NO_UTF_CHECK, run->match, run->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT && !run->stack) {
        run->stack = pcre2_jit_stack_create(STACK_MIN, STACK_MAX, NULL);
        if (!run->stack) return PCRE2_ERROR_NOMEMORY;
        pcre2_jit_stack_assign(run->context, NULL, run->stack);
        rc = pcre2_match(re->code, p, n, from, PCRE2_NO_UTF_CHECK, run->match, run->context);
    }
    return rc;
}

enum apr_code apr_regex_next(const struct apr_regex *re, struct apr_regex_run *run, const uint8_t *p,
                             size_t n, size_t from, size_t *start, size_t *end, struct apr_err *e)
{
    if (!re->trusted) pcre2_set_callout(run->context, count_step, run);
    int rc = match(re, run, p, n, from);
    if (!re->trusted) pcre2_set_callout(run->context, NULL, NULL);
    if (rc == PCRE2_ERROR_NOMATCH) {
        *start = SIZE_MAX;
        return APR_OK;
    }
    if (rc < 0) {
        char shown[200];
        return apr_fail(e, APR_EFORMAT,
                        "%s: split pattern \"%s\" needs too many steps on this text (PCRE2 error %d)",
                        re->file, apr_escape(shown, sizeof shown, re->pattern, strlen(re->pattern)), rc);
    }
    const PCRE2_SIZE *ov = pcre2_get_ovector_pointer(run->match);
    *start = ov[0];
    *end = ov[1];
    if (*start > *end) *start = *end; /* \K in a lookahead may turn the match around */
    if (*start < from) *start = from;
    if (*end < *start) *end = *start;
    return APR_OK;
}

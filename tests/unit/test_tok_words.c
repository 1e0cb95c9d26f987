/* What is written out is equal to what it stands for: split patterns against PCRE2, normal forms of parts of
 * a text against utf8proc's of the whole. On random texts of awkward characters, and on every character. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <utf8proc.h>

#include "tok/norm.h"
#include "tok/regex.h"
#include "tok/utf8.h"
#include "tok/words.h"

static uint32_t seed = 1;

static uint32_t random_below(uint32_t n)
{
    seed = seed * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)seed * n >> 32);
}

static void ok(enum apr_code code, const struct apr_err *e)
{
    if (code != APR_OK) fail_msg("%s", e->text);
}

/* Characters that a rule looks at, each a few times likelier than the rest. */
static const uint32_t pool[] = {
    ' ',    ' ',    ' ',     '\n',    '\r',     '\t',   0x0b,   '\'',  '\'',   's',    'S',    't',
    'r',    'e',    'v',     'm',     'l',      'L',    'd',    'D',   'a',    'Z',    '0',    '9',
    '5',    '!',    '.',     '_',     0x17f,    0x130,  0x212a, 0x85,  0xa0,   0x180e, 0x2028, 0x2003,
    0x3000, 0x200b, 0xb2,    0xbd,    0x660,    0x2160, 0x4e00, 0xe9,  0x301,  0x323,  0x345,  0x5b0,
    0x1100, 0x1161, 0x11a8,  0xac00,  0xac01,   0x915,  0x93c,  0x958, 0x2126, 0xfb01, 0x1e9b, 0x1ea5,
    0x9c7,  0x9be,  0x1f600, 0x1d7ce, 0x10fffd, 0xf900, 0x0,    0x7f,  0xfffd, 0x2581,
};

static size_t random_text(uint8_t *out, size_t n_chars, bool any)
{
    size_t n = 0;
    for (size_t i = 0; i < n_chars; i++) {
        uint32_t cp = pool[random_below(sizeof pool / sizeof *pool)];
        if (any && random_below(8) == 0) cp = random_below(0x30000);
        if (cp >= 0xd800 && cp <= 0xdfff) cp = 'x';
        n += apr_utf8_put(cp, out + n);
    }
    return n;
}

struct pair {
    apr_words_fn *end_of;
    struct apr_regex *re, *unassigned;
    struct apr_regex_run run;
};

/* Newer characters than the pattern engine knows may be of another class here. */
static bool has_unknown(struct pair *x, const uint8_t *p, size_t n)
{
    struct apr_err e;
    size_t start, end;
    ok(apr_regex_next(x->unassigned, &x->run, p, n, 0, &start, &end, &e), &e);
    return start != SIZE_MAX;
}

static void same_words(struct pair *x, const char *pattern, const uint8_t *p, size_t n)
{
    struct apr_err e;
    for (size_t i = 0; i < n;) {
        size_t start, end, ours = x->end_of(p, n, i);
        ok(apr_regex_next(x->re, &x->run, p, n, i, &start, &end, &e), &e);
        if (start != i || end != ours) {
            if (has_unknown(x, p, n)) return;
            char shown[800];
            fail_msg("%s on \"%s\": at %zu: %zu..%zu, ours ends at %zu", pattern,
                     apr_escape(shown, sizeof shown, (const char *)p, n), i, start, end, ours);
        }
        i = end;
    }
}

static void check_pattern(const char *pattern)
{
    enum { N_TEXTS = 20000, N_CHARS = 24 };
    struct apr_err e;
    uint8_t text[4 * N_CHARS + 64];
    struct pair x = {.end_of = apr_words_of(pattern)};
    assert_non_null(x.end_of);
    ok(apr_regex_open(&x.re, pattern, false, true, "pattern", &e), &e);
    ok(apr_regex_open(&x.unassigned, "\\p{Cn}", false, true, "pattern", &e), &e);
    ok(apr_regex_run_init(&x.run, sizeof text, &e), &e);
    for (int i = 0; i < N_TEXTS; i++) same_words(&x, pattern, text, random_text(text, N_CHARS, i % 2));
    for (uint32_t cp = 0; cp < 0x110000; cp++) {
        if (cp >= 0xd800 && cp <= 0xdfff) continue;
        size_t n = 0;
        static const char *const between[] = {"a", "1", " ", "\n", " .", "  "};
        for (size_t k = 0; k < sizeof between / sizeof *between; k++) {
            memcpy(text + n, between[k], strlen(between[k]));
            n += strlen(between[k]);
            n += apr_utf8_put(cp, text + n);
        }
        same_words(&x, pattern, text, n);
    }
    apr_regex_run_free(&x.run);
    apr_regex_close(x.re);
    apr_regex_close(x.unassigned);
}

static void test_patterns(void **state)
{
    (void)state;
    check_pattern(APR_PATTERN_GPT2);
    check_pattern(APR_PATTERN_QWEN2);
    check_pattern(APR_PATTERN_LLAMA3);
    assert_null(apr_words_of("\\s+"));
}

static void test_forms(void **state)
{
    (void)state;
    static const struct {
        enum apr_norm_op op;
        utf8proc_option_t options;
    } forms[] = {
        {APR_NORM_NFC, UTF8PROC_COMPOSE},
        {APR_NORM_NFD, UTF8PROC_DECOMPOSE},
        {APR_NORM_NFKC, UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
        {APR_NORM_NFKD, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT},
    };
    enum { N_TEXTS = 20000, N_CHARS = 12 };
    uint8_t text[4 * N_CHARS];
    struct apr_norm_work w;
    apr_norm_work_init(&w);
    for (int i = 0; i < N_TEXTS * 4; i++) {
        struct apr_err e;
        struct apr_norm norm = {.steps = {{.op = forms[i % 4].op}}, .n_steps = 1};
        size_t n = random_text(text, 1 + random_below(N_CHARS), true);
        utf8proc_uint8_t *want;
        utf8proc_ssize_t n_want =
            utf8proc_map(text, (utf8proc_ssize_t)n, &want, UTF8PROC_STABLE | forms[i % 4].options);
        assert_true(n_want >= 0);
        ok(apr_norm_run(&norm, &w, text, n, &e), &e);
        if (w.n != (size_t)n_want || memcmp(w.p, want, w.n) != 0) {
            char shown[400];
            fail_msg("form %d of \"%s\"", i % 4, apr_escape(shown, sizeof shown, (const char *)text, n));
        }
        free(want);
    }
    apr_norm_work_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_patterns), cmocka_unit_test(test_forms)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

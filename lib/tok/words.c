/* See words.h. */
#include "words.h"

#include <stdbool.h>
#include <string.h>
#include <utf8proc.h>

#include "chars.h"
#include "utf8.h"

enum class { LETTER = 1, NUMBER = 2, SPACE = 4, LINE_END = 8, OTHER = 16 };

#define L LETTER
#define N NUMBER
#define S SPACE
#define E (SPACE | LINE_END)
#define O OTHER
static const uint8_t ascii[128] = {
    O, O, O, O, O, O, O, O, O, S, E, S, S, E, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, /* 00 */
    S, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, N, N, N, N, N, N, N, N, N, N, O, O, O, O, O, O, /* 20 */
    O, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, O, O, O, O, O, /* 40 */
    O, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, O, O, O, O, O, /* 60 */
};
#undef L
#undef N
#undef S
#undef E
#undef O

static unsigned wide_class(uint32_t cp)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    if (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO) return LETTER;
    if (c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO) return NUMBER;
    return apr_char_is_space(cp) ? SPACE : OTHER;
}

/* The class of the character at i < n, and where the next begins. */
static inline unsigned class_at(const uint8_t *p, size_t n, size_t i, size_t *next)
{
    if (p[i] < 0x80) {
        *next = i + 1;
        return ascii[p[i]];
    }
    uint32_t cp;
    *next = i + (size_t)apr_utf8_get(p + i, n - i, &cp);
    return wide_class(cp);
}

/* The end of the run of these classes that goes on at i. */
static inline size_t run(const uint8_t *p, size_t n, size_t i, unsigned classes)
{
    size_t next;
    while (i < n && class_at(p, n, i, &next) & classes) i = next;
    return i;
}

/* What 's, 't, 're, 've, 'm, 'll, 'd leave behind the apostrophe at i: the bytes of the whole, or 0. */
static size_t contraction(const uint8_t *p, size_t n, size_t i, bool any_case)
{
    static const char *const ends[] = {"s", "t", "re", "ve", "m", "ll", "d"};
    const uint8_t lower = any_case ? 0x20 : 0;
    for (size_t k = 0; k < sizeof ends / sizeof *ends; k++) {
        size_t n_end = strlen(ends[k]), at = 0;
        while (at < n_end && i + 1 + at < n && (p[i + 1 + at] | lower) == (uint8_t)ends[k][at]) at++;
        if (at == n_end) return 1 + n_end;
    }
    /* U+017F is a letter s whose capital is S. */
    return any_case && n - i >= 3 && p[i + 1] == 0xc5 && p[i + 2] == 0xbf ? 3 : 0;
}

/* \s+(?!\S)|\s+ over the run from i to end: all of it at the end of the text, else all but its last
 * character, which the next word may want; but never nothing. */
static size_t blanks(const uint8_t *p, size_t n, size_t i, size_t end)
{
    if (end == n) return end;
    size_t last = apr_utf8_start(p, end);
    return last > i ? last : end;
}

/* The end of the last line end in the run from i to end; 0: there is none. */
static size_t after_lines(const uint8_t *p, size_t i, size_t end)
{
    for (; end > i; end--)
        if (p[end - 1] == '\n' || p[end - 1] == '\r') return end;
    return 0;
}

static inline size_t modern(const uint8_t *p, size_t n, size_t i, int n_digits)
{
    size_t next;
    unsigned c = class_at(p, n, i, &next);
    if (c & LETTER) return run(p, n, next, LETTER);
    if (p[i] == '\'') {
        size_t k = contraction(p, n, i, true);
        if (k > 0) return i + k;
    }
    if (c & NUMBER) {
        for (int k = 1; k < n_digits && next < n; k++) {
            size_t after;
            if (!(class_at(p, n, next, &after) & NUMBER)) break;
            next = after;
        }
        return next;
    }
    size_t after = next;
    unsigned d = next < n ? class_at(p, n, next, &after) : 0;
    if (!(c & LINE_END) && d & LETTER) return run(p, n, after, LETTER);
    if (c & OTHER || (p[i] == ' ' && d & OTHER)) {
        next = run(p, n, c & OTHER ? next : after, OTHER);
        return run(p, n, next, LINE_END);
    }
    size_t end = run(p, n, next, SPACE), lines = after_lines(p, i, end);
    return lines ? lines : blanks(p, n, i, end);
}

static size_t qwen2(const uint8_t *p, size_t n, size_t i)
{
    return modern(p, n, i, 1);
}

static size_t llama3(const uint8_t *p, size_t n, size_t i)
{
    return modern(p, n, i, 3);
}

static size_t gpt2(const uint8_t *p, size_t n, size_t i)
{
    size_t next;
    unsigned c = class_at(p, n, i, &next);
    if (p[i] == '\'') {
        size_t k = contraction(p, n, i, false);
        if (k > 0) return i + k;
    }
    if (p[i] == ' ' && next < n) {
        size_t after;
        unsigned d = class_at(p, n, next, &after);
        if (!(d & SPACE)) return run(p, n, after, d);
    }
    size_t end = run(p, n, next, c & (LETTER | NUMBER | SPACE | OTHER));
    return c & SPACE ? blanks(p, n, i, end) : end;
}

static const struct {
    const char *pattern;
    apr_words_fn *end_of;
} rows[] = {
    {APR_PATTERN_GPT2, gpt2},
    {APR_PATTERN_QWEN2, qwen2},
    {APR_PATTERN_LLAMA3, llama3},
};

apr_words_fn *apr_words_of(const char *pattern)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strcmp(rows[i].pattern, pattern) == 0) return rows[i].end_of;
    return NULL;
}

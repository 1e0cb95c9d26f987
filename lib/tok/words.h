/* The most used split patterns, written out: where the word that begins at a place ends.
 *
 * Each is equal to its pattern, character by character; tests/unit/test_tok_words.c compares them with PCRE2
 * on random texts. The patterns match everywhere, so their words follow one another without gaps.
 *
 *     apr_words_fn *end_of = apr_words_of(pattern);   NULL: only the pattern engine can do it
 *     end = end_of(p, n, i);
 */
#ifndef APR_TOK_WORDS_H
#define APR_TOK_WORDS_H

#include <stddef.h>
#include <stdint.h>

#define APR_PATTERN_CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define APR_PATTERN_WORD         "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define APR_PATTERN_PUNCTUATION  "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
#define APR_PATTERN_SPACES       "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* What ByteLevel with use_regex does. */
#define APR_PATTERN_GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define APR_PATTERN_QWEN2                                                                                    \
    APR_PATTERN_CONTRACTIONS "|" APR_PATTERN_WORD "|\\p{N}" APR_PATTERN_PUNCTUATION APR_PATTERN_SPACES
#define APR_PATTERN_LLAMA3                                                                                   \
    APR_PATTERN_CONTRACTIONS "|" APR_PATTERN_WORD "|\\p{N}{1,3}" APR_PATTERN_PUNCTUATION APR_PATTERN_SPACES

/* p[0..n) is well-formed UTF-8, i < n begins a character. */
typedef size_t apr_words_fn(const uint8_t *p, size_t n, size_t i);
apr_words_fn *apr_words_of(const char *pattern);

#endif

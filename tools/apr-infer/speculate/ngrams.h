/* Prompt lookup: where the last tokens stood before, the text may go on as it did there.
 *
 * For every position and every n of n_min .. n_max it is known where the n-gram that ends there ended before:
 * a hash table for each n leads to the newest place, a chain from there to the older ones. Adding a token and
 * asking are O(n_max), whatever the length of the text, and no text makes them slower: probes and chain are
 * bounded. The tokens are the caller's; all memory is the arena's. After A. Saxena, Prompt Lookup Decoding,
 * 2023; its candidate is the first match, here it is the longest, and of equal ones the one that goes on
 * where the last copy stood, as an edited copy of a text does.
 *
 *     apr_ngrams_init(&l, 1, 8, arena); for each token: ids[n++] = id, TRY(apr_ngrams_add(&l, ids, n, e));
 *     n_found = apr_ngrams_find(&l, ids, n, 16, out, &n_match);
 */
#ifndef APR_INFER_SPECULATE_NGRAMS_H
#define APR_INFER_SPECULATE_NGRAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"

#define APR_MAX_GRAM  16u /* tokens of the largest n-gram */
#define APR_MAX_MATCH 64u /* a match is measured up to so many tokens */

/* The n-grams of one n. Places are positions of their last token, plus 1; 0 is none. */
struct apr_grams {
    uint32_t *slots; /* [n_slots] hash table: the newest place of an n-gram */
    uint32_t *older; /* [cap] the place before, of the n-gram that ends at a position */
};

struct apr_ngrams {
    struct apr_arena *arena; /* borrowed */
    size_t n_min, n_max;
    size_t n;       /* tokens added */
    size_t cap;     /* positions that there is room for */
    size_t n_slots; /* a power of two, 2 * cap */
    size_t shift;   /* how far before the text the last copy stood; 0 = none yet */
    struct apr_grams grams[APR_MAX_GRAM];
};

/* 1 <= n_min <= n_max <= APR_MAX_GRAM */
void apr_ngrams_init(struct apr_ngrams *l, size_t n_min, size_t n_max, struct apr_arena *arena);
/* ids[n - 1] was added to the text; the n - 1 tokens before were added before. */
APR_MUST_USE enum apr_code apr_ngrams_add(struct apr_ngrams *l, const int32_t *ids, size_t n,
                                          struct apr_err *e);
/* What may follow ids[0 .. n): returns how many tokens are in out, n_most or none. *n_match: how many tokens
 * before them are the same there. */
size_t apr_ngrams_find(struct apr_ngrams *l, const int32_t *ids, size_t n, size_t n_most, int32_t *out,
                       size_t *n_match);

#endif

/* Hash tables of n-grams, chains of places, and the choice among them. */
#include "ngrams.h"

#include <string.h>

#include "ckd.h"

#define FIRST_CAP 1024u
#define N_PROBES  16u /* slots that are tried; then the first of them is overwritten */
#define N_CHAIN   16u /* places that are compared */

void apr_ngrams_init(struct apr_ngrams *l, size_t n_min, size_t n_max, struct apr_arena *arena)
{
    *l = (struct apr_ngrams){.arena = arena, .n_min = n_min, .n_max = n_max};
}

/* hashes[n - 1] of the n-gram that ends at position i, for n up to n_most; FNV-1a's step over whole tokens,
 * with a shift that brings the high bits down. */
static void hash_grams(const int32_t *ids, size_t i, size_t n_most, uint64_t *hashes)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t n = 1; n <= n_most; n++) {
        h = (h ^ (uint32_t)ids[i + 1 - n]) * 0x100000001b3u;
        h ^= h >> 29;
        hashes[n - 1] = h;
    }
}

static bool same_gram(const int32_t *ids, size_t i, size_t j, size_t n)
{
    return !memcmp(ids + i + 1 - n, ids + j + 1 - n, n * sizeof *ids);
}

/* The slot of the n-gram that ends at position i. */
static uint32_t *slot_of(const struct apr_ngrams *l, struct apr_grams *g, const int32_t *ids, size_t i,
                         size_t n, uint64_t hash)
{
    size_t mask = l->n_slots - 1;
    for (size_t k = 0; k < N_PROBES; k++) {
        uint32_t *slot = &g->slots[(hash + k) & mask];
        if (!*slot || same_gram(ids, *slot - 1, i, n)) return slot;
    }
    return &g->slots[hash & mask];
}

static void put(struct apr_ngrams *l, const int32_t *ids, size_t i)
{
    uint64_t hashes[APR_MAX_GRAM];
    size_t n_most = i + 1 < l->n_max ? i + 1 : l->n_max;
    hash_grams(ids, i, n_most, hashes);
    for (size_t n = l->n_min; n <= n_most; n++) {
        struct apr_grams *g = &l->grams[n - 1];
        uint32_t *slot = slot_of(l, g, ids, i, n, hashes[n - 1]);
        bool is_same = *slot && same_gram(ids, *slot - 1, i, n);
        g->older[i] = is_same ? *slot : 0;
        *slot = (uint32_t)(i + 1);
    }
}

/* Twice the room. What is in the tables is put in again, so that a place costs the same on average. */
static enum apr_code grow(struct apr_ngrams *l, const int32_t *ids, struct apr_err *e)
{
    size_t cap = l->cap ? 2 * l->cap : FIRST_CAP, n_slots = 2 * cap;
    if (cap > UINT32_MAX / 4) return apr_fail(e, APR_EUSAGE, "--lookup: more than %zu tokens", l->cap);
    for (size_t n = l->n_min; n <= l->n_max; n++) {
        struct apr_grams *g = &l->grams[n - 1];
        TRY(apr_arena_try(l->arena, &g->slots, n_slots, sizeof *g->slots, "n-grams", e));
        TRY(apr_arena_try(l->arena, &g->older, cap, sizeof *g->older, "n-grams", e));
    }
    l->cap = cap;
    l->n_slots = n_slots;
    for (size_t i = 0; i < l->n; i++) put(l, ids, i);
    return APR_OK;
}

enum apr_code apr_ngrams_add(struct apr_ngrams *l, const int32_t *ids, size_t n, struct apr_err *e)
{
    if (l->n == l->cap) TRY(grow(l, ids, e));
    put(l, ids, n - 1);
    l->n = n;
    return APR_OK;
}

static size_t distance(size_t a, size_t b)
{
    return a > b ? a - b : b - a;
}

/* How many tokens up to position i are the same as those up to the last one. */
static size_t match_length(const int32_t *ids, size_t n, size_t i)
{
    size_t k = 0;
    while (k <= i && k < APR_MAX_MATCH && ids[i - k] == ids[n - 1 - k]) k++;
    return k;
}

/* The best place of a chain: the longest match, then the shift of the last copy, then the newest. */
static size_t best_of(const struct apr_ngrams *l, const struct apr_grams *g, const int32_t *ids, size_t n,
                      size_t *n_match)
{
    size_t best = 0, best_off = 0;
    uint32_t at = g->older[n - 1];
    *n_match = 0;
    for (size_t k = 0; at && k < N_CHAIN; k++, at = g->older[at - 1]) {
        size_t n_same = match_length(ids, n, at - 1), off = l->shift ? distance(n - at, l->shift) : 0;
        if (n_same < *n_match || (n_same == *n_match && off >= best_off)) continue;
        best = at;
        best_off = off;
        *n_match = n_same;
    }
    return best;
}

size_t apr_ngrams_find(struct apr_ngrams *l, const int32_t *ids, size_t n, size_t n_most, int32_t *out,
                       size_t *n_match)
{
    size_t at = 0;
    *n_match = 0;
    if (!n || n != l->n || !n_most) return 0;
    for (size_t k = l->n_max < n ? l->n_max : n; k >= l->n_min && !at; k--)
        at = best_of(l, &l->grams[k - 1], ids, n, n_match);
    if (!at) return 0;
    l->shift = n - at;
    for (size_t k = 0; k < n_most; k++) out[k] = at + k < n ? ids[at + k] : out[at + k - n];
    return n_most;
}

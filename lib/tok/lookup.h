/* Text -> id: an open-addressing table over the strings of a vocabulary. Built once, then read-only.
 *
 *     TRY(apr_lookup_init(&l, texts, n_toks, arena, e)); apr_lookup_put(&l, id); ... apr_lookup_get(&l, p, n)
 */
#ifndef APR_TOK_LOOKUP_H
#define APR_TOK_LOOKUP_H

#include "../arena.h"
#include "../kv.h"

struct apr_lookup_slot {
    uint32_t hash;
    uint32_t id_plus_1; /* 0: free */
};

struct apr_lookup {
    const struct apr_str *texts;   /* borrowed: [n], by id */
    struct apr_lookup_slot *slots; /* in the arena */
    uint64_t mask;
    uint64_t seed;
};

/* Hash tables over a file's contents are seeded at random: no file can be made whose entries all collide. The
 * seed changes places in a table, never a result. */
uint64_t apr_lookup_seed(void);
/* The finalizer of MurmurHash3, which reaches every bit. */
static inline uint64_t apr_lookup_mix(uint64_t key, uint64_t seed)
{
    key = (key ^ seed ^ (key ^ seed) >> 33) * 0xff51afd7ed558ccdu;
    key = (key ^ key >> 33) * 0xc4ceb9fe1a85ec53u;
    return key ^ key >> 33;
}

/* texts outlives the table. */
APR_MUST_USE enum apr_code apr_lookup_init(struct apr_lookup *l, const struct apr_str *texts, uint32_t n,
                                           struct apr_arena *arena, struct apr_err *e);
/* The id that texts[id] has already, else -1 and it is entered. An id is entered at most once. */
int32_t apr_lookup_put(struct apr_lookup *l, int32_t id);
int32_t apr_lookup_get(const struct apr_lookup *l, const char *p, size_t n_bytes); /* -1: absent */

#endif

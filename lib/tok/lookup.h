/* Text -> id: an open-addressing table over strings that live elsewhere. Built once, then read-only.
 *
 *     TRY(apr_lookup_init(&l, arena, n_toks, e)); apr_lookup_put(&l, str, id); ... apr_lookup_get(&l, p, n)
 */
#ifndef APR_TOK_LOOKUP_H
#define APR_TOK_LOOKUP_H

#include "../arena.h"
#include "../kv.h"

struct apr_lookup_slot {
    const char *p;
    uint32_t n_bytes;
    uint32_t hash;
    int32_t id; /* -1: free */
};

struct apr_lookup {
    struct apr_lookup_slot *slots; /* in the arena */
    uint64_t mask;
};

APR_MUST_USE enum apr_code apr_lookup_init(struct apr_lookup *l, struct apr_arena *arena, uint64_t n,
                                           struct apr_err *e);
/* The id that the text has already, else -1 and the text is entered. At most n of init may be entered. */
int32_t apr_lookup_put(struct apr_lookup *l, struct apr_str text, int32_t id);
int32_t apr_lookup_get(const struct apr_lookup *l, const char *p, size_t n_bytes); /* -1: absent */

#endif

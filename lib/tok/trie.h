/* Texts found from their front, byte by byte: a trie whose edges stand in one hash table.
 *
 *     apr_trie_init(&t);
 *     TRY(apr_trie_put(&t, text, value, &had, file, e)); ... TRY(apr_trie_seal(&t, arena, e));
 *     for (node = APR_TRIE_ROOT; i < n && (node = apr_trie_step(&t, node, p[i++]));) value = t.values[node];
 */
#ifndef APR_TOK_TRIE_H
#define APR_TOK_TRIE_H

#include "../arena.h"
#include "../buf.h"
#include "../kv.h"
#include "lookup.h"

/* A walk from one place costs at most this many steps: longer texts are refused. */
#define APR_TRIE_MAX_BYTES 1024u
#define APR_TRIE_ROOT      1u

struct apr_trie_edge {
    uint32_t node_byte; /* node << 8 | byte: fewer than 1 << 24 nodes; 0: free (no node is 0) */
    uint32_t child;
};

struct apr_trie {
    struct apr_trie_edge *edges; /* [mask + 1] */
    uint32_t mask;
    uint64_t seed;
    uint32_t roots[256]; /* child of the root by byte, 0: none */
    int32_t *values;     /* [n_nodes], -1: no text ends here */
    uint32_t n_nodes;
    struct apr_buf building, building_values; /* until sealed */
};

/* Multiply-shift hashing: the seed is odd and random. */
static inline uint32_t apr_trie_slot(uint32_t key, uint64_t seed)
{
    return (uint32_t)(key * seed >> 32);
}

/* The child, or 0. */
static inline uint32_t apr_trie_step(const struct apr_trie *t, uint32_t node, uint8_t byte)
{
    if (node == APR_TRIE_ROOT) return t->roots[byte];
    uint32_t key = node << 8 | byte;
    for (uint32_t i = apr_trie_slot(key, t->seed);; i++) {
        const struct apr_trie_edge *x = &t->edges[i & t->mask];
        if (x->node_byte == key) return x->child;
        if (x->node_byte == 0) return 0;
    }
}

void apr_trie_init(struct apr_trie *t);
/* The value that the text has already, else -1 and it is entered. Frees the trie when it fails. */
APR_MUST_USE enum apr_code apr_trie_put(struct apr_trie *t, struct apr_str text, int32_t value, int32_t *had,
                                        const char *file, struct apr_err *e);
void apr_trie_drop(struct apr_trie *t); /* of one that is not sealed; again is fine */
/* Moves the tables into the arena; no put follows. */
APR_MUST_USE enum apr_code apr_trie_seal(struct apr_trie *t, struct apr_arena *arena, struct apr_err *e);

#endif

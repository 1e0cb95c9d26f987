/* The words of one text and their ids: most words of a long text have stood in it before.
 *
 * Direct-mapped, for words of at most 15 bytes and 7 ids; a collision costs the work again, never a result.
 *
 *     TRY(apr_memo_init(&c, n_text_bytes, e));
 *     if (apr_memo_find(&c, p, n, &slot)) ... slot->ids[0 .. slot->n]; else ... apr_memo_put(slot, ids, n);
 */
#ifndef APR_TOK_MEMO_H
#define APR_TOK_MEMO_H

#include <stdbool.h>
#include <string.h>

#include "../buf.h"

#define APR_MEMO_WORD_BYTES 15u
#define APR_MEMO_IDS        7u

struct apr_memo_slot {
    uint64_t key[2]; /* the word's bytes, its length in the last; all zero: free */
    uint32_t n;
    int32_t ids[APR_MEMO_IDS];
};
_Static_assert(sizeof(struct apr_memo_slot) == 48, "three slots to two cache lines");

struct apr_memo {
    struct apr_buf mem;
    struct apr_memo_slot *slots; /* NULL: the text is too short for it */
    uint32_t shift;              /* of the hash, down to an index */
};

APR_MUST_USE enum apr_code apr_memo_init(struct apr_memo *c, size_t n_text_bytes, struct apr_err *e);
void apr_memo_free(struct apr_memo *c);

/* Is the word known? *slot is where it stands or may be put (n is then 0), or NULL. */
static inline bool apr_memo_find(const struct apr_memo *c, const uint8_t *p, size_t n,
                                 struct apr_memo_slot **slot)
{
    uint64_t key[2] = {0, 0};
    *slot = NULL;
    if (!c->slots || n > APR_MEMO_WORD_BYTES) return false;
    memcpy(key, p, n);
    key[1] |= (uint64_t)n << 56;
    uint64_t hash = (key[0] ^ key[1] * 0xff51afd7ed558ccdu) * 0x9e3779b97f4a7c15u;
    struct apr_memo_slot *s = &c->slots[hash >> c->shift];
    *slot = s;
    if (s->key[0] == key[0] && s->key[1] == key[1]) return true;
    s->key[0] = key[0];
    s->key[1] = key[1];
    s->n = 0;
    return false;
}

/* Of the slot that find gave for an unknown word. Words with more ids are not kept. */
static inline void apr_memo_put(struct apr_memo_slot *s, const int32_t *ids, size_t n)
{
    if (n > APR_MEMO_IDS) {
        s->key[1] = 0;
        return;
    }
    s->n = (uint32_t)n;
    memcpy(s->ids, ids, n * sizeof *ids);
}

#endif

/* The vocabulary as a trie over token bytes, for masks.
 *
 * Nodes stand in preorder: node i + 1 is i's first child, or where i has none its next sibling, or the next
 * one of an ancestor; skip[i] is the first node outside i's subtree. Tokens without bytes (control tokens,
 * unused ids) are not in it. Read-only after it is built.
 *
 *     struct apr_trie *t; TRY(apr_trie_of_vocab(&t, tok, &model->vocab, n_vocab, e)); ... apr_trie_free(t);
 */
#ifndef APR_GRAMMAR_TRIE_H
#define APR_GRAMMAR_TRIE_H

#include "../arena.h"
#include "../tok/tok.h"

#define APR_TRIE_MAX_DEPTH 1024u /* longer tokens are left out */

struct apr_trie {
    struct apr_arena arena; /* owns all below */
    size_t n_vocab;
    const uint8_t *bytes; /* of all tokens */
    uint32_t *off;        /* [n_vocab + 1] where a token's bytes begin */
    uint32_t n_nodes;
    uint8_t *byte;       /* [n_nodes] */
    uint16_t *depth;     /* [n_nodes] 1 = first byte */
    uint32_t *skip;      /* [n_nodes] */
    uint32_t *first_tok; /* [n_nodes + 1] tokens that end here: ids[first_tok[i] .. first_tok[i + 1]) */
    int32_t *ids;        /* sorted by bytes, then by id */
};

/* bytes and off (see above) are copied. */
APR_MUST_USE enum apr_code apr_trie_build(struct apr_trie **out, const uint8_t *bytes, const uint32_t *off,
                                          size_t n_vocab, struct apr_err *e);
/* Ids from the tokenizer's number of tokens to n_vocab have no bytes. */
APR_MUST_USE enum apr_code apr_trie_of_vocab(struct apr_trie **out, const struct apr_tok *tok,
                                             const struct apr_vocab *v, size_t n_vocab, struct apr_err *e);
void apr_trie_free(struct apr_trie *t); /* NULL is fine */

#endif

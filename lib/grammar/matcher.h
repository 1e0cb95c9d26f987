/* One text that a grammar constrains: which tokens may come next.
 *
 * The state is the set of all places in the automaton that the text so far can stand at, each with the stack
 * of calls that have to return. States are kept and numbered, and so are their transitions, as they are met:
 * an automaton without stacks is made on the way, and a token costs a look-up a byte. Where a grammar is so
 * ambiguous that a state would have more than 512 places, or so deep that a stack passes its limit, the
 * places nearest to an end are kept: the texts that can still be made are then fewer, never wrong.
 *
 * A budget of tokens makes sure that the text ends in time: with n tokens left only those may come that leave
 * an end within n - 1 bytes (a byte is a token at worst). Where that cannot be, the shortest way is taken.
 *
 *     TRY(apr_matcher_open(&m, g, trie, e));
 *     if (!apr_matcher_allows(m, id, n_left)) apr_matcher_mask(m, n_left, bits);
 *     TRY(apr_matcher_take(m, id, e)); ... apr_matcher_close(m);
 */
#ifndef APR_GRAMMAR_MATCHER_H
#define APR_GRAMMAR_MATCHER_H

#include "grammar.h"
#include "trie.h"

struct apr_matcher;

/* g and trie are borrowed; trie may be NULL where only bytes are taken. */
APR_MUST_USE enum apr_code apr_matcher_open(struct apr_matcher **out, const struct apr_grammar *g,
                                            const struct apr_trie *trie, struct apr_err *e);
void apr_matcher_close(struct apr_matcher *m); /* NULL is fine */
/* n_left: tokens that may still come, this one included; SIZE_MAX: any number. */
bool apr_matcher_allows(struct apr_matcher *m, int32_t id, size_t n_left);
/* Sets bit id of bits [(n_vocab + 63) / 64] for every token that may come; returns how many. */
size_t apr_matcher_mask(struct apr_matcher *m, size_t n_left, uint64_t *bits);
/* The token belongs to the text now. One that the grammar does not allow: APR_EINFER. */
APR_MUST_USE enum apr_code apr_matcher_take(struct apr_matcher *m, int32_t id, struct apr_err *e);
/* The same for bytes; false where they do not fit: the matcher is of no use then. */
bool apr_matcher_bytes(struct apr_matcher *m, const void *p, size_t n);
/* The text may end here; the text must end here, because nothing can follow. */
bool apr_matcher_accepts(const struct apr_matcher *m);
bool apr_matcher_is_over(const struct apr_matcher *m);
/* Bytes of the shortest end. */
uint32_t apr_matcher_least_bytes(const struct apr_matcher *m);

#endif

/* The merges that the scores of a SentencePiece BPE vocabulary imply, for files that have merges only.
 *
 * As transformers does it: every way to cut a piece into two pieces, by the score of the whole, the highest
 * first.
 *
 *     TRY(apr_sp_merges(v, arena, &merges, &n_merges, e));
 */
#ifndef APR_TOK_SP_MERGES_H
#define APR_TOK_SP_MERGES_H

#include "../arena.h"
#include "../vocab.h"

APR_MUST_USE enum apr_code apr_sp_merges(const struct apr_vocab *v, struct apr_arena *arena,
                                         struct apr_str **merges, uint64_t *n_merges, struct apr_err *e);

#endif

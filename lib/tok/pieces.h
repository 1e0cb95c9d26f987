/* Pieces of a SentencePiece-like or WordPiece vocabulary: which tokens are bytes, and what text each token
 * stands for by the rules of the decoder.
 *
 *     apr_pieces_bytes(t, byte_id);
 *     TRY(apr_pieces_open(t, json_object_get(hf, "decoder"), e));   or apr_pieces_open_gguf(t, e)
 */
#ifndef APR_TOK_PIECES_H
#define APR_TOK_PIECES_H

#include "kind.h"

/* "<0x0A>" -> 10, anything else -1. */
int apr_piece_byte(struct apr_str s);
/* byte_id[256]: the token of each byte, -1 where there is none. */
void apr_pieces_bytes(const struct apr_tok *t, int32_t *byte_id);
/* Fills raw, raw_first, n_drops_blank and whole_bytes of t from $.decoder; refuses kinds that are not known.
 */
APR_MUST_USE enum apr_code apr_pieces_open(struct apr_tok *t, const json_t *decoder, struct apr_err *e);
/* The same by the rules that a GGUF of the kind implies. */
APR_MUST_USE enum apr_code apr_pieces_open_gguf(struct apr_tok *t, struct apr_err *e);

#endif

/* A SentencePiece model file (tokenizer.model, spiece.model): pieces, scores, types, and how text is
 * normalized.
 *
 * The layout is sentencepiece_model.proto of SentencePiece, in the wire format of protocol buffers; fields
 * that are not named here are skipped, those that are named are checked.
 *
 *     struct apr_sp_model sp; TRY(apr_sp_read(&sp, p, n_bytes, arena, file, e));
 */
#ifndef APR_TOK_SP_MODEL_H
#define APR_TOK_SP_MODEL_H

#include <stdbool.h>

#include "../arena.h"
#include "../kv.h"

enum apr_sp_type { APR_SP_UNIGRAM = 1, APR_SP_BPE = 2, APR_SP_WORD = 3, APR_SP_CHAR = 4 };

struct apr_sp_model {
    uint32_t n_pieces;
    struct apr_str *pieces; /* [n_pieces], in the arena, NUL-terminated */
    float *scores;          /* [n_pieces] */
    int32_t *types;         /* [n_pieces] enum apr_tok_type: the numbers are the same */
    enum apr_sp_type type;
    bool byte_fallback, split_by_space, space_as_suffix;
    int64_t unk_id, bos_id, eos_id, pad_id; /* -1: none */
    const uint8_t *charsmap;                /* in the arena */
    size_t n_charsmap_bytes;
    bool dummy_prefix, remove_extra_spaces, escape_spaces;
};

#define APR_SP_MAX_BYTES ((size_t)64 << 20)

APR_MUST_USE enum apr_code apr_sp_read(struct apr_sp_model *sp, const uint8_t *p, size_t n,
                                       struct apr_arena *arena, const char *file, struct apr_err *e);

#endif

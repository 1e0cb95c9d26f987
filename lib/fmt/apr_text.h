/* The metadata text of .apr files: the four long arrays of the tokenizer are scanned where they lie, in place
 * and without a JSON library; the rest goes through json.h.
 *
 *     TRY(apr_text_cut(text, n_bytes, 64, file, &m->arena, &cut, e)); ... json_decref(cut.root);
 */
#ifndef APR_FMT_APR_TEXT_H
#define APR_FMT_APR_TEXT_H

#include "../arena.h"
#include "../buf.h"
#include "../kv.h"
#include "../vocab.h"
#include <jansson.h>

struct apr_text {
    json_t *root; /* owned by the caller: every member but the arrays below */
    bool has_duplicates;
    struct apr_str *toks, *merges; /* point into the text, NUL-terminated; NULL where absent */
    int32_t *types;
    float *scores;
    uint64_t n_toks, n_merges, n_types, n_scores;
};

/* text is overwritten and must live as long as the strings. Of members with one name the last counts.
 * off: file offset of the text, for messages. */
APR_MUST_USE enum apr_code apr_text_cut(char *text, size_t n_bytes, uint64_t off, const char *file,
                                        struct apr_arena *a, struct apr_text *out, struct apr_err *e);
/* ,"tokenizer.vocabulary":[...],"tokenizer.merges":[...] ... of v; nothing without tokens. */
APR_MUST_USE enum apr_code apr_text_put(const struct apr_vocab *v, struct apr_buf *b, struct apr_err *e);

#endif

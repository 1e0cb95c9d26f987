/* Tokenizers: text to ids and back, from a struct apr_vocab.
 *
 * Exactly as Hugging Face tokenizers does it. A GGUF source has no tokenizer.json: there the row of its
 * pre-tokenizer's name (pre.c) says what the models of that name do, normalization included. Read-only after
 * open, so threads may share it.
 *
 *     TRY(apr_tok_open(&t, &model->vocab, path, e));
 *     TRY(apr_tok_encode(t, text, n_bytes, APR_TOK_PARSE_SPECIAL, &ids, e));
 */
#ifndef APR_TOK_H
#define APR_TOK_H

#include "../buf.h"
#include "../vocab.h"

struct apr_tok;

struct apr_ids {
    int32_t *at; /* owned; free with apr_ids_free */
    size_t n;
    size_t cap; /* apr_ids_push's own */
};
void apr_ids_free(struct apr_ids *ids);
APR_MUST_USE enum apr_code apr_ids_push(struct apr_ids *ids, int32_t id, struct apr_err *e);

APR_MUST_USE enum apr_code apr_ids_push_all(struct apr_ids *ids, const int32_t *at, size_t n,
                                            struct apr_err *e);

/* v must outlive the tokenizer. Unknown pre-tokenizer: APR_ELOAD naming it and --pre. */
APR_MUST_USE enum apr_code apr_tok_open(struct apr_tok **out, const struct apr_vocab *v, const char *file,
                                        struct apr_err *e);
void apr_tok_close(struct apr_tok *t);

enum { APR_TOK_PARSE_SPECIAL = 1, APR_TOK_ADD_SPECIAL = 2 }; /* flags of apr_tok_encode */
/* Appends to ids. Text may hold any bytes; invalid UTF-8 is treated as U+FFFD, as Hugging Face sees it. */
APR_MUST_USE enum apr_code apr_tok_encode(const struct apr_tok *t, const char *text, size_t n_bytes,
                                          unsigned flags, struct apr_ids *ids, struct apr_err *e);
/* Appends the raw bytes of one token (may end inside a UTF-8 character). Control tokens give nothing unless
 * with_special. An id outside the vocabulary is an error. */
APR_MUST_USE enum apr_code apr_tok_piece(const struct apr_tok *t, int32_t id, bool with_special,
                                         struct apr_buf *out, struct apr_err *e);
/* The whole text; invalid UTF-8 becomes U+FFFD as Hugging Face's decode does. */
APR_MUST_USE enum apr_code apr_tok_decode(const struct apr_tok *t, const int32_t *ids, size_t n,
                                          bool with_special, struct apr_buf *out, struct apr_err *e);
/* Id of a token by its stored text (special tokens too), or APR_ID_NONE. */
int64_t apr_tok_find(const struct apr_tok *t, const char *text, size_t n_bytes);
uint32_t apr_tok_n(const struct apr_tok *t);

/* tokenizer.json + tokenizer_config.json (+ vocab.json/merges.txt where there is no tokenizer.json) of a
 * folder into v; n_vocab 0 = unknown. In tok/hf.c. Names the pre-tokenizer (v->pre) from its own JSON, NULL
 * where no known one has that definition. A folder without any of these files leaves v->kind at NONE. v->hf
 * and *tok_config are the caller's. */
APR_MUST_USE enum apr_code apr_tok_read_hf(const char *dir, uint32_t n_vocab, const json_t *hf_config,
                                           struct apr_arena *arena, struct apr_vocab *v, json_t **tok_config,
                                           struct apr_err *e);

/* Streaming text output that never splits a UTF-8 character: feed bytes, take what is complete. */
struct apr_utf8_gate {
    uint8_t held[4];
    uint8_t n_held;
};
/* Appends to out the bytes that can be shown; invalid sequences become U+FFFD. last flushes. */
APR_MUST_USE enum apr_code apr_utf8_pass(struct apr_utf8_gate *g, const void *p, size_t n, bool last,
                                         struct apr_buf *out, struct apr_err *e);

#endif

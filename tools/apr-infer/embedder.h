/* Texts to vectors: tokens, batches, the model, pooling, length 1.
 *
 * Texts are collected until a batch is full and leave in the order in which they came.
 *
 *     struct apr_embedder x; TRY(apr_embedder_open(&x, &session, &opts, e)); x.take = take; x.ctx = ctx;
 *     TRY(apr_embedder_add(&x, text, n_bytes, e)); ... TRY(apr_embedder_flush(&x, e));
 * apr_embedder_close(&x);
 */
#ifndef APR_INFER_EMBEDDER_H
#define APR_INFER_EMBEDDER_H

#include "encoder.h"
#include "fmt/sentence.h"
#include "session.h"

struct apr_embed_opts {
    const char *pooling; /* NULL: the model's own */
    bool normalize, no_normalize;
    const char *prompt_name, *prompt; /* before each text; NULL: the model's default, if it has one */
    size_t n_batch;                   /* tokens computed at once */
    bool exact;
};

struct apr_embedding {
    size_t i; /* of the text */
    const float *v;
    size_t n_toks; /* that were computed */
    bool is_cut;
};
typedef enum apr_code apr_embed_take_fn(void *ctx, const struct apr_embedding *v, struct apr_err *e);

struct apr_embed_seq {
    size_t i_first, n; /* ids */
    bool is_cut;
};

struct apr_embedder {
    struct apr_session *s; /* borrowed */
    enum apr_pooling pooling;
    bool normalize;
    size_t n_dims, n_max; /* n_max: tokens of a text */
    apr_embed_take_fn *take;
    void *ctx;
    /* its own */
    struct apr_arena arena;
    struct apr_encoder encoder;
    struct apr_buf text;           /* prompt and text */
    size_t n_prompt_bytes, n_skip; /* n_skip: tokens of the prompt that the pooling leaves out */
    struct apr_ids ends;           /* what the tokenizer puts around an empty text */
    struct apr_ids ids;            /* of the batch */
    struct apr_embed_seq *seqs;    /* [n_batch] */
    struct apr_seq *rows;
    size_t n_seqs, n_batch, n_texts;
    float *vector;
};

APR_MUST_USE enum apr_code apr_embedder_open(struct apr_embedder *x, struct apr_session *s,
                                             const struct apr_embed_opts *o, struct apr_err *e);
void apr_embedder_close(struct apr_embedder *x);
APR_MUST_USE enum apr_code apr_embedder_add(struct apr_embedder *x, const char *text, size_t n_bytes,
                                            struct apr_err *e);
/* Tokens as they are, nothing put around them. ids fit int32_t. */
APR_MUST_USE enum apr_code apr_embedder_add_ids(struct apr_embedder *x, const int64_t *ids, size_t n,
                                                struct apr_err *e);
/* Computes what was collected. */
APR_MUST_USE enum apr_code apr_embedder_flush(struct apr_embedder *x, struct apr_err *e);

#endif

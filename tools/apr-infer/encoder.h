/* The forward pass of a bidirectional encoder (BERT, RoBERTa, XLM-R): hidden states of texts, and one vector
 * for each by pooling.
 *
 * Several sequences run in one batch of rows and see only themselves; a sequence's values do not depend on
 * what runs beside it. Token types are 0.
 *
 *     struct apr_encoder x; TRY(apr_encoder_open(&x, &checked, kern, pool, exact, n_rows_most, e));
 *     TRY(apr_encoder_run(&x, seqs, n_seqs, e));      // x.hidden: rows of all sequences, in order
 *     apr_pool_rows(pooling, x.hidden + seq.row0 * n, seq.n, n, v); apr_encoder_close(&x);
 */
#ifndef APR_INFER_ENCODER_H
#define APR_INFER_ENCODER_H

#include "bind.h"
#include "contract.h"

struct apr_encoder {
    struct apr_arena arena; /* owns the widened weights */
    const struct apr_config *cfg;
    struct apr_rows embed, positions;
    const float *type0; /* [n_hidden] row 0 of the token types; NULL = the model has none */
    struct apr_lnorm embed_norm;
    struct apr_block *blocks; /* [n_layers] */
    struct apr_stack stack;
    struct apr_span *spans; /* [n_rows_most] */
    size_t n_max;           /* most tokens of a sequence */
    const float *hidden;    /* rows of the last run: stack.x */
};

struct apr_seq {
    const int32_t *ids; /* [n], 1 <= n <= n_max */
    size_t n;
    size_t row0; /* out */
};

/* n_rows: most tokens of a batch; at least the longest sequence, n_max, is made possible. */
APR_MUST_USE enum apr_code apr_encoder_open(struct apr_encoder *x, const struct apr_checked_model *m,
                                            const struct apr_kern *kern, struct apr_pool *pool, bool exact,
                                            size_t n_rows, struct apr_err *e);
void apr_encoder_close(struct apr_encoder *x);
/* The sequences have n_rows tokens in all at most. An id outside the vocabulary: APR_EUSAGE; values that are
 * not finite: APR_EINFER. */
APR_MUST_USE enum apr_code apr_encoder_run(struct apr_encoder *x, struct apr_seq *seqs, size_t n_seqs,
                                           struct apr_err *e);

/* ---- pooling ---- */

/* rows: [n_rows, n_cols]; v: [n_cols]. Sums are in double. */
void apr_pool_rows(enum apr_pooling how, const float *rows, size_t n_rows, size_t n_cols, float *v);
/* v / |v|; a vector of zeros stays. */
void apr_normalize(float *v, size_t n);
double apr_cosine(const float *a, const float *b, size_t n);

#endif

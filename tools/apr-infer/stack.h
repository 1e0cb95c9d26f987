/* Blocks of encoders and of encoder-decoders: LayerNorm, attention over whole sequences (or causal, or over
 * the encoder's output), feed-forward with GELU; several rows at a time.
 *
 * A row's results are the same bits for any number of rows beside it and any number of threads: every sum is
 * one fixed chain (kern.h). The models (encoder.c, whisper_model.c) call these steps in the paper's order.
 *
 *     struct apr_stack s; TRY(apr_stack_open(&s, &dims, kern, pool, exact, n_rows, n_pos, e));
 *     apr_stack_norm(&s, &b->attn_norm, n); apr_stack_qkv(&s, &b->self, n);
 *     apr_stack_attend(&s, spans, n_spans); apr_stack_add(&s, &b->self.o, &s.att, n); ...
 * apr_stack_close(&s);
 */
#ifndef APR_INFER_STACK_H
#define APR_INFER_STACK_H

#include "arena.h"
#include "config.h"
#include "linear.h"

struct apr_lnorm {
    const float *w, *b; /* [n_hidden] */
};

struct apr_attn_mats {
    struct apr_mat q, k, v, o; /* [n_hidden, n_hidden] */
};

struct apr_block {
    struct apr_lnorm attn_norm, cross_norm, ffn_norm; /* cross_*: of a decoder that reads an encoder */
    struct apr_attn_mats self, cross;
    struct apr_mat up;   /* [n_inter, n_hidden] */
    struct apr_mat down; /* [n_hidden, n_inter] */
};

struct apr_stack_dims {
    size_t n_hidden, n_heads, n_inter;
    size_t n_in_most; /* columns of the widest matrix besides these; 0 = none is wider */
    float eps;
    enum apr_activation activation;
};

struct apr_stack {
    struct apr_arena arena; /* owns all below */
    struct apr_stack_dims d;
    struct apr_compute c;
    size_t n_rows_most, n_pos_most;
    float *x;             /* [n_rows_most, n_hidden] residual stream */
    float *q, *k, *v, *y; /* the same shape */
    struct apr_acts h;    /* [n_rows_most, n_hidden] input of matrices */
    struct apr_acts att;  /* the same shape: output of attention */
    struct apr_acts ffn;  /* [n_rows_most, n_inter] */
    float *room;          /* [threads, n_room] scores, queries and outputs of a tile */
    size_t n_room;
};

/* Rows [row0, row0 + n_rows) of q look at n_pos positions of k and v; rows of those are n_hidden values, head
 * after head. */
struct apr_span {
    size_t row0, n_rows;
    const void *k, *v;
    size_t n_pos;
    bool is_f32;    /* else F16 */
    bool is_causal; /* row i sees the first n_pos - n_rows + i + 1 of them */
    size_t i_first; /* apr_stack_attend's own */
};

APR_MUST_USE enum apr_code apr_stack_open(struct apr_stack *s, const struct apr_stack_dims *d,
                                          const struct apr_kern *kern, struct apr_pool *pool, bool exact,
                                          size_t n_rows_most, size_t n_pos_most, struct apr_err *e);
void apr_stack_close(struct apr_stack *s);
/* y = LayerNorm(x); x and y do not overlap. */
void apr_stack_layernorm(const struct apr_stack *s, const struct apr_lnorm *w, const float *x, float *y,
                         size_t n_rows);
/* h = LayerNorm(x) */
void apr_stack_norm(struct apr_stack *s, const struct apr_lnorm *w, size_t n_rows);
/* x = h: in blocks whose norm comes last the residual stream is what was normed. */
void apr_stack_keep(struct apr_stack *s, size_t n_rows);
/* q, k, v = W h + b */
void apr_stack_qkv(struct apr_stack *s, const struct apr_attn_mats *w, size_t n_rows);
/* y = W acts + b, [n_rows, w->n_rows]; acts->f32 holds the rows. */
void apr_stack_linear(struct apr_stack *s, const struct apr_mat *w, struct apr_acts *acts, float *y,
                      size_t n_rows);
/* att = attention(q, spans) */
void apr_stack_attend(struct apr_stack *s, struct apr_span *spans, size_t n_spans);
/* x += W acts + b */
void apr_stack_add(struct apr_stack *s, const struct apr_mat *w, struct apr_acts *acts, size_t n_rows);
/* x += Wdown activation(Wup h + b) + b */
void apr_stack_ffn(struct apr_stack *s, const struct apr_block *b, size_t n_rows);
/* x = activation(x), n values. */
void apr_stack_activate(const struct apr_stack *s, float *x, size_t n);
/* Row i that is not finite throughout, or n_rows. */
size_t apr_stack_bad_row(const float *x, size_t n_rows, size_t n_cols);

#endif

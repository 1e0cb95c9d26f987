/* Rotary positions: angles of a chunk of tokens, for every scaling that the configuration can name.
 *
 * Frequencies are theta^(-2i/d) (Su et al. 2021), then linear, dynamic NTK, YaRN (Peng et al. 2023), Llama
 * 3's bands or longrope's divisors (Ding et al. 2024), in double; GGUF's tensors of divisors apply besides.
 * Dynamic NTK and longrope depend on the length of the sequence that a prompt or a step makes, as in
 * transformers. Tables live in the arena of apr_rope_open.
 *
 *     struct apr_rope_table r; TRY(apr_rope_open(&r, &from, n_batch, arena, e));
 *     apr_rope_at(&r, 0, pos0, n_toks, n_seq); ... apr_rope_head(&r, kern, i_tok, head);
 */
#ifndef APR_INFER_ROPE_H
#define APR_INFER_ROPE_H

#include "arena.h"
#include "config.h"
#include "err.h"
#include "kern/kern.h"

struct apr_rope_from {
    const struct apr_rope *rope;
    bool pairs;           /* (2i, 2i + 1) turn together, not (i, i + n_dims / 2) */
    uint32_t n_ctx_train; /* where the rope names no original context */
    /* [n_dims / 2] of a GGUF, or NULL */
    const float *freqs, *long_freqs, *short_freqs;
};

struct apr_rope_table {
    struct apr_rope_from from;
    size_t n_half;         /* n_dims / 2; 0: nothing turns */
    double *inv_freq;      /* [n_half] */
    double *long_inv_freq; /* [n_half] of sequences longer than n_ctx_orig, or NULL */
    double scale;          /* of cos and sin */
    size_t n_ctx_orig;
    float *cos, *sin; /* [n_batch, n_half] */
};

APR_MUST_USE enum apr_code apr_rope_open(struct apr_rope_table *r, const struct apr_rope_from *from,
                                         size_t n_batch, struct apr_arena *arena, struct apr_err *e);
/* A sequence of n_seq tokens is rotated by the long set. */
bool apr_rope_is_long(const struct apr_rope_table *r, size_t n_seq);
/* Of n tokens that are appended one by one at n_pos, those before the sequence goes from one set to the
 * other. */
size_t apr_rope_n_alike(const struct apr_rope_table *r, size_t n_pos, size_t n);
/* Fills rows i_tok .. of the tables for positions pos0 .. of a sequence that will have n_seq tokens. */
void apr_rope_at(struct apr_rope_table *r, size_t i_tok, size_t pos0, size_t n_toks, size_t n_seq);
/* Keys of a sequence of n_seq tokens are those of any other sequence that has at most as many, or that
 * apr_rope_is_long says the same of. */
bool apr_rope_is_stable(const struct apr_rope_table *r, size_t n_seq);
/* Turns the first n_dims values of one head of token i_tok. */
void apr_rope_head(const struct apr_rope_table *r, const struct apr_kern *kern, size_t i_tok, float *x);

#endif

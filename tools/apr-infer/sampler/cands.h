/* The candidates of one token: first the logits of the whole vocabulary, then a list that steps narrow.
 *
 * Order: larger logits first, equal ones by id. It is total, so whatever is chosen depends on the logits
 * alone. Nothing here allocates after apr_cands_init, and nothing sorts more than it must: selection is
 * linear, and all sorts are bounded by n log n.
 *
 *     TRY(apr_cands_init(&c, n_vocab, kern, arena, e));
 *     apr_cands_begin(&c, logits); apr_cands_first(&c, 40); apr_cands_probs(&c); ... c.at[0 .. c.n)
 */
#ifndef APR_INFER_SAMPLER_CANDS_H
#define APR_INFER_SAMPLER_CANDS_H

#include "arena.h"
#include "kern/kern.h"

#define APR_CANDS_MANY 4096u      /* from here on probabilities are of F32's exp: 1.5e-7 relative */
#define APR_CANDS_MOST (1u << 20) /* of a draw by weight: their sum fits 64 bits */

struct apr_cand {
    double p;
    float logit;
    int32_t id;
};

struct apr_cands {
    const struct apr_kern *kern;
    size_t n_vocab;
    float *logits;       /* [n_vocab] while !is_list */
    bool is_list;        /* the candidates are at[0 .. n) */
    struct apr_cand *at; /* [n_vocab] */
    size_t n;
    size_t n_sorted; /* the first so many stand in order, before all others */
    bool has_p;      /* at[].p is the softmax over the list */
    uint32_t *where; /* [n_vocab] place in the list, where has_where */
    bool has_where;
    float *scratch; /* [n_vocab] */
    uint64_t *sums; /* [blocks of the vocabulary] */
};

APR_MUST_USE enum apr_code apr_cands_init(struct apr_cands *c, size_t n_vocab, const struct apr_kern *kern,
                                          struct apr_arena *arena, struct apr_err *e);
/* All tokens with these logits; -inf means out. */
void apr_cands_begin(struct apr_cands *c, const float *logits);
/* Makes the list; tokens at -inf are left out. */
void apr_cands_list(struct apr_cands *c);
/* Where a token's logit stands, NULL when it is no candidate. apr_cands_changed must follow a change. */
float *apr_cands_logit(struct apr_cands *c, int32_t id);
void apr_cands_changed(struct apr_cands *c);
size_t apr_cands_n(const struct apr_cands *c);
float apr_cands_max(const struct apr_cands *c);
/* Keeps the first k in order, sorted. */
void apr_cands_first(struct apr_cands *c, size_t k);
/* Keeps logits >= least. */
void apr_cands_at_least(struct apr_cands *c, double least);
/* Keeps p >= least, and the likeliest in any case. */
void apr_cands_likely(struct apr_cands *c, double least);
/* Lists and fills in p. */
void apr_cands_probs(struct apr_cands *c);
/* While there is no list, of a vocabulary of MANY to MOST: a token and its probability by the weights of all,
 * u in [0, 1) a multiple of 2^-53. Else false. A token's weight is the integer next to 2^43 e, with e =
 * exp(logit
 * - max) as all tables of kernels have it (kern/exp.h), so their sums do not depend on the order, and the
 * same logits give the same token on any machine, on a device, too. The logits become e. */
bool apr_cands_draw_all(struct apr_cands *c, double u, int32_t *id, double *p);
/* Shannon entropy in nats; p must be there. */
double apr_cands_entropy(const struct apr_cands *c);
/* Lists, and brings the first k in order to the front. */
void apr_cands_sort(struct apr_cands *c, size_t k);
/* The same with p as an ascending score of the caller's: the smallest first, equal ones by id. */
void apr_cands_sort_scores(struct apr_cands *c, size_t k);
/* Only the first n of the list remain. */
void apr_cands_cut(struct apr_cands *c, size_t n);
/* Divides every logit; t 0, or so little that the largest overflows, keeps the first in order alone. */
void apr_cands_temper(struct apr_cands *c, double t);

#endif

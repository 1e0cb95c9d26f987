/* Rejection sampling of a proposed token: what comes out is distributed as p, whatever proposed it.
 *
 * x was drawn from q. It stays with probability min(1, p(x) / q(x)); otherwise the token is drawn from
 * max(0, p - q), normalised. Leviathan et al., Fast Inference from Transformers via Speculative Decoding,
 * 2023; Chen et al., Accelerating Large Language Model Decoding with Speculative Sampling, 2023. Both need x
 * to be judged always: to drop a proposal because of what it is (unlikely, refused by a grammar) would bend
 * p. A proposal that involves no chance has q(x) = 1; then the rule is the same as drawing from p and looking
 * whether x came out, which is what the sampler does there: the text is that of plain sampling.
 *
 *     i = apr_judge(c.at, c.n, &proposal, u1, u2); the token is c.at[i].id, accepted where that is
 * proposal.id
 */
#ifndef APR_INFER_SAMPLER_JUDGE_H
#define APR_INFER_SAMPLER_JUDGE_H

#include <stdbool.h>

#include "cands.h"

struct apr_proposal {
    int32_t id;
    const struct apr_cand *q; /* borrowed: [n_q] ascending ids with p > 0, sum 1; NULL: no chance involved */
    size_t n_q;
};

/* p: n >= 1 candidates with weights at[].p >= 0, not all 0; they need not sum to 1. u: independent uniforms
 * in [0, 1). Returns the place of the token in p. */
size_t apr_judge(const struct apr_cand *p, size_t n, const struct apr_proposal *x, double u_accept,
                 double u_draw);

#endif

/* How many tokens to propose: what a step of n tokens costs, against what it is likely to give.
 *
 * Cost: the time of a step of w tokens is the mean of those seen, newer ones counting more, drawn towards a
 * line through the step of one token (its slope is fitted to all widths; before anything is known it is
 * SLOPE_FIRST, which is optimistic, so that wide steps are tried). Gain: the first proposed token is accepted
 * with probability f, each later one after an accepted one with c; both are counted for each kind of
 * proposal, older outcomes fading. Of all n that are there, the one with the most expected tokens a second is
 * taken:
 *
 *     (1 + f + f c + ... + f c^(n-1)) / (cost(n + 1) + n * cost of drafting one)
 *
 * n = 0, a plain step, among them. The first step is always a plain one. Where the text depends on what is
 * proposed (a draft that is sampled), time must not decide: apr_pace_fix puts constants in place of clocks.
 *
 *     apr_pace_init(&p, n_min, n_max); n = apr_pace_length(&p, kind, n_there);
 *     apr_pace_stepped(&p, 1 + n, s); apr_pace_judged(&p, kind, n, n_accepted, is_rejected);
 */
#ifndef APR_INFER_SPECULATE_PACE_H
#define APR_INFER_SPECULATE_PACE_H

#include <stdbool.h>
#include <stddef.h>

#define APR_MAX_DRAFT 63u /* tokens; the caches keep enough to take as many back */

#define APR_PACE_DRAFT   0u  /* the kind of proposals of a draft model */
#define APR_PACE_N_KINDS 18u /* 1 ..: lookups by the length of their match */

struct apr_odds { /* of kinds: fading counts */
    double n_first, n_first_ok, n_next, n_next_ok;
};

struct apr_pace {
    size_t n_min, n_max; /* tokens to propose */
    bool is_fixed;
    double time[APR_MAX_DRAFT + 2], weight[APR_MAX_DRAFT + 2]; /* [tokens of a step]: fading sums */
    double draft_time, draft_weight;
    struct apr_odds odds[APR_PACE_N_KINDS];
};

void apr_pace_init(struct apr_pace *p, size_t n_min, size_t n_max);
/* From now on a step of w tokens costs 1 + (w - 1) / 10 and a drafted token draft_cost. */
void apr_pace_fix(struct apr_pace *p, double draft_cost);
/* The kind of a lookup whose match has so many tokens. */
size_t apr_pace_lookup_kind(size_t n_match);
/* How many of n_there tokens to propose. A kind that is never tried drifts back to its first odds. */
size_t apr_pace_length(struct apr_pace *p, size_t kind, size_t n_there);
/* A step of n_toks took so many seconds; drafting n tokens did. */
void apr_pace_stepped(struct apr_pace *p, size_t n_toks, double seconds);
void apr_pace_drafted(struct apr_pace *p, size_t n_toks, double seconds);
/* The first n_accepted of a proposal were right; rejected: the next one was not. */
void apr_pace_judged(struct apr_pace *p, size_t kind, size_t n_accepted, bool rejected);
/* Seconds (or the fixed cost) of a step of n_toks. */
double apr_pace_cost(const struct apr_pace *p, size_t n_toks);

#endif

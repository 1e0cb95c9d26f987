/* Where the time of a forward pass goes: every step timed, with the bytes and operations it needs at least.
 *
 * Bytes are those of weights and cache that the step must read (and activations of steps without weights);
 * operations count a multiplication and an addition as two. A pass is one prompt, or one token; times are
 * taken between steps on the caller's thread, so that they add up to the pass.
 *
 *     struct apr_profile p; struct apr_profile_size size = {64, 32, 1, 3};
 *     TRY(apr_profile_run(&p, &session, &roof, &size, &arena, e)); p.phases[APR_PHASE_DECODE] ...
 */
#ifndef APR_INFER_PROFILE_H
#define APR_INFER_PROFILE_H

#include "roofline.h"
#include "series.h"

enum apr_phase { APR_PHASE_PREFILL = 0, APR_PHASE_DECODE, APR_N_PHASES };

struct apr_profile_op {
    double s;                 /* all passes together */
    double pass_s, best_s;    /* this pass; the least of a pass, 0 = none yet */
    double n_bytes, flops;    /* all passes together */
    double read_s, compute_s; /* from memory; at the rate of products */
    double roof_s;            /* the least time that the roofs allow */
};

struct apr_profile_phase {
    struct apr_profile_op ops[APR_N_OPS];
    double *layer_s;         /* [n_layers + 1][APR_N_OPS], all passes; the last: final norm and head */
    double *pass_ms;         /* [n_passes] */
    size_t n_passes, n_toks; /* n_toks of one pass */
    struct apr_summary latency_ms;
    double toks_per_s; /* of all passes */
};

struct apr_profile_size {
    size_t n_prompt, n_gen;
    size_t n_warmup, n_measure;
};

struct apr_profile {
    struct apr_session *session; /* borrowed, as the roof */
    const struct apr_roof *roof;
    struct apr_profile_phase phases[APR_N_PHASES];
    enum apr_phase phase;
    bool is_on; /* warm-up is not counted */
    int64_t ns_last;
    struct apr_profile_op pending; /* of the step that runs */
};

APR_MUST_USE enum apr_code apr_profile_run(struct apr_profile *p, struct apr_session *s,
                                           const struct apr_roof *roof, const struct apr_profile_size *size,
                                           struct apr_arena *arena, struct apr_err *e);
const char *apr_op_name(enum apr_op op);
const char *apr_phase_name(enum apr_phase phase);
/* Share of the roofline that the median pass of the phase reaches, in percent. */
double apr_profile_efficiency(const struct apr_profile_phase *p);
/* A+ from 80 %, A from 50 %, B from 30 %, C from 15 %, D from 5 %, else F. */
const char *apr_profile_grade(double efficiency_pct);
const char *apr_profile_peer_grade(double ratio); /* of our rate to another engine's */

#endif

/* The ten stages of `check`: each part of the engine, measured on the model at hand.
 *
 * One short sequence is run in reference mode; the stages then compare what the parts left behind with what
 * they must have done. A stage writes what it measured, passed or not.
 *
 *     struct apr_stage_result r[APR_N_STAGES]; TRY(apr_stages_run(&session, arena, r, e));
 */
#ifndef APR_INFER_STAGES_H
#define APR_INFER_STAGES_H

#include "session.h"

#define APR_N_STAGES 10

struct apr_stage_result {
    const char *name; /* "embedding" */
    bool passed;
    char measured[200]; /* "relative error 1.2e-06 of 3 rows (at most 1e-4)" */
};

/* The session must be exact and its cache at least 32 positions. */
APR_MUST_USE enum apr_code apr_stages_run(struct apr_session *s, struct apr_arena *arena,
                                          struct apr_stage_result out[APR_N_STAGES], struct apr_err *e);

#endif

/* Speculation for one model: what the options ask for, opened together.
 *
 *     struct apr_speculate sp; TRY(apr_speculate_open(&sp, &opts, &engine, &session, &sampler, ctx, e));
 *     apr_generate(..., apr_speculate_spec(&sp), e); ... apr_speculate_close(&sp);
 */
#ifndef APR_INFER_SPECULATE_SPECULATE_H
#define APR_INFER_SPECULATE_SPECULATE_H

#include "draft.h"
#include "spec.h"

struct apr_speculate {
    bool is_on;
    struct apr_spec spec;
    struct apr_draft draft; /* open where opts.draft is given */
};

/* Without --lookup and --draft nothing is opened. sp need not be closed after a failure. */
APR_MUST_USE enum apr_code apr_speculate_open(struct apr_speculate *sp, const struct apr_spec_opts *opts,
                                              const struct apr_engine_opts *engine,
                                              const struct apr_session *s, const struct apr_sampler *sampler,
                                              const struct apr_ctx *ctx, struct apr_err *e);
void apr_speculate_close(struct apr_speculate *sp);
/* NULL where nothing is proposed. */
struct apr_spec *apr_speculate_spec(struct apr_speculate *sp);

#endif

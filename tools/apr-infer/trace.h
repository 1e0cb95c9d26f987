/* The residual stream of a prompt at every depth: statistics after the embedding, after each layer, and
 * after the final norm.
 *
 * Statistics are over all positions of the prompt; the values kept are of the last position.
 *
 *     struct apr_trace t; TRY(apr_trace_run(&t, &session, ids, n, &arena, e)); t.points[1].stats ...
 */
#ifndef APR_INFER_TRACE_H
#define APR_INFER_TRACE_H

#include "inside.h"
#include "session.h"

struct apr_trace_point {
    struct apr_stats stats; /* of [n_toks, n_hidden] */
    float *last;            /* [n_hidden] at the last position */
};

struct apr_trace {
    struct apr_session *session;
    struct apr_trace_point *points; /* [n_points]: 0 embedding, i after layer i - 1, last: final norm */
    uint32_t n_points;              /* n_layers + 2 */
    float *rows;                    /* [n_batch, n_hidden] of the final norm */
    struct apr_inside *inside;      /* borrowed; NULL: no layer is looked into */
};

/* Starts from an empty cache; the last chunk remains in the session. Memory lives in arena. inside: set up
 * for this session, or NULL. */
APR_MUST_USE enum apr_code apr_trace_run(struct apr_trace *t, struct apr_session *s, const int32_t *ids,
                                         size_t n_ids, struct apr_inside *inside, struct apr_arena *arena,
                                         struct apr_err *e);
double apr_stats_mean(const struct apr_stats *s); /* of finite values; 0 where there are none */
double apr_stats_sd(const struct apr_stats *s);   /* over all of them: sqrt(E[x^2] - E[x]^2) */

#endif

/* What a device launches for a step, as the driver says it: kernels, grids, registers, times, bytes.
 *
 *     struct apr_launches l; TRY(apr_launches_of(&s, ids, n, &l, arena, e)); // after the cache's positions
 *     apr_launches_out(o, "launches", &l, NULL);
 */
#ifndef APR_INFER_LAUNCHES_H
#define APR_INFER_LAUNCHES_H

#include "session.h"

struct apr_launches {
    const struct apr_gpu_time *at; /* [n] in order */
    size_t n, n_toks;
    double s;           /* all of them, one after the other */
    uint64_t n_bytes;   /* of all */
    double bytes_per_s; /* the memory's read bandwidth, measured now */
    double empty_s;     /* a launch of nothing among as many */
};

/* n tokens behind the session's cache, which does not move. The session computes on a device, else
 * APR_EUNAVAIL. */
APR_MUST_USE enum apr_code apr_launches_of(struct apr_session *s, const int32_t *ids, size_t n,
                                           struct apr_launches *l, struct apr_arena *arena,
                                           struct apr_err *e);
/* How the tokens of a step are spread: "single", "grid_x", "grid_y" or "grid_z" where a dimension of the grid
 * counts them, else "register_unroll". */
const char *apr_launch_dispatch(const struct apr_launches *l, const struct apr_gpu_time *t);
/* An array of all launches whose part or kernel contains the text; NULL: all. Returns how many. */
size_t apr_launches_out(struct apr_out *o, const char *key, const struct apr_launches *l, const char *text);
/* An array of parts of the step: launches, time, share, bytes, rates, kernel. */
void apr_launches_out_parts(struct apr_out *o, const char *key, const struct apr_launches *l);
/* An array of what is launched alike, in the order of the first time, with the layers of each. */
size_t apr_launches_out_map(struct apr_out *o, const char *key, const struct apr_launches *l,
                            const char *text);

#endif

/* What this machine can do at most: bytes read and operations a second, measured here and now with the
 * session's threads (roofline model: Williams, Waterman, Patterson 2009).
 *
 * Reading: every thread sums 64-bit words of a buffer, the best of several passes; once over 256 MiB, or four
 * times the last cache where that is more, and, when a token reads less, once over as many bytes as it reads,
 * of which caches may hold some. Computing: products of
 * the best kernels of this CPU on 64 rows, 1024 columns and 64 tokens, which stay in the cache, for each type
 * of the model's matrices; a multiplication and an addition are two operations.
 *
 *     struct apr_roof r; TRY(apr_roof_measure(&r, &session, e)); r.read_bytes_per_s ...
 */
#ifndef APR_INFER_ROOFLINE_H
#define APR_INFER_ROOFLINE_H

#include "session.h"

struct apr_roof {
    double memory_bytes_per_s;       /* of n_memory_bytes */
    uint64_t n_memory_bytes;         /* more than caches hold */
    double read_bytes_per_s;         /* of what a token reads */
    uint64_t n_set_bytes;            /* what was read for it */
    const char *kernels;             /* table of the products */
    double flops_per_s[APR_N_TYPES]; /* 0: the model has no matrix of the type; F32 is always there */
};

APR_MUST_USE enum apr_code apr_roof_measure(struct apr_roof *r, struct apr_session *s, struct apr_err *e);
/* Of a type without a rate of its own: F32's. */
double apr_roof_flops(const struct apr_roof *r, enum apr_type type);
/* The last table of those that this CPU can run. */
const struct apr_kern *apr_kern_best(void);
/* The least seconds in which so much can be read and computed. */
double apr_roof_s(const struct apr_roof *r, enum apr_type type, double n_bytes, double flops);

#endif

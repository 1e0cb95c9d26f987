/* The loop of every conversion: source tensors in, planned tensors out, in pieces of bounded size.
 *
 * A piece is widened to float, judged (F-DATA-QUALITY, contract.h) and narrowed to the planned type on the
 * pool; blocks whose type does not change pass through untouched. Piece and chunk borders depend on the
 * tensor alone, so the bytes are the same for any number of threads. The source may be a stream.
 *
 *     struct apr_convert c = {.model = m, .plan = &plan, .fmt = fmt, .kern = k, .pool = pool, .gate = true};
 *     TRY(apr_convert_run(&c, sink, trailer, e));
 */
#ifndef APR_CONVERT_H
#define APR_CONVERT_H

#include "contract.h"
#include "fmt/fmt.h"
#include "kern/kern.h"
#include "pool.h"

struct apr_convert {
    struct apr_model *model;
    const struct apr_plan *plan;
    const struct apr_fmt *fmt;
    const struct apr_kern *kern;
    struct apr_pool *pool;
    bool gate; /* refuse data that breaks the contract; values that the planned type cannot hold are always
                  refused */
    bool more; /* another run on the same source follows: what comes after its last tensor is left alone */
};

/* Writes the whole output to s: begin, data, end. trailer may be NULL; otherwise an object that receives
 * "tensors", the XXH3-64 of each tensor's data in hex, and "sources" (provenance.h). On failure the caller
 * aborts the sink. */
APR_MUST_USE enum apr_code apr_convert_run(const struct apr_convert *c, struct apr_sink *s, json_t *trailer,
                                           struct apr_err *e);

/* Largest number of bytes that apr_convert_run holds at a time, for plans and --dry-run. */
uint64_t apr_convert_peak_bytes(const struct apr_pool *pool);

#endif

/* What every writer does after its header: data in plan order, zeros up to the alignment after each tensor.
 *
 *     w = apr_writer_new(plan, sink); ... apr_writer_data(w, p, n, e) ... TRY(apr_writer_full(w, e));
 *     apr_writer_free(w);
 */
#ifndef APR_FMT_WRITER_H
#define APR_FMT_WRITER_H

#include "fmt.h"

struct apr_writer {
    struct apr_arena arena; /* holds the writer itself */
    const struct apr_plan *plan;
    struct apr_sink *sink;
    uint64_t i_tensor; /* the one that takes the next byte */
    uint64_t off;      /* bytes of it that are written */
};

struct apr_writer *apr_writer_new(const struct apr_plan *p, struct apr_sink *s);
/* Slots data and abort of the vtable. More bytes than planned are an error of the caller. */
enum apr_code apr_writer_data(struct apr_writer *w, const void *p, size_t n, struct apr_err *e);
void apr_writer_free(struct apr_writer *w);
/* Every planned byte was written, empty tensors at the end included. */
APR_MUST_USE enum apr_code apr_writer_full(struct apr_writer *w, struct apr_err *e);
/* Refuses a plan whose names are empty, too long, not UTF-8 or hold NUL, or whose sizes do not fit its types.
 */
APR_MUST_USE enum apr_code apr_writer_check(const struct apr_plan *p, size_t max_name_bytes,
                                            struct apr_err *e);

#endif

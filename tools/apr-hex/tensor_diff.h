/* Two tensors compared: shape, then every value.
 *
 *     struct tensor_diff d = {.tolerance = 1e-6, .n_show = 4};
 *     TRY(tensor_diff_run(&d, a, t, b, u, kern, pool, arena, e));
 */
#ifndef APR_HEX_TENSOR_DIFF_H
#define APR_HEX_TENSOR_DIFF_H

#include "model.h"
#include "kern/kern.h"
#include "pool.h"

#define TENSOR_DIFF_MAX_SHOWN 100000u

enum diff_status { /* the first two are agreement */
                   DIFF_IDENTICAL,
                   DIFF_WITHIN,
                   DIFF_DIFFERENT,
                   DIFF_TRANSPOSED,
                   DIFF_SHAPE,
                   DIFF_MISSING_A,
                   DIFF_MISSING_B,
                   DIFF_NOT_COMPUTABLE,
                   N_DIFF
};

struct shown_value {
    uint64_t i;
    float a, b;
};

struct tensor_diff {
    double tolerance; /* in */
    uint64_t n_show;  /* in: at most TENSOR_DIFF_MAX_SHOWN */
    enum diff_status status;
    bool is_known; /* values were compared */
    uint64_t n, n_different;
    double max_diff, sum_diff; /* absolute; infinite where a NaN or an infinity stands on one side only */
    struct shown_value *shown; /* [n_shown]: the first that differ; in the arena */
    size_t n_shown;
};

const char *tensor_diff_name(enum diff_status s);
/* t or u NULL: missing there. */
APR_MUST_USE enum apr_code tensor_diff_run(struct tensor_diff *d, const struct apr_model *a,
                                           const struct apr_tensor *t, const struct apr_model *b,
                                           const struct apr_tensor *u, const struct apr_kern *kern,
                                           struct apr_pool *pool, struct apr_arena *arena, struct apr_err *e);

#endif

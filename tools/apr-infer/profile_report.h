/* A profile in words and numbers, and as a flame graph.
 *
 *     apr_profile_out(o, &p, &view); TRY(apr_profile_flame(&p, "out.svg", false, e));
 */
#ifndef APR_INFER_PROFILE_REPORT_H
#define APR_INFER_PROFILE_REPORT_H

#include "profile.h"

struct apr_profile_view {
    bool granular;    /* also the times of each layer */
    bool grade_alone; /* without the tables of steps */
};

/* Fields of the open object: model, roofline, both phases, grade. */
void apr_profile_out(struct apr_out *o, const struct apr_profile *p, const struct apr_profile_view *v);
/* Writes an array of steps that run below threshold_pct of the roofline although they take 5 % of a phase or
 * more (their best pass counts); all with kernels that are not this CPU's best. Returns how many. */
size_t apr_profile_naive(struct apr_out *o, const struct apr_profile *p, double threshold_pct);
/* SVG: phases, layers, steps; widths are time. */
APR_MUST_USE enum apr_code apr_profile_flame(const struct apr_profile *p, const char *path, bool force,
                                             struct apr_err *e);

#endif

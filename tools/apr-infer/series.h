/* What repeated measurements say: mean, spread and percentiles.
 *
 *     struct apr_summary s = apr_summary_of(samples, n);   // sorts the samples
 */
#ifndef APR_INFER_SERIES_H
#define APR_INFER_SERIES_H

#include <stddef.h>

#include "out.h"

struct apr_summary {
    size_t n;
    double mean, sd; /* of the sample: n - 1; 0 for n < 2 */
    double cv_pct;   /* 100 sd / mean; 0 where the mean is 0 */
    double min, p50, p95, p99, max;
};

/* Sorts at. Zeros for n = 0. */
struct apr_summary apr_summary_of(double *at, size_t n);
/* Between neighbours of a sorted series by linear interpolation: rank pct / 100 * (n - 1). n >= 1. */
double apr_percentile(const double *sorted, size_t n, double pct);
/* An object of all of it; "median" is p50. */
void apr_summary_out(struct apr_out *o, const char *key, const struct apr_summary *s);

#endif

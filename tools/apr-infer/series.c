/* Summaries of measurements. */
#include "series.h"

#include <math.h>
#include <stdlib.h>

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double apr_percentile(const double *sorted, size_t n, double pct)
{
    double rank = pct / 100 * (double)(n - 1);
    size_t i = (size_t)rank;
    if (i + 1 >= n) return sorted[n - 1];
    return sorted[i] + (rank - (double)i) * (sorted[i + 1] - sorted[i]);
}

struct apr_summary apr_summary_of(double *at, size_t n)
{
    struct apr_summary s = {.n = n};
    double sum_sq = 0;
    if (!n) return s;
    qsort(at, n, sizeof *at, compare);
    for (size_t i = 0; i < n; i++) s.mean += at[i] / (double)n;
    for (size_t i = 0; i < n; i++) sum_sq += (at[i] - s.mean) * (at[i] - s.mean);
    s.sd = n > 1 ? sqrt(sum_sq / (double)(n - 1)) : 0;
    s.cv_pct = s.mean > 0 ? 100 * s.sd / s.mean : 0;
    s.min = at[0];
    s.max = at[n - 1];
    s.p50 = apr_percentile(at, n, 50);
    s.p95 = apr_percentile(at, n, 95);
    s.p99 = apr_percentile(at, n, 99);
    return s;
}

void apr_summary_out(struct apr_out *o, const char *key, const struct apr_summary *s)
{
    apr_out_obj(o, key);
    apr_out_f64(o, "mean", s->mean);
    apr_out_f64(o, "sd", s->sd);
    apr_out_f64(o, "cv_pct", s->cv_pct);
    apr_out_f64(o, "min", s->min);
    apr_out_f64(o, "median", s->p50);
    apr_out_f64(o, "p95", s->p95);
    apr_out_f64(o, "p99", s->p99);
    apr_out_f64(o, "max", s->max);
    apr_out_end(o);
}

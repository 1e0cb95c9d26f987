/* Statistical fingerprints of tensors: moments, percentiles, checksums; from a model or from a report.
 *
 * Percentiles are exact: value number floor(p / 100 * (n - 1)) of the sorted finite values, found by counting
 * the upper and then the lower 16 bits of an order-preserving key; memory does not grow with the tensor. All
 * numbers are the same for any thread count.
 *
 *     struct apr_fingerprints f;
 *     enum apr_code code = apr_fingerprints_of_model(&f, "model.apr", NULL, kern, pool, e);
 *     ... f.at[i].mean ... apr_fingerprints_free(&f); also after a failure
 */
#ifndef APR_FINGERPRINT_H
#define APR_FINGERPRINT_H

#include "json.h"
#include "kern/kern.h"
#include "model.h"
#include "out.h"
#include "pool.h"

#define APR_N_PERCENTILES 5

struct apr_fingerprint {
    const char *name, *dtype;
    uint32_t n_dims;
    uint64_t dims[APR_MAX_DIMS];
    bool is_known; /* values could be computed; else only data_xxh3 is set */
    uint64_t n_elems, n_nan, n_inf;
    double mean, std; /* over finite values; of the population. NaN without any */
    double min, max;
    double percentile[APR_N_PERCENTILES]; /* 5, 25, 50, 75, 95 */
    double zero_fraction;                 /* |x| < 1e-10 */
    uint32_t checksum;                    /* sum of the values' F32 bit patterns, modulo 2^32 */
    uint64_t data_xxh3;                   /* of the stored bytes; 0 when a report did not have it */
};

struct apr_fingerprints {
    struct apr_arena arena;
    struct apr_model *model; /* owned; NULL for a report */
    json_t *report;          /* owned; NULL for a model */
    struct apr_fingerprint *at;
    size_t n; /* by name, in the order of bytes */
};

extern const unsigned apr_percentiles[APR_N_PERCENTILES];

/* One mapped tensor. */
APR_MUST_USE enum apr_code apr_fingerprint_tensor(const struct apr_model *m, const struct apr_tensor *t,
                                                  const struct apr_kern *kern, struct apr_pool *pool,
                                                  struct apr_fingerprint *f, struct apr_err *e);
/* Every tensor whose name contains filter (NULL: all). A model that the contract would refuse is read too. */
APR_MUST_USE enum apr_code apr_fingerprints_of_model(struct apr_fingerprints *f, const char *path,
                                                     const char *filter, const struct apr_kern *kern,
                                                     struct apr_pool *pool, struct apr_err *e);
/* A document that apr_fingerprint_put wrote, or the original's: {"fingerprints": [...]}. */
APR_MUST_USE enum apr_code apr_fingerprints_of_json(struct apr_fingerprints *f, const char *path,
                                                    struct apr_err *e);
void apr_fingerprints_free(struct apr_fingerprints *f);
/* NULL when absent. */
const struct apr_fingerprint *apr_fingerprints_find(const struct apr_fingerprints *f, const char *name);
/* One object of an array. brief: without percentiles and counts. */
void apr_fingerprint_put(struct apr_out *o, const struct apr_fingerprint *f, bool brief);
bool apr_fingerprint_same_shape(const struct apr_fingerprint *a, const struct apr_fingerprint *b);
/* |actual - expected| in units of std; where std is not above 1e-10, the difference times flat_factor. A NaN
 * on one side only is infinitely far. */
double apr_fingerprint_sigma(double expected, double actual, double std, double flat_factor);

#endif

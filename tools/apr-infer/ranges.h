/* Several values of one option: "512", "128,512", "64-256+64" (steps), "1-16*2" (factors), mixed by commas.
 *
 *     struct apr_ranges r = {0}; TRY(apr_ranges_parse("--threads", "1-16*2", 1, 1024, &r, e));
 */
#ifndef APR_INFER_RANGES_H
#define APR_INFER_RANGES_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define APR_MAX_RANGE 256u

struct apr_ranges {
    uint64_t at[APR_MAX_RANGE];
    size_t n;
};

/* Appends. "A-B" alone steps by 1. More than APR_MAX_RANGE values, or one outside min .. max: APR_EUSAGE. */
APR_MUST_USE enum apr_code apr_ranges_parse(const char *option, const char *s, uint64_t min, uint64_t max,
                                            struct apr_ranges *r, struct apr_err *e);

#endif

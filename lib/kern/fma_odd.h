/* One float fused multiply-add out of additions in double, for machines without the instruction.
 *
 * p = a b is exact, s = p + c rounded to nearest; the error of s is exact too (Knuth's two-sum). Where it is
 * not zero, s is replaced by the neighbour with an odd last bit between which the true sum lies: rounding
 * that to 24 bits, or to a subnormal, is rounding the true sum (Boldo and Melquiond, 2008).
 *
 *     float y = apr_fma_odd(a, b, c);
 */
#ifndef APR_KERN_FMA_ODD_H
#define APR_KERN_FMA_ODD_H

#include <stdint.h>
#include <string.h>

static inline float apr_fma_odd(float a, float b, float c)
{
    double p = (double)a * (double)b, d = (double)c, s = p + d;
    double back = s - p, error = (p - (s - back)) + (d - back);
    uint64_t u;
    memcpy(&u, &s, sizeof u);
    if (s - s == 0 && error != 0 && (u & 1) == 0) {
        u += (error > 0) == (s > 0) ? 1 : (uint64_t)-1; /* away from zero, or towards it */
        memcpy(&s, &u, sizeof s);
    }
    return (float)s;
}

#endif

/* The grids of the IQ types: an index in a block names a vector of 8 (or 4) small numbers.
 *
 * A vector is stored as packed digits, value 0 in the lowest bits; grids.c says what a digit means. Signs,
 * where a type has them, are bits of a byte: bit j set makes value j negative.
 *
 *     apr_iq2_vector(y, db, apr_grid_iq2_xs[i], apr_even_signs(s));
 */
#ifndef APR_QUANT_GRIDS_H
#define APR_QUANT_GRIDS_H

#include <stdint.h>

extern const uint16_t apr_grid_iq2_xxs[256], apr_grid_iq2_xs[512], apr_grid_iq2_s[1024];
extern const uint16_t apr_grid_iq3_xxs[256], apr_grid_iq3_s[512];
extern const uint16_t apr_grid_iq1[2048];

#define APR_IQ1_DELTA 0.125F /* added to or taken from the whole vector */

/* The values -127 .. 113 that the 4 bits of IQ4_NL and IQ4_XS name, ascending. */
extern const int8_t apr_iq4_values[16];

/* Seven signs in a file; the eighth makes their number even. */
static inline unsigned apr_even_signs(unsigned seven)
{
    return seven | (unsigned)__builtin_parity(seven) << 7;
}

static inline float apr_sign_of(unsigned signs, unsigned j)
{
    return signs >> j & 1 ? -1.0F : 1.0F;
}

/* y[0 .. 7] = d * value, digits 0, 1, 2 being 8, 25, 43. */
static inline void apr_iq2_vector(float *y, float d, unsigned code, unsigned signs)
{
    static const float values[4] = {8, 25, 43, 0};
    for (unsigned j = 0; j < 8; j++) y[j] = d * values[code >> 2 * j & 3] * apr_sign_of(signs, j);
}

/* y[0 .. 7] = d * (value + delta), digits 0, 1, 2 being -1, 0, 1. */
static inline void apr_iq1_vector(float *y, float d, unsigned code, float delta)
{
    for (unsigned j = 0; j < 8; j++) y[j] = d * ((float)((int)(code >> 2 * j & 3) - 1) + delta);
}

#endif

/* Blocks of 32 with a half for their scale (and one for their minimum): up to eight fitted at once.
 *
 * The type files turn the result into their layout.
 *
 *     struct apr_blocks32 s;
 *     for (; (n = apr_block32_next(n_elems)) > 0; ...) apr_block32_symmetric(&s, fit, &spec, n, x, weights);
 */
#ifndef APR_QUANT_BLOCK32_H
#define APR_QUANT_BLOCK32_H

#include "blocks.h"
#include "fit.h"

struct apr_blocks32 {
    uint16_t d[APR_FIT_LANES],
        m[APR_FIT_LANES];                  /* halves; d is infinite when a value is too large to be stored */
    uint8_t levels[APR_FIT_LANES][APR_QK]; /* for symmetric types with half added */
};

/* n_blocks <= 8; x: their values; weights: NULL or their importance. x = d * l + m, x = d * (l - half). */
void apr_block32_affine(struct apr_blocks32 *s, const struct apr_fit *fit, const struct apr_fit_spec *spec,
                        size_t n_blocks, const float *x, const float *weights);
void apr_block32_symmetric(struct apr_blocks32 *s, const struct apr_fit *fit, const struct apr_fit_spec *spec,
                           size_t n_blocks, const float *x, const float *weights);
/* How many blocks the next call takes. */
size_t apr_block32_next(size_t n_elems);

#endif

/* Super-blocks of 256: sub-blocks fitted, their scales quantized against one half, neighbours tried.
 *
 * The type files turn the result into their layout.
 *
 *     struct apr_superblock s;
 *     apr_superblock_affine(&s, fit, &spec, 32, APR_FIT_LARGER, x, weights);
 */
#ifndef APR_QUANT_SUPERBLOCK_H
#define APR_QUANT_SUPERBLOCK_H

#include "blocks.h"
#include "fit.h"

struct apr_superblock {
    uint16_t d, dmin; /* halves; d is infinite (and all else 0) when a value is too large to be stored */
    int32_t scales[16], mins[16];
    uint8_t levels[APR_QKK]; /* of value i; for symmetric types with half added */
};

/* n_elems: of a sub-block, 16 or 32. weights: NULL or 256 importance weights. */
void apr_superblock_affine(struct apr_superblock *s, const struct apr_fit *fit,
                           const struct apr_fit_spec *spec, uint32_t n_elems, enum apr_fit_weight kind,
                           const float *x, const float *weights);
void apr_superblock_symmetric(struct apr_superblock *s, const struct apr_fit *fit,
                              const struct apr_fit_spec *spec, uint32_t n_elems, enum apr_fit_weight kind,
                              const float *x, const float *weights);
/* The packed 6-bit scales and mins of Q4_K and Q5_K: the reverse of apr_q4_k_scale_min. */
void apr_q4_k_put_scales(const struct apr_superblock *s, uint8_t *packed);

#endif

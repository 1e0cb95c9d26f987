/* The numeric core of the quantizers: eight sub-blocks are fitted at once, one in each lane.
 *
 * Lane j of element i is value i of sub-block j, so that every sum runs over a sub-block in order and no
 * instruction set changes a result. fit_body.h is the one algorithm; fit_base.c and avx2_fit.c compile it.
 * Only finite input below APR_FIT_MAX is fitted; callers of a block with larger values store an infinite
 * scale, which the checks of every reader refuse.
 *
 *     const struct apr_fit *fit = apr_fit_pick();
 *     if (fit->load(&g, x, weights, 32, APR_FIT_LARGER)) fit->affine(&g, &spec, scale, min);
 */
#ifndef APR_QUANT_FIT_H
#define APR_QUANT_FIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { APR_FIT_LANES = 8, APR_FIT_ELEMS = 32 };

#define APR_FIT_MAX 1e9F /* 15 levels * 63 * 65504, the largest half, is 6e7 */

struct apr_group {
    _Alignas(32) float x[APR_FIT_ELEMS][APR_FIT_LANES];
    _Alignas(32) float w[APR_FIT_ELEMS][APR_FIT_LANES]; /* weights of the squared errors */
    uint32_t n_elems;                                   /* of a sub-block: 16 or 32 */
    bool is_plain;                                      /* all weights are 1; w is not set */
};

/* What an error weighs, for value x of a sub-block with root mean square r and importance q (1 without
 * imatrix). */
enum apr_fit_weight {
    APR_FIT_PLAIN,  /* q */
    APR_FIT_LARGER, /* r + |x|; with imatrix q * sqrt(2 r^2 + x^2) */
};

/* x = scale * l - min with l in 0 .. n_levels - 1, or (symmetric) x = scale * l with l in -half .. half - 1
 * or, where is_uneven, l one of apr_iq4_values (half is 127 then).
 */
struct apr_fit_spec {
    int n_levels;
    bool is_uneven;    /* symmetric only: the 16 levels of IQ4_NL and IQ4_XS */
    bool any_min;      /* min may be negative (a block with a half for its minimum) */
    float first, step; /* candidates: the range is stretched to n_levels - 1 + first + k * step levels */
    int n_candidates;  /* even */
    int n_more;   /* even: more candidates where importance weights may ask for a range far from the data's */
    int n_refits; /* then levels and scale are fitted to each other so often */
    int reach;    /* neighbours of a quantized scale that refine tries on either side: 1 or 2 */
    int max_scale; /* refine: scales and mins are 0 .. max_scale, or -max_scale - 1 .. max_scale */
};

struct apr_fit {
    const char *name;
    /* x: 8 sub-blocks of n_elems values, one after the other; weights: NULL or importance of each value.
     * False: some value is not below APR_FIT_MAX in magnitude, and the group cannot be fitted. */
    bool (*load)(struct apr_group *g, const float *x, const float *weights, uint32_t n_elems,
                 enum apr_fit_weight kind);
    /* scale >= 0, min >= 0 unless any_min. */
    void (*affine)(const struct apr_group *g, const struct apr_fit_spec *spec, float *scale, float *min);
    /* scale[j], min[j]: in and out, multiples of d and dmin: the neighbour of least error. */
    void (*affine_refine)(const struct apr_group *g, const struct apr_fit_spec *spec, float d, float dmin,
                          int32_t *scale, int32_t *min);
    /* levels[j * n_elems + i] of sub-block j. */
    void (*affine_levels)(const struct apr_group *g, const struct apr_fit_spec *spec, const float *scale,
                          const float *min, uint8_t *levels);
    /* The value of largest magnitude goes to -half: scale has the opposite sign. */
    void (*symmetric)(const struct apr_group *g, const struct apr_fit_spec *spec, float *scale);
    void (*symmetric_refine)(const struct apr_group *g, const struct apr_fit_spec *spec, float d,
                             int32_t *scale);
    /* Levels are stored with half added; of uneven ones the index. */
    void (*symmetric_levels)(const struct apr_group *g, const struct apr_fit_spec *spec, const float *scale,
                             uint8_t *levels);
};

extern const struct apr_fit apr_fit_base, apr_fit_avx2;

/* The best that this CPU runs; APR_KERN=scalar takes fit_base. The bytes are the same. */
const struct apr_fit *apr_fit_pick(void);

#endif

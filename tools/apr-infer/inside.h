/* What the steps of one layer leave behind at the last position of a prompt: the inputs of its matrices, what
 * they give, the rotated query, and the key and value as the cache holds them.
 *
 * Set up before the run, fed by a probe, completed from the cache afterwards. Steps that a layer does not
 * have (latent attention, a mixture of experts) are left out. Memory lives in the arena.
 *
 *     struct apr_inside in; TRY(apr_inside_init(&in, &s->fwd, i_layer, arena, e));
 *     ... apr_inside_see(&in, op, i_layer) from the probe ...; TRY(apr_inside_cached(&in, &s->cache, arena,
 * e));
 */
#ifndef APR_INFER_INSIDE_H
#define APR_INFER_INSIDE_H

#include "forward.h"

#define APR_INSIDE_MOST 12u

struct apr_inside_step {
    const char *name; /* "ffn_gated" */
    float *values;    /* [n] */
    size_t n;
};

struct apr_inside {
    const struct apr_forward *f;
    uint32_t i_layer;
    struct apr_inside_step steps[APR_INSIDE_MOST]; /* [n_steps] in the order of the computation */
    size_t n_steps;
};

APR_MUST_USE enum apr_code apr_inside_init(struct apr_inside *in, const struct apr_forward *f,
                                           uint32_t i_layer, struct apr_arena *arena, struct apr_err *e);
void apr_inside_see(struct apr_inside *in, enum apr_op op, uint32_t i_layer);
/* Key and value of the last position, head after head, widened to f32. */
APR_MUST_USE enum apr_code apr_inside_cached(struct apr_inside *in, const struct apr_cache *cache,
                                             struct apr_arena *arena, struct apr_err *e);

#endif

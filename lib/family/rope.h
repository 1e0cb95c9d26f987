/* Readers of rotary positions: rope_parameters (transformers 5), rope_scaling and rope_theta (before).
 *
 *     TRY(apr_rope_from_hf(config, NULL, &(struct apr_rope_defaults){.theta = 1e4}, c, &c->rope, file, e));
 */
#ifndef APR_ROPE_H
#define APR_ROPE_H

#include "family.h"

struct apr_rope_defaults {
    double theta;
    double partial;        /* partial_rotary_factor; 0 = 1 */
    uint32_t n_dims;       /* of a head that turn; 0 = partial_rotary_factor * head_dim */
    const char *theta_key; /* NULL: "rope_theta" */
    bool ignores_scaling;  /* rope_scaling does not hold for these layers */
};

/* kind: NULL, or the layers that the values are for where rope_parameters tells them apart:
 * "full_attention", "sliding_attention". n_ctx_train, head_dim of c must be set. */
APR_MUST_USE enum apr_code apr_rope_from_hf(const json_t *config, const char *kind,
                                            const struct apr_rope_defaults *d, const struct apr_config *c,
                                            struct apr_rope *r, const char *file, struct apr_err *e);
/* Bounds of what was read, from either world; no divisor is zero afterwards. */
APR_MUST_USE enum apr_code apr_rope_check(const struct apr_rope *r, const char *file, struct apr_err *e);
/* What the inverse frequency of pair i < n_dims / 2 is divided by: 1 without scaling. For yarn and dynamic,
 * which are no divisors by pair alone, 1. (llama3: Meta's reference code of Llama 3.1.) */
double apr_rope_divisor(const struct apr_rope *r, uint32_t i_pair);

#endif

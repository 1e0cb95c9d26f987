/* Reader of mixtures of experts from config.json. The keys have other names in every family.
 *
 *     static const struct apr_moe_keys keys = {.n_experts = "num_experts", ...};
 *     TRY(apr_moe_from_hf(&keys, config, c, file, e));
 */
#ifndef APR_MOE_H
#define APR_MOE_H

#include "family.h"

struct apr_moe_keys {
    const char *n_experts;      /* "num_experts" */
    const char *n_inter;        /* "moe_intermediate_size" */
    const char *n_inter_shared; /* width of the shared expert; NULL: none, or by number */
    const char *n_shared;       /* number of shared experts, each n_inter wide; NULL: none, or by width */
    const char *norm_topk;      /* NULL: always normalised */
    const char *first_dense;    /* so many layers at the beginning are dense; NULL: none */
    const char *step;           /* every so many layers one has experts */
    bool step_from_one;         /* (layer + 1) % step == 0; otherwise layer % step == 0 */
    const char *dense_list;     /* layers that are dense all the same */
    bool shared_gate;
};

/* n_layers and n_inter of c must be set. A config without experts is all dense. */
APR_MUST_USE enum apr_code apr_moe_from_hf(const struct apr_moe_keys *k, const json_t *config,
                                           struct apr_config *c, const char *file, struct apr_err *e);

#endif

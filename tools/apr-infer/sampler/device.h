/* What of the sampler a device can do alone: chains of few candidates, and draws from all tokens at one
 * temperature.
 *
 * A device goes on for some tokens without the host when each is the largest logit, or when the chain begins
 * with top_k (at most APR_GPU_TOP_K; a temperature may stand before it) and goes on with steps over what that
 * leaves. It gets the numbers that the generator will give, so it chooses what apr_sampler_next would from
 * the same logits. Or there is a temperature and nothing else. Bias, grammar,
 * penalties, dry, mirostat, and other chains that look at all logits stay here.
 *
 *     switch (apr_sampler_device(&s, &chain)) ... apr_sampler_bits(&s, bits, n); the device chooses n tokens
 *     for each that is taken: apr_sampler_was_chosen(&s); apr_sampler_accept(&s, id, e)
 */
#ifndef APR_INFER_SAMPLER_DEVICE_H
#define APR_INFER_SAMPLER_DEVICE_H

#include "gpu/gpu.h"
#include "sampler.h"

enum apr_sampler_place {
    APR_CHOSEN_HERE,
    APR_CHOSEN_GREEDILY, /* the first index of the largest logit */
    APR_CHOSEN_BY_CHAIN, /* of *chain */
};
enum apr_sampler_place apr_sampler_device(const struct apr_sampler *s, struct apr_gpu_chain *chain);
/* Of the next n tokens; the sampler stays where it is. */
void apr_sampler_bits(const struct apr_sampler *s, uint64_t *bits, size_t n);
/* One of those was taken. */
void apr_sampler_was_chosen(struct apr_sampler *s);

#endif

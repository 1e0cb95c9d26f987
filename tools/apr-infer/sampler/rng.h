/* The sampler's random numbers: the same on every machine, one step of the generator a token.
 *
 * xoshiro256** (Blackman, Vigna: Scrambled Linear Pseudorandom Number Generators, 2021), its state filled
 * from the seed by splitmix64. A token that needs more than one uniform gets the others from the same 64 bits
 * by splitmix64, so that what one token does never moves the numbers of the next.
 *
 *     struct apr_rng r; apr_rng_seed(&r, 42); apr_rng_step(&r); u = apr_rng_uniform(&r, APR_RNG_DRAW);
 */
#ifndef APR_INFER_SAMPLER_RNG_H
#define APR_INFER_SAMPLER_RNG_H

#include <stdint.h>

enum apr_rng_use {
    APR_RNG_DRAW = 0, /* the token */
    APR_RNG_XTC,      /* whether XTC acts */
    APR_RNG_REDRAW,   /* the token again, after the first one broke the grammar */
    APR_RNG_ACCEPT,   /* whether a proposed token stays */
    APR_RNG_BRANCH,   /* whether the first draw would have broken the grammar */
};

struct apr_rng {
    uint64_t s[4];
    uint64_t bits; /* of this token */
};

void apr_rng_seed(struct apr_rng *r, uint64_t seed);
void apr_rng_step(struct apr_rng *r);
/* In [0, 1), 53 bits. */
double apr_rng_uniform(const struct apr_rng *r, enum apr_rng_use use);

#endif

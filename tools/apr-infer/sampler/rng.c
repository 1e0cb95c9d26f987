/* xoshiro256** and splitmix64. */
#include "rng.h"

#define GOLDEN 0x9e3779b97f4a7c15u /* 2^64 / phi: splitmix64's increment */

static uint64_t rotl(uint64_t x, unsigned k)
{
    return x << k | x >> (64 - k);
}

static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

void apr_rng_seed(struct apr_rng *r, uint64_t seed)
{
    for (int i = 0; i < 4; i++) r->s[i] = mix(seed += GOLDEN);
    r->bits = 0;
}

void apr_rng_step(struct apr_rng *r)
{
    uint64_t *s = r->s, t = s[1] << 17;
    r->bits = rotl(s[1] * 5, 7) * 9;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
}

double apr_rng_uniform(const struct apr_rng *r, enum apr_rng_use use)
{
    uint64_t bits = use == APR_RNG_DRAW ? r->bits : mix(r->bits + (uint64_t)use * GOLDEN);
    return (double)(bits >> 11) * 0x1p-53;
}

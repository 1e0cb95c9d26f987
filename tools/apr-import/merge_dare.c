/* DARE: drop and rescale, alone (dare-linear) or before the election of signs (dare-ties).
 *
 * Yu et al. 2023, "Language models are super Mario: absorbing abilities from homologous models as a free
 * lunch" (arXiv 2311.03099), section 3.2: each value of a delta x_k - base is dropped with probability p; the
 * others are divided by 1 - p, so that the expectation stays.
 *
 * Random numbers come from a counter, not from a state: number i of a tensor is the finalizer of SplitMix64
 * (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators") at key + (i + 1) * gamma, where
 * the key is made of the seed, the tensor's name and the number of the input. So a value's fate does not
 * depend on threads or pieces.
 */
#include <string.h>

#include "merge.h"

#define GAMMA 0x9e3779b97f4a7c15u /* 2^64 divided by the golden ratio, odd */

static uint64_t scramble(uint64_t z)
{
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

enum apr_code merge_dare_prepare(struct merge *g, struct apr_err *e)
{
    const char *name = g->now.in[0]->name;
    (void)e; /* nothing is read */
    for (size_t k = 0; k < g->n_inputs; k++)
        g->now.key[k] =
            scramble(scramble(g->params.seed + GAMMA) + apr_xxh3_64(name, strlen(name)) + k * GAMMA);
    return APR_OK;
}

double merge_drop(const struct merge *g, size_t k, uint64_t i, double delta)
{
    const double p = g->params.drop_rate;
    double u = (double)(scramble(g->now.key[k] + (i + 1) * GAMMA) >> 11) * 0x1p-53; /* in [0, 1) */
    return u < p ? 0 : delta / (1 - p);
}

void merge_dare_mix(struct merge_chunk *c)
{
    const struct merge *g = c->g;
    for (size_t i = 0; i < c->n; i++) {
        double sum = 0, base = (double)c->base[i];
        for (size_t k = 0; k < g->n_inputs; k++)
            sum += g->params.weights[k] * merge_drop(g, k, c->first + i, (double)c->x[k][i] - base);
        c->out[i] = (float)(base + g->params.lambda * sum);
    }
}

void merge_dare_ties_mix(struct merge_chunk *c)
{
    const struct merge *g = c->g;
    double d[MERGE_MAX_INPUTS];
    for (size_t i = 0; i < c->n; i++) {
        double base = (double)c->base[i];
        for (size_t k = 0; k < g->n_inputs; k++)
            d[k] = merge_drop(g, k, c->first + i, (double)c->x[k][i] - base);
        c->out[i] = (float)(base + g->params.lambda * merge_elect(d, g->params.weights, g->n_inputs));
    }
}

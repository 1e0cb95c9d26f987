/* Average, weighted and linear: out = sum over k of w_k x_k, in double, models in the order given.
 *
 * Wortsman et al. 2022, "Model soups: averaging weights of multiple fine-tuned models improves accuracy
 * without increasing inference time" (arXiv 2203.05482), equation of the uniform soup; the weights make it a
 * general sum.
 */
#include "merge.h"

void merge_linear_mix(struct merge_chunk *c)
{
    for (size_t i = 0; i < c->n; i++) c->sum[i] = 0;
    for (size_t k = 0; k < c->g->n_inputs; k++) {
        const double w = c->g->params.weights[k];
        for (size_t i = 0; i < c->n; i++) c->sum[i] += w * (double)c->x[k][i];
    }
    for (size_t i = 0; i < c->n; i++) c->out[i] = (float)c->sum[i];
}

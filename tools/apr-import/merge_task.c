/* Task arithmetic: out = base + lambda * sum over k of w_k (x_k - base).
 *
 * Ilharco et al. 2022, "Editing models with task arithmetic" (arXiv 2212.04089), section 2: task vectors are
 * differences to the pre-trained model; they are added, or, with a negative weight, forgotten.
 */
#include "merge.h"

void merge_task_mix(struct merge_chunk *c)
{
    const double lambda = c->g->params.lambda;
    for (size_t i = 0; i < c->n; i++) c->sum[i] = 0;
    for (size_t k = 0; k < c->g->n_inputs; k++) {
        const double w = c->g->params.weights[k];
        for (size_t i = 0; i < c->n; i++) c->sum[i] += w * ((double)c->x[k][i] - (double)c->base[i]);
    }
    for (size_t i = 0; i < c->n; i++) c->out[i] = (float)((double)c->base[i] + lambda * c->sum[i]);
}

/* Hazards of attention that does not see everything: windows, soft caps. References are computed in double.
 */
#include <math.h>
#include <stdlib.h>

#include "rig.h"

#define N_TOKS 70u /* more than a batch's kernels take */

static const struct kind {
    uint32_t window;
    double attn_softcap, logit_softcap;
} kinds[] = {{16, 0, 0}, {31, 0, 0}, {0, 2, 0}, {20, 2, 5}, {40, 0, 3}, {1, 0, 0}};

/* All rows after steps of n_step tokens: how far from the reference, at most. */
static double far_by(struct rig *r, const struct toy *t, struct apr_gpu_model *m, const int32_t *ids,
                     uint32_t n_step, const double *reference)
{
    float *x = rig_floats((size_t)N_TOKS * t->n_vocab);
    struct apr_gpu_seq *q = rig_seq(r, m, 80);
    double worst = 0;
    for (uint32_t i = 0; i < N_TOKS; i += n_step) {
        uint32_t n = N_TOKS - i < n_step ? N_TOKS - i : n_step;
        rig_must(r, r->g->forward(m, q, ids + i, n, n, x, &r->e), "step");
        for (uint32_t k = 0; k < n; k++)
            worst = fmax(worst, rig_far(x + (size_t)k * t->n_vocab, reference + (size_t)(i + k) * t->n_vocab,
                                        t->n_vocab));
    }
    r->g->seq_close(q);
    free(x);
    return worst;
}

/* 7: every position around the window's end is in or out as it should be, and caps come before the maximum:
 * one by one, a batch's kernels, a prompt's, reference mode. Planted: the window is one position longer, or
 * no cap. */
bool hazard_windows(struct rig *r, bool bad)
{
    static const uint32_t steps[] = {1, 35, 70};
    double worst = 0, worst_exact = 0, least_exact = INFINITY;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        struct toy t = {.n_layers = 2,
                        .n_hidden = 256,
                        .n_heads = 6,
                        .n_heads_kv = 2,
                        .head_dim = 64,
                        .n_inter = 256,
                        .n_vocab = 200,
                        .type = APR_BF16,
                        .window = kinds[k].window,
                        .attn_softcap = kinds[k].attn_softcap,
                        .logit_softcap = kinds[k].logit_softcap};
        toy_draw(&t);
        for (uint32_t i = 0; i < 128; i++) t.layers[0].q_bias[i] = t.layers[0].k_bias[i] = i % 2 ? 1 : -1;
        toy_seal(&t);
        int32_t *ids = rig_ids(N_TOKS, t.n_vocab);
        double *y = rig_doubles((size_t)N_TOKS * t.n_vocab), far[2] = {0};
        toy_reference(&t, ids, N_TOKS, N_TOKS, &(struct toy_quirks){.window_more = bad, .no_softcap = bad},
                      y);
        for (int exact = 0; exact < 2; exact++) {
            struct apr_gpu_model *m = rig_model(r, &t, exact, 96);
            for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
                far[exact] = fmax(far[exact], far_by(r, &t, m, ids, steps[i], y));
            r->g->model_close(m);
        }
        worst = fmax(worst, far[0]), worst_exact = fmax(worst_exact, far[1]);
        least_exact = fmin(least_exact, far[1]);
        toy_free(&t);
        free(ids), free(y);
    }
    rig_note(r,
             "%zu kinds of windows and caps: %.1e of the reference at worst (bound 1e-2), %.1e in exact mode "
             "(1e-4)",
             sizeof kinds / sizeof *kinds, worst, worst_exact);
    if (bad) return least_exact <= 1e-4; /* of every kind the fault is to be seen */
    return worst <= 1e-2 && worst_exact <= 1e-4;
}

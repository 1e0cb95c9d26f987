/* Every type that the GPU computes with, in every way: one token, some, many, and the reference mode, against
 * the same model in double. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rig.h"

#define N_TOKS 70 /* more than a batch's kernels take */

static struct toy two_layers(uint32_t type)
{
    struct toy t = {.n_layers = 2,
                    .n_hidden = 512,
                    .n_heads = 8,
                    .n_heads_kv = 2,
                    .head_dim = 64,
                    .n_inter = 768,
                    .n_vocab = 300,
                    .type = type};
    toy_draw(&t);
    toy_seal(&t);
    return t;
}

static bool is_known(struct rig *r, const struct apr_quant *q)
{
    float one[256];
    uint8_t block[2048] = {0};
    const struct apr_gpu_mat probe = {
        block, q->head_bytes + q->block_bytes * (256 / q->block_elems), q->type, 1, 256, NULL, 0};
    return q->to_f32 && r->g->unpack(r->dev, &probe, one, &r->e) == APR_GPU_OK;
}

/* Distance from the reference after N_TOKS tokens, n_step at a time. */
static double far_in(struct rig *r, const struct toy *t, bool exact, uint32_t n_step, const int32_t *ids,
                     const double *reference)
{
    float *x = rig_floats(t->n_vocab);
    struct apr_gpu_model *m = rig_model(r, t, exact, 128);
    struct apr_gpu_seq *q = rig_seq(r, m, 128);
    rig_feed(r, m, q, ids, N_TOKS, n_step, x);
    double far = rig_far(x, reference, t->n_vocab);
    r->g->seq_close(q);
    r->g->model_close(m);
    free(x);
    return far;
}

/* Planted: one bit of a block in the middle of each row of the first layer's down is not what the reference
 * computes with; of F32 it is the first of the fraction, the lower ones would be lost in rounding. */
static void damage(struct toy *t)
{
    const struct apr_gpu_mat *down = &t->gpu_layers[0].down;
    const uint64_t off = down->row_bytes / 2 + (down->type == APR_F32 ? 2 : 0);
    for (uint32_t row = 0; row < t->n_hidden; row++)
        ((uint8_t *)down->data)[row * down->row_bytes + off] ^= 0x40;
}

bool hazard_types(struct rig *r, bool bad)
{
    static const struct {
        bool exact;
        uint32_t n_step;
        double most;
    } ways[] = {{true, 64, 2e-5}, {false, 1, 4e-3}, {false, 7, 4e-3}, {false, N_TOKS, 4e-3}};
    uint32_t n_types = 0, n_wrong = 0;
    double worst[4] = {0};
    char names[100] = "";
    for (size_t i = 0; apr_quant_at(i); i++) {
        const struct apr_quant *q = apr_quant_at(i);
        if (!is_known(r, q)) continue;
        struct toy t = two_layers(q->type);
        int32_t *ids = rig_ids(N_TOKS, t.n_vocab);
        double *reference = rig_doubles(t.n_vocab);
        bool ok = true;
        toy_reference(&t, ids, N_TOKS, 1, &(struct toy_quirks){0}, reference);
        if (bad) damage(&t);
        for (size_t k = 0; k < (bad ? 1 : 4); k++) {
            double far = far_in(r, &t, ways[k].exact, ways[k].n_step, ids, reference);
            if (!(far <= ways[k].most)) ok = false;
            if (!(far <= worst[k])) worst[k] = far;
            if (getenv("HAZARD_VERBOSE")) printf("  %-8s way %zu: %.2e\n", q->name, k, far);
        }
        n_types++, n_wrong += !ok;
        if (!ok && !bad) snprintf(names + strlen(names), sizeof names - strlen(names), " %s", q->name);
        free(ids);
        free(reference);
        toy_free(&t);
    }
    rig_note(r, "%u types, %u differ%s: worst exact %.1e, one %.1e, few %.1e, many %.1e", n_types, n_wrong,
             names, worst[0], worst[1], worst[2], worst[3]);
    return bad ? n_wrong < n_types : n_wrong == 0 && n_types > 0;
}

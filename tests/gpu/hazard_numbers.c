/* Hazards of numbers: range, rounding and what is left out of sums. References are computed in double. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rig.h"

static const struct toy_quirks none;

/* Keys with a bias of 400 on four channels, as Qwen2's first layers have. */
static struct toy biased(float bias)
{
    struct toy t = {.n_layers = 1,
                    .n_hidden = 256,
                    .n_heads = 7,
                    .n_heads_kv = 1,
                    .head_dim = 64,
                    .n_inter = 512,
                    .n_vocab = 500,
                    .type = APR_BF16};
    static const int at[] = {3, 17, 33, 60};
    toy_draw(&t);
    for (int i = 0; i < 4; i++) t.layers[0].k_bias[at[i]] = i % 2 ? -bias : bias;
    toy_seal(&t);
    return t;
}

/* The last two of n tokens, by the kernels of prompts and by those of one token: how far from the reference,
 * at most. */
static double far_of(struct rig *r, const struct toy *t, uint32_t n, const struct toy_quirks *quirks)
{
    int32_t *ids = rig_ids(n, t->n_vocab);
    float *x = rig_floats(2 * t->n_vocab);
    double *y = rig_doubles(2 * t->n_vocab), far;
    struct apr_gpu_model *m = rig_model(r, t, false, n);
    struct apr_gpu_seq *q = rig_seq(r, m, n);
    rig_feed(r, m, q, ids, n - 1, n - 1, x);
    rig_feed(r, m, q, ids + n - 1, 1, 1, x + t->n_vocab);
    toy_reference(t, ids, n, 2, quirks, y);
    far = fmax(rig_far(x, y, t->n_vocab), rig_far(x + t->n_vocab, y + t->n_vocab, t->n_vocab));
    r->g->seq_close(q);
    r->g->model_close(m);
    free(ids), free(x), free(y);
    return far;
}

/* 1: products of large keys are summed in F32. Planted: the reference forgets the bias. */
bool hazard_k_bias(struct rig *r, bool bad)
{
    struct toy t = biased(400);
    double far = far_of(r, &t, 4096, &(struct toy_quirks){.no_k_bias = bad});
    toy_free(&t);
    rig_note(r, "4096 positions, K +-400: %.1e of the reference (bound 5e-2)", far);
    return far <= 5e-2;
}

/* 2: keys are cached as F16, whose rounding is a eighth of BF16's. Planted: BF16 is what is measured. */
bool hazard_k_type(struct rig *r, bool bad)
{
    struct toy t = biased(400);
    const uint32_t n = 1024;
    int32_t *ids = rig_ids(n, t.n_vocab);
    double *y = rig_doubles(t.n_vocab), *y_bf16 = rig_doubles(t.n_vocab), far, limit;
    float *x = rig_floats(t.n_vocab), *x_bf16 = rig_floats(t.n_vocab);
    struct apr_gpu_model *m = rig_model(r, &t, false, n);
    struct apr_gpu_seq *q = rig_seq(r, m, n);
    rig_feed(r, m, q, ids, n, n, x);
    toy_reference(&t, ids, n, 1, &none, y);
    toy_reference(&t, ids, n, 1, &(struct toy_quirks){.k_bf16 = true}, y_bf16);
    for (uint32_t i = 0; i < t.n_vocab; i++) x_bf16[i] = (float)y_bf16[i];
    limit = rig_far(x_bf16, y, t.n_vocab) / 2;
    far = rig_far(bad ? x_bf16 : x, y, t.n_vocab);
    r->g->seq_close(q);
    r->g->model_close(m);
    toy_free(&t);
    free(ids), free(y), free(y_bf16), free(x), free(x_bf16);
    rig_note(r, "%.1e of the reference, keys in BF16 %.1e (bound half of that)", far, 2 * limit);
    return far <= limit;
}

/* ---- 3 ----------------------------------------------------------------------------------------------------
 */

#define N_SPIKES 3
static const uint32_t spike_at[N_SPIKES] = {5, 100, 511};

/* The first column of the stream is large in every token, and three rows of gate and up look at it alone:
 * their product is about 1e5. */
static struct toy spiked(uint32_t type)
{
    struct toy t = {.n_layers = 2,
                    .n_hidden = 256,
                    .n_heads = 4,
                    .n_heads_kv = 2,
                    .head_dim = 64,
                    .n_inter = 768,
                    .n_vocab = 300,
                    .type = type,
                    .type_embed = APR_BF16};
    toy_draw(&t);
    for (uint32_t v = 0; v < t.n_vocab; v++) t.embed[v * t.n_hidden] = 16; /* about 11 when normed */
    struct toy_layer *l = &t.layers[0];
    for (int s = 0; s < N_SPIKES; s++) {
        uint32_t j = spike_at[s];
        memset(l->w[TOY_GATE] + j * t.n_hidden, 0, t.n_hidden * sizeof(float));
        memset(l->w[TOY_UP] + j * t.n_hidden, 0, t.n_hidden * sizeof(float));
        l->w[TOY_GATE][j * t.n_hidden] = 28, l->w[TOY_UP][j * t.n_hidden] = s == 1 ? -29.0f : 29.0f;
        for (uint32_t i = 0; i < t.n_hidden; i++) l->w[TOY_DOWN][i * t.n_inter + j] *= 1e-2f;
    }
    toy_seal(&t);
    return t;
}

/* A prompt of n tokens at once; then n sequences of one token each. */
static double far_of_edge(struct rig *r, const struct toy *t, struct apr_gpu_model *m,
                          struct apr_gpu_seq *const *q, uint32_t n, const struct toy_quirks *quirks)
{
    int32_t *ids = rig_ids(n, t->n_vocab);
    struct apr_gpu_part parts[128];
    float *x = rig_floats((size_t)n * t->n_vocab);
    double *y = rig_doubles((size_t)n * t->n_vocab), far;
    r->g->seq_truncate(q[0], 0);
    rig_must(r, r->g->forward(m, q[0], ids, n, n, x, &r->e), "prompt");
    toy_reference(t, ids, n, n, quirks, y);
    far = rig_far(x, y, (size_t)n * t->n_vocab);
    for (uint32_t i = 0; i < n; i++) {
        r->g->seq_truncate(q[i], 0);
        parts[i] = (struct apr_gpu_part){q[i], &ids[i], 1};
        toy_reference(t, &ids[i], 1, 1, quirks, y + (size_t)i * t->n_vocab);
    }
    rig_must(r, r->g->step(m, parts, n, &r->e), "batch");
    rig_must(r, r->g->logits(m, 0, n, x, &r->e), "batch");
    far = fmax(far, rig_far(x, y, (size_t)n * t->n_vocab));
    free(ids), free(x), free(y);
    return far;
}

/* 3: a middle of 1e5 at every number of tokens where other kernels take over. Planted: the spikes' last one
 * (and the columns behind it) is missing in the reference. */
bool hazard_spikes(struct rig *r, bool bad)
{
    static const uint32_t edges[] = {1, 3, 4, 8, 9, 16, 17, 32, 33, 63, 64, 65, 127, 128};
    static const uint32_t types[] = {APR_BF16, APR_Q4_K, APR_Q8_0};
    const struct toy_quirks quirks = {.n_dropped = bad ? 258 : 0};
    double worst = 0;
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        struct toy t = spiked(types[k]);
        struct apr_gpu_model *m = rig_model(r, &t, false, 128 * 128);
        struct apr_gpu_seq *q[128];
        for (int i = 0; i < 128; i++) q[i] = rig_seq(r, m, 128);
        for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) {
            double far = far_of_edge(r, &t, m, q, edges[i], &quirks);
            if (far <= worst) continue;
            worst = far;
            rig_note(r,
                     "1 to 128 tokens, three types: %.1e of the reference at worst, type %u, %u tokens "
                     "(bound 2e-2)",
                     worst, types[k], edges[i]);
        }
        for (int i = 0; i < 128; i++) r->g->seq_close(q[i]);
        r->g->model_close(m);
        toy_free(&t);
    }
    return worst <= 2e-2;
}

/* ---- 4 ----------------------------------------------------------------------------------------------------
 */

static uint32_t pick(uint32_t n)
{
    return (uint32_t)(toy_random() % n);
}
static struct toy random_shape(void)
{
    static const uint32_t types[] = {APR_BF16, APR_Q8_0, APR_Q4_K, APR_F16, APR_Q6_K};
    static const uint32_t dims[] = {16, 32, 64, 80, 128};
    struct toy t = {.n_layers = 1, .type = types[pick(5)], .head_dim = dims[pick(5)]};
    uint32_t block = t.type == APR_Q4_K || t.type == APR_Q6_K ? 256 : 32;
    t.type_down = t.type == APR_Q4_K && pick(2) ? APR_Q6_K : t.type;
    t.n_hidden = block * (1 + pick(block == 256 ? 3 : 20));
    t.n_inter = block * (1 + pick(block == 256 ? 5 : 40));
    t.n_heads_kv = 1 + pick(3);
    t.n_heads = t.n_heads_kv * (1 + pick(8));
    while (t.n_heads * t.head_dim % block) t.n_heads += t.n_heads_kv;
    t.n_vocab = 17 + pick(500);
    return t;
}

/* 4: the sums of any cut of a matrix are whole. Planted: the last sixteenth of the columns of down is not
 * added. */
bool hazard_splits(struct rig *r, bool bad)
{
    const uint32_t n_shapes = bad ? 4 : 100;
    double worst = 0;
    for (uint32_t k = 0; k < n_shapes; k++) {
        struct toy t = random_shape();
        toy_draw(&t);
        toy_seal(&t);
        const struct toy_quirks quirks = {.n_dropped = bad ? t.n_inter / 16 : 0};
        uint32_t n = 1 + pick(90), step = pick(3) ? n : 1 + pick(n);
        int32_t *ids = rig_ids(n, t.n_vocab);
        float *x = rig_floats(t.n_vocab);
        double *y = rig_doubles(t.n_vocab), far;
        struct apr_gpu_model *m = rig_model(r, &t, false, 96);
        struct apr_gpu_seq *q = rig_seq(r, m, 96);
        rig_feed(r, m, q, ids, n, step, x);
        toy_reference(&t, ids, n, 1, &quirks, y);
        far = rig_far(x, y, t.n_vocab);
        if (far > worst) {
            worst = far;
            rig_note(
                r,
                "%u shapes: %.1e of the reference at worst (bound 2e-2): type %u, %u x %u x %u, %u heads "
                "of %u, %u tokens by %u",
                n_shapes, far, t.type, t.n_hidden, t.n_inter, t.n_vocab, t.n_heads, t.head_dim, n, step);
        }
        r->g->seq_close(q);
        r->g->model_close(m);
        toy_free(&t);
        free(ids), free(x), free(y);
    }
    return worst <= 2e-2;
}

/* ---- 5 ----------------------------------------------------------------------------------------------------
 */

/* 5: blocks of activations that are constant and large, or all zero. Planted: the large ones are not in the
 * reference. */
bool hazard_blocks(struct rig *r, bool bad)
{
    static const uint32_t types[] = {APR_Q4_K, APR_Q6_K, APR_Q8_0};
    double worst = 0;
    for (size_t k = 0; k < 3; k++) {
        struct toy t = {.n_layers = 1,
                        .n_hidden = 1024,
                        .n_heads = 4,
                        .n_heads_kv = 2,
                        .head_dim = 64,
                        .n_inter = 512,
                        .n_vocab = 300,
                        .type = types[k],
                        .type_embed = TOY_F32};
        toy_draw(&t);
        for (uint32_t i = 0; i < 256; i++) {
            for (uint32_t v = 0; v < t.n_vocab; v++) t.embed[v * t.n_hidden + i] = 30; /* layers add little */
            t.layers[0].ffn_norm[256 + i] = 0;                                         /* nothing */
            t.layers[0].attn_norm[512 + i] = 0;                                        /* nothing */
            t.final_norm[i] = 1e4f;                 /* about constant: 1e4, its sum 2.56e6 */
            t.final_norm[256 + i] = 0;              /* nothing */
            t.final_norm[768 + i] = i < 16 ? 0 : 1; /* one small block of nothing */
        }
        toy_seal(&t);
        int32_t ids[20];
        float *x = rig_floats(t.n_vocab);
        double *y = rig_doubles(t.n_vocab);
        struct apr_gpu_model *m = rig_model(r, &t, false, 64);
        for (int i = 0; i < 20; i++) ids[i] = i;
        for (uint32_t step = 1; step <= 20; step += 19) {
            struct apr_gpu_seq *q = rig_seq(r, m, 64);
            rig_feed(r, m, q, ids, 20, step, x);
            if (bad)
                for (uint32_t i = 0; i < 256; i++) t.final_norm[i] = 1;
            toy_reference(&t, ids, 20, 1, &none, y);
            worst = fmax(worst, rig_far(x, y, t.n_vocab));
            r->g->seq_close(q);
        }
        r->g->model_close(m);
        toy_free(&t);
        free(x), free(y);
    }
    rig_note(r, "constant 1e4 and zero blocks: %.1e of the reference (bound 2e-2)", worst);
    return worst <= 2e-2;
}

/* 6: as many positions as there are splits of attention or fewer, heads of which the last group is not full.
 * Planted: the token does not see itself. */
bool hazard_contexts(struct rig *r, bool bad)
{
    const uint32_t n = 70;
    struct toy t = {.n_layers = 2,
                    .n_hidden = 448,
                    .n_heads = 14,
                    .n_heads_kv = 2,
                    .head_dim = 32,
                    .n_inter = 256,
                    .n_vocab = 200,
                    .type = APR_BF16};
    double worst = 0;
    toy_draw(&t);
    toy_seal(&t);
    int32_t *ids = rig_ids(n, t.n_vocab);
    float *x = rig_floats(t.n_vocab);
    double *y = rig_doubles((size_t)n * t.n_vocab);
    struct apr_gpu_model *m = rig_model(r, &t, false, 96);
    struct apr_gpu_seq *q = rig_seq(r, m, 96);
    toy_reference(&t, ids, n, n, &(struct toy_quirks){.last_unseen = bad}, y);
    for (uint32_t i = 0; i < n; i++) {
        rig_feed(r, m, q, ids + i, 1, 1, x);
        worst = fmax(worst, rig_far(x, y + (size_t)i * t.n_vocab, t.n_vocab));
    }
    r->g->seq_close(q);
    r->g->model_close(m);
    toy_free(&t);
    free(ids), free(x), free(y);
    rig_note(r, "1 to 70 positions, one by one: %.1e of the reference at worst (bound 1e-2)", worst);
    return worst <= 1e-2;
}

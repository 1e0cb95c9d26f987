/* Small decoders with drawn weights for tests of the GPU plugin, and the same model computed in double.
 *
 * Fill in the shape, draw, plant whatever the test is about into the floats, then seal: the matrices become
 * blocks of their type, and the floats what these blocks stand for. Memory lives until toy_free.
 *
 *     struct toy t = {.n_layers = 1, .n_hidden = 256, ..., .type = APR_BF16}; toy_draw(&t, 1);
 *     t.layers[0].k_bias[3] = 400; toy_seal(&t); g->model_open(dev, &t.desc, ...);
 *     toy_reference(&t, ids, n, n_rows, &(struct toy_quirks){0}, logits); toy_free(&t);
 */
#ifndef APR_TEST_GPU_TOY_H
#define APR_TEST_GPU_TOY_H

#include "gpu/gpu.h"
#include "quant/quant.h"

enum { TOY_Q, TOY_K, TOY_V, TOY_O, TOY_GATE, TOY_UP, TOY_DOWN, TOY_N_MATS };

#define TOY_F32 255u /* APR_F32 is 0 */

struct toy_layer {
    float *w[TOY_N_MATS]; /* rows of the matrices */
    float *q_bias, *k_bias, *v_bias, *attn_norm, *ffn_norm;
};

struct toy {
    uint32_t n_layers, n_hidden, n_heads, n_heads_kv, head_dim, n_inter, n_vocab;
    uint32_t type, type_down, type_embed, type_head; /* 0 for the latter three: type; TOY_F32 for F32 */
    uint32_t window;                                 /* positions that all layers see; 0: all */
    double attn_softcap, logit_softcap;              /* 0: none */
    struct toy_layer *layers;
    float *embed, *head, *final_norm;
    double *inv_freq;
    struct apr_gpu_layer *gpu_layers;
    struct apr_gpu_desc desc; /* after toy_seal */
    void *owned[512];
    uint32_t n_owned;
};

/* Ways to be wrong: what a test must notice. */
struct toy_quirks {
    bool k_bf16;        /* keys are cached as BF16 */
    bool no_k_bias;     /* the bias of keys is forgotten */
    bool last_unseen;   /* attention does not see the token itself, from the second on */
    bool window_more;   /* a position more than the window is seen */
    bool no_softcap;    /* of attention */
    uint32_t n_dropped; /* columns of down that are left out of the sums */
};

uint64_t toy_random(void); /* one stream for the program */
void toy_seed(uint64_t seed);
float toy_normal(void);
void toy_draw(struct toy *t);
void toy_seal(struct toy *t);
void toy_free(struct toy *t);
/* logits: [n_rows, n_vocab] of the last n_rows of n tokens. */
void toy_reference(const struct toy *t, const int32_t *ids, uint32_t n, uint32_t n_rows,
                   const struct toy_quirks *quirks, double *logits);

#endif

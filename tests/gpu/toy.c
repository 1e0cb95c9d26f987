/* Drawing and sealing. See toy.h. */
#include "toy.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state = 0x9e3779b97f4a7c15u;

uint64_t toy_random(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}
void toy_seed(uint64_t seed)
{
    state = seed * 0x9e3779b97f4a7c15u + 1;
    for (int i = 0; i < 8; i++) (void)toy_random();
}

/* Four uniform numbers, of variance 1/12 each, make one that is normal enough. */
float toy_normal(void)
{
    uint64_t v = toy_random(), sum = 0;
    for (int i = 0; i < 4; i++, v >>= 16) sum += v & 0xffff;
    return (float)(((double)sum / 65536 - 2) * 1.7320508);
}

static void *own(struct toy *t, size_t n_bytes)
{
    const bool full = t->n_owned == sizeof t->owned / sizeof *t->owned;
    void *p = full ? NULL : calloc(1, n_bytes + 16);
    if (!p) {
        fprintf(stderr, "hazards: no memory for a test's model\n");
        exit(6);
    }
    return t->owned[t->n_owned++] = p;
}
void toy_free(struct toy *t)
{
    for (uint32_t i = 0; i < t->n_owned; i++) free(t->owned[i]);
    *t = (struct toy){0};
}

static float *drawn(struct toy *t, size_t n, double mean, double sd)
{
    float *p = own(t, n * sizeof *p);
    for (size_t i = 0; i < n; i++) p[i] = (float)(mean + sd * (double)toy_normal());
    return p;
}

static void shape_of(const struct toy *t, int i_mat, uint32_t *n_rows, uint32_t *n_cols)
{
    uint32_t n_q = t->n_heads * t->head_dim, n_kv = t->n_heads_kv * t->head_dim;
    const uint32_t rows[TOY_N_MATS] = {n_q, n_kv, n_kv, t->n_hidden, t->n_inter, t->n_inter, t->n_hidden};
    const uint32_t cols[TOY_N_MATS] = {t->n_hidden, t->n_hidden, t->n_hidden, n_q,
                                       t->n_hidden, t->n_hidden, t->n_inter};
    *n_rows = rows[i_mat], *n_cols = cols[i_mat];
}

void toy_draw(struct toy *t)
{
    uint32_t n_q = t->n_heads * t->head_dim, n_kv = t->n_heads_kv * t->head_dim;
    t->layers = own(t, t->n_layers * sizeof *t->layers);
    t->gpu_layers = own(t, t->n_layers * sizeof *t->gpu_layers);
    for (uint32_t i = 0; i < t->n_layers; i++) {
        struct toy_layer *l = &t->layers[i];
        for (int k = 0; k < TOY_N_MATS; k++) {
            uint32_t n_rows, n_cols;
            shape_of(t, k, &n_rows, &n_cols);
            l->w[k] = drawn(t, (size_t)n_rows * n_cols, 0, 1 / sqrt(n_cols));
        }
        l->q_bias = drawn(t, n_q, 0, 0.1), l->k_bias = drawn(t, n_kv, 0, 0.1);
        l->v_bias = drawn(t, n_kv, 0, 0.1);
        l->attn_norm = drawn(t, t->n_hidden, 1, 0.1), l->ffn_norm = drawn(t, t->n_hidden, 1, 0.1);
    }
    t->embed = drawn(t, (size_t)t->n_vocab * t->n_hidden, 0, 1);
    t->head = drawn(t, (size_t)t->n_vocab * t->n_hidden, 0, 1 / sqrt(t->n_hidden));
    t->final_norm = drawn(t, t->n_hidden, 1, 0.1);
    t->inv_freq = own(t, t->head_dim / 2 * sizeof *t->inv_freq);
    for (uint32_t i = 0; i < t->head_dim / 2; i++)
        t->inv_freq[i] = pow(10000, -2.0 * (double)i / t->head_dim);
}

/* Where read-only types keep a half that scales a block; IQ1_M spreads it over four nibbles, MXFP4 has a
 * power of two. */
static void put_scale(uint32_t type, uint8_t *block, float d)
{
    static const struct {
        uint32_t type, off;
    } halves[] = {{APR_IQ2_XXS, 0}, {APR_IQ2_XS, 0}, {APR_IQ2_S, 0},  {APR_IQ3_XXS, 0},
                  {APR_IQ3_S, 0},   {APR_IQ1_S, 0},  {APR_TQ1_0, 52}, {APR_TQ2_0, 64}};
    const uint16_t h = apr_f32_to_f16(d);
    for (size_t i = 0; i < sizeof halves / sizeof *halves; i++)
        if (halves[i].type == type) memcpy(block + halves[i].off, &h, sizeof h);
    for (int i = 0; i < 4 && type == APR_IQ1_M; i++)
        block[49 + 2 * i] = (uint8_t)((block[49 + 2 * i] & 15) | (h >> 4 * i & 15) << 4);
    if (type == APR_MXFP4) block[0] = (uint8_t)(127 + ilogbf(d));
}
/* A row of random bits with scales that give the values the size of w's. */
static void draw_blocks(const struct apr_quant *q, float *w, uint8_t *row, uint32_t n_cols)
{
    const size_t n_bytes = n_cols / q->block_elems * q->block_bytes;
    double sum = 0, want = 0;
    for (size_t i = 0; i < n_bytes; i++) row[i] = (uint8_t)(toy_random() >> 24);
    for (uint32_t i = 0; i < n_cols; i++) want += (double)w[i] * w[i];
    for (size_t i = 0; i < n_bytes; i += q->block_bytes) put_scale(q->type, row + i, 1);
    q->to_f32(row, w, n_cols);
    for (uint32_t i = 0; i < n_cols; i++) sum += (double)w[i] * w[i];
    for (size_t i = 0; i < n_bytes; i += q->block_bytes) put_scale(q->type, row + i, (float)sqrt(want / sum));
}

static struct apr_gpu_mat sealed(struct toy *t, uint32_t type, float *w, uint32_t n_rows, uint32_t n_cols,
                                 const float *bias)
{
    if (type == TOY_F32) type = APR_F32;
    const struct apr_quant *q = apr_quant_of(type);
    if (!q || n_cols % q->block_elems) {
        fprintf(stderr, "hazards: %u columns of type %u\n", n_cols, type);
        exit(2);
    }
    uint64_t row_bytes = q->head_bytes + (uint64_t)n_cols / q->block_elems * q->block_bytes;
    uint8_t *blocks = own(t, row_bytes * n_rows);
    for (uint32_t r = 0; r < n_rows; r++) {
        if (q->from_f32)
            q->from_f32(w + (size_t)r * n_cols, blocks + r * row_bytes, n_cols, NULL);
        else
            draw_blocks(q, w + (size_t)r * n_cols, blocks + r * row_bytes, n_cols);
        q->to_f32(blocks + r * row_bytes, w + (size_t)r * n_cols, n_cols);
    }
    return (struct apr_gpu_mat){blocks, row_bytes, type, n_rows, n_cols, bias, 0};
}

void toy_seal(struct toy *t)
{
    const uint32_t type_down = t->type_down ? t->type_down : t->type;
    for (uint32_t i = 0; i < t->n_layers; i++) {
        struct toy_layer *l = &t->layers[i];
        struct apr_gpu_mat m[TOY_N_MATS];
        const float *bias[TOY_N_MATS] = {l->q_bias, l->k_bias, l->v_bias};
        for (int k = 0; k < TOY_N_MATS; k++) {
            uint32_t n_rows, n_cols;
            shape_of(t, k, &n_rows, &n_cols);
            m[k] = sealed(t, k == TOY_DOWN || k == TOY_V ? type_down : t->type, l->w[k], n_rows, n_cols,
                          bias[k]);
        }
        t->gpu_layers[i] = (struct apr_gpu_layer){.q = m[TOY_Q],
                                                  .k = m[TOY_K],
                                                  .v = m[TOY_V],
                                                  .o = m[TOY_O],
                                                  .gate = m[TOY_GATE],
                                                  .up = m[TOY_UP],
                                                  .down = m[TOY_DOWN],
                                                  .attn_norm = {.w = l->attn_norm},
                                                  .ffn_norm = {.w = l->ffn_norm},
                                                  .window = t->window};
    }
    t->desc = (struct apr_gpu_desc){
        .struct_bytes = sizeof t->desc,
        .n_layers = t->n_layers,
        .n_hidden = t->n_hidden,
        .n_heads = t->n_heads,
        .n_heads_kv = t->n_heads_kv,
        .head_dim = t->head_dim,
        .n_inter = t->n_inter,
        .n_vocab = t->n_vocab,
        .norm_eps = 1e-6,
        .embed_scale = 1,
        .attn_scale = 1 / sqrtf((float)t->head_dim),
        .attn_softcap = (float)t->attn_softcap,
        .logit_softcap = (float)t->logit_softcap,
        .residual_scale = 1,
        .logit_scale = 1,
        .ropes = {{.inv_freq = t->inv_freq, .n_half = t->head_dim / 2, .scale = 1}},
        .embed = sealed(t, t->type_embed ? t->type_embed : t->type, t->embed, t->n_vocab, t->n_hidden, NULL),
        .head = sealed(t, t->type_head ? t->type_head : t->type, t->head, t->n_vocab, t->n_hidden, NULL),
        .final_norm = {.w = t->final_norm},
        .layers = t->gpu_layers};
}

/* Hazards of single values: ties, NaN, bits of blocks, and the distribution over many positions. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rig.h"

static struct toy two_layers(uint32_t type, uint32_t n_vocab)
{
    struct toy t = {.n_layers = 2,
                    .n_hidden = 512,
                    .n_heads = 8,
                    .n_heads_kv = 2,
                    .head_dim = 64,
                    .n_inter = 1024,
                    .n_vocab = n_vocab,
                    .type = type};
    toy_draw(&t);
    return t;
}

/* NaN in one row of the embedding: an error where that token is fed, and only there. */
bool hazard_nan(struct rig *r, bool bad)
{
    struct toy t = two_layers(APR_Q4_K, 1000);
    const int32_t ids[2] = {bad ? 8 : 7, 9};
    int32_t out[8];
    uint32_t n_out = 0, n_found = 0;
    float *x = rig_floats(t.n_vocab);
    t.type_embed = TOY_F32;
    t.embed[7 * t.n_hidden + 100] = NAN;
    toy_seal(&t);
    struct apr_gpu_model *m = rig_model(r, &t, false, 512);
    struct apr_gpu_seq *q[2] = {rig_seq(r, m, 128), rig_seq(r, m, 128)};
    n_found += r->g->greedy(m, q[0], ids[0], 1, NULL, 0, out, &n_out, &r->e) == APR_GPU_NOT_FINITE;
    r->g->seq_truncate(q[0], 0);
    n_found += r->g->greedy_rows(m, q, ids, 2, 1, out, &r->e) == APR_GPU_NOT_FINITE;
    for (uint32_t n = 5; n <= 100;
         n += 95) { /* a batch's kernels, a prompt's: the caller looks at the logits */
        int32_t *some = rig_ids(n, 6);
        some[n / 2] = ids[0];
        r->g->seq_truncate(q[0], 0);
        enum apr_gpu_status s = rig_try(r, m, q[0], some, n, n, x);
        n_found += s == APR_GPU_NOT_FINITE || (s == APR_GPU_OK && !isfinite(x[0]));
        free(some);
    }
    r->g->seq_truncate(q[1], 0);
    bool sound =
        r->g->greedy(m, q[1], ids[1], 5, NULL, 0, out + 1, &n_out, &r->e) == APR_GPU_OK || n_out == 0;
    r->g->seq_close(q[0]), r->g->seq_close(q[1]);
    r->g->model_close(m);
    toy_free(&t);
    free(x);
    rig_note(r, "found in %u of 4 ways, the next sequence is %s", n_found, sound ? "sound" : "not");
    return n_found == 4 && sound;
}

/* 14: of equal logits the first index is taken, wherever blocks of the kernel end. Planted: the last one is
 * expected. */
bool hazard_ties(struct rig *r, bool bad)
{
    static const int32_t pairs[][2] = {{255, 256},     {63, 4000},    {16383, 16384}, {0, 20010},
                                       {20009, 20010}, {4095, 12288}, {1, 2}};
    uint32_t n_right = 0, n_all = 0;
    for (size_t k = 0; k < sizeof pairs / sizeof *pairs; k++) {
        struct toy t = two_layers(APR_BF16, 20011);
        struct apr_gpu_seq *q[5];
        const int32_t first[5] = {11, 11, 11, 11, 11};
        int32_t out[5];
        uint32_t n_out = 0;
        t.type_head = TOY_F32;
        for (uint32_t i = 0; i < t.n_hidden; i++) /* one column decides, and it is always positive */
            for (int p = 0; p < 2; p++) t.head[(size_t)pairs[k][p] * t.n_hidden + i] = i ? 0 : 1000;
        for (uint32_t v = 0; v < t.n_vocab; v++) t.embed[(size_t)v * t.n_hidden] = 100;
        t.final_norm[0] = 1;
        toy_seal(&t);
        struct apr_gpu_model *m = rig_model(r, &t, false, 512);
        for (int i = 0; i < 5; i++) q[i] = rig_seq(r, m, 64);
        rig_must(r, r->g->greedy(m, q[0], 11, 1, NULL, 0, out, &n_out, &r->e), "greedy");
        n_right += out[0] == pairs[k][bad], n_all++;
        r->g->seq_truncate(q[0], 0);
        if (r->g->greedy_rows(m, q, first, 5, 1, out, &r->e) == APR_GPU_OK)
            for (int i = 0; i < 5; i++) n_right += out[i] == pairs[k][bad], n_all++;
        for (int i = 0; i < 5; i++) r->g->seq_close(q[i]);
        r->g->model_close(m);
        toy_free(&t);
    }
    rig_note(r, "%u of %u choices are the first of two equal logits", n_right, n_all);
    return n_right == n_all;
}

/* ---- 15 ---------------------------------------------------------------------------------------------------
 */

/* Random bits; scales of every kind but NaN and infinity, among them 0, the least and the largest. */
static void fill(uint32_t type, const struct apr_quant *q, uint8_t *p, uint64_t n_bytes)
{
    static const struct {
        uint32_t type, off;
    } halves[] = {{APR_Q4_0, 0},   {APR_Q4_1, 0},    {APR_Q4_1, 2},  {APR_Q5_0, 0},    {APR_Q5_1, 0},
                  {APR_Q5_1, 2},   {APR_Q8_0, 0},    {APR_Q2_K, 80}, {APR_Q2_K, 82},   {APR_Q3_K, 108},
                  {APR_Q4_K, 0},   {APR_Q4_K, 2},    {APR_Q5_K, 0},  {APR_Q5_K, 2},    {APR_Q6_K, 208},
                  {APR_IQ4_NL, 0}, {APR_IQ4_XS, 0},  {APR_IQ1_S, 0}, {APR_IQ2_XXS, 0}, {APR_IQ2_XS, 0},
                  {APR_IQ2_S, 0},  {APR_IQ3_XXS, 0}, {APR_IQ3_S, 0}, {APR_TQ1_0, 52},  {APR_TQ2_0, 64}};
    for (uint64_t i = 0; i < n_bytes; i++) p[i] = (uint8_t)toy_random();
    for (uint64_t b = 0; b + q->block_bytes <= n_bytes && q->is_quantized; b += q->block_bytes)
        for (size_t k = 0; k < sizeof halves / sizeof *halves; k++) {
            static const uint16_t special[] = {0, 0x8000, 1, 0x3ff, 0x7bff, 0xfbff, 0x3c00};
            uint64_t v = toy_random();
            uint16_t d = v % 4 ? (uint16_t)(v >> 16 & 0xbbff) : special[(v >> 8) % 7];
            if (halves[k].type == type) memcpy(p + b + halves[k].off, &d, 2);
        }
    for (uint64_t i = 1; i < n_bytes && !q->is_quantized; i += 2) p[i] &= 0xbb; /* F16, BF16, F32: finite */
}

static bool unpack_is_same(struct rig *r, uint32_t type, bool bad, uint64_t *n_blocks)
{
    const struct apr_quant *q = apr_quant_of(type);
    const uint32_t n_cols = 2048, n_rows = 2051;
    uint64_t row_bytes = (uint64_t)n_cols / q->block_elems * q->block_bytes, n_bytes = row_bytes * n_rows;
    uint8_t *blocks = (uint8_t *)rig_floats(n_bytes / 4 + 1);
    float *x = rig_floats((size_t)n_rows * n_cols), *y = rig_floats((size_t)n_rows * n_cols);
    fill(type, q, blocks, n_bytes);
    const struct apr_gpu_mat w = {blocks, row_bytes, type, n_rows, n_cols, NULL, 0};
    rig_must(r, r->g->unpack(r->dev, &w, x, &r->e), "unpacking");
    if (bad) blocks[n_bytes / 2 + 21] ^= 4;
    for (uint32_t i = 0; i < n_rows; i++) q->to_f32(blocks + i * row_bytes, y + (size_t)i * n_cols, n_cols);
    bool same = true;
    for (size_t i = 0; i < (size_t)n_rows * n_cols; i++) /* -0 is 0; IQ1_M spreads its scale: NaN is NaN */
        same &= (x[i] <= y[i] && x[i] >= y[i]) || (isnan(x[i]) && isnan(y[i]));
    *n_blocks += (uint64_t)n_rows * n_cols / q->block_elems;
    free(blocks), free(x), free(y);
    return same;
}

/* 15: what was repacked stands for the same numbers, bit by bit. Planted: one bit of one block. */
bool hazard_unpack(struct rig *r, bool bad)
{
    uint64_t n_blocks = 0;
    uint32_t n_types = 0;
    char names[170] = "";
    bool same = true;
    for (size_t i = 0; apr_quant_at(i); i++) {
        const struct apr_quant *q = apr_quant_at(i);
        float one[256];
        uint8_t block[2048] = {0};
        const struct apr_gpu_mat probe = {block, q->block_bytes, q->type, 1, q->block_elems, NULL, 0};
        if (q->block_elems > 256 || q->is_flat || !q->to_f32 || q->type >= 128 ||
            r->g->unpack(r->dev, &probe, one, &r->e) != APR_GPU_OK)
            continue;
        bool ok = unpack_is_same(r, q->type, bad, &n_blocks);
        size_t n = strlen(names);
        snprintf(names + n, sizeof names - n, " %s%s", q->name, ok ? "" : " (differs)");
        same &= ok, n_types++;
    }
    rig_note(r, "%u types, %llu blocks:%s", n_types, (unsigned long long)n_blocks, names);
    return same && n_types > 0;
}

/* ---- 16 ---------------------------------------------------------------------------------------------------
 */

static double kl_of(const float *x, const float *y, uint32_t n)
{
    double zx = 0, zy = 0, d = 0;
    for (uint32_t i = 0; i < n; i++) zx += exp((double)x[i]), zy += exp((double)y[i]);
    for (uint32_t i = 0; i < n; i++)
        d += exp((double)x[i]) / zx * ((double)x[i] - (double)y[i] - log(zx) + log(zy));
    return d;
}
static uint32_t top_of(const float *x, uint32_t n)
{
    uint32_t top = 0;
    for (uint32_t i = 1; i < n; i++) top = x[i] > x[top] ? i : top;
    return top;
}

/* 16: 2000 positions token by token and as prompts against the reference mode. Planted: logits one token
 * late. */
bool hazard_kl(struct rig *r, bool bad)
{
    const uint32_t n = 2000;
    struct toy t = two_layers(APR_Q4_K, 1024);
    toy_seal(&t);
    int32_t *ids = rig_ids(n, t.n_vocab);
    float *x = rig_floats((size_t)n * t.n_vocab), *y = rig_floats((size_t)n * t.n_vocab);
    double kl[2] = {0}, same[2] = {0};
    struct apr_gpu_model *m[2] = {rig_model(r, &t, true, n), rig_model(r, &t, false, n)};
    for (int way = 0; way < 3; way++) {
        struct apr_gpu_seq *q = rig_seq(r, m[way > 0], n);
        float *to = way ? x : y;
        for (uint32_t i = 0, k; i < n; i += k) {
            k = way == 2 ? 1 : n - i < 500 ? n - i : 500;
            rig_must(r, r->g->forward(m[way > 0], q, ids + i, k, k, to + (size_t)i * t.n_vocab, &r->e),
                     "rows");
        }
        r->g->seq_close(q);
        for (uint32_t i = 1; i < n && way; i++) {
            const float *a = y + (size_t)i * t.n_vocab, *b = x + (size_t)(i - bad) * t.n_vocab;
            kl[way - 1] += kl_of(a, b, t.n_vocab) / (n - 1);
            same[way - 1] += (double)(top_of(a, t.n_vocab) == top_of(b, t.n_vocab)) / (n - 1);
        }
    }
    r->g->model_close(m[0]), r->g->model_close(m[1]);
    toy_free(&t);
    free(ids), free(x), free(y);
    /* drawn weights have small margins; a trained model's 0.99 is gpu-check's */
    rig_note(r,
             "mean KL %.1e of prompts (bound 1e-3), %.1e token by token (1e-4), top-1 %.4f and %.4f (0.97)",
             kl[0], kl[1], same[0], same[1]);
    return kl[0] <= 1e-3 && kl[1] <= 1e-4 && same[0] >= 0.97 && same[1] >= 0.97;
}

/* Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision" (2022), figure 1: two
 * convolutions, encoder blocks, decoder blocks with cross attention; norms come first. See speech.h. */
#include "speech.h"

#include <inttypes.h>
#include <string.h>

#define WIDTH 3u /* of the convolutions */

/* ---- weights ------------------------------------------------------------------------------------------ */

static enum apr_code bind_enc_block(struct apr_bind *b, uint32_t i, struct apr_block *out, struct apr_err *e)
{
    const struct apr_config *c = &b->m->config;
    size_t n = c->n_hidden, n_inter = c->n_inter_enc;
    TRY(apr_bind_norm(b, APR_ROLE_ENC_ATTN_NORM, APR_ROLE_ENC_ATTN_NORM_BIAS, i, n, &out->attn_norm, e));
    TRY(apr_bind_matrix(b, APR_ROLE_ENC_Q, APR_ROLE_ENC_Q_BIAS, i, n, n, &out->self.q, e));
    TRY(apr_bind_matrix(b, APR_ROLE_ENC_K, APR_ROLE_NONE, i, n, n, &out->self.k, e));
    TRY(apr_bind_matrix(b, APR_ROLE_ENC_V, APR_ROLE_ENC_V_BIAS, i, n, n, &out->self.v, e));
    TRY(apr_bind_matrix(b, APR_ROLE_ENC_O, APR_ROLE_ENC_O_BIAS, i, n, n, &out->self.o, e));
    TRY(apr_bind_norm(b, APR_ROLE_ENC_FFN_NORM, APR_ROLE_ENC_FFN_NORM_BIAS, i, n, &out->ffn_norm, e));
    TRY(apr_bind_matrix(b, APR_ROLE_ENC_UP, APR_ROLE_ENC_UP_BIAS, i, n_inter, n, &out->up, e));
    return apr_bind_matrix(b, APR_ROLE_ENC_DOWN, APR_ROLE_ENC_DOWN_BIAS, i, n, n_inter, &out->down, e);
}

static enum apr_code bind_block(struct apr_bind *b, uint32_t i, struct apr_block *out, struct apr_err *e)
{
    const struct apr_config *c = &b->m->config;
    size_t n = c->n_hidden;
    TRY(apr_bind_norm(b, APR_ROLE_ATTN_NORM, APR_ROLE_ATTN_NORM_BIAS, i, n, &out->attn_norm, e));
    TRY(apr_bind_matrix(b, APR_ROLE_Q, APR_ROLE_Q_BIAS, i, n, n, &out->self.q, e));
    TRY(apr_bind_matrix(b, APR_ROLE_K, APR_ROLE_NONE, i, n, n, &out->self.k, e));
    TRY(apr_bind_matrix(b, APR_ROLE_V, APR_ROLE_V_BIAS, i, n, n, &out->self.v, e));
    TRY(apr_bind_matrix(b, APR_ROLE_O, APR_ROLE_O_BIAS, i, n, n, &out->self.o, e));
    TRY(apr_bind_norm(b, APR_ROLE_CROSS_NORM, APR_ROLE_CROSS_NORM_BIAS, i, n, &out->cross_norm, e));
    TRY(apr_bind_matrix(b, APR_ROLE_CROSS_Q, APR_ROLE_CROSS_Q_BIAS, i, n, n, &out->cross.q, e));
    TRY(apr_bind_matrix(b, APR_ROLE_CROSS_K, APR_ROLE_NONE, i, n, n, &out->cross.k, e));
    TRY(apr_bind_matrix(b, APR_ROLE_CROSS_V, APR_ROLE_CROSS_V_BIAS, i, n, n, &out->cross.v, e));
    TRY(apr_bind_matrix(b, APR_ROLE_CROSS_O, APR_ROLE_CROSS_O_BIAS, i, n, n, &out->cross.o, e));
    TRY(apr_bind_norm(b, APR_ROLE_FFN_NORM, APR_ROLE_FFN_NORM_BIAS, i, n, &out->ffn_norm, e));
    TRY(apr_bind_matrix(b, APR_ROLE_UP, APR_ROLE_UP_BIAS, i, c->n_inter, n, &out->up, e));
    return apr_bind_matrix(b, APR_ROLE_DOWN, APR_ROLE_DOWN_BIAS, i, n, c->n_inter, &out->down, e);
}

static enum apr_code bind_all(struct apr_speech *s, struct apr_bind *b, struct apr_err *e)
{
    const struct apr_config *c = s->cfg;
    const size_t n = c->n_hidden;
    const enum apr_role head = apr_model_role(b->m, APR_ROLE_LM_HEAD, 0) ? APR_ROLE_LM_HEAD : APR_ROLE_EMBED;
    TRY(apr_bind_matrix(b, APR_ROLE_CONV1, APR_ROLE_CONV1_BIAS, 0, n, (size_t)c->n_mels * WIDTH, &s->conv1,
                        e));
    TRY(apr_bind_matrix(b, APR_ROLE_CONV2, APR_ROLE_CONV2_BIAS, 0, n, n * WIDTH, &s->conv2, e));
    TRY(apr_bind_rows(b, APR_ROLE_ENC_POSITIONS, c->n_ctx_audio, n, &s->enc_positions, e));
    TRY(apr_bind_norm(b, APR_ROLE_ENC_FINAL_NORM, APR_ROLE_ENC_FINAL_NORM_BIAS, 0, n, &s->enc_norm, e));
    TRY(apr_bind_rows(b, APR_ROLE_EMBED, c->n_vocab, n, &s->embed, e));
    TRY(apr_bind_rows(b, APR_ROLE_POSITIONS, c->n_positions, n, &s->positions, e));
    TRY(apr_bind_norm(b, APR_ROLE_FINAL_NORM, APR_ROLE_FINAL_NORM_BIAS, 0, n, &s->norm, e));
    TRY(apr_bind_matrix(b, head, APR_ROLE_NONE, 0, c->n_vocab, n, &s->head, e));
    TRY(apr_arena_try(&s->arena, &s->enc_blocks, c->n_layers_enc, sizeof *s->enc_blocks, "layers", e));
    TRY(apr_arena_try(&s->arena, &s->blocks, c->n_layers, sizeof *s->blocks, "layers", e));
    for (uint32_t i = 0; i < c->n_layers_enc; i++) TRY(bind_enc_block(b, i, &s->enc_blocks[i], e));
    for (uint32_t i = 0; i < c->n_layers; i++) TRY(bind_block(b, i, &s->blocks[i], e));
    return APR_OK;
}

/* ---- opening ------------------------------------------------------------------------------------------ */

static enum apr_code open_stacks(struct apr_speech *s, const struct apr_kern *kern, struct apr_pool *pool,
                                 bool exact, struct apr_err *e)
{
    const struct apr_config *c = s->cfg;
    struct apr_stack_dims d = {.n_hidden = c->n_hidden,
                               .n_heads = c->n_heads_enc,
                               .n_inter = c->n_inter_enc,
                               .n_in_most = WIDTH * (c->n_hidden > c->n_mels ? c->n_hidden : c->n_mels),
                               .eps = (float)c->norm_eps,
                               .activation = c->activation};
    size_t n_pos = c->n_ctx_audio > s->n_ctx ? c->n_ctx_audio : s->n_ctx;
    TRY(apr_stack_open(&s->enc, &d, kern, pool, exact, c->n_ctx_audio, c->n_ctx_audio, e));
    d.n_heads = c->n_heads;
    d.n_inter = c->n_inter;
    d.n_in_most = 0;
    return apr_stack_open(&s->dec, &d, kern, pool, exact, s->n_ctx, n_pos, e);
}

static enum apr_code room(struct apr_speech *s, struct apr_err *e)
{
    const struct apr_config *c = s->cfg;
    const size_t n = c->n_hidden, n_row = n * s->n_value_bytes;
    s->conv1_in.n_cols = (size_t)c->n_mels * WIDTH;
    s->conv2_in.n_cols = n * WIDTH;
    TRY(apr_arena_try(&s->arena, &s->conv1_in.f32, s->n_frames_most, s->conv1_in.n_cols * sizeof(float),
                      "activations", e));
    TRY(apr_arena_try(&s->arena, &s->conv2_in.f32, c->n_ctx_audio, s->conv2_in.n_cols * sizeof(float),
                      "activations", e));
    TRY(apr_arena_try(&s->arena, &s->conv1_out, s->n_frames_most, n * sizeof(float), "activations", e));
    TRY(apr_arena_try(&s->arena, &s->self_k, c->n_layers * s->n_ctx, n_row, "the decoder's keys", e));
    TRY(apr_arena_try(&s->arena, &s->self_v, c->n_layers * s->n_ctx, n_row, "the decoder's values", e));
    TRY(apr_arena_try(&s->arena, &s->cross_k, (size_t)c->n_layers * c->n_ctx_audio, n_row,
                      "the encoder's keys", e));
    return apr_arena_try(&s->arena, &s->cross_v, (size_t)c->n_layers * c->n_ctx_audio, n_row,
                         "the encoder's values", e);
}

enum apr_code apr_speech_open(struct apr_speech *s, const struct apr_checked_model *m,
                              const struct apr_kern *kern, struct apr_pool *pool, bool exact,
                              struct apr_err *e)
{
    const struct apr_config *c = &m->model->config;
    *s = (struct apr_speech){.cfg = c, .is_f32 = exact, .n_value_bytes = exact ? 4 : 2};
    apr_arena_init(&s->arena);
    apr_arena_init(&s->enc.arena);
    apr_arena_init(&s->dec.arena);
    if (!c->n_mels || !c->n_ctx_audio || !c->n_positions || !c->n_heads || !c->n_heads_enc ||
        c->n_hidden % c->n_heads || c->n_hidden % c->n_heads_enc)
        return apr_fail(e, APR_ELOAD, "%s: this is no speech model that can be computed", m->model->path);
    s->n_frames_most = 2 * (size_t)c->n_ctx_audio;
    s->n_ctx = c->n_positions;
    struct apr_bind b = {.m = m->model, .kern = kern, .arena = &s->arena};
    TRY(bind_all(s, &b, e));
    TRY(open_stacks(s, kern, pool, exact, e));
    return room(s, e);
}

void apr_speech_close(struct apr_speech *s)
{
    apr_stack_close(&s->enc);
    apr_stack_close(&s->dec);
    apr_arena_free(&s->arena);
}

/* ---- encoder ------------------------------------------------------------------------------------------ */

/* Row t of a convolution's input: for each channel the values at t * stride - 1, + 0, + 1; zeros outside. */
static void unfold(const float *x, size_t n_x, size_t n_channels, size_t stride, size_t n_rows, float *out)
{
    for (size_t t = 0; t < n_rows; t++)
        for (size_t k = 0; k < WIDTH; k++) {
            size_t at = t * stride + k; /* one past the place */
            bool inside = at >= 1 && at <= n_x;
            const float *from = inside ? x + (at - 1) * n_channels : NULL;
            float *to = out + t * n_channels * WIDTH + k;
            for (size_t i = 0; i < n_channels; i++) to[i * WIDTH] = from ? from[i] : 0;
        }
}

/* x = gelu(conv2(gelu(conv1(frames)))) + positions */
static void convolve(struct apr_speech *s, const float *frames, size_t n_frames)
{
    const struct apr_config *c = s->cfg;
    const size_t n = c->n_hidden;
    unfold(frames, n_frames, c->n_mels, 1, s->n_frames_most, s->conv1_in.f32);
    apr_stack_linear(&s->enc, &s->conv1, &s->conv1_in, s->conv1_out, s->n_frames_most);
    apr_stack_activate(&s->enc, s->conv1_out, s->n_frames_most * n);
    unfold(s->conv1_out, s->n_frames_most, n, 2, c->n_ctx_audio, s->conv2_in.f32);
    apr_stack_linear(&s->enc, &s->conv2, &s->conv2_in, s->enc.x, c->n_ctx_audio);
    apr_stack_activate(&s->enc, s->enc.x, c->n_ctx_audio * n);
    for (size_t t = 0; t < c->n_ctx_audio; t++)
        apr_rows_add(&s->enc_positions, s->enc.c.kern, t, s->enc.y, s->enc.x + t * n);
}

static void enc_block(struct apr_speech *s, const struct apr_block *b)
{
    struct apr_stack *x = &s->enc;
    const size_t n_rows = s->cfg->n_ctx_audio;
    struct apr_span all = {.n_rows = n_rows, .k = x->k, .v = x->v, .n_pos = n_rows, .is_f32 = true};
    apr_stack_norm(x, &b->attn_norm, n_rows);
    apr_stack_qkv(x, &b->self, n_rows);
    apr_stack_attend(x, &all, 1);
    apr_stack_add(x, &b->self.o, &x->att, n_rows);
    apr_stack_norm(x, &b->ffn_norm, n_rows);
    apr_stack_ffn(x, b, n_rows);
}

static void store(const struct apr_speech *s, const float *x, size_t n, uint8_t *to)
{
    if (s->is_f32)
        memcpy(to, x, n * sizeof *x);
    else
        s->enc.c.kern->f32_to_f16(x, (uint16_t *)(void *)to, n);
}

static uint8_t *layer(const struct apr_speech *s, uint8_t *cache, size_t n_pos, size_t i_layer)
{
    return cache + i_layer * n_pos * s->cfg->n_hidden * s->n_value_bytes;
}

enum apr_code apr_speech_encode(struct apr_speech *s, const float *frames, size_t n_frames, struct apr_err *e)
{
    const struct apr_config *c = s->cfg;
    const size_t n_rows = c->n_ctx_audio, n = c->n_hidden;
    s->n_pos = 0;
    if (n_frames > s->n_frames_most)
        return apr_fail(e, APR_EUSAGE, "%zu frames do not fit a window of %zu", n_frames, s->n_frames_most);
    convolve(s, frames, n_frames);
    for (uint32_t i = 0; i < c->n_layers_enc; i++) enc_block(s, &s->enc_blocks[i]);
    apr_stack_norm(&s->enc, &s->enc_norm, n_rows);
    s->encoded = s->enc.h.f32;
    if (apr_stack_bad_row(s->encoded, n_rows, n) < n_rows)
        return apr_fail(e, APR_EINFER, "the encoder's output contains NaN or Inf");
    for (uint32_t i = 0; i < c->n_layers; i++) {
        apr_stack_linear(&s->enc, &s->blocks[i].cross.k, &s->enc.h, s->enc.k, n_rows);
        apr_stack_linear(&s->enc, &s->blocks[i].cross.v, &s->enc.h, s->enc.v, n_rows);
        store(s, s->enc.k, n_rows * n, layer(s, s->cross_k, n_rows, i));
        store(s, s->enc.v, n_rows * n, layer(s, s->cross_v, n_rows, i));
    }
    return APR_OK;
}

/* ---- decoder ------------------------------------------------------------------------------------------ */

static void self_attention(struct apr_speech *s, const struct apr_block *b, uint32_t i_layer, size_t n_rows)
{
    struct apr_stack *x = &s->dec;
    const size_t n = s->cfg->n_hidden, off = s->n_pos * n * s->n_value_bytes;
    uint8_t *k = layer(s, s->self_k, s->n_ctx, i_layer), *v = layer(s, s->self_v, s->n_ctx, i_layer);
    struct apr_span past = {
        .n_rows = n_rows, .k = k, .v = v, .n_pos = s->n_pos + n_rows, .is_f32 = s->is_f32, .is_causal = true};
    apr_stack_norm(x, &b->attn_norm, n_rows);
    apr_stack_qkv(x, &b->self, n_rows);
    store(s, x->k, n_rows * n, k + off);
    store(s, x->v, n_rows * n, v + off);
    apr_stack_attend(x, &past, 1);
    apr_stack_add(x, &b->self.o, &x->att, n_rows);
}

static void cross_attention(struct apr_speech *s, const struct apr_block *b, uint32_t i_layer, size_t n_rows)
{
    struct apr_stack *x = &s->dec;
    const size_t n_pos = s->cfg->n_ctx_audio;
    struct apr_span sound = {.n_rows = n_rows,
                             .k = layer(s, s->cross_k, n_pos, i_layer),
                             .v = layer(s, s->cross_v, n_pos, i_layer),
                             .n_pos = n_pos,
                             .is_f32 = s->is_f32};
    apr_stack_norm(x, &b->cross_norm, n_rows);
    apr_stack_linear(x, &b->cross.q, &x->h, x->q, n_rows);
    apr_stack_attend(x, &sound, 1);
    apr_stack_add(x, &b->cross.o, &x->att, n_rows);
}

static enum apr_code embed(struct apr_speech *s, const int32_t *ids, size_t n, struct apr_err *e)
{
    struct apr_stack *x = &s->dec;
    if (n > s->n_ctx - s->n_pos)
        return apr_fail(e, APR_EUSAGE, "%zu tokens do not fit the decoder's %zu positions", s->n_pos + n,
                        s->n_ctx);
    for (size_t i = 0; i < n; i++) {
        float *row = x->x + i * x->d.n_hidden;
        if (ids[i] < 0 || (size_t)ids[i] >= s->embed.n_rows)
            return apr_fail(e, APR_EUSAGE, "token %zu has id %" PRId32 ", the embedding has %zu rows",
                            s->n_pos + i, ids[i], s->embed.n_rows);
        apr_rows_get(&s->embed, (size_t)ids[i], row);
        apr_rows_add(&s->positions, x->c.kern, s->n_pos + i, x->y, row);
    }
    return APR_OK;
}

enum apr_code apr_speech_decode(struct apr_speech *s, const int32_t *ids, size_t n, size_t n_rows,
                                float *logits, struct apr_err *e)
{
    struct apr_stack *x = &s->dec;
    TRY(embed(s, ids, n, e));
    for (uint32_t i = 0; i < s->cfg->n_layers; i++) {
        const struct apr_block *b = &s->blocks[i];
        self_attention(s, b, i, n);
        cross_attention(s, b, i, n);
        apr_stack_norm(x, &b->ffn_norm, n);
        apr_stack_ffn(x, b, n);
    }
    apr_stack_layernorm(x, &s->norm, x->x + (n - n_rows) * x->d.n_hidden, x->h.f32, n_rows);
    apr_stack_linear(x, &s->head, &x->h, logits, n_rows);
    s->n_pos += n;
    size_t bad = apr_stack_bad_row(logits, n_rows, s->cfg->n_vocab);
    if (bad < n_rows)
        return apr_fail(e, APR_EINFER, "the logits after token %zu contain NaN or Inf",
                        s->n_pos - n_rows + bad);
    return APR_OK;
}

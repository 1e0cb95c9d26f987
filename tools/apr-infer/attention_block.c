/* Attention with keys and values of their own for every KV head, and the feed-forward block. */
#include <string.h>

#include "blocks.h"

unsigned apr_attention_wants(const struct apr_forward *f, const struct apr_layer *l)
{
    bool exact = f->c.exact;
    if (l->mla.kv_a.data)
        return apr_mat_wants(l->mla.q_a.data ? &l->mla.q_a : &l->q, exact) |
               apr_mat_wants(&l->mla.kv_a, exact);
    return apr_mat_wants(&l->q, exact) | apr_mat_wants(&l->k, exact) | apr_mat_wants(&l->v, exact);
}

static void add_bias(const struct apr_forward *f, const struct apr_mat *m, float *y)
{
    if (m->bias) f->c.kern->add(y, m->bias, m->n_rows);
}

/* Each head by itself: norm where the model has one, then rotation. */
static void finish_heads(const struct apr_token_job *j, size_t i_tok, float *x, uint32_t n_heads,
                         const float *norm)
{
    const struct apr_forward *f = j->f;
    size_t d = f->w.cfg->head_dim;
    const struct apr_rope_table *rope = apr_rope_of(f, j->layer);
    for (uint32_t h = 0; h < n_heads; h++, x += d) {
        if (norm) f->c.kern->rmsnorm(x, norm, (float)f->w.cfg->norm_eps, x, d);
        apr_rope_head(rope, f->c.kern, i_tok, x);
    }
}

/* Biases, norms and rotation of q and k by the token's position, then keys and values go into the cache. */
static void rotate_and_store_token(const struct apr_token_job *j, size_t i_tok)
{
    const struct apr_forward *f = j->f;
    const struct apr_config *cfg = f->w.cfg;
    const struct apr_layer *l = j->layer;
    size_t d = cfg->head_dim, n_q = cfg->n_heads * d, n_kv = cfg->n_heads_kv * d;
    float *q = f->q + i_tok * n_q, *k = f->k + i_tok * n_kv, *v = f->v + i_tok * n_kv;
    add_bias(f, &l->q, q);
    add_bias(f, &l->k, k);
    add_bias(f, &l->v, v);
    finish_heads(j, i_tok, q, cfg->n_heads, l->q_norm);
    finish_heads(j, i_tok, k, cfg->n_heads_kv, l->k_norm);
    for (uint32_t h = 0; h < cfg->n_heads_kv; h++) {
        apr_store_head(f, APR_CACHE_K, j->i_layer, h, i_tok, k + h * d);
        apr_store_head(f, APR_CACHE_V, j->i_layer, h, i_tok, v + h * d);
    }
}

/* y = Wo attention(rope(norm(Wq h + bq)), rope(norm(Wk h + bk)), Wv h + bv) */
void apr_attention_block(struct apr_forward *f, uint32_t i_layer)
{
    const struct apr_layer *l = &f->w.layers[i_layer];
    const struct apr_product qkv[] = {{&l->q, f->q}, {&l->k, f->k}, {&l->v, f->v}};
    apr_expect(f, &l->o, NULL, NULL);
    apr_linear(&f->c, &f->h, qkv, 3);
    apr_forward_mark(f, APR_OP_QKV, i_layer);

    apr_for_tokens(
        &(struct apr_token_job){.f = f, .fn = rotate_and_store_token, .layer = l, .i_layer = i_layer});
    apr_forward_mark(f, APR_OP_ROPE, i_layer);
    apr_attend(f, i_layer, f->q, f->att.f32);
    apr_forward_mark(f, APR_OP_ATTENTION, i_layer);

    apr_pack_tokens(f, &f->att, apr_mat_wants(&l->o, f->c.exact));
    const struct apr_product o[] = {{&l->o, f->y}};
    apr_expect_ffn(f, i_layer);
    apr_linear(&f->c, &f->att, o, 1);
    apr_forward_mark(f, APR_OP_ATTN_OUT, i_layer);
}

unsigned apr_ffn_wants(const struct apr_forward *f, const struct apr_layer *l)
{
    bool exact = f->c.exact;
    const struct apr_mat *mats[4] = {0};
    unsigned wants = 0;
    if (l->is_moe) {
        mats[0] = l->moe.up;
        mats[1] = l->moe.gate;
        mats[2] = &l->moe.shared.up;
        mats[3] = &l->moe.shared.gate;
        wants = apr_mat_wants(&l->moe.router, exact);
    } else {
        mats[0] = &l->ffn.up;
        mats[1] = &l->ffn.gate;
    }
    for (size_t i = 0; i < 4; i++)
        if (mats[i] && mats[i]->data) wants |= apr_mat_wants(mats[i], exact);
    return wants;
}

/* y = Wdown (act(Wgate h) * Wup h), or Wdown act(Wup h + b) */
void apr_ffn_block(struct apr_forward *f, uint32_t i_layer)
{
    const struct apr_ffn_mats *m = &f->w.layers[i_layer].ffn;
    struct apr_map up = {.w = &m->up, .x = &f->h, .y = f->ffn.f32};
    if (m->gate.data) {
        up.gate = &m->gate;
        up.gate_y = f->gate;
    }
    apr_expect(f, &m->down, NULL, NULL);
    apr_linear_act(&f->c, &up, 1, f->w.cfg->activation);
    apr_forward_mark(f, APR_OP_FFN_UP, i_layer);

    apr_pack_tokens(f, &f->ffn, apr_mat_wants(&m->down, f->c.exact));
    const struct apr_product down[] = {{&m->down, f->y}};
    apr_expect_layer(f, i_layer + 1);
    apr_linear(&f->c, &f->ffn, down, 1);
    apr_forward_mark(f, APR_OP_FFN_DOWN, i_layer);
}

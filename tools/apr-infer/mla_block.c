/* Multi-head latent attention (DeepSeek-V2, section 2.1), absorbed: the cache holds one normed latent and one
 * rotated key for each position, which all heads share.
 *
 * score(h) = (Wk_h^T q_h) . c + rope(q'_h) . rope(k'), out(h) = Wv_h (sum p c), c the latent. Prefill and
 * decode take the same way, so that a token's bits do not depend on the chunk. */
#include <string.h>

#include "blocks.h"
#include "ckd.h"

static void q_a_token(const struct apr_token_job *j, size_t i_tok)
{
    const struct apr_forward *f = j->f;
    const struct apr_acts *a = &f->mla.q_a;
    float *x = a->f32 + i_tok * a->n_cols;
    f->c.kern->rmsnorm(x, j->layer->mla.q_a_norm, (float)f->w.cfg->norm_eps, x, a->n_cols);
    apr_acts_pack(&f->c, a, j->wants, i_tok);
}

/* f->q = the queries [n_heads, n_nope + n_rope], f->k = latent and shared key [kv_rank + n_rope]. */
static void project(struct apr_forward *f, const struct apr_layer *l)
{
    const struct apr_mla_mats *a = &l->mla;
    const struct apr_product kv = {&a->kv_a, f->k};
    if (!a->q_a.data) {
        const struct apr_product both[] = {{&l->q, f->q}, kv};
        apr_linear(&f->c, &f->h, both, 2);
        return;
    }
    const struct apr_product both[] = {{&a->q_a, f->mla.q_a.f32}, kv}, q = {&l->q, f->q};
    apr_linear(&f->c, &f->h, both, 2);
    apr_for_tokens(&(struct apr_token_job){
        .f = f, .fn = q_a_token, .layer = l, .wants = apr_mat_wants(&l->q, f->c.exact)});
    apr_linear(&f->c, &f->mla.q_a, &q, 1);
}

/* Norm of the latent, rotation, the cache; q is parted into what k_b takes and what turns. */
static void store_token(const struct apr_token_job *j, size_t i_tok)
{
    const struct apr_forward *f = j->f;
    const struct apr_config *cfg = f->w.cfg;
    const struct apr_mla *mla = &cfg->mla;
    const struct apr_rope_table *rope = apr_rope_of(f, j->layer);
    size_t k_dim = f->shape.k_dim, n_nope = mla->n_nope;
    float *k = f->k + i_tok * k_dim, *q = f->q + i_tok * cfg->n_heads * cfg->head_dim;
    float *q_nope = f->mla.q_nope.f32 + i_tok * cfg->n_heads * n_nope;
    float *q_cache = f->mla.q + i_tok * cfg->n_heads * k_dim;
    if (j->layer->q.bias) f->c.kern->add(q, j->layer->q.bias, j->layer->q.n_rows);
    f->c.kern->rmsnorm(k, j->layer->mla.kv_a_norm, (float)cfg->norm_eps, k, mla->kv_rank);
    apr_rope_head(rope, f->c.kern, i_tok, k + mla->kv_rank);
    apr_store_head(f, APR_CACHE_K, j->i_layer, 0, i_tok, k);
    for (uint32_t h = 0; h < cfg->n_heads; h++, q += cfg->head_dim, q_cache += k_dim) {
        memcpy(q_nope + h * n_nope, q, n_nope * sizeof *q);
        memcpy(q_cache + mla->kv_rank, q + n_nope, mla->n_rope * sizeof *q);
        apr_rope_head(rope, f->c.kern, i_tok, q_cache + mla->kv_rank);
    }
    apr_acts_pack(&f->c, &f->mla.q_nope, j->wants, i_tok);
}

/* y_h = mats[h] x_h for every head h: columns of x, columns of y. */
static void for_heads(struct apr_forward *f, const struct apr_mat *mats, const struct apr_acts *x, float *y,
                      size_t y_head, size_t y_stride)
{
    struct apr_mla_room *r = &f->mla;
    uint32_t n_heads = f->w.cfg->n_heads;
    for (uint32_t h = 0; h < n_heads; h++) {
        r->views[h] = apr_acts_cols(x, h * mats[h].n_cols, mats[h].n_cols);
        r->maps[h] =
            (struct apr_map){.w = &mats[h], .x = &r->views[h], .y = y + h * y_head, .y_stride = y_stride};
    }
    apr_linear_each(&f->c, r->maps, n_heads);
}

void apr_mla_block(struct apr_forward *f, uint32_t i_layer)
{
    const struct apr_layer *l = &f->w.layers[i_layer];
    const struct apr_mla *mla = &f->w.cfg->mla;
    struct apr_mla_room *r = &f->mla;
    bool exact = f->c.exact;
    uint32_t n_heads = f->w.cfg->n_heads;
    size_t k_dim = f->shape.k_dim;

    r->q_a.n_toks = r->q_nope.n_toks = r->latent.n_toks = f->n_toks;
    apr_expect(f, NULL, NULL, NULL);
    project(f, l);
    apr_forward_mark(f, APR_OP_QKV, i_layer);
    apr_for_tokens(&(struct apr_token_job){.f = f,
                                           .fn = store_token,
                                           .layer = l,
                                           .i_layer = i_layer,
                                           .wants = apr_mat_wants(&l->mla.k_b[0], exact)});
    apr_forward_mark(f, APR_OP_ROPE, i_layer);
    if (f->c.tap && l->mla.kv_b.data) { /* what the matrix would see if it were not absorbed */
        const struct apr_acts c = {
            .n_cols = mla->kv_rank, .n_toks = f->n_toks, .n_stride = k_dim, .f32 = f->k};
        f->c.tap(f->c.tap_ctx, &l->mla.kv_b, &c);
    }
    for_heads(f, l->mla.k_b, &r->q_nope, r->q, k_dim, n_heads * k_dim);
    apr_forward_mark(f, APR_OP_QKV, i_layer);
    apr_attend(f, i_layer, r->q, r->latent.f32);
    apr_forward_mark(f, APR_OP_ATTENTION, i_layer);

    apr_pack_tokens(f, &r->latent, apr_mat_wants(&l->mla.v_b[0], exact));
    for_heads(f, l->mla.v_b, &r->latent, f->att.f32, mla->n_value, (size_t)n_heads * mla->n_value);
    apr_pack_tokens(f, &f->att, apr_mat_wants(&l->o, exact));
    const struct apr_product o[] = {{&l->o, f->y}};
    apr_expect_ffn(f, i_layer);
    apr_linear(&f->c, &f->att, o, 1);
    apr_forward_mark(f, APR_OP_ATTN_OUT, i_layer);
}

enum apr_code apr_mla_open(struct apr_forward *f, struct apr_err *e)
{
    const struct apr_config *c = f->w.cfg;
    const struct apr_mla *mla = &c->mla;
    struct apr_mla_room *r = &f->mla;
    struct apr_arena *arena = &f->arena;
    size_t n_batch = f->n_batch, n_heads = c->n_heads, n_q;
    if (!mla->kv_rank) return APR_OK;
    if (ckd_mul(&n_q, n_batch, n_heads * f->shape.k_dim))
        return apr_fail(e, APR_ELOAD, "a chunk of %zu tokens is too large", n_batch);
    TRY(apr_acts_alloc(&r->q_a, n_batch, mla->q_rank, f->c.exact, arena, e));
    TRY(apr_acts_alloc(&r->q_nope, n_batch, n_heads * mla->n_nope, f->c.exact, arena, e));
    TRY(apr_acts_alloc(&r->latent, n_batch, n_heads * mla->kv_rank, f->c.exact, arena, e));
    TRY(apr_arena_try(arena, &r->q, n_q, sizeof *r->q, "activations", e));
    TRY(apr_arena_try(arena, &r->maps, n_heads, sizeof *r->maps, "heads", e));
    return apr_arena_try(arena, &r->views, n_heads, sizeof *r->views, "heads", e);
}

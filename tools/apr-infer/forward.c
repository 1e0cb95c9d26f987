/* The forward pass, in the order of the paper: embed, then for each layer attention and feed-forward around
 * a residual stream, then norm and head.
 *
 * Parallel regions per layer: QKV | attention | O | gate+up | down. What happens between them (norms,
 * rotation, quantization of activations) costs about a microsecond a token: the caller does it alone for one
 * token, while the workers spin; more tokens are split. */
#include "forward.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "blocks.h"
#include "ckd.h"

#define TOKS_CHUNK 4u /* of a parallel region over many tokens */

static void token_task(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    const struct apr_token_job *j = ctx;
    (void)i_thread;
    for (size_t i = i_begin; i < i_end; i++) j->fn(j, i);
}

void apr_for_tokens(struct apr_token_job *j)
{
    size_t n_toks = j->f->n_toks, n_threads = apr_pool_threads(j->f->c.pool);
    size_t n_share = (n_toks + n_threads - 1) / n_threads;
    apr_parallel_for(j->f->c.pool, n_toks, n_share < TOKS_CHUNK ? n_share : TOKS_CHUNK, token_task, j);
}

static void pack_token(const struct apr_token_job *j, size_t i_tok)
{
    apr_acts_pack(&j->f->c, j->acts, j->wants, i_tok);
}

void apr_pack_tokens(struct apr_forward *f, const struct apr_acts *acts, unsigned wants)
{
    if (wants & ~(1u << APR_ACT_F32))
        apr_for_tokens(&(struct apr_token_job){.f = f, .fn = pack_token, .acts = acts, .wants = wants});
}

void apr_store_head(const struct apr_forward *f, enum apr_cache_part part, uint32_t i_layer, uint32_t i_head,
                    size_t i_tok, const float *x)
{
    const struct apr_row *r = &f->rows[i_tok];
    const struct apr_blocks *b = r->cache->blocks;
    size_t d = part == APR_CACHE_K ? b->k_dim : b->v_dim;
    uint8_t *page = apr_cache_page(r->cache, part, i_layer, i_head, r->pos / APR_PAGE_POS);
    b->types.at[part]->store(f->c.kern, x, page + r->pos % APR_PAGE_POS * b->row_bytes[part], d);
}

void apr_attend(struct apr_forward *f, uint32_t i_layer, const float *q, float *out)
{
    apr_attention(&f->attn, &f->c, &f->shape,
                  &(struct apr_attn_call){.i_layer = i_layer,
                                          .window = f->w.layers[i_layer].is_local ? f->w.cfg->window : 0,
                                          .spans = f->spans,
                                          .n_spans = f->n_spans,
                                          .q = q,
                                          .out = out});
}

const struct apr_rope_table *apr_rope_of(const struct apr_forward *f, const struct apr_layer *l)
{
    return l->is_local && f->rope_local.n_half ? &f->rope_local : &f->rope;
}

void apr_expect(struct apr_forward *f, const struct apr_mat *a, const struct apr_mat *b,
                const struct apr_mat *c)
{
    const struct apr_mat *mats[] = {a, b, c};
    struct apr_next *next = &f->c.next;
    next->n = 0;
    for (size_t i = 0; i < sizeof mats / sizeof *mats; i++)
        if (mats[i] && mats[i]->data) next->mats[next->n++] = mats[i];
}

void apr_expect_layer(struct apr_forward *f, uint32_t i_layer)
{
    if (i_layer == f->w.cfg->n_layers) {
        apr_expect(f, &f->w.head, NULL, NULL);
        return;
    }
    const struct apr_layer *l = &f->w.layers[i_layer];
    if (l->mla.kv_a.data)
        apr_expect(f, l->mla.q_a.data ? &l->mla.q_a : &l->q, &l->mla.kv_a, NULL);
    else
        apr_expect(f, &l->q, &l->k, &l->v);
}

void apr_expect_ffn(struct apr_forward *f, uint32_t i_layer)
{
    const struct apr_layer *l = &f->w.layers[i_layer];
    if (l->is_moe)
        apr_expect(f, &l->moe.router, NULL, NULL);
    else
        apr_expect(f, l->ffn.gate.data ? &l->ffn.gate : &l->ffn.up, NULL, NULL);
}

/* x = embedding row of the token, scaled, plus the row of its position. */
static void embed_token(const struct apr_token_job *j, size_t i_tok)
{
    const struct apr_forward *f = j->f;
    const struct apr_weights *w = &f->w;
    size_t n = w->cfg->n_hidden;
    float *x = f->x + i_tok * n;
    apr_rows_get(&w->embed, (size_t)f->rows[i_tok].id, x);
    if (w->cfg->embed_scale > 0) f->c.kern->scale(x, (float)w->cfg->embed_scale, n);
    if (w->positions.data) apr_rows_add(&w->positions, f->c.kern, f->rows[i_tok].pos, f->y + i_tok * n, x);
}

void apr_norm_row(const struct apr_forward *f, const struct apr_lnorm *w, const float *x, float *y)
{
    size_t n = f->w.cfg->n_hidden;
    float eps = (float)f->w.cfg->norm_eps;
    if (w->b)
        f->c.kern->layernorm(x, w->w, w->b, eps, y, n);
    else
        f->c.kern->rmsnorm(x, w->w, eps, y, n);
}

/* h = norm(x), in the layouts that the next matrices want. */
static void norm_token(const struct apr_token_job *j, size_t i_tok)
{
    const struct apr_forward *f = j->f;
    size_t n = f->w.cfg->n_hidden;
    apr_norm_row(f, j->norm, f->x + i_tok * n, f->h.f32 + i_tok * n);
    apr_acts_pack(&f->c, &f->h, j->wants, i_tok);
}

static void norm_tokens(struct apr_forward *f, const struct apr_lnorm *w, unsigned wants)
{
    apr_for_tokens(&(struct apr_token_job){.f = f, .fn = norm_token, .norm = w, .wants = wants});
}

/* x += scale * norm(y + bias): the residual. */
static void residual_token(const struct apr_token_job *j, size_t i_tok)
{
    const struct apr_forward *f = j->f;
    const struct apr_config *cfg = f->w.cfg;
    size_t n = cfg->n_hidden;
    float *x = f->x + i_tok * n, *y = f->y + i_tok * n;
    if (j->bias) f->c.kern->add(y, j->bias, n);
    if (j->post_norm) f->c.kern->rmsnorm(y, j->post_norm, (float)cfg->norm_eps, y, n);
    if (cfg->residual_scale > 0)
        f->c.kern->add_scaled(x, y, (float)cfg->residual_scale, n);
    else
        f->c.kern->add(x, y, n);
}

static void add_residual(struct apr_forward *f, const float *bias, const float *post_norm)
{
    apr_for_tokens(
        &(struct apr_token_job){.f = f, .fn = residual_token, .bias = bias, .post_norm = post_norm});
}

/* x += attention(norm(x)); x += ffn(norm(x)). Parallel: both read the same norm. */
static void layer(struct apr_forward *f, uint32_t i)
{
    const struct apr_layer *l = &f->w.layers[i];
    unsigned attn_wants = apr_attention_wants(f, l), ffn_wants = apr_ffn_wants(f, l);
    bool is_parallel = f->w.cfg->is_parallel;

    norm_tokens(f, &l->attn_norm, attn_wants | (is_parallel ? ffn_wants : 0));
    apr_forward_mark(f, APR_OP_ATTN_NORM, i);
    if (l->mla.kv_a.data)
        apr_mla_block(f, i);
    else
        apr_attention_block(f, i);
    add_residual(f, l->o.bias, l->post_attn_norm);
    apr_forward_mark(f, APR_OP_ATTN_ADD, i);

    if (!is_parallel) norm_tokens(f, &l->ffn_norm, ffn_wants);
    apr_forward_mark(f, APR_OP_FFN_NORM, i);
    if (l->is_moe)
        apr_moe_block(f, i);
    else
        apr_ffn_block(f, i);
    add_residual(f, l->is_moe ? NULL : l->ffn.down.bias, l->post_ffn_norm);
    apr_forward_mark(f, APR_OP_FFN_ADD, i);
}

void apr_forward_layers(struct apr_forward *f)
{
    apr_for_tokens(&(struct apr_token_job){.f = f, .fn = embed_token});
    apr_forward_mark(f, APR_OP_EMBED, 0);
    for (uint32_t i = 0; i < f->w.cfg->n_layers; i++) layer(f, i);
}

static enum apr_code floats_alloc(struct apr_forward *f, float **p, size_t n_cols, struct apr_err *e)
{
    size_t n = 0;
    if (ckd_mul(&n, n_cols, f->n_batch))
        return apr_fail(e, APR_ELOAD, "a chunk of %zu tokens is too large", f->n_batch);
    return apr_arena_try(&f->arena, p, n, sizeof **p, "activations", e);
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Room of the kernels for the widest matrix. */
static enum apr_code scratch_alloc(struct apr_forward *f, struct apr_err *e)
{
    const struct apr_config *c = f->w.cfg;
    size_t n_cols = larger(larger(c->n_hidden, c->n_inter), f->att.n_cols);
    n_cols = larger(n_cols, larger(c->mla.q_rank, c->mla.kv_rank));
    n_cols = larger(n_cols, larger(c->mla.n_nope, larger(c->moe.n_inter, c->moe.n_inter_shared)));
    f->c.scratch_bytes = (apr_kern_scratch_bytes(n_cols) + 63) / 64 * 64;
    return apr_arena_try(&f->arena, &f->c.scratch, f->c.scratch_bytes, apr_pool_threads(f->c.pool),
                         "kernel scratch", e);
}

static enum apr_code ropes_open(struct apr_forward *f, struct apr_err *e)
{
    const struct apr_config *c = f->w.cfg;
    struct apr_rope_from from = {.rope = &c->rope,
                                 .pairs = c->rope_pairs,
                                 .n_ctx_train = c->n_ctx_train,
                                 .freqs = f->w.rope_freqs,
                                 .long_freqs = f->w.rope_long,
                                 .short_freqs = f->w.rope_short};
    TRY(apr_rope_open(&f->rope, &from, f->n_batch, &f->arena, e));
    if (!(c->rope_local.theta > 0)) return APR_OK;
    from =
        (struct apr_rope_from){.rope = &c->rope_local, .pairs = c->rope_pairs, .n_ctx_train = c->n_ctx_train};
    return apr_rope_open(&f->rope_local, &from, f->n_batch, &f->arena, e);
}

static enum apr_code buffers_alloc(struct apr_forward *f, struct apr_err *e)
{
    const struct apr_config *c = f->w.cfg;
    bool is_latent = c->mla.kv_rank != 0, exact = f->c.exact;
    size_t n_q = (size_t)c->n_heads * c->head_dim;
    size_t n_kv = is_latent ? f->shape.k_dim : (size_t)c->n_heads_kv * c->head_dim;
    size_t n_att = is_latent ? (size_t)c->n_heads * c->mla.n_value : n_q;
    TRY(apr_acts_alloc(&f->h, f->n_batch, c->n_hidden, exact, &f->arena, e));
    TRY(apr_acts_alloc(&f->att, f->n_batch, n_att, exact, &f->arena, e));
    TRY(apr_acts_alloc(&f->ffn, f->n_batch, c->n_inter, exact, &f->arena, e));
    TRY(apr_arena_try(&f->arena, &f->rows, f->n_batch, sizeof *f->rows, "activations", e));
    TRY(apr_arena_try(&f->arena, &f->is_bad, f->n_batch, sizeof *f->is_bad, "activations", e));
    TRY(apr_arena_try(&f->arena, &f->spans, f->n_batch, sizeof *f->spans, "activations", e));
    TRY(floats_alloc(f, &f->x, c->n_hidden, e));
    TRY(floats_alloc(f, &f->y, c->n_hidden, e));
    TRY(floats_alloc(f, &f->q, n_q, e));
    TRY(floats_alloc(f, &f->k, n_kv, e));
    TRY(floats_alloc(f, &f->v, is_latent ? 0 : n_kv, e));
    TRY(floats_alloc(f, &f->gate, c->n_inter, e));
    TRY(scratch_alloc(f, e));
    TRY(ropes_open(f, e));
    TRY(apr_mla_open(f, e));
    return apr_moe_open(f, e);
}

enum apr_code apr_forward_open(struct apr_forward *f, const struct apr_checked_model *m,
                               const struct apr_kern *kern, struct apr_pool *pool, bool exact, size_t n_batch,
                               struct apr_err *e)
{
    *f = (struct apr_forward){.n_batch = n_batch, .c = {.kern = kern, .pool = pool, .exact = exact}};
    apr_arena_init(&f->arena);
    f->attn.arena = &f->arena;
    apr_strips_init(&f->strips, m->model, &f->arena);
    f->c.strips = &f->strips;
    TRY(apr_weights_bind(&f->w, m, kern, &f->arena, e));
    f->shape = apr_attn_shape_of(f->w.cfg);
    return buffers_alloc(f, e);
}

void apr_forward_close(struct apr_forward *f)
{
    apr_strips_close(&f->strips);
    apr_offload_close(f->offload);
    f->offload = NULL;
    apr_arena_free(&f->arena);
}

enum apr_code apr_forward_offload(struct apr_forward *f, const char *device, const struct apr_model *m,
                                  size_t n_ctx, struct apr_err *e)
{
    return apr_offload_open(&f->offload, device, f, m, n_ctx, e);
}

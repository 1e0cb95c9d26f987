/* The forward pass, in the order of the paper: embed, then for each layer attention and feed-forward around
 * a residual stream, then norm and head.
 *
 * Parallel regions per layer: QKV | attention | O | gate+up | down. What happens between them (norms,
 * rotation, quantization of activations) costs about a microsecond a token: for a few tokens the caller does
 * it alone while the workers spin, for more the tokens are split. */
#include "forward.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "blocks.h"
#include "ckd.h"

#define TOKS_ALONE  4u  /* up to so many tokens are not worth a parallel region */
#define TOKS_CHUNK  4u  /* of a parallel region over tokens */
#define LOGITS_ROWS 32u /* rows of the head that all_logits holds */

static void token_task(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    const struct apr_token_job *j = ctx;
    (void)i_thread;
    for (size_t i = i_begin; i < i_end; i++) j->fn(j, i);
}

void apr_for_tokens(struct apr_token_job *j)
{
    size_t n_toks = j->f->n_toks;
    if (n_toks <= TOKS_ALONE)
        token_task(j, 0, n_toks, 0);
    else
        apr_parallel_for(j->f->c.pool, n_toks, TOKS_CHUNK, token_task, j);
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

void apr_store_head(const struct apr_forward *f, struct apr_cache *cache, enum apr_cache_part part,
                    uint32_t i_layer, uint32_t i_head, size_t pos, const float *x)
{
    size_t d = part == APR_CACHE_K ? cache->k_dim : cache->v_dim;
    uint8_t *page = apr_cache_page(cache, part, i_layer, i_head, pos / APR_PAGE_POS);
    cache->types.at[part]->store(f->c.kern, x, page + pos % APR_PAGE_POS * cache->row_bytes[part], d);
}

const struct apr_rope_table *apr_rope_of(const struct apr_forward *f, const struct apr_layer *l)
{
    return l->is_local && f->rope_local.n_half ? &f->rope_local : &f->rope;
}

/* x = embedding row of the token, scaled, plus the row of its position. */
static void embed_token(const struct apr_token_job *j, size_t i_tok)
{
    const struct apr_forward *f = j->f;
    const struct apr_weights *w = &f->w;
    size_t n = w->cfg->n_hidden;
    float *x = f->x + i_tok * n;
    apr_rows_get(&w->embed, (size_t)j->ids[i_tok], x);
    if (w->cfg->embed_scale > 0) f->c.kern->scale(x, (float)w->cfg->embed_scale, n);
    if (w->positions.data) apr_rows_add(&w->positions, f->c.kern, f->pos0 + i_tok, f->y + i_tok * n, x);
}

/* y = norm(x), n_hidden values. */
static void norm(const struct apr_forward *f, const struct apr_lnorm *w, const float *x, float *y)
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
    norm(f, j->norm, f->x + i_tok * n, f->h.f32 + i_tok * n);
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
static void layer(struct apr_forward *f, struct apr_cache *cache, uint32_t i)
{
    const struct apr_layer *l = &f->w.layers[i];
    unsigned attn_wants = apr_attention_wants(f, l), ffn_wants = apr_ffn_wants(f, l);
    bool is_parallel = f->w.cfg->is_parallel;

    norm_tokens(f, &l->attn_norm, attn_wants | (is_parallel ? ffn_wants : 0));
    apr_forward_mark(f, APR_OP_ATTN_NORM, i);
    if (l->mla.kv_a.data)
        apr_mla_block(f, cache, i);
    else
        apr_attention_block(f, cache, i);
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
    TRY(apr_offload_open(&f->offload, device, f, m, n_ctx, e));
    if (!f->offload) return APR_OK;
    return apr_arena_try(&f->arena, &f->last_logits, f->w.cfg->n_vocab, sizeof *f->last_logits, "logits", e);
}

static enum apr_code check_tokens(const struct apr_forward *f, const struct apr_cache *cache,
                                  const int32_t *ids, size_t n, struct apr_err *e)
{
    const struct apr_config *cfg = f->w.cfg;
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= cfg->n_vocab)
            return apr_fail(e, APR_EUSAGE, "token %zu has id %" PRId32 ", the embedding has %" PRIu32 " rows",
                            cache->n_pos + i, ids[i], cfg->n_vocab);
    if (cfg->n_positions && cache->n_pos + n > cfg->n_positions)
        return apr_fail(e, APR_EUSAGE, "%zu tokens, the model has rows for %" PRIu32 " positions",
                        cache->n_pos + n, cfg->n_positions);
    return APR_OK;
}

/* The device computes any number of tokens at once; the logits of the last one are kept. */
static enum apr_code run_offload(struct apr_forward *f, struct apr_cache *cache, const int32_t *ids, size_t n,
                                 struct apr_err *e)
{
    TRY(check_tokens(f, cache, ids, n, e));
    f->pos0 = cache->n_pos + n - 1;
    f->n_toks = 1;
    return apr_offload_run(f->offload, cache, ids, n, 1, f->last_logits, e);
}

/* n tokens of a sequence that will have n_seq. */
static enum apr_code run_chunk(struct apr_forward *f, struct apr_cache *cache, const int32_t *ids, size_t n,
                               size_t n_seq, struct apr_err *e)
{
    TRY(check_tokens(f, cache, ids, n, e));
    TRY(apr_cache_reserve(cache, cache->n_pos + n, e));
    TRY(apr_attention_room(&f->attn, &f->c, &f->shape, cache->n_pos + n, e));
    f->pos0 = cache->n_pos;
    f->n_toks = f->h.n_toks = f->att.n_toks = f->ffn.n_toks = n;
    memmove(cache->ids + cache->n_pos, ids, n * sizeof *ids);
    apr_rope_at(&f->rope, f->pos0, n, n_seq);
    apr_rope_at(&f->rope_local, f->pos0, n, n_seq);
    apr_for_tokens(&(struct apr_token_job){.f = f, .fn = embed_token, .ids = ids});
    apr_forward_mark(f, APR_OP_EMBED, 0);
    for (uint32_t i = 0; i < f->w.cfg->n_layers; i++) layer(f, cache, i);
    cache->n_pos += n;
    return APR_OK;
}

/* Longrope has one rotation for short sequences and one for long ones: where the sequence changes sides, what
 * is in the cache is computed again, as transformers does. */
static enum apr_code choose_rotation(struct apr_forward *f, struct apr_cache *cache, size_t n_seq,
                                     struct apr_err *e)
{
    bool is_long = apr_rope_is_long(&f->rope, n_seq);
    size_t n_again = cache->n_pos;
    if (is_long == cache->is_long) return APR_OK;
    cache->is_long = is_long;
    cache->n_pos = 0;
    while (cache->n_pos < n_again) {
        size_t n = n_again - cache->n_pos;
        TRY(run_chunk(f, cache, cache->ids + cache->n_pos, n < f->n_batch ? n : f->n_batch, n_seq, e));
    }
    return APR_OK;
}

enum apr_code apr_forward_chunk(struct apr_forward *f, struct apr_cache *cache, const int32_t *ids, size_t n,
                                struct apr_err *e)
{
    size_t n_seq = cache->n_pos + n;
    if (f->offload) return run_offload(f, cache, ids, n, e);
    TRY(choose_rotation(f, cache, n_seq, e));
    return run_chunk(f, cache, ids, n, n_seq, e);
}

enum apr_code apr_forward_prompt(struct apr_forward *f, struct apr_cache *cache, const int32_t *ids, size_t n,
                                 struct apr_err *e)
{
    size_t n_seq = cache->n_pos + n;
    if (f->offload) return run_offload(f, cache, ids, n, e);
    TRY(choose_rotation(f, cache, n_seq, e));
    for (size_t i = 0; i < n; i += f->n_batch)
        TRY(run_chunk(f, cache, ids + i, n - i < f->n_batch ? n - i : f->n_batch, n_seq, e));
    return APR_OK;
}

/* Exponent all ones. Integer arithmetic, so that the loop vectorises. */
static bool all_finite(const float *x, size_t n)
{
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}

/* Bias, scale and cap of n_rows rows of logits. */
static void finish_logits(const struct apr_forward *f, float *logits, size_t n_rows)
{
    const struct apr_config *cfg = f->w.cfg;
    size_t n = cfg->n_vocab;
    for (size_t i = 0; i < n_rows; i++, logits += n) {
        if (f->w.head.bias) f->c.kern->add(logits, f->w.head.bias, n);
        if (cfg->logit_scale > 0) f->c.kern->scale(logits, (float)cfg->logit_scale, n);
        if (cfg->logit_softcap > 0) f->c.kern->softcap(logits, (float)cfg->logit_softcap, n);
    }
}

static void compute_logits(struct apr_forward *f, size_t i_tok, size_t n_rows, float *logits)
{
    const struct apr_config *cfg = f->w.cfg;
    struct apr_acts h = f->h; /* rows i_tok .. only */
    h.n_toks = n_rows;
    unsigned wants = apr_mat_wants(&f->w.head, f->c.exact);
    for (size_t i = 0; i < n_rows; i++) {
        norm(f, &f->w.final_norm, f->x + (i_tok + i) * cfg->n_hidden, h.f32 + i * cfg->n_hidden);
        apr_acts_pack(&f->c, &h, wants, i);
    }
    apr_forward_mark(f, APR_OP_FINAL_NORM, cfg->n_layers);
    const struct apr_product head[] = {{&f->w.head, logits}};
    apr_linear(&f->c, &h, head, 1);
    finish_logits(f, logits, n_rows);
    apr_forward_mark(f, APR_OP_HEAD, cfg->n_layers);
}

static enum apr_code check_logits(const struct apr_forward *f, size_t i_tok, size_t n_rows,
                                  const float *logits, struct apr_err *e)
{
    size_t n = f->w.cfg->n_vocab;
    for (size_t i = 0; i < n_rows; i++)
        if (!all_finite(logits + i * n, n))
            return apr_fail(e, APR_EINFER, "the logits after token %zu contain NaN or Inf",
                            f->pos0 + i_tok + i);
    return APR_OK;
}

void apr_forward_hidden(const struct apr_forward *f, size_t i_tok, size_t n_rows, float *hidden)
{
    const size_t n = f->w.cfg->n_hidden;
    for (size_t i = 0; i < n_rows; i++) norm(f, &f->w.final_norm, f->x + (i_tok + i) * n, hidden + i * n);
}

enum apr_code apr_forward_logits(struct apr_forward *f, size_t i_tok, size_t n_rows, float *logits,
                                 struct apr_err *e)
{
    if (f->offload)
        memcpy(logits, f->last_logits, f->w.cfg->n_vocab * sizeof *logits);
    else
        compute_logits(f, i_tok, n_rows, logits);
    return check_logits(f, i_tok, n_rows, logits, e);
}

enum apr_code apr_forward_rows(struct apr_forward *f, struct apr_cache *cache, const int32_t *ids, size_t n,
                               float *logits, struct apr_err *e)
{
    if (f->offload) {
        f->pos0 = cache->n_pos;
        TRY(check_tokens(f, cache, ids, n, e));
        TRY(apr_offload_run(f->offload, cache, ids, n, n, logits, e));
        return check_logits(f, 0, n, logits, e);
    }
    TRY(apr_forward_chunk(f, cache, ids, n, e));
    return apr_forward_logits(f, 0, n, logits, e);
}

/* All rows of n tokens from the device, in as many calls as its chunks take. */
static enum apr_code offload_rows(struct apr_forward *f, struct apr_cache *cache, const int32_t *ids,
                                  size_t n, size_t n_rows_most, float *logits, apr_take_rows_fn *take,
                                  void *ctx, struct apr_err *e)
{
    for (size_t i = 0; i < n; i += n_rows_most) {
        size_t n_rows = n - i < n_rows_most ? n - i : n_rows_most;
        f->pos0 = cache->n_pos;
        TRY(check_tokens(f, cache, ids + i, n_rows, e));
        TRY(apr_offload_run(f->offload, cache, ids + i, n_rows, n_rows, logits, e));
        TRY(check_logits(f, 0, n_rows, logits, e));
        TRY(take(ctx, i, n_rows, logits, e));
    }
    return APR_OK;
}

enum apr_code apr_forward_all_logits(struct apr_forward *f, struct apr_cache *cache, const int32_t *ids,
                                     size_t n, apr_take_rows_fn *take, void *ctx, struct apr_err *e)
{
    float *logits = NULL;
    size_t n_rows_most = f->n_batch < LOGITS_ROWS ? f->n_batch : LOGITS_ROWS;
    struct apr_arena arena;
    apr_arena_init(&arena);
    size_t n_seq = cache->n_pos + n;
    enum apr_code code =
        apr_arena_try(&arena, &logits, n_rows_most * (size_t)f->w.cfg->n_vocab, sizeof *logits, "logits", e);
    if (code == APR_OK && f->offload) {
        code = offload_rows(f, cache, ids, n, n_rows_most, logits, take, ctx, e);
        n = 0;
    }
    if (code == APR_OK && n) code = choose_rotation(f, cache, n_seq, e);
    for (size_t i = 0; i < n && code == APR_OK; i += f->n_toks) {
        code = run_chunk(f, cache, ids + i, n - i < f->n_batch ? n - i : f->n_batch, n_seq, e);
        for (size_t r = 0; r < f->n_toks && code == APR_OK; r += n_rows_most) {
            size_t n_rows = f->n_toks - r < n_rows_most ? f->n_toks - r : n_rows_most;
            code = apr_forward_logits(f, r, n_rows, logits, e);
            if (code == APR_OK) code = take(ctx, i + r, n_rows, logits, e);
        }
    }
    apr_arena_free(&arena);
    return code;
}

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

#include "ckd.h"

#define TOKS_ALONE  4u  /* up to so many tokens are not worth a parallel region */
#define TOKS_CHUNK  4u  /* of a parallel region over tokens */
#define LOGITS_ROWS 32u /* rows of the head that all_logits holds */

struct token_job {
    struct apr_forward *f;
    void (*fn)(const struct token_job *j, size_t i_tok);
    const struct apr_layer *layer;
    const float *norm;
    struct apr_cache *cache;
    uint32_t i_layer;
    const struct apr_acts *acts;
    unsigned wants;
    const int32_t *ids;
};

static void token_task(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    const struct token_job *j = ctx;
    (void)i_thread;
    for (size_t i = i_begin; i < i_end; i++) j->fn(j, i);
}

static void for_tokens(struct token_job *j, size_t n_toks)
{
    if (n_toks <= TOKS_ALONE)
        token_task(j, 0, n_toks, 0);
    else
        apr_parallel_for(j->f->c.pool, n_toks, TOKS_CHUNK, token_task, j);
}

/* x = embedding row of the token. */
static void embed_token(const struct token_job *j, size_t i_tok)
{
    const struct apr_forward *f = j->f;
    const struct apr_weights *w = &f->w;
    size_t n = w->cfg->n_hidden;
    w->embed_to_f32(w->embed + (size_t)j->ids[i_tok] * w->embed_row_bytes, f->x + i_tok * n, n);
}

/* h = norm(x), in the layouts that the next matrices want. */
static void norm_token(const struct token_job *j, size_t i_tok)
{
    const struct apr_forward *f = j->f;
    size_t n = f->w.cfg->n_hidden;
    f->c.kern->rmsnorm(f->x + i_tok * n, j->norm, (float)f->w.cfg->norm_eps, f->h.f32 + i_tok * n, n);
    apr_acts_pack(&f->c, &f->h, j->wants, i_tok);
}

/* x += y: the residual. */
static void residual_token(const struct token_job *j, size_t i_tok)
{
    const struct apr_forward *f = j->f;
    size_t n = f->w.cfg->n_hidden;
    f->c.kern->add(f->x + i_tok * n, f->y + i_tok * n, n);
}

static void pack_token(const struct token_job *j, size_t i_tok)
{
    apr_acts_pack(&j->f->c, j->acts, j->wants, i_tok);
}

static void add_bias(const struct apr_forward *f, const struct apr_mat *m, float *y)
{
    if (m->bias) f->c.kern->add(y, m->bias, m->n_rows);
}

static void store_head(const struct token_job *j, enum apr_cache_part part, uint32_t i_head, size_t pos,
                       const float *x)
{
    const struct apr_forward *f = j->f;
    size_t d = f->w.cfg->head_dim, off = pos % APR_PAGE_POS * d;
    void *page = apr_cache_page(j->cache, part, j->i_layer, i_head, pos / APR_PAGE_POS);
    if (j->cache->is_f32)
        memcpy((float *)page + off, x, d * sizeof *x);
    else
        f->c.kern->f32_to_f16(x, (uint16_t *)page + off, d);
}

/* Biases, then rotation of q and k by the token's position, then keys and values go into the cache. */
static void rotate_and_store_token(const struct token_job *j, size_t i_tok)
{
    const struct apr_forward *f = j->f;
    const struct apr_config *cfg = f->w.cfg;
    size_t d = cfg->head_dim, n_q = cfg->n_heads * d, n_kv = cfg->n_heads_kv * d;
    float *q = f->q + i_tok * n_q, *k = f->k + i_tok * n_kv, *v = f->v + i_tok * n_kv;
    const float *cos = f->cos + i_tok * (d / 2), *sin = f->sin + i_tok * (d / 2);
    add_bias(f, &j->layer->q, q);
    add_bias(f, &j->layer->k, k);
    add_bias(f, &j->layer->v, v);
    for (uint32_t h = 0; h < cfg->n_heads; h++) f->c.kern->rope_half(q + h * d, cos, sin, d);
    for (uint32_t h = 0; h < cfg->n_heads_kv; h++) {
        f->c.kern->rope_half(k + h * d, cos, sin, d);
        store_head(j, APR_CACHE_K, h, f->pos0 + i_tok, k + h * d);
        store_head(j, APR_CACHE_V, h, f->pos0 + i_tok, v + h * d);
    }
}

/* x += Wo attention(rope(Wq h + bq), rope(Wk h + bk), Wv h + bv), h = norm(x) */
static void attention_block(struct apr_forward *f, struct apr_cache *cache, uint32_t i_layer)
{
    const struct apr_layer *l = &f->w.layers[i_layer];
    bool exact = f->c.exact;
    unsigned wants = apr_mat_wants(&l->q, exact) | apr_mat_wants(&l->k, exact) | apr_mat_wants(&l->v, exact);
    struct token_job j = {.f = f, .layer = l, .cache = cache, .i_layer = i_layer};

    j.fn = norm_token, j.norm = l->attn_norm, j.wants = wants;
    for_tokens(&j, f->n_toks);
    const struct apr_product qkv[] = {{&l->q, f->q}, {&l->k, f->k}, {&l->v, f->v}};
    apr_linear(&f->c, &f->h, qkv, 3);

    j.fn = rotate_and_store_token;
    for_tokens(&j, f->n_toks);
    apr_attention(&f->attn, &f->c, f->w.cfg, cache, i_layer, f->pos0, f->n_toks, f->q, f->att.f32);

    j.fn = pack_token, j.acts = &f->att, j.wants = apr_mat_wants(&l->o, exact);
    for_tokens(&j, f->n_toks);
    const struct apr_product o[] = {{&l->o, f->y}};
    apr_linear(&f->c, &f->att, o, 1);

    j.fn = residual_token;
    for_tokens(&j, f->n_toks);
}

/* x += Wdown (silu(Wgate h) * Wup h), h = norm(x) */
static void ffn_block(struct apr_forward *f, uint32_t i_layer)
{
    const struct apr_layer *l = &f->w.layers[i_layer];
    bool exact = f->c.exact;
    struct token_job j = {.f = f, .layer = l, .i_layer = i_layer};

    j.fn = norm_token, j.norm = l->ffn_norm;
    j.wants = apr_mat_wants(&l->gate, exact) | apr_mat_wants(&l->up, exact);
    for_tokens(&j, f->n_toks);
    apr_linear_swiglu(&f->c, &f->h, &l->gate, &l->up, f->ffn.f32, f->up);

    j.fn = pack_token, j.acts = &f->ffn, j.wants = apr_mat_wants(&l->down, exact);
    for_tokens(&j, f->n_toks);
    const struct apr_product down[] = {{&l->down, f->y}};
    apr_linear(&f->c, &f->ffn, down, 1);

    j.fn = residual_token;
    for_tokens(&j, f->n_toks);
}

/* Angles in double: position * theta^(-2i/d). */
static void rope_tables(struct apr_forward *f)
{
    size_t n_half = f->w.cfg->head_dim / 2;
    for (size_t t = 0; t < f->n_toks; t++)
        for (size_t i = 0; i < n_half; i++) {
            double angle = (double)(f->pos0 + t) * f->inv_freq[i];
            f->cos[t * n_half + i] = (float)cos(angle);
            f->sin[t * n_half + i] = (float)sin(angle);
        }
}

static enum apr_code acts_alloc(struct apr_forward *f, struct apr_acts *a, size_t n_cols, struct apr_err *e)
{
    size_t n = 0;
    a->n_cols = n_cols;
    if (ckd_mul(&n, n_cols, f->n_batch))
        return apr_fail(e, APR_ELOAD, "a chunk of %zu tokens is too large", f->n_batch);
    TRY(apr_arena_try(&f->arena, &a->f32, n, sizeof *a->f32, "activations", e));
    if (f->c.exact) return APR_OK;
    TRY(apr_arena_try(&f->arena, &a->q32, n_cols / 32 * f->n_batch, sizeof *a->q32, "activations", e));
    return apr_arena_try(&f->arena, &a->q256, n_cols / 256 * f->n_batch, sizeof *a->q256, "activations", e);
}

static enum apr_code floats_alloc(struct apr_forward *f, float **p, size_t n_cols, struct apr_err *e)
{
    size_t n = 0;
    if (ckd_mul(&n, n_cols, f->n_batch))
        return apr_fail(e, APR_ELOAD, "a chunk of %zu tokens is too large", f->n_batch);
    return apr_arena_try(&f->arena, p, n, sizeof **p, "activations", e);
}

static enum apr_code buffers_alloc(struct apr_forward *f, struct apr_err *e)
{
    const struct apr_config *cfg = f->w.cfg;
    size_t d = cfg->head_dim, n_q = cfg->n_heads * d, n_kv = cfg->n_heads_kv * d;
    TRY(acts_alloc(f, &f->h, cfg->n_hidden, e));
    TRY(acts_alloc(f, &f->att, n_q, e));
    TRY(acts_alloc(f, &f->ffn, cfg->n_inter, e));
    TRY(floats_alloc(f, &f->x, cfg->n_hidden, e));
    TRY(floats_alloc(f, &f->y, cfg->n_hidden, e));
    TRY(floats_alloc(f, &f->q, n_q, e));
    TRY(floats_alloc(f, &f->k, n_kv, e));
    TRY(floats_alloc(f, &f->v, n_kv, e));
    TRY(floats_alloc(f, &f->up, cfg->n_inter, e));
    TRY(floats_alloc(f, &f->cos, d / 2, e));
    TRY(floats_alloc(f, &f->sin, d / 2, e));
    size_t n_cols = cfg->n_hidden > cfg->n_inter ? cfg->n_hidden : cfg->n_inter;
    if (n_q > n_cols) n_cols = n_q;
    f->c.scratch_bytes = (apr_kern_scratch_bytes(n_cols) + 63) / 64 * 64;
    TRY(apr_arena_try(&f->arena, &f->c.scratch, f->c.scratch_bytes, apr_pool_threads(f->c.pool),
                      "kernel scratch", e));
    TRY(apr_arena_try(&f->arena, &f->inv_freq, d / 2, sizeof *f->inv_freq, "rotation table", e));
    for (size_t i = 0; i < d / 2; i++) f->inv_freq[i] = pow(cfg->rope_theta, -2.0 * (double)i / (double)d);
    return APR_OK;
}

enum apr_code apr_forward_open(struct apr_forward *f, const struct apr_checked_model *m,
                               const struct apr_kern *kern, struct apr_pool *pool, bool exact, size_t n_batch,
                               struct apr_err *e)
{
    *f = (struct apr_forward){.n_batch = n_batch, .c = {.kern = kern, .pool = pool, .exact = exact}};
    apr_arena_init(&f->arena);
    f->attn.arena = &f->arena;
    TRY(apr_weights_bind(&f->w, m, kern, &f->arena, e));
    return buffers_alloc(f, e);
}

void apr_forward_close(struct apr_forward *f)
{
    apr_arena_free(&f->arena);
}

enum apr_code apr_forward_chunk(struct apr_forward *f, struct apr_cache *cache, const int32_t *ids, size_t n,
                                struct apr_err *e)
{
    const struct apr_config *cfg = f->w.cfg;
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= cfg->n_vocab)
            return apr_fail(e, APR_EUSAGE, "token %zu has id %" PRId32 ", the embedding has %" PRIu32 " rows",
                            cache->n_pos + i, ids[i], cfg->n_vocab);
    TRY(apr_cache_reserve(cache, cache->n_pos + n, e));
    TRY(apr_attention_room(&f->attn, &f->c, cfg, cache->n_pos + n, e));
    f->pos0 = cache->n_pos;
    f->n_toks = f->h.n_toks = f->att.n_toks = f->ffn.n_toks = n;
    rope_tables(f);
    struct token_job j = {.f = f, .fn = embed_token, .ids = ids};
    for_tokens(&j, n);
    for (uint32_t i = 0; i < cfg->n_layers; i++) {
        attention_block(f, cache, i);
        ffn_block(f, i);
    }
    cache->n_pos += n;
    return APR_OK;
}

enum apr_code apr_forward_prompt(struct apr_forward *f, struct apr_cache *cache, const int32_t *ids, size_t n,
                                 struct apr_err *e)
{
    for (size_t i = 0; i < n; i += f->n_batch)
        TRY(apr_forward_chunk(f, cache, ids + i, n - i < f->n_batch ? n - i : f->n_batch, e));
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

enum apr_code apr_forward_logits(struct apr_forward *f, size_t i_tok, size_t n_rows, float *logits,
                                 struct apr_err *e)
{
    const struct apr_config *cfg = f->w.cfg;
    struct apr_acts h = f->h; /* rows i_tok .. only */
    h.n_toks = n_rows;
    unsigned wants = apr_mat_wants(&f->w.head, f->c.exact);
    for (size_t i = 0; i < n_rows; i++) {
        f->c.kern->rmsnorm(f->x + (i_tok + i) * cfg->n_hidden, f->w.final_norm, (float)cfg->norm_eps,
                           h.f32 + i * cfg->n_hidden, cfg->n_hidden);
        apr_acts_pack(&f->c, &h, wants, i);
    }
    const struct apr_product head[] = {{&f->w.head, logits}};
    apr_linear(&f->c, &h, head, 1);
    for (size_t i = 0; i < n_rows; i++)
        if (!all_finite(logits + i * cfg->n_vocab, cfg->n_vocab))
            return apr_fail(e, APR_EINFER, "the logits after token %zu contain NaN or Inf",
                            f->pos0 + i_tok + i);
    return APR_OK;
}

enum apr_code apr_forward_all_logits(struct apr_forward *f, struct apr_cache *cache, const int32_t *ids,
                                     size_t n,
                                     enum apr_code (*take)(void *ctx, size_t i_tok, size_t n_rows,
                                                           const float *logits, struct apr_err *e),
                                     void *ctx, struct apr_err *e)
{
    float *logits = NULL;
    size_t n_rows_most = f->n_batch < LOGITS_ROWS ? f->n_batch : LOGITS_ROWS;
    struct apr_arena arena;
    apr_arena_init(&arena);
    enum apr_code code =
        apr_arena_try(&arena, &logits, n_rows_most * (size_t)f->w.cfg->n_vocab, sizeof *logits, "logits", e);
    for (size_t i = 0; i < n && code == APR_OK; i += f->n_toks) {
        code = apr_forward_chunk(f, cache, ids + i, n - i < f->n_batch ? n - i : f->n_batch, e);
        for (size_t r = 0; r < f->n_toks && code == APR_OK; r += n_rows_most) {
            size_t n_rows = f->n_toks - r < n_rows_most ? f->n_toks - r : n_rows_most;
            code = apr_forward_logits(f, r, n_rows, logits, e);
            if (code == APR_OK) code = take(ctx, i + r, n_rows, logits, e);
        }
    }
    apr_arena_free(&arena);
    return code;
}

/* One row of `sources` for every step that is shown. See inside.h. */
#include "inside.h"

#include <string.h>

/* Row i_tok of a buffer and its length; NULL where the layer does not fill it. */
typedef const float *row_fn(const struct apr_forward *f, const struct apr_layer *l, size_t i_tok, size_t *n);

static const float *normed(const struct apr_forward *f, const struct apr_layer *l, size_t i_tok, size_t *n)
{
    (void)l;
    *n = f->h.n_cols;
    return f->h.f32 + i_tok * *n;
}
static const float *added(const struct apr_forward *f, const struct apr_layer *l, size_t i_tok, size_t *n)
{
    (void)l;
    *n = f->w.cfg->n_hidden;
    return f->y + i_tok * *n;
}
static const float *query(const struct apr_forward *f, const struct apr_layer *l, size_t i_tok, size_t *n)
{
    *n = (size_t)f->w.cfg->n_heads * f->w.cfg->head_dim;
    return l->mla.kv_a.data ? NULL : f->q + i_tok * *n;
}
static const float *key(const struct apr_forward *f, const struct apr_layer *l, size_t i_tok, size_t *n)
{
    *n = (size_t)f->w.cfg->n_heads_kv * f->w.cfg->head_dim;
    return l->mla.kv_a.data ? NULL : f->k + i_tok * *n;
}
static const float *value(const struct apr_forward *f, const struct apr_layer *l, size_t i_tok, size_t *n)
{
    *n = (size_t)f->w.cfg->n_heads_kv * f->w.cfg->head_dim;
    return l->mla.kv_a.data ? NULL : f->v + i_tok * *n;
}
static const float *attended(const struct apr_forward *f, const struct apr_layer *l, size_t i_tok, size_t *n)
{
    *n = f->att.n_cols;
    return l->mla.kv_a.data ? NULL : f->att.f32 + i_tok * *n;
}
static const float *gated(const struct apr_forward *f, const struct apr_layer *l, size_t i_tok, size_t *n)
{
    *n = f->ffn.n_cols;
    return l->is_moe ? NULL : f->ffn.f32 + i_tok * *n;
}

static const struct source {
    enum apr_op op;
    const char *name;
    row_fn *row;
} sources[] = {
    {APR_OP_ATTN_NORM, "attn_norm", normed},
    {APR_OP_QKV, "q", query},
    {APR_OP_QKV, "k", key},
    {APR_OP_QKV, "v", value},
    {APR_OP_ROPE, "q_rotated", query},
    {APR_OP_ATTENTION, "attention", attended},
    {APR_OP_ATTN_OUT, "attn_out", added},
    {APR_OP_FFN_NORM, "ffn_norm", normed},
    {APR_OP_FFN_UP, "ffn_gated", gated},
    {APR_OP_FFN_DOWN, "ffn_out", added},
    {APR_OP_EXPERTS, "experts_out", added},
};
#define N_SOURCES (sizeof sources / sizeof *sources)
_Static_assert(N_SOURCES + 2 <= APR_INSIDE_MOST + 1, "a layer has ffn_out or experts_out, not both");

static bool is_of(const struct source *s, const struct apr_layer *l)
{
    return s->op == APR_OP_FFN_DOWN ? !l->is_moe : s->op == APR_OP_EXPERTS ? l->is_moe : true;
}

static enum apr_code add_step(struct apr_inside *in, const char *name, size_t n, struct apr_arena *arena,
                              struct apr_err *e)
{
    struct apr_inside_step *s = &in->steps[in->n_steps];
    *s = (struct apr_inside_step){.name = name, .n = n};
    TRY(apr_arena_try(arena, &s->values, n, sizeof *s->values, "values of a step", e));
    in->n_steps++;
    return APR_OK;
}

enum apr_code apr_inside_init(struct apr_inside *in, const struct apr_forward *f, uint32_t i_layer,
                              struct apr_arena *arena, struct apr_err *e)
{
    *in = (struct apr_inside){.f = f, .i_layer = i_layer};
    const struct apr_layer *l = &f->w.layers[i_layer];
    for (size_t i = 0; i < N_SOURCES; i++) {
        size_t n;
        if (is_of(&sources[i], l) && sources[i].row(f, l, 0, &n))
            TRY(add_step(in, sources[i].name, n, arena, e));
    }
    return APR_OK;
}

void apr_inside_see(struct apr_inside *in, enum apr_op op, uint32_t i_layer)
{
    const struct apr_forward *f = in->f;
    if (i_layer != in->i_layer) return;
    for (size_t i = 0; i < N_SOURCES; i++) {
        size_t n;
        if (sources[i].op != op) continue;
        const float *row = sources[i].row(f, &f->w.layers[i_layer], f->n_toks - 1, &n);
        for (size_t k = 0; row && k < in->n_steps; k++)
            if (!strcmp(in->steps[k].name, sources[i].name))
                memcpy(in->steps[k].values, row, n * sizeof *row);
    }
}

enum apr_code apr_inside_cached(struct apr_inside *in, const struct apr_cache *cache, struct apr_arena *arena,
                                struct apr_err *e)
{
    static const char *const names[APR_CACHE_N_PARTS] = {"k_cached", "v_cached"};
    const struct apr_blocks *b = cache->blocks;
    const size_t dims[APR_CACHE_N_PARTS] = {b->k_dim, b->v_dim};
    const struct apr_kern *kern = in->f->c.kern;
    const size_t pos = cache->n_pos - 1;
    for (size_t part = 0; part < APR_CACHE_N_PARTS; part++) {
        if (!b->row_bytes[part]) continue; /* latent attention: its values are columns of the keys */
        TRY(add_step(in, names[part], b->n_heads_kv * dims[part], arena, e));
        float *to = in->steps[in->n_steps - 1].values;
        for (uint32_t h = 0; h < b->n_heads_kv; h++, to += dims[part]) {
            const uint8_t *page =
                apr_cache_page(cache, (enum apr_cache_part)part, in->i_layer, h, pos / APR_PAGE_POS);
            kern->to_f32[b->types.at[part]->type](page + pos % APR_PAGE_POS * b->row_bytes[part], to,
                                                  dims[part]);
        }
    }
    return APR_OK;
}

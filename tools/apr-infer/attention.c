/* Attention: softmax(q K^T / sqrt(d)) V, two passes over the pages of one KV head. */
#include "attention.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "ckd.h"

#define MAX_TILE_TOKS 8u
#define TARGET_SCORES (64u << 10) /* floats: a tile's scores should stay in the second-level cache */

struct job {
    const struct apr_attn_room *room;
    const struct apr_compute *c;
    const struct apr_config *cfg;
    const struct apr_cache *cache;
    uint32_t i_layer;
    size_t pos0, n_toks;
    const float *q;
    float *out;
    size_t n_tile_toks; /* tokens of a tile */
    uint32_t n_parts;   /* the group of query heads of one KV head is split into so many */
    uint32_t n_group;   /* heads of a part, the last may have fewer */
    float scale;
};

/* One unit of work: tokens [t0, t0 + n_toks), query heads [head0, head0 + n_heads) of KV head i_kv. Rows of
 * q, out and scores are (token, head), head fastest. */
struct tile {
    size_t t0, n_toks, pos0; /* pos0: position of token t0 */
    uint32_t i_kv, head0, n_heads;
    float *scores; /* [n_toks * n_heads, s_stride] */
    size_t s_stride;
    float *q, *out; /* [n_toks * n_heads, head_dim] */
};

static size_t round_up(size_t n, size_t multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

static void page_scores(const struct job *j, const struct tile *w, size_t row0, size_t n_rows, size_t i_block,
                        size_t n_pos)
{
    size_t d = j->cfg->head_dim;
    const void *k = apr_cache_page(j->cache, APR_CACHE_K, j->i_layer, w->i_kv, i_block);
    float *s = w->scores + row0 * w->s_stride + i_block * APR_PAGE_POS;
    const float *q = w->q + row0 * d;
    if (j->cache->is_f32)
        j->c->kern->attn_scores_f32(q, n_rows, k, d, n_pos, d, j->scale, s, w->s_stride);
    else
        j->c->kern->attn_scores_f16(q, n_rows, k, d, n_pos, d, j->scale, s, w->s_stride);
}

static void page_values(const struct job *j, const struct tile *w, size_t row0, size_t n_rows, size_t i_block,
                        size_t n_pos)
{
    size_t d = j->cfg->head_dim;
    const void *v = apr_cache_page(j->cache, APR_CACHE_V, j->i_layer, w->i_kv, i_block);
    const float *s = w->scores + row0 * w->s_stride + i_block * APR_PAGE_POS;
    float *out = w->out + row0 * d;
    if (j->cache->is_f32)
        j->c->kern->attn_values_f32(s, w->s_stride, n_rows, v, d, n_pos, d, out);
    else
        j->c->kern->attn_values_f16(s, w->s_stride, n_rows, v, d, n_pos, d, out);
}

typedef void page_fn(const struct job *j, const struct tile *w, size_t row0, size_t n_rows, size_t i_block,
                     size_t n_pos);

/* Pages that every token of the tile sees whole are taken for all rows at once, the rest token by token, so
 * that nothing after a token's own position is ever multiplied in (0 * Inf would be NaN). */
static void for_pages(const struct job *j, const struct tile *w, page_fn *fn)
{
    size_t n_common = (w->pos0 + 1) / APR_PAGE_POS;
    for (size_t b = 0; b < n_common; b++) fn(j, w, 0, w->n_toks * w->n_heads, b, APR_PAGE_POS);
    for (size_t t = 0; t < w->n_toks; t++) {
        size_t n_pos = w->pos0 + t + 1;
        for (size_t b = n_common; b * APR_PAGE_POS < n_pos; b++) {
            size_t n_left = n_pos - b * APR_PAGE_POS;
            fn(j, w, t * w->n_heads, w->n_heads, b, n_left < APR_PAGE_POS ? n_left : APR_PAGE_POS);
        }
    }
}

static void attend(const struct job *j, const struct tile *w)
{
    size_t d = j->cfg->head_dim, n_head_row = w->n_heads * d;
    size_t n_row = (size_t)j->cfg->n_heads * d, off_head = w->head0 * d;
    for (size_t t = 0; t < w->n_toks; t++)
        memcpy(w->q + t * n_head_row, j->q + (w->t0 + t) * n_row + off_head, n_head_row * sizeof(float));
    for_pages(j, w, page_scores);
    for (size_t t = 0; t < w->n_toks; t++)
        for (size_t h = 0; h < w->n_heads; h++)
            j->c->kern->softmax(w->scores + (t * w->n_heads + h) * w->s_stride, w->pos0 + t + 1);
    memset(w->out, 0, w->n_toks * n_head_row * sizeof(float));
    for_pages(j, w, page_values);
    for (size_t t = 0; t < w->n_toks; t++)
        memcpy(j->out + (w->t0 + t) * n_row + off_head, w->out + t * n_head_row, n_head_row * sizeof(float));
}

static void attention_task(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    const struct job *j = ctx;
    uint32_t n_heads_group = j->cfg->n_heads / j->cfg->n_heads_kv;
    float *room = j->room->at + i_thread * j->room->n_floats;
    for (size_t i = i_begin; i < i_end; i++) {
        size_t i_part = i % j->n_parts, i_kv = i / j->n_parts % j->cfg->n_heads_kv;
        size_t i_tile = i / j->n_parts / j->cfg->n_heads_kv;
        uint32_t head_in_group = (uint32_t)i_part * j->n_group;
        if (head_in_group >= n_heads_group) continue;
        struct tile w = {.t0 = i_tile * j->n_tile_toks, .i_kv = (uint32_t)i_kv};
        w.n_toks = j->n_toks - w.t0 < j->n_tile_toks ? j->n_toks - w.t0 : j->n_tile_toks;
        w.pos0 = j->pos0 + w.t0;
        w.head0 = w.i_kv * n_heads_group + head_in_group;
        w.n_heads = n_heads_group - head_in_group < j->n_group ? n_heads_group - head_in_group : j->n_group;
        w.s_stride = round_up(w.pos0 + w.n_toks, APR_PAGE_POS);
        w.scores = room;
        w.q = room + j->room->n_scores;
        w.out = w.q + (size_t)MAX_TILE_TOKS * n_heads_group * j->cfg->head_dim;
        attend(j, &w);
    }
}

enum apr_code apr_attention_room(struct apr_attn_room *room, const struct apr_compute *c,
                                 const struct apr_config *cfg, size_t n_pos, struct apr_err *e)
{
    size_t n_group = cfg->n_heads / cfg->n_heads_kv, n_scores, n_rows, n_floats;
    if (ckd_mul(&n_scores, n_group, round_up(n_pos, APR_PAGE_POS)) ||
        ckd_mul(&n_rows, 2 * MAX_TILE_TOKS * n_group, (size_t)cfg->head_dim))
        return apr_fail(e, APR_ELOAD, "attention over %zu positions does not fit the address space", n_pos);
    if (n_scores < TARGET_SCORES) n_scores = TARGET_SCORES;
    if (n_scores <= room->n_scores) return APR_OK;
    if (room->n_scores && n_scores < 2 * room->n_scores) n_scores = 2 * room->n_scores;
    if (ckd_add(&n_floats, n_scores, n_rows) || ckd_add(&n_floats, n_floats, 15u))
        return apr_fail(e, APR_ELOAD, "attention over %zu positions does not fit the address space", n_pos);
    n_floats -= n_floats % 16; /* threads start on their own cache lines */
    size_t n_all;
    if (ckd_mul(&n_all, n_floats, (size_t)apr_pool_threads(c->pool)))
        return apr_fail(e, APR_ELOAD, "attention over %zu positions does not fit the address space", n_pos);
    TRY(apr_arena_try(room->arena, &room->at, n_all, sizeof *room->at, "attention scores", e));
    room->n_floats = n_floats;
    room->n_scores = n_scores - n_scores % 16;
    return APR_OK;
}

void apr_attention(const struct apr_attn_room *room, const struct apr_compute *c,
                   const struct apr_config *cfg, const struct apr_cache *cache, uint32_t i_layer, size_t pos0,
                   size_t n_toks, const float *q, float *out)
{
    uint32_t n_heads_group = cfg->n_heads / cfg->n_heads_kv;
    size_t n_floats_tok = n_heads_group * round_up(pos0 + n_toks, APR_PAGE_POS);
    size_t n_tile_toks = room->n_scores / n_floats_tok;
    assert(n_tile_toks > 0);
    if (n_tile_toks > MAX_TILE_TOKS) n_tile_toks = MAX_TILE_TOKS;
    struct job j = {.room = room,
                    .c = c,
                    .cfg = cfg,
                    .cache = cache,
                    .i_layer = i_layer,
                    .pos0 = pos0,
                    .n_toks = n_toks,
                    .q = q,
                    .out = out,
                    .n_tile_toks = n_tile_toks,
                    .scale = 1.0f / sqrtf((float)cfg->head_dim)};
    size_t n_units = round_up(n_toks, n_tile_toks) / n_tile_toks * cfg->n_heads_kv;
    unsigned n_threads = apr_pool_threads(c->pool);
    j.n_parts = n_units < n_threads ? (uint32_t)round_up(n_threads, n_units) / (uint32_t)n_units : 1;
    if (j.n_parts > n_heads_group) j.n_parts = n_heads_group;
    j.n_group = (n_heads_group + j.n_parts - 1) / j.n_parts;
    apr_parallel_for(c->pool, n_units * j.n_parts, 1, attention_task, &j);
}

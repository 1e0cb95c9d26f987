/* Attention: softmax(cap(q K^T * scale)) V, two passes over the pages of one KV head. */
#include "attention.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "ckd.h"

#define CACHE_LINE_BYTES 64u
#define MAX_TILE_TOKS    8u
#define MAX_GROUP        16u         /* query heads of a tile: bounds the room for scores */
#define TARGET_SCORES    (64u << 10) /* floats: a tile's scores should stay in the second-level cache */

struct job {
    const struct apr_attn_room *room;
    const struct apr_compute *c;
    const struct apr_attn_shape *shape;
    const struct apr_attn_call *call;
    uint32_t n_parts; /* the group of query heads of one KV head is split into so many */
    uint32_t n_group; /* heads of a part, the last may have fewer */
};

/* One unit of work: tokens [t0, t0 + n_toks), query heads [head0, head0 + n_heads) of KV head i_kv. Rows of
 * q, out and scores are (token, head), head fastest; column 0 of scores is the first position of page block0.
 */
struct tile {
    const struct apr_cache *cache;
    size_t row0, n_toks, pos0; /* of token t0: its row of the call's q and out, its position */
    size_t block0;             /* the first page that token t0 sees */
    uint32_t i_kv, head0, n_heads;
    float *scores; /* [n_toks * n_heads, s_stride] */
    size_t s_stride;
    float *q, *out; /* [n_toks * n_heads, k_dim], [.., v_dim] */
    float *room;    /* of kern/page.h */
};

static size_t round_up(size_t n, size_t multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

/* First position that the token at pos sees. */
static size_t first_seen(const struct job *j, size_t pos)
{
    size_t window = j->call->window;
    return window && pos + 1 > window ? pos + 1 - window : 0;
}

/* Positions [begin, end) of page i_block for rows [row0, row0 + n_rows) of the tile. */
struct piece {
    size_t row0, n_rows, i_block, begin, end;
};

/* What of a page the rows of the piece read. */
static struct apr_page page_of(const struct job *j, const struct tile *w, const struct piece *p,
                               enum apr_cache_part part, size_t n_dim)
{
    const struct apr_blocks *b = w->cache->blocks;
    const uint8_t *page = apr_cache_page(w->cache, part, j->call->i_layer, w->i_kv, p->i_block);
    return (struct apr_page){page + p->begin * b->row_bytes[part], b->row_bytes[part], p->end - p->begin,
                             n_dim};
}

static void page_scores(const struct job *j, const struct tile *w, const struct piece *p)
{
    const struct apr_page k = page_of(j, w, p, APR_CACHE_K, j->shape->k_dim);
    float *s = w->scores + p->row0 * w->s_stride + (p->i_block - w->block0) * APR_PAGE_POS + p->begin;
    w->cache->blocks->types.at[APR_CACHE_K]->scores(j->c->kern, &k, w->q + p->row0 * k.n_dim, p->n_rows,
                                                    j->shape->scale, s, w->s_stride, w->room);
}

static void page_values(const struct job *j, const struct tile *w, const struct piece *p)
{
    enum apr_cache_part part = j->shape->v_in_k ? APR_CACHE_K : APR_CACHE_V;
    const struct apr_page v = page_of(j, w, p, part, j->shape->v_dim);
    const float *s = w->scores + p->row0 * w->s_stride + (p->i_block - w->block0) * APR_PAGE_POS + p->begin;
    w->cache->blocks->types.at[part]->values(j->c->kern, &v, s, w->s_stride, p->n_rows,
                                             w->out + p->row0 * v.n_dim, w->room);
}

/* Fetches page i_block into the second cache: pages of a head lie apart, which the hardware does not follow.
 */
static void fetch_page(const struct job *j, const struct tile *w, enum apr_cache_part part, size_t i_block)
{
    const uint8_t *page = apr_cache_page(w->cache, part, j->call->i_layer, w->i_kv, i_block);
    size_t n = w->cache->blocks->row_bytes[part] * APR_PAGE_POS;
    for (size_t off = 0; off < n; off += CACHE_LINE_BYTES) __builtin_prefetch(page + off, 0, 2);
}

typedef void page_fn(const struct job *j, const struct tile *w, const struct piece *p);

/* Pages [begin, end) for token t alone, cut to what it sees. */
static void token_pages(const struct job *j, const struct tile *w, size_t t, size_t begin, size_t end,
                        page_fn *fn)
{
    size_t first = first_seen(j, w->pos0 + t), n_pos = w->pos0 + t + 1;
    for (size_t b = begin; b < end; b++) {
        size_t at = b * APR_PAGE_POS;
        struct piece p = {.row0 = t * w->n_heads, .n_rows = w->n_heads, .i_block = b};
        p.begin = first > at ? first - at : 0;
        p.end = n_pos - at < APR_PAGE_POS ? n_pos - at : APR_PAGE_POS;
        if (p.begin < p.end) fn(j, w, &p);
    }
}

/* Pages that every token of the tile sees whole are taken for all rows at once, the rest token by token, so
 * that nothing a token does not see is ever multiplied in (0 * Inf would be NaN). Positions ascend for each
 * row. */
static void for_pages(const struct job *j, const struct tile *w, enum apr_cache_part part, page_fn *fn)
{
    size_t last = w->pos0 + w->n_toks - 1;
    size_t end_common = (w->pos0 + 1) / APR_PAGE_POS;
    size_t begin_common = round_up(first_seen(j, last), APR_PAGE_POS) / APR_PAGE_POS;
    if (begin_common > end_common) begin_common = end_common;
    for (size_t t = 0; t < w->n_toks; t++) token_pages(j, w, t, w->block0, begin_common, fn);
    for (size_t b = begin_common; b < end_common; b++) {
        struct piece p = {.n_rows = w->n_toks * w->n_heads, .i_block = b, .end = APR_PAGE_POS};
        if (b + 1 < end_common) fetch_page(j, w, part, b + 1);
        fn(j, w, &p);
    }
    for (size_t t = 0; t < w->n_toks; t++)
        token_pages(j, w, t, end_common, (w->pos0 + t) / APR_PAGE_POS + 1, fn);
}

static void soften(const struct job *j, const struct tile *w)
{
    for (size_t t = 0; t < w->n_toks; t++) {
        size_t first = first_seen(j, w->pos0 + t), n = w->pos0 + t + 1 - first;
        for (size_t h = 0; h < w->n_heads; h++) {
            float *s = w->scores + (t * w->n_heads + h) * w->s_stride + (first - w->block0 * APR_PAGE_POS);
            if (j->shape->softcap > 0) j->c->kern->softcap(s, j->shape->softcap, n);
            j->c->kern->softmax(s, n);
        }
    }
}

static void attend(const struct job *j, const struct tile *w)
{
    size_t k_dim = j->shape->k_dim, v_dim = j->shape->v_dim, n_heads = j->shape->n_heads;
    for (size_t t = 0; t < w->n_toks; t++)
        memcpy(w->q + t * w->n_heads * k_dim, j->call->q + ((w->row0 + t) * n_heads + w->head0) * k_dim,
               w->n_heads * k_dim * sizeof(float));
    const struct apr_page_type *const *types = w->cache->blocks->types.at;
    const enum apr_cache_part values = j->shape->v_in_k ? APR_CACHE_K : APR_CACHE_V;
    if (types[APR_CACHE_K]->is_turned) apr_page_turn(w->q, w->n_toks * w->n_heads * k_dim);
    for_pages(j, w, APR_CACHE_K, page_scores);
    soften(j, w);
    memset(w->out, 0, w->n_toks * w->n_heads * v_dim * sizeof(float));
    for_pages(j, w, values, page_values);
    if (types[values]->is_turned) apr_page_turn(w->out, w->n_toks * w->n_heads * v_dim);
    for (size_t t = 0; t < w->n_toks; t++)
        memcpy(j->call->out + ((w->row0 + t) * n_heads + w->head0) * v_dim, w->out + t * w->n_heads * v_dim,
               w->n_heads * v_dim * sizeof(float));
}

/* Room for a page in f32, of keys or of values; a multiple of 16. */
static size_t page_floats(const struct apr_attn_shape *shape)
{
    return apr_page_room_floats(shape->k_dim > shape->v_dim ? shape->k_dim : shape->v_dim);
}

/* The span that unit i_unit belongs to: the last that begins at it or before. */
static const struct apr_attn_span *span_of(const struct apr_attn_call *call, size_t i_unit)
{
    size_t low = 0, high = call->n_spans;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (call->spans[middle].i_unit0 <= i_unit)
            low = middle;
        else
            high = middle;
    }
    return &call->spans[low];
}

static void attention_task(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    const struct job *j = ctx;
    uint32_t n_heads_kv = j->shape->n_heads_kv, n_heads_group = j->shape->n_heads / n_heads_kv;
    float *room = j->room->at + i_thread * j->room->n_floats;
    for (size_t i = i_begin; i < i_end; i++) {
        size_t i_part = i % j->n_parts, i_unit = i / j->n_parts;
        const struct apr_attn_span *span = span_of(j->call, i_unit);
        size_t i_kv = (i_unit - span->i_unit0) % n_heads_kv, i_tile = (i_unit - span->i_unit0) / n_heads_kv;
        uint32_t head_in_group = (uint32_t)i_part * j->n_group;
        if (head_in_group >= n_heads_group) continue;
        size_t t0 = i_tile * span->n_tile_toks;
        struct tile w = {.cache = span->cache, .row0 = span->row0 + t0, .i_kv = (uint32_t)i_kv};
        w.n_toks = span->n_toks - t0 < span->n_tile_toks ? span->n_toks - t0 : span->n_tile_toks;
        w.pos0 = span->pos0 + t0;
        w.block0 = first_seen(j, w.pos0) / APR_PAGE_POS;
        w.head0 = w.i_kv * n_heads_group + head_in_group;
        w.n_heads = n_heads_group - head_in_group < j->n_group ? n_heads_group - head_in_group : j->n_group;
        w.s_stride = round_up(w.pos0 + w.n_toks, APR_PAGE_POS) - w.block0 * APR_PAGE_POS;
        w.scores = room;
        w.q = room + j->room->n_scores;
        w.out = w.q + (size_t)w.n_toks * w.n_heads * j->shape->k_dim;
        w.room = room + j->room->n_floats - page_floats(j->shape);
        attend(j, &w);
    }
}

struct apr_attn_shape apr_attn_shape_of(const struct apr_config *cfg)
{
    bool is_latent = cfg->mla.kv_rank != 0;
    return (struct apr_attn_shape){
        .n_heads = cfg->n_heads,
        .n_heads_kv = is_latent ? 1 : cfg->n_heads_kv,
        .k_dim = is_latent ? cfg->mla.kv_rank + cfg->mla.n_rope : cfg->head_dim,
        .v_dim = is_latent ? cfg->mla.kv_rank : cfg->head_dim,
        .v_in_k = is_latent,
        .scale = cfg->attn_scale > 0 ? (float)cfg->attn_scale : 1.0f / sqrtf((float)cfg->head_dim),
        .softcap = (float)cfg->attn_softcap,
    };
}

/* Query heads that one tile takes at most. */
static uint32_t group_of(const struct apr_attn_shape *shape)
{
    uint32_t n = shape->n_heads / shape->n_heads_kv;
    return n < MAX_GROUP ? n : MAX_GROUP;
}

enum apr_code apr_attention_room(struct apr_attn_room *room, const struct apr_compute *c,
                                 const struct apr_attn_shape *shape, size_t n_pos, struct apr_err *e)
{
    size_t n_group = group_of(shape), n_scores, n_rows, n_floats;
    if (ckd_mul(&n_scores, n_group, round_up(n_pos, APR_PAGE_POS)) ||
        ckd_mul(&n_rows, MAX_TILE_TOKS * n_group, (size_t)shape->k_dim + shape->v_dim) ||
        ckd_add(&n_rows, n_rows, page_floats(shape)))
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

/* Columns of scores that a tile of tokens ending at position n_pos can need. */
static size_t n_score_columns(size_t window, size_t n_pos)
{
    size_t n_all = round_up(n_pos, APR_PAGE_POS);
    size_t n_window = round_up(window + MAX_TILE_TOKS, APR_PAGE_POS) + APR_PAGE_POS;
    return window && n_window < n_all ? n_window : n_all;
}

/* Cuts the spans into tiles; the number of (tile, KV head). */
static size_t cut_spans(const struct job *j)
{
    size_t n_units = 0, n_group = group_of(j->shape);
    for (size_t i = 0; i < j->call->n_spans; i++) {
        struct apr_attn_span *s = &j->call->spans[i];
        size_t n = j->room->n_scores / (n_group * n_score_columns(j->call->window, s->pos0 + s->n_toks));
        assert(n > 0 && s->n_toks > 0);
        s->n_tile_toks = n < MAX_TILE_TOKS ? n : MAX_TILE_TOKS;
        s->i_unit0 = n_units;
        n_units += (s->n_toks + s->n_tile_toks - 1) / s->n_tile_toks * j->shape->n_heads_kv;
    }
    return n_units;
}

void apr_attention(const struct apr_attn_room *room, const struct apr_compute *c,
                   const struct apr_attn_shape *shape, const struct apr_attn_call *call)
{
    uint32_t n_heads_group = shape->n_heads / shape->n_heads_kv, n_group = group_of(shape);
    struct job j = {.room = room, .c = c, .shape = shape, .call = call};
    size_t n_units = cut_spans(&j);
    unsigned n_threads = apr_pool_threads(c->pool);
    j.n_parts = n_units < n_threads ? (uint32_t)round_up(n_threads, n_units) / (uint32_t)n_units : 1;
    if (j.n_parts < (n_heads_group + n_group - 1) / n_group)
        j.n_parts = (n_heads_group + n_group - 1) / n_group;
    if (j.n_parts > n_heads_group) j.n_parts = n_heads_group;
    j.n_group = (n_heads_group + j.n_parts - 1) / j.n_parts;
    apr_parallel_for(c->pool, n_units * j.n_parts, 1, attention_task, &j);
}

/* Attention: softmax(cap(q K^T * scale)) V, two passes over the pages of one KV head. Where there are fewer
 * tiles than threads and the sequences are long, all threads work at all tiles, one step after the other. */
#include "attention_tile.h"

#include <assert.h>
#include <math.h>

#include "ckd.h"

#define MAX_TILE_TOKS   8u
#define MAX_GROUP       16u         /* query heads of a tile: bounds the room for scores */
#define TARGET_SCORES   (64u << 10) /* floats: a tile's scores should stay in the second-level cache */
#define WIDE_POS        256u        /* from so many positions on, threads without a tile share one */
#define SLICE_DIMS      32u         /* columns of values that a thread takes of a shared tile */
#define PIECES_A_THREAD 2u

struct job {
    const struct apr_attn_room *room;
    const struct apr_compute *c;
    const struct apr_attn_shape *shape;
    const struct apr_attn_call *call;
    uint32_t n_parts; /* the group of query heads of one KV head is split into so many */
    uint32_t n_group; /* heads of a part, the last may have fewer */
    /* of tiles that threads share */
    size_t n_tiles, n_pages_piece, n_pieces, n_rows, n_slices, n_row_parts;
};

static size_t round_up(size_t n, size_t multiple)
{
    return (n + multiple - 1) / multiple * multiple;
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

/* Unit i of (span, tile, KV head, part) with a thread's room for its scores; false: the part has no head. */
static bool tile_of(const struct job *j, size_t i, float *room, struct apr_attn_tile *w)
{
    uint32_t n_heads_kv = j->shape->n_heads_kv, n_heads_group = j->shape->n_heads / n_heads_kv;
    size_t i_part = i % j->n_parts, i_unit = i / j->n_parts;
    const struct apr_attn_span *span = span_of(j->call, i_unit);
    size_t i_kv = (i_unit - span->i_unit0) % n_heads_kv, i_tile = (i_unit - span->i_unit0) / n_heads_kv;
    uint32_t head_in_group = (uint32_t)i_part * j->n_group;
    if (head_in_group >= n_heads_group) return false;
    size_t t0 = i_tile * span->n_tile_toks;
    *w = (struct apr_attn_tile){.kern = j->c->kern,
                                .shape = j->shape,
                                .call = j->call,
                                .cache = span->cache,
                                .row0 = span->row0 + t0,
                                .pos0 = span->pos0 + t0,
                                .i_kv = (uint32_t)i_kv,
                                .scores = room,
                                .q = room + j->room->n_scores};
    w->n_toks = span->n_toks - t0 < span->n_tile_toks ? span->n_toks - t0 : span->n_tile_toks;
    w->block0 = apr_attn_first_seen(j->call, w->pos0) / APR_PAGE_POS;
    w->head0 = w->i_kv * n_heads_group + head_in_group;
    w->n_heads = n_heads_group - head_in_group < j->n_group ? n_heads_group - head_in_group : j->n_group;
    w->s_stride = round_up(w->pos0 + w->n_toks, APR_PAGE_POS) - w->block0 * APR_PAGE_POS;
    w->out = w->q + (size_t)w->n_toks * w->n_heads * j->shape->k_dim;
    return true;
}

static float *room_of(const struct job *j, size_t i_thread)
{
    return j->room->at + i_thread * j->room->n_floats;
}

/* Of kern/page.h: behind all that a tile has. */
static float *page_room(const struct job *j, unsigned i_thread)
{
    return room_of(j, i_thread + 1) - page_floats(j->shape);
}

static void tile_task(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    const struct job *j = ctx;
    struct apr_attn_tile w;
    for (size_t i = i_begin; i < i_end; i++) {
        if (!tile_of(j, i, room_of(j, i_thread), &w)) continue;
        apr_tile_gather(&w);
        apr_tile_scores(&w, 0, SIZE_MAX, page_room(j, i_thread));
        apr_tile_soften(&w, 0, w.n_toks * w.n_heads);
        const struct apr_tile_part all = {0, j->shape->v_dim, 0, w.n_toks * w.n_heads};
        apr_tile_values(&w, &all, page_room(j, i_thread));
    }
}

/* ---- tiles that threads share; tile i has the room of thread i ---------------------------------------- */

static void scores_task(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    const struct job *j = ctx;
    struct apr_attn_tile w;
    for (size_t i = i_begin; i < i_end; i++) {
        size_t i_tile = i / j->n_pieces;
        if (!tile_of(j, i_tile, room_of(j, i_tile), &w)) continue;
        size_t begin = w.block0 + i % j->n_pieces * j->n_pages_piece;
        apr_tile_scores(&w, begin, begin + j->n_pages_piece, page_room(j, i_thread));
    }
}

static void soften_task(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    const struct job *j = ctx;
    struct apr_attn_tile w;
    (void)i_thread;
    for (size_t i = i_begin; i < i_end; i++) {
        size_t i_tile = i / j->n_rows, row = i % j->n_rows;
        if (tile_of(j, i_tile, room_of(j, i_tile), &w) && row < w.n_toks * w.n_heads)
            apr_tile_soften(&w, row, row + 1);
    }
}

static void values_task(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    const struct job *j = ctx;
    struct apr_attn_tile w;
    for (size_t i = i_begin; i < i_end; i++) {
        size_t i_row_part = i % j->n_row_parts, i_slice = i / j->n_row_parts, i_tile = i_slice / j->n_slices;
        if (!tile_of(j, i_tile, room_of(j, i_tile), &w)) continue;
        struct apr_tile_part p = {.d0 = i_slice % j->n_slices * SLICE_DIMS, .n_d = SLICE_DIMS};
        if (j->shape->v_dim - p.d0 < SLICE_DIMS) p.n_d = j->shape->v_dim - p.d0;
        p.row_begin = w.n_toks * w.n_heads * i_row_part / j->n_row_parts;
        p.row_end = w.n_toks * w.n_heads * (i_row_part + 1) / j->n_row_parts;
        if (p.row_begin < p.row_end) apr_tile_values(&w, &p, page_room(j, i_thread));
    }
}

/* Tokens of the largest tile. */
static size_t n_toks_most(const struct apr_attn_call *call)
{
    size_t most = 0;
    for (size_t i = 0; i < call->n_spans; i++) {
        const struct apr_attn_span *s = &call->spans[i];
        size_t n = s->n_toks < s->n_tile_toks ? s->n_toks : s->n_tile_toks;
        if (n > most) most = n;
    }
    return most;
}

/* Positions that the longest span sees. */
static size_t n_pos_seen(const struct apr_attn_call *call)
{
    size_t most = 0;
    for (size_t i = 0; i < call->n_spans; i++) {
        const struct apr_attn_span *s = &call->spans[i];
        size_t n = s->pos0 + s->n_toks - apr_attn_first_seen(call, s->pos0);
        if (n > most) most = n;
    }
    return most;
}

static void attend_together(struct job *j)
{
    struct apr_pool *pool = j->c->pool;
    size_t n_pages = n_pos_seen(j->call) / APR_PAGE_POS + 2; /* the first and the last may be cut */
    size_t n_wanted = (PIECES_A_THREAD * apr_pool_threads(pool) + j->n_tiles - 1) / j->n_tiles;
    struct apr_attn_tile w;
    j->n_pages_piece = (n_pages + n_wanted - 1) / n_wanted;
    j->n_pieces = (n_pages + j->n_pages_piece - 1) / j->n_pages_piece;
    j->n_rows = n_toks_most(j->call) * j->n_group;
    j->n_slices = (j->shape->v_dim + SLICE_DIMS - 1) / SLICE_DIMS;
    j->n_row_parts = (apr_pool_threads(pool) + j->n_tiles * j->n_slices - 1) / (j->n_tiles * j->n_slices);
    for (size_t i = 0; i < j->n_tiles; i++)
        if (tile_of(j, i, room_of(j, i), &w)) apr_tile_gather(&w);
    apr_parallel_for(pool, j->n_tiles * j->n_pieces, 1, scores_task, j);
    apr_parallel_for(pool, j->n_tiles * j->n_rows, 1, soften_task, j);
    apr_parallel_for(pool, j->n_tiles * j->n_slices * j->n_row_parts, 1, values_task, j);
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
    const size_t n_pos_wide = room->n_pos_wide ? room->n_pos_wide : WIDE_POS;
    j.n_parts = (n_heads_group + n_group - 1) / n_group;
    j.n_group = (n_heads_group + j.n_parts - 1) / j.n_parts;
    j.n_tiles = n_units * j.n_parts;
    if (j.n_tiles < n_threads && n_pos_seen(call) >= n_pos_wide) {
        attend_together(&j);
        return;
    }
    if (n_units < n_threads) {
        uint32_t n_parts = (uint32_t)(round_up(n_threads, n_units) / n_units);
        if (n_parts > n_heads_group) n_parts = n_heads_group;
        if (n_parts > j.n_parts) j.n_parts = n_parts;
        j.n_group = (n_heads_group + j.n_parts - 1) / j.n_parts;
    }
    apr_parallel_for(c->pool, n_units * j.n_parts, 1, tile_task, &j);
}

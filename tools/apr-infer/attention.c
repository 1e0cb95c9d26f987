/* Attention: softmax(cap(q K^T * scale)) V over the pages of one KV head, block by block. Where there are
 * fewer tiles than threads and the sequences are long, the blocks of all tiles are shared among all threads.
 */
#include "attention_tile.h"

#include <assert.h>
#include <math.h>

#include "ckd.h"

#define MAX_TILE_TOKS 8u
#define MAX_GROUP     16u         /* query heads of a tile: bounds its room */
#define TARGET_PARTS  (64u << 10) /* floats: a tile's blocks should stay in the second-level cache */
#define WIDE_POS      256u        /* from so many positions on, threads without a tile share some */

struct job {
    const struct apr_attn_room *room;
    const struct apr_compute *c;
    const struct apr_attn_shape *shape;
    const struct apr_attn_call *call;
    uint32_t n_parts; /* the group of query heads of one KV head is split into so many */
    uint32_t n_group; /* heads of a part, the last may have fewer */
    /* of tiles that threads share */
    size_t n_tiles, n_blocks, n_row_parts, n_rows;
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

/* Query heads that one tile takes at most. */
static uint32_t group_of(const struct apr_attn_shape *shape)
{
    uint32_t n = shape->n_heads / shape->n_heads_kv;
    return n < MAX_GROUP ? n : MAX_GROUP;
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

static float *room_of(const struct job *j, size_t i_thread)
{
    return j->room->at + i_thread * j->room->n_floats;
}

/* A thread's room: [scores | page | queries, max, sum and parts of a tile]. */
static struct apr_attn_scratch scratch_of(const struct job *j, size_t i_thread)
{
    size_t n_scores = (size_t)MAX_TILE_TOKS * group_of(j->shape) * apr_attn_block_pos(j->shape);
    return (struct apr_attn_scratch){room_of(j, i_thread), room_of(j, i_thread) + n_scores};
}

/* Unit i of (span, tile, KV head, part), in the room of a thread; false: the part has no head. */
static bool tile_of(const struct job *j, size_t i, size_t i_room, struct apr_attn_tile *w)
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
                                .n_block_pos = apr_attn_block_pos(j->shape),
                                .q = scratch_of(j, i_room).page + page_floats(j->shape)};
    w->n_toks = span->n_toks - t0 < span->n_tile_toks ? span->n_toks - t0 : span->n_tile_toks;
    w->block0 = apr_attn_first_seen(j->call, w->pos0) / w->n_block_pos;
    w->n_blocks = (w->pos0 + w->n_toks - 1) / w->n_block_pos - w->block0 + 1;
    w->head0 = w->i_kv * n_heads_group + head_in_group;
    w->n_heads = n_heads_group - head_in_group < j->n_group ? n_heads_group - head_in_group : j->n_group;
    size_t n_rows = w->n_toks * w->n_heads;
    w->max = w->q + round_up(n_rows * j->shape->k_dim, 16);
    w->sum = w->max + round_up(n_rows * w->n_blocks, 16);
    w->parts = w->sum + round_up(n_rows * w->n_blocks, 16);
    return true;
}

static void tile_task(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    const struct job *j = ctx;
    const struct apr_attn_scratch scratch = scratch_of(j, i_thread);
    struct apr_attn_tile w;
    for (size_t i = i_begin; i < i_end; i++) {
        if (!tile_of(j, i, i_thread, &w)) continue;
        size_t n_rows = w.n_toks * w.n_heads;
        apr_tile_gather(&w);
        for (size_t k = 0; k < w.n_blocks; k++) apr_tile_block(&w, k, 0, n_rows, &scratch);
        apr_tile_merge(&w, 0, n_rows);
    }
}

/* ---- tiles that threads share; tile i has the room of thread i ---------------------------------------- */

static void block_task(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    const struct job *j = ctx;
    const struct apr_attn_scratch scratch = scratch_of(j, i_thread);
    struct apr_attn_tile w;
    for (size_t i = i_begin; i < i_end; i++) {
        size_t i_row_part = i % j->n_row_parts, i_tile = i / j->n_row_parts % j->n_tiles;
        size_t i_block = i / j->n_row_parts / j->n_tiles;
        if (!tile_of(j, i_tile, i_tile, &w) || i_block >= w.n_blocks) continue;
        size_t n_rows = w.n_toks * w.n_heads, begin = n_rows * i_row_part / j->n_row_parts;
        size_t end = n_rows * (i_row_part + 1) / j->n_row_parts;
        if (begin < end) apr_tile_block(&w, i_block, begin, end, &scratch);
    }
}

static void merge_task(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    const struct job *j = ctx;
    struct apr_attn_tile w;
    (void)i_thread;
    for (size_t i = i_begin; i < i_end; i++) {
        size_t i_tile = i / j->n_rows, row = i % j->n_rows;
        if (tile_of(j, i_tile, i_tile, &w) && row < w.n_toks * w.n_heads) apr_tile_merge(&w, row, row + 1);
    }
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

/* Rows are parted where blocks are fewer than threads: keys and values are read by several then. */
static void attend_together(struct job *j)
{
    struct apr_pool *pool = j->c->pool;
    size_t n_threads = apr_pool_threads(pool);
    struct apr_attn_tile w;
    j->n_blocks = j->n_rows = 1;
    for (size_t i = 0; i < j->n_tiles; i++) {
        if (!tile_of(j, i, i, &w)) continue;
        apr_tile_gather(&w);
        if (w.n_blocks > j->n_blocks) j->n_blocks = w.n_blocks;
        if (w.n_toks * w.n_heads > j->n_rows) j->n_rows = w.n_toks * w.n_heads;
    }
    j->n_row_parts = n_threads / (j->n_tiles * j->n_blocks);
    if (j->n_row_parts > j->n_rows) j->n_row_parts = j->n_rows;
    if (j->n_row_parts == 0) j->n_row_parts = 1;
    apr_parallel_for(pool, j->n_tiles * j->n_blocks * j->n_row_parts, 1, block_task, j);
    apr_parallel_for(pool, j->n_tiles * j->n_rows, 1, merge_task, j);
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

/* Blocks that a tile of tokens ending at position n_pos can see. */
static size_t n_blocks_seen(const struct apr_attn_shape *shape, size_t window, size_t n_pos)
{
    size_t n_all = (n_pos - 1) / apr_attn_block_pos(shape) + 1;
    size_t n_window = window ? (window + MAX_TILE_TOKS) / apr_attn_block_pos(shape) + 2 : n_all;
    return n_window < n_all ? n_window : n_all;
}

enum apr_code apr_attention_room(struct apr_attn_room *room, const struct apr_compute *c,
                                 const struct apr_attn_shape *shape, size_t n_pos, struct apr_err *e)
{
    const size_t n_group = group_of(shape), n_rows = MAX_TILE_TOKS * n_group;
    size_t n_parts, n_floats, n_all;
    bool fits = !ckd_mul(&n_parts, n_group * shape->v_dim, n_blocks_seen(shape, 0, n_pos));
    if (fits && n_parts < TARGET_PARTS) n_parts = TARGET_PARTS;
    if (fits && n_parts <= room->n_parts) return APR_OK;
    if (room->n_parts && fits && n_parts < 2 * room->n_parts) n_parts = 2 * room->n_parts;
    /* max and sum: at most n_parts / v_dim each; all begin on lines of their own */
    n_floats = round_up(n_rows * apr_attn_block_pos(shape) + page_floats(shape) + n_rows * shape->k_dim, 16);
    fits = fits && !ckd_add(&n_floats, n_floats, n_parts) &&
           !ckd_add(&n_floats, n_floats, 2 * (n_parts / shape->v_dim) + 6 * 16) &&
           !ckd_mul(&n_all, n_floats -= n_floats % 16, (size_t)apr_pool_threads(c->pool));
    if (!fits)
        return apr_fail(e, APR_ELOAD, "attention over %zu positions does not fit the address space", n_pos);
    TRY(apr_arena_try(room->arena, &room->at, n_all, sizeof *room->at, "attention scores", e));
    room->n_floats = n_floats;
    room->n_parts = n_parts;
    return APR_OK;
}

/* Cuts the spans into tiles; the number of (tile, KV head). */
static size_t cut_spans(const struct job *j)
{
    size_t n_units = 0, n_token = (size_t)group_of(j->shape) * j->shape->v_dim;
    for (size_t i = 0; i < j->call->n_spans; i++) {
        struct apr_attn_span *s = &j->call->spans[i];
        size_t n =
            j->room->n_parts / (n_token * n_blocks_seen(j->shape, j->call->window, s->pos0 + s->n_toks));
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

/* The steps of one tile, page by page. */
#include "attention_tile.h"

#include <string.h>

#define CACHE_LINE_BYTES 64u
#define RUN_PAGES        4u  /* that are read by one call, where they follow each other */
#define FETCH_LINES      64u /* of the next run; the hardware goes on where whole rows are read */

/* One step over pages [begin, end). */
struct pass {
    const struct apr_attn_tile *w;
    enum apr_cache_part part;
    size_t begin, end;
    size_t d0, n_d;            /* of values */
    size_t row_begin, row_end; /* of values */
    float *out;                /* [row_end - row_begin, n_d] */
    float *room;
};

/* Positions [begin, end) of page i_block, and of those that follow it, for rows [row0, row0 + n_rows) of the
 * tile. */
struct piece {
    size_t row0, n_rows, i_block, begin, end;
};

/* What of a page the rows of the piece read: n_d columns from d0. */
static struct apr_page page_of(const struct pass *s, const struct piece *p)
{
    const struct apr_attn_tile *w = s->w;
    const struct apr_blocks *b = w->cache->blocks;
    size_t row_bytes = b->row_bytes[s->part], n_dim = s->part == APR_CACHE_K ? b->k_dim : b->v_dim;
    const uint8_t *page = apr_cache_page(w->cache, s->part, w->call->i_layer, w->i_kv, p->i_block);
    return (struct apr_page){page + p->begin * row_bytes + s->d0 * row_bytes / n_dim, row_bytes,
                             p->end - p->begin, s->n_d};
}

static float *scores_of(const struct apr_attn_tile *w, const struct piece *p)
{
    return w->scores + p->row0 * w->s_stride + (p->i_block - w->block0) * APR_PAGE_POS + p->begin;
}

static void page_scores(const struct pass *s, const struct piece *p)
{
    const struct apr_attn_tile *w = s->w;
    const struct apr_page k = page_of(s, p);
    w->cache->blocks->types.at[s->part]->scores(w->kern, &k, w->q + p->row0 * k.n_dim, p->n_rows,
                                                w->shape->scale, scores_of(w, p), w->s_stride, s->room);
}

static void page_values(const struct pass *s, const struct piece *p)
{
    const struct apr_attn_tile *w = s->w;
    const struct apr_page v = page_of(s, p);
    struct piece own = *p;
    if (own.row0 < s->row_begin) own.row0 = s->row_begin;
    size_t row_end = p->row0 + p->n_rows < s->row_end ? p->row0 + p->n_rows : s->row_end;
    if (own.row0 >= row_end) return;
    w->cache->blocks->types.at[s->part]->values(w->kern, &v, scores_of(w, &own), w->s_stride,
                                                row_end - own.row0,
                                                s->out + (own.row0 - s->row_begin) * s->n_d, s->room);
}

/* Fetches what is read first of pages into the second cache: the hardware does not follow from run to run,
 * nor parts of rows. */
static void fetch_pages(const struct pass *s, size_t i_block, size_t n_pages)
{
    const struct apr_page page =
        page_of(s, &(struct piece){.i_block = i_block, .end = n_pages * APR_PAGE_POS});
    const struct apr_blocks *b = s->w->cache->blocks;
    size_t n_dim = s->part == APR_CACHE_K ? b->k_dim : b->v_dim, n = page.n_dim * page.row_bytes / n_dim;
    size_t n_lines = 0;
    for (size_t i = 0; i < page.n_pos && n_lines < FETCH_LINES; i++)
        for (size_t off = 0; off < n; off += CACHE_LINE_BYTES, n_lines++)
            __builtin_prefetch((const uint8_t *)page.rows + i * page.row_bytes + off, 0, 2);
}

/* Pages from b on that one call may read. */
static size_t run_from(const struct pass *s, size_t b, size_t end)
{
    const struct apr_attn_tile *w = s->w;
    size_t n_most = w->cache->blocks->types.at[s->part]->n_pos_most / APR_PAGE_POS;
    if (n_most > RUN_PAGES) n_most = RUN_PAGES;
    if (n_most > end - b) n_most = end - b;
    return apr_cache_run(w->cache, w->call->i_layer, b, n_most);
}

typedef void page_fn(const struct pass *s, const struct piece *p);

static size_t clamp(size_t i, const struct pass *s)
{
    return i < s->begin ? s->begin : i > s->end ? s->end : i;
}

/* Pages [begin, end) for token t alone, cut to what it sees. */
static void token_pages(const struct pass *s, size_t t, size_t begin, size_t end, page_fn *fn)
{
    const struct apr_attn_tile *w = s->w;
    size_t first = apr_attn_first_seen(w->call, w->pos0 + t), n_pos = w->pos0 + t + 1;
    end = clamp(end, s);
    for (size_t b = clamp(begin, s); b < end; b++) {
        size_t at = b * APR_PAGE_POS;
        struct piece p = {.row0 = t * w->n_heads, .n_rows = w->n_heads, .i_block = b};
        p.begin = first > at ? first - at : 0;
        p.end = n_pos - at < APR_PAGE_POS ? n_pos - at : APR_PAGE_POS;
        if (p.begin < p.end) fn(s, &p);
    }
}

/* Pages that every token of the tile sees whole are taken for all rows at once, the rest token by token, so
 * that nothing a token does not see is ever multiplied in (0 * Inf would be NaN). Positions ascend for each
 * row. */
static void for_pages(const struct pass *s, page_fn *fn)
{
    const struct apr_attn_tile *w = s->w;
    size_t last = w->pos0 + w->n_toks - 1;
    size_t end_common = (w->pos0 + 1) / APR_PAGE_POS;
    size_t begin_common = (apr_attn_first_seen(w->call, last) + APR_PAGE_POS - 1) / APR_PAGE_POS;
    if (begin_common > end_common) begin_common = end_common;
    for (size_t t = 0; t < w->n_toks; t++) token_pages(s, t, w->block0, begin_common, fn);
    size_t end = clamp(end_common, s);
    size_t b = clamp(begin_common, s), n = b < end ? run_from(s, b, end) : 0, n_next;
    for (; b < end; b += n, n = n_next) {
        struct piece p = {.n_rows = w->n_toks * w->n_heads, .i_block = b, .end = n * APR_PAGE_POS};
        n_next = b + n < end ? run_from(s, b + n, end) : 0;
        if (n_next) fetch_pages(s, b + n, n_next);
        fn(s, &p);
    }
    for (size_t t = 0; t < w->n_toks; t++)
        token_pages(s, t, end_common, (w->pos0 + t) / APR_PAGE_POS + 1, fn);
}

void apr_tile_gather(const struct apr_attn_tile *w)
{
    size_t k_dim = w->shape->k_dim, n_heads = w->shape->n_heads;
    for (size_t t = 0; t < w->n_toks; t++)
        memcpy(w->q + t * w->n_heads * k_dim, w->call->q + ((w->row0 + t) * n_heads + w->head0) * k_dim,
               w->n_heads * k_dim * sizeof(float));
    if (w->cache->blocks->types.at[APR_CACHE_K]->is_turned)
        apr_page_turn(w->q, w->n_toks * w->n_heads * k_dim);
}

void apr_tile_scores(const struct apr_attn_tile *w, size_t begin, size_t end, float *room)
{
    const struct pass s = {
        .w = w, .part = APR_CACHE_K, .begin = begin, .end = end, .n_d = w->shape->k_dim, .room = room};
    for_pages(&s, page_scores);
}

void apr_tile_soften(const struct apr_attn_tile *w, size_t row_begin, size_t row_end)
{
    for (size_t r = row_begin; r < row_end; r++) {
        size_t pos = w->pos0 + r / w->n_heads, first = apr_attn_first_seen(w->call, pos), n = pos + 1 - first;
        float *s = w->scores + r * w->s_stride + (first - w->block0 * APR_PAGE_POS);
        if (w->shape->softcap > 0) w->kern->softcap(s, w->shape->softcap, n);
        w->kern->softmax(s, n);
    }
}

void apr_tile_values(const struct apr_attn_tile *w, const struct apr_tile_part *p, float *room)
{
    const enum apr_cache_part part = w->shape->v_in_k ? APR_CACHE_K : APR_CACHE_V;
    const size_t n_rows = p->row_end - p->row_begin;
    const struct pass s = {.w = w,
                           .part = part,
                           .end = SIZE_MAX,
                           .d0 = p->d0,
                           .n_d = p->n_d,
                           .row_begin = p->row_begin,
                           .row_end = p->row_end,
                           .out = w->out + p->d0 * w->n_toks * w->n_heads + p->row_begin * p->n_d,
                           .room = room};
    memset(s.out, 0, n_rows * p->n_d * sizeof(float));
    for_pages(&s, page_values);
    if (w->cache->blocks->types.at[part]->is_turned) apr_page_turn(s.out, n_rows * p->n_d);
    for (size_t i = 0; i < n_rows; i++) {
        size_t r = p->row_begin + i;
        size_t row = (w->row0 + r / w->n_heads) * w->shape->n_heads + w->head0 + r % w->n_heads;
        memcpy(w->call->out + row * w->shape->v_dim + p->d0, s.out + i * p->n_d, p->n_d * sizeof(float));
    }
}

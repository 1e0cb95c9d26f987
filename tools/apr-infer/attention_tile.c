/* The blocks of one tile, page by page. */
#include "attention_tile.h"

#include <string.h>

#define LEAST_BLOCK_POS  256u
#define CACHE_LINE_BYTES 64u
#define RUN_PAGES        4u  /* that are read by one call, where they follow each other */
#define FETCH_LINES      64u /* of the next run; the hardware goes on where whole rows are read */

size_t apr_attn_block_pos(const struct apr_attn_shape *shape)
{
    return (shape->v_dim + LEAST_BLOCK_POS - 1) / LEAST_BLOCK_POS * LEAST_BLOCK_POS;
}

/* Keys or values of pages [begin, end), a block, for rows [row_begin, row_end). */
struct pass {
    const struct apr_attn_tile *w;
    enum apr_cache_part part;
    size_t n_dim; /* values of a row that are read */
    size_t begin, end;
    size_t row_begin, row_end;
    float *scores; /* [rows, n_block_pos] */
    float *out;    /* of values: [rows, n_dim] */
    float *room;
};

/* Positions [begin, end) of page i_block, and of those that follow it, for rows [row0, row0 + n_rows) of the
 * tile. */
struct piece {
    size_t row0, n_rows, i_block, begin, end;
};

static struct apr_page page_of(const struct pass *s, const struct piece *p)
{
    const struct apr_attn_tile *w = s->w;
    size_t row_bytes = w->cache->blocks->row_bytes[s->part];
    const uint8_t *page = apr_cache_page(w->cache, s->part, w->call->i_layer, w->i_kv, p->i_block);
    return (struct apr_page){page + p->begin * row_bytes, row_bytes, p->end - p->begin, s->n_dim};
}

static float *scores_of(const struct pass *s, const struct piece *p)
{
    return s->scores + p->row0 * s->w->n_block_pos + (p->i_block - s->begin) * APR_PAGE_POS + p->begin;
}

static void page_scores(const struct pass *s, const struct piece *p)
{
    const struct apr_attn_tile *w = s->w;
    const struct apr_page k = page_of(s, p);
    w->cache->blocks->types.at[s->part]->scores(w->kern, &k, w->q + p->row0 * k.n_dim, p->n_rows,
                                                w->shape->scale, scores_of(s, p), w->n_block_pos, s->room);
}

static void page_values(const struct pass *s, const struct piece *p)
{
    const struct apr_attn_tile *w = s->w;
    const struct apr_page v = page_of(s, p);
    w->cache->blocks->types.at[s->part]->values(w->kern, &v, scores_of(s, p), w->n_block_pos, p->n_rows,
                                                s->out + p->row0 * s->n_dim, s->room);
}

typedef void page_fn(const struct pass *s, const struct piece *p);

/* The piece's rows as far as the pass has them. */
static void take_piece(const struct pass *s, struct piece p, page_fn *fn)
{
    size_t row_end = p.row0 + p.n_rows < s->row_end ? p.row0 + p.n_rows : s->row_end;
    if (p.row0 < s->row_begin) p.row0 = s->row_begin;
    if (p.row0 >= row_end) return;
    p.n_rows = row_end - p.row0;
    fn(s, &p);
}

/* Fetches what is read first of pages into the second cache: the hardware does not follow from run to run. */
static void fetch_pages(const struct pass *s, size_t i_block, size_t n_pages)
{
    const struct apr_page page =
        page_of(s, &(struct piece){.i_block = i_block, .end = n_pages * APR_PAGE_POS});
    size_t n_bytes = page.n_pos * page.row_bytes;
    if (n_bytes > FETCH_LINES * CACHE_LINE_BYTES) n_bytes = FETCH_LINES * CACHE_LINE_BYTES;
    for (size_t off = 0; off < n_bytes; off += CACHE_LINE_BYTES)
        __builtin_prefetch((const uint8_t *)page.rows + off, 0, 2);
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
        if (p.begin < p.end) take_piece(s, p, fn);
    }
}

/* Pages [begin, end) that every token of the tile sees whole. */
struct common {
    size_t begin, end;
};

static struct common common_pages(const struct apr_attn_tile *w)
{
    size_t last = w->pos0 + w->n_toks - 1;
    struct common c = {(apr_attn_first_seen(w->call, last) + APR_PAGE_POS - 1) / APR_PAGE_POS,
                       (w->pos0 + 1) / APR_PAGE_POS};
    if (c.begin > c.end) c.begin = c.end;
    return c;
}

static void fetch_first(const struct pass *s)
{
    const struct common c = common_pages(s->w);
    size_t b = clamp(c.begin, s), end = clamp(c.end, s);
    if (b < end) fetch_pages(s, b, run_from(s, b, end));
}

/* What all tokens see is taken for all rows at once, the rest token by token, so that nothing a token does
 * not see is ever multiplied in (0 * Inf would be NaN). Positions ascend for each row. */
static void for_pages(const struct pass *s, page_fn *fn)
{
    const struct apr_attn_tile *w = s->w;
    const struct common c = common_pages(w);
    for (size_t t = 0; t < w->n_toks; t++) token_pages(s, t, s->begin, c.begin, fn);
    size_t end = clamp(c.end, s), b = clamp(c.begin, s), n = b < end ? run_from(s, b, end) : 0, n_next;
    for (; b < end; b += n, n = n_next) {
        n_next = b + n < end ? run_from(s, b + n, end) : 0;
        if (n_next) fetch_pages(s, b + n, n_next);
        take_piece(s, (struct piece){.n_rows = w->n_toks * w->n_heads, .i_block = b, .end = n * APR_PAGE_POS},
                   fn);
    }
    for (size_t t = 0; t < w->n_toks; t++) token_pages(s, t, c.end, (w->pos0 + t) / APR_PAGE_POS + 1, fn);
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

/* The softmax of what row r sees of block i_block; its scale goes to max and sum. The largest weight is
 * exp(0) / sum. */
static void soften_row(const struct apr_attn_tile *w, size_t i_block, size_t r, float *scores)
{
    size_t pos = w->pos0 + r / w->n_heads, first = apr_attn_first_seen(w->call, pos), end = pos + 1, i_max;
    size_t begin = (w->block0 + i_block) * w->n_block_pos;
    if (first < begin) first = begin;
    if (end > begin + w->n_block_pos) end = begin + w->n_block_pos;
    if (first >= end) return;
    float *s = scores + r * w->n_block_pos + (first - begin);
    if (w->shape->softcap > 0) w->kern->softcap(s, w->shape->softcap, end - first);
    w->max[r * w->n_blocks + i_block] = w->kern->max(s, end - first, &i_max);
    w->kern->softmax(s, end - first);
    float *sum = &w->sum[r * w->n_blocks + i_block];
    *sum = i_max < end - first && s[i_max] > 0 ? 1 / s[i_max] : 0; /* 0: only -inf, or NaN, which max has */
}

/* The keys or the values of a block. */
static struct pass pass_of(const struct apr_attn_tile *w, size_t i_block, enum apr_cache_part part)
{
    const size_t n_pages = w->n_block_pos / APR_PAGE_POS, begin = (w->block0 + i_block) * n_pages;
    const size_t n_dim = part == APR_CACHE_K ? w->shape->k_dim : w->shape->v_dim;
    if (part == APR_CACHE_V && w->shape->v_in_k) part = APR_CACHE_K;
    return (struct pass){.w = w, .part = part, .n_dim = n_dim, .begin = begin, .end = begin + n_pages};
}

void apr_tile_block(const struct apr_attn_tile *w, size_t i_block, size_t row_begin, size_t row_end,
                    const struct apr_attn_scratch *scratch)
{
    struct pass keys = pass_of(w, i_block, APR_CACHE_K), values = pass_of(w, i_block, APR_CACHE_V);
    keys.row_begin = values.row_begin = row_begin;
    keys.row_end = values.row_end = row_end;
    keys.scores = values.scores = scratch->scores;
    keys.room = values.room = scratch->page;
    for_pages(&keys, page_scores);
    fetch_first(&values);
    for (size_t r = row_begin; r < row_end; r++) soften_row(w, i_block, r, scratch->scores);
    values.out = w->parts + i_block * w->n_toks * w->n_heads * values.n_dim;
    memset(values.out + row_begin * values.n_dim, 0,
           (row_end - row_begin) * values.n_dim * sizeof *values.out);
    for_pages(&values, page_values);
    if (i_block + 1 == w->n_blocks) return;
    keys = pass_of(w, i_block + 1, APR_CACHE_K); /* the thread may go on with it */
    fetch_first(&keys);
}

/* out = sum of the blocks that row r sees, by their shares. */
static void merge_row(const struct apr_attn_tile *w, size_t r, float *out)
{
    const size_t pos = w->pos0 + r / w->n_heads, n_dim = w->shape->v_dim;
    const size_t n_rows = w->n_toks * w->n_heads;
    const size_t i_first = apr_attn_first_seen(w->call, pos) / w->n_block_pos - w->block0;
    const size_t n = pos / w->n_block_pos - w->block0 - i_first + 1;
    const float *part = w->parts + (i_first * n_rows + r) * n_dim;
    float *share = w->max + r * w->n_blocks + i_first, total = 0;
    if (n == 1) {
        memcpy(out, part, n_dim * sizeof *out);
        return;
    }
    w->kern->softmax(share, n);
    for (size_t i = 0; i < n; i++) total += share[i] *= w->sum[r * w->n_blocks + i_first + i];
    memset(out, 0, n_dim * sizeof *out);
    for (size_t i = 0; i < n; i++, part += n_rows * n_dim)
        w->kern->add_scaled(out, part, total > 0 ? share[i] / total : total, n_dim);
}

void apr_tile_merge(const struct apr_attn_tile *w, size_t row_begin, size_t row_end)
{
    const enum apr_cache_part part = w->shape->v_in_k ? APR_CACHE_K : APR_CACHE_V;
    for (size_t r = row_begin; r < row_end; r++) {
        size_t row = (w->row0 + r / w->n_heads) * w->shape->n_heads + w->head0 + r % w->n_heads;
        float *out = w->call->out + row * w->shape->v_dim;
        merge_row(w, r, out);
        if (w->cache->blocks->types.at[part]->is_turned) apr_page_turn(out, w->shape->v_dim);
    }
}

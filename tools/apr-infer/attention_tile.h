/* One tile of attention: a few tokens of a sequence, the query heads of one KV head, and their scores.
 *
 * The three steps may each be split among threads, the first by pages, the second by rows, the third by
 * columns of the values and by rows: every score, softmax and output element is one fixed chain (kern.h) all
 * the same. Between two steps all threads must have finished the one before. For attention.c alone.
 *
 *     apr_tile_gather(&w); apr_tile_scores(&w, 0, n_blocks, room); apr_tile_soften(&w, 0, n_rows);
 *     apr_tile_values(&w, &(struct apr_tile_part){0, v_dim, 0, n_rows}, room);
 */
#ifndef APR_INFER_ATTENTION_TILE_H
#define APR_INFER_ATTENTION_TILE_H

#include "attention.h"

/* Rows of q, out and scores are (token, head), head fastest; column 0 of scores is the first position of page
 * block0. */
struct apr_attn_tile {
    const struct apr_kern *kern;
    const struct apr_attn_shape *shape;
    const struct apr_attn_call *call;
    const struct apr_cache *cache;
    size_t row0, n_toks, pos0; /* of the first token: its row of the call's q and out, its position */
    size_t block0;             /* the first page that it sees */
    uint32_t i_kv, head0, n_heads;
    float *scores; /* [n_toks * n_heads, s_stride] */
    size_t s_stride;
    float *q, *out; /* [n_toks * n_heads, k_dim], [.., v_dim] */
};

/* First position that the token at pos sees. */
static inline size_t apr_attn_first_seen(const struct apr_attn_call *call, size_t pos)
{
    return call->window && pos + 1 > call->window ? pos + 1 - call->window : 0;
}

/* Copies the queries of the call. */
void apr_tile_gather(const struct apr_attn_tile *w);
/* Pages [begin, end) of the cache. room: of kern/page.h. */
void apr_tile_scores(const struct apr_attn_tile *w, size_t begin, size_t end, float *room);
void apr_tile_soften(const struct apr_attn_tile *w, size_t row_begin, size_t row_end);
/* Columns [d0, d0 + n_d), multiples of 32 or all, of rows [row_begin, row_end). */
struct apr_tile_part {
    size_t d0, n_d, row_begin, row_end;
};
/* Into the call's out. */
void apr_tile_values(const struct apr_attn_tile *w, const struct apr_tile_part *p, float *room);

#endif

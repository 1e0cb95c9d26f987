/* One tile of attention: a few tokens of a sequence and the query heads of one KV head.
 *
 * Positions are cut into blocks at fixed places. Of every block that a row (a token's head) sees, its scores
 * are softened by themselves and its values added up, one fixed chain each (kern.h); then the blocks of a row
 * are weighted by their shares of the whole softmax (Dao et al. 2023, "Flash-Decoding") and added up in
 * ascending order. A row's result is the same bits whatever the tile and whoever computes which block. For
 * attention.c alone.
 *
 *     apr_tile_gather(&w); for (i = 0; i < w.n_blocks; i++) apr_tile_block(&w, i, 0, n_rows, &scratch);
 *     apr_tile_merge(&w, 0, n_rows);
 */
#ifndef APR_INFER_ATTENTION_TILE_H
#define APR_INFER_ATTENTION_TILE_H

#include "attention.h"

/* Rows are (token, head), head fastest. */
struct apr_attn_tile {
    const struct apr_kern *kern;
    const struct apr_attn_shape *shape;
    const struct apr_attn_call *call;
    const struct apr_cache *cache;
    size_t row0, n_toks, pos0; /* of the first token: its row of the call's q and out, its position */
    uint32_t i_kv, head0, n_heads;
    size_t n_block_pos;      /* apr_attn_block_pos */
    size_t block0, n_blocks; /* that some token sees */
    float *q;                /* [rows, k_dim] */
    float *max, *sum;        /* [rows, n_blocks] largest score, sum of exp(score - max) */
    float *parts;            /* [n_blocks, rows, v_dim] values weighted by the block's own softmax */
};

/* A thread's own. */
struct apr_attn_scratch {
    float *scores; /* [rows, n_block_pos] */
    float *page;   /* room of kern/page.h */
};

/* Positions of a block, a multiple of APR_PAGE_POS: no less than a head has values, so that parts take no
 * more memory than scores would. */
size_t apr_attn_block_pos(const struct apr_attn_shape *shape);

/* First position that the token at pos sees. */
static inline size_t apr_attn_first_seen(const struct apr_attn_call *call, size_t pos)
{
    return call->window && pos + 1 > call->window ? pos + 1 - call->window : 0;
}

/* Copies the queries of the call. */
void apr_tile_gather(const struct apr_attn_tile *w);
/* max, sum and parts of one block, i_block of n_blocks, for rows [row_begin, row_end). */
void apr_tile_block(const struct apr_attn_tile *w, size_t i_block, size_t row_begin, size_t row_end,
                    const struct apr_attn_scratch *scratch);
/* Rows [row_begin, row_end) into the call's out, once all blocks are there. */
void apr_tile_merge(const struct apr_attn_tile *w, size_t row_begin, size_t row_end);

#endif

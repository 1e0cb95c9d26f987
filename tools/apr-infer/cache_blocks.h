/* Memory of the key-value caches of a session: blocks of 16 positions with reference counts.
 *
 * Layers that see all positions and layers that see a window are two groups, because a window lets blocks go
 * while the others stay. A block holds 16 positions of all layers of its group; of it each (layer, KV head)
 * has one page of keys [16, k_dim] and one of values [16, v_dim], each of a type of kern/page.h: F16, F32
 * (reference mode), or blocks of 32 values along the row. Latent attention keeps one head of kv_rank + n_rope
 * values a position and no page of values: they are the first columns of the keys.
 *
 * Blocks are made in banks. What attention reads one after the other lies side by side in a bank of n blocks:
 * [layer of the group][KV head] of n pages of keys, then n pages of values.
 *
 * A block that several caches hold is shared; who writes takes a copy first (cache.h). Blocks are allocated
 * when they are first needed, up to a number of positions, and are used again after the last holder let go.
 * The pool owns all memory. Not for several threads at once.
 *
 *     struct apr_blocks b; TRY(apr_blocks_init(&b, cfg, apr_cache_plain(exact), n_pos, e)); ...
 * apr_blocks_free(&b);
 */
#ifndef APR_INFER_CACHE_BLOCKS_H
#define APR_INFER_CACHE_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "config.h"
#include "err.h"
#include "kern/page.h"

enum apr_cache_part { APR_CACHE_K = 0, APR_CACHE_V = 1, APR_CACHE_N_PARTS = 2 };

struct apr_cache_types {
    const struct apr_page_type *at[APR_CACHE_N_PARTS];
};
/* Keys and values in F32 or F16. */
struct apr_cache_types apr_cache_plain(bool is_f32);

enum apr_cache_group { APR_CACHE_GLOBAL = 0, APR_CACHE_LOCAL = 1, APR_CACHE_GROUPS = 2 };

struct apr_cache_block {
    uint8_t *bank;
    uint32_t i_in_bank, n_bank; /* which of its blocks */
    uint32_t n_refs;
    struct apr_cache_block *next; /* of the free list */
};

/* Memory of blocks that is not the arena's. */
struct apr_cache_room {
    void *at; /* owned */
    size_t n_bytes;
    struct apr_cache_room *next;
};

struct apr_block_group {
    uint32_t n_layers; /* 0: no blocks of this group exist */
    size_t block_bytes;
    struct apr_cache_block *bank; /* the newest one's blocks */
    size_t n_bank, n_bank_made;   /* how many it has, how many of them have been taken */
    size_t n_max, n_made;         /* blocks: allowed, allocated */
    size_t n_used, n_shared;      /* held by someone, by more than one */
    struct apr_cache_block *free;
};

/* Where the pages of a layer are. */
struct apr_layer_place {
    enum apr_cache_group group;
    uint32_t i_in_group;
};

/* Lets go of blocks that are only kept in case they are wanted again; false: there are none in the group. */
typedef bool apr_reclaim_fn(void *ctx, enum apr_cache_group group);

struct apr_blocks {
    struct apr_arena arena;         /* owns all below */
    struct apr_layer_place *layers; /* [n_layers] */
    uint32_t n_layers, n_heads_kv, k_dim, v_dim;
    uint32_t window; /* positions that local layers see; 0 = no layer is local */
    struct apr_cache_types types;
    size_t row_bytes[APR_CACHE_N_PARTS]; /* of one position of one head; latent attention: values 0 */
    struct apr_block_group groups[APR_CACHE_GROUPS];
    struct apr_cache_room *rooms;
    uint64_t n_copied;       /* blocks copied because they were shared */
    apr_reclaim_fn *reclaim; /* asked when a group is full; NULL: nobody keeps blocks */
    void *reclaim_ctx;
};

/* n_pos: positions of all sequences together; each sequence takes whole blocks. A head that is no whole
 * number of blocks of its type: APR_EUSAGE. */
APR_MUST_USE enum apr_code apr_blocks_init(struct apr_blocks *b, const struct apr_config *cfg,
                                           struct apr_cache_types types, size_t n_pos, struct apr_err *e);
void apr_blocks_free(struct apr_blocks *b); /* after all caches; a zeroed struct is fine */
/* Allows n_pos more positions. */
void apr_blocks_allow(struct apr_blocks *b, size_t n_pos);
/* A block with one reference; its bytes are what the last holder left. No block left: APR_ELOAD. */
APR_MUST_USE enum apr_code apr_blocks_take(struct apr_blocks *b, enum apr_cache_group group,
                                           struct apr_cache_block **out, struct apr_err *e);
/* One holder more, one less. */
void apr_blocks_keep(struct apr_blocks *b, enum apr_cache_group group, struct apr_cache_block *k);
void apr_blocks_drop(struct apr_blocks *b, enum apr_cache_group group, struct apr_cache_block *k);
/* The page of a layer's head, 16 rows of row_bytes[part]; latent attention: of keys, whatever the part. */
void *apr_blocks_page(const struct apr_blocks *b, const struct apr_cache_block *k, enum apr_cache_part part,
                      uint32_t i_in_group, uint32_t i_head);
/* All pages of a group's block. */
void apr_blocks_copy(const struct apr_blocks *b, enum apr_cache_group group, const struct apr_cache_block *to,
                     const struct apr_cache_block *from);
/* Positions that can be taken before the pool is full, not counting what could be reclaimed. */
size_t apr_blocks_left(const struct apr_blocks *b);
/* Bytes of the blocks in use. */
uint64_t apr_blocks_bytes(const struct apr_blocks *b);

#endif

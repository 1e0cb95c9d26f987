/* Pool of cache blocks. The layout is in the header. */
#include "cache_blocks.h"

#include <assert.h>
#include <string.h>

#include "ckd.h"
#include "room.h"

#define FIRST_BANK_BLOCKS 16u         /* short sequences touch no more memory than they need */
#define BANK_BYTES        (32u << 20) /* of later ones, if a block is not larger: on huge pages */

struct apr_cache_types apr_cache_plain(bool is_f32)
{
    const struct apr_page_type *t = apr_page_type_of(is_f32 ? APR_F32 : APR_F16);
    return (struct apr_cache_types){{t, t}};
}

/* Bytes of a row of n_dim values, of which n_read may be read alone (the values of latent attention). */
static enum apr_code size_row(const struct apr_page_type *t, const char *what, uint32_t n_dim,
                              uint32_t n_read, size_t *n_bytes, struct apr_err *e)
{
    uint32_t n_block = apr_quant_of(t->type)->block_elems;
    if (n_dim % n_block || n_read % n_block)
        return apr_fail(e, APR_EUSAGE,
                        "a cache of type %s stores blocks of %u values; %s of this model have %u a head",
                        t->name, n_block, what, n_dim % n_block ? n_dim : n_read);
    *n_bytes = (size_t)n_dim / n_block * apr_quant_of(t->type)->block_bytes;
    return APR_OK;
}

static enum apr_code no_room(const struct apr_config *cfg, const struct apr_blocks *b, struct apr_err *e)
{
    return apr_fail(e, APR_ELOAD, "a cache block of %u layers, %u heads of %u does not fit the address space",
                    cfg->n_layers, b->n_heads_kv, b->k_dim);
}

/* Gives every layer its place in the blocks of its group. */
static enum apr_code place_layers(struct apr_blocks *b, const struct apr_config *cfg, struct apr_err *e)
{
    size_t pair_bytes, layer_bytes;
    if (ckd_add(&pair_bytes, b->row_bytes[APR_CACHE_K], b->row_bytes[APR_CACHE_V]) ||
        ckd_mul(&pair_bytes, pair_bytes, (size_t)APR_PAGE_POS) ||
        ckd_mul(&layer_bytes, pair_bytes, (size_t)b->n_heads_kv) ||
        ckd_mul(&pair_bytes, layer_bytes, (size_t)cfg->n_layers))
        return no_room(cfg, b, e);
    TRY(apr_arena_try(&b->arena, &b->layers, cfg->n_layers, sizeof *b->layers, "cache layers", e));
    for (uint32_t i = 0; i < cfg->n_layers; i++) {
        enum apr_cache_group group =
            cfg->window && apr_layer_bit(cfg->local, i) ? APR_CACHE_LOCAL : APR_CACHE_GLOBAL;
        struct apr_block_group *g = &b->groups[group];
        b->layers[i] = (struct apr_layer_place){.group = group, .i_in_group = g->n_layers++};
        g->block_bytes += layer_bytes;
    }
    return APR_OK;
}

static size_t blocks_of(size_t n_pos)
{
    return n_pos / APR_PAGE_POS + (n_pos % APR_PAGE_POS != 0);
}

enum apr_code apr_blocks_init(struct apr_blocks *b, const struct apr_config *cfg,
                              struct apr_cache_types types, size_t n_pos, struct apr_err *e)
{
    bool is_latent = cfg->mla.kv_rank != 0;
    *b = (struct apr_blocks){.n_layers = cfg->n_layers,
                             .n_heads_kv = is_latent ? 1 : cfg->n_heads_kv,
                             .k_dim = is_latent ? cfg->mla.kv_rank + cfg->mla.n_rope : cfg->head_dim,
                             .v_dim = is_latent ? 0 : cfg->head_dim,
                             .window = cfg->window,
                             .types = types};
    apr_arena_init(&b->arena);
    TRY(size_row(types.at[APR_CACHE_K], "keys", b->k_dim, is_latent ? cfg->mla.kv_rank : 0,
                 &b->row_bytes[APR_CACHE_K], e));
    TRY(size_row(types.at[APR_CACHE_V], "values", b->v_dim, 0, &b->row_bytes[APR_CACHE_V], e));
    for (unsigned g = 0; g < APR_CACHE_GROUPS; g++) b->groups[g].n_max = blocks_of(n_pos);
    return place_layers(b, cfg, e);
}

void apr_blocks_free(struct apr_blocks *b)
{
    for (struct apr_cache_room *r = b->rooms; r; r = r->next) apr_room_close(r->at, r->n_bytes);
    apr_arena_free(&b->arena);
    *b = (struct apr_blocks){0};
}

void apr_blocks_allow(struct apr_blocks *b, size_t n_pos)
{
    for (unsigned g = 0; g < APR_CACHE_GROUPS; g++) {
        size_t *n_max = &b->groups[g].n_max;
        if (ckd_add(n_max, *n_max, blocks_of(n_pos))) *n_max = SIZE_MAX;
    }
}

static enum apr_code take_room(struct apr_blocks *b, size_t n_bytes, uint8_t **at, struct apr_err *e)
{
    struct apr_cache_room *room;
    TRY(apr_arena_try(&b->arena, &room, 1, sizeof *room, "cache block", e));
    *at = apr_room_open(n_bytes);
    if (!*at) return apr_fail(e, APR_ELOAD, "no address space for %zu bytes of cache blocks", n_bytes);
    *room = (struct apr_cache_room){.at = *at, .n_bytes = n_bytes, .next = b->rooms};
    b->rooms = room;
    return APR_OK;
}

/* A bank of no more blocks than may still be made. */
static enum apr_code add_bank(struct apr_blocks *b, struct apr_block_group *g, struct apr_err *e)
{
    uint8_t *at;
    struct apr_cache_block *blocks;
    bool is_first = !g->n_made;
    size_t n_most = is_first ? FIRST_BANK_BLOCKS : BANK_BYTES / g->block_bytes, n = g->n_max - g->n_made;
    if (n > n_most) n = n_most ? n_most : 1;
    TRY(apr_arena_try(&b->arena, &blocks, n, sizeof *blocks, "cache block", e));
    if (is_first)
        TRY(apr_arena_try(&b->arena, &at, n, g->block_bytes, "cache block", e));
    else
        TRY(take_room(b, n * g->block_bytes, &at, e));
    for (size_t i = 0; i < n; i++)
        blocks[i] = (struct apr_cache_block){.bank = at, .i_in_bank = (uint32_t)i, .n_bank = (uint32_t)n};
    g->bank = blocks;
    g->n_bank = n;
    g->n_bank_made = 0;
    return APR_OK;
}

void *apr_blocks_page(const struct apr_blocks *b, const struct apr_cache_block *k, enum apr_cache_part part,
                      uint32_t i_in_group, uint32_t i_head)
{
    const size_t k_page = APR_PAGE_POS * b->row_bytes[APR_CACHE_K],
                 v_page = APR_PAGE_POS * b->row_bytes[APR_CACHE_V];
    uint8_t *keys = k->bank + ((size_t)i_in_group * b->n_heads_kv + i_head) * k->n_bank * (k_page + v_page);
    return part == APR_CACHE_V && b->v_dim ? keys + k->n_bank * k_page + k->i_in_bank * v_page
                                           : keys + k->i_in_bank * k_page;
}

void apr_blocks_copy(const struct apr_blocks *b, enum apr_cache_group group, const struct apr_cache_block *to,
                     const struct apr_cache_block *from)
{
    for (uint32_t l = 0; l < b->groups[group].n_layers; l++)
        for (uint32_t h = 0; h < b->n_heads_kv; h++)
            for (unsigned part = 0; part < (b->v_dim ? APR_CACHE_N_PARTS : 1u); part++)
                memcpy(apr_blocks_page(b, to, (enum apr_cache_part)part, l, h),
                       apr_blocks_page(b, from, (enum apr_cache_part)part, l, h),
                       APR_PAGE_POS * b->row_bytes[part]);
}

enum apr_code apr_blocks_take(struct apr_blocks *b, enum apr_cache_group group, struct apr_cache_block **out,
                              struct apr_err *e)
{
    struct apr_block_group *g = &b->groups[group];
    while (g->n_used >= g->n_max && b->reclaim && b->reclaim(b->reclaim_ctx, group)) continue;
    if (g->n_used >= g->n_max)
        return apr_fail(e, APR_ELOAD,
                        "the key-value cache is full: its %zu blocks of %u positions are in use", g->n_max,
                        APR_PAGE_POS);
    struct apr_cache_block *k = g->free;
    if (k) {
        g->free = k->next;
    } else {
        if (g->n_bank_made == g->n_bank) TRY(add_bank(b, g, e));
        k = &g->bank[g->n_bank_made++];
        g->n_made++;
    }
    k->next = NULL;
    k->n_refs = 1;
    g->n_used++;
    *out = k;
    return APR_OK;
}

void apr_blocks_keep(struct apr_blocks *b, enum apr_cache_group group, struct apr_cache_block *k)
{
    assert(k->n_refs > 0 && k->n_refs < UINT32_MAX);
    if (++k->n_refs == 2) b->groups[group].n_shared++;
}

void apr_blocks_drop(struct apr_blocks *b, enum apr_cache_group group, struct apr_cache_block *k)
{
    struct apr_block_group *g = &b->groups[group];
    assert(k->n_refs > 0);
    if (--k->n_refs == 1) g->n_shared--;
    if (k->n_refs) return;
    k->next = g->free;
    g->free = k;
    g->n_used--;
}

size_t apr_blocks_left(const struct apr_blocks *b)
{
    size_t n = SIZE_MAX / APR_PAGE_POS;
    for (unsigned g = 0; g < APR_CACHE_GROUPS; g++) {
        const struct apr_block_group *at = &b->groups[g];
        if (at->n_layers && at->n_max - at->n_used < n) n = at->n_max - at->n_used;
    }
    return n * APR_PAGE_POS;
}

uint64_t apr_blocks_bytes(const struct apr_blocks *b)
{
    uint64_t n = 0;
    for (unsigned g = 0; g < APR_CACHE_GROUPS; g++)
        n += (uint64_t)b->groups[g].n_used * b->groups[g].block_bytes;
    return n;
}

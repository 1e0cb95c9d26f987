/* Pool of cache blocks. The layout is in the header. */
#include "cache_blocks.h"

#include <assert.h>

#include "ckd.h"

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
        b->layers[i] = (struct apr_layer_place){.group = group, .off_bytes = g->block_bytes};
        g->block_bytes += layer_bytes;
        g->n_layers++;
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
        uint8_t *at;
        TRY(apr_arena_try(&b->arena, &at, g->block_bytes, 1, "cache block", e));
        TRY(apr_arena_try(&b->arena, &k, 1, sizeof *k, "cache block", e));
        k->at = at;
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

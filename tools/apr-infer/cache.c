/* Paged key-value cache. The layout is in the header. */
#include "cache.h"

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

enum apr_code apr_cache_init(struct apr_cache *c, const struct apr_config *cfg, struct apr_cache_types types,
                             size_t n_max, struct apr_err *e)
{
    bool is_latent = cfg->mla.kv_rank != 0;
    size_t row_bytes;
    *c = (struct apr_cache){.n_max = n_max,
                            .n_layers = cfg->n_layers,
                            .n_heads_kv = is_latent ? 1 : cfg->n_heads_kv,
                            .k_dim = is_latent ? cfg->mla.kv_rank + cfg->mla.n_rope : cfg->head_dim,
                            .v_dim = is_latent ? 0 : cfg->head_dim,
                            .types = types};
    apr_arena_init(&c->arena);
    TRY(size_row(types.at[APR_CACHE_K], "keys", c->k_dim, is_latent ? cfg->mla.kv_rank : 0,
                 &c->row_bytes[APR_CACHE_K], e));
    TRY(size_row(types.at[APR_CACHE_V], "values", c->v_dim, 0, &c->row_bytes[APR_CACHE_V], e));
    if (ckd_add(&row_bytes, c->row_bytes[APR_CACHE_K], c->row_bytes[APR_CACHE_V]) ||
        ckd_mul(&c->block_bytes, row_bytes, (size_t)APR_PAGE_POS) ||
        ckd_mul(&c->block_bytes, c->block_bytes, (size_t)c->n_heads_kv) ||
        ckd_mul(&c->block_bytes, c->block_bytes, (size_t)c->n_layers))
        return apr_fail(e, APR_ELOAD,
                        "a cache block of %u layers, %u heads of %u does not fit the address space",
                        cfg->n_layers, c->n_heads_kv, c->k_dim);
    size_t n_table = n_max / APR_PAGE_POS + (n_max % APR_PAGE_POS != 0);
    TRY(apr_arena_try(&c->arena, &c->blocks, n_table, sizeof *c->blocks, "cache block table", e));
    return apr_arena_try(&c->arena, &c->ids, n_max, sizeof *c->ids, "tokens of the cache", e);
}

void apr_cache_free(struct apr_cache *c)
{
    apr_arena_free(&c->arena);
    c->n_blocks = c->n_pos = 0;
}

enum apr_code apr_cache_reserve(struct apr_cache *c, size_t n_pos, struct apr_err *e)
{
    if (n_pos > c->n_max)
        return apr_fail(e, APR_EUSAGE, "%zu tokens do not fit the context of %zu", n_pos, c->n_max);
    while (c->n_blocks * APR_PAGE_POS < n_pos) {
        TRY(apr_arena_try(&c->arena, &c->blocks[c->n_blocks], c->block_bytes, 1, "cache block", e));
        c->n_blocks++;
    }
    return APR_OK;
}

uint64_t apr_cache_bytes(const struct apr_cache *c, size_t n_pos)
{
    return (uint64_t)c->block_bytes * (n_pos / APR_PAGE_POS + (n_pos % APR_PAGE_POS != 0));
}

void apr_cache_truncate(struct apr_cache *c, size_t n_pos)
{
    if (n_pos < c->n_pos) c->n_pos = n_pos;
}

void *apr_cache_page(const struct apr_cache *c, enum apr_cache_part part, uint32_t i_layer, uint32_t i_head,
                     size_t i_block)
{
    assert(i_block < c->n_blocks && i_layer < c->n_layers && i_head < c->n_heads_kv);
    size_t i_pair = (size_t)i_layer * c->n_heads_kv + i_head;
    const size_t k_page_bytes = APR_PAGE_POS * c->row_bytes[APR_CACHE_K];
    uint8_t *pair = c->blocks[i_block] + i_pair * (k_page_bytes + APR_PAGE_POS * c->row_bytes[APR_CACHE_V]);
    return part == APR_CACHE_V && c->v_dim ? pair + k_page_bytes : pair;
}

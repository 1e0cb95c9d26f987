/* Paged key-value cache. The layout is in the header. */
#include "cache.h"

#include <assert.h>

#include "ckd.h"

enum apr_code apr_cache_init(struct apr_cache *c, const struct apr_config *cfg, bool is_f32, size_t n_max,
                             struct apr_err *e)
{
    bool is_latent = cfg->mla.kv_rank != 0;
    size_t elem_bytes = is_f32 ? sizeof(float) : sizeof(uint16_t), page_bytes;
    *c = (struct apr_cache){.n_max = n_max,
                            .n_layers = cfg->n_layers,
                            .n_heads_kv = is_latent ? 1 : cfg->n_heads_kv,
                            .k_dim = is_latent ? cfg->mla.kv_rank + cfg->mla.n_rope : cfg->head_dim,
                            .v_dim = is_latent ? 0 : cfg->head_dim,
                            .is_f32 = is_f32};
    apr_arena_init(&c->arena);
    if (ckd_mul(&c->k_page_bytes, APR_PAGE_POS * elem_bytes, c->k_dim) ||
        ckd_mul(&c->v_page_bytes, APR_PAGE_POS * elem_bytes, c->v_dim) ||
        ckd_add(&page_bytes, c->k_page_bytes, c->v_page_bytes) ||
        ckd_mul(&c->block_bytes, page_bytes, (size_t)c->n_heads_kv) ||
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

void apr_cache_truncate(struct apr_cache *c, size_t n_pos)
{
    if (n_pos < c->n_pos) c->n_pos = n_pos;
}

void *apr_cache_page(const struct apr_cache *c, enum apr_cache_part part, uint32_t i_layer, uint32_t i_head,
                     size_t i_block)
{
    assert(i_block < c->n_blocks && i_layer < c->n_layers && i_head < c->n_heads_kv);
    size_t i_pair = (size_t)i_layer * c->n_heads_kv + i_head;
    uint8_t *pair = c->blocks[i_block] + i_pair * (c->k_page_bytes + c->v_page_bytes);
    return part == APR_CACHE_V && c->v_dim ? pair + c->k_page_bytes : pair;
}

/* Paged key-value cache. The layout is in the header. */
#include "cache.h"

#include <assert.h>

#include "ckd.h"

enum apr_code apr_cache_init(struct apr_cache *c, const struct apr_config *cfg, bool is_f32, size_t n_max,
                             struct apr_err *e)
{
    *c = (struct apr_cache){.n_max = n_max,
                            .n_layers = cfg->n_layers,
                            .n_heads_kv = cfg->n_heads_kv,
                            .head_dim = cfg->head_dim,
                            .is_f32 = is_f32};
    apr_arena_init(&c->arena);
    size_t elem_bytes = is_f32 ? sizeof(float) : sizeof(uint16_t);
    if (ckd_mul(&c->page_bytes, APR_PAGE_POS * elem_bytes, cfg->head_dim) ||
        ckd_mul(&c->block_bytes, c->page_bytes, 2u) ||
        ckd_mul(&c->block_bytes, c->block_bytes, (size_t)cfg->n_heads_kv) ||
        ckd_mul(&c->block_bytes, c->block_bytes, (size_t)cfg->n_layers))
        return apr_fail(e, APR_ELOAD,
                        "a cache block of %u layers, %u heads of %u does not fit the address space",
                        cfg->n_layers, cfg->n_heads_kv, cfg->head_dim);
    size_t n_table = n_max / APR_PAGE_POS + (n_max % APR_PAGE_POS != 0);
    return apr_arena_try(&c->arena, &c->blocks, n_table, sizeof *c->blocks, "cache block table", e);
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
    size_t i_page = ((size_t)i_layer * c->n_heads_kv + i_head) * 2 + part;
    return c->blocks[i_block] + i_page * c->page_bytes;
}

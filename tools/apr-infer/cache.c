/* Paged key-value cache of one sequence. See cache.h. */
#include "cache.h"

#include <assert.h>
#include <string.h>

enum apr_code apr_cache_init(struct apr_cache *c, struct apr_blocks *blocks, size_t n_max, struct apr_err *e)
{
    *c = (struct apr_cache){.blocks = blocks, .n_max = n_max};
    apr_arena_init(&c->arena);
    size_t n_table = n_max / APR_PAGE_POS + (n_max % APR_PAGE_POS != 0);
    for (unsigned g = 0; g < APR_CACHE_GROUPS; g++)
        if (blocks->groups[g].n_layers)
            TRY(apr_arena_try(&c->arena, &c->table[g], n_table, sizeof *c->table[g], "cache block table", e));
    return apr_arena_try(&c->arena, &c->ids, n_max, sizeof *c->ids, "tokens of the cache", e);
}

/* Lets go of blocks [begin, end) of a group, as far as they are held: the last first, so that the next taker
 * finds them in order. */
static void drop_blocks(struct apr_cache *c, unsigned g, size_t begin, size_t end)
{
    if (begin < c->first_block[g]) begin = c->first_block[g];
    for (size_t i = end; c->table[g] && i-- > begin;) {
        apr_blocks_drop(c->blocks, (enum apr_cache_group)g, c->table[g][i]);
        c->table[g][i] = NULL;
    }
}

static void drop_all(struct apr_cache *c)
{
    for (unsigned g = 0; g < APR_CACHE_GROUPS; g++) {
        drop_blocks(c, g, 0, c->n_blocks);
        c->first_block[g] = 0;
    }
    c->n_blocks = 0;
}

void apr_cache_free(struct apr_cache *c)
{
    if (c->blocks) drop_all(c);
    apr_arena_free(&c->arena);
    *c = (struct apr_cache){0};
}

void apr_cache_lose(struct apr_cache *c)
{
    drop_all(c);
    c->is_lost = c->n_pos > 0;
}

size_t apr_cache_first_seen(const struct apr_blocks *b, enum apr_cache_group group, size_t n_pos)
{
    return group == APR_CACHE_LOCAL && n_pos + 1 > b->window ? n_pos + 1 - b->window : 0;
}

/* The first block that a token at n_pos - APR_CACHE_SLACK or behind it sees. */
static size_t first_kept(const struct apr_blocks *b, enum apr_cache_group g, size_t n_pos)
{
    size_t first = apr_cache_first_seen(b, g, n_pos);
    return first > APR_CACHE_SLACK ? (first - APR_CACHE_SLACK) / APR_PAGE_POS : 0;
}

static void forget_unseen(struct apr_cache *c)
{
    const unsigned g = APR_CACHE_LOCAL;
    size_t i_first = first_kept(c->blocks, APR_CACHE_LOCAL, c->n_pos);
    if (i_first <= c->first_block[g]) return;
    drop_blocks(c, g, 0, i_first);
    c->first_block[g] = i_first;
}

/* The block that c is about to write is its own. */
static enum apr_code own_block(struct apr_cache *c, unsigned g, size_t i_block, struct apr_err *e)
{
    struct apr_cache_block **at = &c->table[g][i_block], *copy;
    if ((*at)->n_refs == 1) return APR_OK;
    TRY(apr_blocks_take(c->blocks, (enum apr_cache_group)g, &copy, e));
    apr_blocks_copy(c->blocks, (enum apr_cache_group)g, copy, *at);
    apr_blocks_drop(c->blocks, (enum apr_cache_group)g, *at);
    *at = copy;
    c->blocks->n_copied++;
    return APR_OK;
}

/* One more block in each group: all or none. */
static enum apr_code add_block(struct apr_cache *c, struct apr_err *e)
{
    for (unsigned g = 0; g < APR_CACHE_GROUPS; g++) {
        if (!c->table[g]) continue;
        enum apr_code code =
            apr_blocks_take(c->blocks, (enum apr_cache_group)g, &c->table[g][c->n_blocks], e);
        if (code == APR_OK) continue;
        while (g-- > 0) drop_blocks(c, g, c->n_blocks, c->n_blocks + 1);
        return code;
    }
    c->n_blocks++;
    return APR_OK;
}

enum apr_code apr_cache_reserve(struct apr_cache *c, size_t n_pos, struct apr_err *e)
{
    if (n_pos > c->n_max)
        return apr_fail(e, APR_EUSAGE, "%zu tokens do not fit the context of %zu", n_pos, c->n_max);
    assert(!c->is_lost);
    if (c->blocks->window) forget_unseen(c);
    for (unsigned g = 0; g < APR_CACHE_GROUPS; g++)
        for (size_t i = c->n_pos / APR_PAGE_POS; c->table[g] && i < c->n_blocks; i++)
            TRY(own_block(c, g, i, e));
    while (c->n_blocks * APR_PAGE_POS < n_pos) TRY(add_block(c, e));
    return APR_OK;
}

uint64_t apr_cache_bytes(const struct apr_cache *c, size_t n_pos)
{
    uint64_t n_bytes = 0;
    for (unsigned g = 0; g < APR_CACHE_GROUPS; g++) {
        size_t n_blocks = n_pos / APR_PAGE_POS + (n_pos % APR_PAGE_POS != 0);
        n_blocks -= first_kept(c->blocks, (enum apr_cache_group)g, n_pos);
        n_bytes += (uint64_t)c->blocks->groups[g].block_bytes * n_blocks;
    }
    return n_bytes;
}

/* Pages are missing that a token at n_pos sees. */
static bool lacks_pages(const struct apr_cache *c, size_t n_pos)
{
    size_t seen = apr_cache_first_seen(c->blocks, APR_CACHE_LOCAL, n_pos);
    return n_pos && c->first_block[APR_CACHE_LOCAL] * APR_PAGE_POS > seen;
}

void apr_cache_truncate(struct apr_cache *c, size_t n_pos)
{
    if (n_pos >= c->n_pos) return;
    size_t n_blocks = n_pos / APR_PAGE_POS + (n_pos % APR_PAGE_POS != 0);
    c->n_pos = n_pos;
    c->is_lost &= n_pos > 0;
    if (!n_pos) c->n_seq = 0;
    if (c->is_lost) return;
    if (!n_pos) {
        drop_all(c);
    } else if (c->blocks->window && lacks_pages(c, n_pos)) {
        apr_cache_lose(c);
    } else if (n_blocks < c->n_blocks) {
        for (unsigned g = 0; g < APR_CACHE_GROUPS; g++) drop_blocks(c, g, n_blocks, c->n_blocks);
        c->n_blocks = n_blocks;
    }
}

enum apr_code apr_cache_fork(struct apr_cache *to, const struct apr_cache *from, size_t n_pos,
                             struct apr_err *e)
{
    assert(!to->n_pos && !to->n_blocks && to->blocks == from->blocks);
    if (n_pos > from->n_pos || n_pos > to->n_max)
        return apr_fail(e, APR_EUSAGE,
                        "%zu positions cannot be shared: the cache has %zu, the new one takes %zu", n_pos,
                        from->n_pos, to->n_max);
    memcpy(to->ids, from->ids, n_pos * sizeof *to->ids);
    to->n_pos = n_pos;
    to->n_seq = from->n_seq;
    to->is_long = from->is_long;
    to->is_lost = n_pos && (from->is_lost || (from->blocks->window && lacks_pages(from, n_pos)));
    if (to->is_lost || !n_pos) return APR_OK;
    to->n_blocks = n_pos / APR_PAGE_POS + (n_pos % APR_PAGE_POS != 0);
    for (unsigned g = 0; g < APR_CACHE_GROUPS; g++) {
        to->first_block[g] = from->first_block[g];
        for (size_t i = to->first_block[g]; to->table[g] && i < to->n_blocks; i++) {
            to->table[g][i] = from->table[g][i];
            apr_blocks_keep(to->blocks, (enum apr_cache_group)g, to->table[g][i]);
        }
    }
    return APR_OK;
}

void *apr_cache_page(const struct apr_cache *c, enum apr_cache_part part, uint32_t i_layer, uint32_t i_head,
                     size_t i_block)
{
    const struct apr_blocks *b = c->blocks;
    assert(i_block < c->n_blocks && i_layer < b->n_layers && i_head < b->n_heads_kv);
    const struct apr_layer_place *l = &b->layers[i_layer];
    assert(i_block >= c->first_block[l->group]);
    return apr_blocks_page(b, c->table[l->group][i_block], part, l->i_in_group, i_head);
}

size_t apr_cache_run(const struct apr_cache *c, uint32_t i_layer, size_t i_block, size_t n_most)
{
    struct apr_cache_block *const *k = c->table[c->blocks->layers[i_layer].group] + i_block;
    size_t n = 1;
    while (n < n_most && k[n]->bank == k[0]->bank && k[n]->i_in_bank == k[0]->i_in_bank + n) n++;
    return n;
}

/* The tree of beginnings. See prefixes.h. */
#include "prefixes.h"

#include <assert.h>
#include <string.h>

#include "hash.h"

#define FIRST_BUCKETS 256u

/* 16 tokens behind those of the parents. */
struct apr_prefix {
    struct apr_prefix *parent; /* NULL: the sequence begins here */
    bool is_long;              /* rotated by the long set of rope.h */
    int32_t ids[APR_PAGE_POS];
    struct apr_cache_block *block[APR_CACHE_GROUPS]; /* a reference each, or NULL */
    size_t n_children;
    struct apr_prefix *next;          /* of its bucket; of unused */
    struct apr_prefix *newer, *older; /* by the last use; a node is older than its parent */
};

/* What is looked up. */
struct key {
    const struct apr_prefix *parent;
    uint64_t is_long;
    int32_t ids[APR_PAGE_POS];
};

void apr_prefixes_free(struct apr_prefixes *p)
{
    for (struct apr_prefix *x = p->newest; x; x = x->older)
        for (unsigned g = 0; g < APR_CACHE_GROUPS; g++)
            if (x->block[g]) apr_blocks_drop(p->blocks, (enum apr_cache_group)g, x->block[g]);
    if (p->blocks && p->blocks->reclaim_ctx == p) {
        p->blocks->reclaim = NULL;
        p->blocks->reclaim_ctx = NULL;
    }
    apr_arena_free(&p->arena);
    *p = (struct apr_prefixes){0};
}

/* ---- order of use ---------------------------------------------------------------------------------------
 */

static void unlink_node(struct apr_prefixes *p, struct apr_prefix *x)
{
    *(x->newer ? &x->newer->older : &p->newest) = x->older;
    *(x->older ? &x->older->newer : &p->oldest) = x->newer;
}

static void link_newest(struct apr_prefixes *p, struct apr_prefix *x)
{
    x->newer = NULL;
    x->older = p->newest;
    *(p->newest ? &p->newest->newer : &p->oldest) = x;
    p->newest = x;
}

/* The end first, so that every parent is newer than its children. */
static void touch(struct apr_prefixes *p, struct apr_prefix *end)
{
    for (struct apr_prefix *x = end; x; x = x->parent) {
        unlink_node(p, x);
        link_newest(p, x);
    }
}

/* ---- look-up --------------------------------------------------------------------------------------------
 */

static struct apr_prefix **bucket_of(const struct apr_prefixes *p, const struct apr_prefix *parent,
                                     bool is_long, const int32_t *ids)
{
    struct key key = {.parent = parent, .is_long = is_long};
    memcpy(key.ids, ids, sizeof key.ids);
    return &p->buckets[apr_hash_key(&key, sizeof key) & (p->n_buckets - 1)];
}

static struct apr_prefix *find(const struct apr_prefixes *p, const struct apr_prefix *parent, bool is_long,
                               const int32_t *ids)
{
    struct apr_prefix *x = p->n_buckets ? *bucket_of(p, parent, is_long, ids) : NULL;
    while (x && (x->parent != parent || x->is_long != is_long || memcmp(x->ids, ids, sizeof x->ids) != 0))
        x = x->next;
    return x;
}

static enum apr_code grow(struct apr_prefixes *p, struct apr_err *e)
{
    size_t n = p->n_buckets ? 2 * p->n_buckets : FIRST_BUCKETS;
    struct apr_prefix **buckets;
    if (p->n_nodes < p->n_buckets) return APR_OK;
    TRY(apr_arena_try(&p->arena, &buckets, n, sizeof *buckets, "table of prefixes", e));
    p->buckets = buckets;
    p->n_buckets = n;
    for (struct apr_prefix *x = p->newest; x; x = x->older) {
        struct apr_prefix **at = bucket_of(p, x->parent, x->is_long, x->ids);
        x->next = *at;
        *at = x;
    }
    return APR_OK;
}

/* ---- making room ----------------------------------------------------------------------------------------
 */

static void remove_node(struct apr_prefixes *p, struct apr_prefix *x)
{
    struct apr_prefix **at = bucket_of(p, x->parent, x->is_long, x->ids);
    assert(!x->n_children);
    while (*at != x) at = &(*at)->next;
    *at = x->next;
    unlink_node(p, x);
    for (unsigned g = 0; g < APR_CACHE_GROUPS; g++)
        if (x->block[g]) apr_blocks_drop(p->blocks, (enum apr_cache_group)g, x->block[g]);
    if (x->parent) x->parent->n_children--;
    x->next = p->unused;
    p->unused = x;
    p->n_nodes--;
    p->n_evicted++;
}

/* The end that was used longest ago; where it can be, one whose block nobody else holds. */
static bool evict(struct apr_prefixes *p, enum apr_cache_group group)
{
    struct apr_prefix *any = NULL;
    for (struct apr_prefix *x = p->oldest; x; x = x->newer) {
        const struct apr_cache_block *k = x->block[group];
        if (k && k->n_refs == 1 && group == APR_CACHE_LOCAL) { /* also inside: others begin elsewhere */
            apr_blocks_drop(p->blocks, group, x->block[group]);
            x->block[group] = NULL;
            p->n_evicted++;
            return true;
        }
        if (x->n_children) continue;
        if (k && k->n_refs == 1) return remove_node(p, x), true;
        if (!any) any = x;
    }
    if (!any || group == APR_CACHE_LOCAL) return false;
    remove_node(p, any); /* gives no block, but its parents can go now */
    return true;
}

static bool reclaim(void *ctx, enum apr_cache_group group)
{
    return evict(ctx, group);
}

void apr_prefixes_init(struct apr_prefixes *p, const struct apr_forward *f, struct apr_blocks *blocks)
{
    *p = (struct apr_prefixes){.f = f, .blocks = blocks};
    apr_arena_init(&p->arena);
    blocks->reclaim = reclaim;
    blocks->reclaim_ctx = p;
}

/* ---- keeping --------------------------------------------------------------------------------------------
 */

static enum apr_code add_node(struct apr_prefixes *p, struct apr_prefix *parent, bool is_long,
                              const int32_t *ids, struct apr_prefix **out, struct apr_err *e)
{
    struct apr_prefix *x = p->unused;
    TRY(grow(p, e));
    if (x)
        p->unused = x->next;
    else
        TRY(apr_arena_try(&p->arena, &x, 1, sizeof *x, "prefix", e));
    *x = (struct apr_prefix){.parent = parent, .is_long = is_long};
    memcpy(x->ids, ids, sizeof x->ids);
    struct apr_prefix **at = bucket_of(p, parent, is_long, ids);
    x->next = *at;
    *at = x;
    link_newest(p, x);
    if (parent) parent->n_children++;
    p->n_nodes++;
    *out = x;
    return APR_OK;
}

/* The tree and the cache hold the same block of each group afterwards. */
static void unite(struct apr_prefixes *p, struct apr_prefix *x, struct apr_cache *c, size_t i_block)
{
    for (unsigned g = 0; g < APR_CACHE_GROUPS; g++) {
        struct apr_cache_block **at = c->table[g] ? &c->table[g][i_block] : NULL;
        if (!at || !*at || *at == x->block[g]) continue;
        if (!x->block[g]) {
            x->block[g] = *at;
            apr_blocks_keep(p->blocks, (enum apr_cache_group)g, *at);
            continue;
        }
        apr_blocks_keep(p->blocks, (enum apr_cache_group)g, x->block[g]);
        apr_blocks_drop(p->blocks, (enum apr_cache_group)g, *at);
        *at = x->block[g];
        p->n_merged++;
    }
}

/* Keys of every sequence that turns alike are the same, and there are keys here. */
static bool can_share(const struct apr_prefixes *p, size_t n_seq)
{
    return !p->f->offload && apr_rope_is_stable(&p->f->rope, n_seq) &&
           apr_rope_is_stable(&p->f->rope_local, n_seq);
}

enum apr_code apr_prefixes_add(struct apr_prefixes *p, struct apr_cache *c, struct apr_err *e)
{
    struct apr_prefix *end = NULL;
    enum apr_code code = APR_OK;
    if (c->is_lost || !can_share(p, c->n_seq)) return APR_OK;
    for (size_t i = 0; i < c->n_pos / APR_PAGE_POS && code == APR_OK; i++) {
        const int32_t *ids = c->ids + i * APR_PAGE_POS;
        struct apr_prefix *x = find(p, end, c->is_long, ids);
        if (!x) code = add_node(p, end, c->is_long, ids, &x, e);
        if (code != APR_OK) break;
        unite(p, x, c, i);
        end = x;
    }
    touch(p, end);
    while (p->n_nodes > p->blocks->groups[APR_CACHE_GLOBAL].n_max && p->oldest && !p->oldest->n_children)
        remove_node(p, p->oldest);
    return code;
}

/* ---- taking over ----------------------------------------------------------------------------------------
 */

/* A chain of nodes from the first tokens on. */
struct chain {
    size_t n_blocks;
    struct apr_prefix *end;
    size_t first_local; /* from it to the end every node has its local block */
};

/* The longest chain from which a cache can go on: all that the next token sees is there. */
static struct chain longest(const struct apr_prefixes *p, bool is_long, const int32_t *ids, size_t n)
{
    bool has_local = p->blocks->groups[APR_CACHE_LOCAL].n_layers > 0;
    struct chain best = {0}, at = {0};
    while ((at.n_blocks + 1) * APR_PAGE_POS < n) {
        struct apr_prefix *x = find(p, at.end, is_long, ids + at.n_blocks * APR_PAGE_POS);
        if (!x) break;
        at.end = x;
        at.n_blocks++;
        if (!has_local || !x->block[APR_CACHE_LOCAL]) at.first_local = at.n_blocks;
        size_t first_seen =
            apr_cache_first_seen(p->blocks, APR_CACHE_LOCAL, at.n_blocks * APR_PAGE_POS) / APR_PAGE_POS;
        if (!has_local || at.first_local <= first_seen) best = at;
    }
    return best;
}

static void take_over(struct apr_cache *c, const struct chain *chain)
{
    size_t i = c->n_blocks = chain->n_blocks;
    c->first_block[APR_CACHE_LOCAL] = c->table[APR_CACHE_LOCAL] ? chain->first_local : 0;
    for (struct apr_prefix *x = chain->end; x; x = x->parent) {
        i--;
        for (unsigned g = 0; g < APR_CACHE_GROUPS; g++) {
            if (!c->table[g] || i < c->first_block[g]) continue;
            c->table[g][i] = x->block[g];
            apr_blocks_keep(c->blocks, (enum apr_cache_group)g, x->block[g]);
        }
    }
    c->n_pos = chain->n_blocks * APR_PAGE_POS;
}

enum apr_code apr_prefixes_begin(struct apr_prefixes *p, struct apr_cache *c, const int32_t *ids, size_t n,
                                 struct apr_err *e)
{
    assert(!c->n_pos && !c->n_blocks && c->blocks == p->blocks && n > 0);
    if (n > c->n_max) return apr_fail(e, APR_EUSAGE, "%zu tokens do not fit the context of %zu", n, c->n_max);
    bool is_long = apr_rope_is_long(&p->f->rope, n);
    struct chain chain = {0};
    if (can_share(p, n)) chain = longest(p, is_long, ids, n);
    if (!chain.n_blocks) return p->n_misses++, APR_OK;
    take_over(c, &chain);
    memcpy(c->ids, ids, c->n_pos * sizeof *ids);
    c->is_long = is_long;
    touch(p, chain.end);
    p->n_hits++;
    p->n_toks_saved += c->n_pos;
    return APR_OK;
}

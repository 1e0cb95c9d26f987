/* See trie.h. */
#include "trie.h"

#include <string.h>

enum { MIN_SLOTS = 64, MAX_NODES = 1 << 24 };

void apr_trie_init(struct apr_trie *t)
{
    *t = (struct apr_trie){.seed = apr_lookup_seed() | 1, .n_nodes = 2}; /* none, and the root */
    apr_buf_init(&t->building, SIZE_MAX);
    apr_buf_init(&t->building_values, SIZE_MAX);
}

void apr_trie_drop(struct apr_trie *t)
{
    apr_buf_free(&t->building);
    apr_buf_free(&t->building_values);
}

static struct apr_trie_edge *slot(struct apr_trie_edge *edges, uint32_t mask, uint64_t seed, uint32_t key)
{
    for (uint32_t i = apr_trie_slot(key, seed);; i++) {
        struct apr_trie_edge *x = &edges[i & mask];
        if (x->node_byte == key || x->node_byte == 0) return x;
    }
}

/* Room for one node more: the table is at most half full. */
static enum apr_code grow(struct apr_trie *t, struct apr_err *e)
{
    uint32_t n_slots = t->edges ? t->mask + 1 : 0;
    if (t->n_nodes < n_slots / 2) return APR_OK;
    uint32_t n_wanted = n_slots ? 2 * n_slots : MIN_SLOTS;
    struct apr_buf bigger;
    uint8_t *room;
    apr_buf_init(&bigger, SIZE_MAX);
    TRY(apr_buf_reserve(&bigger, n_wanted * sizeof *t->edges, &room, e));
    memset(room, 0, n_wanted * sizeof *t->edges);
    struct apr_trie_edge *edges = (struct apr_trie_edge *)(void *)room;
    for (uint32_t i = 0; i < n_slots; i++)
        if (t->edges[i].node_byte != 0)
            *slot(edges, n_wanted - 1, t->seed, t->edges[i].node_byte) = t->edges[i];
    apr_buf_free(&t->building);
    t->building = bigger;
    t->edges = edges;
    t->mask = n_wanted - 1;
    return APR_OK;
}

static enum apr_code put_values(struct apr_trie *t, struct apr_err *e)
{
    static const int32_t none = -1;
    while (t->building_values.n_bytes < t->n_nodes * sizeof none)
        TRY(apr_buf_append(&t->building_values, &none, sizeof none, e));
    t->values = (int32_t *)(void *)t->building_values.data;
    return APR_OK;
}

static enum apr_code child(struct apr_trie *t, uint32_t node, uint8_t byte, uint32_t *out, struct apr_err *e)
{
    TRY(grow(t, e));
    struct apr_trie_edge *x = slot(t->edges, t->mask, t->seed, node << 8 | byte);
    uint32_t *at = node == APR_TRIE_ROOT ? &t->roots[byte] : &x->child;
    if (*at == 0) {
        if (node != APR_TRIE_ROOT) x->node_byte = node << 8 | byte;
        *at = t->n_nodes++;
        TRY(put_values(t, e));
    }
    *out = *at;
    return APR_OK;
}

static enum apr_code put(struct apr_trie *t, struct apr_str text, int32_t value, int32_t *had,
                         const char *file, struct apr_err *e)
{
    char shown[80];
    if (text.n_bytes == 0 || text.n_bytes > APR_TRIE_MAX_BYTES)
        return apr_fail(e, APR_EFORMAT, "%s: token \"%s\" has %zu bytes; expected 1..%u", file,
                        apr_escape(shown, sizeof shown, text.p, text.n_bytes < 40 ? text.n_bytes : 40),
                        text.n_bytes, APR_TRIE_MAX_BYTES);
    uint32_t node = APR_TRIE_ROOT;
    TRY(put_values(t, e));
    for (size_t i = 0; i < text.n_bytes; i++) {
        if (t->n_nodes >= MAX_NODES)
            return apr_fail(e, APR_ELOAD, "%s: the texts of the tokens are too long for a table", file);
        TRY(child(t, node, (uint8_t)text.p[i], &node, e));
    }
    *had = t->values[node];
    if (*had < 0) t->values[node] = value;
    return APR_OK;
}

enum apr_code apr_trie_put(struct apr_trie *t, struct apr_str text, int32_t value, int32_t *had,
                           const char *file, struct apr_err *e)
{
    enum apr_code code = put(t, text, value, had, file, e);
    if (code != APR_OK) apr_trie_drop(t);
    return code;
}

static enum apr_code seal(struct apr_trie *t, struct apr_arena *arena, struct apr_err *e)
{
    struct apr_trie_edge *edges;
    int32_t *values;
    TRY(grow(t, e));
    TRY(put_values(t, e));
    TRY(apr_arena_try(arena, &edges, (size_t)t->mask + 1, sizeof *edges, "token table", e));
    TRY(apr_arena_try(arena, &values, t->n_nodes, sizeof *values, "token table", e));
    memcpy(edges, t->edges, ((size_t)t->mask + 1) * sizeof *edges);
    memcpy(values, t->values, t->n_nodes * sizeof *values);
    t->edges = edges;
    t->values = values;
    return APR_OK;
}

enum apr_code apr_trie_seal(struct apr_trie *t, struct apr_arena *arena, struct apr_err *e)
{
    enum apr_code code = seal(t, arena, e);
    apr_trie_drop(t);
    return code;
}

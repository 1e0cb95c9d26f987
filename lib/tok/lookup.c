/* See lookup.h. */
#include "lookup.h"

#include <string.h>
#include <xxhash.h>

enum apr_code apr_lookup_init(struct apr_lookup *l, struct apr_arena *arena, uint64_t n, struct apr_err *e)
{
    uint64_t n_slots = 16;
    while (n_slots < n * 2) n_slots *= 2; /* n is a count of things in memory: no overflow */
    TRY(apr_arena_try(arena, &l->slots, n_slots, sizeof *l->slots, "token table", e));
    for (uint64_t i = 0; i < n_slots; i++) l->slots[i].id = -1;
    l->mask = n_slots - 1;
    return APR_OK;
}

static struct apr_lookup_slot *find(const struct apr_lookup *l, const char *p, size_t n, uint32_t hash)
{
    for (uint64_t i = hash;; i++) {
        struct apr_lookup_slot *s = &l->slots[i & l->mask];
        if (s->id < 0) return s;
        if (s->hash == hash && s->n_bytes == n && memcmp(s->p, p, n) == 0) return s;
    }
}

int32_t apr_lookup_put(struct apr_lookup *l, struct apr_str text, int32_t id)
{
    uint32_t hash = (uint32_t)XXH3_64bits(text.p, text.n_bytes);
    struct apr_lookup_slot *s = find(l, text.p, text.n_bytes, hash);
    if (s->id >= 0) return s->id;
    *s = (struct apr_lookup_slot){.p = text.p, .n_bytes = (uint32_t)text.n_bytes, .hash = hash, .id = id};
    return -1;
}

int32_t apr_lookup_get(const struct apr_lookup *l, const char *p, size_t n_bytes)
{
    return find(l, p, n_bytes, (uint32_t)XXH3_64bits(p, n_bytes))->id;
}

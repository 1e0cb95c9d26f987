/* See lookup.h. */
#include "lookup.h"

#include <stdbool.h>
#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

uint64_t apr_lookup_seed(void)
{
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != (ssize_t)sizeof seed)
        seed = (uint64_t)(uintptr_t)&seed; /* of a randomized stack */
    return seed;
}

enum apr_code apr_lookup_init(struct apr_lookup *l, const struct apr_str *texts, uint32_t n,
                              struct apr_arena *arena, struct apr_err *e)
{
    uint64_t n_slots = 16;
    while (n_slots < (uint64_t)n + n / 2) n_slots *= 2;
    l->texts = texts;
    l->mask = n_slots - 1;
    l->seed = apr_lookup_seed();
    return apr_arena_try(arena, &l->slots, n_slots, sizeof *l->slots, "token table", e);
}

static bool equal(const struct apr_str *a, const char *p, size_t n)
{
    return a->n_bytes == n && (n == 0 || memcmp(a->p, p, n) == 0);
}

static struct apr_lookup_slot *find(const struct apr_lookup *l, const char *p, size_t n, uint32_t hash)
{
    for (uint64_t i = hash;; i++) {
        struct apr_lookup_slot *s = &l->slots[i & l->mask];
        if (s->id_plus_1 == 0) return s;
        if (s->hash == hash && equal(&l->texts[s->id_plus_1 - 1], p, n)) return s;
    }
}

int32_t apr_lookup_put(struct apr_lookup *l, int32_t id)
{
    const struct apr_str *text = &l->texts[id];
    uint32_t hash = (uint32_t)XXH3_64bits_withSeed(text->p, text->n_bytes, l->seed);
    struct apr_lookup_slot *s = find(l, text->p, text->n_bytes, hash);
    if (s->id_plus_1 != 0) return (int32_t)(s->id_plus_1 - 1);
    *s = (struct apr_lookup_slot){hash, (uint32_t)id + 1};
    return -1;
}

int32_t apr_lookup_get(const struct apr_lookup *l, const char *p, size_t n_bytes)
{
    const struct apr_lookup_slot *s =
        find(l, p, n_bytes, (uint32_t)XXH3_64bits_withSeed(p, n_bytes, l->seed));
    return (int32_t)s->id_plus_1 - 1;
}

/* Tokens against states. */
#include "matcher.h"

#include <string.h>

#include "states.h"

#define N_CACHED 16u /* masks that are kept */

struct cached {
    uint64_t *bits; /* NULL: not made yet */
    uint32_t state; /* APR_DEAD: free */
    uint32_t most;  /* the farthest end after any of the tokens */
    size_t n;
    uint64_t used; /* when; the oldest one gives way */
};

struct apr_matcher {
    struct apr_arena arena; /* owned */
    struct apr_states s;
    const struct apr_trie *trie;
    uint32_t state;
    uint32_t path[APR_TRIE_MAX_DEPTH + 1]; /* states after each byte of a token */
    struct cached cache[N_CACHED];
    uint64_t clock;
};

enum apr_code apr_matcher_open(struct apr_matcher **out, const struct apr_grammar *g,
                               const struct apr_trie *trie, struct apr_err *e)
{
    struct apr_matcher *m = apr_heap_get(sizeof *m);
    *m = (struct apr_matcher){.trie = trie};
    *out = m;
    apr_arena_init(&m->arena);
    enum apr_code code = apr_states_init(&m->s, &g->a, &m->arena, e);
    m->state = m->s.start;
    if (code == APR_OK) return APR_OK;
    apr_matcher_close(m);
    *out = NULL;
    return code;
}

void apr_matcher_close(struct apr_matcher *m)
{
    if (!m) return;
    apr_arena_free(&m->arena);
    apr_heap_free(m);
}

static void tidy(struct apr_matcher *m)
{
    bool forgot;
    m->state = apr_states_tidy(&m->s, m->state, &forgot);
    for (size_t i = 0; forgot && i < N_CACHED; i++) m->cache[i].state = APR_DEAD;
}

static uint32_t after(struct apr_matcher *m, const uint8_t *p, size_t n)
{
    uint32_t state = m->state;
    for (size_t i = 0; i < n && state != APR_DEAD; i++) state = apr_states_next(&m->s, state, p[i]);
    return state;
}

static uint32_t after_token(struct apr_matcher *m, int32_t id)
{
    const struct apr_trie *t = m->trie;
    if (id < 0 || (size_t)id >= t->n_vocab) return APR_DEAD;
    uint32_t n = t->off[id + 1] - t->off[id];
    if (!n || n > APR_TRIE_MAX_DEPTH) return APR_DEAD;
    return after(m, t->bytes + t->off[id], n);
}

/* The farthest end that n_left tokens, the next one among them, leave room for. */
static uint32_t budget(size_t n_left)
{
    if (!n_left) return 0;
    return n_left - 1 < APR_GRAMMAR_INFINITE - 1 ? (uint32_t)(n_left - 1) : APR_GRAMMAR_INFINITE - 1;
}

bool apr_matcher_allows(struct apr_matcher *m, int32_t id, size_t n_left)
{
    tidy(m);
    uint32_t state = after_token(m, id);
    return state != APR_DEAD && m->s.states[state].least <= budget(n_left);
}

/* Bits of the tokens after which an end is at most `most` bytes away; the nearest and farthest end of all. */
static size_t walk(struct apr_matcher *m, uint32_t most, uint64_t *bits, uint32_t *nearest,
                   uint32_t *farthest)
{
    const struct apr_trie *t = m->trie;
    const struct apr_automaton *a = m->s.a;
    const uint32_t *trans = m->s.trans;
    size_t n_set = 0;
    *nearest = APR_GRAMMAR_INFINITE;
    *farthest = 0;
    memset(bits, 0, (t->n_vocab + 63) / 64 * sizeof *bits);
    m->path[0] = m->state;
    for (uint32_t i = 0; i < t->n_nodes;) {
        /* Nearly all transitions are known after a few thousand nodes: the look-up is the cost of a walk. */
        uint32_t before = m->path[t->depth[i] - 1];
        uint32_t known = trans[(size_t)before * a->n_classes + a->class_of[t->byte[i]]];
        uint32_t state = known ? known - 1 : apr_states_next(&m->s, before, t->byte[i]);
        if (state == APR_DEAD) {
            i = t->skip[i];
            continue;
        }
        m->path[t->depth[i]] = state;
        uint32_t k = t->first_tok[i], end = t->first_tok[++i];
        if (k == end) continue;
        uint32_t least = m->s.states[state].least;
        for (; k < end; k++) {
            if (least < *nearest) *nearest = least;
            if (least > *farthest) *farthest = least;
            if (least > most) continue;
            bits[t->ids[k] / 64] |= UINT64_C(1) << (t->ids[k] % 64);
            n_set++;
        }
    }
    return n_set;
}

static struct cached *cache_slot(struct apr_matcher *m)
{
    struct cached *oldest = &m->cache[0];
    for (size_t i = 0; i < N_CACHED; i++) {
        if (m->cache[i].state == m->state) return &m->cache[i];
        if (m->cache[i].used < oldest->used) oldest = &m->cache[i];
    }
    size_t n_words = (m->trie->n_vocab + 63) / 64;
    if (!oldest->bits) oldest->bits = apr_arena_get(&m->arena, n_words * sizeof *oldest->bits);
    oldest->state = APR_DEAD;
    return oldest;
}

size_t apr_matcher_mask(struct apr_matcher *m, size_t n_left, uint64_t *bits)
{
    uint32_t nearest, farthest, most = budget(n_left);
    size_t n_words = (m->trie->n_vocab + 63) / 64;
    tidy(m);
    struct cached *c = cache_slot(m);
    c->used = ++m->clock;
    if (c->state == APR_DEAD) {
        c->n = walk(m, APR_GRAMMAR_INFINITE - 1, c->bits, &nearest, &c->most);
        if (!m->s.full) c->state = m->state;
    }
    if (c->most <= most) {
        memcpy(bits, c->bits, n_words * sizeof *bits);
        return c->n;
    }
    size_t n = walk(m, most, bits, &nearest, &farthest);
    if (n || nearest == APR_GRAMMAR_INFINITE || apr_matcher_accepts(m)) return n;
    return walk(m, nearest, bits, &nearest, &farthest);
}

enum apr_code apr_matcher_take(struct apr_matcher *m, int32_t id, struct apr_err *e)
{
    tidy(m);
    uint32_t state = after_token(m, id);
    if (state == APR_DEAD) return apr_fail(e, APR_EINFER, "token %d does not fit the grammar", id);
    m->state = state;
    return APR_OK;
}

bool apr_matcher_bytes(struct apr_matcher *m, const void *p, size_t n)
{
    const uint8_t *at = p;
    for (size_t i = 0; i < n && m->state != APR_DEAD; i++) {
        tidy(m);
        m->state = apr_states_next(&m->s, m->state, at[i]);
    }
    return m->state != APR_DEAD;
}

bool apr_matcher_accepts(const struct apr_matcher *m)
{
    return m->s.states[m->state].accepts;
}

bool apr_matcher_is_over(const struct apr_matcher *m)
{
    return m->s.states[m->state].accepts && !m->s.states[m->state].n;
}

uint32_t apr_matcher_least_bytes(const struct apr_matcher *m)
{
    return m->s.states[m->state].least;
}

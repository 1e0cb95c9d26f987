/* See added.h. A trie over bytes, its edges in one hash table. */
#include "added.h"

#include <inttypes.h>
#include <utf8proc.h>

#include "lookup.h"
#include "utf8.h"

static struct apr_trie_edge *edge(const struct apr_added *a, uint32_t node, uint8_t byte)
{
    for (uint64_t i = apr_lookup_mix((uint64_t)node << 8 | byte, a->seed);; i++) {
        struct apr_trie_edge *x = &a->edges[i & a->mask];
        if (x->child == 0 || (x->node == node && x->byte == byte)) return x;
    }
}

enum apr_code apr_added_open(struct apr_added *a, struct apr_added_tok *toks, uint32_t n_toks,
                             struct apr_arena *arena, const char *file, struct apr_err *e)
{
    *a = (struct apr_added){.toks = toks, .n_toks = n_toks};
    uint64_t n_bytes = 0;
    for (uint32_t i = 0; i < n_toks; i++) {
        size_t n = toks[i].text.n_bytes;
        if (n == 0 || n > APR_ADDED_MAX_BYTES)
            return apr_fail(e, APR_EFORMAT, "%s: added token %" PRId32 " has %zu bytes; expected 1..%u", file,
                            toks[i].id, n, APR_ADDED_MAX_BYTES);
        n_bytes += n;
    }
    uint64_t n_slots = 16;
    while (n_slots < n_bytes * 2) n_slots *= 2;
    TRY(apr_arena_try(arena, &a->edges, n_slots, sizeof *a->edges, "added tokens", e));
    TRY(apr_arena_try(arena, &a->tok_of, n_bytes + 1, sizeof *a->tok_of, "added tokens", e));
    a->mask = n_slots - 1;
    a->seed = apr_lookup_seed();
    for (uint64_t i = 0; i <= n_bytes; i++) a->tok_of[i] = -1;
    uint32_t n_nodes = 1;
    for (uint32_t i = 0; i < n_toks; i++) {
        uint32_t node = 0;
        const uint8_t *text = (const uint8_t *)toks[i].text.p;
        a->first[text[0]] = true;
        for (size_t k = 0; k < toks[i].text.n_bytes; k++) {
            struct apr_trie_edge *x = edge(a, node, text[k]);
            if (x->child == 0) *x = (struct apr_trie_edge){node, n_nodes++, text[k]};
            node = x->child;
        }
        if (a->tok_of[node] < 0) a->tok_of[node] = (int32_t)i; /* a text that stands twice: the first */
    }
    return APR_OK;
}

/* Longest token that begins at i, or NULL. */
static const struct apr_added_tok *longest(const struct apr_added *a, const uint8_t *p, size_t n, size_t i)
{
    const struct apr_added_tok *found = NULL;
    uint32_t node = 0;
    for (; i < n; i++) {
        const struct apr_trie_edge *x = edge(a, node, p[i]);
        if (x->child == 0) break;
        node = x->child;
        if (a->tok_of[node] >= 0) found = &a->toks[a->tok_of[node]];
    }
    return found;
}

/* \w of the pattern engine that Hugging Face uses: letters, marks, decimal digits, connectors. */
static bool is_word(uint32_t cp)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_ND) || c == UTF8PROC_CATEGORY_PC;
}

static bool is_space(uint32_t cp) /* White_Space */
{
    return (cp >= 9 && cp <= 13) || cp == 0x20 || cp == 0x85 || cp == 0xa0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 || cp == 0x2029 || cp == 0x202f || cp == 0x205f ||
           cp == 0x3000;
}

static bool alone(const uint8_t *p, size_t n, size_t start, size_t end)
{
    uint32_t cp;
    if (start > 0) {
        size_t before = apr_utf8_start(p, start);
        if (apr_utf8_get(p + before, start - before, &cp) > 0 && is_word(cp)) return false;
    }
    return end == n || apr_utf8_get(p + end, n - end, &cp) < 0 || !is_word(cp);
}

static void strip(const uint8_t *p, size_t n, size_t done, struct apr_added_hit *hit)
{
    uint32_t cp;
    while (hit->tok->lstrip && hit->start > done) {
        size_t before = apr_utf8_start(p, hit->start);
        if (apr_utf8_get(p + before, hit->start - before, &cp) < 0 || !is_space(cp)) break;
        hit->start = before;
    }
    if (hit->start < done) hit->start = done;
    while (hit->tok->rstrip && hit->end < n) {
        int k = apr_utf8_get(p + hit->end, n - hit->end, &cp);
        if (k < 0 || !is_space(cp)) break;
        hit->end += (size_t)k;
    }
}

bool apr_added_next(const struct apr_added *a, const uint8_t *p, size_t n, size_t done, size_t *at,
                    bool with_special, struct apr_added_hit *hit)
{
    for (size_t i = *at; a->n_toks > 0 && i < n;) {
        const struct apr_added_tok *tok = a->first[p[i]] ? longest(a, p, n, i) : NULL;
        if (!tok) {
            i++;
            continue;
        }
        *hit = (struct apr_added_hit){i, i + tok->text.n_bytes, tok};
        i = *at = hit->end;
        if (tok->special && !with_special) continue;
        if (tok->single_word && !alone(p, n, hit->start, hit->end)) continue;
        strip(p, n, done, hit);
        return true;
    }
    return false;
}

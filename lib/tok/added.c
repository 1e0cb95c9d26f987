/* See added.h. */
#include "added.h"

#include "chars.h"
#include "utf8.h"

enum apr_code apr_added_open(struct apr_added *a, struct apr_added_tok *toks, uint32_t n_toks,
                             struct apr_arena *arena, const char *file, struct apr_err *e)
{
    *a = (struct apr_added){.toks = toks, .n_toks = n_toks};
    apr_trie_init(&a->trie);
    for (uint32_t i = 0; i < n_toks; i++) {
        int32_t had; /* a text that stands twice: the first */
        TRY(apr_trie_put(&a->trie, toks[i].text, (int32_t)i, &had, file, e));
    }
    return apr_trie_seal(&a->trie, arena, e);
}

/* Longest token that begins at i, or NULL. */
static const struct apr_added_tok *longest(const struct apr_added *a, const uint8_t *p, size_t n, size_t i)
{
    const struct apr_added_tok *found = NULL;
    for (uint32_t node = APR_TRIE_ROOT; i < n && (node = apr_trie_step(&a->trie, node, p[i])) != 0; i++)
        if (a->trie.values[node] >= 0) found = &a->toks[a->trie.values[node]];
    return found;
}

static bool alone(const uint8_t *p, size_t n, size_t start, size_t end)
{
    uint32_t cp;
    if (start > 0) {
        size_t before = apr_utf8_start(p, start);
        if (apr_utf8_get(p + before, start - before, &cp) > 0 && apr_char_is_word(cp)) return false;
    }
    return end == n || apr_utf8_get(p + end, n - end, &cp) < 0 || !apr_char_is_word(cp);
}

static void strip(const uint8_t *p, size_t n, size_t done, struct apr_added_hit *hit)
{
    uint32_t cp;
    while (hit->tok->lstrip && hit->start > done) {
        size_t before = apr_utf8_start(p, hit->start);
        if (apr_utf8_get(p + before, hit->start - before, &cp) < 0 || !apr_char_is_space(cp)) break;
        hit->start = before;
    }
    if (hit->start < done) hit->start = done;
    while (hit->tok->rstrip && hit->end < n) {
        int k = apr_utf8_get(p + hit->end, n - hit->end, &cp);
        if (k < 0 || !apr_char_is_space(cp)) break;
        hit->end += (size_t)k;
    }
}

bool apr_added_next(const struct apr_added *a, const uint8_t *p, size_t n, size_t done, size_t *at,
                    bool with_special, struct apr_added_hit *hit)
{
    for (size_t i = *at; a->n_toks > 0 && i < n;) {
        const struct apr_added_tok *tok = a->trie.roots[p[i]] ? longest(a, p, n, i) : NULL;
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

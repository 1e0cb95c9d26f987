/* Sorting the tokens and laying out the trie. */
#include "trie.h"

#include <stdlib.h>
#include <string.h>

#define MAX_VOCAB_BYTES (512u << 20)

struct entry {
    const uint8_t *p;
    uint32_t n;
    int32_t id;
};

static int by_bytes(const void *a_, const void *b_)
{
    const struct entry *a = a_, *b = b_;
    int order = memcmp(a->p, b->p, a->n < b->n ? a->n : b->n);
    if (order) return order;
    if (a->n != b->n) return a->n < b->n ? -1 : 1;
    return (a->id > b->id) - (a->id < b->id);
}

static size_t common(const struct entry *a, const struct entry *b)
{
    size_t n = 0;
    while (n < a->n && n < b->n && a->p[n] == b->p[n]) n++;
    return n;
}

/* Tokens in order: each adds a node for every byte beyond what it shares with the one before. */
static size_t count_nodes(const struct entry *at, size_t n)
{
    size_t n_nodes = 0;
    for (size_t i = 0; i < n; i++) n_nodes += at[i].n - (i ? common(&at[i - 1], &at[i]) : 0);
    return n_nodes;
}

static void lay_out(struct apr_trie *t, const struct entry *at, size_t n)
{
    uint32_t open[APR_TRIE_MAX_DEPTH + 1], n_open = 0, n_nodes = 0; /* the nodes from the root to here */
    for (size_t i = 0; i < n; i++) {
        size_t n_same = i ? common(&at[i - 1], &at[i]) : 0;
        while (n_open > n_same) t->skip[open[--n_open]] = n_nodes;
        for (size_t k = n_same; k < at[i].n; k++) {
            t->byte[n_nodes] = at[i].p[k];
            t->depth[n_nodes] = (uint16_t)(k + 1);
            t->first_tok[n_nodes] = (uint32_t)i; /* tokens before i end at nodes before this one */
            open[n_open++] = n_nodes++;
        }
        t->ids[i] = at[i].id;
    }
    while (n_open) t->skip[open[--n_open]] = n_nodes;
    t->first_tok[n_nodes] = (uint32_t)n;
    t->n_nodes = n_nodes;
}

static enum apr_code fill(struct apr_trie *t, struct apr_arena *scratch, struct apr_err *e)
{
    struct entry *at;
    size_t n = 0;
    TRY(apr_arena_try(scratch, &at, t->n_vocab + 1, sizeof *at, "vocabulary", e));
    for (size_t i = 0; i < t->n_vocab; i++) {
        uint32_t n_bytes = t->off[i + 1] - t->off[i];
        if (n_bytes && n_bytes <= APR_TRIE_MAX_DEPTH)
            at[n++] = (struct entry){t->bytes + t->off[i], n_bytes, (int32_t)i};
    }
    qsort(at, n, sizeof *at, by_bytes);
    size_t n_nodes = count_nodes(at, n);
    TRY(apr_arena_try(&t->arena, &t->byte, n_nodes + 1, sizeof *t->byte, "vocabulary trie", e));
    TRY(apr_arena_try(&t->arena, &t->depth, n_nodes + 1, sizeof *t->depth, "vocabulary trie", e));
    TRY(apr_arena_try(&t->arena, &t->skip, n_nodes + 1, sizeof *t->skip, "vocabulary trie", e));
    TRY(apr_arena_try(&t->arena, &t->first_tok, n_nodes + 1, sizeof *t->first_tok, "vocabulary trie", e));
    TRY(apr_arena_try(&t->arena, &t->ids, n + 1, sizeof *t->ids, "vocabulary trie", e));
    lay_out(t, at, n);
    return APR_OK;
}

enum apr_code apr_trie_build(struct apr_trie **out, const uint8_t *bytes, const uint32_t *off, size_t n_vocab,
                             struct apr_err *e)
{
    struct apr_arena scratch;
    uint8_t *copy;
    struct apr_trie *t = apr_heap_get(sizeof *t);
    *out = t;
    *t = (struct apr_trie){.n_vocab = n_vocab};
    apr_arena_init(&t->arena);
    apr_arena_init(&scratch);
    enum apr_code code = apr_arena_try(&t->arena, &t->off, n_vocab + 1, sizeof *off, "vocabulary", e);
    if (code == APR_OK) code = apr_arena_try(&t->arena, &copy, off[n_vocab] + 1, 1, "vocabulary", e);
    if (code == APR_OK) {
        memcpy(t->off, off, (n_vocab + 1) * sizeof *off);
        if (off[n_vocab]) memcpy(copy, bytes, off[n_vocab]);
        t->bytes = copy;
        code = fill(t, &scratch, e);
    }
    apr_arena_free(&scratch);
    if (code != APR_OK) {
        apr_trie_free(t);
        *out = NULL;
    }
    return code;
}

static bool has_text(const struct apr_vocab *v, size_t id)
{
    int32_t type = v->types ? v->types[id] : APR_TOK_NORMAL;
    return type == APR_TOK_NORMAL || type == APR_TOK_USER || type == APR_TOK_BYTE;
}

static enum apr_code gather(const struct apr_tok *tok, const struct apr_vocab *v, size_t n_vocab,
                            struct apr_buf *text, uint32_t *off, struct apr_err *e)
{
    for (size_t i = 0; i < n_vocab; i++) {
        off[i] = (uint32_t)text->n_bytes;
        if (i < v->n_toks && i < apr_tok_n(tok) && has_text(v, i))
            TRY(apr_tok_piece(tok, (int32_t)i, false, text, e));
    }
    off[n_vocab] = (uint32_t)text->n_bytes;
    return APR_OK;
}

enum apr_code apr_trie_of_vocab(struct apr_trie **out, const struct apr_tok *tok, const struct apr_vocab *v,
                                size_t n_vocab, struct apr_err *e)
{
    struct apr_buf text;
    struct apr_arena scratch;
    uint32_t *off;
    *out = NULL;
    apr_arena_init(&scratch);
    apr_buf_init(&text, MAX_VOCAB_BYTES);
    enum apr_code code = apr_arena_try(&scratch, &off, n_vocab + 1, sizeof *off, "vocabulary", e);
    if (code == APR_OK) code = gather(tok, v, n_vocab, &text, off, e);
    if (code == APR_OK) code = apr_trie_build(out, text.data, off, n_vocab, e);
    apr_buf_free(&text);
    apr_arena_free(&scratch);
    return code;
}

void apr_trie_free(struct apr_trie *t)
{
    if (!t) return;
    apr_arena_free(&t->arena);
    apr_heap_free(t);
}

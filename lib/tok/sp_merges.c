/* See sp_merges.h. */
#include "sp_merges.h"

#include <stdlib.h>
#include <string.h>

#include "../buf.h"
#include "lookup.h"

enum { MAX_PIECE_BYTES = 1024 };

struct cut {
    float score;
    uint32_t id, n_left; /* of the whole; bytes of its first part */
    uint32_t left_chars, right_chars;
    int32_t left_id, right_id;
};

static int descending(int64_t a, int64_t b)
{
    return a > b ? -1 : a < b;
}

static int by_rank(const void *x, const void *y)
{
    const struct cut *a = x, *b = y;
    if (a->score > b->score || a->score < b->score) return a->score > b->score ? -1 : 1;
    int c = descending(a->left_chars, b->left_chars);
    if (c == 0) c = descending(a->right_chars, b->right_chars);
    if (c == 0) c = descending(b->id, a->id); /* the rest in the order of ids */
    if (c == 0) c = descending(b->left_id, a->left_id);
    return c ? c : descending(b->right_id, a->right_id);
}

static bool is_piece(const struct apr_vocab *v, uint32_t i)
{
    return (!v->types || v->types[i] == APR_TOK_NORMAL) && v->toks[i].n_bytes > 0;
}

static uint32_t n_chars(const char *p, size_t n)
{
    uint32_t k = 0;
    for (size_t i = 0; i < n; i++) k += ((uint8_t)p[i] & 0xc0) != 0x80;
    return k;
}

static enum apr_code cut_piece(const struct apr_vocab *v, const struct apr_lookup *by_text, uint32_t id,
                               struct apr_buf *cuts, struct apr_err *e)
{
    const struct apr_str s = v->toks[id];
    for (size_t i = 1; i < s.n_bytes && s.n_bytes <= MAX_PIECE_BYTES; i++) {
        if (((uint8_t)s.p[i] & 0xc0) == 0x80) continue;
        int32_t left = apr_lookup_get(by_text, s.p, i);
        int32_t right = left < 0 ? -1 : apr_lookup_get(by_text, s.p + i, s.n_bytes - i);
        if (right < 0) continue;
        struct cut c = {.score = v->scores[id],
                        .id = id,
                        .n_left = (uint32_t)i,
                        .left_chars = n_chars(s.p, i),
                        .right_chars = n_chars(s.p + i, s.n_bytes - i),
                        .left_id = left,
                        .right_id = right};
        TRY(apr_buf_append(cuts, &c, sizeof c, e));
    }
    return APR_OK;
}

static enum apr_code write_all(const struct apr_vocab *v, struct cut *at, size_t n, struct apr_arena *arena,
                               struct apr_str **merges, struct apr_err *e)
{
    size_t n_bytes = 0;
    char *room;
    if (n > 1) qsort(at, n, sizeof *at, by_rank);
    for (size_t i = 0; i < n; i++) n_bytes += v->toks[at[i].id].n_bytes + 2;
    TRY(apr_arena_try(arena, &room, n_bytes + 1, 1, "merges", e));
    TRY(apr_arena_try(arena, merges, n, sizeof **merges, "merges", e));
    for (size_t i = 0; i < n; i++) {
        const struct apr_str s = v->toks[at[i].id];
        memcpy(room, s.p, at[i].n_left);
        room[at[i].n_left] = ' ';
        memcpy(room + at[i].n_left + 1, s.p + at[i].n_left, s.n_bytes - at[i].n_left);
        (*merges)[i] = (struct apr_str){room, s.n_bytes + 1};
        room += s.n_bytes + 2;
    }
    return APR_OK;
}

enum apr_code apr_sp_merges(const struct apr_vocab *v, struct apr_arena *arena, struct apr_str **merges,
                            uint64_t *n_merges, struct apr_err *e)
{
    struct apr_arena scratch;
    struct apr_lookup by_text;
    struct apr_buf cuts;
    apr_arena_init(&scratch);
    apr_buf_init(&cuts, SIZE_MAX);
    enum apr_code code = apr_lookup_init(&by_text, v->toks, v->n_toks, &scratch, e);
    for (uint32_t i = 0; i < v->n_toks && code == APR_OK; i++)
        if (is_piece(v, i)) apr_lookup_put(&by_text, (int32_t)i);
    for (uint32_t i = 0; i < v->n_toks && code == APR_OK; i++)
        if (is_piece(v, i)) code = cut_piece(v, &by_text, i, &cuts, e);
    *n_merges = cuts.n_bytes / sizeof(struct cut);
    if (code == APR_OK)
        code = write_all(v, (struct cut *)(void *)cuts.data, (size_t)*n_merges, arena, merges, e);
    apr_buf_free(&cuts);
    apr_arena_free(&scratch);
    return code;
}

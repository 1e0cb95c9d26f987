#include "convert_loop.h"

#include <inttypes.h>
#include <stdio.h>

#define N_SPOTS 3

void apr_loop_init(struct apr_loop *l, const struct apr_convert *c, struct apr_sink *s, json_t *hashes)
{
    *l = (struct apr_loop){.c = c, .sink = s, .hashes = hashes};
    apr_arena_init(&l->arena);
    apr_verdict_init(&l->verdict, &l->arena);
    for (size_t i = 0; i < 3; i++) l->in[i] = apr_arena_get(&l->arena, APR_PIECE_ROOM);
    for (size_t i = 0; i < 2; i++) l->out[i] = apr_arena_get(&l->arena, APR_PIECE_ROOM);
    l->spare = apr_arena_get(&l->arena, APR_PIECE_ROOM);
    l->scratch = apr_arena_get(&l->arena, apr_piece_scratch_bytes(apr_pool_threads(c->pool)));
}

void apr_loop_free(struct apr_loop *l)
{
    (void)apr_xxh3_end(l->hash);
    apr_arena_free(&l->arena);
}

struct apr_src *apr_loop_source(const struct apr_loop *l, const struct apr_tensor *t)
{
    const struct apr_model *m = l->c->model;
    if (t->view || t->is_turned || t->parts) return NULL; /* not the bytes at off_file */
    return !m->compute && t->i_file < m->n_files ? m->files[t->i_file].src : NULL;
}

enum apr_code apr_loop_read(struct apr_loop *l, const struct apr_tensor *t, uint64_t off, void *dst, size_t n,
                            struct apr_err *e)
{
    struct apr_src *src = apr_loop_source(l, t);
    TRY(apr_model_read(l->c->model, t, off, dst, n, e));
    if (src) apr_src_sha_add(src, t->off_file + off, dst, n);
    return APR_OK;
}

enum apr_code apr_loop_emit(struct apr_loop *l, const void *p, size_t n, struct apr_err *e)
{
    apr_xxh3_add(l->hash, p, n);
    return l->c->fmt->data(l->w, p, n, e);
}

void apr_loop_hash_begin(struct apr_loop *l)
{
    if (l->hashes) l->hash = apr_xxh3_begin();
}

void apr_loop_hash_end(struct apr_loop *l, const char *name)
{
    char hex[17];
    if (!l->hashes) return;
    (void)snprintf(hex, sizeof hex, "%016" PRIx64, apr_xxh3_end(l->hash));
    l->hash = NULL;
    json_object_set_new(l->hashes, name, json_string(hex));
}

/* Rows at 10, 50 and 90 % of the embedding that lie in this piece. (F-DATA-QUALITY-004) */
static void judge_spots(struct apr_loop *l, const struct apr_piece *j)
{
    static const unsigned pct[N_SPOTS] = {10, 50, 90};
    const struct apr_tensor *embed = apr_model_role(l->c->model, APR_ROLE_EMBED, 0);
    uint64_t n_cols = apr_tensor_cols(j->src), end = j->i_first + j->n_elems;
    if (embed != j->src || n_cols > APR_PIECE_ELEMS) return;
    for (size_t i = 0; i < N_SPOTS; i++) {
        uint64_t i_row = apr_tensor_rows(j->src) * pct[i] / 100, first = i_row * n_cols;
        if (first < j->i_first || first + n_cols > end || first % j->from->block_elems != 0) continue;
        float *row = (float *)(void *)l->spare; /* from the arena: aligned */
        apr_piece_widen(j, first - j->i_first, row, n_cols);
        apr_contract_embed_row(j->src, i_row, row, n_cols, &l->verdict);
    }
}

enum apr_code apr_loop_judge(struct apr_loop *l, const struct apr_piece *j, struct apr_stats *stats,
                             struct apr_err *e)
{
    TRY(apr_piece_judge(j, stats, e));
    if (!l->c->gate) return APR_OK;
    judge_spots(l, j);
    if (!apr_piece_is_last(j)) return APR_OK;
    apr_contract_tensor(l->c->model, j->src, stats, &l->verdict);
    return apr_verdict_error(&l->verdict, l->c->model->path, e);
}

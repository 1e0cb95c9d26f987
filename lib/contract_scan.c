/* Statistics of mapped tensors on the pool, and the scan of a whole model. */
#include "contract.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "contract_bounds.h"
#include "log.h"

#define PIECE_ELEMS 4096u          /* widened at a time: 16 KiB of stack */
#define CHUNK_ELEMS (64u << 10)    /* one task at least; a multiple of every block */
#define MAX_CHUNKS  4096u          /* per tensor: bounds the partial results */
#define SHOW_BYTES  (512ull << 20) /* models above show progress */
#define MAX_HEAD    16u

/* A tensor as spans of values: one for the whole tensor, one for each matrix of a stack (files may hold them
 * apart), or one per row where rows end in padding. */
struct job {
    const struct apr_kern *kern;
    const struct apr_quant *q;
    const struct apr_tensor *t;
    size_t span_elems, span_bytes, chunk_elems, n_chunks_span;
    struct apr_stats *stats; /* [n_spans * n_chunks_span] */
};

/* n values from value i of a span. Values behind the last whole block are padding and are left out. */
static void widen(const struct job *j, const uint8_t *span, size_t i, size_t n, float *x)
{
    const struct apr_quant *q = j->q;
    const size_t n_blocks = (n + q->block_elems - 1) / q->block_elems;
    const uint8_t *at = span + q->head_bytes + i / q->block_elems * q->block_bytes;
    uint8_t with_head[MAX_HEAD + PIECE_ELEMS];
    if (q->head_bytes == 0) {
        j->kern->to_f32[q->type](at, x, n_blocks * q->block_elems);
        return;
    }
    memcpy(with_head, span, q->head_bytes); /* one byte a value: the only type with a head is 8 bits wide */
    memcpy(with_head + q->head_bytes, at, n_blocks * q->block_bytes);
    j->kern->to_f32[q->type](with_head, x, n_blocks * q->block_elems);
}

static void run_chunks(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    const struct job *j = ctx;
    float x[PIECE_ELEMS];
    (void)i_thread;
    for (size_t c = i_begin; c < i_end; c++) {
        const size_t i_span = c / j->n_chunks_span;
        const uint8_t *span =
            j->t->parts ? apr_tensor_part(j->t, i_span) : j->t->data + i_span * j->span_bytes;
        size_t at = c % j->n_chunks_span * j->chunk_elems;
        size_t end = j->span_elems - at < j->chunk_elems ? j->span_elems : at + j->chunk_elems;
        apr_stats_init(&j->stats[c]);
        for (; at < end; at += PIECE_ELEMS) {
            size_t n = end - at < PIECE_ELEMS ? end - at : PIECE_ELEMS;
            widen(j, span, at, n, x);
            j->kern->stats(x, n, &j->stats[c]);
        }
    }
}

static void merge(struct apr_stats *all, const struct apr_stats *s)
{
    all->n += s->n;
    all->n_nan += s->n_nan;
    all->n_inf += s->n_inf;
    all->n_zero += s->n_zero;
    all->sum += s->sum;
    all->sum_sq += s->sum_sq;
    all->min = fminf(all->min, s->min);
    all->max = fmaxf(all->max, s->max);
}

/* Judged matrix by matrix, wherever the matrices lie, so that the numbers are the same. */
static bool is_stack(const struct apr_tensor *t, const struct apr_quant *q)
{
    return t->n_dims == 3 && t->packing == APR_ROWS && !q->is_flat && t->dims[0];
}

/* Everything that the tasks rely on, checked again: a caller may come without the structure rules. */
static enum apr_code prepare(const struct apr_model *m, const struct apr_tensor *t, const struct apr_kern *k,
                             struct job *j, size_t *n_spans, struct apr_err *e)
{
    uint64_t n_bytes, n_rows = apr_tensor_rows(t);
    *j = (struct job){.kern = k, .q = apr_quant_of(t->type), .t = t};
    TRY(apr_tensor_bytes_packed(t->type, t->packing, t->n_dims, t->dims, &n_bytes, e));
    if (n_bytes != t->n_bytes)
        return apr_fail(e, APR_EFORMAT,
                        "%s: F-LAYOUT-CONTRACT-004 %s: found %" PRIu64 " bytes, expected %" PRIu64, m->path,
                        t->name, t->n_bytes, n_bytes);
    if (!(t->parts ? t->parts[0].data : t->data) || !j->q || t->type >= APR_N_TYPES || !k->to_f32[t->type] ||
        j->q->head_bytes > MAX_HEAD || (j->q->head_bytes && j->q->block_bytes > j->q->block_elems))
        return apr_fail(e, APR_ELOAD, "%s: %s: values of type %s cannot be computed", m->path, t->name,
                        apr_type_name(t->type));
    *n_spans = t->packing == APR_ROWS_PADDED ? (size_t)n_rows : is_stack(t, j->q) ? (size_t)t->dims[0] : 1;
    j->span_elems = *n_spans ? (size_t)(apr_tensor_elems(t) / *n_spans) : 0;
    j->span_bytes = *n_spans ? (size_t)(n_bytes / *n_spans) : 0;
    j->chunk_elems = (j->span_elems / MAX_CHUNKS / CHUNK_ELEMS + 1) * CHUNK_ELEMS;
    j->n_chunks_span = (j->span_elems + j->chunk_elems - 1) / j->chunk_elems;
    return APR_OK;
}

enum apr_code apr_contract_stats(const struct apr_model *m, const struct apr_tensor *t,
                                 const struct apr_kern *k, struct apr_pool *pool, struct apr_stats *s,
                                 struct apr_err *e)
{
    struct apr_arena arena;
    struct job j;
    size_t n_spans, n;
    enum apr_code code;
    apr_stats_init(s);
    TRY(prepare(m, t, k, &j, &n_spans, e));
    n = n_spans * j.n_chunks_span;
    if (n == 0) return APR_OK;
    apr_arena_init(&arena);
    code = apr_arena_try(&arena, &j.stats, n, sizeof *j.stats, "statistics", e);
    if (code == APR_OK) {
        /* Borders depend on the tensor alone and parts are added in order: the same for any thread count. */
        apr_parallel_for(pool, n, n_spans > 1 ? 64 : 1, run_chunks, &j);
        for (size_t i = 0; i < n; i++) merge(s, &j.stats[i]);
    }
    apr_arena_free(&arena);
    return code;
}

/* Rows at 10, 50 and 90 % of the embedding. (F-DATA-QUALITY-004) */
static enum apr_code check_rows(const struct apr_model *m, const struct apr_tensor *t,
                                const struct apr_kern *k, struct apr_verdict *v, struct apr_err *e)
{
    static const unsigned pct[] = {10, 50, 90};
    uint64_t n_rows = apr_tensor_rows(t), n_cols = apr_tensor_cols(t), row_bytes;
    struct apr_arena arena;
    enum apr_code code;
    float *row;
    /* Rows of flat packings do not begin at blocks; their sums were judged with the whole tensor. */
    if (t->n_dims != 2 || t->packing != APR_ROWS || apr_quant_of(t->type)->is_flat) return APR_OK;
    TRY(apr_row_bytes(t->type, n_cols, &row_bytes, e));
    apr_arena_init(&arena);
    code = apr_arena_try(&arena, &row, (size_t)n_cols, sizeof *row, "an embedding row", e);
    for (size_t i = 0; code == APR_OK && n_rows && i < sizeof pct / sizeof pct[0]; i++) {
        uint64_t i_row = n_rows / 100 * pct[i] + n_rows % 100 * pct[i] / 100;
        k->to_f32[t->type](t->data + i_row * row_bytes, row, (size_t)n_cols);
        apr_contract_embed_row(t, i_row, row, (size_t)n_cols, v);
    }
    apr_arena_free(&arena);
    (void)m;
    return code;
}

static bool has_unsafe(const struct apr_verdict *v, const struct apr_tensor *t)
{
    for (size_t i = 0; i < v->n; i++)
        if (v->at[i].unsafe && v->at[i].tensor == t->name) return true; /* violations borrow the name */
    return false;
}

enum apr_code apr_contract_scan_tensor(const struct apr_model *m, const struct apr_tensor *t,
                                       const struct apr_kern *k, struct apr_pool *pool, struct apr_stats *s,
                                       struct apr_verdict *v, struct apr_err *e)
{
    apr_stats_init(s);
    if (v->n_unsafe && (v->n_dropped || has_unsafe(v, t))) return APR_OK; /* the structure rules spoke */
    TRY(apr_contract_stats(m, t, k, pool, s, e));
    apr_contract_tensor(m, t, s, v);
    return t == apr_model_role(m, APR_ROLE_EMBED, 0) ? check_rows(m, t, k, v, e) : APR_OK;
}

/* As apr_contract_scan_tensor, where nobody asks for the numbers of a tensor that passes. */
static enum apr_code judge(const struct apr_model *m, const struct apr_tensor *t, const struct apr_kern *k,
                           struct apr_pool *pool, struct apr_verdict *v, struct apr_err *e)
{
    struct apr_bounds b;
    struct apr_stats s;
    if (v->n_unsafe || !apr_bounds_of(t, k, pool, &b) || !apr_contract_surely(t, &b))
        return apr_contract_scan_tensor(m, t, k, pool, &s, v, e);
    v->n_tensors_checked++;
    return t == apr_model_role(m, APR_ROLE_EMBED, 0) ? check_rows(m, t, k, v, e) : APR_OK;
}

enum apr_code apr_contract_scan_data(const struct apr_model *m, const struct apr_kern *k,
                                     struct apr_pool *pool, struct apr_verdict *v, struct apr_err *e)
{
    struct apr_progress progress;
    enum apr_code code = APR_OK;
    uint64_t n_all = 0;
    for (uint64_t i = 0; i < m->n_tensors; i++) n_all += m->tensors[i].n_bytes;
    if (n_all > SHOW_BYTES) apr_progress_begin(&progress, "checking", n_all, "B");
    for (uint64_t i = 0; code == APR_OK && i < m->n_tensors; i++) {
        code = judge(m, &m->tensors[i], k, pool, v, e);
        if (n_all > SHOW_BYTES) apr_progress_add(&progress, m->tensors[i].n_bytes);
    }
    if (n_all > SHOW_BYTES) apr_progress_end(&progress);
    return code;
}

enum apr_code apr_contract_scan(const struct apr_model *m, const struct apr_kern *k, struct apr_pool *pool,
                                struct apr_verdict *v, struct apr_err *e)
{
    apr_contract_structure(m, v);
    return apr_contract_scan_data(m, k, pool, v, e);
}

#include "convert_odd.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define MAX_BLOCK_ELEMS 256

bool apr_odd_is(const struct apr_convert *c, const struct apr_plan_tensor *p)
{
    const struct apr_quant *from = apr_quant_of(p->src->type), *to = apr_quant_of(p->type);
    return !from || !to || !c->kern->to_f32[p->src->type] || p->src->packing != APR_ROWS ||
           from->head_bytes || to->head_bytes || apr_tensor_elems(p->src) == 0;
}

/* A type that is carried but not computed with: bytes in, bytes out. */
static enum apr_code carry(struct apr_loop *l, const struct apr_tensor *t, struct apr_err *e)
{
    for (uint64_t off = 0; off < t->n_bytes; off += APR_PIECE_ROOM) {
        size_t n = t->n_bytes - off < APR_PIECE_ROOM ? (size_t)(t->n_bytes - off) : APR_PIECE_ROOM;
        TRY(apr_loop_read(l, t, off, l->in[0], n, e));
        TRY(apr_loop_emit(l, l->in[0], n, e));
        apr_progress_add(&l->progress, n);
    }
    return APR_OK;
}

static void convert_chunks(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    for (size_t i = i_begin; i < i_end; i++) apr_piece_convert(ctx, i, i_thread);
}

static void convert(struct apr_piece *j)
{
    apr_parallel_for(j->c->pool, apr_piece_chunks(j), 1, convert_chunks, j);
}

static enum apr_code read_and_convert(struct apr_loop *l, struct apr_piece *j, uint64_t i_first,
                                      struct apr_err *e)
{
    apr_piece_set(j, i_first);
    TRY(apr_loop_read(l, j->src, apr_piece_off(j), j->in, apr_piece_bytes(j->from, j->n_elems), e));
    convert(j);
    return APR_OK;
}

/* ---- a scale in front --------------------------------------------------------------------------------- */

/* Read it, or find it in a first pass over the data. */
static enum apr_code head(struct apr_loop *l, struct apr_piece *j, struct apr_err *e)
{
    struct apr_stats stats;
    apr_stats_init(&stats);
    if (j->from->head_bytes) TRY(apr_loop_read(l, j->src, 0, &j->from_scale, sizeof j->from_scale, e));
    if (j->to->head_bytes == 0) return APR_OK;
    if (j->to != j->from) {
        if (l->c->model->is_stream)
            return apr_fail(e, APR_EUSAGE, "%s reads every tensor twice; give a file instead of a pipe",
                            j->to->name);
        j->narrows = false;
        for (uint64_t at = 0; at < apr_tensor_elems(j->src); at += j->n_elems) {
            TRY(read_and_convert(l, j, at, e));
            TRY(apr_piece_judge(j, &stats, e));
        }
        j->to_scale = apr_native_q8_scale(fmaxf(fabsf(stats.min), fabsf(stats.max)));
        j->narrows = true;
    }
    return apr_loop_emit(l, j->to == j->from ? &j->from_scale : &j->to_scale, sizeof j->to_scale, e);
}

static enum apr_code move_headed(struct apr_loop *l, const struct apr_plan_tensor *p, struct apr_err *e)
{
    struct apr_piece j = apr_piece_of(l->c, p, l->scratch);
    struct apr_stats stats;
    apr_stats_init(&stats);
    j.in = l->in[0];
    j.out = l->out[0];
    TRY(head(l, &j, e));
    for (uint64_t at = 0; at < apr_tensor_elems(p->src); at += j.n_elems) {
        TRY(read_and_convert(l, &j, at, e));
        TRY(apr_loop_judge(l, &j, &stats, e));
        TRY(apr_loop_emit(l, j.narrows ? j.out : j.in, apr_piece_bytes(j.to, j.n_elems), e));
        apr_progress_add(&l->progress, apr_piece_bytes(j.from, j.n_elems));
    }
    return APR_OK;
}

/* ---- packings of the original ------------------------------------------------------------------------- */

/* n values of type q from blocks whose last one may be filled up with zeros. */
static void unpack_row(const struct apr_kern *kern, const struct apr_quant *q, const uint8_t *blocks,
                       float *x, size_t n)
{
    float last[MAX_BLOCK_ELEMS];
    size_t n_whole = n / q->block_elems * q->block_elems;
    if (n_whole) kern->to_f32[q->type](blocks, x, n_whole);
    if (n == n_whole) return;
    kern->to_f32[q->type](blocks + apr_piece_bytes(q, n_whole), last, q->block_elems);
    memcpy(x + n_whole, last, (n - n_whole) * sizeof *x);
}

/* The next values, as many as make a piece, as floats into j->in. Padded rows are read whole, flat blocks run
 * on. *n_raw: bytes of them, which stay in raw. */
static enum apr_code load_packed(struct apr_loop *l, struct apr_piece *j, const struct apr_quant *q,
                                 uint64_t off, uint8_t *raw, size_t *n_raw, struct apr_err *e)
{
    uint64_t n_left = apr_tensor_elems(j->src) - j->i_first;
    uint64_t n_cols = j->src->packing == APR_FLAT ? APR_PIECE_ELEMS : apr_tensor_cols(j->src);
    uint64_t n_padded = (n_cols + q->block_elems - 1) / q->block_elems * q->block_elems;
    float *x = (float *)(void *)j->in; /* from the arena: aligned */
    if (n_padded > APR_PIECE_ELEMS)
        return apr_fail(e, APR_ELOAD,
                        "%s: tensor %s: padded rows of %" PRIu64 " columns, expected at most %zu",
                        l->c->model->path, j->src->name, n_cols, APR_PIECE_ELEMS);
    uint64_t n = APR_PIECE_ELEMS / n_padded * n_cols;
    j->n_elems = (size_t)(n_left < n ? n_left : n);
    *n_raw = 0;
    for (size_t i = 0; i < j->n_elems; i += (size_t)n_cols)
        *n_raw += apr_piece_bytes(q, j->n_elems - i < n_cols ? j->n_elems - i : (size_t)n_cols);
    TRY(apr_loop_read(l, j->src, off, raw, *n_raw, e));
    const uint8_t *row = raw;
    for (size_t i = 0; i < j->n_elems; i += (size_t)n_cols) {
        size_t n_row = j->n_elems - i < n_cols ? j->n_elems - i : (size_t)n_cols;
        unpack_row(l->c->kern, q, row, x + i, n_row);
        row += apr_piece_bytes(q, n_row);
    }
    return APR_OK;
}

/* Kept as it is, or stored as rows of another type. */
static enum apr_code move_packed(struct apr_loop *l, const struct apr_plan_tensor *p, struct apr_err *e)
{
    const struct apr_quant *q = apr_quant_of(p->src->type);
    bool keep = p->type == p->src->type;
    struct apr_piece j = apr_piece_of(l->c, p, l->scratch);
    struct apr_stats stats;
    uint64_t off = 0;
    size_t n_raw;
    apr_stats_init(&stats);
    j.in = l->in[0];
    j.out = l->out[0];
    j.from = apr_quant_of(APR_F32);
    j.to = keep ? j.from : j.to;
    j.narrows = !keep;
    if (j.to->head_bytes || q->head_bytes || q->block_elems > MAX_BLOCK_ELEMS)
        return apr_fail(e, APR_EUNAVAIL,
                        "tensor %s: padded or flat %s cannot become %s; convert to F16 first", p->name,
                        q->name, j.to->name);
    for (j.i_first = 0; j.i_first < apr_tensor_elems(p->src); j.i_first += j.n_elems) {
        TRY(load_packed(l, &j, q, off, l->in[1], &n_raw, e));
        convert(&j);
        TRY(apr_loop_judge(l, &j, &stats, e));
        TRY(apr_loop_emit(l, keep ? l->in[1] : j.out, keep ? n_raw : apr_piece_bytes(j.to, j.n_elems), e));
        apr_progress_add(&l->progress, n_raw);
        off += n_raw;
    }
    return APR_OK;
}

enum apr_code apr_odd_move(struct apr_loop *l, const struct apr_plan_tensor *p, struct apr_err *e)
{
    const struct apr_quant *from = apr_quant_of(p->src->type), *to = apr_quant_of(p->type);
    if (!from || !to || !l->c->kern->to_f32[p->src->type]) return carry(l, p->src, e);
    return p->src->packing != APR_ROWS ? move_packed(l, p, e) : move_headed(l, p, e);
}

#include "convert_piece.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define F16_TOO_BIG 65520.0F /* rounds to infinity */

struct apr_piece apr_piece_of(const struct apr_convert *c, const struct apr_plan_tensor *p, float *scratch)
{
    const struct apr_quant *from = apr_quant_of(p->src->type), *to = apr_quant_of(p->type);
    return (struct apr_piece){.c = c,
                              .plan = p,
                              .src = p->src,
                              .from = from,
                              .to = to,
                              .importance = p->importance,
                              .narrows = from != to,
                              .scratch = scratch};
}

size_t apr_piece_scratch_bytes(unsigned n_threads)
{
    return n_threads * 2 * APR_STRIP_ELEMS * sizeof(float);
}

size_t apr_piece_bytes(const struct apr_quant *q, size_t n_elems)
{
    return (n_elems + q->block_elems - 1) / q->block_elems * q->block_bytes;
}

void apr_piece_set(struct apr_piece *j, uint64_t i_first)
{
    uint64_t n_left = apr_tensor_elems(j->src) - i_first, n_cols = apr_tensor_cols(j->src);
    uint64_t n_most = APR_PIECE_ELEMS;
    bool whole_rows =
        n_cols <= n_most && n_cols % j->from->block_elems == 0 && n_cols % j->to->block_elems == 0;
    if (whole_rows) n_most -= n_most % n_cols;
    j->i_first = i_first;
    j->n_elems = (size_t)(n_left < n_most ? n_left : n_most);
}

bool apr_piece_is_last(const struct apr_piece *j)
{
    return j->i_first + j->n_elems == apr_tensor_elems(j->src);
}

uint64_t apr_piece_off(const struct apr_piece *j)
{
    return j->from->head_bytes + j->i_first / j->from->block_elems * j->from->block_bytes;
}

size_t apr_piece_chunks(const struct apr_piece *j)
{
    return (j->n_elems + APR_CHUNK_ELEMS - 1) / APR_CHUNK_ELEMS;
}

void apr_piece_widen(const struct apr_piece *j, size_t at, float *x, size_t n)
{
    const uint8_t *in = j->in + apr_piece_bytes(j->from, at);
    if (j->from->head_bytes)
        apr_native_q8_to_f32(j->from_scale, (const int8_t *)in, x, n);
    else
        j->c->kern->to_f32[j->from->type](in, x, n);
}

/* The importance of n values from the piece's value at on: every row of a matrix has the same. */
static void spread_importance(const struct apr_piece *j, size_t at, float *weights, size_t n)
{
    uint64_t n_cols = apr_tensor_cols(j->src), n_rows = j->src->dims[j->src->n_dims - 2];
    uint64_t i = j->i_first + at, i_row = i / n_cols, i_col = i % n_cols;
    for (size_t k = 0; k < n; i_row++, i_col = 0) {
        size_t n_row = n_cols - i_col < n - k ? (size_t)(n_cols - i_col) : n - k;
        memcpy(weights + k, j->importance + i_row / n_rows * n_cols + i_col, n_row * sizeof *weights);
        k += n_row;
    }
}

/* weights: room for n. */
static void narrow(const struct apr_piece *j, size_t at, const float *x, float *weights, size_t n)
{
    uint8_t *out = j->out + apr_piece_bytes(j->to, at);
    if (j->importance) spread_importance(j, at, weights, n);
    if (j->to->head_bytes)
        apr_native_q8_from_f32(j->to_scale, x, (int8_t *)out, n);
    else
        j->to->from_f32(x, out, n, j->importance ? weights : NULL);
}

static bool is_finite(const struct apr_stats *s)
{
    return s->n_nan == 0 && s->n_inf == 0;
}

void apr_piece_convert(struct apr_piece *j, size_t i_chunk, unsigned i_thread)
{
    struct apr_stats *stats = &j->stats[i_chunk];
    size_t at = i_chunk * APR_CHUNK_ELEMS;
    size_t end = j->n_elems - at < APR_CHUNK_ELEMS ? j->n_elems : at + APR_CHUNK_ELEMS;
    float *x = j->scratch + (size_t)i_thread * 2 * APR_STRIP_ELEMS;
    apr_stats_init(stats);
    for (; at < end; at += APR_STRIP_ELEMS) {
        size_t n = end - at < APR_STRIP_ELEMS ? end - at : APR_STRIP_ELEMS;
        apr_piece_widen(j, at, x, n);
        j->c->kern->stats(x, n, stats);
        if (j->narrows && is_finite(stats)) narrow(j, at, x, x + APR_STRIP_ELEMS, n);
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

enum apr_code apr_piece_judge(const struct apr_piece *j, struct apr_stats *all, struct apr_err *e)
{
    for (size_t i = 0; i < apr_piece_chunks(j); i++) merge(all, &j->stats[i]);
    if (j->to == j->from && !j->c->gate) return APR_OK;
    if (!is_finite(all))
        return apr_fail(e, APR_ECONTRACT,
                        "%s: F-DATA-QUALITY-002 %s: %" PRIu64 " NaN and %" PRIu64
                        " infinite values found; expected none",
                        j->c->model->path, j->src->name, all->n_nan, all->n_inf);
    if (j->to->type == APR_F16 && (all->max >= F16_TOO_BIG || all->min <= -F16_TOO_BIG))
        return apr_fail(
            e, APR_ECONTRACT,
            "%s: F-DATA-QUALITY-002 %s: value %g does not fit F16; expected at most 65504 in magnitude",
            j->c->model->path, j->src->name, (double)(all->max >= F16_TOO_BIG ? all->max : all->min));
    return APR_OK;
}

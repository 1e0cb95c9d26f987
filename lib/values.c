/* Values of tensors by index. See values.h. */
#include "values.h"

#include <inttypes.h>
#include <string.h>

#define MAX_HEAD 16u

bool apr_values_known(const struct apr_tensor *t, const struct apr_kern *kern)
{
    const struct apr_quant *q = apr_quant_of(t->type);
    /* A head is copied in front of the piece, one byte a value: the only type with a head is 8 bits wide. */
    return t->type < APR_N_TYPES && q && kern->to_f32[t->type] && q->head_bytes <= MAX_HEAD &&
           (q->head_bytes == 0 || q->block_bytes <= q->block_elems);
}

enum apr_code apr_values_open(struct apr_values *v, const struct apr_model *m, const struct apr_tensor *t,
                              const struct apr_kern *kern, struct apr_err *e)
{
    const bool by_row = t->packing == APR_ROWS_PADDED;
    uint64_t n_bytes;
    TRY(apr_tensor_bytes_packed(t->type, t->packing, t->n_dims, t->dims, &n_bytes, e));
    if (n_bytes != t->n_bytes)
        return apr_fail(e, APR_EFORMAT, "%s: %s: found %" PRIu64 " bytes, expected %" PRIu64, m->path,
                        t->name, t->n_bytes, n_bytes);
    if (!(t->parts ? t->parts[0].data : t->data) || !apr_values_known(t, kern))
        return apr_fail(e, APR_ELOAD, "%s: %s: values of type %s cannot be computed", m->path, t->name,
                        apr_type_name(t->type));
    *v = (struct apr_values){.kern = kern, .q = apr_quant_of(t->type), .t = t};
    v->n = apr_tensor_elems(t);
    v->n_spans = by_row ? apr_tensor_rows(t) : t->parts ? t->dims[0] : 1;
    v->span_elems = v->n_spans ? v->n / v->n_spans : 0;
    v->span_bytes = v->n_spans ? n_bytes / v->n_spans : 0;
    return APR_OK;
}

/* n_blocks blocks whose first value is number `first` of a span. */
static void widen(const struct apr_values *v, const uint8_t *span, uint64_t first, size_t n_blocks, float *x)
{
    const struct apr_quant *q = v->q;
    const uint8_t *at = span + q->head_bytes + first / q->block_elems * q->block_bytes;
    uint8_t with_head[MAX_HEAD + APR_VALUES_PIECE];
    if (q->head_bytes) {
        memcpy(with_head, span, q->head_bytes);
        memcpy(with_head + q->head_bytes, at, n_blocks * q->block_bytes);
        at = with_head;
    }
    v->kern->to_f32[q->type](at, x, n_blocks * q->block_elems);
}

void apr_values_get(const struct apr_values *v, uint64_t i, size_t n, float *x)
{
    const uint32_t block = v->q->block_elems;
    float piece[APR_VALUES_PIECE];
    while (n) {
        const uint64_t in = i % v->span_elems;
        const uint64_t i_span = i / v->span_elems;
        const uint8_t *span =
            v->t->parts ? apr_tensor_part(v->t, i_span) : v->t->data + i_span * v->span_bytes;
        const size_t skip = (size_t)(in % block);
        size_t take = APR_VALUES_PIECE - skip;
        if (take > n) take = n;
        if (take > v->span_elems - in) take = (size_t)(v->span_elems - in);
        /* Values behind the last whole block of a span are padding: widened aside, not handed out. */
        if (skip == 0 && take % block == 0) {
            widen(v, span, in, take / block, x);
        } else {
            widen(v, span, in - skip, (skip + take + block - 1) / block, piece);
            memcpy(x, piece + skip, take * sizeof *x);
        }
        i += take;
        n -= take;
        x += take;
    }
}

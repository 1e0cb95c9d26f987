/* Shares of a description. See shard.h. */
#include "shard.h"

#include <inttypes.h>

#include "../quant/quant.h"

#define TILE_ROWS 16u /* of the plugin's tiles (tiles.cuh): shares of gate and up fill them */

/* Units [first, last) of a thing for each device. */
struct cut {
    uint32_t first, last;
};
static struct cut cut_of(uint32_t n_units, uint32_t unit, uint32_t i, uint32_t n)
{
    return (struct cut){(uint32_t)((uint64_t)n_units * i / n) * unit,
                        (uint32_t)((uint64_t)n_units * (i + 1) / n) * unit};
}

static uint64_t stride(const struct apr_gpu_mat *m)
{
    return m->stride_bytes ? m->stride_bytes : m->row_bytes;
}
static struct apr_gpu_mat rows_of(const struct apr_gpu_mat *m, struct cut c)
{
    struct apr_gpu_mat s = *m;
    if (!m->data) return s;
    s.data = (const uint8_t *)m->data + c.first * stride(m);
    s.n_rows = c.last - c.first;
    if (m->bias) s.bias = m->bias + c.first;
    return s;
}
/* c: whole blocks */
static struct apr_gpu_mat cols_of(const struct apr_gpu_mat *m, struct cut c, uint32_t i)
{
    const struct apr_quant *q = apr_quant_of(m->type);
    struct apr_gpu_mat s = *m;
    s.data = (const uint8_t *)m->data + (uint64_t)c.first / q->block_elems * q->block_bytes;
    s.n_cols = c.last - c.first;
    s.row_bytes = (uint64_t)s.n_cols / q->block_elems * q->block_bytes;
    s.stride_bytes = stride(m);
    if (i != 0) s.bias = NULL;
    return s;
}

/* ---- what cannot be shared --------------------------------------------------------------------------------
 */

static enum apr_code check_cols(const struct apr_gpu_mat *m, const char *what, uint32_t i_layer,
                                uint32_t n_cols, const struct apr_quant **q, struct apr_err *e)
{
    *q = apr_quant_of(m->type);
    if (!m->data || !*q || (*q)->is_flat || (*q)->head_bytes)
        return apr_fail(e, APR_EUNAVAIL, "cuda: layer %" PRIu32 ": %s of type %s cannot be cut into columns",
                        i_layer, what, apr_type_name(m->type));
    if (m->n_cols != n_cols || m->n_cols % (*q)->block_elems)
        return apr_fail(e, APR_EUNAVAIL,
                        "cuda: layer %" PRIu32 ": %s has %" PRIu32 " columns, expected %" PRIu32
                        " in whole blocks of %" PRIu32,
                        i_layer, what, m->n_cols, n_cols, (*q)->block_elems);
    return APR_OK;
}

static enum apr_code check_heads(const struct apr_gpu_desc *m, uint32_t n, struct apr_err *e)
{
    const uint32_t n_q = m->n_heads, n_kv = m->n_heads_kv;
    if (n_kv && n_q % n_kv == 0 && (n_kv % n == 0 || (n % n_kv == 0 && n_q % n == 0))) return APR_OK;
    return apr_fail(e, APR_EUNAVAIL,
                    "cuda: %" PRIu32 " heads over %" PRIu32 " KV heads cannot be shared by %" PRIu32
                    " devices; a number that divides %" PRIu32
                    " can, or a multiple of it that divides %" PRIu32,
                    n_q, n_kv, n, n_kv, n_q);
}

/* Columns of o between two devices are at the border of a head, which must be one of a block. */
static enum apr_code check_o(const struct apr_gpu_desc *m, uint32_t n, struct apr_err *e)
{
    const uint32_t n_each = m->n_heads / n * m->head_dim;
    for (uint32_t i = 0; i < m->n_layers; i++) {
        const struct apr_quant *q;
        TRY(check_cols(&m->layers[i].o, "o", i, m->n_heads * m->head_dim, &q, e));
        if (n_each % q->block_elems)
            return apr_fail(e, APR_EUNAVAIL,
                            "cuda: layer %" PRIu32 ": o is %s in blocks of %" PRIu32 ", and %" PRIu32
                            " heads of %" PRIu32 " are %" PRIu32 " columns: %" PRIu32
                            " devices cannot share it",
                            i, q->name, q->block_elems, m->n_heads / n, m->head_dim, n_each, n);
    }
    return APR_OK;
}

/* The middle is cut into whole blocks of every layer's down, and tiles where it has whole ones. */
static enum apr_code unit_of_inter(const struct apr_gpu_desc *m, uint32_t n, uint32_t *unit,
                                   struct apr_err *e)
{
    *unit = 4;
    while (*unit < TILE_ROWS && m->n_inter % (2 * *unit) == 0) *unit *= 2;
    for (uint32_t i = 0; i < m->n_layers; i++) {
        const struct apr_quant *q;
        TRY(check_cols(&m->layers[i].down, "down", i, m->n_inter, &q, e));
        if (q->block_elems > *unit) *unit = q->block_elems;
    }
    if (m->n_inter % *unit || m->n_inter / *unit < n)
        return apr_fail(e, APR_EUNAVAIL,
                        "cuda: the middle of %" PRIu32 " in units of %" PRIu32 " cannot be shared by %" PRIu32
                        " devices",
                        m->n_inter, *unit, n);
    return APR_OK;
}

/* ---- shares -----------------------------------------------------------------------------------------------
 */

struct share {
    uint32_t i;                    /* which device */
    struct cut q, kv, inter, rows; /* of heads' rows; of the middle; of the head */
};

static struct share share_of(const struct apr_gpu_desc *m, uint32_t unit, uint32_t i, uint32_t n)
{
    const uint32_t dim = m->head_dim, n_rows = (m->n_vocab + n - 1) / n;
    struct share s = {.i = i};
    s.q = cut_of(m->n_heads, dim, i, n);
    s.kv = cut_of(m->n_heads_kv, dim, i, n);
    if (m->n_heads_kv < n) { /* the one that its heads read */
        const uint32_t k = i / (n / m->n_heads_kv);
        s.kv = (struct cut){k * dim, (k + 1) * dim};
    }
    s.inter = cut_of(m->n_inter / unit, unit, i, n);
    s.rows = (struct cut){i * n_rows, i + 1 == n ? m->n_vocab : (i + 1) * n_rows};
    return s;
}

static void share_layer(const struct apr_gpu_layer *from, const struct share *s, struct apr_gpu_layer *to)
{
    *to = *from;
    to->q = rows_of(&from->q, s->q);
    to->k = rows_of(&from->k, s->kv);
    to->v = rows_of(&from->v, s->kv);
    to->o = cols_of(&from->o, s->q, s->i);
    to->gate = rows_of(&from->gate, s->inter);
    to->up = rows_of(&from->up, s->inter);
    to->down = cols_of(&from->down, s->inter, s->i);
}

enum apr_code apr_gpu_shard(const struct apr_gpu_desc *m, uint32_t n_devices, struct apr_arena *a,
                            struct apr_gpu_desc **out, struct apr_err *e)
{
    uint32_t unit = 1;
    struct apr_gpu_desc *all;
    TRY(apr_arena_try(a, &all, n_devices, sizeof *all, "shares of a model", e));
    *out = all;
    if (n_devices == 1) return all[0] = *m, APR_OK;
    TRY(check_heads(m, n_devices, e));
    TRY(check_o(m, n_devices, e));
    TRY(unit_of_inter(m, n_devices, &unit, e));
    if ((uint64_t)n_devices * n_devices > m->n_vocab)
        return apr_fail(e, APR_EUNAVAIL, "cuda: %" PRIu32 " tokens cannot be shared by %" PRIu32 " devices",
                        m->n_vocab, n_devices);
    for (uint32_t i = 0; i < n_devices; i++) {
        const struct share s = share_of(m, unit, i, n_devices);
        struct apr_gpu_layer *layers;
        TRY(apr_arena_try(a, &layers, m->n_layers, sizeof *layers, "layers of a share", e));
        for (uint32_t k = 0; k < m->n_layers; k++) share_layer(&m->layers[k], &s, &layers[k]);
        all[i] = *m;
        all[i].layers = layers;
        all[i].n_heads = (s.q.last - s.q.first) / m->head_dim;
        all[i].n_heads_kv = (s.kv.last - s.kv.first) / m->head_dim;
        all[i].n_inter = s.inter.last - s.inter.first;
        all[i].head = rows_of(&m->head, s.rows);
    }
    return APR_OK;
}

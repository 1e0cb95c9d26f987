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

/* Latent attention has one KV head, which every device computes. */
static enum apr_code check_heads(const struct apr_gpu_desc *m, uint32_t n, struct apr_err *e)
{
    const uint32_t n_q = m->n_heads, n_kv = m->n_heads_kv;
    const bool splits_kv = n_kv && (n_kv % n == 0 || n % n_kv == 0);
    if (n_kv && n_q % n_kv == 0 && n_q % n == 0 && (m->kv_rank || splits_kv)) return APR_OK;
    if (m->kv_rank)
        return apr_fail(e, APR_EUNAVAIL, "cuda: %" PRIu32 " heads cannot be shared by %" PRIu32 " devices",
                        n_q, n);
    return apr_fail(e, APR_EUNAVAIL,
                    "cuda: %" PRIu32 " heads over %" PRIu32 " KV heads cannot be shared by %" PRIu32
                    " devices; a number that divides %" PRIu32
                    " can, or a multiple of it that divides %" PRIu32,
                    n_q, n_kv, n, n_kv, n_q);
}

/* Values of a head behind attention: columns of o. */
static uint32_t value_dim(const struct apr_gpu_desc *m)
{
    return m->kv_rank ? m->n_value : m->head_dim;
}

/* Columns of o between two devices are at the border of a head, which must be one of a block. */
static enum apr_code check_o(const struct apr_gpu_desc *m, uint32_t n, struct apr_err *e)
{
    const uint32_t dim = value_dim(m), n_each = m->n_heads / n * dim;
    for (uint32_t i = 0; i < m->n_layers; i++) {
        const struct apr_quant *q;
        TRY(check_cols(&m->layers[i].o, "o", i, m->n_heads * dim, &q, e));
        if (n_each % q->block_elems)
            return apr_fail(e, APR_EUNAVAIL,
                            "cuda: layer %" PRIu32 ": o is %s in blocks of %" PRIu32 ", and %" PRIu32
                            " heads of %" PRIu32 " are %" PRIu32 " columns: %" PRIu32
                            " devices cannot share it",
                            i, q->name, q->block_elems, m->n_heads / n, dim, n_each, n);
    }
    return APR_OK;
}

/* The middle of a feed-forward block is cut into whole blocks of every down, and tiles where it has whole
 * ones. unit 0: no layer has such a block. */
struct middle {
    const char *what;
    uint32_t n_inter, unit;
};
static enum apr_code widen_unit(struct middle *y, const struct apr_gpu_mat *down, uint32_t i_layer,
                                struct apr_err *e)
{
    const struct apr_quant *q;
    TRY(check_cols(down, "down", i_layer, y->n_inter, &q, e));
    if (y->unit == 0)
        for (y->unit = 4; y->unit < TILE_ROWS && y->n_inter % (2 * y->unit) == 0;) y->unit *= 2;
    if (q->block_elems > y->unit) y->unit = q->block_elems;
    return APR_OK;
}

enum { DENSE, EXPERT, SHARED, N_MIDDLES };
static enum apr_code middles_of(const struct apr_gpu_desc *m, uint32_t n, struct middle y[N_MIDDLES],
                                struct apr_err *e)
{
    y[DENSE] = (struct middle){"the middle", m->n_inter, 0};
    y[EXPERT] = (struct middle){"the middle of an expert", m->n_inter_expert, 0};
    y[SHARED] = (struct middle){"the middle of the shared expert", m->n_inter_shared, 0};
    for (uint32_t i = 0; i < m->n_layers; i++) {
        const struct apr_gpu_layer *l = &m->layers[i];
        const struct apr_gpu_experts *x = &l->experts;
        if (!x->router.data) TRY(widen_unit(&y[DENSE], &l->down, i, e));
        for (uint32_t k = 0; x->router.data && k < m->n_experts; k++)
            TRY(widen_unit(&y[EXPERT], &x->down[k], i, e));
        if (x->shared_up.data) TRY(widen_unit(&y[SHARED], &x->shared_down, i, e));
    }
    for (int k = 0; k < N_MIDDLES; k++)
        if (y[k].unit && (y[k].n_inter % y[k].unit || y[k].n_inter / y[k].unit < n))
            return apr_fail(e, APR_EUNAVAIL,
                            "cuda: %s of %" PRIu32 " in units of %" PRIu32 " cannot be shared by %" PRIu32
                            " devices",
                            y[k].what, y[k].n_inter, y[k].unit, n);
    return APR_OK;
}

/* ---- shares -----------------------------------------------------------------------------------------------
 */

struct share {
    uint32_t i, n_experts;
    struct cut heads, kv, middle[N_MIDDLES], rows; /* rows: of the head */
};

static struct share share_of(const struct apr_gpu_desc *m, const struct middle y[N_MIDDLES], uint32_t i,
                             uint32_t n)
{
    const uint32_t n_rows = (m->n_vocab + n - 1) / n;
    struct share s = {.i = i, .n_experts = m->n_experts};
    s.heads = cut_of(m->n_heads, 1, i, n);
    s.kv = cut_of(m->n_heads_kv, 1, i, n);
    if (m->n_heads_kv < n) { /* the one that its heads read */
        const uint32_t k = i / (n / m->n_heads_kv);
        s.kv = (struct cut){k, k + 1};
    }
    if (m->kv_rank) s.kv = (struct cut){0, 1};
    for (int k = 0; k < N_MIDDLES; k++)
        if (y[k].unit) s.middle[k] = cut_of(y[k].n_inter / y[k].unit, y[k].unit, i, n);
    s.rows = (struct cut){i * n_rows, i + 1 == n ? m->n_vocab : (i + 1) * n_rows};
    return s;
}
static struct cut times(struct cut c, uint32_t n)
{
    return (struct cut){c.first * n, c.last * n};
}
static uint32_t length(struct cut c)
{
    return c.last - c.first;
}

static enum apr_code share_experts(const struct apr_gpu_experts *from, const struct share *s,
                                   struct apr_arena *a, struct apr_gpu_experts *to, struct apr_err *e)
{
    const struct cut c = s->middle[EXPERT];
    struct apr_gpu_mat *all;
    if (!from->router.data) return APR_OK;
    TRY(apr_arena_try(a, &all, 3 * (size_t)s->n_experts, sizeof *all, "experts of a share", e));
    to->up = all, to->down = all + s->n_experts, to->gate = from->gate ? all + 2 * s->n_experts : NULL;
    for (uint32_t k = 0; k < s->n_experts; k++) {
        all[k] = rows_of(&from->up[k], c);
        all[s->n_experts + k] = cols_of(&from->down[k], c, s->i);
        if (from->gate) all[2 * s->n_experts + k] = rows_of(&from->gate[k], c);
    }
    if (!from->shared_up.data) return APR_OK;
    to->shared_up = rows_of(&from->shared_up, s->middle[SHARED]);
    to->shared_gate = rows_of(&from->shared_gate, s->middle[SHARED]);
    to->shared_down = cols_of(&from->shared_down, s->middle[SHARED], s->i);
    return APR_OK;
}

static enum apr_code share_layer(const struct apr_gpu_desc *m, const struct apr_gpu_layer *from,
                                 const struct share *s, struct apr_arena *a, struct apr_gpu_layer *to,
                                 struct apr_err *e)
{
    const struct cut kv = times(s->kv, m->head_dim);
    *to = *from;
    to->q = rows_of(&from->q, times(s->heads, m->head_dim));
    if (m->kv_rank) {
        to->latent.k_b = from->latent.k_b + s->heads.first;
        to->latent.v_b = from->latent.v_b + s->heads.first;
    } else {
        to->k = rows_of(&from->k, kv);
        to->v = rows_of(&from->v, kv);
    }
    to->o = cols_of(&from->o, times(s->heads, value_dim(m)), s->i);
    if (from->experts.router.data) return share_experts(&from->experts, s, a, &to->experts, e);
    to->gate = rows_of(&from->gate, s->middle[DENSE]);
    to->up = rows_of(&from->up, s->middle[DENSE]);
    to->down = cols_of(&from->down, s->middle[DENSE], s->i);
    return APR_OK;
}

static void share_numbers(const struct apr_gpu_desc *m, const struct share *s, struct apr_gpu_desc *to)
{
    *to = *m;
    to->n_heads = length(s->heads);
    to->n_heads_kv = length(s->kv);
    if (s->middle[DENSE].last) to->n_inter = length(s->middle[DENSE]);
    if (s->middle[EXPERT].last) to->n_inter_expert = length(s->middle[EXPERT]);
    if (s->middle[SHARED].last) to->n_inter_shared = length(s->middle[SHARED]);
    to->head = rows_of(&m->head, s->rows);
}

enum apr_code apr_gpu_shard(const struct apr_gpu_desc *m, uint32_t n_devices, struct apr_arena *a,
                            struct apr_gpu_desc **out, struct apr_err *e)
{
    struct middle middles[N_MIDDLES];
    struct apr_gpu_desc *all;
    TRY(apr_arena_try(a, &all, n_devices, sizeof *all, "shares of a model", e));
    *out = all;
    if (n_devices == 1) return all[0] = *m, APR_OK;
    TRY(check_heads(m, n_devices, e));
    TRY(check_o(m, n_devices, e));
    TRY(middles_of(m, n_devices, middles, e));
    if ((uint64_t)n_devices * n_devices > m->n_vocab)
        return apr_fail(e, APR_EUNAVAIL, "cuda: %" PRIu32 " tokens cannot be shared by %" PRIu32 " devices",
                        m->n_vocab, n_devices);
    for (uint32_t i = 0; i < n_devices; i++) {
        const struct share s = share_of(m, middles, i, n_devices);
        struct apr_gpu_layer *layers;
        TRY(apr_arena_try(a, &layers, m->n_layers, sizeof *layers, "layers of a share", e));
        for (uint32_t k = 0; k < m->n_layers; k++) TRY(share_layer(m, &m->layers[k], &s, a, &layers[k], e));
        share_numbers(m, &s, &all[i]);
        all[i].layers = layers;
    }
    return APR_OK;
}

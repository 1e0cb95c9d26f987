/* Latent attention's kv_b: whole in a checkpoint, in two halves in GGUF. Source: gguf-export facts, 5.3. */
#include <string.h>

#include "log.h"
#include "reform_job.h"

#define MAX_BLOCK 256

/* Row r of a matrix becomes column r of out [n_cols, n_rows], block by block as f32. */
static void spread_row(const struct apr_view *v, const uint8_t *row, uint64_t r, uint64_t n_cols, float *out)
{
    float x[MAX_BLOCK];
    for (uint64_t c = 0; c < n_cols; c += v->q->block_elems) {
        v->q->to_f32(row + c / v->q->block_elems * v->q->block_bytes, x, v->q->block_elems);
        for (uint32_t i = 0; i < v->q->block_elems; i++) out[(c + i) * v->n_rows + r] = x[i];
    }
}

/* One head of kv_b, [n_nope + n_value, kv_rank]: the first n_nope rows, transposed: [kv_rank, n_nope]. */
static void take_k(const struct apr_view *v, const uint8_t *const in[2], uint8_t *out)
{
    const uint64_t n_cols = v->out_bytes / v->n_rows / v->n_elem_bytes;
    for (uint64_t r = 0; r < v->n_rows; r++) {
        const uint8_t *row = in[0] + r * v->row_bytes;
        if (v->q->block_elems > 1)
            spread_row(v, row, r, n_cols, (float *)(void *)out); /* the start of a heap block */
        else
            for (uint64_t c = 0; c < n_cols; c++)
                memcpy(out + (c * v->n_rows + r) * v->n_elem_bytes, row + c * v->n_elem_bytes,
                       (size_t)v->n_elem_bytes);
    }
}

/* The other rows of the head, as they are: [n_value, kv_rank]. */
static void take_v(const struct apr_view *v, const uint8_t *const in[2], uint8_t *out)
{
    memcpy(out, in[0] + v->n_skip * v->row_bytes, (size_t)v->out_bytes);
}

static enum apr_code check_latent(const struct apr_reform_job *j, struct apr_err *e)
{
    const struct apr_mla *mla = &j->m->config.mla;
    const uint64_t n_rows = j->m->config.n_heads * ((uint64_t)mla->n_nope + mla->n_value);
    if (!apr_reform_has_rows(j->t) || j->t->packing != APR_ROWS)
        return apr_reform_refuse(j, "it cannot be split as it is stored; convert it to F16 first", e);
    if (j->t->n_dims != 2 || j->t->dims[0] != n_rows || j->t->dims[1] != mla->kv_rank)
        return apr_reform_refuse(j, "its shape does not suit the heads", e);
    if (j->t->n_bytes / j->m->config.n_heads > APR_VIEW_MAX_UNIT)
        return apr_reform_refuse(j, "one head is larger than 128 MiB", e);
    return APR_OK;
}

enum apr_code apr_reform_split_kv(const struct apr_reform_job *j, struct apr_err *e)
{
    const struct apr_config *c = &j->m->config;
    const struct apr_quant *q = apr_quant_of(j->t->type);
    struct apr_view *vk, *vv;
    TRY(check_latent(j, e));
    struct apr_tensor *k = apr_reform_derived(j, &vk), *v = apr_reform_derived(j, &vv);
    const uint64_t row_bytes = j->t->n_bytes / j->t->dims[0];
    vk->in_bytes[0] = vv->in_bytes[0] = j->t->n_bytes / c->n_heads;
    vk->row_bytes = vv->row_bytes = row_bytes;
    vk->is_shared = vv->is_shared = true;
    vk->make = take_k;
    vv->make = take_v;
    if (q->block_elems > 1) {
        if (q->block_elems > MAX_BLOCK || !q->to_f32)
            return apr_reform_refuse(j, "its values are not known", e);
        apr_note("%s: %s: %s cannot be transposed; its key half is stored as F32", j->m->path, j->t->name,
                 q->name);
        k->type = APR_F32;
    }
    vk->n_rows = c->mla.n_nope;
    vk->n_elem_bytes = q->block_elems > 1 ? sizeof(float) : q->block_bytes;
    vk->out_bytes = vk->n_elem_bytes * c->mla.n_nope * c->mla.kv_rank;
    vv->n_skip = c->mla.n_nope;
    vv->out_bytes = row_bytes * c->mla.n_value;
    k->name = apr_reform_name(j, APR_ROLE_K_B);
    v->name = apr_reform_name(j, APR_ROLE_V_B);
    k->n_dims = v->n_dims = 3;
    k->dims[0] = v->dims[0] = c->n_heads;
    k->dims[1] = v->dims[2] = c->mla.kv_rank;
    k->dims[2] = c->mla.n_nope;
    v->dims[1] = c->mla.n_value;
    TRY(apr_tensor_bytes(k->type, 3, k->dims, &k->n_bytes, e));
    TRY(apr_tensor_bytes(v->type, 3, v->dims, &v->n_bytes, e));
    TRY(apr_reform_add(j, k, e));
    return apr_reform_add(j, v, e);
}

/* One head: k [kv_rank, n_nope] transposed, then v [n_value, kv_rank]. */
static void join(const struct apr_view *v, const uint8_t *const in[2], uint8_t *out)
{
    const uint64_t n_cols = v->row_bytes / v->n_elem_bytes;
    for (uint64_t r = 0; r < v->n_rows; r++)
        for (uint64_t c = 0; c < n_cols; c++)
            memcpy(out + r * v->row_bytes + c * v->n_elem_bytes,
                   in[0] + (c * v->n_rows + r) * v->n_elem_bytes, (size_t)v->n_elem_bytes);
    memcpy(out + v->n_rows * v->row_bytes, in[1], (size_t)v->in_bytes[1]);
}

/* From k_b; v_b is taken along. */
enum apr_code apr_reform_join_kv(const struct apr_reform_job *j, struct apr_err *e)
{
    const struct apr_config *c = &j->m->config;
    const struct apr_tensor *v_b = apr_model_role(j->m, APR_ROLE_V_B, j->layer);
    struct apr_view *v;
    if (!v_b || !apr_reform_is_plain(j->t) || !apr_reform_is_plain(v_b) || j->t->type != v_b->type ||
        j->t->n_dims != 3 || v_b->n_dims != 3)
        return apr_reform_refuse(
            j,
            "it cannot be joined with its value half as they are stored; both must be F32, F16 "
            "or BF16",
            e);
    if (j->t->dims[0] != c->n_heads || v_b->dims[0] != c->n_heads || j->t->dims[1] != v_b->dims[2])
        return apr_reform_refuse(j, "its shape does not suit its value half", e);
    struct apr_tensor *t = apr_reform_derived(j, &v);
    v->src[1] = v_b;
    v->is_shared = true; /* the first is over before the second begins */
    v->make = join;
    v->n_rows = j->t->dims[2];
    v->n_elem_bytes = v->q->block_bytes;
    v->row_bytes = v->n_elem_bytes * j->t->dims[1];
    v->in_bytes[0] = j->t->n_bytes / c->n_heads;
    v->in_bytes[1] = v_b->n_bytes / c->n_heads;
    v->out_bytes = v->in_bytes[0] + v->in_bytes[1];
    if (v->out_bytes > APR_VIEW_MAX_UNIT) return apr_reform_refuse(j, "one head is larger than 128 MiB", e);
    t->name = apr_reform_name(j, APR_ROLE_KV_B);
    t->n_dims = 2;
    t->dims[0] = c->n_heads * (j->t->dims[2] + v_b->dims[1]);
    t->dims[1] = j->t->dims[1];
    t->dims[2] = 0;
    TRY(apr_tensor_bytes(t->type, 2, t->dims, &t->n_bytes, e));
    return apr_reform_add(j, t, e);
}

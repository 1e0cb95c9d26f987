/* Whether a description can be computed, and by which pass: by what it says, never by a family's name. */
#include "model.cuh"

#include "../config.h"

void layer_mats(const struct apr_gpu_desc *m, const struct apr_gpu_layer *l,
                const struct apr_gpu_mat *mats[LAYER_MATS], struct desc_stack stacks[LAYER_STACKS])
{
    const struct apr_gpu_latent *a = &l->latent;
    const struct apr_gpu_experts *x = &l->experts;
    const struct apr_gpu_mat *all[] = {
        &l->q,   &l->k,    &l->v,      &l->o,         &l->gate,        &l->up,          &l->down,
        &a->q_a, &a->kv_a, &x->router, &x->shared_up, &x->shared_gate, &x->shared_down, &x->shared_weight};
    const struct desc_stack some[] = {{a->k_b, m->n_heads},
                                      {a->v_b, m->n_heads},
                                      {x->gate, m->n_experts},
                                      {x->up, m->n_experts},
                                      {x->down, m->n_experts}};
    static_assert(sizeof all / sizeof *all == LAYER_MATS, "matrices of a layer");
    static_assert(sizeof some / sizeof *some == LAYER_STACKS, "stacks of a layer");
    memcpy(mats, all, sizeof all);
    memcpy(stacks, some, sizeof some);
}

static enum apr_gpu_status check_mat(const struct apr_gpu_mat *w, const char *what, uint32_t n_rows,
                                     uint32_t n_cols, struct apr_gpu_err *e)
{
    int kind;
    if (!w->data) return gpu_fail(e, APR_GPU_UNSUPPORTED, "the model has no matrix %s", what);
    if (w->n_rows != n_rows || w->n_cols != n_cols)
        return gpu_fail(e, APR_GPU_UNSUPPORTED, "%s is [%u, %u], expected [%u, %u]", what, w->n_rows,
                        w->n_cols, n_rows, n_cols);
    if (!repack_kind(w->type, &kind))
        return gpu_fail(e, APR_GPU_UNSUPPORTED, "%s has type %u, which the GPU cannot compute with", what,
                        w->type);
    if (w->row_bytes != repack_row_bytes(w->type, n_cols))
        return gpu_fail(e, APR_GPU_UNSUPPORTED, "%s of type %u has rows of %llu bytes, expected %llu", what,
                        w->type, (unsigned long long)w->row_bytes,
                        (unsigned long long)repack_row_bytes(w->type, n_cols));
    if (n_rows == 0 || n_cols == 0 || n_cols % 4)
        return gpu_fail(e, APR_GPU_UNSUPPORTED, "%s is [%u, %u], expected columns in fours", what, n_rows,
                        n_cols);
    return APR_GPU_OK;
}
static enum apr_gpu_status check_mat_if(const struct apr_gpu_mat *w, const char *what, uint32_t n_rows,
                                        uint32_t n_cols, struct apr_gpu_err *e)
{
    return w->data ? check_mat(w, what, n_rows, n_cols, e) : APR_GPU_OK;
}
static enum apr_gpu_status check_stack(const struct apr_gpu_mat *w, uint32_t n, const char *what,
                                       uint32_t n_rows, uint32_t n_cols, struct apr_gpu_err *e)
{
    if (!w) return gpu_fail(e, APR_GPU_UNSUPPORTED, "the model has no matrices %s", what);
    for (uint32_t i = 0; i < n; i++) {
        GPU_TRY(check_mat(&w[i], what, n_rows, n_cols, e));
        if (w[i].type != w[0].type || w[i].bias)
            return gpu_fail(e, APR_GPU_UNSUPPORTED, "%s %u has type %u%s, expected %u and no bias", what, i,
                            w[i].type, w[i].bias ? " and a bias" : "", w[0].type);
    }
    return APR_GPU_OK;
}

static enum apr_gpu_status check_attention(const struct apr_gpu_desc *m, const struct apr_gpu_layer *l,
                                           struct apr_gpu_err *e)
{
    const struct apr_gpu_latent *a = &l->latent;
    uint32_t n_q = m->n_heads * m->head_dim, n_kv = m->n_heads_kv * m->head_dim, n_in = m->n_hidden;
    if (!m->kv_rank) {
        GPU_TRY(check_mat(&l->q, "q", n_q, m->n_hidden, e));
        GPU_TRY(check_mat(&l->k, "k", n_kv, m->n_hidden, e));
        GPU_TRY(check_mat(&l->v, "v", n_kv, m->n_hidden, e));
        return check_mat(&l->o, "o", m->n_hidden, n_q, e);
    }
    if (a->q_a.data) {
        n_in = a->q_a.n_rows;
        GPU_TRY(check_mat(&a->q_a, "q_a", n_in, m->n_hidden, e));
        if (!a->q_a_norm) return gpu_fail(e, APR_GPU_UNSUPPORTED, "q_a without a norm");
    }
    if (!a->kv_a_norm) return gpu_fail(e, APR_GPU_UNSUPPORTED, "kv_a without a norm");
    GPU_TRY(check_mat(&l->q, "q", n_q, n_in, e));
    GPU_TRY(check_mat(&a->kv_a, "kv_a", m->kv_rank + m->n_rope, m->n_hidden, e));
    GPU_TRY(check_stack(a->k_b, m->n_heads, "k_b", m->kv_rank, m->n_nope, e));
    GPU_TRY(check_stack(a->v_b, m->n_heads, "v_b", m->n_value, m->kv_rank, e));
    return check_mat(&l->o, "o", m->n_hidden, m->n_heads * m->n_value, e);
}

static enum apr_gpu_status check_ffn(const struct apr_gpu_desc *m, const struct apr_gpu_layer *l,
                                     struct apr_gpu_err *e)
{
    const struct apr_gpu_experts *x = &l->experts;
    const uint32_t n = m->n_hidden, n_inter = m->n_inter_expert, n_shared = m->n_inter_shared;
    if (!x->router.data) {
        GPU_TRY(check_mat_if(&l->gate, "gate", m->n_inter, n, e));
        GPU_TRY(check_mat(&l->up, "up", m->n_inter, n, e));
        return check_mat(&l->down, "down", n, m->n_inter, e);
    }
    if (!m->n_used || m->n_used > m->n_experts)
        return gpu_fail(e, APR_GPU_UNSUPPORTED, "%u of %u experts", m->n_used, m->n_experts);
    if (m->n_groups > 1 &&
        (m->n_experts % m->n_groups || !m->n_groups_used || m->n_groups_used > m->n_groups))
        return gpu_fail(e, APR_GPU_UNSUPPORTED, "%u of %u groups of experts", m->n_groups_used, m->n_groups);
    GPU_TRY(check_mat(&x->router, "the router", m->n_experts, n, e));
    GPU_TRY(check_stack(x->up, m->n_experts, "up of an expert", n_inter, n, e));
    if (x->gate) GPU_TRY(check_stack(x->gate, m->n_experts, "gate of an expert", n_inter, n, e));
    GPU_TRY(check_stack(x->down, m->n_experts, "down of an expert", n, n_inter, e));
    if (!x->shared_up.data) return APR_GPU_OK;
    GPU_TRY(check_mat(&x->shared_up, "up of the shared expert", n_shared, n, e));
    GPU_TRY(check_mat_if(&x->shared_gate, "gate of the shared expert", n_shared, n, e));
    GPU_TRY(check_mat(&x->shared_down, "down of the shared expert", n, n_shared, e));
    return check_mat_if(&x->shared_weight, "the weight of the shared expert", 1, n, e);
}

/* Half of the values of a head that turn, at most. */
static uint32_t most_pairs(const struct apr_gpu_desc *m)
{
    return (m->kv_rank ? m->n_rope : m->head_dim) / 2;
}

static enum apr_gpu_status check_layer(const struct apr_gpu_desc *m, const struct apr_gpu_layer *l,
                                       struct apr_gpu_err *e)
{
    if (!l->attn_norm.w || (!l->ffn_norm.w && !m->is_parallel))
        return gpu_fail(e, APR_GPU_UNSUPPORTED, "a layer without its norms");
    if (l->i_rope > 1 || m->ropes[l->i_rope].n_half > most_pairs(m))
        return gpu_fail(e, APR_GPU_UNSUPPORTED, "rotation %u of %u pairs, a head has %u", l->i_rope,
                        l->i_rope > 1 ? 0 : m->ropes[l->i_rope].n_half, most_pairs(m));
    GPU_TRY(check_attention(m, l, e));
    return check_ffn(m, l, e);
}

enum apr_gpu_status model_check(const struct apr_gpu_device *d, const struct apr_gpu_desc *m,
                                const struct apr_gpu_opts *o, struct apr_gpu_err *e)
{
    const uint32_t k_dim = m->kv_rank ? m->kv_rank + m->n_rope : m->head_dim;
    if (m->struct_bytes != sizeof *m)
        return gpu_fail(e, APR_GPU_UNSUPPORTED, "the description is of another version");
    if (m->head_dim % 4 || k_dim % 4 || k_dim < 4 || k_dim > ANY_DIM_MOST)
        return gpu_fail(e, APR_GPU_UNSUPPORTED, "heads of %u values, expected a multiple of 4 up to %u",
                        m->head_dim % 4 ? m->head_dim : k_dim, ANY_DIM_MOST);
    if (m->kv_rank && (m->n_nope + m->n_rope != m->head_dim || m->n_heads_kv != 1 || m->kv_rank % 4))
        return gpu_fail(e, APR_GPU_UNSUPPORTED, "latent attention of %u + %u values over %u KV heads",
                        m->n_nope, m->n_rope, m->n_heads_kv);
    if (!m->n_heads_kv || m->n_heads % m->n_heads_kv)
        return gpu_fail(e, APR_GPU_UNSUPPORTED, "%u heads over %u KV heads", m->n_heads, m->n_heads_kv);
    if (!o->n_ctx || !o->n_chunk || !m->n_layers)
        return gpu_fail(e, APR_GPU_UNSUPPORTED, "a context, chunk or model of no size");
    if (m->activation > APR_RELU) return gpu_fail(e, APR_GPU_UNSUPPORTED, "activation %u", m->activation);
    if (!m->final_norm.w) return gpu_fail(e, APR_GPU_UNSUPPORTED, "a model without its last norm");
    for (uint32_t i = 0; i < m->n_layers; i++) GPU_TRY(check_layer(m, &m->layers[i], e));
    GPU_TRY(check_mat(&m->embed, "the embedding", m->n_vocab, m->n_hidden, e));
    GPU_TRY(check_mat_if(&m->positions, "the positions", m->positions.n_rows, m->n_hidden, e));
    GPU_TRY(check_mat(&m->head, "the head", comm_share(d, m->n_vocab), m->n_hidden, e));
    return APR_GPU_OK;
}

/* ---- which pass -------------------------------------------------------------------------------------------
 */

/* Rotations that attn.cuh can do: whole heads, and of neighbours any part, the rest turning by nothing. */
bool layer_is_plain(const struct apr_gpu_desc *m, const struct apr_gpu_layer *l)
{
    const uint32_t n_half = m->ropes[l->i_rope].n_half;
    return !m->kv_rank && !l->window && !(m->attn_softcap > 0) && m->head_dim % 16 == 0 &&
           m->head_dim <= 256 && !m->ropes[l->i_rope].long_inv_freq &&
           (n_half == 0 || 2 * n_half == m->head_dim || m->rope_pairs);
}

static bool is_raw(const struct apr_gpu_mat *w)
{
    int kind = 0;
    return repack_kind(w->type, &kind) && tile_is_raw(kind);
}
static bool layer_is_fused(const struct apr_gpu_desc *m, const struct apr_gpu_layer *l)
{
    const struct apr_gpu_mat *mats[] = {&l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down};
    for (size_t i = 0; i < sizeof mats / sizeof *mats; i++)
        if (is_raw(mats[i])) return false;
    return layer_is_plain(m, l) && l->gate.data && l->gate.type == l->up.type && !l->gate.bias &&
           !l->up.bias && !l->attn_norm.b && !l->ffn_norm.b && l->ffn_norm.w && !l->post_attn_norm &&
           !l->post_ffn_norm && !l->experts.router.data;
}
bool model_is_general(const struct apr_gpu_desc *m)
{
    for (uint32_t i = 0; i < m->n_layers; i++)
        if (!layer_is_fused(m, &m->layers[i])) return true;
    return m->activation != APR_SILU || m->is_parallel || m->residual_scale != 1 || m->logit_scale != 1 ||
           m->logit_softcap > 0 || m->positions.data || m->final_norm.b || m->n_inter % 2 || is_raw(&m->head);
}

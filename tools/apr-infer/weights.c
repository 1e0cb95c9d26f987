/* Roles to matrices, part by part of a layer. What is optional is bound where the model has it: which parts a
 * family must have is the contract's business. */
#include "weights.h"

#include <inttypes.h>
#include <string.h>

/* A norm's weights; 1 is added where the file holds them so. */
static enum apr_code bind_scale(struct apr_bind *b, enum apr_role role, uint32_t i_layer, size_t n,
                                const float **out, struct apr_err *e)
{
    float *y;
    TRY(apr_bind_vector(b, role, i_layer, n, out, e));
    if (!b->m->config.norm_plus_one) return APR_OK;
    TRY(apr_arena_try(b->arena, &y, n, sizeof *y, "a norm", e));
    for (size_t i = 0; i < n; i++) y[i] = 1 + (*out)[i];
    *out = y;
    return APR_OK;
}

static enum apr_code bind_scale_if(struct apr_bind *b, enum apr_role role, uint32_t i_layer, size_t n,
                                   const float **out, struct apr_err *e)
{
    return apr_bind_has(b, role, i_layer) ? bind_scale(b, role, i_layer, n, out, e) : APR_OK;
}

static enum apr_code bind_norm(struct apr_bind *b, enum apr_role role, enum apr_role bias_role,
                               uint32_t i_layer, struct apr_lnorm *out, struct apr_err *e)
{
    const struct apr_config *c = &b->m->config;
    TRY(bind_scale(b, role, i_layer, c->n_hidden, &out->w, e));
    if (c->norm != APR_NORM_LAYER) return APR_OK;
    return apr_bind_vector(b, bias_role, i_layer, c->n_hidden, &out->b, e);
}

/* A small matrix that decides something: always computed with F32 activations. */
static enum apr_code bind_decider(struct apr_bind *b, enum apr_role role, uint32_t i_layer, size_t n_rows,
                                  struct apr_mat *out, struct apr_err *e)
{
    struct apr_matmul *mm;
    TRY(apr_bind_matrix(b, role, APR_ROLE_NONE, i_layer, n_rows, b->m->config.n_hidden, out, e));
    TRY(apr_arena_try(b->arena, &mm, 1, sizeof *mm, "a kernel", e));
    *mm = (struct apr_matmul){.fast = out->mm->exact, .act = APR_ACT_F32, .exact = out->mm->exact};
    out->mm = mm;
    return APR_OK;
}

static enum apr_code bind_attention(struct apr_bind *b, struct apr_layer *l, uint32_t i, struct apr_err *e)
{
    const struct apr_config *c = &b->m->config;
    size_t n = c->n_hidden, n_q = (size_t)c->n_heads * c->head_dim,
           n_kv = (size_t)c->n_heads_kv * c->head_dim;
    if (apr_bind_has(b, APR_ROLE_QKV, i)) {
        struct apr_mat qkv;
        TRY(apr_bind_matrix(b, APR_ROLE_QKV, APR_ROLE_QKV_BIAS, i, n_q + 2 * n_kv, n, &qkv, e));
        l->q = apr_mat_rows(&qkv, 0, n_q);
        l->k = apr_mat_rows(&qkv, n_q, n_kv);
        l->v = apr_mat_rows(&qkv, n_q + n_kv, n_kv);
    } else {
        TRY(apr_bind_matrix(b, APR_ROLE_Q, APR_ROLE_Q_BIAS, i, n_q, n, &l->q, e));
        TRY(apr_bind_matrix(b, APR_ROLE_K, APR_ROLE_K_BIAS, i, n_kv, n, &l->k, e));
        TRY(apr_bind_matrix(b, APR_ROLE_V, APR_ROLE_V_BIAS, i, n_kv, n, &l->v, e));
    }
    TRY(bind_scale_if(b, APR_ROLE_Q_NORM, i, c->head_dim, &l->q_norm, e));
    TRY(bind_scale_if(b, APR_ROLE_K_NORM, i, c->head_dim, &l->k_norm, e));
    return apr_bind_matrix(b, APR_ROLE_O, APR_ROLE_O_BIAS, i, n, n_q, &l->o, e);
}

/* kv_b: for each head n_nope rows that make keys, then n_value rows that make values. */
static enum apr_code split_kv_b(struct apr_bind *b, struct apr_mla_mats *a, uint32_t i, struct apr_err *e)
{
    const struct apr_config *c = &b->m->config;
    const struct apr_mla *mla = &c->mla;
    size_t n_head = (size_t)mla->n_nope + mla->n_value;
    TRY(apr_bind_matrix(b, APR_ROLE_KV_B, APR_ROLE_NONE, i, c->n_heads * n_head, mla->kv_rank, &a->kv_b, e));
    TRY(apr_arena_try(b->arena, &a->k_b, c->n_heads, sizeof *a->k_b, "heads", e));
    TRY(apr_arena_try(b->arena, &a->v_b, c->n_heads, sizeof *a->v_b, "heads", e));
    for (size_t h = 0; h < c->n_heads; h++) {
        struct apr_mat k = apr_mat_rows(&a->kv_b, h * n_head, mla->n_nope);
        TRY(apr_bind_turned(b, &k, &a->k_b[h], e));
        a->v_b[h] = apr_mat_rows(&a->kv_b, h * n_head + mla->n_nope, mla->n_value);
    }
    return APR_OK;
}

static enum apr_code bind_latent(struct apr_bind *b, struct apr_layer *l, uint32_t i, struct apr_err *e)
{
    const struct apr_config *c = &b->m->config;
    const struct apr_mla *mla = &c->mla;
    struct apr_mla_mats *a = &l->mla;
    size_t n = c->n_hidden, n_q = (size_t)c->n_heads * c->head_dim, n_heads = c->n_heads;
    if (mla->q_rank) {
        TRY(apr_bind_matrix(b, APR_ROLE_Q_A, APR_ROLE_NONE, i, mla->q_rank, n, &a->q_a, e));
        TRY(bind_scale(b, APR_ROLE_Q_A_NORM, i, mla->q_rank, &a->q_a_norm, e));
        TRY(apr_bind_matrix(b, APR_ROLE_Q_B, APR_ROLE_NONE, i, n_q, mla->q_rank, &l->q, e));
    } else {
        TRY(apr_bind_matrix(b, APR_ROLE_Q, APR_ROLE_Q_BIAS, i, n_q, n, &l->q, e));
    }
    TRY(apr_bind_matrix(b, APR_ROLE_KV_A, APR_ROLE_NONE, i, (size_t)mla->kv_rank + mla->n_rope, n, &a->kv_a,
                        e));
    TRY(bind_scale(b, APR_ROLE_KV_A_NORM, i, mla->kv_rank, &a->kv_a_norm, e));
    if (apr_bind_has(b, APR_ROLE_KV_B, i)) {
        TRY(split_kv_b(b, a, i, e));
    } else {
        TRY(apr_bind_stack(b, APR_ROLE_K_B, i, n_heads, n_heads, mla->kv_rank, mla->n_nope, &a->k_b, e));
        TRY(apr_bind_stack(b, APR_ROLE_V_B, i, n_heads, n_heads, mla->n_value, mla->kv_rank, &a->v_b, e));
    }
    return apr_bind_matrix(b, APR_ROLE_O, APR_ROLE_O_BIAS, i, n, n_heads * mla->n_value, &l->o, e);
}

static enum apr_code bind_dense(struct apr_bind *b, struct apr_ffn_mats *f, uint32_t i, struct apr_err *e)
{
    const struct apr_config *c = &b->m->config;
    size_t n = c->n_hidden, n_inter = c->n_inter;
    if (apr_bind_has(b, APR_ROLE_GATE_UP, i)) {
        struct apr_mat both;
        TRY(apr_bind_matrix(b, APR_ROLE_GATE_UP, APR_ROLE_NONE, i, 2 * n_inter, n, &both, e));
        f->gate = apr_mat_rows(&both, 0, n_inter);
        f->up = apr_mat_rows(&both, n_inter, n_inter);
    } else {
        if (c->is_gated)
            TRY(apr_bind_matrix(b, APR_ROLE_GATE, APR_ROLE_GATE_BIAS, i, n_inter, n, &f->gate, e));
        TRY(apr_bind_matrix(b, APR_ROLE_UP, APR_ROLE_UP_BIAS, i, n_inter, n, &f->up, e));
    }
    return apr_bind_matrix(b, APR_ROLE_DOWN, APR_ROLE_DOWN_BIAS, i, n, n_inter, &f->down, e);
}

static enum apr_code bind_experts(struct apr_bind *b, struct apr_moe_mats *m, uint32_t i, struct apr_err *e)
{
    const struct apr_config *c = &b->m->config;
    const struct apr_moe *moe = &c->moe;
    size_t n = c->n_hidden, n_exp = moe->n_experts, n_used = moe->n_used, n_inter = moe->n_inter;
    TRY(bind_decider(b, APR_ROLE_ROUTER, i, n_exp, &m->router, e));
    if (apr_bind_has(b, APR_ROLE_ROUTER_BIAS, i))
        TRY(apr_bind_vector(b, APR_ROLE_ROUTER_BIAS, i, n_exp, &m->router_bias, e));
    if (c->is_gated) TRY(apr_bind_stack(b, APR_ROLE_GATE_EXPS, i, n_exp, n_used, n_inter, n, &m->gate, e));
    TRY(apr_bind_stack(b, APR_ROLE_UP_EXPS, i, n_exp, n_used, n_inter, n, &m->up, e));
    TRY(apr_bind_stack(b, APR_ROLE_DOWN_EXPS, i, n_exp, n_used, n, n_inter, &m->down, e));
    size_t n_shared = moe->n_inter_shared;
    if (!n_shared) return APR_OK;
    if (c->is_gated)
        TRY(apr_bind_matrix(b, APR_ROLE_GATE_SHARED, APR_ROLE_NONE, i, n_shared, n, &m->shared.gate, e));
    TRY(apr_bind_matrix(b, APR_ROLE_UP_SHARED, APR_ROLE_NONE, i, n_shared, n, &m->shared.up, e));
    TRY(apr_bind_matrix(b, APR_ROLE_DOWN_SHARED, APR_ROLE_NONE, i, n, n_shared, &m->shared.down, e));
    return moe->shared_gate ? bind_decider(b, APR_ROLE_SHARED_GATE, i, 1, &m->shared_gate, e) : APR_OK;
}

static enum apr_code bind_layer(struct apr_bind *b, struct apr_layer *l, uint32_t i, struct apr_err *e)
{
    const struct apr_config *c = &b->m->config;
    l->is_local = c->window && apr_layer_bit(c->local, i);
    l->is_moe = c->moe.n_experts && !apr_layer_bit(c->moe.dense, i);
    TRY(bind_norm(b, APR_ROLE_ATTN_NORM, APR_ROLE_ATTN_NORM_BIAS, i, &l->attn_norm, e));
    TRY(c->mla.kv_rank ? bind_latent(b, l, i, e) : bind_attention(b, l, i, e));
    TRY(bind_scale_if(b, APR_ROLE_POST_ATTN_NORM, i, c->n_hidden, &l->post_attn_norm, e));
    if (!c->is_parallel) TRY(bind_norm(b, APR_ROLE_FFN_NORM, APR_ROLE_FFN_NORM_BIAS, i, &l->ffn_norm, e));
    TRY(l->is_moe ? bind_experts(b, &l->moe, i, e) : bind_dense(b, &l->ffn, i, e));
    return bind_scale_if(b, APR_ROLE_POST_FFN_NORM, i, c->n_hidden, &l->post_ffn_norm, e);
}

/* Divisors of the frequencies as GGUF carries them. */
static enum apr_code bind_divisors(struct apr_bind *b, enum apr_role role, const float **out,
                                   struct apr_err *e)
{
    const struct apr_config *c = &b->m->config;
    if (!apr_bind_has(b, role, 0)) return APR_OK;
    TRY(apr_bind_vector(b, role, 0, c->rope.n_dims / 2, out, e));
    for (uint32_t i = 0; i < c->rope.n_dims / 2; i++)
        if (!((*out)[i] > 0))
            return apr_fail(e, APR_ELOAD, "%s: divisor %u of the rotation is %g, expected a positive number",
                            b->m->path, i, (double)(*out)[i]);
    return APR_OK;
}

static enum apr_code bind_ends(struct apr_bind *b, struct apr_weights *w, struct apr_err *e)
{
    const struct apr_config *c = &b->m->config;
    bool is_tied = !apr_bind_has(b, APR_ROLE_LM_HEAD, 0) && c->tied;
    TRY(apr_bind_rows(b, APR_ROLE_EMBED, c->n_vocab, c->n_hidden, &w->embed, e));
    if (c->n_positions)
        TRY(apr_bind_rows(b, APR_ROLE_POSITIONS, c->n_positions, c->n_hidden, &w->positions, e));
    TRY(bind_divisors(b, APR_ROLE_ROPE_FREQS, &w->rope_freqs, e));
    TRY(bind_divisors(b, APR_ROLE_ROPE_LONG, &w->rope_long, e));
    TRY(bind_divisors(b, APR_ROLE_ROPE_SHORT, &w->rope_short, e));
    TRY(bind_norm(b, APR_ROLE_FINAL_NORM, APR_ROLE_FINAL_NORM_BIAS, 0, &w->final_norm, e));
    return apr_bind_matrix(b, is_tied ? APR_ROLE_EMBED : APR_ROLE_LM_HEAD, APR_ROLE_LM_HEAD_BIAS, 0,
                           c->n_vocab, c->n_hidden, &w->head, e);
}

/* Every divisor and every index of the forward pass follows from these. */
static enum apr_code check_config(const struct apr_model *m, struct apr_err *e)
{
    const struct apr_config *c = &m->config;
    const struct apr_moe *moe = &c->moe;
    const struct apr_mla *mla = &c->mla;
    if (!c->n_layers || !c->n_heads || !c->n_heads_kv || c->n_heads % c->n_heads_kv || !c->head_dim)
        return apr_fail(e, APR_ELOAD, "%s: %u layers, %u heads, %u KV heads of %u cannot be computed",
                        m->path, c->n_layers, c->n_heads, c->n_heads_kv, c->head_dim);
    const struct apr_rope *ropes[] = {&c->rope, &c->rope_local};
    uint32_t n_turn = mla->kv_rank ? mla->n_rope : c->head_dim;
    for (size_t i = 0; i < 2; i++)
        if (ropes[i]->theta > 0 && (!ropes[i]->n_dims || ropes[i]->n_dims % 2 || ropes[i]->n_dims > n_turn))
            return apr_fail(e, APR_ELOAD, "%s: rotation of %u values of a head of %u cannot be computed",
                            m->path, ropes[i]->n_dims, n_turn);
    if (mla->kv_rank && (mla->n_nope + mla->n_rope != c->head_dim || !mla->n_nope || !mla->n_value))
        return apr_fail(e, APR_ELOAD, "%s: heads of %u + %u are not of %u", m->path, mla->n_nope, mla->n_rope,
                        c->head_dim);
    if (moe->n_experts && (!moe->n_used || moe->n_used > moe->n_experts || !moe->n_inter))
        return apr_fail(e, APR_ELOAD, "%s: %u of %u experts of %u cannot be computed", m->path, moe->n_used,
                        moe->n_experts, moe->n_inter);
    if (moe->n_groups > 1 &&
        (moe->n_experts % moe->n_groups || !moe->n_groups_used || moe->n_groups_used > moe->n_groups ||
         moe->n_experts / moe->n_groups * moe->n_groups_used < moe->n_used))
        return apr_fail(e, APR_ELOAD, "%s: %u of %u groups of %u experts cannot be computed", m->path,
                        moe->n_groups_used, moe->n_groups, moe->n_experts);
    return APR_OK;
}

enum apr_code apr_weights_bind(struct apr_weights *w, const struct apr_checked_model *m,
                               const struct apr_kern *kern, struct apr_arena *arena, struct apr_err *e)
{
    struct apr_bind b = {.m = m->model, .kern = kern, .arena = arena};
    const struct apr_config *c = &m->model->config;
    *w = (struct apr_weights){.cfg = c};
    if (!m->model->family)
        return apr_fail(e, APR_ELOAD, "%s: architecture \"%s\" is not supported", m->model->path,
                        m->model->arch ? m->model->arch : "?");
    TRY(check_config(m->model, e));
    TRY(bind_ends(&b, w, e));
    TRY(apr_arena_try(arena, &w->layers, c->n_layers, sizeof *w->layers, "layers", e));
    for (uint32_t i = 0; i < c->n_layers; i++) TRY(bind_layer(&b, &w->layers[i], i, e));
    w->n_bytes = b.n_bytes;
    return APR_OK;
}

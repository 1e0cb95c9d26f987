/* From bound weights to the plugin's description. See describe.h. */
#include "describe.h"

#include <math.h>

static struct apr_gpu_mat mat_of(const struct apr_mat *m)
{
    return (struct apr_gpu_mat){.data = m->data,
                                .row_bytes = m->row_bytes,
                                .type = (uint32_t)m->type,
                                .n_rows = (uint32_t)m->n_rows,
                                .n_cols = (uint32_t)m->n_cols,
                                .bias = m->bias};
}

static struct apr_gpu_norm norm_of(const struct apr_lnorm *n)
{
    return (struct apr_gpu_norm){.w = n->w, .b = n->b};
}

/* A table of rows; its type is the tensor's. */
static struct apr_gpu_mat rows_of(const struct apr_rows *r, const struct apr_model *m, enum apr_role role)
{
    if (!r->data) return (struct apr_gpu_mat){0};
    return (struct apr_gpu_mat){.data = r->data,
                                .row_bytes = r->row_bytes,
                                .type = (uint32_t)apr_model_role(m, role, 0)->type,
                                .n_rows = (uint32_t)r->n_rows,
                                .n_cols = (uint32_t)r->n_cols};
}

static enum apr_code mats_of(const struct apr_mat *from, uint32_t n, struct apr_arena *a,
                             const struct apr_gpu_mat **to, struct apr_err *e)
{
    struct apr_gpu_mat *mats;
    *to = NULL;
    if (!from) return APR_OK;
    TRY(apr_arena_try(a, &mats, n, sizeof *mats, "matrices", e));
    for (uint32_t i = 0; i < n; i++) mats[i] = mat_of(&from[i]);
    *to = mats;
    return APR_OK;
}

static enum apr_code latent_of(const struct apr_mla_mats *from, uint32_t n_heads, struct apr_arena *a,
                               struct apr_gpu_latent *to, struct apr_err *e)
{
    to->q_a = mat_of(&from->q_a);
    to->kv_a = mat_of(&from->kv_a);
    to->q_a_norm = from->q_a_norm;
    to->kv_a_norm = from->kv_a_norm;
    TRY(mats_of(from->k_b, n_heads, a, &to->k_b, e));
    return mats_of(from->v_b, n_heads, a, &to->v_b, e);
}

static enum apr_code experts_of(const struct apr_moe_mats *from, uint32_t n_experts, struct apr_arena *a,
                                struct apr_gpu_experts *to, struct apr_err *e)
{
    to->router = mat_of(&from->router);
    to->router_bias = from->router_bias;
    to->shared_up = mat_of(&from->shared.up);
    to->shared_gate = mat_of(&from->shared.gate);
    to->shared_down = mat_of(&from->shared.down);
    to->shared_weight = mat_of(&from->shared_gate);
    TRY(mats_of(from->gate, n_experts, a, &to->gate, e));
    TRY(mats_of(from->up, n_experts, a, &to->up, e));
    return mats_of(from->down, n_experts, a, &to->down, e);
}

static enum apr_code layer_of(const struct apr_forward *f, uint32_t i, struct apr_arena *a,
                              struct apr_gpu_layer *to, struct apr_err *e)
{
    const struct apr_config *c = f->w.cfg;
    const struct apr_layer *l = &f->w.layers[i];
    *to = (struct apr_gpu_layer){.q = mat_of(&l->q),
                                 .k = mat_of(&l->k),
                                 .v = mat_of(&l->v),
                                 .o = mat_of(&l->o),
                                 .gate = mat_of(&l->ffn.gate),
                                 .up = mat_of(&l->ffn.up),
                                 .down = mat_of(&l->ffn.down),
                                 .attn_norm = norm_of(&l->attn_norm),
                                 .ffn_norm = norm_of(&l->ffn_norm),
                                 .post_attn_norm = l->post_attn_norm,
                                 .post_ffn_norm = l->post_ffn_norm,
                                 .q_norm = l->q_norm,
                                 .k_norm = l->k_norm,
                                 .window = l->is_local ? c->window : 0,
                                 .i_rope = l->is_local && f->rope_local.n_half};
    TRY(latent_of(&l->mla, c->n_heads, a, &to->latent, e));
    return experts_of(&l->moe, c->moe.n_experts, a, &to->experts, e);
}

static struct apr_gpu_rope rope_of(const struct apr_rope_table *r)
{
    return (struct apr_gpu_rope){.inv_freq = r->inv_freq,
                                 .long_inv_freq = r->long_inv_freq,
                                 .n_half = (uint32_t)r->n_half,
                                 .scale = (float)r->scale};
}

static float or_one(double scale)
{
    return scale > 0 ? (float)scale : 1.0f;
}

static void describe_experts(const struct apr_moe *moe, struct apr_gpu_desc *d)
{
    d->n_experts = moe->n_experts;
    d->n_used = moe->n_used;
    d->n_inter_expert = moe->n_inter;
    d->n_inter_shared = moe->n_inter_shared;
    d->n_groups = moe->n_groups;
    d->n_groups_used = moe->n_groups_used;
    d->router_sigmoid = moe->sigmoid;
    d->norm_topk = moe->norm_topk;
    d->expert_scale = or_one(moe->scale);
}

static void describe_numbers(const struct apr_forward *f, const struct apr_model *m, struct apr_gpu_desc *d)
{
    const struct apr_config *c = f->w.cfg;
    const struct apr_attn_shape *s = &f->shape;
    *d = (struct apr_gpu_desc){.struct_bytes = sizeof *d,
                               .n_layers = c->n_layers,
                               .n_hidden = c->n_hidden,
                               .n_heads = c->n_heads,
                               .n_heads_kv = s->n_heads_kv,
                               .head_dim = c->head_dim,
                               .n_inter = c->n_inter,
                               .n_vocab = c->n_vocab,
                               .norm_eps = c->norm_eps,
                               .activation = (uint32_t)c->activation,
                               .is_parallel = c->is_parallel,
                               .embed_scale = or_one(c->embed_scale),
                               .residual_scale = or_one(c->residual_scale),
                               .attn_scale = s->scale,
                               .attn_softcap = s->softcap,
                               .logit_softcap = (float)c->logit_softcap,
                               .logit_scale = or_one(c->logit_scale),
                               .rope_pairs = c->rope_pairs,
                               .ropes = {rope_of(&f->rope), rope_of(&f->rope_local)},
                               .embed = rows_of(&f->w.embed, m, APR_ROLE_EMBED),
                               .head = mat_of(&f->w.head),
                               .positions = rows_of(&f->w.positions, m, APR_ROLE_POSITIONS),
                               .final_norm = norm_of(&f->w.final_norm),
                               .kv_rank = c->mla.kv_rank,
                               .n_nope = c->mla.n_nope,
                               .n_rope = c->mla.n_rope,
                               .n_value = c->mla.n_value};
    describe_experts(&c->moe, d);
}

enum apr_code apr_describe(const struct apr_forward *f, const struct apr_model *m, struct apr_arena *a,
                           struct apr_gpu_desc *d, struct apr_err *e)
{
    struct apr_gpu_layer *layers;
    describe_numbers(f, m, d);
    TRY(apr_arena_try(a, &layers, d->n_layers, sizeof *layers, "layers", e));
    for (uint32_t i = 0; i < d->n_layers; i++) TRY(layer_of(f, i, a, &layers[i], e));
    d->layers = layers;
    return APR_OK;
}

bool apr_describe_fits(const struct apr_forward *f, size_t n_seq)
{
    return apr_rope_is_stable(&f->rope, n_seq) && apr_rope_is_stable(&f->rope_local, n_seq);
}

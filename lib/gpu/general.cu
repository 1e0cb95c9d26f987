/* The general forward pass. See general.cuh. */
#include "general.cuh"
#include "model.cuh"

static struct any_heads heads_of(const struct apr_gpu_model *m, const struct layer *l)
{
    const struct heads *h = &m->heads;
    const struct general *g = &m->gen;
    return {h->n_heads,      h->n_heads_kv, g->k_dim,        g->v_dim,  h->dim_pad,      h->scale,
            g->attn_softcap, h->eps,        h->pairs,        h->f32,    g->kv_rank != 0, l->window,
            l->rope.n_half,  l->rope.at,    l->rope.at_long, l->q_norm, l->k_norm};
}

/* att = attention over the cache of q, k and v; layers that do nothing unusual take the fused kernels. */
static enum apr_gpu_status ordinary_attention(struct apr_gpu_model *m, const struct batch *b, uint32_t i,
                                              struct apr_gpu_err *e)
{
    const struct layer *l = &m->layers[i];
    const struct heads *h = &m->heads;
    const struct kv kv = model_kv(m, i);
    cudaStream_t q = m->dev->stream;
    const uint32_t n = b->n_rows, n_q = h->n_heads * h->dim, n_kv = h->n_heads_kv * h->dim,
                   n_all = n_q + 2 * n_kv;
    const struct mat *const all[] = {&l->q, &l->k, &l->v};
    if (product_fuses(m, all, 3, n)) {
        GPU_TRY(product_fused(m, all, 3, m->gen.h, m->qkvs, "qkv", e));
    } else {
        GPU_TRY(product(m, &l->q, m->gen.h, n, m->qkvs, n_all, "q", e));
        GPU_TRY(product(m, &l->k, m->gen.h, n, m->qkvs + n_q, n_all, "k", e));
        GPU_TRY(product(m, &l->v, m->gen.h, n, m->qkvs + n_q + n_kv, n_all, "v", e));
    }
    if (l->is_plain && !m->opts.exact) {
        const struct act out = {NULL, n == 1 ? m->gen.att : NULL, n == 1 ? NULL : m->gen.x16, 0, n_q};
        GPU_TRY(attend(m, b, i, &out, e));
        if (n > 1) widen_rows(m->gen.x16, (uint64_t)n * n_q, m->gen.att, q);
        return gpu_cuda(cudaGetLastError(), "attention", e);
    }
    const struct any_heads any = heads_of(m, l);
    any_store(&any, &kv, b->rows, n, m->qkvs, q);
    GPU_TRY(any_attend(&any, &kv, b->rows, n, m->qkvs, n_all, m->gen.att, q, e));
    gpu_mark(m->dev, "attention", q);
    return APR_GPU_OK;
}

/* Keys and values absorbed into the query and the output: score = (Wk^T q) . c + q' . k', out = Wv sum p c.
 */
static enum apr_gpu_status latent_attention(struct apr_gpu_model *m, const struct batch *b, uint32_t i,
                                            struct apr_gpu_err *e)
{
    const struct layer *l = &m->layers[i];
    const struct latent *a = &l->latent;
    const struct general *g = &m->gen;
    const struct kv kv = model_kv(m, i);
    const struct any_heads any = heads_of(m, l);
    cudaStream_t q = m->dev->stream;
    const uint32_t n = b->n_rows, n_heads = m->heads.n_heads, n_q = n_heads * m->heads.dim;
    const float *x = g->h;
    if (a->q_a.tiles) {
        GPU_TRY(product(m, &a->q_a, g->h, n, g->q_a, a->q_a.n_rows, "q", e));
        GPU_TRY(norm_rows(m->dev, g->q_a, a->q_a_norm, NULL, m->eps, n, a->q_a.n_rows, g->q_a, q, e));
        x = g->q_a;
    }
    GPU_TRY(product(m, &l->q, x, n, m->qkvs, n_q, "q", e));
    GPU_TRY(product(m, &a->kv_a, g->h, n, g->kv_a, g->k_dim, "k and v", e));
    const struct latent_store store = {a->kv_a_norm, m->qkvs,   g->kv_a,  g->q_cache,
                                       g->kv_rank,   g->n_nope, g->n_rope};
    latent_store_rows(&any, &kv, b->rows, n, &store, q);
    const struct items keys = {NULL, NULL, 0, n * n_heads, 1, m->qkvs, m->heads.dim, g->q_cache, g->k_dim},
                       values = {NULL, NULL, 0, n * n_heads, 1, g->latent, g->kv_rank, g->att, g->n_value};
    GPU_TRY(stack_product(m, &a->k_b, &keys, "absorbed keys", e));
    GPU_TRY(any_attend(&any, &kv, b->rows, n, g->q_cache, n_heads * g->k_dim, g->latent, q, e));
    gpu_mark(m->dev, "attention", q);
    return stack_product(m, &a->v_b, &values, "absorbed values", e);
}

/* y = down(act(gate x) * up x), or down(act(up x)) */
static enum apr_gpu_status dense(struct apr_gpu_model *m, const struct mat *gate, const struct mat *up,
                                 const struct mat *down, uint32_t n, float *y, struct apr_gpu_err *e)
{
    const struct general *g = &m->gen;
    const struct mat *const both[] = {up, gate};
    float *gated = gate->tiles ? g->gate : NULL;
    if (gated && product_fuses(m, both, 2, n)) { /* one row: the room of others is free */
        GPU_TRY(product_fused(m, both, 2, g->h, g->mid, "up and gate", e));
        gated = g->mid + up->n_rows;
    } else {
        GPU_TRY(product(m, up, g->h, n, g->mid, up->n_rows, "up", e));
        if (gated) GPU_TRY(product(m, gate, g->h, n, gated, gate->n_rows, "gate", e));
    }
    GPU_TRY(activate(m->dev, g->activation, g->mid, gated, (uint64_t)n * up->n_rows, m->dev->stream, e));
    return product(m, down, g->mid, n, y, down->n_rows, "down", e);
}

static enum apr_gpu_status expert_mix(struct apr_gpu_model *m, const struct experts *x, uint32_t n,
                                      struct apr_gpu_err *e)
{
    const struct general *g = &m->gen;
    cudaStream_t q = m->dev->stream;
    const uint32_t n_items = n * g->n_used, n_inter = g->n_inter_expert, n_hidden = m->n_hidden;
    gemm_exact(&x->router, g->h, n, g->scores, g->n_experts, false, q);
    choose_experts(g, x->router_bias, n, q);
    struct items up = {g->expert, NULL, 0, n_items, g->n_used, g->h, n_hidden, g->e_up, n_inter};
    if (n_items >= GROUP_FROM) {
        group_experts(g, n_items, q);
        up.order = g->order, up.n_slots = group_slots(g, n_items);
    }
    gpu_mark(m->dev, "router", q);
    struct items gate = up, down = up;
    down.n_each = 1, down.x = g->e_up, down.x_stride = n_inter, down.y = g->e_out, down.y_stride = n_hidden;
    gate.y = g->e_gate;
    GPU_TRY(stack_product(m, &x->up, &up, "experts up", e));
    if (x->gate.m.tiles) GPU_TRY(stack_product(m, &x->gate, &gate, "experts gate", e));
    GPU_TRY(activate(m->dev, g->activation, g->e_up, x->gate.m.tiles ? g->e_gate : NULL,
                     (uint64_t)n_items * n_inter, q, e));
    GPU_TRY(stack_product(m, &x->down, &down, "experts down", e));
    combine_experts(g, n, n_hidden, g->y, q);
    if (!x->shared_up.tiles) return gpu_cuda(cudaGetLastError(), "experts", e);
    if (x->shared_weight.tiles) gemm_exact(&x->shared_weight, g->h, n, g->shared_w, 1, false, q);
    GPU_TRY(dense(m, &x->shared_gate, &x->shared_up, &x->shared_down, n, g->e_out, e));
    add_shared(g->y, g->e_out, x->shared_weight.tiles ? g->shared_w : NULL, n, n_hidden, q);
    return gpu_cuda(cudaGetLastError(), "experts", e);
}

/* h is the layer's normed input already, and afterwards the next one's. */
static enum apr_gpu_status layer(struct apr_gpu_model *m, const struct batch *b, uint32_t i,
                                 struct apr_gpu_err *e)
{
    const struct layer *l = &m->layers[i], *next = i + 1 < m->n_layers ? l + 1 : NULL;
    const struct general *g = &m->gen;
    cudaStream_t q = m->dev->stream;
    const uint32_t n = b->n_rows;
    struct residual r = {m->xs,  g->y,        l->post_attn_norm, g->residual_scale,
                         m->eps, l->ffn_norm, l->ffn_norm_b,     g->h};
    GPU_TRY(g->kv_rank ? latent_attention(m, b, i, e) : ordinary_attention(m, b, i, e));
    GPU_TRY(product(m, &l->o, g->att, n, g->y, m->n_hidden, "o", e));
    GPU_TRY(comm_sum(m->dev, g->y, (uint64_t)n * m->n_hidden, e));
    if (g->is_parallel) r.w = NULL;
    GPU_TRY(residual_rows(m->dev, &r, n, m->n_hidden, q, e));
    GPU_TRY(l->experts.router.tiles ? expert_mix(m, &l->experts, n, e)
                                    : dense(m, &l->gate, &l->up, &l->down, n, g->y, e));
    GPU_TRY(comm_sum(m->dev, g->y, (uint64_t)n * m->n_hidden, e));
    r.post = l->post_ffn_norm;
    r.w = next ? next->attn_norm : NULL, r.b = next ? next->attn_norm_b : NULL;
    return residual_rows(m->dev, &r, n, m->n_hidden, q, e);
}

enum apr_gpu_status general_step(struct apr_gpu_model *m, const struct batch *b, struct apr_gpu_err *e)
{
    embed_rows(&m->embed, b->rows, b->n_rows, m->embed_scale, m->xs, m->dev->stream);
    if (m->positions.tiles) add_positions(&m->positions, b->rows, b->n_rows, m->xs, m->dev->stream);
    gpu_mark(m->dev, "embedding", m->dev->stream);
    GPU_TRY(model_tap(m, 0, m->xs, b->n_rows, e));
    GPU_TRY(norm_rows(m->dev, m->xs, m->layers[0].attn_norm, m->layers[0].attn_norm_b, m->eps, b->n_rows,
                      m->n_hidden, m->gen.h, m->dev->stream, e));
    for (uint32_t i = 0; i < m->n_layers; i++) {
        gpu_mark_layer(m->dev, (int32_t)i);
        GPU_TRY(layer(m, b, i, e));
        GPU_TRY(model_tap(m, i + 1, m->xs, b->n_rows, e));
    }
    gpu_mark_layer(m->dev, -1);
    return gpu_cuda(cudaGetLastError(), "a step", e);
}

enum apr_gpu_status general_head(struct apr_gpu_model *m, const float *x, uint32_t n, float *logits,
                                 struct apr_gpu_err *e)
{
    const struct general *g = &m->gen;
    GPU_TRY(norm_rows(m->dev, x, m->final_norm, m->final_norm_b, m->eps, n, m->n_hidden, g->h, m->dev->stream,
                      e));
    GPU_TRY(product(m, &m->head, g->h, n, head_part(m, logits), m->head.n_rows, "head", e));
    GPU_TRY(head_whole(m, n, logits, e));
    finish_logits(logits, (uint64_t)n * m->n_vocab, g->logit_scale, g->logit_softcap, m->dev->stream);
    return gpu_cuda(cudaGetLastError(), "the head", e);
}

/* What a model computes with, hashed. */
#include "model_id.h"

#include <string.h>

#include "version.h"

#define SAMPLE_BYTES 4096u

static void add_rope(struct apr_xxh3 *h, const struct apr_rope *r)
{
    const double reals[] = {r->theta,     r->factor, r->low_freq_factor, r->high_freq_factor, r->beta_fast,
                            r->beta_slow, r->mscale, r->mscale_all_dim,  r->attn_factor};
    const uint32_t counts[] = {r->n_dims, (uint32_t)r->scaling, r->truncate, r->n_ctx_orig, r->n_factors};
    apr_xxh3_add(h, reals, sizeof reals);
    apr_xxh3_add(h, counts, sizeof counts);
    apr_xxh3_add(h, r->short_factor, sizeof r->short_factor);
    apr_xxh3_add(h, r->long_factor, sizeof r->long_factor);
}

static void add_moe(struct apr_xxh3 *h, const struct apr_moe *m)
{
    const uint32_t counts[] = {m->n_experts,   m->n_used,    m->n_inter, m->n_inter_shared, m->n_groups,
                               m->shared_gate, m->norm_topk, m->sigmoid, m->n_groups_used};
    apr_xxh3_add(h, counts, sizeof counts);
    apr_xxh3_add(h, &m->scale, sizeof m->scale);
    apr_xxh3_add(h, m->dense, sizeof m->dense);
}

static void add_config(struct apr_xxh3 *h, const struct apr_config *c)
{
    const uint32_t counts[] = {
        c->n_layers,   c->n_hidden,      c->n_heads,     c->n_heads_kv,   c->head_dim,   c->n_inter,
        c->n_vocab,    c->n_ctx_train,   c->tied,        c->qkv_bias,     c->o_bias,     c->mlp_bias,
        c->head_bias,  c->norm,          c->activation,  c->form,         c->rope_pairs, c->is_parallel,
        c->is_gated,   c->norm_plus_one, c->n_positions, c->window,       c->mla.q_rank, c->mla.kv_rank,
        c->mla.n_nope, c->mla.n_rope,    c->mla.n_value, c->mla.is_split,
    };
    const double reals[] = {c->norm_eps,    c->embed_scale,  c->residual_scale, c->attn_scale,
                            c->logit_scale, c->attn_softcap, c->logit_softcap};
    apr_xxh3_add(h, counts, sizeof counts);
    apr_xxh3_add(h, reals, sizeof reals);
    apr_xxh3_add(h, c->local, sizeof c->local);
    add_rope(h, &c->rope);
    add_rope(h, &c->rope_local);
    add_moe(h, &c->moe);
}

static void add_samples(struct apr_xxh3 *h, const uint8_t *p, uint64_t n_bytes)
{
    if (n_bytes <= 4 * SAMPLE_BYTES) {
        apr_xxh3_add(h, p, (size_t)n_bytes);
        return;
    }
    apr_xxh3_add(h, p, SAMPLE_BYTES);
    apr_xxh3_add(h, p + n_bytes / 2, SAMPLE_BYTES);
    apr_xxh3_add(h, p + n_bytes - SAMPLE_BYTES, SAMPLE_BYTES);
}

/* A tensor whose bytes are made from another's has none of its own to sample. */
static void add_tensor(struct apr_xxh3 *h, const struct apr_tensor *t)
{
    const uint64_t about[] = {(uint64_t)t->type, (uint64_t)t->packing, t->n_dims, t->n_bytes};
    apr_xxh3_add(h, t->name, strlen(t->name) + 1);
    apr_xxh3_add(h, about, sizeof about);
    apr_xxh3_add(h, t->dims, sizeof t->dims);
    if (t->parts && t->dims[0]) {
        uint64_t n_part_bytes = t->n_bytes / t->dims[0];
        for (uint64_t i = 0; i < t->dims[0]; i++)
            if (t->parts[i].data) add_samples(h, t->parts[i].data, n_part_bytes);
    } else if (t->data) {
        add_samples(h, t->data, t->n_bytes);
    }
}

uint64_t apr_model_id(const struct apr_model *m)
{
    struct apr_xxh3 *h = apr_xxh3_begin();
    apr_xxh3_add(h, APR_VERSION, sizeof APR_VERSION);
    apr_xxh3_add(h, m->family ? m->family->name : "-", m->family ? strlen(m->family->name) : 1);
    add_config(h, &m->config);
    for (uint64_t i = 0; i < m->n_tensors; i++) add_tensor(h, &m->tensors[i]);
    return apr_xxh3_end(h);
}

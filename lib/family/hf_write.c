/* Writer of config.json. See hf_write.h. */
#include "hf_write.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moe.h"

/* The decimal that was meant: 15 digits are more than any of these values was told with. */
static double rounded(double v)
{
    char text[32];
    (void)snprintf(text, sizeof text, "%.12g", v);
    return strtod(text, NULL);
}

void apr_hf_put_uint(json_t *config, const char *key, uint64_t v)
{
    json_object_set_new(config, key, json_integer((json_int_t)v));
}

void apr_hf_put_real(json_t *config, const char *key, double v)
{
    json_object_set_new(config, key, json_real(rounded(v)));
}

void apr_hf_put_real_or_null(json_t *config, const char *key, double v)
{
    json_object_set_new(config, key, v > 0 ? json_real(rounded(v)) : json_null());
}

static void put_bool(json_t *config, const char *key, bool v)
{
    if (key) json_object_set_new(config, key, json_boolean(v));
}

/* gelu's tanh form has several names; the one that the family's own checkpoints use comes first. */
static const char *activation_name(const struct apr_decoder *d, const struct apr_config *c)
{
    static const char *const names[] = {
        [APR_SILU] = "silu", [APR_GELU] = "gelu", [APR_GELU_TANH] = "gelu_pytorch_tanh", [APR_RELU] = "relu"};
    if (c->activation == APR_GELU_TANH && strcmp(d->act_default, "gelu_new") == 0) return d->act_default;
    return names[c->activation];
}

static void put_dims(const struct apr_decoder *d, const struct apr_config *c, json_t *config)
{
    const bool old = d->old_names;
    apr_hf_put_uint(config, old ? "n_embd" : "hidden_size", c->n_hidden);
    apr_hf_put_uint(config, old ? "n_inner" : "intermediate_size", c->n_inter);
    apr_hf_put_uint(config, old ? "n_positions" : "max_position_embeddings", c->n_ctx_train);
    if (old) apr_hf_put_uint(config, "n_ctx", c->n_ctx_train);
    apr_hf_put_uint(config, old ? "n_head" : "num_attention_heads", c->n_heads);
    apr_hf_put_uint(config, old ? "n_layer" : "num_hidden_layers", c->n_layers);
    if (!old) apr_hf_put_uint(config, "num_key_value_heads", c->n_heads_kv);
    if (!c->mla.kv_rank && !old && ((uint64_t)c->head_dim * c->n_heads != c->n_hidden || d->head_dim))
        apr_hf_put_uint(config, "head_dim", c->head_dim);
    apr_hf_put_uint(config, "vocab_size", c->n_vocab);
}

/* ---- rotary positions --------------------------------------------------------------------------------- */

static void put_yarn(const struct apr_rope *r, json_t *scaling)
{
    apr_hf_put_real(scaling, "beta_fast", r->beta_fast);
    apr_hf_put_real(scaling, "beta_slow", r->beta_slow);
    if (r->mscale > 0) apr_hf_put_real(scaling, "mscale", r->mscale);
    if (r->mscale_all_dim > 0) apr_hf_put_real(scaling, "mscale_all_dim", r->mscale_all_dim);
    if (!r->truncate) put_bool(scaling, "truncate", false);
}

static void put_factors(const struct apr_rope *r, json_t *scaling)
{
    json_t *longer = json_array(), *shorter = json_array();
    for (uint32_t i = 0; i < r->n_factors; i++) {
        json_array_append_new(longer, json_real((double)r->long_factor[i]));
        json_array_append_new(shorter, json_real((double)r->short_factor[i]));
    }
    json_object_set_new(scaling, "long_factor", longer);
    json_object_set_new(scaling, "short_factor", shorter);
}

static json_t *scaling_of(const struct apr_rope *r)
{
    static const char *const names[] = {
        [APR_ROPE_PLAIN] = NULL,  [APR_ROPE_LINEAR] = "linear", [APR_ROPE_DYNAMIC] = "dynamic",
        [APR_ROPE_YARN] = "yarn", [APR_ROPE_LLAMA3] = "llama3", [APR_ROPE_LONG] = "longrope"};
    json_t *scaling;
    if (!names[r->scaling]) return json_null();
    scaling = json_object();
    json_object_set_new(scaling, "rope_type", json_string(names[r->scaling]));
    json_object_set_new(scaling, "type", json_string(names[r->scaling]));
    apr_hf_put_real(scaling, "factor", r->factor);
    if (r->n_ctx_orig) apr_hf_put_uint(scaling, "original_max_position_embeddings", r->n_ctx_orig);
    if (r->attn_factor > 0) apr_hf_put_real(scaling, "attention_factor", r->attn_factor);
    if (r->scaling == APR_ROPE_YARN) put_yarn(r, scaling);
    if (r->scaling == APR_ROPE_LONG) put_factors(r, scaling);
    if (r->scaling == APR_ROPE_LLAMA3) {
        apr_hf_put_real(scaling, "low_freq_factor", r->low_freq_factor);
        apr_hf_put_real(scaling, "high_freq_factor", r->high_freq_factor);
    }
    return scaling;
}

static void put_rope(const struct apr_decoder *d, const struct apr_config *c, json_t *config)
{
    if (!(c->rope.theta > 0)) return;
    apr_hf_put_real(config, "rope_theta", c->rope.theta);
    json_object_set_new(config, "rope_scaling", scaling_of(&c->rope));
    if (!c->mla.kv_rank && (d->rope_partial > 0 || c->rope.n_dims != c->head_dim))
        apr_hf_put_real(config, "partial_rotary_factor", (double)c->rope.n_dims / c->head_dim);
    if (c->rope_local.theta > 0) apr_hf_put_real(config, "rope_local_base_freq", c->rope_local.theta);
}

/* ---- windows and experts ------------------------------------------------------------------------------ */

static void put_window(const struct apr_config *c, json_t *config)
{
    json_t *types = json_array();
    for (uint32_t i = 0; i < c->n_layers; i++)
        json_array_append_new(types, json_string(c->window && apr_layer_bit(c->local, i) ? "sliding_attention"
                                                                                         : "full_attention"));
    json_object_set_new(config, "sliding_window", c->window ? json_integer(c->window) : json_null());
    put_bool(config, "use_sliding_window", c->window != 0);
    if (c->window)
        json_object_set_new(config, "layer_types", types);
    else
        json_decref(types);
}

static void put_dense(const struct apr_moe_keys *k, const struct apr_config *c, json_t *config)
{
    uint32_t n_first = 0;
    json_t *list = json_array();
    while (n_first < c->n_layers && apr_layer_bit(c->moe.dense, n_first)) n_first++;
    for (uint32_t i = k->first_dense ? n_first : 0; i < c->n_layers; i++)
        if (apr_layer_bit(c->moe.dense, i)) json_array_append_new(list, json_integer(i));
    if (k->first_dense) apr_hf_put_uint(config, k->first_dense, n_first);
    if (k->step) apr_hf_put_uint(config, k->step, 1);
    if (k->dense_list)
        json_object_set_new(config, k->dense_list, list);
    else
        json_decref(list);
}

static void put_experts(const struct apr_moe_keys *k, const struct apr_config *c, json_t *config)
{
    const struct apr_moe *m = &c->moe;
    if (!k || !m->n_experts) return;
    apr_hf_put_uint(config, k->n_experts, m->n_experts);
    apr_hf_put_uint(config, "num_experts_per_tok", m->n_used);
    apr_hf_put_uint(config, k->n_inter, m->n_inter);
    if (k->n_inter_shared) apr_hf_put_uint(config, k->n_inter_shared, m->n_inter_shared);
    if (k->n_shared) apr_hf_put_uint(config, k->n_shared, m->n_inter_shared / m->n_inter);
    put_bool(config, k->norm_topk, m->norm_topk);
    if (m->scale > 1 || m->scale < 1) apr_hf_put_real(config, "routed_scaling_factor", m->scale);
    if (m->n_groups > 1) apr_hf_put_uint(config, "n_group", m->n_groups);
    if (m->n_groups > 1) apr_hf_put_uint(config, "topk_group", m->n_groups_used);
    put_dense(k, c, config);
}

void apr_decoder_to_hf(const struct apr_decoder *d, const struct apr_config *c, json_t *config)
{
    put_dims(d, c, config);
    json_object_set_new(config, d->act_key ? d->act_key : "hidden_act", json_string(activation_name(d, c)));
    apr_hf_put_real(config, d->eps_key ? d->eps_key : "rms_norm_eps", c->norm_eps);
    put_bool(config, "tie_word_embeddings", c->tied);
    put_bool(config, d->qkv_bias_key, c->qkv_bias);
    put_bool(config, d->o_bias_key, c->o_bias);
    put_bool(config, d->mlp_bias_key, c->mlp_bias);
    put_rope(d, c, config);
    put_window(c, config);
    put_experts(d->moe, c, config);
}

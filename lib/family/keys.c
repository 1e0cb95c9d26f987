/* Writers of GGUF keys. See keys.h. */
#include "keys.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const char *apr_key_name(const char *arch, const char *key, char *out, size_t n_out)
{
    snprintf(out, n_out, "%s.%s", arch, key);
    return out;
}

void apr_keys_u32(const struct apr_keys *k, const char *key, uint64_t v)
{
    char name[128];
    apr_kvs_u32(k->kvs, apr_key_name(k->arch, key, name, sizeof name), (uint32_t)v);
}

void apr_keys_f32(const struct apr_keys *k, const char *key, double v)
{
    char name[128];
    apr_kvs_f32(k->kvs, apr_key_name(k->arch, key, name, sizeof name), (float)v);
}

static void put_str(const struct apr_keys *k, const char *key, const char *v)
{
    char name[128];
    apr_kvs_str(k->kvs, apr_key_name(k->arch, key, name, sizeof name), v);
}

/* Is the key in config.json, with a value? */
static bool is_given(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);
    return v && !json_is_null(v);
}

void apr_keys_write(apr_key_fn *const *keys, const struct apr_keys *k)
{
    for (size_t i = 0; keys[i]; i++) keys[i](k);
}

/* ---- dimensions --------------------------------------------------------------------------------------- */

void apr_key_blocks(const struct apr_keys *k)
{
    apr_keys_u32(k, "block_count", k->c->n_layers);
}

void apr_key_context(const struct apr_keys *k)
{
    apr_keys_u32(k, "context_length", k->c->n_ctx_train);
}

void apr_key_hidden(const struct apr_keys *k)
{
    apr_keys_u32(k, "embedding_length", k->c->n_hidden);
}

void apr_key_inter(const struct apr_keys *k)
{
    apr_keys_u32(k, "feed_forward_length", k->c->n_inter);
}

void apr_key_heads(const struct apr_keys *k)
{
    apr_keys_u32(k, "attention.head_count", k->c->n_heads);
}

void apr_key_heads_kv(const struct apr_keys *k)
{
    apr_keys_u32(k, "attention.head_count_kv", k->c->n_heads_kv);
}

void apr_key_heads_kv_one(const struct apr_keys *k)
{
    apr_keys_u32(k, "attention.head_count_kv", 1);
}

void apr_key_head_dim(const struct apr_keys *k)
{
    if (!k->c->head_dim_given) return;
    apr_keys_u32(k, "attention.key_length", k->c->head_dim);
    apr_keys_u32(k, "attention.value_length", k->c->head_dim);
}

void apr_key_vocab(const struct apr_keys *k)
{
    apr_keys_u32(k, "vocab_size", k->c->n_vocab);
}

void apr_key_file_type(const struct apr_keys *k)
{
    apr_kvs_u32(k->kvs, "general.file_type", k->file_type);
}

void apr_key_eps(const struct apr_keys *k)
{
    apr_keys_f32(
        k, k->c->norm == APR_NORM_LAYER ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon",
        k->c->norm_eps);
}

/* ---- rotary positions --------------------------------------------------------------------------------- */

static void yarn_keys(const struct apr_keys *k)
{
    const struct apr_rope *r = &k->c->rope;
    const json_t *hf = json_object_get(k->hf, "rope_parameters");
    if (!json_is_object(hf)) hf = json_object_get(k->hf, "rope_scaling");
    put_str(k, "rope.scaling.type", "yarn");
    apr_keys_f32(k, "rope.scaling.factor", r->factor);
    apr_keys_u32(k, "rope.scaling.original_context_length", r->n_ctx_orig);
    if (r->attn_factor > 0) apr_keys_f32(k, "rope.scaling.yarn_attn_factor", r->attn_factor);
    if (is_given(hf, "beta_fast") || fabs(r->beta_fast - 32) > 0)
        apr_keys_f32(k, "rope.scaling.yarn_beta_fast", r->beta_fast);
    if (is_given(hf, "beta_slow") || fabs(r->beta_slow - 1) > 0)
        apr_keys_f32(k, "rope.scaling.yarn_beta_slow", r->beta_slow);
}

void apr_key_rope_scaling(const struct apr_keys *k)
{
    const struct apr_rope *r = &k->c->rope;
    if (r->scaling == APR_ROPE_YARN) yarn_keys(k);
    if (r->scaling == APR_ROPE_LONG) put_str(k, "rope.scaling.type", "longrope");
    if (r->scaling != APR_ROPE_LINEAR) return;
    put_str(k, "rope.scaling.type", "linear");
    apr_keys_f32(k, "rope.scaling.factor", r->factor);
}

void apr_key_freq_base(const struct apr_keys *k)
{
    apr_keys_f32(k, "rope.freq_base", k->c->rope_theta);
}

void apr_key_freq_base_odd(const struct apr_keys *k)
{
    if (fabs(k->c->rope_theta - 10000) > 0) apr_key_freq_base(k);
}

void apr_key_freq_base_local(const struct apr_keys *k)
{
    if (k->c->rope_local.theta > 0) apr_keys_f32(k, "rope.freq_base_swa", k->c->rope_local.theta);
}

void apr_key_rope_dims(const struct apr_keys *k)
{
    apr_keys_u32(k, "rope.dimension_count", k->c->rope.n_dims ? k->c->rope.n_dims : k->c->head_dim);
}

void apr_key_rope_orig(const struct apr_keys *k)
{
    const uint32_t n = k->c->rope.n_ctx_orig;
    apr_keys_u32(k, "rope.scaling.original_context_length", n ? n : k->c->n_ctx_train);
}

/* ---- experts ------------------------------------------------------------------------------------------ */

void apr_key_experts(const struct apr_keys *k)
{
    const char *score = json_string_value(json_object_get(k->hf, "scoring_func"));
    const json_t *groups = json_object_get(k->hf, "n_group"), *used = json_object_get(k->hf, "topk_group");
    if (!k->c->moe.n_experts) return;
    apr_keys_u32(k, "expert_count", k->c->moe.n_experts);
    apr_keys_u32(k, "expert_used_count", k->c->moe.n_used);
    if (json_is_integer(groups))
        apr_keys_u32(k, "expert_group_count", (uint64_t)json_integer_value(groups));
    else if (k->c->moe.n_groups)
        apr_keys_u32(k, "expert_group_count", k->c->moe.n_groups);
    if (json_is_integer(used))
        apr_keys_u32(k, "expert_group_used_count", (uint64_t)json_integer_value(used));
    else if (k->c->moe.n_groups)
        apr_keys_u32(k, "expert_group_used_count", k->c->moe.n_groups_used);
    if (score) apr_keys_u32(k, "expert_gating_func", k->c->moe.sigmoid ? 2 : 1); /* llama.cpp's enum */
}

void apr_key_expert_inter(const struct apr_keys *k)
{
    apr_keys_u32(k, "expert_feed_forward_length", k->c->moe.n_inter);
}

void apr_key_expert_shared_inter(const struct apr_keys *k)
{
    if (k->c->moe.n_inter_shared)
        apr_keys_u32(k, "expert_shared_feed_forward_length", k->c->moe.n_inter_shared);
}

void apr_key_expert_shared_count(const struct apr_keys *k)
{
    const struct apr_moe *m = &k->c->moe;
    apr_keys_u32(k, "expert_shared_count", m->n_inter ? m->n_inter_shared / m->n_inter : 0);
}

/* The layers that are dense before the first that is not. */
void apr_key_leading_dense(const struct apr_keys *k)
{
    uint32_t n = 0;
    while (n < k->c->n_layers && (!k->c->moe.n_experts || apr_layer_bit(k->c->moe.dense, n))) n++;
    apr_keys_u32(k, "leading_dense_block_count", n);
}

void apr_key_expert_scale(const struct apr_keys *k)
{
    if (k->c->moe.n_experts) apr_keys_f32(k, "expert_weights_scale", k->c->moe.scale);
}

void apr_key_expert_norm(const struct apr_keys *k)
{
    char name[128];
    if (k->c->moe.norm_topk)
        apr_kvs_bool(k->kvs, apr_key_name(k->arch, "expert_weights_norm", name, sizeof name), true);
}

/* ---- attention ---------------------------------------------------------------------------------------- */

void apr_key_softcap_attn(const struct apr_keys *k)
{
    if (k->c->attn_softcap > 0) apr_keys_f32(k, "attn_logit_softcapping", k->c->attn_softcap);
}

void apr_key_softcap_final(const struct apr_keys *k)
{
    if (k->c->logit_softcap > 0) apr_keys_f32(k, "final_logit_softcapping", k->c->logit_softcap);
}

/* key_length and value_length are those of the multi-query form: the compressed row, and what turns. */
void apr_key_mla(const struct apr_keys *k)
{
    const struct apr_mla *mla = &k->c->mla;
    if (mla->q_rank) apr_keys_u32(k, "attention.q_lora_rank", mla->q_rank);
    apr_keys_u32(k, "attention.kv_lora_rank", mla->kv_rank);
    apr_keys_u32(k, "attention.key_length", (uint64_t)mla->kv_rank + mla->n_rope);
    apr_keys_u32(k, "attention.value_length", mla->kv_rank);
    apr_keys_u32(k, "attention.key_length_mla", (uint64_t)mla->n_nope + mla->n_rope);
    apr_keys_u32(k, "attention.value_length_mla", mla->n_value);
}

void apr_key_attn_scale(const struct apr_keys *k)
{
    if (k->c->attn_scale > 0) apr_keys_f32(k, "attention.scale", k->c->attn_scale);
}

void apr_key_embed_scale(const struct apr_keys *k)
{
    if (k->c->embed_scale > 0) apr_keys_f32(k, "embedding_scale", k->c->embed_scale);
}

void apr_key_residual_scale(const struct apr_keys *k)
{
    if (k->c->residual_scale > 0) apr_keys_f32(k, "residual_scale", k->c->residual_scale);
}

/* GGUF's is the divisor. */
void apr_key_logit_scale(const struct apr_keys *k)
{
    if (k->c->logit_scale > 0) apr_keys_f32(k, "logit_scale", 1 / k->c->logit_scale);
}

/* ---- windows ------------------------------------------------------------------------------------------ */

static bool is_local_by(uint32_t pattern, uint32_t layer)
{
    return pattern == 0 || layer % pattern < pattern - 1;
}

/* pattern: what a reader takes for granted; 0: every layer is local. */
static void window_keys(const struct apr_keys *k, uint32_t pattern)
{
    bool local[APR_MAX_LAYERS], as_known = true;
    char name[128];
    apr_keys_u32(k, "attention.sliding_window", k->c->window);
    for (uint32_t i = 0; i < k->c->n_layers && i < APR_MAX_LAYERS; i++) {
        local[i] = apr_layer_bit(k->c->local, i);
        as_known = as_known && local[i] == is_local_by(pattern, i);
    }
    if (as_known) return;
    apr_kvs_array(k->kvs, apr_key_name(k->arch, "attention.sliding_window_pattern", name, sizeof name),
                  APR_KV_BOOL, k->c->n_layers, local);
}

void apr_key_window(const struct apr_keys *k)
{
    if (k->c->window) window_keys(k, 0);
}

void apr_key_window_always(const struct apr_keys *k)
{
    if (k->c->window)
        window_keys(k, 0);
    else
        apr_keys_u32(k, "attention.sliding_window", 0);
}

void apr_key_window_2(const struct apr_keys *k)
{
    if (k->c->window) window_keys(k, 2);
}

void apr_key_window_6(const struct apr_keys *k)
{
    if (k->c->window) window_keys(k, 6);
}

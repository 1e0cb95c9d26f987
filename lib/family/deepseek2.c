/* DeepSeek-V2: multi-head latent attention, routed and shared experts. */
#include "table.h"

#include <math.h>
#include <string.h>

#include "../json.h"
#include "decoder.h"
#include "hf_write.h"
#include "keys.h"
#include "moe.h"
#include "rope.h"
#include "rules.h"

#define MAX_RANK 65536u
#define MAX_HEAD 512u

static const char *const hf_architectures[] = {"DeepseekV2ForCausalLM", NULL};
static const char *const hf_model_types[] = {"deepseek_v2", NULL};

static const struct apr_tensor_rule rules[] = {
    APR_RULES_ENDS,
    APR_RULES_NORMS,
    {APR_ROLE_Q,
     APR_L "self_attn.q_proj.weight",
     APR_B "attn_q.weight",
     {APR_DIM_Q, APR_DIM_HIDDEN},
     APR_UNLESS_Q_RANK},
    {APR_ROLE_Q_A,
     APR_L "self_attn.q_a_proj.weight",
     APR_B "attn_q_a.weight",
     {APR_DIM_Q_RANK, APR_DIM_HIDDEN},
     APR_IF_Q_RANK},
    {APR_ROLE_Q_A_NORM,
     APR_L "self_attn.q_a_layernorm.weight",
     APR_B "attn_q_a_norm.weight",
     {APR_DIM_Q_RANK},
     APR_IF_Q_RANK},
    {APR_ROLE_Q_B,
     APR_L "self_attn.q_b_proj.weight",
     APR_B "attn_q_b.weight",
     {APR_DIM_Q, APR_DIM_Q_RANK},
     APR_IF_Q_RANK},
    {APR_ROLE_KV_A,
     APR_L "self_attn.kv_a_proj_with_mqa.weight",
     APR_B "attn_kv_a_mqa.weight",
     {APR_DIM_KV_A, APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_KV_A_NORM,
     APR_L "self_attn.kv_a_layernorm.weight",
     APR_B "attn_kv_a_norm.weight",
     {APR_DIM_KV_RANK},
     APR_REQUIRED},
    {APR_ROLE_KV_B,
     APR_L "self_attn.kv_b_proj.weight",
     APR_B "attn_kv_b.weight",
     {APR_DIM_KV_B, APR_DIM_KV_RANK},
     APR_IF_KV_B},
    {APR_ROLE_K_B,
     APR_L "self_attn.kv_b_proj.k.weight",
     APR_B "attn_k_b.weight",
     {APR_DIM_HEADS, APR_DIM_KV_RANK, APR_DIM_NOPE},
     APR_IF_KV_SPLIT},
    {APR_ROLE_V_B,
     APR_L "self_attn.kv_b_proj.v.weight",
     APR_B "attn_v_b.weight",
     {APR_DIM_HEADS, APR_DIM_VALUE, APR_DIM_KV_RANK},
     APR_IF_KV_SPLIT},
    APR_RULE_O,
    APR_RULES_GATED(APR_IF_DENSE),
    APR_RULES_EXPERTS,
    APR_RULES_SHARED("shared_experts"),
};
static const struct apr_tensor_form forms[] = {
    {.role = APR_ROLE_KV_B, .change = APR_CHANGE_SPLIT_KV},
    {.role = APR_ROLE_K_B, .change = APR_CHANGE_JOIN_KV},
    {.role = APR_ROLE_V_B, .change = APR_CHANGE_DROP},
    APR_FORMS_EXPERTS,
};

static const struct apr_moe_keys moe = {
    .n_experts = "n_routed_experts",
    .n_inter = "moe_intermediate_size",
    .n_shared = "n_shared_experts",
    .norm_topk = "norm_topk_prob",
    .first_dense = "first_k_dense_replace",
    .step = "moe_layer_freq",
};

/* How the experts are chosen; groups count only where the method says so. */
static enum apr_code check_choice(const json_t *config, struct apr_config *c, const char *file,
                                  struct apr_err *e)
{
    const char *score = "softmax", *method = "greedy";
    TRY(apr_json_str(config, "scoring_func", &score, file, e));
    TRY(apr_json_str(config, "topk_method", &method, file, e));
    if (strcmp(score, "softmax") != 0)
        return apr_fail(e, APR_ELOAD, "%s: $.scoring_func: \"%.64s\" is not supported", file, score);
    if (strcmp(method, "greedy") == 0)
        c->moe.n_groups = c->moe.n_groups_used = 0;
    else if (strcmp(method, "group_limited_greedy") != 0)
        return apr_fail(e, APR_ELOAD, "%s: $.topk_method: \"%.64s\" is not supported", file, method);
    return APR_OK;
}

static enum apr_code get(const json_t *config, const char *key, uint64_t max, uint32_t *out, const char *file,
                         struct apr_err *e)
{
    uint64_t v = 0;
    TRY(apr_json_u64(config, key, 1, max, &v, file, e));
    if (v == 0) return apr_fail(e, APR_EFORMAT, "%s: $.%s: missing", file, key);
    *out = (uint32_t)v;
    return APR_OK;
}

/* With yarn the scores are scaled by the square of the attention factor over all dimensions (the model's own
 * code, "softmax_scale"). */
static void set_scale(struct apr_config *c)
{
    const struct apr_rope *r = &c->rope;
    double m = 1;
    if (r->scaling == APR_ROPE_YARN && r->mscale_all_dim > 0 && r->factor > 1)
        m = 0.1 * r->mscale_all_dim * log(r->factor) + 1;
    c->attn_scale = m * m / sqrt(c->head_dim);
}

static enum apr_code read_mla(const json_t *config, struct apr_config *c, const char *file, struct apr_err *e)
{
    struct apr_mla *mla = &c->mla;
    struct apr_rope_defaults rope = {.theta = 10000.0};
    uint64_t q_rank = 0;
    TRY(apr_json_u64(config, "q_lora_rank", 1, MAX_RANK, &q_rank, file, e));
    mla->q_rank = (uint32_t)q_rank;
    TRY(get(config, "kv_lora_rank", MAX_RANK, &mla->kv_rank, file, e));
    TRY(get(config, "qk_nope_head_dim", MAX_HEAD, &mla->n_nope, file, e));
    TRY(get(config, "qk_rope_head_dim", MAX_HEAD, &mla->n_rope, file, e));
    TRY(get(config, "v_head_dim", MAX_HEAD, &mla->n_value, file, e));
    c->head_dim = mla->n_nope + mla->n_rope; /* config.json's head_dim, if any, is that of the turning part */
    c->head_dim_given = true;
    c->n_heads_kv = c->n_heads;
    c->rope_pairs = true;
    rope.n_dims = mla->n_rope;
    TRY(apr_rope_from_hf(config, NULL, &rope, c, &c->rope, file, e));
    c->rope_theta = c->rope.theta;
    set_scale(c);
    return APR_OK;
}

static enum apr_code from_hf(const json_t *config, struct apr_config *c, const char *file, struct apr_err *e)
{
    TRY(check_choice(config, c, file, e));
    return read_mla(config, c, file, e);
}

/* The converter writes both lengths twice: their place is the first, their value that of apr_key_mla. */
static void key_places(const struct apr_keys *k)
{
    if (!k->hf || !json_is_integer(json_object_get(k->hf, "head_dim"))) return;
    apr_keys_u32(k, "attention.key_length", k->c->head_dim);
    apr_keys_u32(k, "attention.value_length", k->c->head_dim);
}

/* A tenth of mscale_all_dim: llama.cpp's spelling. */
static void key_log_multiplier(const struct apr_keys *k)
{
    const struct apr_rope *r = &k->c->rope;
    if (!(r->mscale_all_dim > 0)) return;
    apr_keys_f32(k, "rope.scaling.yarn_log_multiplier", 0.1 * r->mscale_all_dim);
    if (r->mscale > 0 && fabs(r->mscale - r->mscale_all_dim) > 0 &&
        r->factor > 1) /* readers take them for equal */
        apr_keys_f32(k, "rope.scaling.attn_factor",
                     (0.1 * r->mscale * log(r->factor) + 1) / (0.1 * r->mscale_all_dim * log(r->factor) + 1));
}

static enum apr_code from_gguf(const struct apr_decoder *d, const struct apr_kvs *kvs, struct apr_config *c,
                               const char *file, struct apr_err *e)
{
    double log_multiplier = 0;
    if (c->mla.kv_rank == 0)
        return apr_fail(e, APR_EFORMAT, "%s: deepseek2.attention.kv_lora_rank: missing", file);
    TRY(apr_real_from_gguf(d, kvs, "rope.scaling.yarn_log_multiplier", &log_multiplier, file, e));
    if (log_multiplier > 0) { /* then attn_factor stands alone */
        c->rope.mscale = c->rope.mscale_all_dim = log_multiplier / 0.1;
        c->rope.attn_factor = 0;
        TRY(apr_real_from_gguf(d, kvs, "rope.scaling.attn_factor", &c->rope.attn_factor, file, e));
    }
    set_scale(c);
    return apr_rope_check(&c->rope, file, e);
}

static void to_hf(const struct apr_config *c, json_t *config)
{
    json_object_set_new(config, "q_lora_rank", c->mla.q_rank ? json_integer(c->mla.q_rank) : json_null());
    apr_hf_put_uint(config, "kv_lora_rank", c->mla.kv_rank);
    apr_hf_put_uint(config, "qk_nope_head_dim", c->mla.n_nope);
    apr_hf_put_uint(config, "qk_rope_head_dim", c->mla.n_rope);
    apr_hf_put_uint(config, "v_head_dim", c->mla.n_value);
    json_object_set_new(config, "topk_method",
                        json_string(c->moe.n_groups > 1 ? "group_limited_greedy" : "greedy"));
}

static const char *const refused[] = {"attention_bias", "mlp_bias", NULL};

static apr_key_fn *const keys[] = {apr_key_blocks,
                                   apr_key_context,
                                   apr_key_hidden,
                                   apr_key_inter,
                                   apr_key_heads,
                                   apr_key_heads_kv_one,
                                   apr_key_rope_scaling,
                                   apr_key_freq_base,
                                   apr_key_eps,
                                   apr_key_experts,
                                   key_places,
                                   apr_key_file_type,
                                   apr_key_leading_dense,
                                   apr_key_vocab,
                                   apr_key_mla,
                                   apr_key_expert_inter,
                                   apr_key_expert_shared_count,
                                   apr_key_expert_scale,
                                   apr_key_expert_norm,
                                   apr_key_rope_dims,
                                   key_log_multiplier,
                                   NULL};

/* Defaults: transformers'. */
static const struct apr_decoder decoder = {
    .gguf_arch = "deepseek2",
    .n_ctx_default = 2048,
    .norm_eps = 1e-6,
    .act_default = "silu",
    .is_gated = true,
    .gguf_pairs = true,
    .moe = &moe,
    .refused = refused,
    .keys = keys,
    .more_from_hf = from_hf,
    .more_from_gguf = from_gguf,
    .more_to_hf = to_hf,
};

const struct apr_family apr_family_deepseek2 = {
    .name = "deepseek2",
    .gguf_arch = "deepseek2",
    .model_type_apr = "DeepSeek2",
    .hf_architectures = hf_architectures,
    .hf_model_types = hf_model_types,
    .rules = rules,
    .n_rules = sizeof rules / sizeof rules[0],
    .forms = forms,
    .n_forms = sizeof forms / sizeof forms[0],
    APR_DECODER_ROW(decoder),
    .rope_type = 2,
};

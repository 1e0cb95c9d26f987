/* DeepSeek-MoE (16B): Llama with routed and shared experts. */
#include "table.h"

#include <string.h>

#include "../json.h"
#include "decoder.h"
#include "keys.h"
#include "moe.h"
#include "rules.h"

static const char *const hf_architectures[] = {"DeepseekForCausalLM", NULL};
static const char *const hf_model_types[] = {"deepseek", NULL};

static const struct apr_tensor_rule rules[] = {
    APR_RULES_ENDS,
    APR_RULES_NORMS,
    APR_RULES_QKV,
    APR_RULE_O,
    APR_RULES_QKV_BIASES,
    APR_RULE_O_BIAS,
    APR_RULES_GATED(APR_IF_DENSE),
    APR_RULES_EXPERTS,
    APR_RULES_SHARED("shared_experts"),
};
static const struct apr_tensor_form forms[] = {
    APR_FORMS_PAIRS,
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

static enum apr_code from_hf(const json_t *config, struct apr_config *c, const char *file, struct apr_err *e)
{
    const char *score = "softmax";
    (void)c;
    TRY(apr_json_str(config, "scoring_func", &score, file, e));
    if (strcmp(score, "softmax") != 0)
        return apr_fail(e, APR_ELOAD, "%s: $.scoring_func: \"%.64s\" is not supported", file, score);
    return APR_OK;
}

static void key_no_scaling(const struct apr_keys *k)
{
    if (k->c->rope.scaling == APR_ROPE_PLAIN) apr_kvs_str(k->kvs, "deepseek.rope.scaling.type", "none");
}

static apr_key_fn *const keys[] = {APR_KEYS_COMMON,      apr_key_rope_dims,
                                   key_no_scaling,       apr_key_leading_dense,
                                   apr_key_vocab,        apr_key_expert_inter,
                                   apr_key_expert_scale, apr_key_expert_shared_count,
                                   apr_key_expert_norm,  NULL};

/* Defaults: transformers'. */
static const struct apr_decoder decoder = {
    .gguf_arch = "deepseek",
    .n_ctx_default = 2048,
    .rope_theta = 10000.0,
    .norm_eps = 1e-6,
    .act_default = "silu",
    .qkv_bias_key = "attention_bias",
    .o_bias_key = "attention_bias",
    .is_gated = true,
    .gguf_pairs = true,
    .moe = &moe,
    .keys = keys,
    .more_from_hf = from_hf,
};

const struct apr_family apr_family_deepseek_moe = {
    .name = "deepseek_moe",
    .gguf_arch = "deepseek",
    .model_type_apr = "DeepSeekMoe",
    .hf_architectures = hf_architectures,
    .hf_model_types = hf_model_types,
    .rules = rules,
    .n_rules = sizeof rules / sizeof rules[0],
    .forms = forms,
    .n_forms = sizeof forms / sizeof forms[0],
    APR_DECODER_ROW(decoder),
    .rope_type = 2,
};

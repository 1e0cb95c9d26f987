/* DeepSeek-MoE (16B): Llama with routed and shared experts. */
#include "table.h"

#include <string.h>

#include "../json.h"
#include "decoder.h"
#include "hf_write.h"
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
    TRY(apr_decoder_from_hf(&decoder, config, c, file, e));
    TRY(apr_json_str(config, "scoring_func", &score, file, e));
    if (strcmp(score, "softmax") != 0)
        return apr_fail(e, APR_ELOAD, "%s: $.scoring_func: \"%.64s\" is not supported", file, score);
    return apr_moe_from_hf(&moe, config, c, file, e);
}

static void key_no_scaling(const struct apr_keys *k)
{
    if (k->c->rope.scaling == APR_ROPE_PLAIN) apr_kvs_str(k->kvs, "deepseek.rope.scaling.type", "none");
}

static enum apr_code from_gguf(const struct apr_kvs *kvs, struct apr_config *c, const char *file,
                               struct apr_err *e)
{
    return apr_decoder_from_gguf(&decoder, kvs, c, file, e);
}

static void to_gguf(const struct apr_config *c, const json_t *hf_config, uint32_t file_type,
                    struct apr_kvs *kvs)
{
    static apr_key_fn *const keys[] = {APR_KEYS_COMMON,      apr_key_rope_dims,
                                       key_no_scaling,       apr_key_leading_dense,
                                       apr_key_vocab,        apr_key_expert_inter,
                                       apr_key_expert_scale, apr_key_expert_shared_count,
                                       apr_key_expert_norm,  NULL};
    apr_keys_write(
        keys, &(struct apr_keys){
                  .arch = decoder.gguf_arch, .c = c, .hf = hf_config, .file_type = file_type, .kvs = kvs});
}

static void to_hf(const struct apr_config *c, json_t *config)
{
    apr_decoder_to_hf(&decoder, &moe, c, config);
}

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
    .from_hf = from_hf,
    .from_gguf = from_gguf,
    .to_gguf = to_gguf,
    .to_hf = to_hf,
    .rope_type = 2,
};

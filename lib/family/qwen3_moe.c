/* Qwen3-MoE (Qwen3-30B-A3B): Qwen3 with routed experts. */
#include "table.h"

#include "decoder.h"
#include "hf_write.h"
#include "keys.h"
#include "moe.h"
#include "rules.h"

static const char *const hf_architectures[] = {"Qwen3MoeForCausalLM", NULL};
static const char *const hf_model_types[] = {"qwen3_moe", NULL};

static const struct apr_tensor_rule rules[] = {
    APR_RULES_ENDS,       APR_RULES_NORMS, APR_RULES_QKV,      APR_RULE_O,
    APR_RULES_QKV_BIASES, APR_RULE_O_BIAS, APR_RULES_QK_NORMS, APR_RULES_GATED(APR_IF_DENSE),
    APR_RULES_EXPERTS,
};
static const struct apr_tensor_form forms[] = {
    APR_FORMS_EXPERTS,
};

/* Defaults: transformers'. */
static const struct apr_decoder decoder = {
    .gguf_arch = "qwen3moe",
    .n_ctx_default = 32768,
    .rope_theta = 10000.0,
    .norm_eps = 1e-6,
    .act_default = "silu",
    .qkv_bias_key = "attention_bias",
    .o_bias_key = "attention_bias",
    .is_gated = true,
    .norm_topk = true,
};

static const struct apr_moe_keys moe = {
    .n_experts = "num_experts",
    .n_inter = "moe_intermediate_size",
    .norm_topk = "norm_topk_prob",
    .step = "decoder_sparse_step",
    .step_from_one = true,
    .dense_list = "mlp_only_layers",
};

static enum apr_code from_hf(const json_t *config, struct apr_config *c, const char *file, struct apr_err *e)
{
    TRY(apr_decoder_from_hf(&decoder, config, c, file, e));
    TRY(apr_moe_from_hf(&moe, config, c, file, e));
    return apr_qwen_window_from_hf(config, c, file, e);
}

static enum apr_code from_gguf(const struct apr_kvs *kvs, struct apr_config *c, const char *file,
                               struct apr_err *e)
{
    TRY(apr_decoder_from_gguf(&decoder, kvs, c, file, e));
    return apr_window_from_gguf(&decoder, kvs, 0, c, file, e);
}

static void to_gguf(const struct apr_config *c, const json_t *hf_config, uint32_t file_type,
                    struct apr_kvs *kvs)
{
    static apr_key_fn *const keys[] = {APR_KEYS_COMMON, apr_key_expert_inter, apr_key_window, NULL};
    apr_keys_write(
        keys, &(struct apr_keys){
                  .arch = decoder.gguf_arch, .c = c, .hf = hf_config, .file_type = file_type, .kvs = kvs});
}

static void to_hf(const struct apr_config *c, json_t *config)
{
    apr_decoder_to_hf(&decoder, &moe, c, config);
}

const struct apr_family apr_family_qwen3_moe = {
    .name = "qwen3_moe",
    .gguf_arch = "qwen3moe",
    .model_type_apr = "Qwen3Moe",
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

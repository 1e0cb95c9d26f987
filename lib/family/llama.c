/* Llama 1 to 3.3 and what has its shape (SmolLM, DeepSeek-LLM, TinyLlama, Vicuna ...). */
#include "table.h"

#include "decoder.h"
#include "hf_write.h"
#include "keys.h"
#include "rules.h"

static const char *const hf_architectures[] = {"LlamaForCausalLM", "LLaMAForCausalLM", NULL};
static const char *const hf_model_types[] = {"llama", NULL};

static const struct apr_tensor_rule rules[] = {
    APR_RULES_ENDS,
    APR_RULES_NORMS,
    APR_RULES_QKV,
    APR_RULE_ROPE_FREQS,
    APR_RULE_O,
    APR_RULES_QKV_BIASES,
    APR_RULE_O_BIAS,
    APR_RULES_GATED(APR_REQUIRED),
    APR_RULES_GATED_BIASES,
};
static const struct apr_tensor_form forms[] = {
    APR_FORMS_PAIRS,
    APR_FORM_ROPE_FREQS,
};

/* Defaults: transformers'. */
static const struct apr_decoder decoder = {
    .gguf_arch = "llama",
    .n_ctx_default = 2048,
    .head_dim_always = true,
    .rope_theta = 10000.0,
    .norm_eps = 1e-6,
    .act_default = "silu",
    .qkv_bias_key = "attention_bias",
    .o_bias_key = "attention_bias",
    .mlp_bias_key = "mlp_bias",
    .is_gated = true,
    .gguf_pairs = true,
};

static enum apr_code from_hf(const json_t *config, struct apr_config *c, const char *file, struct apr_err *e)
{
    return apr_decoder_from_hf(&decoder, config, c, file, e);
}

static const struct apr_gguf_tok gguf_tok = {.prefix_space = true};

static enum apr_code from_gguf(const struct apr_kvs *kvs, struct apr_config *c, const char *file,
                               struct apr_err *e)
{
    return apr_decoder_from_gguf(&decoder, kvs, c, file, e);
}

static void to_gguf(const struct apr_config *c, const json_t *hf_config, uint32_t file_type,
                    struct apr_kvs *kvs)
{
    static apr_key_fn *const keys[] = {APR_KEYS_COMMON, apr_key_vocab, apr_key_rope_dims, NULL};
    apr_keys_write(
        keys, &(struct apr_keys){
                  .arch = decoder.gguf_arch, .c = c, .hf = hf_config, .file_type = file_type, .kvs = kvs});
}

static void to_hf(const struct apr_config *c, json_t *config)
{
    apr_decoder_to_hf(&decoder, NULL, c, config);
}

const struct apr_family apr_family_llama = {
    .name = "llama",
    .gguf_arch = "llama",
    .model_type_apr = "LLaMA",
    .hf_architectures = hf_architectures,
    .hf_model_types = hf_model_types,
    .rules = rules,
    .n_rules = sizeof rules / sizeof rules[0],
    .forms = forms,
    .n_forms = sizeof forms / sizeof forms[0],
    .from_hf = from_hf,
    .gguf_tok = &gguf_tok,
    .from_gguf = from_gguf,
    .to_gguf = to_gguf,
    .to_hf = to_hf,
    .rope_type = 2,
};

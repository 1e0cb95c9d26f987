/* Llama 1 to 3.3 and what has its shape (SmolLM, DeepSeek-LLM, TinyLlama, Vicuna ...). */
#include "table.h"

#include "decoder.h"
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

static const struct apr_gguf_tok gguf_tok = {.prefix_space = true};

static apr_key_fn *const keys[] = {APR_KEYS_COMMON, apr_key_vocab, apr_key_rope_dims, NULL};

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
    .keys = keys,
};

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
    APR_DECODER_ROW(decoder),
    .gguf_tok = &gguf_tok,
    .rope_type = 2,
};

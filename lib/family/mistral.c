/* Mistral 7B and its kin: Llama with a sliding window in every layer, where config.json gives one. */
#include "table.h"

#include "decoder.h"
#include "keys.h"
#include "rules.h"

static const char *const hf_architectures[] = {"MistralForCausalLM", NULL};
static const char *const hf_model_types[] = {"mistral", NULL};

static const struct apr_tensor_rule rules[] = {
    APR_RULES_ENDS, APR_RULES_NORMS, APR_RULES_QKV, APR_RULE_O, APR_RULES_GATED(APR_REQUIRED),
};
static const struct apr_tensor_form forms[] = {
    APR_FORMS_PAIRS,
    APR_FORM_ROPE_FREQS,
};

static const struct apr_gguf_tok gguf_tok = {.prefix_space = true};

/* llama.cpp has one name for Llama, Mistral and Mixtral. */
static bool claims(const struct apr_kvs *kvs)
{
    uint64_t v = 0;
    struct apr_err ignored;
    return apr_kv_get_u64(kvs, "llama.attention.sliding_window", 0, UINT32_MAX, &v, "", &ignored) == APR_OK &&
           v > 0 && !apr_kvs_find(kvs, "llama.expert_count");
}

static apr_key_fn *const keys[] = {APR_KEYS_COMMON, apr_key_vocab, apr_key_rope_dims, apr_key_window, NULL};

/* Defaults: transformers'. */
static const struct apr_decoder decoder = {
    .gguf_arch = "llama",
    .n_ctx_default = 131072,
    .head_dim_always = true,
    .rope_theta = 10000.0,
    .norm_eps = 1e-6,
    .act_default = "silu",
    .is_gated = true,
    .gguf_pairs = true,
    .window = APR_WINDOW_LISTED,
    .keys = keys,
};

const struct apr_family apr_family_mistral = {
    .name = "mistral",
    .gguf_arch = "llama",
    .model_type_apr = "Mistral",
    .hf_architectures = hf_architectures,
    .hf_model_types = hf_model_types,
    .rules = rules,
    .n_rules = sizeof rules / sizeof rules[0],
    .forms = forms,
    .n_forms = sizeof forms / sizeof forms[0],
    APR_DECODER_ROW(decoder),
    .gguf_tok = &gguf_tok,
    .claims = claims,
    .rope_type = 2,
};

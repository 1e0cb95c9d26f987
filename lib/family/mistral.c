/* Mistral 7B and its kin: Llama with a sliding window in every layer, where config.json gives one. */
#include "table.h"

#include "decoder.h"
#include "hf_write.h"
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
};

static enum apr_code from_hf(const json_t *config, struct apr_config *c, const char *file, struct apr_err *e)
{
    bool found;
    TRY(apr_decoder_from_hf(&decoder, config, c, file, e));
    TRY(apr_layer_types_from_hf(config, c, &found, file, e));
    return found ? APR_OK : apr_window_from_hf(config, 0, c, file, e);
}

static const struct apr_gguf_tok gguf_tok = {.prefix_space = true};

static enum apr_code from_gguf(const struct apr_kvs *kvs, struct apr_config *c, const char *file,
                               struct apr_err *e)
{
    TRY(apr_decoder_from_gguf(&decoder, kvs, c, file, e));
    return apr_window_from_gguf(&decoder, kvs, 0, c, file, e);
}

static void to_gguf(const struct apr_config *c, const json_t *hf_config, uint32_t file_type,
                    struct apr_kvs *kvs)
{
    static apr_key_fn *const keys[] = {APR_KEYS_COMMON, apr_key_vocab, apr_key_rope_dims, apr_key_window,
                                       NULL};
    apr_keys_write(
        keys, &(struct apr_keys){
                  .arch = decoder.gguf_arch, .c = c, .hf = hf_config, .file_type = file_type, .kvs = kvs});
}

/* llama.cpp has one name for Llama, Mistral and Mixtral. */
static bool claims(const struct apr_kvs *kvs)
{
    uint64_t v = 0;
    struct apr_err ignored;
    return apr_kv_get_u64(kvs, "llama.attention.sliding_window", 0, UINT32_MAX, &v, "", &ignored) == APR_OK &&
           v > 0 && !apr_kvs_find(kvs, "llama.expert_count");
}

static void to_hf(const struct apr_config *c, json_t *config)
{
    apr_decoder_to_hf(&decoder, NULL, c, config);
}

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
    .from_hf = from_hf,
    .gguf_tok = &gguf_tok,
    .claims = claims,
    .from_gguf = from_gguf,
    .to_gguf = to_gguf,
    .to_hf = to_hf,
    .rope_type = 2,
};

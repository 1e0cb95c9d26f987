/* Gemma 1: norms multiply by 1 + w, the embedding is scaled by sqrt(n_hidden), the head is tied. */
#include "table.h"

#include <math.h>

#include "decoder.h"
#include "hf_write.h"
#include "keys.h"
#include "rules.h"

static const char *const hf_architectures[] = {"GemmaForCausalLM", NULL};
static const char *const hf_model_types[] = {"gemma", NULL};

static const struct apr_tensor_rule rules[] = {
    APR_RULES_ENDS,
    APR_RULES_NORMS,
    APR_RULES_QKV,
    APR_RULE_O,
    APR_RULES_QKV_BIASES,
    APR_RULE_O_BIAS,
    APR_RULES_GATED(APR_REQUIRED),
};
static const struct apr_tensor_form forms[] = {
    {.role = APR_ROLE_LM_HEAD, .change = APR_CHANGE_TIED},
    {.role = APR_ROLE_FINAL_NORM, .change = APR_CHANGE_PLUS_ONE},
    {.role = APR_ROLE_ATTN_NORM, .change = APR_CHANGE_PLUS_ONE},
    {.role = APR_ROLE_FFN_NORM, .change = APR_CHANGE_PLUS_ONE},
};

/* Defaults: transformers'. */
static const struct apr_decoder decoder = {
    .gguf_arch = "gemma",
    .n_ctx_default = 8192,
    .head_dim = 256,
    .rope_theta = 10000.0,
    .norm_eps = 1e-6,
    .tied = true,
    .act_key = "hidden_activation",
    .act_default = "gelu_pytorch_tanh",
    .qkv_bias_key = "attention_bias",
    .o_bias_key = "attention_bias",
    .is_gated = true,
    .activation = APR_GELU_TANH,
};

static enum apr_code from_hf(const json_t *config, struct apr_config *c, const char *file, struct apr_err *e)
{
    TRY(apr_decoder_from_hf(&decoder, config, c, file, e));
    c->norm_plus_one = true;
    c->embed_scale = sqrt(c->n_hidden);
    return APR_OK;
}

static const struct apr_gguf_tok gguf_tok = {.no_space_prefix = true, .eot_id = 107};

static enum apr_code from_gguf(const struct apr_kvs *kvs, struct apr_config *c, const char *file,
                               struct apr_err *e)
{
    TRY(apr_decoder_from_gguf(&decoder, kvs, c, file, e));
    c->embed_scale = sqrt(c->n_hidden);
    return APR_OK;
}

static void to_gguf(const struct apr_config *c, const json_t *hf_config, uint32_t file_type,
                    struct apr_kvs *kvs)
{
    static apr_key_fn *const keys[] = {apr_key_context,      apr_key_hidden,        apr_key_blocks,
                                       apr_key_inter,        apr_key_heads,         apr_key_heads_kv,
                                       apr_key_eps,          apr_key_head_dim,      apr_key_file_type,
                                       apr_key_rope_scaling, apr_key_freq_base_odd, NULL};
    apr_keys_write(
        keys, &(struct apr_keys){
                  .arch = decoder.gguf_arch, .c = c, .hf = hf_config, .file_type = file_type, .kvs = kvs});
}

static void to_hf(const struct apr_config *c, json_t *config)
{
    apr_decoder_to_hf(&decoder, NULL, c, config);
}

const struct apr_family apr_family_gemma = {
    .name = "gemma",
    .gguf_arch = "gemma",
    .model_type_apr = "Gemma",
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

/* Gemma 1: norms multiply by 1 + w, the embedding is scaled by sqrt(n_hidden), the head is tied. */
#include "table.h"

#include <math.h>

#include "decoder.h"
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
};

static enum apr_code from_hf(const json_t *config, struct apr_config *c, const char *file, struct apr_err *e)
{
    TRY(apr_decoder_from_hf(&decoder, config, c, file, e));
    c->norm_plus_one = true;
    c->embed_scale = sqrt(c->n_hidden);
    return APR_OK;
}

static const struct apr_gguf_tok gguf_tok = {.no_space_prefix = true, .eot_id = 107};

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
    .rope_type = 2,
};

/* Gemma 1: norms multiply by 1 + w, the embedding is scaled by sqrt(n_hidden), the head is tied. */
#include "table.h"

#include <math.h>

#include "decoder.h"
#include "gemma.h"
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

static const struct apr_gguf_tok gguf_tok = {.no_space_prefix = true, .eot_id = 107};

enum apr_code apr_gemma_scale_from_hf(const json_t *config, struct apr_config *c, const char *file,
                                      struct apr_err *e)
{
    double scalar = 256;
    TRY(apr_positive_from_hf(config, "query_pre_attn_scalar", &scalar, file, e));
    c->attn_scale = 1 / sqrt(scalar);
    return APR_OK;
}

double apr_gemma_scale(const struct apr_config *c, uint32_t n_layers_27b)
{
    return 1 / sqrt(c->n_layers == n_layers_27b ? c->n_hidden / c->n_heads : c->head_dim);
}

void apr_gemma_key_scale(const struct apr_keys *k, uint32_t n_layers_27b)
{
    if (fabs(k->c->attn_scale - apr_gemma_scale(k->c, n_layers_27b)) > 1e-9) apr_key_attn_scale(k);
}

void apr_gemma_to_hf(const struct apr_config *c, json_t *config)
{
    apr_hf_put_real(config, "query_pre_attn_scalar", 1 / (c->attn_scale * c->attn_scale));
    apr_hf_put_real_or_null(config, "attn_logit_softcapping", c->attn_softcap);
    apr_hf_put_real_or_null(config, "final_logit_softcapping", c->logit_softcap);
}

static apr_key_fn *const keys[] = {apr_key_context,      apr_key_hidden,        apr_key_blocks,
                                   apr_key_inter,        apr_key_heads,         apr_key_heads_kv,
                                   apr_key_eps,          apr_key_head_dim,      apr_key_file_type,
                                   apr_key_rope_scaling, apr_key_freq_base_odd, NULL};

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
    .norm_plus_one = true,
    .embed_sqrt = true,
    .keys = keys,
};

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
    APR_DECODER_ROW(decoder),
    .gguf_tok = &gguf_tok,
    .rope_type = 2,
};

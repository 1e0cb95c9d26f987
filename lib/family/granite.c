/* Granite 3: Llama with four multipliers. */
#include "table.h"

#include <math.h>

#include "decoder.h"
#include "hf_write.h"
#include "keys.h"
#include "rules.h"

static const char *const hf_architectures[] = {"GraniteForCausalLM", NULL};
static const char *const hf_model_types[] = {"granite", NULL};

static const struct apr_tensor_rule rules[] = {
    APR_RULES_ENDS,
    APR_RULES_NORMS,
    APR_RULES_QKV,
    APR_RULE_O,
    APR_RULES_QKV_BIASES,
    APR_RULE_O_BIAS,
    APR_RULES_GATED(APR_REQUIRED),
    APR_RULES_GATED_BIASES,
};
static const struct apr_tensor_form forms[] = {
    APR_FORMS_PAIRS,
};

static enum apr_code from_hf(const json_t *config, struct apr_config *c, const char *file, struct apr_err *e)
{
    double divisor = 1;
    c->embed_scale = c->residual_scale = c->attn_scale = 1;
    TRY(apr_positive_from_hf(config, "embedding_multiplier", &c->embed_scale, file, e));
    TRY(apr_positive_from_hf(config, "residual_multiplier", &c->residual_scale, file, e));
    TRY(apr_positive_from_hf(config, "attention_multiplier", &c->attn_scale, file, e));
    TRY(apr_positive_from_hf(config, "logits_scaling", &divisor, file, e));
    c->logit_scale = 1 / divisor;
    return APR_OK;
}

static enum apr_code from_gguf(const struct apr_decoder *d, const struct apr_kvs *kvs, struct apr_config *c,
                               const char *file, struct apr_err *e)
{
    double divisor = 1;
    c->embed_scale = c->residual_scale = 1;
    if (!(c->attn_scale > 0)) c->attn_scale = 1 / sqrt(c->head_dim);
    TRY(apr_real_from_gguf(d, kvs, "embedding_scale", &c->embed_scale, file, e));
    TRY(apr_real_from_gguf(d, kvs, "residual_scale", &c->residual_scale, file, e));
    TRY(apr_real_from_gguf(d, kvs, "logit_scale", &divisor, file, e));
    if (!(divisor > 0 && c->embed_scale > 0 && c->residual_scale > 0))
        return apr_fail(e, APR_EFORMAT, "%s: granite: scales must be positive", file);
    c->logit_scale = 1 / divisor;
    return APR_OK;
}

static void to_hf(const struct apr_config *c, json_t *config)
{
    apr_hf_put_real(config, "embedding_multiplier", c->embed_scale);
    apr_hf_put_real(config, "residual_multiplier", c->residual_scale);
    apr_hf_put_real(config, "attention_multiplier", c->attn_scale);
    apr_hf_put_real(config, "logits_scaling", 1 / c->logit_scale);
}

static apr_key_fn *const keys[] = {
    APR_KEYS_COMMON,     apr_key_vocab,          apr_key_rope_dims,   apr_key_attn_scale,
    apr_key_embed_scale, apr_key_residual_scale, apr_key_logit_scale, NULL};

/* Defaults: transformers'. */
static const struct apr_decoder decoder = {
    .gguf_arch = "granite",
    .n_ctx_default = 2048,
    .rope_theta = 10000.0,
    .norm_eps = 1e-6,
    .act_default = "silu",
    .qkv_bias_key = "attention_bias",
    .o_bias_key = "attention_bias",
    .mlp_bias_key = "mlp_bias",
    .is_gated = true,
    .gguf_pairs = true,
    .keys = keys,
    .more_from_hf = from_hf,
    .more_from_gguf = from_gguf,
    .more_to_hf = to_hf,
};

const struct apr_family apr_family_granite = {
    .name = "granite",
    .gguf_arch = "granite",
    .model_type_apr = "Granite",
    .hf_architectures = hf_architectures,
    .hf_model_types = hf_model_types,
    .rules = rules,
    .n_rules = sizeof rules / sizeof rules[0],
    .forms = forms,
    .n_forms = sizeof forms / sizeof forms[0],
    APR_DECODER_ROW(decoder),
    .rope_type = 2,
};

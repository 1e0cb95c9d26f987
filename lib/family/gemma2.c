/* Gemma 2: norms before and behind every block, soft caps, every second layer sees a window. */
#include "table.h"

#include <math.h>

#include "decoder.h"
#include "hf_write.h"
#include "keys.h"
#include "rules.h"

static const char *const hf_architectures[] = {"Gemma2ForCausalLM", NULL};
static const char *const hf_model_types[] = {"gemma2", NULL};

static const struct apr_tensor_rule rules[] = {
    APR_RULES_ENDS,  APR_RULES_NORMS_AROUND,        APR_RULES_QKV, APR_RULE_O, APR_RULES_QKV_BIASES,
    APR_RULE_O_BIAS, APR_RULES_GATED(APR_REQUIRED),
};
static const struct apr_tensor_form forms[] = {
    APR_FORMS_NORMS_AROUND,
};

/* Defaults: transformers'. */
static const struct apr_decoder decoder = {
    .gguf_arch = "gemma2",
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

/* 1 / sqrt(query_pre_attn_scalar) */
static enum apr_code read_scale(const json_t *config, struct apr_config *c, const char *file,
                                struct apr_err *e)
{
    double scalar = 256;
    TRY(apr_positive_from_hf(config, "query_pre_attn_scalar", &scalar, file, e));
    c->attn_scale = 1 / sqrt(scalar);
    return APR_OK;
}

static enum apr_code from_hf(const json_t *config, struct apr_config *c, const char *file, struct apr_err *e)
{
    TRY(apr_decoder_from_hf(&decoder, config, c, file, e));
    c->norm_plus_one = true;
    c->embed_scale = sqrt(c->n_hidden);
    TRY(read_scale(config, c, file, e));
    c->attn_softcap = 50;
    c->logit_softcap = 30;
    TRY(apr_softcap_from_hf(config, "attn_logit_softcapping", &c->attn_softcap, file, e));
    TRY(apr_softcap_from_hf(config, "final_logit_softcapping", &c->logit_softcap, file, e));
    return apr_pattern_from_hf(config, 2, 4096, c, file, e);
}

static const struct apr_gguf_tok gguf_tok = {.no_space_prefix = true};

/* What readers of GGUF take for granted: by the head size, but for the 27B model. */
static double scale_of(const struct apr_config *c)
{
    return 1 / sqrt(c->n_layers == 46 ? c->n_hidden / c->n_heads : c->head_dim);
}

static void key_scale(const struct apr_keys *k)
{
    if (fabs(k->c->attn_scale - scale_of(k->c)) > 1e-9) apr_key_attn_scale(k);
}

static enum apr_code from_gguf(const struct apr_kvs *kvs, struct apr_config *c, const char *file,
                               struct apr_err *e)
{
    TRY(apr_decoder_from_gguf(&decoder, kvs, c, file, e));
    c->embed_scale = sqrt(c->n_hidden);
    if (!(c->attn_scale > 0)) c->attn_scale = scale_of(c);
    return apr_window_from_gguf(&decoder, kvs, 2, c, file, e);
}

static void to_gguf(const struct apr_config *c, const json_t *hf_config, uint32_t file_type,
                    struct apr_kvs *kvs)
{
    static apr_key_fn *const keys[] = {apr_key_context,
                                       apr_key_hidden,
                                       apr_key_blocks,
                                       apr_key_inter,
                                       apr_key_heads,
                                       apr_key_heads_kv,
                                       apr_key_eps,
                                       apr_key_head_dim,
                                       apr_key_file_type,
                                       apr_key_softcap_attn,
                                       apr_key_softcap_final,
                                       apr_key_window_2,
                                       apr_key_rope_scaling,
                                       apr_key_freq_base_odd,
                                       key_scale,
                                       NULL};
    apr_keys_write(
        keys, &(struct apr_keys){
                  .arch = decoder.gguf_arch, .c = c, .hf = hf_config, .file_type = file_type, .kvs = kvs});
}

static void to_hf(const struct apr_config *c, json_t *config)
{
    apr_decoder_to_hf(&decoder, NULL, c, config);
    apr_hf_put_real(config, "query_pre_attn_scalar", 1 / (c->attn_scale * c->attn_scale));
    apr_hf_put_real_or_null(config, "attn_logit_softcapping", c->attn_softcap);
    apr_hf_put_real_or_null(config, "final_logit_softcapping", c->logit_softcap);
}

const struct apr_family apr_family_gemma2 = {
    .name = "gemma2",
    .gguf_arch = "gemma2",
    .model_type_apr = "Gemma2",
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

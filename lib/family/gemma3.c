/* Gemma 3, text: Gemma 2 without soft caps, with norms over heads of q and k; local layers turn by a theta of
 * their own. */
#include "table.h"

#include <math.h>

#include "decoder.h"
#include "hf_write.h"
#include "keys.h"
#include "rope.h"
#include "rules.h"

static const char *const hf_architectures[] = {"Gemma3ForCausalLM", NULL};
static const char *const hf_model_types[] = {"gemma3_text", NULL};

static const struct apr_tensor_rule rules[] = {
    APR_RULES_ENDS,       APR_RULES_NORMS_AROUND, APR_RULES_QKV,      APR_RULE_O,
    APR_RULES_QKV_BIASES, APR_RULE_O_BIAS,        APR_RULES_QK_NORMS, APR_RULES_GATED(APR_REQUIRED),
};
static const struct apr_tensor_form forms[] = {
    APR_FORMS_NORMS_AROUND,
    {.role = APR_ROLE_Q_NORM, .change = APR_CHANGE_PLUS_ONE},
    {.role = APR_ROLE_K_NORM, .change = APR_CHANGE_PLUS_ONE},
};

/* Defaults: transformers'. */
static const struct apr_decoder decoder = {
    .gguf_arch = "gemma3",
    .n_ctx_default = 131072,
    .head_dim = 256,
    .rope_theta = 1e6,
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
    static const struct apr_rope_defaults local = {
        .theta = 10000.0, .theta_key = "rope_local_base_freq", .ignores_scaling = true};
    TRY(apr_decoder_from_hf(&decoder, config, c, file, e));
    c->norm_plus_one = true;
    c->embed_scale = sqrt(c->n_hidden);
    TRY(read_scale(config, c, file, e));
    TRY(apr_softcap_from_hf(config, "attn_logit_softcapping", &c->attn_softcap, file, e));
    TRY(apr_softcap_from_hf(config, "final_logit_softcapping", &c->logit_softcap, file, e));
    TRY(apr_refuse_true(config, "use_bidirectional_attention", file, e));
    TRY(apr_rope_from_hf(config, "sliding_attention", &local, c, &c->rope_local, file, e));
    return apr_pattern_from_hf(config, 6, 4096, c, file, e);
}

static const struct apr_gguf_tok gguf_tok = {.no_space_prefix = true};

/* What readers of GGUF take for granted: by the head size, but for the 27B model. */
static double scale_of(const struct apr_config *c)
{
    return 1 / sqrt(c->n_layers == 62 ? c->n_hidden / c->n_heads : c->head_dim);
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
    c->rope_local = (struct apr_rope){.theta = 10000, .n_dims = c->rope.n_dims};
    TRY(apr_real_from_gguf(&decoder, kvs, "rope.freq_base_swa", &c->rope_local.theta, file, e));
    TRY(apr_rope_check(&c->rope_local, file, e));
    return apr_window_from_gguf(&decoder, kvs, 6, c, file, e);
}

static void to_gguf(const struct apr_config *c, const json_t *hf_config, uint32_t file_type,
                    struct apr_kvs *kvs)
{
    static apr_key_fn *const keys[] = {APR_KEYS_COMMON, apr_key_softcap_final, apr_key_window_6, key_scale,
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

const struct apr_family apr_family_gemma3 = {
    .name = "gemma3",
    .gguf_arch = "gemma3",
    .model_type_apr = "Gemma3",
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

/* Gemma 2: norms before and behind every block, soft caps, every second layer sees a window. */
#include "table.h"

#include "decoder.h"
#include "gemma.h"
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

static enum apr_code from_hf(const json_t *config, struct apr_config *c, const char *file, struct apr_err *e)
{
    TRY(apr_gemma_scale_from_hf(config, c, file, e));
    c->attn_softcap = 50;
    c->logit_softcap = 30;
    TRY(apr_softcap_from_hf(config, "attn_logit_softcapping", &c->attn_softcap, file, e));
    return apr_softcap_from_hf(config, "final_logit_softcapping", &c->logit_softcap, file, e);
}

static const struct apr_gguf_tok gguf_tok = {.no_space_prefix = true};

#define N_LAYERS_27B 46u

static void key_scale(const struct apr_keys *k)
{
    apr_gemma_key_scale(k, N_LAYERS_27B);
}

static enum apr_code from_gguf(const struct apr_decoder *d, const struct apr_kvs *kvs, struct apr_config *c,
                               const char *file, struct apr_err *e)
{
    (void)d, (void)kvs, (void)file, (void)e;
    if (!(c->attn_scale > 0)) c->attn_scale = apr_gemma_scale(c, N_LAYERS_27B);
    return APR_OK;
}

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
    .window = APR_WINDOW_PATTERN,
    .window_pattern = 2,
    .window_default = 4096,
    .norm_plus_one = true,
    .embed_sqrt = true,
    .keys = keys,
    .more_from_hf = from_hf,
    .more_from_gguf = from_gguf,
    .more_to_hf = apr_gemma_to_hf,
};

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
    APR_DECODER_ROW(decoder),
    .gguf_tok = &gguf_tok,
    .rope_type = 2,
};

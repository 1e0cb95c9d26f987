/* Gemma 3, text: Gemma 2 without soft caps, with norms over heads of q and k; local layers turn by a theta of
 * their own. */
#include "table.h"

#include "decoder.h"
#include "gemma.h"
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

static enum apr_code from_hf(const json_t *config, struct apr_config *c, const char *file, struct apr_err *e)
{
    static const struct apr_rope_defaults local = {
        .theta = 10000.0, .theta_key = "rope_local_base_freq", .ignores_scaling = true};
    TRY(apr_gemma_scale_from_hf(config, c, file, e));
    TRY(apr_softcap_from_hf(config, "attn_logit_softcapping", &c->attn_softcap, file, e));
    TRY(apr_softcap_from_hf(config, "final_logit_softcapping", &c->logit_softcap, file, e));
    return apr_rope_from_hf(config, "sliding_attention", &local, c, &c->rope_local, file, e);
}

static const struct apr_gguf_tok gguf_tok = {.no_space_prefix = true};

#define N_LAYERS_27B 62u

static void key_scale(const struct apr_keys *k)
{
    apr_gemma_key_scale(k, N_LAYERS_27B);
}

static enum apr_code from_gguf(const struct apr_decoder *d, const struct apr_kvs *kvs, struct apr_config *c,
                               const char *file, struct apr_err *e)
{
    if (!(c->attn_scale > 0)) c->attn_scale = apr_gemma_scale(c, N_LAYERS_27B);
    c->rope_local = (struct apr_rope){.theta = 10000, .n_dims = c->rope.n_dims};
    TRY(apr_real_from_gguf(d, kvs, "rope.freq_base_swa", &c->rope_local.theta, file, e));
    return apr_rope_check(&c->rope_local, file, e);
}

static const char *const refused[] = {"use_bidirectional_attention", NULL};

static apr_key_fn *const keys[] = {APR_KEYS_COMMON, apr_key_softcap_final, apr_key_window_6, key_scale, NULL};

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
    .window = APR_WINDOW_PATTERN,
    .window_pattern = 6,
    .window_default = 4096,
    .norm_plus_one = true,
    .embed_sqrt = true,
    .refused = refused,
    .keys = keys,
    .more_from_hf = from_hf,
    .more_from_gguf = from_gguf,
    .more_to_hf = apr_gemma_to_hf,
};

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
    APR_DECODER_ROW(decoder),
    .gguf_tok = &gguf_tok,
    .rope_type = 2,
};

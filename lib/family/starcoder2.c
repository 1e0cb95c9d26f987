/* StarCoder2: LayerNorm, biases, a feed-forward block without gate, a sliding window. */
#include "table.h"

#include "decoder.h"
#include "hf_write.h"
#include "keys.h"
#include "rules.h"

static const char *const hf_architectures[] = {"Starcoder2ForCausalLM", NULL};
static const char *const hf_model_types[] = {"starcoder2", NULL};

static const struct apr_tensor_rule rules[] = {
    APR_RULES_ENDS,
    APR_RULES_NORMS,
    APR_RULES_QKV,
    APR_RULE_O,
    APR_RULES_NORM_BIASES,
    APR_RULES_QKV_BIASES,
    APR_RULE_O_BIAS,
    {APR_ROLE_UP,
     APR_L "mlp.c_fc.weight",
     APR_B "ffn_up.weight",
     {APR_DIM_INTER, APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_UP_BIAS, APR_L "mlp.c_fc.bias", APR_B "ffn_up.bias", {APR_DIM_INTER}, APR_IF_MLP_BIAS},
    {APR_ROLE_DOWN,
     APR_L "mlp.c_proj.weight",
     APR_B "ffn_down.weight",
     {APR_DIM_HIDDEN, APR_DIM_INTER},
     APR_REQUIRED},
    {APR_ROLE_DOWN_BIAS, APR_L "mlp.c_proj.bias", APR_B "ffn_down.bias", {APR_DIM_HIDDEN}, APR_IF_MLP_BIAS},
};

/* Defaults: transformers'. */
static const struct apr_decoder decoder = {
    .gguf_arch = "starcoder2",
    .n_ctx_default = 4096,
    .rope_theta = 10000.0,
    .norm_eps = 1e-5,
    .tied = true,
    .eps_key = "norm_epsilon",
    .act_default = "gelu_pytorch_tanh",
    .norm = APR_NORM_LAYER,
    .qkv_bias_key = "use_bias",
    .o_bias_key = "use_bias",
    .mlp_bias_key = "use_bias",
    .qkv_bias = true,
    .o_bias = true,
    .mlp_bias = true,
    .activation = APR_GELU_TANH,
};

static enum apr_code from_hf(const json_t *config, struct apr_config *c, const char *file, struct apr_err *e)
{
    TRY(apr_decoder_from_hf(&decoder, config, c, file, e));
    return apr_window_from_hf(config, 0, c, file, e);
}

static enum apr_code from_gguf(const struct apr_kvs *kvs, struct apr_config *c, const char *file,
                               struct apr_err *e)
{
    TRY(apr_decoder_from_gguf(&decoder, kvs, c, file, e));
    return apr_window_from_gguf(&decoder, kvs, 0, c, file, e);
}

static void to_gguf(const struct apr_config *c, const json_t *hf_config, uint32_t file_type,
                    struct apr_kvs *kvs)
{
    static apr_key_fn *const keys[] = {APR_KEYS_COMMON, apr_key_window, NULL};
    apr_keys_write(
        keys, &(struct apr_keys){
                  .arch = decoder.gguf_arch, .c = c, .hf = hf_config, .file_type = file_type, .kvs = kvs});
}

static void to_hf(const struct apr_config *c, json_t *config)
{
    apr_decoder_to_hf(&decoder, NULL, c, config);
}

const struct apr_family apr_family_starcoder2 = {
    .name = "starcoder2",
    .gguf_arch = "starcoder2",
    .model_type_apr = "StarCoder2",
    .hf_architectures = hf_architectures,
    .hf_model_types = hf_model_types,
    .rules = rules,
    .n_rules = sizeof rules / sizeof rules[0],
    .from_hf = from_hf,
    .from_gguf = from_gguf,
    .to_gguf = to_gguf,
    .to_hf = to_hf,
    .rope_type = 2,
};

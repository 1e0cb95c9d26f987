/* StableLM 2: LayerNorm, a part of each head turns, biases of q, k and v. */
#include "table.h"

#include "decoder.h"
#include "hf_write.h"
#include "keys.h"
#include "rules.h"

static const char *const hf_architectures[] = {"StableLmForCausalLM", NULL};
static const char *const hf_model_types[] = {"stablelm", NULL};

static const struct apr_tensor_rule rules[] = {
    APR_RULES_ENDS,
    APR_RULES_NORMS,
    APR_RULES_QKV,
    APR_RULE_O,
    APR_RULES_NORM_BIASES,
    APR_RULES_QKV_BIASES,
    APR_RULES_GATED(APR_REQUIRED),
};

/* Defaults: transformers'. */
static const struct apr_decoder decoder = {
    .gguf_arch = "stablelm",
    .n_ctx_default = 4096,
    .rope_theta = 10000.0,
    .rope_partial = 0.25,
    .norm_eps = 1e-5,
    .eps_key = "layer_norm_eps",
    .act_default = "silu",
    .norm = APR_NORM_LAYER,
    .qkv_bias_key = "use_qkv_bias",
    .is_gated = true,
};

static enum apr_code from_hf(const json_t *config, struct apr_config *c, const char *file, struct apr_err *e)
{
    TRY(apr_refuse_true(config, "qk_layernorm", file, e));
    TRY(apr_refuse_true(config, "use_parallel_residual", file, e));
    return apr_decoder_from_hf(&decoder, config, c, file, e);
}

static void key_parallel(const struct apr_keys *k)
{
    apr_kvs_bool(k->kvs, "stablelm.use_parallel_residual", k->c->is_parallel);
}

static enum apr_code from_gguf(const struct apr_kvs *kvs, struct apr_config *c, const char *file,
                               struct apr_err *e)
{
    return apr_decoder_from_gguf(&decoder, kvs, c, file, e);
}

static void to_gguf(const struct apr_config *c, const json_t *hf_config, uint32_t file_type,
                    struct apr_kvs *kvs)
{
    static apr_key_fn *const keys[] = {apr_key_context,
                                       apr_key_hidden,
                                       apr_key_blocks,
                                       apr_key_inter,
                                       apr_key_rope_dims,
                                       apr_key_heads,
                                       apr_key_heads_kv,
                                       key_parallel,
                                       apr_key_eps,
                                       apr_key_file_type,
                                       apr_key_rope_scaling,
                                       apr_key_freq_base_odd,
                                       NULL};
    apr_keys_write(
        keys, &(struct apr_keys){
                  .arch = decoder.gguf_arch, .c = c, .hf = hf_config, .file_type = file_type, .kvs = kvs});
}

static void to_hf(const struct apr_config *c, json_t *config)
{
    apr_decoder_to_hf(&decoder, NULL, c, config);
    json_object_set_new(config, "use_parallel_residual", json_false());
    json_object_set_new(config, "qk_layernorm", json_false());
}

const struct apr_family apr_family_stablelm = {
    .name = "stablelm",
    .gguf_arch = "stablelm",
    .model_type_apr = "StableLm",
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

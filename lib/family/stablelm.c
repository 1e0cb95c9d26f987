/* StableLM 2: LayerNorm, a part of each head turns, biases of q, k and v. */
#include "table.h"

#include "decoder.h"
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

static void key_parallel(const struct apr_keys *k)
{
    apr_kvs_bool(k->kvs, "stablelm.use_parallel_residual", k->c->is_parallel);
}

static const char *const refused[] = {"qk_layernorm", "use_parallel_residual", NULL};

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
    .refused = refused,
    .keys = keys,
};

const struct apr_family apr_family_stablelm = {
    .name = "stablelm",
    .gguf_arch = "stablelm",
    .model_type_apr = "StableLm",
    .hf_architectures = hf_architectures,
    .hf_model_types = hf_model_types,
    .rules = rules,
    .n_rules = sizeof rules / sizeof rules[0],
    APR_DECODER_ROW(decoder),
    .rope_type = 2,
};

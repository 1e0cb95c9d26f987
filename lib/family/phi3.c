/* Phi-3 and Phi-4: Llama with q, k, v in one matrix and gate, up in another; longrope. */
#include "table.h"

#include "decoder.h"
#include "rules.h"

static const char *const hf_architectures[] = {"Phi3ForCausalLM", NULL};
static const char *const hf_model_types[] = {"phi3", NULL};

static const struct apr_tensor_rule rules[] = {
    APR_RULES_ENDS,
    APR_RULES_NORMS,
    {APR_ROLE_QKV,
     APR_L "self_attn.qkv_proj.weight",
     APR_B "attn_qkv.weight",
     {APR_DIM_QKV, APR_DIM_HIDDEN},
     APR_REQUIRED},
    APR_RULE_O,
    {APR_ROLE_GATE_UP,
     APR_L "mlp.gate_up_proj.weight",
     APR_B "ffn_up.weight",
     {APR_DIM_GATE_UP, APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_DOWN,
     APR_L "mlp.down_proj.weight",
     APR_B "ffn_down.weight",
     {APR_DIM_HIDDEN, APR_DIM_INTER},
     APR_REQUIRED},
    {APR_ROLE_ROPE_LONG,
     "rope_factors_long.weight",
     "rope_factors_long.weight",
     {APR_DIM_ROPE_PAIRS},
     APR_OPTIONAL},
    {APR_ROLE_ROPE_SHORT,
     "rope_factors_short.weight",
     "rope_factors_short.weight",
     {APR_DIM_ROPE_PAIRS},
     APR_OPTIONAL},
};

/* Defaults: transformers'. */
static const struct apr_decoder decoder = {
    .gguf_arch = "phi3",
    .n_ctx_default = 4096,
    .rope_theta = 10000.0,
    .norm_eps = 1e-5,
    .act_default = "silu",
    .is_gated = true,
};

static enum apr_code from_hf(const json_t *config, struct apr_config *c, const char *file, struct apr_err *e)
{
    TRY(apr_decoder_from_hf(&decoder, config, c, file, e));
    return apr_window_from_hf(config, 0, c, file, e);
}

static const struct apr_gguf_tok gguf_tok = {.added_scores = true};

const struct apr_family apr_family_phi3 = {
    .name = "phi3",
    .gguf_arch = "phi3",
    .model_type_apr = "Phi3",
    .hf_architectures = hf_architectures,
    .hf_model_types = hf_model_types,
    .rules = rules,
    .n_rules = sizeof rules / sizeof rules[0],
    .from_hf = from_hf,
    .gguf_tok = &gguf_tok,
    .rope_type = 2,
};

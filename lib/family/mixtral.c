/* Mixtral: Mistral with experts in every layer. */
#include "table.h"

#include "decoder.h"
#include "keys.h"
#include "moe.h"
#include "rules.h"

static const char *const hf_architectures[] = {"MixtralForCausalLM", NULL};
static const char *const hf_model_types[] = {"mixtral", NULL};

static const struct apr_tensor_rule rules[] = {
    APR_RULES_ENDS,
    APR_RULES_NORMS,
    APR_RULES_QKV,
    APR_RULE_ROPE_FREQS,
    APR_RULE_O,
    {APR_ROLE_ROUTER,
     APR_L "block_sparse_moe.gate.weight",
     APR_B "ffn_gate_inp.weight",
     {APR_DIM_EXPERTS, APR_DIM_HIDDEN},
     APR_IF_MOE},
    {APR_ROLE_GATE_EXPS,
     APR_L "block_sparse_moe.experts.w1.weight",
     APR_B "ffn_gate_exps.weight",
     {APR_DIM_EXPERTS, APR_DIM_INTER_EXPERT, APR_DIM_HIDDEN},
     APR_IF_MOE},
    {APR_ROLE_DOWN_EXPS,
     APR_L "block_sparse_moe.experts.w2.weight",
     APR_B "ffn_down_exps.weight",
     {APR_DIM_EXPERTS, APR_DIM_HIDDEN, APR_DIM_INTER_EXPERT},
     APR_IF_MOE},
    {APR_ROLE_UP_EXPS,
     APR_L "block_sparse_moe.experts.w3.weight",
     APR_B "ffn_up_exps.weight",
     {APR_DIM_EXPERTS, APR_DIM_INTER_EXPERT, APR_DIM_HIDDEN},
     APR_IF_MOE},
};
static const struct apr_tensor_form forms[] = {
    APR_FORMS_PAIRS,
    APR_FORM_ROPE_FREQS,
    {.role = APR_ROLE_GATE_EXPS, .part = APR_L "block_sparse_moe.experts.{e}.w1.weight"},
    {.role = APR_ROLE_DOWN_EXPS, .part = APR_L "block_sparse_moe.experts.{e}.w2.weight"},
    {.role = APR_ROLE_UP_EXPS, .part = APR_L "block_sparse_moe.experts.{e}.w3.weight"},
};

static const struct apr_moe_keys moe = {.n_experts = "num_local_experts", .n_inter = "intermediate_size"};

static const struct apr_gguf_tok gguf_tok = {.prefix_space = true};

/* llama.cpp has one name for Llama, Mistral and Mixtral. */
static bool claims(const struct apr_kvs *kvs)
{
    uint64_t v = 0;
    struct apr_err ignored;
    return apr_kv_get_u64(kvs, "llama.expert_count", 0, UINT32_MAX, &v, "", &ignored) == APR_OK && v > 0;
}

static apr_key_fn *const keys[] = {APR_KEYS_COMMON, apr_key_vocab, apr_key_rope_dims, apr_key_window, NULL};

/* Defaults: transformers'. */
static const struct apr_decoder decoder = {
    .gguf_arch = "llama",
    .n_ctx_default = 131072,
    .rope_theta = 1e6,
    .norm_eps = 1e-5,
    .act_default = "silu",
    .is_gated = true,
    .gguf_pairs = true,
    .norm_topk = true,
    .window = APR_WINDOW_ALL,
    .moe = &moe,
    .keys = keys,
};

const struct apr_family apr_family_mixtral = {
    .name = "mixtral",
    .gguf_arch = "llama",
    .model_type_apr = "Mixtral",
    .hf_architectures = hf_architectures,
    .hf_model_types = hf_model_types,
    .rules = rules,
    .n_rules = sizeof rules / sizeof rules[0],
    .forms = forms,
    .n_forms = sizeof forms / sizeof forms[0],
    APR_DECODER_ROW(decoder),
    .gguf_tok = &gguf_tok,
    .claims = claims,
    .rope_type = 2,
};

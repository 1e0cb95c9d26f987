/* Phi-3 and Phi-4: Llama with q, k, v in one matrix and gate, up in another; longrope. */
#include "table.h"

#include <math.h>

#include "../json.h"
#include "decoder.h"
#include "hf_write.h"
#include "keys.h"
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
     APR_GENERATED "rope_factors_long.weight",
     "rope_factors_long.weight",
     {APR_DIM_ROPE_PAIRS},
     APR_OPTIONAL},
    {APR_ROLE_ROPE_SHORT,
     APR_GENERATED "rope_factors_short.weight",
     "rope_factors_short.weight",
     {APR_DIM_ROPE_PAIRS},
     APR_OPTIONAL},
};

static const struct apr_tensor_form forms[] = {
    {.role = APR_ROLE_ROPE_LONG, .change = APR_CHANGE_DROP},
    {.role = APR_ROLE_ROPE_SHORT, .change = APR_CHANGE_DROP},
};

static enum apr_code from_hf(const json_t *config, struct apr_config *c, const char *file, struct apr_err *e)
{
    uint64_t n_orig = 4096;
    TRY(apr_json_u64(config, "original_max_position_embeddings", 1, UINT32_MAX, &n_orig, file, e));
    if (c->rope.n_ctx_orig == 0) c->rope.n_ctx_orig = (uint32_t)n_orig;
    return APR_OK;
}

static const struct apr_gguf_tok gguf_tok = {.added_scores = true};

/* What multiplies cos and sin: given, or by the length that the model was stretched to (longrope's paper,
 * Ding et al. 2024). */
static void to_gguf_first(const struct apr_config *c, struct apr_kvs *kvs)
{
    const struct apr_rope *r = &c->rope;
    double v = r->attn_factor;
    if (r->scaling != APR_ROPE_LONG) return;
    if (!(v > 0)) v = r->factor > 1 ? sqrt(1 + log(r->factor) / log(r->n_ctx_orig)) : 1;
    apr_kvs_f32(kvs, "phi3.rope.scaling.attn_factor", (float)v);
}

static void to_hf(const struct apr_config *c, json_t *config)
{
    apr_hf_put_uint(config, "original_max_position_embeddings",
                    c->rope.n_ctx_orig ? c->rope.n_ctx_orig : c->n_ctx_train);
}

static apr_key_fn *const keys[] = {apr_key_context,
                                   apr_key_rope_orig,
                                   apr_key_hidden,
                                   apr_key_inter,
                                   apr_key_blocks,
                                   apr_key_heads,
                                   apr_key_heads_kv,
                                   apr_key_eps,
                                   apr_key_rope_dims,
                                   apr_key_freq_base,
                                   apr_key_file_type,
                                   apr_key_window_always,
                                   NULL};

/* Defaults: transformers'. */
static const struct apr_decoder decoder = {
    .gguf_arch = "phi3",
    .n_ctx_default = 4096,
    .rope_theta = 10000.0,
    .norm_eps = 1e-5,
    .act_default = "silu",
    .is_gated = true,
    .window = APR_WINDOW_ALL,
    .keys = keys,
    .more_from_hf = from_hf,
    .more_to_hf = to_hf,
};

const struct apr_family apr_family_phi3 = {
    .name = "phi3",
    .gguf_arch = "phi3",
    .model_type_apr = "Phi3",
    .hf_architectures = hf_architectures,
    .hf_model_types = hf_model_types,
    .rules = rules,
    .n_rules = sizeof rules / sizeof rules[0],
    .forms = forms,
    .n_forms = sizeof forms / sizeof forms[0],
    APR_DECODER_ROW(decoder),
    .gguf_tok = &gguf_tok,
    .to_gguf_first = to_gguf_first,
    .rope_type = 2,
};

/* Qwen2 and Qwen2.5: GQA, RMSNorm, SwiGLU, half-split RoPE, biases on q, k and v only. */
#include "table.h"

#include "decoder.h"

static const char *const hf_architectures[] = {"Qwen2ForCausalLM", NULL};
static const char *const hf_model_types[] = {"qwen2", NULL};

#define L "model.layers.{n}."
/* Shapes: families facts, 3; GGUF names: llama.cpp's tensor name map. */
static const struct apr_tensor_rule rules[] = {
    {APR_ROLE_EMBED,
     "model.embed_tokens.weight",
     "token_embd.weight",
     {APR_DIM_VOCAB, APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_LM_HEAD, "lm_head.weight", "output.weight", {APR_DIM_VOCAB, APR_DIM_HIDDEN}, APR_UNLESS_TIED},
    {APR_ROLE_FINAL_NORM, "model.norm.weight", "output_norm.weight", {APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_ATTN_NORM,
     L "input_layernorm.weight",
     "blk.{n}.attn_norm.weight",
     {APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_Q,
     L "self_attn.q_proj.weight",
     "blk.{n}.attn_q.weight",
     {APR_DIM_Q, APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_Q_BIAS, L "self_attn.q_proj.bias", "blk.{n}.attn_q.bias", {APR_DIM_Q}, APR_REQUIRED},
    {APR_ROLE_K,
     L "self_attn.k_proj.weight",
     "blk.{n}.attn_k.weight",
     {APR_DIM_KV, APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_K_BIAS, L "self_attn.k_proj.bias", "blk.{n}.attn_k.bias", {APR_DIM_KV}, APR_REQUIRED},
    {APR_ROLE_V,
     L "self_attn.v_proj.weight",
     "blk.{n}.attn_v.weight",
     {APR_DIM_KV, APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_V_BIAS, L "self_attn.v_proj.bias", "blk.{n}.attn_v.bias", {APR_DIM_KV}, APR_REQUIRED},
    {APR_ROLE_O,
     L "self_attn.o_proj.weight",
     "blk.{n}.attn_output.weight",
     {APR_DIM_HIDDEN, APR_DIM_Q},
     APR_REQUIRED},
    {APR_ROLE_FFN_NORM,
     L "post_attention_layernorm.weight",
     "blk.{n}.ffn_norm.weight",
     {APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_GATE,
     L "mlp.gate_proj.weight",
     "blk.{n}.ffn_gate.weight",
     {APR_DIM_INTER, APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_UP,
     L "mlp.up_proj.weight",
     "blk.{n}.ffn_up.weight",
     {APR_DIM_INTER, APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_DOWN,
     L "mlp.down_proj.weight",
     "blk.{n}.ffn_down.weight",
     {APR_DIM_HIDDEN, APR_DIM_INTER},
     APR_REQUIRED},
};
#undef L

/* Defaults: transformers' Qwen2Config. */
static const struct apr_decoder decoder = {
    .gguf_arch = "qwen2",
    .hidden_act = "silu",
    .n_ctx_default = 32768,
    .rope_theta_default = 10000.0,
    .norm_eps_default = 1e-6,
};

static enum apr_code from_hf(const json_t *config, struct apr_config *c, const char *file, struct apr_err *e)
{
    return apr_decoder_from_hf(&decoder, config, c, file, e);
}

static enum apr_code from_gguf(const struct apr_kvs *kvs, struct apr_config *c, const char *file,
                               struct apr_err *e)
{
    return apr_decoder_from_gguf(&decoder, kvs, c, file, e);
}

static void to_gguf(const struct apr_config *c, const json_t *hf_config, uint32_t file_type,
                    struct apr_kvs *kvs)
{
    apr_decoder_to_gguf(&decoder, c, hf_config, kvs);
    apr_kvs_u32(kvs, "general.file_type", file_type);
}

const struct apr_family apr_family_qwen2 = {
    .name = "qwen2",
    .gguf_arch = "qwen2",
    .model_type_apr = "Qwen2",
    .hf_architectures = hf_architectures,
    .hf_model_types = hf_model_types,
    .rules = rules,
    .n_rules = sizeof rules / sizeof rules[0],
    .from_hf = from_hf,
    .from_gguf = from_gguf,
    .to_gguf = to_gguf,
    .rope_type = 2,
};

/* Whisper: an encoder over log-mel frames and a decoder with cross attention; LayerNorm first, GELU, learned
 * positions, biases but for the k projections. llama.cpp has no such architecture: the GGUF column names what
 * recipes of types look at, in the manner of its encoder-decoders; the family has no GGUF keys. */
#include "table.h"

#include <stddef.h>
#include <string.h>

#include "../json.h"
#include "decoder.h"

static const char *const hf_architectures[] = {"WhisperForConditionalGeneration", NULL};
static const char *const hf_model_types[] = {"whisper", NULL};

#define HE "model.encoder."
#define HD "model.decoder."
#define EL "model.encoder.layers.{n}."
#define DL "model.decoder.layers.{n}."
#define EB "enc.blk.{n}."
#define DB "dec.blk.{n}."
/* clang-format off: a row a line */
static const struct apr_tensor_rule rules[] = {
    {APR_ROLE_CONV1,
     HE "conv1.weight",
     "enc.conv1.weight",
     {APR_DIM_HIDDEN, APR_DIM_MELS, APR_DIM_CONV},
     APR_REQUIRED},
    {APR_ROLE_CONV1_BIAS, HE "conv1.bias", "enc.conv1.bias", {APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_CONV2,
     HE "conv2.weight",
     "enc.conv2.weight",
     {APR_DIM_HIDDEN, APR_DIM_HIDDEN, APR_DIM_CONV},
     APR_REQUIRED},
    {APR_ROLE_CONV2_BIAS, HE "conv2.bias", "enc.conv2.bias", {APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_ENC_POSITIONS,
     HE "embed_positions.weight",
     "enc.position_embd.weight",
     {APR_DIM_AUDIO, APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_ENC_FINAL_NORM,
     HE "layer_norm.weight",
     "enc.output_norm.weight",
     {APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_ENC_FINAL_NORM_BIAS,
     HE "layer_norm.bias",
     "enc.output_norm.bias",
     {APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_ENC_ATTN_NORM,
     EL "self_attn_layer_norm.weight",
     EB "attn_norm.weight",
     {APR_DIM_HIDDEN},
     APR_IN_ENCODER},
    {APR_ROLE_ENC_ATTN_NORM_BIAS,
     EL "self_attn_layer_norm.bias",
     EB "attn_norm.bias",
     {APR_DIM_HIDDEN},
     APR_IN_ENCODER},
    {APR_ROLE_ENC_Q,
     EL "self_attn.q_proj.weight",
     EB "attn_q.weight",
     {APR_DIM_HIDDEN, APR_DIM_HIDDEN},
     APR_IN_ENCODER},
    {APR_ROLE_ENC_Q_BIAS, EL "self_attn.q_proj.bias", EB "attn_q.bias", {APR_DIM_HIDDEN}, APR_IN_ENCODER},
    {APR_ROLE_ENC_K,
     EL "self_attn.k_proj.weight",
     EB "attn_k.weight",
     {APR_DIM_HIDDEN, APR_DIM_HIDDEN},
     APR_IN_ENCODER},
    {APR_ROLE_ENC_V,
     EL "self_attn.v_proj.weight",
     EB "attn_v.weight",
     {APR_DIM_HIDDEN, APR_DIM_HIDDEN},
     APR_IN_ENCODER},
    {APR_ROLE_ENC_V_BIAS, EL "self_attn.v_proj.bias", EB "attn_v.bias", {APR_DIM_HIDDEN}, APR_IN_ENCODER},
    {APR_ROLE_ENC_O,
     EL "self_attn.out_proj.weight",
     EB "attn_output.weight",
     {APR_DIM_HIDDEN, APR_DIM_HIDDEN},
     APR_IN_ENCODER},
    {APR_ROLE_ENC_O_BIAS,
     EL "self_attn.out_proj.bias",
     EB "attn_output.bias",
     {APR_DIM_HIDDEN},
     APR_IN_ENCODER},
    {APR_ROLE_ENC_FFN_NORM,
     EL "final_layer_norm.weight",
     EB "ffn_norm.weight",
     {APR_DIM_HIDDEN},
     APR_IN_ENCODER},
    {APR_ROLE_ENC_FFN_NORM_BIAS,
     EL "final_layer_norm.bias",
     EB "ffn_norm.bias",
     {APR_DIM_HIDDEN},
     APR_IN_ENCODER},
    {APR_ROLE_ENC_UP,
     EL "fc1.weight",
     EB "ffn_up.weight",
     {APR_DIM_INTER_ENC, APR_DIM_HIDDEN},
     APR_IN_ENCODER},
    {APR_ROLE_ENC_UP_BIAS, EL "fc1.bias", EB "ffn_up.bias", {APR_DIM_INTER_ENC}, APR_IN_ENCODER},
    {APR_ROLE_ENC_DOWN,
     EL "fc2.weight",
     EB "ffn_down.weight",
     {APR_DIM_HIDDEN, APR_DIM_INTER_ENC},
     APR_IN_ENCODER},
    {APR_ROLE_ENC_DOWN_BIAS, EL "fc2.bias", EB "ffn_down.bias", {APR_DIM_HIDDEN}, APR_IN_ENCODER},
    {APR_ROLE_EMBED,
     HD "embed_tokens.weight",
     "token_embd.weight",
     {APR_DIM_VOCAB, APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_POSITIONS,
     HD "embed_positions.weight",
     "dec.position_embd.weight",
     {APR_DIM_POSITIONS, APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_FINAL_NORM, HD "layer_norm.weight", "dec.output_norm.weight", {APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_FINAL_NORM_BIAS, HD "layer_norm.bias", "dec.output_norm.bias", {APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_ATTN_NORM,
     DL "self_attn_layer_norm.weight",
     DB "attn_norm.weight",
     {APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_ATTN_NORM_BIAS,
     DL "self_attn_layer_norm.bias",
     DB "attn_norm.bias",
     {APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_Q,
     DL "self_attn.q_proj.weight",
     DB "attn_q.weight",
     {APR_DIM_HIDDEN, APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_Q_BIAS, DL "self_attn.q_proj.bias", DB "attn_q.bias", {APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_K,
     DL "self_attn.k_proj.weight",
     DB "attn_k.weight",
     {APR_DIM_HIDDEN, APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_V,
     DL "self_attn.v_proj.weight",
     DB "attn_v.weight",
     {APR_DIM_HIDDEN, APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_V_BIAS, DL "self_attn.v_proj.bias", DB "attn_v.bias", {APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_O,
     DL "self_attn.out_proj.weight",
     DB "attn_output.weight",
     {APR_DIM_HIDDEN, APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_O_BIAS, DL "self_attn.out_proj.bias", DB "attn_output.bias", {APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_CROSS_NORM,
     DL "encoder_attn_layer_norm.weight",
     DB "cross_attn_norm.weight",
     {APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_CROSS_NORM_BIAS,
     DL "encoder_attn_layer_norm.bias",
     DB "cross_attn_norm.bias",
     {APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_CROSS_Q,
     DL "encoder_attn.q_proj.weight",
     DB "cross_attn_q.weight",
     {APR_DIM_HIDDEN, APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_CROSS_Q_BIAS,
     DL "encoder_attn.q_proj.bias",
     DB "cross_attn_q.bias",
     {APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_CROSS_K,
     DL "encoder_attn.k_proj.weight",
     DB "cross_attn_k.weight",
     {APR_DIM_HIDDEN, APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_CROSS_V,
     DL "encoder_attn.v_proj.weight",
     DB "cross_attn_v.weight",
     {APR_DIM_HIDDEN, APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_CROSS_V_BIAS,
     DL "encoder_attn.v_proj.bias",
     DB "cross_attn_v.bias",
     {APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_CROSS_O,
     DL "encoder_attn.out_proj.weight",
     DB "cross_attn_output.weight",
     {APR_DIM_HIDDEN, APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_CROSS_O_BIAS,
     DL "encoder_attn.out_proj.bias",
     DB "cross_attn_output.bias",
     {APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_FFN_NORM, DL "final_layer_norm.weight", DB "ffn_norm.weight", {APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_FFN_NORM_BIAS, DL "final_layer_norm.bias", DB "ffn_norm.bias", {APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_UP, DL "fc1.weight", DB "ffn_up.weight", {APR_DIM_INTER, APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_UP_BIAS, DL "fc1.bias", DB "ffn_up.bias", {APR_DIM_INTER}, APR_REQUIRED},
    {APR_ROLE_DOWN, DL "fc2.weight", DB "ffn_down.weight", {APR_DIM_HIDDEN, APR_DIM_INTER}, APR_REQUIRED},
    {APR_ROLE_DOWN_BIAS, DL "fc2.bias", DB "ffn_down.bias", {APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_LM_HEAD, "proj_out.weight", "output.weight", {APR_DIM_VOCAB, APR_DIM_HIDDEN}, APR_UNLESS_TIED},
};
/* clang-format on */
static const char *const prefixes[][2] = {{"", "model."}, {NULL, NULL}};

/* Every number in its own words; none has a default that a checkpoint relies on, but the vocabulary's kin. */
static const struct {
    const char *key;
    size_t off; /* of the uint32_t in struct apr_config */
    uint32_t max;
} fields[] = {
    {"d_model", offsetof(struct apr_config, n_hidden), 1u << 17},
    {"decoder_layers", offsetof(struct apr_config, n_layers), APR_MAX_LAYERS},
    {"encoder_layers", offsetof(struct apr_config, n_layers_enc), APR_MAX_LAYERS},
    {"decoder_attention_heads", offsetof(struct apr_config, n_heads), 1024},
    {"encoder_attention_heads", offsetof(struct apr_config, n_heads_enc), 1024},
    {"decoder_ffn_dim", offsetof(struct apr_config, n_inter), 1u << 20},
    {"encoder_ffn_dim", offsetof(struct apr_config, n_inter_enc), 1u << 20},
    {"num_mel_bins", offsetof(struct apr_config, n_mels), 1024},
    {"max_source_positions", offsetof(struct apr_config, n_ctx_audio), 1u << 20},
    {"max_target_positions", offsetof(struct apr_config, n_positions), 1u << 20},
    {"vocab_size", offsetof(struct apr_config, n_vocab), 1u << 22},
};

static enum apr_code activation(const json_t *config, struct apr_config *c, const char *file,
                                struct apr_err *e)
{
    const char *name = "gelu";
    TRY(apr_json_str(config, "activation_function", &name, file, e));
    if (strcmp(name, "gelu") != 0)
        return apr_fail(e, APR_ELOAD, "%s: $.activation_function: activation \"%.64s\" is not supported",
                        file, name);
    c->activation = APR_GELU;
    return APR_OK;
}

static enum apr_code from_hf(const struct apr_family *f, const json_t *config, struct apr_config *c,
                             const char *file, struct apr_err *e)
{
    (void)f;
    *c = (struct apr_config){.norm = APR_NORM_LAYER, .norm_eps = 1e-5, .tied = true};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        uint64_t v = 0;
        TRY(apr_json_u64(config, fields[i].key, 1, fields[i].max, &v, file, e));
        if (!v)
            return apr_fail(e, APR_EFORMAT, "%s: $.%s: missing; expected an integer from 1 to %u", file,
                            fields[i].key, fields[i].max);
        *(uint32_t *)(void *)((char *)c + fields[i].off) = (uint32_t)v;
    }
    if (c->n_hidden % c->n_heads || c->n_hidden % c->n_heads_enc)
        return apr_fail(e, APR_EFORMAT, "%s: $.d_model: %u is no multiple of %u and %u heads", file,
                        c->n_hidden, c->n_heads, c->n_heads_enc);
    c->n_heads_kv = c->n_heads;
    c->head_dim = c->n_hidden / c->n_heads;
    c->n_ctx_train = c->n_positions;
    c->qkv_bias = c->o_bias = c->mlp_bias = true;
    TRY(apr_json_bool(config, "tie_word_embeddings", &c->tied, file, e));
    TRY(apr_refuse_true(config, "scale_embedding", file, e));
    return activation(config, c, file, e);
}

const struct apr_family apr_family_whisper = {
    .name = "whisper",
    .gguf_arch = "whisper",
    .model_type_apr = "Whisper",
    .hf_architectures = hf_architectures,
    .hf_model_types = hf_model_types,
    .rules = rules,
    .n_rules = sizeof rules / sizeof rules[0],
    .prefixes = prefixes,
    .from_hf = from_hf,
    .rope_type = 0,
};

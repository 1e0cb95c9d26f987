/* GPT-2: LayerNorm, learned positions, biases everywhere; matrices are stored [in, out]. */
#include "table.h"

#include "../json.h"
#include "decoder.h"
#include "keys.h"
#include "rules.h"

static const char *const hf_architectures[] = {"GPT2LMHeadModel", NULL};
static const char *const hf_model_types[] = {"gpt2", NULL};

#define H "transformer.h.{n}."
static const struct apr_tensor_rule rules[] = {
    {APR_ROLE_EMBED,
     "transformer.wte.weight",
     "token_embd.weight",
     {APR_DIM_VOCAB, APR_DIM_HIDDEN},
     APR_REQUIRED},
    APR_RULE_LM_HEAD,
    {APR_ROLE_POSITIONS,
     "transformer.wpe.weight",
     "position_embd.weight",
     {APR_DIM_POSITIONS, APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_FINAL_NORM, "transformer.ln_f.weight", "output_norm.weight", {APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_FINAL_NORM_BIAS, "transformer.ln_f.bias", "output_norm.bias", {APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_ATTN_NORM, H "ln_1.weight", APR_B "attn_norm.weight", {APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_ATTN_NORM_BIAS, H "ln_1.bias", APR_B "attn_norm.bias", {APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_FFN_NORM, H "ln_2.weight", APR_B "ffn_norm.weight", {APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_FFN_NORM_BIAS, H "ln_2.bias", APR_B "ffn_norm.bias", {APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_QKV,
     H "attn.c_attn.weight",
     APR_B "attn_qkv.weight",
     {APR_DIM_QKV, APR_DIM_HIDDEN},
     APR_REQUIRED},
    {APR_ROLE_QKV_BIAS, H "attn.c_attn.bias", APR_B "attn_qkv.bias", {APR_DIM_QKV}, APR_REQUIRED},
    {APR_ROLE_O,
     H "attn.c_proj.weight",
     APR_B "attn_output.weight",
     {APR_DIM_HIDDEN, APR_DIM_Q},
     APR_REQUIRED},
    {APR_ROLE_O_BIAS, H "attn.c_proj.bias", APR_B "attn_output.bias", {APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_UP, H "mlp.c_fc.weight", APR_B "ffn_up.weight", {APR_DIM_INTER, APR_DIM_HIDDEN}, APR_REQUIRED},
    {APR_ROLE_UP_BIAS, H "mlp.c_fc.bias", APR_B "ffn_up.bias", {APR_DIM_INTER}, APR_REQUIRED},
    {APR_ROLE_DOWN,
     H "mlp.c_proj.weight",
     APR_B "ffn_down.weight",
     {APR_DIM_HIDDEN, APR_DIM_INTER},
     APR_REQUIRED},
    {APR_ROLE_DOWN_BIAS, H "mlp.c_proj.bias", APR_B "ffn_down.bias", {APR_DIM_HIDDEN}, APR_REQUIRED},
};
static const struct apr_tensor_form forms[] = {
    {.role = APR_ROLE_QKV, .is_turned = true},
    {.role = APR_ROLE_O, .is_turned = true},
    {.role = APR_ROLE_UP, .is_turned = true},
    {.role = APR_ROLE_DOWN, .is_turned = true},
};
static const char *const prefixes[][2] = {{"", "transformer."}, {NULL, NULL}};
/* The causal mask and its value, which older checkpoints store. */
static const char *const dropped[] = {H "attn.bias", H "attn.masked_bias", NULL};

static enum apr_code from_hf(const json_t *config, struct apr_config *c, const char *file, struct apr_err *e)
{
    bool scaled = true;
    TRY(apr_json_bool(config, "scale_attn_weights", &scaled, file, e));
    if (!scaled) c->attn_scale = 1;
    return APR_OK;
}

/* GGUF's gpt2 scales by the head size; another scale has a key of its own. */
static void key_scale(const struct apr_keys *k)
{
    apr_key_attn_scale(k);
}

static void to_hf(const struct apr_config *c, json_t *config)
{
    if (c->attn_scale > 0) json_object_set_new(config, "scale_attn_weights", json_false());
}

static const char *const refused[] = {"scale_attn_by_inverse_layer_idx", "add_cross_attention", NULL};

static apr_key_fn *const keys[] = {apr_key_blocks,    apr_key_context, apr_key_hidden,
                                   apr_key_inter,     apr_key_heads,   apr_key_eps,
                                   apr_key_file_type, key_scale,       NULL};

/* Defaults: transformers'. */
static const struct apr_decoder decoder = {
    .gguf_arch = "gpt2",
    .n_ctx_default = 1024,
    .norm_eps = 1e-5,
    .tied = true,
    .old_names = true,
    .eps_key = "layer_norm_epsilon",
    .act_key = "activation_function",
    .act_default = "gelu_new",
    .norm = APR_NORM_LAYER,
    .qkv_bias = true,
    .o_bias = true,
    .mlp_bias = true,
    .activation = APR_GELU_TANH,
    .learned_positions = true,
    .refused = refused,
    .keys = keys,
    .more_from_hf = from_hf,
    .more_to_hf = to_hf,
};

const struct apr_family apr_family_gpt2 = {
    .name = "gpt2",
    .gguf_arch = "gpt2",
    .model_type_apr = "Gpt2",
    .hf_architectures = hf_architectures,
    .hf_model_types = hf_model_types,
    .rules = rules,
    .n_rules = sizeof rules / sizeof rules[0],
    .forms = forms,
    .n_forms = sizeof forms / sizeof forms[0],
    .prefixes = prefixes,
    .dropped = dropped,
    APR_DECODER_ROW(decoder),
    .rope_type = 2,
};

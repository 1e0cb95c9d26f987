/* Rules that decoders share: rows for the rule tables of family files. Names are Hugging Face's and
 * llama.cpp's (gguf-export facts, 5.1); shapes are [out, in].
 *
 *     static const struct apr_tensor_rule rules[] = {APR_RULES_ENDS, APR_RULES_QKV,
 * APR_RULES_GATED(APR_REQUIRED)};
 */
#ifndef APR_RULES_H
#define APR_RULES_H

#include "family.h"

#define APR_L "model.layers.{n}."
#define APR_B "blk.{n}."

#define APR_RULE_EMBED                                                                                       \
    {                                                                                                        \
        APR_ROLE_EMBED, "model.embed_tokens.weight", "token_embd.weight", {APR_DIM_VOCAB, APR_DIM_HIDDEN},   \
            APR_REQUIRED                                                                                     \
    }
#define APR_RULE_LM_HEAD                                                                                     \
    {                                                                                                        \
        APR_ROLE_LM_HEAD, "lm_head.weight", "output.weight", {APR_DIM_VOCAB, APR_DIM_HIDDEN},                \
            APR_UNLESS_TIED                                                                                  \
    }
#define APR_RULES_ENDS                                                                                       \
    APR_RULE_EMBED, APR_RULE_LM_HEAD,                                                                        \
    {                                                                                                        \
        APR_ROLE_FINAL_NORM, "model.norm.weight", "output_norm.weight", {APR_DIM_HIDDEN}, APR_REQUIRED       \
    }

/* Tables that GGUF has and checkpoints have in config.json; the name sorts before every other. */
#define APR_GENERATED "generated."
#define APR_RULE_ROPE_FREQS                                                                                  \
    {                                                                                                        \
        APR_ROLE_ROPE_FREQS, APR_GENERATED "rope_freqs.weight", "rope_freqs.weight", {APR_DIM_ROPE_PAIRS},   \
            APR_OPTIONAL                                                                                     \
    }
#define APR_FORM_ROPE_FREQS                                                                                  \
    {                                                                                                        \
        .role = APR_ROLE_ROPE_FREQS, .change = APR_CHANGE_DROP                                               \
    }

#define APR_RULE_ATTN_NORM                                                                                   \
    {                                                                                                        \
        APR_ROLE_ATTN_NORM, APR_L "input_layernorm.weight", APR_B "attn_norm.weight", {APR_DIM_HIDDEN},      \
            APR_REQUIRED                                                                                     \
    }
#define APR_RULE_FFN_NORM                                                                                    \
    {                                                                                                        \
        APR_ROLE_FFN_NORM, APR_L "post_attention_layernorm.weight", APR_B "ffn_norm.weight",                 \
            {APR_DIM_HIDDEN}, APR_REQUIRED                                                                   \
    }
#define APR_RULES_NORMS APR_RULE_ATTN_NORM, APR_RULE_FFN_NORM
#define APR_RULES_NORM_BIASES                                                                                \
    {APR_ROLE_ATTN_NORM_BIAS,                                                                                \
     APR_L "input_layernorm.bias",                                                                           \
     APR_B "attn_norm.bias",                                                                                 \
     {APR_DIM_HIDDEN},                                                                                       \
     APR_REQUIRED},                                                                                          \
        {APR_ROLE_FFN_NORM_BIAS,                                                                             \
         APR_L "post_attention_layernorm.bias",                                                              \
         APR_B "ffn_norm.bias",                                                                              \
         {APR_DIM_HIDDEN},                                                                                   \
         APR_REQUIRED},                                                                                      \
    {                                                                                                        \
        APR_ROLE_FINAL_NORM_BIAS, "model.norm.bias", "output_norm.bias", {APR_DIM_HIDDEN}, APR_REQUIRED      \
    }

#define APR_RULE_O                                                                                           \
    {                                                                                                        \
        APR_ROLE_O, APR_L "self_attn.o_proj.weight", APR_B "attn_output.weight",                             \
            {APR_DIM_HIDDEN, APR_DIM_O_IN}, APR_REQUIRED                                                     \
    }
#define APR_RULES_QKV                                                                                        \
    {APR_ROLE_Q,                                                                                             \
     APR_L "self_attn.q_proj.weight",                                                                        \
     APR_B "attn_q.weight",                                                                                  \
     {APR_DIM_Q, APR_DIM_HIDDEN},                                                                            \
     APR_REQUIRED},                                                                                          \
        {APR_ROLE_K,                                                                                         \
         APR_L "self_attn.k_proj.weight",                                                                    \
         APR_B "attn_k.weight",                                                                              \
         {APR_DIM_KV, APR_DIM_HIDDEN},                                                                       \
         APR_REQUIRED},                                                                                      \
    {                                                                                                        \
        APR_ROLE_V, APR_L "self_attn.v_proj.weight", APR_B "attn_v.weight", {APR_DIM_KV, APR_DIM_HIDDEN},    \
            APR_REQUIRED                                                                                     \
    }
#define APR_RULES_QKV_BIASES                                                                                 \
    {APR_ROLE_Q_BIAS, APR_L "self_attn.q_proj.bias", APR_B "attn_q.bias", {APR_DIM_Q}, APR_IF_QKV_BIAS},     \
        {APR_ROLE_K_BIAS,                                                                                    \
         APR_L "self_attn.k_proj.bias",                                                                      \
         APR_B "attn_k.bias",                                                                                \
         {APR_DIM_KV},                                                                                       \
         APR_IF_QKV_BIAS},                                                                                   \
    {                                                                                                        \
        APR_ROLE_V_BIAS, APR_L "self_attn.v_proj.bias", APR_B "attn_v.bias", {APR_DIM_KV}, APR_IF_QKV_BIAS   \
    }
#define APR_RULE_O_BIAS                                                                                      \
    {                                                                                                        \
        APR_ROLE_O_BIAS, APR_L "self_attn.o_proj.bias", APR_B "attn_output.bias", {APR_DIM_HIDDEN},          \
            APR_IF_O_BIAS                                                                                    \
    }
#define APR_RULES_QK_NORMS                                                                                   \
    {APR_ROLE_Q_NORM,                                                                                        \
     APR_L "self_attn.q_norm.weight",                                                                        \
     APR_B "attn_q_norm.weight",                                                                             \
     {APR_DIM_HEAD},                                                                                         \
     APR_REQUIRED},                                                                                          \
    {                                                                                                        \
        APR_ROLE_K_NORM, APR_L "self_attn.k_norm.weight", APR_B "attn_k_norm.weight", {APR_DIM_HEAD},        \
            APR_REQUIRED                                                                                     \
    }

#define APR_RULES_GATED(need_)                                                                               \
    {APR_ROLE_GATE,                                                                                          \
     APR_L "mlp.gate_proj.weight",                                                                           \
     APR_B "ffn_gate.weight",                                                                                \
     {APR_DIM_INTER, APR_DIM_HIDDEN},                                                                        \
     need_},                                                                                                 \
        {APR_ROLE_UP,                                                                                        \
         APR_L "mlp.up_proj.weight",                                                                         \
         APR_B "ffn_up.weight",                                                                              \
         {APR_DIM_INTER, APR_DIM_HIDDEN},                                                                    \
         need_},                                                                                             \
    {                                                                                                        \
        APR_ROLE_DOWN, APR_L "mlp.down_proj.weight", APR_B "ffn_down.weight",                                \
            {APR_DIM_HIDDEN, APR_DIM_INTER}, need_                                                           \
    }
#define APR_RULES_GATED_BIASES                                                                               \
    {APR_ROLE_GATE_BIAS,                                                                                     \
     APR_L "mlp.gate_proj.bias",                                                                             \
     APR_B "ffn_gate.bias",                                                                                  \
     {APR_DIM_INTER},                                                                                        \
     APR_IF_MLP_BIAS},                                                                                       \
        {APR_ROLE_UP_BIAS, APR_L "mlp.up_proj.bias", APR_B "ffn_up.bias", {APR_DIM_INTER}, APR_IF_MLP_BIAS}, \
    {                                                                                                        \
        APR_ROLE_DOWN_BIAS, APR_L "mlp.down_proj.bias", APR_B "ffn_down.bias", {APR_DIM_HIDDEN},             \
            APR_IF_MLP_BIAS                                                                                  \
    }

/* Experts of the Qwen and DeepSeek families, stacked. */
#define APR_RULES_EXPERTS                                                                                    \
    {APR_ROLE_ROUTER,                                                                                        \
     APR_L "mlp.gate.weight",                                                                                \
     APR_B "ffn_gate_inp.weight",                                                                            \
     {APR_DIM_EXPERTS, APR_DIM_HIDDEN},                                                                      \
     APR_IF_MOE},                                                                                            \
        {APR_ROLE_GATE_EXPS,                                                                                 \
         APR_L "mlp.experts.gate_proj.weight",                                                               \
         APR_B "ffn_gate_exps.weight",                                                                       \
         {APR_DIM_EXPERTS, APR_DIM_INTER_EXPERT, APR_DIM_HIDDEN},                                            \
         APR_IF_MOE},                                                                                        \
        {APR_ROLE_UP_EXPS,                                                                                   \
         APR_L "mlp.experts.up_proj.weight",                                                                 \
         APR_B "ffn_up_exps.weight",                                                                         \
         {APR_DIM_EXPERTS, APR_DIM_INTER_EXPERT, APR_DIM_HIDDEN},                                            \
         APR_IF_MOE},                                                                                        \
    {                                                                                                        \
        APR_ROLE_DOWN_EXPS, APR_L "mlp.experts.down_proj.weight", APR_B "ffn_down_exps.weight",              \
            {APR_DIM_EXPERTS, APR_DIM_HIDDEN, APR_DIM_INTER_EXPERT}, APR_IF_MOE                              \
    }
#define APR_FORMS_EXPERTS                                                                                    \
    {.role = APR_ROLE_GATE_EXPS, .part = APR_L "mlp.experts.{e}.gate_proj.weight"},                          \
        {.role = APR_ROLE_UP_EXPS, .part = APR_L "mlp.experts.{e}.up_proj.weight"},                          \
    {                                                                                                        \
        .role = APR_ROLE_DOWN_EXPS, .part = APR_L "mlp.experts.{e}.down_proj.weight"                         \
    }
/* name_: "shared_expert" (Qwen), "shared_experts" (DeepSeek) */
#define APR_RULES_SHARED(name_)                                                                              \
    {APR_ROLE_GATE_SHARED,                                                                                   \
     APR_L "mlp." name_ ".gate_proj.weight",                                                                 \
     APR_B "ffn_gate_shexp.weight",                                                                          \
     {APR_DIM_INTER_SHARED, APR_DIM_HIDDEN},                                                                 \
     APR_IF_SHARED},                                                                                         \
        {APR_ROLE_UP_SHARED,                                                                                 \
         APR_L "mlp." name_ ".up_proj.weight",                                                               \
         APR_B "ffn_up_shexp.weight",                                                                        \
         {APR_DIM_INTER_SHARED, APR_DIM_HIDDEN},                                                             \
         APR_IF_SHARED},                                                                                     \
    {                                                                                                        \
        APR_ROLE_DOWN_SHARED, APR_L "mlp." name_ ".down_proj.weight", APR_B "ffn_down_shexp.weight",         \
            {APR_DIM_HIDDEN, APR_DIM_INTER_SHARED}, APR_IF_SHARED                                            \
    }

/* llama.cpp turns adjacent pairs in what it calls llama: rows of q and k change places. */
#define APR_FORMS_PAIRS                                                                                      \
    {.role = APR_ROLE_Q, .change = APR_CHANGE_PAIRS_Q}, {.role = APR_ROLE_K, .change = APR_CHANGE_PAIRS_K},  \
        {.role = APR_ROLE_Q_BIAS, .change = APR_CHANGE_PAIRS_Q},                                             \
    {                                                                                                        \
        .role = APR_ROLE_K_BIAS, .change = APR_CHANGE_PAIRS_K                                                \
    }

/* Norms before and behind both blocks (gemma2, gemma3). */
#define APR_RULES_NORMS_AROUND                                                                               \
    APR_RULE_ATTN_NORM,                                                                                      \
        {APR_ROLE_POST_ATTN_NORM,                                                                            \
         APR_L "post_attention_layernorm.weight",                                                            \
         APR_B "post_attention_norm.weight",                                                                 \
         {APR_DIM_HIDDEN},                                                                                   \
         APR_REQUIRED},                                                                                      \
        {APR_ROLE_FFN_NORM,                                                                                  \
         APR_L "pre_feedforward_layernorm.weight",                                                           \
         APR_B "ffn_norm.weight",                                                                            \
         {APR_DIM_HIDDEN},                                                                                   \
         APR_REQUIRED},                                                                                      \
    {                                                                                                        \
        APR_ROLE_POST_FFN_NORM, APR_L "post_feedforward_layernorm.weight", APR_B "post_ffw_norm.weight",     \
            {APR_DIM_HIDDEN}, APR_REQUIRED                                                                   \
    }
/* Gemma: the head is the embedding, a norm in a checkpoint lacks the 1 that GGUF has. */
#define APR_FORMS_NORMS_AROUND                                                                               \
    {.role = APR_ROLE_LM_HEAD, .change = APR_CHANGE_TIED},                                                   \
        {.role = APR_ROLE_FINAL_NORM, .change = APR_CHANGE_PLUS_ONE},                                        \
        {.role = APR_ROLE_ATTN_NORM, .change = APR_CHANGE_PLUS_ONE},                                         \
        {.role = APR_ROLE_POST_ATTN_NORM, .change = APR_CHANGE_PLUS_ONE},                                    \
        {.role = APR_ROLE_FFN_NORM, .change = APR_CHANGE_PLUS_ONE},                                          \
    {                                                                                                        \
        .role = APR_ROLE_POST_FFN_NORM, .change = APR_CHANGE_PLUS_ONE                                        \
    }

#endif

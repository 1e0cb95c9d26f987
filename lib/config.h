/* Hyper-parameters of a model, read from config.json, .apr metadata or GGUF keys by its family.
 *
 * A family fills what its forward pass needs; 0 or false means "the model has none of it" unless the field
 * says otherwise. The engine computes from these fields alone and never asks which family it is.
 */
#ifndef APR_CONFIG_H
#define APR_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#define APR_MAX_EOS         16
#define APR_MAX_LAYERS      512u
#define APR_MAX_ROPE_HALVES 256u /* pairs of one head: factors of longrope and llama3 */

enum apr_norm { APR_NORM_RMS = 0, APR_NORM_LAYER }; /* LayerNorm has a bias, RMSNorm none */

enum apr_activation {
    APR_SILU = 0,
    APR_GELU,      /* x * Phi(x), by erf */
    APR_GELU_TANH, /* "gelu_new", "gelu_pytorch_tanh" */
    APR_RELU,
};

enum apr_rope_scaling {
    APR_ROPE_PLAIN = 0,
    APR_ROPE_LINEAR,
    APR_ROPE_DYNAMIC, /* NTK by the length of the sequence */
    APR_ROPE_YARN,
    APR_ROPE_LLAMA3,
    APR_ROPE_LONG, /* longrope: one divisor a pair, two sets */
};

/* One vector from the hidden states of a text. */
enum apr_pooling {
    APR_POOL_NONE = 0, /* the model says nothing */
    APR_POOL_MEAN,
    APR_POOL_CLS,  /* of the first token */
    APR_POOL_LAST, /* of the last token */
    APR_POOL_MAX,
    APR_POOL_MEAN_SQRT, /* sum / sqrt(tokens) */
    APR_POOL_WEIGHTED,  /* mean, token i weighs i */
    APR_N_POOLINGS
};

/* Rotary positions: inv_freq[i] = theta^(-2i / n_dims), i < n_dims / 2, then scaled. */
struct apr_rope {
    double theta;    /* 0: no rotary positions */
    uint32_t n_dims; /* of a head that turn, the first ones; even */
    enum apr_rope_scaling scaling;
    double factor;                            /* linear, dynamic, yarn, llama3 */
    double low_freq_factor, high_freq_factor; /* llama3 */
    double beta_fast, beta_slow;              /* yarn */
    double mscale, mscale_all_dim;            /* yarn of deepseek; 0 = not given */
    double attn_factor;                       /* multiplies cos and sin; 0 = by the scaling's own formula */
    bool truncate;                            /* yarn: bounds of the ramp rounded to whole pairs */
    uint32_t n_ctx_orig;                      /* original_max_position_embeddings */
    uint32_t n_factors;                       /* longrope: n_dims / 2, else 0 */
    float short_factor[APR_MAX_ROPE_HALVES], long_factor[APR_MAX_ROPE_HALVES];
};

/* Mixture of experts; n_experts 0: every layer is dense. */
struct apr_moe {
    uint32_t n_experts, n_used;          /* routed, and how many of them a token takes */
    uint32_t n_inter;                    /* of one routed expert */
    uint32_t n_inter_shared;             /* of the shared expert (all shared ones side by side); 0 = none */
    bool shared_gate;                    /* the shared expert is weighted by sigmoid(w x) */
    bool norm_topk;                      /* the weights of the chosen experts are made to sum to 1 */
    bool sigmoid;                        /* scores by sigmoid, not softmax */
    double scale;                        /* routed_scaling_factor; 1 without */
    uint32_t n_groups, n_groups_used;    /* group-limited choice; 0 or 1 = none */
    uint64_t dense[APR_MAX_LAYERS / 64]; /* bit set: this layer has an ordinary feed-forward block */
};

/* Multi-head latent attention (DeepSeek-V2); kv_rank 0: ordinary attention. */
struct apr_mla {
    uint32_t q_rank;                           /* 0: one q projection */
    uint32_t kv_rank, n_nope, n_rope, n_value; /* head_dim = n_nope + n_rope */
    bool is_split;                             /* kv_b comes as k_b and v_b (GGUF) */
};

/* How the values in the file stand to Hugging Face's. */
enum apr_form {
    APR_FORM_HF = 0, /* as in the checkpoint */
    APR_FORM_GGUF,   /* q and k rows interleaved, +1 in norms, and what else llama.cpp's converter changes */
};

struct apr_config {
    uint32_t n_layers, n_hidden, n_heads, n_heads_kv, head_dim, n_inter, n_vocab, n_ctx_train;
    bool head_dim_given; /* config.json names head_dim itself */
    double rope_theta;   /* = rope.theta */
    double norm_eps;
    bool tied; /* lm_head is the embedding */

    bool qkv_bias, o_bias, mlp_bias, head_bias; /* of the linear maps that have one */
    enum apr_norm norm;
    enum apr_activation activation;
    enum apr_form form;
    bool rope_pairs;       /* rotate (2i, 2i+1) and not (i, i + n_dims / 2) */
    bool norm_plus_one;    /* a norm multiplies by 1 + w (gemma, values in Hugging Face's form) */
    bool is_parallel;      /* attention and feed-forward read the same norm, both are added (phi2) */
    bool is_gated;         /* act(gate x) * (up x); otherwise down(act(up x)) */
    uint32_t n_positions;  /* learned positions; 0 = none */
    double embed_scale;    /* embeddings are multiplied; 0 = 1 */
    double residual_scale; /* what a block adds is multiplied (granite); 0 = 1 */
    double attn_scale;     /* of q k; 0 = 1 / sqrt(head_dim) */
    double logit_scale;    /* logits are multiplied; 0 = 1 */
    double attn_softcap, logit_softcap; /* c * tanh(x / c); 0 = none */
    uint32_t window; /* a local layer sees this many positions, its own among them; 0 = no layer is local */
    uint64_t local[APR_MAX_LAYERS / 64]; /* bit set: the layer is local */
    struct apr_rope rope;                /* of layers that see everything, and of all without rope_local */
    struct apr_rope rope_local;          /* theta 0: as rope */
    struct apr_moe moe;
    struct apr_mla mla;

    /* Encoders. */
    bool is_encoder;          /* attention sees both sides; hidden states, no next token */
    uint32_t n_types;         /* token types (bert) */
    uint32_t position0;       /* row of the first token's position (roberta: 2) */
    uint32_t n_labels;        /* of a classification head; 0 = none */
    bool has_mlm_head;        /* predicts masked words; not computed here */
    enum apr_pooling pooling; /* of a model made for embeddings */
    bool normalize;           /* its vectors have length 1 */
    uint32_t n_max_embed;     /* tokens of a text that it looks at; 0 = all its positions */
    uint32_t n_layers_enc, n_heads_enc, n_inter_enc, n_mels, n_ctx_audio; /* whisper */
};

static inline bool apr_layer_bit(const uint64_t *bits, uint32_t i_layer)
{
    return bits[i_layer / 64] >> (i_layer % 64) & 1;
}

/* generation_config.json or general.sampling.*; has_* tells whether a value was given. */
struct apr_generation {
    bool has_temperature, has_top_k, has_top_p, has_min_p, has_repetition_penalty, do_sample;
    double temperature, top_p, min_p, repetition_penalty;
    int64_t top_k;
    uint32_t n_eos;
    int64_t eos_ids[APR_MAX_EOS]; /* every end token known: generation_config, config, tokenizer */
};

#endif

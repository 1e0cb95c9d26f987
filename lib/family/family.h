/* Model families: one file and one row in table.c each (and one YAML in contracts/).
 *
 * A family names its tensors for both worlds, reads its hyper-parameters from either, and says what the
 * forward pass needs to know. Nothing outside this folder compares a family's name.
 */
#ifndef APR_FAMILY_H
#define APR_FAMILY_H

#include <jansson.h>
#include <stddef.h>

#include "../config.h"
#include "../err.h"
#include "../kv.h"

enum apr_role {
    APR_ROLE_NONE = 0,
    APR_ROLE_EMBED,
    APR_ROLE_LM_HEAD,
    APR_ROLE_LM_HEAD_BIAS,
    APR_ROLE_FINAL_NORM,
    APR_ROLE_FINAL_NORM_BIAS,
    APR_ROLE_POSITIONS,  /* learned: [n_positions, n_hidden] */
    APR_ROLE_ROPE_FREQS, /* divisors of inv_freq as GGUF carries them: [n_dims / 2] */
    APR_ROLE_ROPE_LONG,  /* longrope's two sets as GGUF carries them */
    APR_ROLE_ROPE_SHORT,
    /* attention */
    APR_ROLE_ATTN_NORM,
    APR_ROLE_ATTN_NORM_BIAS,
    APR_ROLE_Q,
    APR_ROLE_Q_BIAS,
    APR_ROLE_K,
    APR_ROLE_K_BIAS,
    APR_ROLE_V,
    APR_ROLE_V_BIAS,
    APR_ROLE_QKV, /* rows of q, then k, then v */
    APR_ROLE_QKV_BIAS,
    APR_ROLE_Q_NORM, /* over head_dim */
    APR_ROLE_K_NORM,
    APR_ROLE_O,
    APR_ROLE_O_BIAS,
    APR_ROLE_POST_ATTN_NORM, /* of what attention adds (gemma2, gemma3) */
    /* multi-head latent attention */
    APR_ROLE_Q_A,      /* [q_rank, n_hidden] */
    APR_ROLE_Q_A_NORM, /* [q_rank] */
    APR_ROLE_Q_B,      /* [n_heads * head_dim, q_rank] */
    APR_ROLE_KV_A,     /* [kv_rank + n_rope, n_hidden] */
    APR_ROLE_KV_A_NORM,
    APR_ROLE_KV_B, /* [n_heads * (n_nope + n_value), kv_rank]: Hugging Face */
    APR_ROLE_K_B,  /* [n_heads, kv_rank, n_nope]: GGUF, the key half transposed */
    APR_ROLE_V_B,  /* [n_heads, n_value, kv_rank]: GGUF */
    /* feed-forward */
    APR_ROLE_FFN_NORM,
    APR_ROLE_FFN_NORM_BIAS,
    APR_ROLE_GATE,
    APR_ROLE_GATE_BIAS,
    APR_ROLE_UP,
    APR_ROLE_UP_BIAS,
    APR_ROLE_GATE_UP, /* rows of gate, then up */
    APR_ROLE_DOWN,
    APR_ROLE_DOWN_BIAS,
    APR_ROLE_POST_FFN_NORM,
    /* mixture of experts */
    APR_ROLE_ROUTER,      /* [n_experts, n_hidden] */
    APR_ROLE_ROUTER_BIAS, /* added to the scores for the choice alone */
    APR_ROLE_GATE_EXPS,   /* [n_experts, n_inter, n_hidden] */
    APR_ROLE_UP_EXPS,
    APR_ROLE_DOWN_EXPS,   /* [n_experts, n_hidden, n_inter] */
    APR_ROLE_GATE_SHARED, /* [n_inter_shared, n_hidden] */
    APR_ROLE_UP_SHARED,
    APR_ROLE_DOWN_SHARED,
    APR_ROLE_SHARED_GATE, /* [1, n_hidden]: weight of the shared expert */
    /* encoders */
    APR_ROLE_TYPES, /* [n_types, n_hidden] */
    APR_ROLE_EMBED_NORM,
    APR_ROLE_EMBED_NORM_BIAS,
    APR_ROLE_POST_ATTN_NORM_BIAS,
    APR_ROLE_POST_FFN_NORM_BIAS,
    /* encoder-decoders: the roles above are the decoder's; a decoder's attention over the encoder's output */
    APR_ROLE_CROSS_NORM,
    APR_ROLE_CROSS_NORM_BIAS,
    APR_ROLE_CROSS_Q,
    APR_ROLE_CROSS_Q_BIAS,
    APR_ROLE_CROSS_K,
    APR_ROLE_CROSS_V,
    APR_ROLE_CROSS_V_BIAS,
    APR_ROLE_CROSS_O,
    APR_ROLE_CROSS_O_BIAS,
    /* and the encoder's own */
    APR_ROLE_CONV1, /* [n_hidden, n_mels, 3] */
    APR_ROLE_CONV1_BIAS,
    APR_ROLE_CONV2, /* [n_hidden, n_hidden, 3] */
    APR_ROLE_CONV2_BIAS,
    APR_ROLE_ENC_POSITIONS, /* [n_ctx_audio, n_hidden] */
    APR_ROLE_ENC_FINAL_NORM,
    APR_ROLE_ENC_FINAL_NORM_BIAS,
    APR_ROLE_ENC_ATTN_NORM,
    APR_ROLE_ENC_ATTN_NORM_BIAS,
    APR_ROLE_ENC_Q,
    APR_ROLE_ENC_Q_BIAS,
    APR_ROLE_ENC_K,
    APR_ROLE_ENC_V,
    APR_ROLE_ENC_V_BIAS,
    APR_ROLE_ENC_O,
    APR_ROLE_ENC_O_BIAS,
    APR_ROLE_ENC_FFN_NORM,
    APR_ROLE_ENC_FFN_NORM_BIAS,
    APR_ROLE_ENC_UP,
    APR_ROLE_ENC_UP_BIAS,
    APR_ROLE_ENC_DOWN,
    APR_ROLE_ENC_DOWN_BIAS,
    APR_N_ROLES
};

enum apr_dim { /* what a dimension must be, by the config */
               APR_DIM_NONE = 0,
               APR_DIM_VOCAB,        /* n_vocab */
               APR_DIM_HIDDEN,       /* n_hidden */
               APR_DIM_Q,            /* n_heads * head_dim */
               APR_DIM_KV,           /* n_heads_kv * head_dim */
               APR_DIM_INTER,        /* n_inter */
               APR_DIM_QKV,          /* q, k and v, one below the other */
               APR_DIM_GATE_UP,      /* 2 * n_inter */
               APR_DIM_HEAD,         /* head_dim */
               APR_DIM_HEADS,        /* n_heads */
               APR_DIM_POSITIONS,    /* n_positions */
               APR_DIM_ROPE_PAIRS,   /* rope.n_dims / 2 */
               APR_DIM_ONE,          /* 1 */
               APR_DIM_EXPERTS,      /* moe.n_experts */
               APR_DIM_INTER_EXPERT, /* moe.n_inter */
               APR_DIM_INTER_SHARED, /* moe.n_inter_shared */
               APR_DIM_Q_RANK,       /* mla.q_rank */
               APR_DIM_KV_RANK,      /* mla.kv_rank */
               APR_DIM_KV_A,         /* mla.kv_rank + n_rope */
               APR_DIM_KV_B,         /* n_heads * (mla.n_nope + n_value) */
               APR_DIM_NOPE,         /* mla.n_nope */
               APR_DIM_VALUE,        /* mla.n_value */
               APR_DIM_O_IN,         /* what the output projection reads: n_heads * (n_value or head_dim) */
               APR_DIM_TYPES,        /* n_types */
               APR_DIM_LABELS,       /* n_labels */
               APR_DIM_MELS,         /* n_mels */
               APR_DIM_AUDIO,        /* n_ctx_audio */
               APR_DIM_INTER_ENC,    /* n_inter_enc */
               APR_DIM_CONV,         /* 3: the width of a convolution */
               APR_N_DIMS
};

enum apr_need { /* when a tensor must be there; in a layer where it need not, it may not, but for the first
                   three */
                APR_REQUIRED,
                APR_OPTIONAL,
                APR_UNLESS_TIED,
                APR_IF_QKV_BIAS,
                APR_IF_O_BIAS,
                APR_IF_MLP_BIAS,
                APR_IF_HEAD_BIAS,
                APR_IF_DENSE, /* the layer has an ordinary feed-forward block */
                APR_IF_MOE,   /* the layer has experts */
                APR_IF_SHARED,
                APR_IF_SHARED_GATE,
                APR_IF_Q_RANK,
                APR_UNLESS_Q_RANK,
                APR_IF_KV_B,     /* multi-head latent attention, kv_b whole */
                APR_IF_KV_SPLIT, /* multi-head latent attention, kv_b as k_b and v_b */
                APR_IF_MLM_HEAD, /* may be there in any case */
                APR_IN_ENCODER,  /* {n} is a layer of the encoder */
                APR_N_NEEDS
};

struct apr_tensor_rule {
    enum apr_role role;
    const char *hf;   /* "model.layers.{n}.self_attn.q_proj.weight"; {n} = layer */
    const char *gguf; /* "blk.{n}.attn_q.weight" */
    enum apr_dim dims[3];
    enum apr_need need;
};

/* What llama.cpp's converter of a family does with a vocabulary beyond what its files say. The order of keys
 * is in the exporter; a field that is zero does nothing. */
struct apr_gguf_tok {
    bool type_count;      /* tokenizer.ggml.token_type_count, from config.json's type_vocab_size (bert) */
    bool prefix_space;    /* add_space_prefix where tokenizer_config.json has add_prefix_space (llama) */
    bool no_space_prefix; /* add_space_prefix false, last of all (gemma) */
    bool added_scores;    /* all of tokenizer.json's added tokens are -1000 and control or user (phi3) */
    int64_t eot_id;       /* eot_token_id, behind the other special ids (gemma: 107) */
};

/* How a tensor's values differ between Hugging Face's form and GGUF's; the functions are in reform.c. */
enum apr_change {
    APR_CHANGE_NONE = 0,
    APR_CHANGE_PAIRS_Q,  /* rows of a head: halves one after the other become pairs; n_heads heads */
    APR_CHANGE_PAIRS_K,  /* the same of n_heads_kv heads */
    APR_CHANGE_PLUS_ONE, /* 1 is added, in f32 */
    APR_CHANGE_SPLIT_KV, /* kv_b becomes k_b (transposed) and v_b */
    APR_CHANGE_JOIN_KV,  /* of k_b, which with v_b is kv_b in a checkpoint */
    APR_CHANGE_DROP,     /* of what checkpoints do not have */
    APR_CHANGE_TIED, /* of a head that is stored although it is the embedding: readers of GGUF want none */
    APR_CHANGE_CUT_ROWS, /* of positions: the rows before the first token's are left out */
    APR_N_CHANGES
};

/* What the checkpoint does differently with the tensors of a role. */
struct apr_tensor_form {
    enum apr_role role;
    enum apr_change change;
    const char
        *part; /* one tensor for each expert: "model.layers.{n}.mlp.experts.{e}.up_proj.weight"; or NULL */
    bool is_turned; /* stored [in, out] (Conv1D); the model has [out, in] */
};

struct apr_decoder;

struct apr_family {
    const char *name;                    /* "qwen2": contracts, .apr metadata "architecture" */
    const char *gguf_arch;               /* general.architecture */
    const char *model_type_apr;          /* .apr metadata "model_type" as the original wrote it: "Qwen2" */
    const char *const *hf_architectures; /* NULL-terminated: "Qwen2ForCausalLM" */
    const char *const *hf_model_types;   /* NULL-terminated: "qwen2" */
    const struct apr_decoder *decoder;   /* decoder.h; NULL: not an ordinary decoder */
    const struct apr_tensor_rule *rules;
    size_t n_rules;
    const struct apr_tensor_form *forms; /* of the roles that need one */
    size_t n_forms;
    /* NULL, or a NULL-terminated list of [written, meant]: a checkpoint's names may begin with the first
     * where the rules have the second ("" and "transformer."). */
    const char *const (*prefixes)[2];
    /* NULL, or the same for how names end (".gamma" and ".weight"). */
    const char *const (*suffixes)[2];
    const char *const
        *dropped; /* NULL, or NULL-terminated: names in checkpoints that hold no weights; {n} = layer */
    /* file names the document in messages. Every value is range-checked; divisors are proven non-zero. */
    enum apr_code (*from_hf)(const struct apr_family *f, const json_t *config, struct apr_config *c,
                             const char *file, struct apr_err *e);
    /* n_vocab, tied, the biases and longrope are told by the tensors (rows of token_embd; no output.weight):
     * the caller sets them before the call and they are kept; 0 lets a vocab_size key fill n_vocab. */
    enum apr_code (*from_gguf)(const struct apr_family *f, const struct apr_kvs *kvs, struct apr_config *c,
                               const char *file, struct apr_err *e);
    /* <arch>.* keys and general.file_type, in the order of llama.cpp's converter (gguf-export facts, 3). */
    void (*to_gguf)(const struct apr_family *f, const struct apr_config *c, const json_t *hf_config,
                    uint32_t file_type, struct apr_kvs *kvs);
    /* NULL, or: fills a new config.json, but for architectures, model_type and what is the tokenizer's.
     * from_hf must read the same config from it. */
    void (*to_hf)(const struct apr_family *f, const struct apr_config *c, json_t *config);
    /* NULL, or keys that stand before general.type. */
    void (*to_gguf_first)(const struct apr_config *c, struct apr_kvs *kvs);
    /* NULL, or: of the families with this gguf_arch, is it the one that the keys tell? */
    bool (*claims)(const struct apr_kvs *kvs);
    const struct apr_gguf_tok *gguf_tok; /* NULL: the files of the tokenizer say all */
    int rope_type; /* 2 = half-split (NEOX), 0 = adjacent pairs: .apr metadata rope_type */
};

const struct apr_family *apr_family_at(size_t i); /* NULL past the end */
const struct apr_family *apr_family_named(const char *name);
const struct apr_family *apr_family_of_gguf(const char *arch); /* the first that has it */
/* By general.architecture and what else the keys say; NULL when unknown or not readable from GGUF. */
const struct apr_family *apr_family_of_kvs(const struct apr_kvs *kvs);
/* By architectures[0], else model_type. NULL when unknown. */
const struct apr_family *apr_family_of_hf(const json_t *config);
/* The family that model_type names, where that is another one than f; else NULL. transformers loads by
 * model_type: one of the two is wrong. */
const struct apr_family *apr_family_conflict(const json_t *config, const struct apr_family *f);

/* Rule of a tensor name in either naming; *layer is UINT32_MAX for a tensor outside the layers. */
const struct apr_tensor_rule *apr_family_rule_hf(const struct apr_family *f, const char *name,
                                                 uint32_t *layer);
const struct apr_tensor_rule *apr_family_rule_gguf(const struct apr_family *f, const char *name,
                                                   uint32_t *layer);
/* Writes the template with the layer put in. */
const char *apr_family_name(const char *tmpl, uint32_t layer, char *out, size_t n_out);
const char *apr_family_part_name(const char *tmpl, uint32_t layer, uint32_t expert, char *out, size_t n_out);
/* Matches a name with a template; *layer and *expert are UINT32_MAX where the template has none. */
bool apr_family_matches(const char *tmpl, const char *name, uint32_t *layer, uint32_t *expert);
/* A name in a checkpoint that holds no weights, such as a mask or a table of frequencies. */
bool apr_family_drops(const struct apr_family *f, const char *name);
/* NULL when the checkpoint has the role as the model has it. */
const struct apr_tensor_form *apr_family_form(const struct apr_family *f, enum apr_role role);
/* Layers of the stack that the rule belongs to; 1 for a tensor outside the layers. */
uint32_t apr_family_n_layers(const struct apr_tensor_rule *r, const struct apr_config *c);
bool apr_family_requires(const struct apr_tensor_rule *r, const struct apr_config *c, uint32_t layer);
/* Required, optional, or the head of a tied model. */
bool apr_family_allows(const struct apr_tensor_rule *r, const struct apr_config *c, uint32_t layer);
uint64_t apr_family_dim(const struct apr_config *c, enum apr_dim d);
/* Tensors that a complete model of this config has (a tied head and optional ones are not counted). */
uint64_t apr_family_n_tensors(const struct apr_family *f, const struct apr_config *c);

#endif

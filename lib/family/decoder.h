/* What decoders have in common: one reader of hyper-parameters for config.json, one for GGUF keys, one writer
 * of GGUF keys, each told by a struct apr_decoder what the family has. What few families have is read by
 * small functions of their own (rope.h, moe.h and below), which the family's file calls.
 *
 * Ranges stand in decoder.c and beside each reader, once. Every value is checked before it is stored; no
 * divisor can be zero afterwards. What a value means for another value (n_heads % n_heads_kv) is the
 * contract's business.
 *
 *     TRY(apr_decoder_from_hf(&decoder, config, c, file, e));
 */
#ifndef APR_DECODER_H
#define APR_DECODER_H

#include "family.h"

struct apr_keys;
typedef void apr_key_fn(const struct apr_keys *k); /* keys.h */
struct apr_moe_keys;

/* Which layers see sliding_window positions, by config.json. */
enum apr_window_rule {
    APR_WINDOW_NONE,   /* none; the key means nothing */
    APR_WINDOW_ALL,    /* all */
    APR_WINDOW_LISTED, /* as layer_types says, else all */
    APR_WINDOW_QWEN,   /* with use_sliding_window: layer_types, else those from max_window_layers on */
    APR_WINDOW_PATTERN /* layer_types, else all but each sliding_window_pattern-th */
};

struct apr_decoder {
    const char *gguf_arch; /* prefix of the keys: "qwen2" */
    /* Defaults: transformers', where config.json is silent. */
    uint32_t n_ctx_default; /* 0 = must be given */
    uint32_t head_dim;      /* 0 = n_hidden / n_heads */
    bool head_dim_always;   /* transformers' config class always has head_dim: it is in the GGUF */
    double rope_theta;      /* 0: no rotary positions */
    double rope_partial;    /* partial_rotary_factor; 0 = 1 */
    double norm_eps;
    bool tied;
    /* Spellings; NULL: as in llama. */
    const char *eps_key, *act_key;
    bool old_names;                                       /* n_embd, n_layer, n_head, n_positions, n_inter */
    const char *act_default;                              /* "silu" */
    const char *qkv_bias_key, *o_bias_key, *mlp_bias_key; /* NULL: as the flag below says */
    bool qkv_bias, o_bias, mlp_bias, head_bias;
    enum apr_norm norm;
    bool is_gated, is_parallel;
    /* What GGUF's keys do not say. */
    enum apr_activation activation;
    bool gguf_pairs; /* rotates adjacent pairs there */
    bool norm_topk;  /* where there is no key */
    bool shared_gate;

    enum apr_window_rule window;
    uint32_t window_pattern, window_default; /* of APR_WINDOW_PATTERN; the pattern is GGUF's too */
    bool norm_plus_one;                      /* norms multiply by 1 + w */
    bool embed_sqrt;                         /* the embedding is scaled by sqrt(n_hidden) */
    bool learned_positions;                  /* one row for each of n_ctx_train */
    const char *const *refused;     /* NULL, or NULL-terminated: keys that must not be true in config.json */
    const struct apr_moe_keys *moe; /* NULL: no experts */
    apr_key_fn *const *keys;        /* NULL-terminated: GGUF's, in the order of llama.cpp's converter */

    /* What the family alone has, behind everything above. NULL: nothing. */
    enum apr_code (*more_from_hf)(const json_t *config, struct apr_config *c, const char *file,
                                  struct apr_err *e);
    enum apr_code (*more_from_gguf)(const struct apr_decoder *d, const struct apr_kvs *kvs,
                                    struct apr_config *c, const char *file, struct apr_err *e);
    void (*more_to_hf)(const struct apr_config *c, json_t *config);
};

/* A decoder's row of the table of families: all is told by the struct. In decoder_row.c. */
#define APR_DECODER_ROW(d)                                                                                   \
    .decoder = &(d), .from_hf = apr_decoder_row_from_hf, .from_gguf = apr_decoder_row_from_gguf,             \
    .to_gguf = apr_decoder_row_to_gguf, .to_hf = apr_decoder_row_to_hf
APR_MUST_USE enum apr_code apr_decoder_row_from_hf(const struct apr_family *f, const json_t *config,
                                                   struct apr_config *c, const char *file, struct apr_err *e);
APR_MUST_USE enum apr_code apr_decoder_row_from_gguf(const struct apr_family *f, const struct apr_kvs *kvs,
                                                     struct apr_config *c, const char *file,
                                                     struct apr_err *e);
void apr_decoder_row_to_gguf(const struct apr_family *f, const struct apr_config *c, const json_t *hf_config,
                             uint32_t file_type, struct apr_kvs *kvs);
void apr_decoder_row_to_hf(const struct apr_family *f, const struct apr_config *c, json_t *config);

enum apr_code apr_decoder_from_hf(const struct apr_decoder *d, const json_t *config, struct apr_config *c,
                                  const char *file, struct apr_err *e);
/* sliding_window where the layers in [first, n_layers) are local; null, absent: no layer is. */
APR_MUST_USE enum apr_code apr_window_from_hf(const json_t *config, uint32_t first, struct apr_config *c,
                                              const char *file, struct apr_err *e);
/* layer_types: "sliding_attention" makes a layer local, "full_attention" not; *found: the list is there. */
APR_MUST_USE enum apr_code apr_layer_types_from_hf(const json_t *config, struct apr_config *c, bool *found,
                                                   const char *file, struct apr_err *e);
/* use_sliding_window, max_window_layers and sliding_window of the Qwen families. */
APR_MUST_USE enum apr_code apr_qwen_window_from_hf(const json_t *config, struct apr_config *c,
                                                   const char *file, struct apr_err *e);
/* layer_types; without them sliding_window in every layer but each sliding_window_pattern-th. */
APR_MUST_USE enum apr_code apr_pattern_from_hf(const json_t *config, uint32_t pattern_default,
                                               uint32_t window_default, struct apr_config *c,
                                               const char *file, struct apr_err *e);
/* c of c * tanh(x / c): null is none (0). */
APR_MUST_USE enum apr_code apr_softcap_from_hf(const json_t *config, const char *key, double *v,
                                               const char *file, struct apr_err *e);
/* A number that may be null: > 0 and finite, else 0 is left. */
APR_MUST_USE enum apr_code apr_positive_from_hf(const json_t *config, const char *key, double *v,
                                                const char *file, struct apr_err *e);
/* Refuses a config where key is true. */
APR_MUST_USE enum apr_code apr_refuse_true(const json_t *config, const char *key, const char *file,
                                           struct apr_err *e);

/* What follows from the integers: the default of n_heads_kv, and head_dim; bounds of the epsilon. */
APR_MUST_USE enum apr_code apr_decoder_derive(struct apr_config *c, const char *file, struct apr_err *e);

/* Every key that decoders have; in keys_read.c. What a family alone knows (windows, scales) it adds itself.
 */
enum apr_code apr_decoder_from_gguf(const struct apr_decoder *d, const struct apr_kvs *kvs,
                                    struct apr_config *c, const char *file, struct apr_err *e);

#endif

/* GGUF keys of hyper-parameters, written one function a key (or a few that belong together); a family lists
 * them in the order of llama.cpp's converter (gguf-export facts, 3). The reader of all of them is in
 * keys_read.c.
 *
 *     static apr_key_fn *const keys[] = {APR_KEYS_COMMON, apr_key_vocab, apr_key_rope_dims, NULL};
 */
#ifndef APR_KEYS_H
#define APR_KEYS_H

#include "decoder.h"

struct apr_keys {
    const char *arch; /* prefix */
    const struct apr_config *c;
    const json_t *hf; /* NULL: not known */
    uint32_t file_type;
    struct apr_kvs *kvs;
};

apr_key_fn apr_key_blocks, apr_key_context, apr_key_hidden, apr_key_inter, apr_key_heads, apr_key_heads_kv;
apr_key_fn apr_key_heads_kv_one; /* 1: latent attention is multi-query to llama.cpp */
apr_key_fn apr_key_rope_scaling; /* linear, yarn: type, factor and what goes with it */
apr_key_fn apr_key_freq_base;
apr_key_fn apr_key_freq_base_odd; /* only where it is not 10000: the converter of the family writes none */
apr_key_fn apr_key_freq_base_local;
apr_key_fn apr_key_eps;
apr_key_fn apr_key_experts;  /* expert_count, expert_used_count, groups, gating function */
apr_key_fn apr_key_head_dim; /* key_length, value_length, where the config has head_dim */
apr_key_fn apr_key_file_type, apr_key_vocab, apr_key_rope_dims, apr_key_rope_orig;
apr_key_fn apr_key_expert_inter; /* expert_feed_forward_length */
apr_key_fn apr_key_expert_shared_inter, apr_key_expert_shared_count;
apr_key_fn apr_key_leading_dense, apr_key_expert_scale, apr_key_expert_norm;
apr_key_fn apr_key_softcap_attn, apr_key_softcap_final;
apr_key_fn apr_key_mla; /* ranks, and the lengths of both forms */
apr_key_fn apr_key_attn_scale, apr_key_embed_scale, apr_key_residual_scale, apr_key_logit_scale;
/* sliding_window, and sliding_window_pattern where not every layer is local. _always: 0 where there is none.
 * The others: the pattern that a reader takes for granted is not written. */
apr_key_fn apr_key_window, apr_key_window_always, apr_key_window_2, apr_key_window_6;

#define APR_KEYS_COMMON                                                                                      \
    apr_key_blocks, apr_key_context, apr_key_hidden, apr_key_inter, apr_key_heads, apr_key_heads_kv,         \
        apr_key_rope_scaling, apr_key_freq_base, apr_key_freq_base_local, apr_key_eps, apr_key_experts,      \
        apr_key_head_dim, apr_key_file_type

/* keys: NULL-terminated. */
void apr_keys_write(apr_key_fn *const *keys, const struct apr_keys *k);
/* "ARCH.KEY" into out. */
const char *apr_key_name(const char *arch, const char *key, char *out, size_t n_out);
void apr_keys_u32(const struct apr_keys *k, const char *key, uint64_t v);
void apr_keys_f32(const struct apr_keys *k, const char *key, double v);

/* Layers that see a window: by the list in the file, else all but every pattern-th (1: none, 0: all). Does
 * nothing without a window. */
APR_MUST_USE enum apr_code apr_window_from_gguf(const struct apr_decoder *d, const struct apr_kvs *kvs,
                                                uint32_t pattern, struct apr_config *c, const char *file,
                                                struct apr_err *e);
/* A real as it was meant: 1e-6 and not 9.99999997e-07. Absent: *v untouched. */
APR_MUST_USE enum apr_code apr_real_from_gguf(const struct apr_decoder *d, const struct apr_kvs *kvs,
                                              const char *key, double *v, const char *file,
                                              struct apr_err *e);
APR_MUST_USE enum apr_code apr_uint_from_gguf(const struct apr_decoder *d, const struct apr_kvs *kvs,
                                              const char *key, uint64_t min, uint64_t max, uint32_t *v,
                                              const char *file, struct apr_err *e);

#endif

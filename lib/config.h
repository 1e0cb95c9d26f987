/* Hyper-parameters of a decoder, read from config.json, .apr metadata or GGUF keys by its family. */
#ifndef APR_CONFIG_H
#define APR_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#define APR_MAX_EOS 16

struct apr_config {
    uint32_t n_layers, n_hidden, n_heads, n_heads_kv, head_dim, n_inter, n_vocab, n_ctx_train;
    bool head_dim_given; /* config.json names head_dim itself */
    double rope_theta;
    double norm_eps;
    bool tied; /* lm_head is the embedding */
};

/* generation_config.json or general.sampling.*; has_* tells whether a value was given. */
struct apr_generation {
    bool has_temperature, has_top_k, has_top_p, has_min_p, has_repetition_penalty, do_sample;
    double temperature, top_p, min_p, repetition_penalty;
    int64_t top_k;
    uint32_t n_eos;
    int64_t eos_ids[APR_MAX_EOS]; /* every end token known: generation_config, config, tokenizer */
};

#endif

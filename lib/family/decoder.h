/* What decoders of the Llama shape have in common: one reader of hyper-parameters for config.json, one for
 * GGUF keys, one writer of GGUF keys. A family fills a struct apr_decoder and keeps only what is its own.
 *
 * Ranges stand in decoder.c, once. Every value is checked before it is stored; no divisor can be zero
 * afterwards. What a value means for another value (n_heads % n_heads_kv) is the contract's business.
 *
 *     return apr_decoder_from_hf(&qwen2, config, c, file, e);
 */
#ifndef APR_DECODER_H
#define APR_DECODER_H

#include "family.h"

struct apr_decoder {
    const char *gguf_arch;  /* prefix of the keys: "qwen2" */
    const char *hidden_act; /* the only activation this family computes: "silu" */
    uint32_t n_ctx_default; /* transformers' default where config.json is silent; 0 = must be given */
    double rope_theta_default;
    double norm_eps_default;
};

enum apr_code apr_decoder_from_hf(const struct apr_decoder *d, const json_t *config, struct apr_config *c,
                                  const char *file, struct apr_err *e);
enum apr_code apr_decoder_from_gguf(const struct apr_decoder *d, const struct apr_kvs *kvs,
                                    struct apr_config *c, const char *file, struct apr_err *e);
/* block_count, context_length, embedding_length, feed_forward_length, attention.head_count,
 * attention.head_count_kv, rope.freq_base, attention.layer_norm_rms_epsilon, and key_length and
 * value_length where the config names head_dim itself. */
void apr_decoder_to_gguf(const struct apr_decoder *d, const struct apr_config *c, const json_t *hf_config,
                         struct apr_kvs *kvs);

#endif

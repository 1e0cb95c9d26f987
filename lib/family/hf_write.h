/* config.json made from a config, for models that come without one (GGUF). What is written is proven by
 * reading it back (differ.h); the document has the spellings of transformers 4, which every reader knows.
 *
 *     apr_decoder_to_hf(&decoder, c, config);
 */
#ifndef APR_HF_WRITE_H
#define APR_HF_WRITE_H

#include "decoder.h"

void apr_decoder_to_hf(const struct apr_decoder *d, const struct apr_config *c, json_t *config);
void apr_hf_put_uint(json_t *config, const char *key, uint64_t v);
void apr_hf_put_real(json_t *config, const char *key, double v);
/* null where v is 0 */
void apr_hf_put_real_or_null(json_t *config, const char *key, double v);

#endif

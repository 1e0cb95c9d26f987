/* What Gemma 2 and Gemma 3 share beside their rules: the scale of attention's scores, and soft caps.
 *
 *     TRY(apr_gemma_scale_from_hf(config, c, file, e));
 */
#ifndef APR_GEMMA_H
#define APR_GEMMA_H

#include "decoder.h"

/* attn_scale = 1 / sqrt(query_pre_attn_scalar) */
APR_MUST_USE enum apr_code apr_gemma_scale_from_hf(const json_t *config, struct apr_config *c,
                                                   const char *file, struct apr_err *e);
/* What readers of GGUF take for granted: by the head size, but for the 27B model, which they know by its
 * number of layers. */
double apr_gemma_scale(const struct apr_config *c, uint32_t n_layers_27b);
/* Writes the scale where it is another one. */
void apr_gemma_key_scale(const struct apr_keys *k, uint32_t n_layers_27b);
void apr_gemma_to_hf(const struct apr_config *c, json_t *config);

#endif

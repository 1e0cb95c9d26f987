/* What a model is, derived from its documents: one place for every format, so that a folder, the .apr made
 * from it and the GGUF exported from that agree.
 *
 * Documents, in order of preference: config.json (hf_config), GGUF keys (kvs), the flat keys of .apr
 * metadata.
 *
 *     TRY(apr_derive_config(m, e)); ... vocabulary ... TRY(apr_derive_generation(m, e));
 */
#ifndef APR_FMT_DERIVE_H
#define APR_FMT_DERIVE_H

#include "../model.h"

/* arch, family, config. An unknown architecture leaves family NULL and is no error. */
APR_MUST_USE enum apr_code apr_derive_config(struct apr_model *m, struct apr_err *e);
/* Sampling defaults and every end token known. Needs the vocabulary. */
APR_MUST_USE enum apr_code apr_derive_generation(struct apr_model *m, struct apr_err *e);
/* vocab_size of config.json, also where it stands in text_config; 0 = unknown. */
uint32_t apr_derive_n_vocab(const json_t *hf_config);

#endif

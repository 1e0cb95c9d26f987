/* Every key of an exported GGUF, in the order of llama.cpp's converter (facts on GGUF export, sections 1 to
 * 4).
 *
 * From a model with Hugging Face documents (a folder, or an .apr that carries them) the keys are made anew;
 * from a GGUF, or an .apr that carries a GGUF's keys, they are copied. Both end with provenance under "apr.",
 * unless left out.
 *
 *     TRY(gguf_keys(m, &plan, file_type, provenance, &kvs, e));
 */
#ifndef APR_EXPORT_GGUF_KEYS_H
#define APR_EXPORT_GGUF_KEYS_H

#include "fmt/fmt.h"

/* own: a JSON object of keys that replace or add (metadata.h), or NULL; own_path names it in messages.
 * provenance: NULL leaves the keys out. Refuses (5) a tokenizer without model, tokens or, for BPE, a known
 * pre-tokenizer. */
APR_MUST_USE enum apr_code gguf_keys(const struct apr_model *m, const struct apr_plan *plan,
                                     uint32_t file_type, const json_t *own, const char *own_path,
                                     const json_t *provenance, struct apr_kvs *kvs, struct apr_err *e);

#endif

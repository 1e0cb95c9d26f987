/* The metadata object of an .apr file: built from any model, and read back.
 *
 * Flat keys are those of the original (model_type, hidden_size ..., tokenizer.*), so that its readers work;
 * everything else stands under one object "apr": hf (the Hugging Face documents, whole), tokenizer (what the
 * flat keys do not hold), gguf (keys carried from a GGUF, with types), provenance, quantization.
 * The long arrays (tokenizer.vocabulary, .merges, .token_type, .scores) are not in the object: the writer of
 * .apr adds them from struct apr_plan.vocab, the reader cuts them out of the text.
 *
 *     json_t *meta; TRY(apr_meta_build(m, &meta, e)); ... plan.meta = meta; plan.vocab = &m->vocab; ...
 */
#ifndef APR_FMT_APR_META_H
#define APR_FMT_APR_META_H

#include "../model.h"

/* *meta: a new object with keys in a fixed order; the same whatever format the model was read from, as far as
 * the format told it. From an .apr, keys unknown here are kept behind the known ones, apr.provenance and
 * apr.quantization included. */
APR_MUST_USE enum apr_code apr_meta_build(const struct apr_model *m, json_t **meta, struct apr_err *e);
/* Documents, vocabulary and keys of m from m->apr_meta; the long arrays are in m->vocab already. */
APR_MUST_USE enum apr_code apr_meta_read(struct apr_model *m, const char *file, struct apr_err *e);

/* Keys with their types as a JSON array, and back; in apr_meta_kv.c. */
json_t *apr_meta_kvs_pack(const struct apr_kvs *kvs);
APR_MUST_USE enum apr_code apr_meta_kvs_unpack(const json_t *packed, struct apr_kvs *kvs, const char *file,
                                               struct apr_err *e);

#endif

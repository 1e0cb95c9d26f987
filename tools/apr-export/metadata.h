/* --metadata FILE: GGUF keys from a JSON object, over those that were made from the model.
 *
 *     json_t *own; TRY(metadata_load("keys.json", &own, e)); TRY(metadata_apply(own, "keys.json", &kvs, e));
 *
 * {"general.name": "My model", "general.tags": ["chat"], "general.sampling.temp": 0.7}. A key that is there
 * keeps its type and the value must fit it; a new one gets the type of its value: string, bool, u32 (i64
 * where it does not fit), f32, or an array of one of these. Keys that describe the tensors or the vocabulary
 * are refused.
 */
#ifndef APR_EXPORT_METADATA_H
#define APR_EXPORT_METADATA_H

#include "json.h"
#include "kv.h"

APR_MUST_USE enum apr_code metadata_load(const char *path, json_t **own, struct apr_err *e);
APR_MUST_USE enum apr_code metadata_apply(const json_t *own, const char *path, struct apr_kvs *kvs,
                                          struct apr_err *e);

#endif

/* A Hugging Face folder: documents, and SafeTensors in one file or in shards with an index.
 *
 * The folder appears when it is complete. Tensors are in the order of the reference writer: by falling
 * dtype, then by name; a stream, which cannot be read twice, keeps its own order.
 *
 *     if (folder_is_meant(output)) TRY(folder_write(&c, output, max, force, arena, &n_parts, &n_out, e));
 */
#ifndef APR_EXPORT_FOLDER_H
#define APR_EXPORT_FOLDER_H

#include "convert.h"

#define FOLDER_SHARD_BYTES 5000000000u /* where --max-shard-size does not say: as transformers cuts */

/* An output that ends in a slash, names a folder, or is not named like a SafeTensors file. */
bool folder_is_meant(const char *output);
/* Sorts the plan as above and lays it out anew; no effect for a stream. */
APR_MUST_USE enum apr_code folder_order(const struct apr_model *m, struct apr_plan *p, struct apr_err *e);
APR_MUST_USE enum apr_code folder_write(const struct apr_convert *c, const char *output,
                                        uint64_t max_shard_bytes, bool force, struct apr_arena *a,
                                        uint32_t *n_parts, uint64_t *n_out, struct apr_err *e);

#endif

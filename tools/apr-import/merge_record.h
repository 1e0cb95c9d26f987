/* How a merge is recorded: the provenance of every input, and the step with its parameters.
 *
 *     json_t *p = merge_record(&g, recipe, pure); ... json_decref(p);
 *
 * {"sources": [the files of all inputs], "models": [{"name", "role": "merged" or "base", ... its
 * provenance}], "steps": [{"step": "merge", "tool", "recipe", "method", "weights", "t", "lambda", "density",
 * "drop_rate", "seed"}]}
 */
#ifndef APR_IMPORT_MERGE_RECORD_H
#define APR_IMPORT_MERGE_RECORD_H

#include "merge.h"
#include "mix.h"

json_t *merge_record(const struct merge *g, const struct apr_recipe *recipe, bool pure);

#endif

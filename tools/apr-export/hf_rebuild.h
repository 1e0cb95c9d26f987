/* tokenizer.json from what a GGUF tells about its tokenizer.
 *
 *     json_t *hf = hf_rebuild(m);   owned by the caller, vocabulary and merges left out; NULL: said on stderr
 */
#ifndef APR_EXPORT_HF_REBUILD_H
#define APR_EXPORT_HF_REBUILD_H

#include "model.h"

json_t *hf_rebuild(const struct apr_model *m);

#endif

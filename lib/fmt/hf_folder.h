/* Hugging Face folders: documents, index, shards, tokenizer. apr_hf_folder_open is declared in fmt.h.
 *
 *     TRY(apr_hf_companions(m, "dir/model.safetensors", e));
 */
#ifndef APR_FMT_HF_FOLDER_H
#define APR_FMT_HF_FOLDER_H

#include "fmt.h"

/* For one file of a folder: name, config.json, generation_config.json, model card and tokenizer from the
 * folder that the file stands in, then what follows from them. Does nothing for "-". */
APR_MUST_USE enum apr_code apr_hf_companions(struct apr_model *m, const char *path, struct apr_err *e);

/* The YAML front matter of a model card as JSON, in hf_card.c. NULL where there is none; a broken one is a
 * warning. Aliases, anchors and tags are refused, depth and size are capped. */
json_t *apr_hf_card_read(const char *path);

#endif

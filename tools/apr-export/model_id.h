/* What a model's id says: "Qwen2.5-Coder-7B-Instruct" -> basename, size, finetune, version.
 *
 * The rules are those that GGUF files in the wild follow (facts on GGUF export, section 2). All strings live
 * in the arena; NULL where the id says nothing.
 *
 *     struct model_id id = model_id_parse(arena, "org/Name-7B-Instruct", n_params);
 */
#ifndef APR_EXPORT_MODEL_ID_H
#define APR_EXPORT_MODEL_ID_H

#include <stdint.h>

#include "arena.h"

struct model_id {
    const char *full; /* without the organization */
    const char *organization, *basename, *finetune, *version, *size_label;
};

struct model_id model_id_parse(struct apr_arena *a, const char *id, uint64_t n_params);
/* "apr-demo-8M" -> "Apr Demo 8M". */
const char *model_id_title(struct apr_arena *a, const char *id);
/* 7.62e9 -> "7.6B": at least two digits show. */
const char *model_id_size(struct apr_arena *a, uint64_t n_params);

#endif

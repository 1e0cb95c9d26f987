/* A split GGUF: PREFIX-00001-of-0000N.gguf ..., as llama.cpp reads and writes it.
 *
 * The first part carries every key, all carry split.no, split.count (u16) and split.tensors.count (i32).
 * The parts appear together, the first one last, so that a set that can be opened is whole.
 *
 *     TRY(split_write(&c, "model.gguf", limit, force, arena, &n_parts, &n_out, e));
 */
#ifndef APR_EXPORT_SPLIT_H
#define APR_EXPORT_SPLIT_H

#include "convert.h"
#include "parts.h"

/* c: the conversion as for one file. One part alone is written as output itself, without split keys. */
APR_MUST_USE enum apr_code split_write(const struct apr_convert *c, const char *output,
                                       struct parts_limit limit, bool force, struct apr_arena *a,
                                       uint32_t *n_parts, uint64_t *n_out, struct apr_err *e);

#endif

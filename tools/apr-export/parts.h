/* A plan cut into the parts of a set: SafeTensors shards, the files of a split GGUF.
 *
 * Tensors are never cut and keep their order; a part is full when the next tensor would exceed its ceiling.
 *
 *     TRY(parts_make(&plan, (struct parts_limit){.n_bytes = max}, arena, &parts, &n, e));
 */
#ifndef APR_EXPORT_PARTS_H
#define APR_EXPORT_PARTS_H

#include "fmt/fmt.h"

#define MAX_PARTS 99999u /* the names have five digits */

struct parts_limit {
    uint64_t n_bytes;   /* of tensor data; 0: none. A tensor that is larger gets a part of its own */
    uint64_t n_tensors; /* 0: none */
};

/* *parts: one plan each, laid out; tables of tensors lie in a. kvs, meta and vocab are the whole plan's. */
APR_MUST_USE enum apr_code parts_make(const struct apr_plan *whole, struct parts_limit limit,
                                      struct apr_arena *a, struct apr_plan **parts, uint32_t *n_parts,
                                      struct apr_err *e);
/* "5GB", "500M", "2GiB", "4096": decimal units as in the names of disks, binary ones with an i. */
APR_MUST_USE enum apr_code parts_size(const char *option, const char *text, uint64_t *n_bytes,
                                      struct apr_err *e);

#endif

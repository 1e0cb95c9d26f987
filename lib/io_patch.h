/* Changing a file where it lies, and a file that is mostly a hole.
 *
 *     if (apr_patch_fits(off, n)) TRY(apr_patch_block(path, off, p, n, e));
 */
#ifndef APR_IO_PATCH_H
#define APR_IO_PATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define APR_PATCH_BLOCK 4096u /* the page cache and the disk replace this much, aligned, as one */

/* Do n bytes at off lie in one block? */
bool apr_patch_fits(uint64_t off, size_t n);
/* Replaces n bytes of an existing file at off by one write inside one block, and waits for the disk. */
APR_MUST_USE enum apr_code apr_patch_block(const char *path, uint64_t off, const void *p, size_t n,
                                           struct apr_err *e);

/* A file in memory with a beginning and an end of its own and zeros between them, to be opened by path. */
struct apr_sparse {
    int fd;
    char path[32];
};
APR_MUST_USE enum apr_code apr_sparse_open(struct apr_sparse *s, const void *head, size_t n_head,
                                           const void *tail, size_t n_tail, uint64_t n_all,
                                           struct apr_err *e);
void apr_sparse_close(struct apr_sparse *s);

#endif

/* Names of temporaries, and the removal of those whose maker was killed. Used by io_sink.c and io_dir.c.
 *
 * A temporary is .NAME.XXXXXX.tmp beside the target, and its maker holds a flock on it as long as it lives.
 * Whoever writes the same target next removes those that nobody holds.
 *
 *     char *path = apr_temp_path(&arena, target, base);
 *     fd = open(path, ...); if (!apr_temp_lock(fd)) try another name
 *     apr_temp_sweep(parent, base, S_IFREG, remove_file);
 */
#ifndef APR_IO_TEMP_H
#define APR_IO_TEMP_H

#include <stdbool.h>
#include <sys/types.h>

#include "arena.h"

/* base: the last part of target. What stands before it stays. */
char *apr_temp_path(struct apr_arena *a, const char *target, const char *base);
/* Holds fd until it is closed. false: somebody removed it before it could be held. Where the file system has
 * no locks nothing is held, and nothing is ever swept. */
bool apr_temp_lock(int fd);
/* Calls remove_one with each temporary of base in folder parent that is of the kind (S_IFREG, S_IFDIR), ours
 * and held by nobody. */
void apr_temp_sweep(const char *parent, const char *base, mode_t kind, void (*remove_one)(const char *path));

#endif

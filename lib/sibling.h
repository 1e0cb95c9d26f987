/* The other tools of this build: where they are, and what one of them prints.
 *
 * They stand beside this executable (bin/ of a build, libexec/apr after an installation), never in PATH. No
 * shell.
 *
 *     char path[PATH_MAX]; TRY(apr_sibling_pull("hf://org/name", path, sizeof path, e));
 */
#ifndef APR_SIBLING_H
#define APR_SIBLING_H

#include <stdbool.h>
#include <stddef.h>

#include "buf.h"
#include "err.h"

APR_MUST_USE enum apr_code apr_sibling_path(const char *name, char *out, size_t n_out, struct apr_err *e);
/* Runs argv[0] (a tool's name) with the arguments that follow, up to NULL; standard input is empty, standard
 * error ours, standard output goes to out. The program has said itself what went wrong: its status is the
 * code. */
APR_MUST_USE enum apr_code apr_sibling_read(const char *const *argv, struct apr_buf *out, struct apr_err *e);

bool apr_sibling_is_remote(const char *path); /* begins with hf:// */
/* apr-pull fetches a remote model, or finds it in the cache; path is where it is. */
APR_MUST_USE enum apr_code apr_sibling_pull(const char *name, char *path, size_t n_path, struct apr_err *e);

#endif

/* Names that become paths: each is checked component by component before it touches the file system.
 *
 * Strings are borrowed or live in the given arena.
 *
 *     TRY(name_check_path(file, "file name", e));  path = apr_arena_printf(a, "%s/%s", dir, file);
 */
#ifndef APR_PULL_NAMES_H
#define APR_PULL_NAMES_H

#include <stdbool.h>

#include "arena.h"
#include "err.h"

#define NAME_MAX_PATH   1024 /* bytes of a relative name */
#define NAME_COMMIT_HEX 40   /* a git commit */

/* Relative, '/'-separated; no empty component, "." or "..", no backslash, no control byte; 255 bytes each. */
bool name_is_path(const char *s);
APR_MUST_USE enum apr_code name_check_path(const char *s, const char *what, struct apr_err *e);
/* "org/name" or "name" in the characters that Hugging Face allows. */
bool name_is_repo(const char *s);
bool name_is_commit(const char *s);
/* Lower-case digits only, n of them. */
bool name_is_hex(const char *s, size_t n);
/* An ETag without its quotes and W/, usable as a file name: else NULL. */
const char *name_of_etag(struct apr_arena *a, const char *etag);
/* Percent-encodes all but unreserved characters; '/' stays when keep_slash. */
char *name_encode(struct apr_arena *a, const char *s, bool keep_slash);
/* name matches one of the shell patterns ('*' also crosses '/', as in Hugging Face's own client). */
bool name_matches(const char *name, const char *const *patterns, size_t n_patterns);
bool name_has_suffix(const char *s, const char *suffix);
const char *name_base(const char *path);

#endif

/* Digests of whole files: SHA-256, and git's SHA-1 of a blob (which Hugging Face uses for small files).
 *
 *     char hex[APR_SHA256_HEX]; TRY(digest_sha256(path, hex, &n_bytes, e));
 */
#ifndef APR_PULL_DIGEST_H
#define APR_PULL_DIGEST_H

#include <stdint.h>

#include "err.h"
#include "hash.h"

#define DIGEST_SHA1_HEX 41 /* 40 digits and a NUL */

APR_MUST_USE enum apr_code digest_sha256(const char *path, char hex[APR_SHA256_HEX], uint64_t *n_bytes,
                                         struct apr_err *e);
/* SHA-1 of "blob SIZE\0" and the content. */
APR_MUST_USE enum apr_code digest_git(const char *path, char hex[DIGEST_SHA1_HEX], struct apr_err *e);

#endif

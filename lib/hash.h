/* SHA-256 (OpenSSL EVP), CRC-32 (zlib) and XXH3-64 (xxhash) behind one face.
 *
 *     struct apr_sha256 *h; TRY(apr_sha256_begin(&h, e)); apr_sha256_add(h, p, n); apr_sha256_end(h, hex);
 */
#ifndef APR_HASH_H
#define APR_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define APR_SHA256_HEX 65 /* 64 digits and a NUL */

struct apr_sha256;
APR_MUST_USE enum apr_code apr_sha256_begin(struct apr_sha256 **h, struct apr_err *e);
void apr_sha256_add(struct apr_sha256 *h, const void *p, size_t n_bytes);
void apr_sha256_end(struct apr_sha256 *h, char hex[APR_SHA256_HEX]); /* frees h; hex may be NULL */

uint32_t apr_crc32(uint32_t crc, const void *p, size_t n_bytes); /* start with 0 */

struct apr_xxh3;
struct apr_xxh3 *apr_xxh3_begin(void);
void apr_xxh3_add(struct apr_xxh3 *h, const void *p, size_t n_bytes);
uint64_t apr_xxh3_end(struct apr_xxh3 *h); /* frees h */
uint64_t apr_xxh3_64(const void *p, size_t n_bytes);
uint32_t apr_xxh32(const void *p, size_t n_bytes); /* seed 0: the checksums of LZ4 frames */

/* For hash tables in memory over names from files: seeded at random per process, so that no file can be
 * made to collide. Never written anywhere. */
uint64_t apr_hash_key(const void *p, size_t n_bytes);

#endif

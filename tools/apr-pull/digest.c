/* Digests of files. See digest.h. */
#include "digest.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>

#include "arena.h"
#include "io.h"

#define READ_BYTES ((size_t)1 << 20)
#define SHA1_BYTES 20

typedef void add_fn(void *hash, const void *p, size_t n_bytes);

static enum apr_code add_file(const char *path, add_fn *add, void *hash, uint64_t *n_bytes, struct apr_err *e)
{
    struct apr_arena a;
    struct apr_src *src;
    size_t n = 1;
    enum apr_code code = APR_OK;
    TRY(apr_src_open(&src, path, e));
    apr_arena_init(&a);
    uint8_t *buf = apr_arena_get(&a, READ_BYTES);
    for (*n_bytes = 0; n > 0 && code == APR_OK; *n_bytes += n) {
        n = 0;
        code = apr_src_read_some(src, buf, READ_BYTES, &n, e);
        if (code == APR_OK) add(hash, buf, n);
    }
    apr_arena_free(&a);
    apr_src_close(src);
    return code;
}

static void add_sha256(void *hash, const void *p, size_t n_bytes)
{
    apr_sha256_add(hash, p, n_bytes);
}

static void add_evp(void *hash, const void *p, size_t n_bytes)
{
    EVP_DigestUpdate(hash, p, n_bytes);
}

enum apr_code digest_sha256(const char *path, char hex[APR_SHA256_HEX], uint64_t *n_bytes, struct apr_err *e)
{
    struct apr_sha256 *h;
    TRY(apr_sha256_begin(&h, e));
    enum apr_code code = add_file(path, add_sha256, h, n_bytes, e);
    apr_sha256_end(h, hex);
    return code;
}

enum apr_code digest_git(const char *path, char hex[DIGEST_SHA1_HEX], struct apr_err *e)
{
    struct apr_src *src;
    unsigned char sum[EVP_MAX_MD_SIZE] = {0};
    char head[40];
    uint64_t n_bytes = 0;
    TRY(apr_src_open(&src, path, e));
    int n_head = snprintf(head, sizeof head, "blob %" PRIu64, apr_src_size(src));
    apr_src_close(src);
    EVP_MD_CTX *h = EVP_MD_CTX_new();
    if (!h || EVP_DigestInit_ex(h, EVP_sha1(), NULL) != 1) {
        EVP_MD_CTX_free(h);
        return apr_fail(e, APR_EUNAVAIL, "SHA-1 is not available from OpenSSL");
    }
    EVP_DigestUpdate(h, head, (size_t)n_head + 1); /* its NUL is part of it */
    enum apr_code code = add_file(path, add_evp, h, &n_bytes, e);
    EVP_DigestFinal_ex(h, sum, NULL);
    EVP_MD_CTX_free(h);
    for (size_t i = 0; i < SHA1_BYTES; i++) snprintf(hex + 2 * i, 3, "%02x", sum[i]);
    return code;
}

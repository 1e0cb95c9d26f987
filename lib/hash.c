/* The three hashes of the formats, and the key hash of the tables. */
#include "hash.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/random.h>
#define XXH_STATIC_LINKING_ONLY /* for the size of its state */
#include <xxhash.h>
#include <zlib.h>

#include "arena.h"

#define SHA256_BYTES 32

struct apr_sha256; /* is OpenSSL's EVP_MD_CTX */
struct apr_xxh3;   /* is XXH3_state_t */

static void *crypto_get(size_t n_bytes, const char *file, int line)
{
    (void)file, (void)line;
    return apr_heap_get(n_bytes);
}

static void *crypto_resize(void *p, size_t n_bytes, const char *file, int line)
{
    (void)file, (void)line;
    return apr_heap_resize(p, n_bytes);
}

static void crypto_free(void *p, const char *file, int line)
{
    (void)file, (void)line;
    apr_heap_free(p);
}

/* OpenSSL 3.0 crashes when memory runs out while it fetches an algorithm. Its cleanup at exit could then meet
 * its own locks. Where a library below us has used it already, this has no effect. */
static void crypto_begin(void)
{
    CRYPTO_set_mem_functions(crypto_get, crypto_resize, crypto_free);
    OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, NULL);
}

enum apr_code apr_sha256_begin(struct apr_sha256 **h, struct apr_err *e)
{
    static atomic_flag begun = ATOMIC_FLAG_INIT; /* the first hash is begun before there are other threads */
    if (!atomic_flag_test_and_set(&begun)) crypto_begin();
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    *h = NULL;
    if (!ctx || EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1) {
        EVP_MD_CTX_free(ctx);
        return apr_fail(e, APR_EUNAVAIL, "SHA-256 is not available from OpenSSL");
    }
    *h = (struct apr_sha256 *)ctx;
    return APR_OK;
}

void apr_sha256_add(struct apr_sha256 *h, const void *p, size_t n_bytes)
{
    EVP_DigestUpdate((EVP_MD_CTX *)h, p, n_bytes);
}

void apr_sha256_end(struct apr_sha256 *h, char hex[APR_SHA256_HEX])
{
    unsigned char sum[EVP_MAX_MD_SIZE];
    if (!h) return;
    EVP_DigestFinal_ex((EVP_MD_CTX *)h, sum, NULL);
    EVP_MD_CTX_free((EVP_MD_CTX *)h);
    if (!hex) return;
    for (size_t i = 0; i < SHA256_BYTES; i++) snprintf(hex + 2 * i, 3, "%02x", sum[i]);
}

uint32_t apr_crc32(uint32_t crc, const void *p, size_t n_bytes)
{
    return n_bytes ? (uint32_t)crc32_z(crc, p, n_bytes) : crc;
}

struct apr_xxh3 *apr_xxh3_begin(void)
{
    XXH3_state_t *s = XXH3_createState();
    if (!s) apr_memory_exhausted(sizeof *s);
    XXH3_64bits_reset(s);
    return (struct apr_xxh3 *)s;
}

void apr_xxh3_add(struct apr_xxh3 *h, const void *p, size_t n_bytes)
{
    if (h && n_bytes) XXH3_64bits_update((XXH3_state_t *)h, p, n_bytes);
}

uint64_t apr_xxh3_end(struct apr_xxh3 *h)
{
    uint64_t sum = h ? XXH3_64bits_digest((XXH3_state_t *)h) : 0;
    XXH3_freeState((XXH3_state_t *)h);
    return sum;
}

uint32_t apr_xxh32(const void *p, size_t n_bytes)
{
    return XXH32(p, n_bytes, 0);
}

uint64_t apr_xxh3_64(const void *p, size_t n_bytes)
{
    return XXH3_64bits(p, n_bytes);
}

uint64_t apr_hash_key(const void *p, size_t n_bytes)
{
    static _Atomic uint64_t seed;
    uint64_t s = seed;
    while (s == 0) {
        uint64_t fresh;
        if (getrandom(&fresh, sizeof fresh, 0) != sizeof fresh) fresh = (uint64_t)(uintptr_t)&seed;
        if (fresh == 0) fresh = 1;
        if (__atomic_compare_exchange_n((uint64_t *)&seed, &s, fresh, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            s = fresh;
    }
    return XXH3_64bits_withSeed(p, n_bytes, s);
}

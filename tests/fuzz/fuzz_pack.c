/* Compressed streams: whatever the bytes, both readers stop within what was asked for, and agree where both
 * deliver. The first byte chooses the kind. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pack.h"

#define MAX_CONTENT ((size_t)1 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

struct input {
    const uint8_t *p;
    size_t n, at;
};

static enum apr_code get(void *ctx, void *dst, size_t n, size_t *n_got, struct apr_err *e)
{
    struct input *in = ctx;
    (void)e;
    *n_got = in->n - in->at < n ? in->n - in->at : n;
    if (*n_got) memcpy(dst, in->p + in->at, *n_got);
    in->at += *n_got;
    return APR_OK;
}

static enum apr_code at(void *ctx, uint64_t off, void *dst, size_t n, struct apr_err *e)
{
    const struct input *in = ctx;
    (void)e;
    if (off > in->n || n > in->n - off) abort();
    if (n) memcpy(dst, in->p + off, n);
    return APR_OK;
}

static enum apr_code sequence(enum apr_pack kind, struct input in, uint8_t *dst, size_t *n_done)
{
    struct apr_err e;
    struct apr_unpacker *u = apr_unpacker_open(kind, "fuzz", get, &in);
    enum apr_code code = APR_OK;
    size_t n_got = 1;
    *n_done = 0;
    while (code == APR_OK && n_got && *n_done < MAX_CONTENT) {
        code = apr_unpacker_read(u, dst + *n_done, MAX_CONTENT - *n_done, &n_got, &e);
        if (code == APR_OK) *n_done += n_got;
    }
    apr_unpacker_close(u);
    return code;
}

static enum apr_code anywhere(enum apr_pack kind, struct input in, uint8_t *dst, size_t *n_done)
{
    struct apr_pack_in from = {.kind = kind, .file = "fuzz", .n_bytes = in.n, .at = at, .ctx = &in};
    struct apr_packed *z;
    struct apr_err e;
    enum apr_code code = apr_packed_open(&z, &from, &e);
    if (code != APR_OK) return code;
    code = apr_packed_bound(z, MAX_CONTENT, &e);
    *n_done = code == APR_OK ? (size_t)apr_packed_size(z) : 0;
    if (code == APR_OK) code = apr_packed_read(z, 0, dst, *n_done, "all", &e);
    apr_packed_close(z);
    return code;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    if (n < 1) return 0;
    enum apr_pack kind = p[0] & 1 ? APR_PACK_ZSTD : APR_PACK_LZ4;
    struct input in = {.p = p + 1, .n = n - 1};
    uint8_t *a = malloc(MAX_CONTENT), *b = malloc(MAX_CONTENT);
    size_t n_a, n_b;
    if (!a || !b) abort();
    enum apr_code code_a = sequence(kind, in, a, &n_a), code_b = anywhere(kind, in, b, &n_b);
    if (code_a == APR_OK && code_b == APR_OK && (n_a != n_b || memcmp(a, b, n_a) != 0)) abort();
    free(a);
    free(b);
    return 0;
}

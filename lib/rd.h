/* Checked little-endian cursor: the only pointer arithmetic on untrusted headers.
 *
 * Over memory, or over a source that is read as far as the header needs (a pipe). Bytes returned by
 * apr_rd_bytes are valid until the next call on the cursor; copy what must live.
 *
 *     struct apr_rd rd; apr_rd_mem(&rd, p, n, 0, file);
 *     TRY(apr_rd_u64(&rd, &n_tensors, "tensor count", e));
 */
#ifndef APR_RD_H
#define APR_RD_H

#include <stdint.h>

#include "buf.h"
#include "err.h"
#include "io.h"

struct apr_rd {
    const uint8_t *base;
    uint64_t n_bytes; /* available at base */
    uint64_t pos;
    uint64_t off_base;   /* file offset of base[0], for messages */
    const char *file;    /* borrowed */
    struct apr_src *src; /* NULL: memory only */
    struct apr_buf buf;  /* owned; used with src */
    uint64_t n_limit;    /* bytes that may still be taken from src */
};

void apr_rd_mem(struct apr_rd *rd, const void *p, uint64_t n_bytes, uint64_t off_base, const char *file);
void apr_rd_src(struct apr_rd *rd, struct apr_src *src, uint64_t max_bytes); /* consumes src as it reads */
void apr_rd_close(struct apr_rd *rd);
uint64_t apr_rd_off(const struct apr_rd *rd); /* file offset of the next byte */
/* Upper bound on what can still follow: bytes left in memory or in a seekable source, else UINT64_MAX. */
uint64_t apr_rd_left(const struct apr_rd *rd);
/* "n things of at least n_each bytes" can follow; else APR_EFORMAT. Call before allocating for a count. */
APR_MUST_USE enum apr_code apr_rd_room(struct apr_rd *rd, uint64_t n, uint64_t n_each, const char *field,
                                       struct apr_err *e);
APR_MUST_USE enum apr_code apr_rd_u8(struct apr_rd *rd, uint8_t *v, const char *field, struct apr_err *e);
APR_MUST_USE enum apr_code apr_rd_u16(struct apr_rd *rd, uint16_t *v, const char *field, struct apr_err *e);
APR_MUST_USE enum apr_code apr_rd_u32(struct apr_rd *rd, uint32_t *v, const char *field, struct apr_err *e);
APR_MUST_USE enum apr_code apr_rd_u64(struct apr_rd *rd, uint64_t *v, const char *field, struct apr_err *e);
APR_MUST_USE enum apr_code apr_rd_bytes(struct apr_rd *rd, uint64_t n, const uint8_t **p, const char *field,
                                        struct apr_err *e);
/* n bytes that must all be zero. */
APR_MUST_USE enum apr_code apr_rd_zeros(struct apr_rd *rd, uint64_t n, const char *field, struct apr_err *e);

#endif

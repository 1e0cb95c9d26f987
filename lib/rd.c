/* Bounds are checked by subtraction; over a source the buffer grows only with bytes that really came. */
#include "rd.h"

#include <inttypes.h>
#include <string.h>

#define FILL_BYTES ((uint64_t)1 << 20) /* a claimed length is believed this far ahead of the data */

void apr_rd_mem(struct apr_rd *rd, const void *p, uint64_t n_bytes, uint64_t off_base, const char *file)
{
    *rd = (struct apr_rd){.base = p, .n_bytes = n_bytes, .off_base = off_base, .file = file};
}

void apr_rd_src(struct apr_rd *rd, struct apr_src *src, uint64_t max_bytes)
{
    *rd = (struct apr_rd){
        .off_base = apr_src_pos(src), .file = apr_src_name(src), .src = src, .n_limit = max_bytes};
    apr_buf_init(&rd->buf, SIZE_MAX / 2);
}

void apr_rd_close(struct apr_rd *rd)
{
    if (rd->src) apr_buf_free(&rd->buf);
    *rd = (struct apr_rd){.file = rd->file};
}

uint64_t apr_rd_off(const struct apr_rd *rd)
{
    return rd->off_base + rd->pos;
}

uint64_t apr_rd_left(const struct apr_rd *rd)
{
    uint64_t n_have = rd->n_bytes - rd->pos;
    if (!rd->src) return n_have;
    if (!apr_src_seekable(rd->src)) return UINT64_MAX;
    uint64_t size = apr_src_size(rd->src), pos = apr_src_pos(rd->src);
    return n_have + (size > pos ? size - pos : 0);
}

enum apr_code apr_rd_room(struct apr_rd *rd, uint64_t n, uint64_t n_each, const char *field,
                          struct apr_err *e)
{
    uint64_t left = apr_rd_left(rd);
    if (rd->src && rd->n_limit < left) left = rd->n_limit + (rd->n_bytes - rd->pos);
    if (n_each == 0 || n <= left / n_each) return APR_OK;
    return apr_fail(e, APR_EFORMAT,
                    "%s: byte %" PRIu64 ": %s: %" PRIu64 " entries of at least %" PRIu64
                    " bytes cannot fit; %" PRIu64 " bytes can follow",
                    rd->file, apr_rd_off(rd), field, n, n_each, left);
}

/* Makes n bytes available at base + pos. */
static enum apr_code need(struct apr_rd *rd, uint64_t n, const char *field, struct apr_err *e)
{
    uint64_t n_have = rd->n_bytes - rd->pos;
    if (n <= n_have) return APR_OK;
    if (!rd->src)
        return apr_fail(e, APR_EFORMAT,
                        "%s: byte %" PRIu64 ": %s needs %" PRIu64 " bytes, %" PRIu64 " are left", rd->file,
                        apr_rd_off(rd), field, n, n_have);
    if (n - n_have > rd->n_limit)
        return apr_fail(e, APR_EFORMAT,
                        "%s: byte %" PRIu64 ": %s needs %" PRIu64 " bytes, more than a header may have",
                        rd->file, apr_rd_off(rd), field, n);
    TRY(apr_rd_room(rd, n, 1, field, e));
    apr_buf_drop_front(&rd->buf, (size_t)rd->pos);
    rd->off_base += rd->pos;
    rd->pos = 0;
    while (rd->buf.n_bytes < n) {
        uint64_t n_more = n - rd->buf.n_bytes;
        uint8_t *at;
        if (n_more > FILL_BYTES) n_more = FILL_BYTES;
        TRY(apr_buf_reserve(&rd->buf, (size_t)n_more, &at, e));
        TRY(apr_src_read(rd->src, at, (size_t)n_more, field, e));
        apr_buf_commit(&rd->buf, (size_t)n_more);
        rd->n_limit -= n_more;
        rd->base = rd->buf.data;
        rd->n_bytes = rd->buf.n_bytes;
    }
    return APR_OK;
}

enum apr_code apr_rd_bytes(struct apr_rd *rd, uint64_t n, const uint8_t **p, const char *field,
                           struct apr_err *e)
{
    static const uint8_t none;
    TRY(need(rd, n, field, e));
    *p = rd->base ? rd->base + rd->pos : &none;
    rd->pos += n;
    return APR_OK;
}

enum apr_code apr_rd_u8(struct apr_rd *rd, uint8_t *v, const char *field, struct apr_err *e)
{
    const uint8_t *p;
    TRY(apr_rd_bytes(rd, 1, &p, field, e));
    *v = *p;
    return APR_OK;
}

enum apr_code apr_rd_u16(struct apr_rd *rd, uint16_t *v, const char *field, struct apr_err *e)
{
    const uint8_t *p;
    TRY(apr_rd_bytes(rd, 2, &p, field, e));
    *v = (uint16_t)(p[0] | p[1] << 8);
    return APR_OK;
}

enum apr_code apr_rd_u32(struct apr_rd *rd, uint32_t *v, const char *field, struct apr_err *e)
{
    const uint8_t *p;
    TRY(apr_rd_bytes(rd, 4, &p, field, e));
    *v = 0;
    for (unsigned i = 0; i < 4; i++) *v |= (uint32_t)p[i] << 8 * i;
    return APR_OK;
}

enum apr_code apr_rd_u64(struct apr_rd *rd, uint64_t *v, const char *field, struct apr_err *e)
{
    const uint8_t *p;
    TRY(apr_rd_bytes(rd, 8, &p, field, e));
    *v = 0;
    for (unsigned i = 0; i < 8; i++) *v |= (uint64_t)p[i] << 8 * i;
    return APR_OK;
}

enum apr_code apr_rd_zeros(struct apr_rd *rd, uint64_t n, const char *field, struct apr_err *e)
{
    while (n) {
        const uint8_t *p;
        uint64_t n_now = n < FILL_BYTES ? n : FILL_BYTES, off = apr_rd_off(rd);
        TRY(apr_rd_bytes(rd, n_now, &p, field, e));
        for (uint64_t i = 0; i < n_now; i++)
            if (p[i])
                return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": %s: found 0x%02x, expected zero",
                                rd->file, off + i, field, p[i]);
        n -= n_now;
    }
    return APR_OK;
}

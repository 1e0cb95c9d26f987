/* What follows the data of an .apr file: the trailing section, the footer, the end. See apr.h.
 *
 *   off_end (a multiple of 64): "APRT", u32 version, u64 n, n bytes of JSON, zeros to a multiple of 64,
 *   u64 n, "APRT"; then u32 CRC-32 of every byte before it; then the end of the file.
 */
#include "apr.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../ckd.h"
#include "../hash.h"
#include "../json.h"
#include "../rd.h"

#define VERIFY_BYTES ((size_t)1 << 20)

static uint64_t off_end(const struct apr_model *m)
{
    return m->header.off_data + m->header.n_data_bytes;
}

/* End of the last tensor without its padding. */
static uint64_t off_least(const struct apr_model *m)
{
    uint64_t least = m->header.off_data;
    for (uint64_t i = 0; i < m->n_tensors; i++)
        if (m->tensors[i].off_file + m->tensors[i].n_bytes > least)
            least = m->tensors[i].off_file + m->tensors[i].n_bytes;
    return least;
}

/* Reads the section from its first byte on. */
static enum apr_code read_section(struct apr_rd *rd, struct apr_model *m, struct apr_err *e)
{
    uint64_t off = apr_rd_off(rd), n, n_again;
    const uint8_t *p;
    uint32_t version;
    TRY(apr_rd_bytes(rd, 4, &p, "trailing section", e));
    if (memcmp(p, APR_TAIL_MAGIC, 4) != 0)
        return apr_fail(e, APR_EFORMAT,
                        "%s: byte %" PRIu64 ": bytes after the last tensor that are no trailing section",
                        rd->file, off);
    TRY(apr_rd_u32(rd, &version, "version of the trailing section", e));
    if (version != APR_TAIL_VERSION)
        return apr_fail(e, APR_ELOAD,
                        "%s: byte %" PRIu64 ": trailing section of version %" PRIu32 ", expected %u",
                        rd->file, off + 4, version, APR_TAIL_VERSION);
    TRY(apr_rd_u64(rd, &n, "length of the trailing section", e));
    if (n > APR_TAIL_MAX_JSON)
        return apr_fail(e, APR_EFORMAT,
                        "%s: byte %" PRIu64 ": trailing section of %" PRIu64 " bytes, expected at most %u",
                        rd->file, off + 8, n, APR_TAIL_MAX_JSON);
    TRY(apr_rd_bytes(rd, n, &p, "trailing section", e));
    TRY(apr_json_parse((const char *)p, (size_t)n, rd->file, &m->trailer, e));
    TRY(apr_rd_zeros(rd, apr_align64(APR_TAIL_HEAD + n) - APR_TAIL_HEAD - n,
                     "padding of the trailing section", e));
    TRY(apr_rd_u64(rd, &n_again, "length of the trailing section", e));
    TRY(apr_rd_bytes(rd, 4, &p, "end of the trailing section", e));
    if (n_again != n || memcmp(p, APR_TAIL_MAGIC, 4) != 0)
        return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": the trailing section does not end as it began",
                        rd->file, apr_rd_off(rd) - APR_TAIL_FOOT);
    return APR_OK;
}

/* The original's readers never look at the footer, and its files lose it: tolerated there, but a file of ours
 * that has none was cut. */
static enum apr_code no_footer(const struct apr_model *m, uint64_t size, struct apr_err *e)
{
    const char *file = apr_src_name(m->files[0].src);
    if (json_object_get(m->apr_meta, "apr") || size < off_least(m))
        return apr_fail(e, APR_EFORMAT,
                        "%s: ends at byte %" PRIu64 ", expected tensors up to %" PRIu64 " and a footer", file,
                        size, off_end(m));
    return APR_OK;
}

enum apr_code apr_tail_read(struct apr_model *m, struct apr_err *e)
{
    struct apr_src *src = m->files[0].src;
    uint64_t size = apr_src_size(src), n_tail;
    struct apr_buf b;
    struct apr_rd rd;
    uint8_t *at;
    enum apr_code code;
    if (size < off_end(m) + APR_FOOTER_BYTES) return no_footer(m, size, e);
    m->header.has_footer = true;
    n_tail = size - APR_FOOTER_BYTES - off_end(m);
    if (n_tail == 0) return APR_OK;
    if (n_tail > (uint64_t)APR_TAIL_MAX_JSON + 4096)
        return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": %" PRIu64 " bytes after the last tensor",
                        apr_src_name(src), off_end(m), n_tail);
    apr_buf_init(&b, SIZE_MAX / 2);
    code = apr_buf_reserve(&b, (size_t)n_tail, &at, e);
    if (code == APR_OK) code = apr_src_pread(src, off_end(m), at, (size_t)n_tail, "trailing section", e);
    if (code == APR_OK) {
        apr_rd_mem(&rd, at, n_tail, off_end(m), apr_src_name(src));
        code = read_section(&rd, m, e);
        if (code == APR_OK && apr_rd_left(&rd))
            code = apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": bytes after the trailing section",
                            apr_src_name(src), apr_rd_off(&rd));
    }
    apr_buf_free(&b);
    return code;
}

static enum apr_code check_footer(struct apr_src *src, uint32_t found, uint32_t crc, uint64_t off,
                                  struct apr_err *e)
{
    if (found == crc) return APR_OK;
    return apr_fail(e, APR_EFORMAT,
                    "%s: byte %" PRIu64 ": footer checksum %08" PRIx32 ", expected %08" PRIx32
                    ": the file is damaged",
                    apr_src_name(src), off, found, crc);
}

enum apr_code apr_tail_stream(struct apr_model *m, struct apr_err *e)
{
    struct apr_src *src = m->files[0].src;
    const uint8_t *p;
    size_t n;
    struct apr_rd rd;
    uint32_t crc, found;
    uint64_t off;
    TRY(apr_src_skip(src, off_end(m) - apr_src_pos(src), "tensor data", e));
    TRY(apr_src_peek(src, APR_FOOTER_BYTES + 1, &p, &n, e));
    if (n > APR_FOOTER_BYTES) {
        apr_rd_src(&rd, src, (uint64_t)APR_TAIL_MAX_JSON + 4096);
        enum apr_code code = read_section(&rd, m, e);
        apr_rd_close(&rd);
        TRY(code);
    }
    crc = apr_src_crc(src);
    off = apr_src_pos(src);
    apr_rd_src(&rd, src, APR_FOOTER_BYTES);
    enum apr_code code = apr_rd_u32(&rd, &found, "footer", e);
    apr_rd_close(&rd);
    TRY(code);
    m->header.has_footer = true;
    TRY(check_footer(src, found, crc, off, e));
    TRY(apr_src_peek(src, 1, &p, &n, e));
    return n ? apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": bytes after the footer", apr_src_name(src),
                        apr_src_pos(src))
             : APR_OK;
}

/* ---- validate ----------------------------------------------------------------------------------------- */

static enum apr_code verify_footer(struct apr_model *m, uint8_t *buf, struct apr_err *e)
{
    struct apr_src *src = m->files[0].src;
    uint64_t n = apr_src_size(src) - APR_FOOTER_BYTES;
    uint32_t crc = 0, found = 0;
    uint8_t foot[APR_FOOTER_BYTES];
    for (uint64_t off = 0; off < n; off += VERIFY_BYTES) {
        size_t n_now = n - off < VERIFY_BYTES ? (size_t)(n - off) : VERIFY_BYTES;
        TRY(apr_src_pread(src, off, buf, n_now, "the file", e));
        crc = apr_crc32(crc, buf, n_now);
    }
    TRY(apr_src_pread(src, n, foot, sizeof foot, "footer", e));
    for (unsigned i = 0; i < sizeof foot; i++) found |= (uint32_t)foot[i] << 8 * i;
    return check_footer(src, found, crc, n, e);
}

static enum apr_code verify_padding(struct apr_model *m, const struct apr_tensor *t, struct apr_err *e)
{
    struct apr_src *src = m->files[t->i_file].src;
    uint8_t pad[APR_ALIGNMENT];
    uint64_t end = t->off_file + t->n_bytes, n = apr_align64(end) - end;
    struct apr_rd rd;
    if (end + n > apr_src_size(src)) return APR_OK; /* cut within the padding: no_footer's business */
    TRY(apr_src_pread(src, end, pad, (size_t)n, "padding", e));
    apr_rd_mem(&rd, pad, n, end, apr_src_name(src));
    return apr_rd_zeros(&rd, n, "padding after a tensor", e);
}

/* Trailing section: {"tensors": {name: 16 hex digits of XXH3-64}}. */
static enum apr_code verify_hash(struct apr_model *m, const struct apr_tensor *t, uint8_t *buf,
                                 struct apr_err *e)
{
    const char *want = json_string_value(json_object_get(json_object_get(m->trailer, "tensors"), t->name));
    struct apr_xxh3 *h;
    enum apr_code code = APR_OK;
    char hex[17];
    if (!want) return APR_OK;
    h = apr_xxh3_begin();
    for (uint64_t off = 0; off < t->n_bytes && code == APR_OK; off += VERIFY_BYTES) {
        size_t n_now = t->n_bytes - off < VERIFY_BYTES ? (size_t)(t->n_bytes - off) : VERIFY_BYTES;
        code = apr_model_read(m, t, off, buf, n_now, e);
        if (code == APR_OK) apr_xxh3_add(h, buf, n_now);
    }
    (void)snprintf(hex, sizeof hex, "%016" PRIx64, apr_xxh3_end(h));
    if (code == APR_OK && strcmp(hex, want) != 0)
        code = apr_fail(e, APR_EFORMAT, "%s: tensor \"%s\": hash %s, expected %s",
                        apr_src_name(m->files[0].src), t->name, hex, want);
    return code;
}

enum apr_code apr_tail_verify(struct apr_model *m, struct apr_err *e)
{
    struct apr_arena a;
    enum apr_code code = APR_OK;
    uint8_t *buf;
    apr_arena_init(&a);
    buf = apr_arena_get(&a, VERIFY_BYTES);
    for (uint64_t i = 0; i < m->n_tensors && code == APR_OK; i++) {
        code = verify_padding(m, &m->tensors[i], e);
        if (code == APR_OK) code = verify_hash(m, &m->tensors[i], buf, e);
    }
    if (code == APR_OK && m->header.has_footer) code = verify_footer(m, buf, e);
    apr_arena_free(&a);
    return code;
}

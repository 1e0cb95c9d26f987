/* Writer of .apr files: everything before the data is final when it is written. See apr.h. */
#include "apr.h"

#include <inttypes.h>
#include <string.h>

#include "../hash.h"
#include "../json.h"
#include "apr_text.h"
#include "writer.h"

static void set_uint(uint8_t *at, uint64_t v, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++) at[i] = (uint8_t)(v >> 8 * i);
}

static enum apr_code put_uint(struct apr_buf *b, uint64_t v, size_t n_bytes, struct apr_err *e)
{
    uint8_t bytes[8];
    set_uint(bytes, v, n_bytes);
    return apr_buf_append(b, bytes, n_bytes, e);
}

static enum apr_code pad64(struct apr_buf *b, struct apr_err *e)
{
    static const uint8_t zeros[APR_ALIGNMENT];
    return apr_buf_append(b, zeros, (size_t)(apr_align64(b->n_bytes) - b->n_bytes), e);
}

/* What the writer alone knows: sizes and shapes of the output, and the long arrays. */
static enum apr_code put_own_members(const struct apr_plan *p, bool is_first, struct apr_buf *b,
                                     struct apr_err *e)
{
    TRY(apr_buf_printf(b, e, "%s\"total_size\":%" PRIu64 ",\"tensor_shapes\":{", is_first ? "" : ",",
                       p->n_data_bytes));
    for (uint64_t i = 0; i < p->n_tensors; i++) {
        const struct apr_plan_tensor *t = &p->tensors[i];
        if (i) TRY(apr_buf_append(b, ",", 1, e));
        TRY(apr_json_put_str(b, t->name, strlen(t->name), e));
        TRY(apr_buf_append(b, ":[", 2, e));
        for (uint32_t k = 0; k < t->n_dims; k++)
            TRY(apr_buf_printf(b, e, k ? ",%" PRIu64 : "%" PRIu64, t->dims[k]));
        TRY(apr_buf_append(b, "]", 1, e));
    }
    TRY(apr_buf_append(b, "}", 1, e));
    TRY(apr_text_put(p->vocab, b, e));
    return apr_buf_append(b, "}", 1, e);
}

static enum apr_code put_metadata(const struct apr_plan *p, struct apr_buf *b, struct apr_err *e)
{
    if (!p->meta || json_object_size(p->meta) == 0) {
        TRY(apr_buf_append(b, "{", 1, e));
        return put_own_members(p, true, b, e);
    }
    TRY(apr_json_dump(p->meta, false, b, e));
    b->n_bytes--; /* the object goes on */
    return put_own_members(p, false, b, e);
}

static enum apr_code put_entry(const struct apr_plan_tensor *t, struct apr_buf *b, struct apr_err *e)
{
    size_t n_name = strlen(t->name);
    uint8_t id[2] = {apr_dtype_id(t->type), (uint8_t)t->n_dims};
    TRY(put_uint(b, n_name, 2, e));
    TRY(apr_buf_append(b, t->name, n_name, e));
    TRY(apr_buf_append(b, id, sizeof id, e));
    for (uint32_t i = 0; i < t->n_dims; i++) TRY(put_uint(b, t->dims[i], 8, e));
    TRY(put_uint(b, t->off_data, 8, e));
    return put_uint(b, t->n_bytes, 8, e);
}

static enum apr_code check_plan(const struct apr_plan *p, struct apr_err *e)
{
    TRY(apr_writer_check(p, APR_MAX_NAME_BYTES, e));
    if (p->alignment != APR_ALIGNMENT)
        return apr_fail(e, APR_EFORMAT, ".apr: alignment %" PRIu32 ", expected %u", p->alignment,
                        APR_ALIGNMENT);
    for (uint64_t i = 0; i < p->n_tensors; i++) {
        const struct apr_plan_tensor *t = &p->tensors[i];
        if (!apr_apr_holds(t->type))
            return apr_fail(e, APR_ELOAD, "tensor \"%s\": .apr has no %s", t->name, apr_type_name(t->type));
        if (i && strcmp(p->tensors[i - 1].name, t->name) >= 0)
            return apr_fail(e, APR_EFORMAT,
                            ".apr: tensor \"%s\" does not follow \"%s\" in byte order; the index is "
                            "sorted and the data follows it",
                            t->name, p->tensors[i - 1].name);
    }
    return APR_OK;
}

static unsigned pack_flag(enum apr_pack pack)
{
    if (pack == APR_PACK_NONE) return 0;
    return pack == APR_PACK_LZ4 ? APR_FLAG_LZ4 : APR_FLAG_ZSTD;
}

static enum apr_code put_head(const struct apr_plan *p, struct apr_buf *b, struct apr_err *e)
{
    uint8_t head[APR_HEADER_BYTES] = {'A', 'P', 'R', 0, APR_MAJOR, 0};
    uint64_t n_meta, off_index;
    uint32_t crc;
    TRY(check_plan(p, e));
    TRY(apr_buf_append(b, head, sizeof head, e));
    TRY(put_metadata(p, b, e));
    n_meta = b->n_bytes - APR_HEADER_BYTES;
    TRY(pad64(b, e));
    off_index = b->n_bytes;
    for (uint64_t i = 0; i < p->n_tensors; i++) TRY(put_entry(&p->tensors[i], b, e));
    TRY(pad64(b, e));
    set_uint(head + APR_OFF_FLAGS, APR_FLAG_ROW_MAJOR | pack_flag(p->pack), 2);
    set_uint(head + APR_OFF_N_TENSORS, p->n_tensors, 4);
    set_uint(head + APR_OFF_META_AT, APR_HEADER_BYTES, 8);
    set_uint(head + APR_OFF_META_BYTES, n_meta, 4);
    set_uint(head + APR_OFF_INDEX_AT, off_index, 8);
    set_uint(head + APR_OFF_DATA_AT, b->n_bytes, 8);
    crc = apr_crc32(0, head, APR_OFF_CRC);
    crc = apr_crc32(crc, head + APR_OFF_RESERVED, APR_HEADER_BYTES - APR_OFF_RESERVED);
    set_uint(head + APR_OFF_CRC, crc, 4);
    memcpy(b->data, head, sizeof head);
    return APR_OK;
}

enum apr_code apr_apr_begin(const struct apr_plan *p, struct apr_sink *s, struct apr_writer **w,
                            struct apr_err *e)
{
    struct apr_buf b;
    enum apr_code code;
    apr_buf_init(&b, APR_MAX_META_BYTES);
    code = put_head(p, &b, e);
    if (code == APR_OK) {
        apr_sink_crc_begin(s);
        apr_sink_write(s, b.data, b.n_bytes);
        *w = apr_writer_new(p, s);
    }
    apr_buf_free(&b);
    return code;
}

static enum apr_code put_tail(const json_t *trailer, struct apr_buf *b, struct apr_err *e)
{
    uint64_t n;
    TRY(apr_buf_append(b, APR_TAIL_MAGIC, 4, e));
    TRY(put_uint(b, APR_TAIL_VERSION, 4, e));
    TRY(put_uint(b, 0, 8, e));
    TRY(apr_json_dump(trailer, true, b, e));
    n = b->n_bytes - APR_TAIL_HEAD;
    set_uint(b->data + 8, n, 8);
    TRY(pad64(b, e));
    TRY(put_uint(b, n, 8, e));
    return apr_buf_append(b, APR_TAIL_MAGIC, 4, e);
}

enum apr_code apr_apr_end(struct apr_writer *w, const json_t *trailer, struct apr_err *e)
{
    enum apr_code code = apr_writer_full(w, e);
    struct apr_buf b;
    uint8_t foot[APR_FOOTER_BYTES];
    apr_buf_init(&b, APR_TAIL_MAX_JSON);
    if (code == APR_OK && trailer) code = put_tail(trailer, &b, e);
    if (code == APR_OK) {
        apr_sink_write(w->sink, b.data, b.n_bytes);
        set_uint(foot, apr_sink_crc(w->sink), sizeof foot);
        apr_sink_write(w->sink, foot, sizeof foot);
    }
    apr_buf_free(&b);
    apr_writer_free(w);
    return code;
}

/* The trailing section is not counted: what it will hold is not known before the data. */
enum apr_code apr_apr_measure(const struct apr_plan *p, uint64_t *n_head, uint64_t *n_total,
                              struct apr_err *e)
{
    struct apr_buf b;
    enum apr_code code;
    apr_buf_init(&b, APR_MAX_META_BYTES);
    code = put_head(p, &b, e);
    *n_head = b.n_bytes;
    *n_total = b.n_bytes + p->n_data_bytes + APR_FOOTER_BYTES;
    apr_buf_free(&b);
    return code;
}

/* Ids of GGML that collide with none of the original's meanings at equal size, and our own three. */
bool apr_apr_holds(enum apr_type type)
{
    return (unsigned)type < APR_N_TYPES && apr_quant_of(type) != NULL;
}

/* Writer of SafeTensors: one file, header in data order, padded with spaces to a multiple of 8 as the
 * reference writer does. See safetensors.h. */
#include "safetensors.h"

#include <inttypes.h>
#include <string.h>

#include "../json.h"
#include "writer.h"

#define HEADER_ALIGNMENT 8u

static enum apr_code put_metadata(const json_t *metadata, struct apr_buf *b, struct apr_err *e)
{
    if (!metadata || json_object_size(metadata) == 0) return APR_OK;
    TRY(apr_buf_printf(b, e, "\"__metadata__\":"));
    return apr_json_dump(metadata, true, b, e);
}

static enum apr_code put_tensor(const struct apr_plan_tensor *t, struct apr_buf *b, struct apr_err *e)
{
    const char *dtype = apr_st_dtype_name(t->type);
    if (!dtype)
        return apr_fail(e, APR_ELOAD, "tensor \"%s\": SafeTensors has no %s; convert to BF16, F16 or F32",
                        t->name, apr_type_name(t->type));
    TRY(apr_json_put_str(b, t->name, strlen(t->name), e));
    TRY(apr_buf_printf(b, e, ":{\"dtype\":\"%s\",\"shape\":[", dtype));
    for (uint32_t i = 0; i < t->n_dims; i++)
        TRY(apr_buf_printf(b, e, i ? ",%" PRIu64 : "%" PRIu64, t->dims[i]));
    return apr_buf_printf(b, e, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", t->off_data,
                          t->off_data + t->n_bytes);
}

static enum apr_code put_header(const struct apr_plan *p, struct apr_buf *b, struct apr_err *e)
{
    TRY(apr_writer_check(p, APR_MAX_NAME_BYTES, e));
    TRY(apr_buf_printf(b, e, "{"));
    TRY(put_metadata(p->meta, b, e));
    for (uint64_t i = 0; i < p->n_tensors; i++) {
        if (b->n_bytes > 1) TRY(apr_buf_printf(b, e, ","));
        TRY(put_tensor(&p->tensors[i], b, e));
    }
    TRY(apr_buf_printf(b, e, "}"));
    while (b->n_bytes % HEADER_ALIGNMENT) TRY(apr_buf_printf(b, e, " "));
    if (b->n_bytes > APR_MAX_ST_HEADER)
        return apr_fail(e, APR_ELOAD, "SafeTensors: a header of %zu bytes, expected at most %u", b->n_bytes,
                        APR_MAX_ST_HEADER);
    return APR_OK;
}

enum apr_code apr_st_begin(const struct apr_plan *p, struct apr_sink *s, struct apr_writer **w,
                           struct apr_err *e)
{
    struct apr_buf b;
    uint8_t length[8];
    enum apr_code code;
    apr_buf_init(&b, SIZE_MAX / 2);
    code = put_header(p, &b, e);
    if (code == APR_OK) {
        for (unsigned i = 0; i < sizeof length; i++) length[i] = (uint8_t)((uint64_t)b.n_bytes >> 8 * i);
        apr_sink_write(s, length, sizeof length);
        apr_sink_write(s, b.data, b.n_bytes);
        *w = apr_writer_new(p, s);
    }
    apr_buf_free(&b);
    return code;
}

enum apr_code apr_st_end(struct apr_writer *w, const json_t *trailer, struct apr_err *e)
{
    enum apr_code code = apr_writer_full(w, e);
    (void)trailer; /* the format has no place behind the data */
    apr_writer_free(w);
    return code;
}

enum apr_code apr_st_measure(const struct apr_plan *p, uint64_t *n_head, uint64_t *n_total, struct apr_err *e)
{
    struct apr_buf b;
    enum apr_code code;
    apr_buf_init(&b, SIZE_MAX / 2);
    code = put_header(p, &b, e);
    *n_head = sizeof(uint64_t) + b.n_bytes;
    *n_total = *n_head + p->n_data_bytes;
    apr_buf_free(&b);
    return code;
}

/* Reader of SafeTensors. See safetensors.h. */
#include "safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "../ckd.h"
#include "../json.h"
#include "../rd.h"
#include "hf_folder.h"
#include "origin.h"
#include "table.h"
#include "writer.h"

#define LENGTH_BYTES 8u
_Static_assert(sizeof(uint64_t) == LENGTH_BYTES, "the length prefix is a u64");

static const struct {
    const char *name;
    enum apr_type type;
} dtypes[] = {
    {"F64", APR_F64}, {"F32", APR_F32}, {"F16", APR_F16}, {"BF16", APR_BF16}, {"I64", APR_I64},
    {"I32", APR_I32}, {"I16", APR_I16}, {"I8", APR_I8},   {"U8", APR_U8},     {"BOOL", APR_U8},
};
/* Defined by the format, not carried by this program: refused by name. */
static const char *const dtypes_refused[] = {
    "F4",          "F6_E2M3",   "F6_E3M2", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ",
    "F8_E5M2FNUZ", "F8_E4M3FN", "U16",     "U32",     "U64",     "C64",
};

struct shard {
    struct apr_model *m;
    uint32_t i_file;
    const char *file;
    uint64_t off_data;
    uint64_t n_data_bytes; /* UINT64_MAX for a pipe */
};

const char *apr_st_dtype_name(enum apr_type type)
{
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++)
        if (dtypes[i].type == type) return dtypes[i].name;
    return NULL;
}

static enum apr_code read_dtype(const char *text, enum apr_type *type, struct apr_err *e)
{
    char shown[64];
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
        if (strcmp(dtypes[i].name, text) == 0) {
            *type = dtypes[i].type;
            return APR_OK;
        }
    }
    apr_escape(shown, sizeof shown, text, strlen(text));
    for (size_t i = 0; i < sizeof dtypes_refused / sizeof dtypes_refused[0]; i++)
        if (strcmp(dtypes_refused[i], text) == 0)
            return apr_fail(e, APR_ELOAD, "dtype %s is not supported", shown);
    return apr_fail(e, APR_EFORMAT, "dtype \"%s\" is not one of the format", shown);
}

static enum apr_code read_uint(const json_t *v, const char *what, size_t i, uint64_t *out, struct apr_err *e)
{
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return apr_fail(e, APR_EFORMAT, "%s[%zu]: expected an integer >= 0", what, i);
    *out = (uint64_t)json_integer_value(v);
    return APR_OK;
}

static enum apr_code read_shape(const json_t *shape, struct apr_tensor *t, struct apr_err *e)
{
    if (!json_is_array(shape)) return apr_fail(e, APR_EFORMAT, "shape: expected an array");
    if (json_array_size(shape) > APR_MAX_DIMS)
        return apr_fail(e, APR_ELOAD, "shape: %zu dimensions, expected at most %d", json_array_size(shape),
                        APR_MAX_DIMS);
    t->n_dims = (uint32_t)json_array_size(shape);
    for (uint32_t i = 0; i < t->n_dims; i++)
        TRY(read_uint(json_array_get(shape, i), "shape", i, &t->dims[i], e));
    return APR_OK;
}

static enum apr_code read_info(const struct shard *s, const json_t *info, struct apr_tensor *t,
                               struct apr_err *e)
{
    const json_t *dtype = json_object_get(info, "dtype");
    const json_t *offsets = json_object_get(info, "data_offsets");
    uint64_t begin, end, n_bytes;
    if (!json_is_object(info)) return apr_fail(e, APR_EFORMAT, "expected an object");
    if (!json_is_string(dtype)) return apr_fail(e, APR_EFORMAT, "dtype: expected a string");
    TRY(read_dtype(json_string_value(dtype), &t->type, e));
    TRY(read_shape(json_object_get(info, "shape"), t, e));
    if (!json_is_array(offsets) || json_array_size(offsets) != 2)
        return apr_fail(e, APR_EFORMAT, "data_offsets: expected [begin, end]");
    TRY(read_uint(json_array_get(offsets, 0), "data_offsets", 0, &begin, e));
    TRY(read_uint(json_array_get(offsets, 1), "data_offsets", 1, &end, e));
    if (begin > end || end > s->n_data_bytes)
        return apr_fail(e, APR_EFORMAT,
                        "data_offsets: [%" PRIu64 ", %" PRIu64 "] lies outside the %" PRIu64 " bytes of data",
                        begin, end, s->n_data_bytes);
    TRY(apr_tensor_bytes(t->type, t->n_dims, t->dims, &n_bytes, e));
    if (n_bytes != end - begin)
        return apr_fail(e, APR_EFORMAT, "data_offsets: %" PRIu64 " bytes, dtype and shape need %" PRIu64,
                        end - begin, n_bytes);
    t->n_bytes = n_bytes;
    t->i_file = s->i_file;
    if (ckd_add(&t->off_file, s->off_data, begin))
        return apr_fail(e, APR_EFORMAT, "data_offsets: %" PRIu64 " overflows", begin);
    return APR_OK;
}

static enum apr_code check_metadata(const json_t *metadata, struct apr_err *e)
{
    const char *key;
    json_t *v;
    if (!json_is_object(metadata)) return apr_fail(e, APR_EFORMAT, "__metadata__: expected an object");
    json_object_foreach((json_t *)(uintptr_t)metadata, key, v)
    {
        char shown[128];
        if (!json_is_string(v))
            return apr_fail(e, APR_EFORMAT, "__metadata__.%s: expected a string",
                            apr_escape(shown, sizeof shown, key, strlen(key)));
    }
    return APR_OK;
}

static int by_place(const void *a, const void *b)
{
    const struct apr_tensor *x = a, *y = b;
    if (x->off_file != y->off_file) return x->off_file < y->off_file ? -1 : 1;
    return (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes);
}

/* The ranges, sorted, must follow each other from the first data byte to the last. */
static enum apr_code check_tiling(const struct shard *s, uint64_t i_first, uint64_t *n_data,
                                  struct apr_err *e)
{
    struct apr_model *m = s->m;
    uint64_t at = s->off_data;
    char shown[256];
    if (m->n_tensors > i_first)
        qsort(m->tensors + i_first, m->n_tensors - i_first, sizeof *m->tensors, by_place);
    for (uint64_t i = i_first; i < m->n_tensors; i++) {
        const struct apr_tensor *t = &m->tensors[i];
        if (t->off_file != at)
            return apr_fail(e, APR_EFORMAT,
                            "%s: tensor \"%s\": data begins at byte %" PRIu64 ", expected %" PRIu64 " (%s)",
                            s->file, apr_escape(shown, sizeof shown, t->name, strlen(t->name)), t->off_file,
                            at, t->off_file < at ? "ranges overlap" : "a gap");
        at += t->n_bytes;
    }
    *n_data = at - s->off_data;
    if (s->n_data_bytes != UINT64_MAX && *n_data != s->n_data_bytes)
        return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": %" PRIu64 " bytes belong to no tensor",
                        s->file, at, s->n_data_bytes - *n_data);
    return APR_OK;
}

static enum apr_code read_entries(const struct shard *s, const json_t *root, json_t **metadata,
                                  struct apr_err *e)
{
    const char *name;
    json_t *info;
    json_object_foreach((json_t *)(uintptr_t)root, name, info)
    {
        struct apr_tensor *t;
        enum apr_code code;
        size_t n_name = strlen(name);
        char shown[256];
        if (strcmp(name, "__metadata__") == 0) {
            code = check_metadata(info, e);
            if (code == APR_OK) *metadata = json_incref(info);
        } else if (n_name == 0 || n_name > APR_MAX_NAME_BYTES) {
            code = apr_fail(e, APR_EFORMAT, "a tensor name of %zu bytes, expected 1 to %u", n_name,
                            APR_MAX_NAME_BYTES);
        } else {
            TRY(apr_model_add_tensor(s->m, &t, e));
            t->name = apr_arena_strndup(&s->m->arena, name, n_name);
            code = read_info(s, info, t, e);
            if (code != APR_OK)
                apr_err_prefix(e, "tensor \"%s\"", apr_escape(shown, sizeof shown, name, n_name));
        }
        if (code != APR_OK) {
            apr_err_prefix(e, "%s", s->file);
            return code;
        }
    }
    return APR_OK;
}

/* Numbers of this header have no sign. jansson reads "-0" as the integer 0, so a sign is looked for here. */
static enum apr_code check_signs(const uint8_t *p, uint64_t n, const char *file, struct apr_err *e)
{
    bool in_string = false;
    for (uint64_t i = 0; i < n; i++) {
        if (in_string && p[i] == '\\')
            i++;
        else if (p[i] == '"')
            in_string = !in_string;
        else if (p[i] == '-' && !in_string)
            return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": a negative number", file,
                            LENGTH_BYTES + i);
    }
    return APR_OK;
}

static enum apr_code read_header(struct apr_rd *rd, struct shard *s, json_t **root, struct apr_err *e)
{
    uint64_t n;
    const uint8_t *p;
    TRY(apr_rd_u64(rd, &n, "header length", e));
    if (n < 2 || n > APR_MAX_ST_HEADER)
        return apr_fail(e, APR_EFORMAT, "%s: byte 0: header length %" PRIu64 ", expected 2 to %u", s->file, n,
                        APR_MAX_ST_HEADER);
    TRY(apr_rd_room(rd, n, 1, "header", e));
    TRY(apr_rd_bytes(rd, n, &p, "header", e));
    if (p[0] != '{')
        return apr_fail(e, APR_EFORMAT, "%s: byte 8: header begins with byte 0x%02x, expected '{'", s->file,
                        p[0]);
    TRY(check_signs(p, n, s->file, e));
    TRY(apr_json_parse((const char *)p, (size_t)n, s->file, root, e));
    if (!json_is_object(*root))
        return apr_fail(e, APR_EFORMAT, "%s: byte 8: expected a JSON object", s->file);
    s->off_data = LENGTH_BYTES + n;
    return APR_OK;
}

enum apr_code apr_st_read_shard(struct apr_model *m, uint32_t i_file, json_t **metadata, struct apr_err *e)
{
    struct apr_src *src = m->files[i_file].src;
    struct shard s = {.m = m, .i_file = i_file, .file = apr_src_name(src)};
    uint64_t i_first = m->n_tensors, n_data = 0;
    const char *foreign;
    const uint8_t *head;
    size_t n_head;
    struct apr_rd rd;
    json_t *root = NULL;
    enum apr_code code;
    *metadata = NULL;
    TRY(apr_src_peek(src, 512, &head, &n_head, e));
    foreign = apr_fmt_foreign(head, n_head, &code);
    if (foreign) return apr_fail(e, code, "%s: this is %s", s.file, foreign);
    apr_rd_src(&rd, src, LENGTH_BYTES + (uint64_t)APR_MAX_ST_HEADER);
    code = read_header(&rd, &s, &root, e);
    if (code == APR_OK) s.n_data_bytes = apr_src_seekable(src) ? apr_src_size(src) - s.off_data : UINT64_MAX;
    if (code == APR_OK) code = read_entries(&s, root, metadata, e);
    if (code == APR_OK) code = check_tiling(&s, i_first, &n_data, e);
    json_decref(root);
    apr_rd_close(&rd);
    if (code != APR_OK) return code;
    if (i_file == 0) m->header.off_data = s.off_data;
    m->header.n_head_bytes += s.off_data;
    m->header.n_data_bytes += n_data;
    m->header.alignment = 1;
    return APR_OK;
}

static bool probe(const uint8_t *head, size_t n)
{
    return n > LENGTH_BYTES && head[LENGTH_BYTES] == '{' && head[7] == 0;
}

/* A stream is right when it ends where the last tensor ends. */
static enum apr_code end_stream(struct apr_model *m, struct apr_err *e)
{
    struct apr_src *src = m->files[0].src;
    uint64_t end = m->header.off_data + m->header.n_data_bytes;
    const uint8_t *p;
    size_t n_got;
    TRY(apr_src_skip(src, end - apr_src_pos(src), "tensor data", e));
    TRY(apr_src_peek(src, 1, &p, &n_got, e));
    if (n_got)
        return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": bytes after the last tensor",
                        apr_src_name(src), end);
    return APR_OK;
}

static enum apr_code open_file(struct apr_src *src, const char *path, struct apr_model *m, struct apr_err *e)
{
    TRY(apr_model_add_files(m, 1, e));
    apr_origin_file(m, 0, src, path);
    m->is_stream = !apr_src_seekable(src);
    m->end_stream = end_stream;
    TRY(apr_st_read_shard(m, 0, &m->st_metadata, e));
    TRY(apr_model_index(m, e));
    return apr_hf_companions(m, path, e);
}

static bool holds(enum apr_type type)
{
    return apr_st_dtype_name(type) != NULL;
}

const struct apr_fmt apr_fmt_safetensors = {
    .name = "safetensors",
    .aliases = "st",
    .title = "SafeTensors",
    .probe = probe,
    .open = open_file,
    .alignment = 1,
    .target = APR_TO_CHECKPOINT,
    .holds = holds,
    .begin = apr_st_begin,
    .data = apr_writer_data,
    .end = apr_st_end,
    .abort = apr_writer_free,
    .measure = apr_st_measure,
};

/* Values of GGUF's keys. See gguf_value.h. */
#include "gguf_value.h"

#include <inttypes.h>
#include <string.h>

#include "../ckd.h"
#include "fmt.h"

static enum apr_code read_text(struct apr_gguf_in *in, uint64_t max_bytes, const char *what,
                               struct apr_str *s, struct apr_err *e)
{
    const uint8_t *p;
    uint64_t off = apr_rd_off(&in->rd), n;
    TRY(apr_rd_u64(&in->rd, &n, what, e));
    if (n > max_bytes)
        return apr_fail(e, APR_EFORMAT,
                        "%s: byte %" PRIu64 ": %s of %" PRIu64 " bytes, expected at most %" PRIu64, in->file,
                        off, what, n, max_bytes);
    TRY(apr_rd_bytes(&in->rd, n, &p, what, e));
    *s =
        (struct apr_str){.p = apr_arena_strndup(in->arena, (const char *)p, (size_t)n), .n_bytes = (size_t)n};
    return APR_OK;
}

/* A key or a tensor name: not empty, no NUL inside. */
enum apr_code apr_gguf_name(struct apr_gguf_in *in, uint64_t max_bytes, const char *what, struct apr_str *s,
                            struct apr_err *e)
{
    uint64_t off = apr_rd_off(&in->rd);
    TRY(read_text(in, max_bytes, what, s, e));
    if (s->n_bytes == 0)
        return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": an empty %s", in->file, off, what);
    if (memchr(s->p, 0, s->n_bytes))
        return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": a NUL in a %s", in->file, off, what);
    return APR_OK;
}

static uint64_t little_endian(const uint8_t *p, size_t n)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++) v |= (uint64_t)p[i] << 8 * i;
    return v;
}

static float f32_of(uint64_t bits)
{
    uint32_t u = (uint32_t)bits;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static enum apr_code read_scalar(struct apr_gguf_in *in, struct apr_kv *kv, struct apr_err *e)
{
    const uint8_t *p;
    uint64_t off = apr_rd_off(&in->rd), u;
    size_t n = apr_kv_elem_bytes(kv->type);
    TRY(apr_rd_bytes(&in->rd, n, &p, kv->key.p, e));
    u = little_endian(p, n);
    switch (kv->type) {
    case APR_KV_U8:
    case APR_KV_U16:
    case APR_KV_U32:
    case APR_KV_U64:
        kv->v.u = u;
        return APR_OK;
    case APR_KV_I8:
        kv->v.i = (int8_t)u;
        return APR_OK;
    case APR_KV_I16:
        kv->v.i = (int16_t)u;
        return APR_OK;
    case APR_KV_I32:
        kv->v.i = (int32_t)u;
        return APR_OK;
    case APR_KV_I64:
        kv->v.i = (int64_t)u;
        return APR_OK;
    case APR_KV_F32:
        kv->v.f = (double)f32_of(u);
        return APR_OK;
    case APR_KV_F64:
        memcpy(&kv->v.f, &u, sizeof kv->v.f);
        return APR_OK;
    case APR_KV_BOOL:
        if (u > 1)
            return apr_fail(e, APR_EFORMAT,
                            "%s: byte %" PRIu64 ": key %s: a bool of value %" PRIu64 ", expected 0 or 1",
                            in->file, off, kv->key.p, u);
        kv->v.b = u == 1;
        return APR_OK;
    case APR_KV_STR:
    case APR_KV_ARRAY:
    case APR_KV_N_TYPES:
        break;
    }
    return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": value type %d", in->file, off, (int)kv->type);
}

/* All strings of an array lie in one block, each followed by a NUL. Both tables grow with the bytes that
 * really come, so that a count cannot allocate. */
static enum apr_code read_strings(struct apr_gguf_in *in, uint64_t n, const char *what, struct apr_str **out,
                                  struct apr_err *e)
{
    struct apr_buf ends, text;
    enum apr_code code = APR_OK;
    struct apr_str *s = NULL;
    char *block = NULL;
    size_t begin = 0, end;
    apr_buf_init(&ends, SIZE_MAX / 2);
    apr_buf_init(&text, SIZE_MAX / 2);
    for (uint64_t i = 0; i < n && code == APR_OK; i++) {
        uint64_t n_bytes = 0;
        const uint8_t *p = NULL;
        code = apr_rd_u64(&in->rd, &n_bytes, what, e);
        if (code == APR_OK) code = apr_rd_bytes(&in->rd, n_bytes, &p, what, e);
        if (code == APR_OK) code = apr_buf_append(&text, p, (size_t)n_bytes, e);
        if (code == APR_OK) code = apr_buf_append(&text, "", 1, e);
        if (code == APR_OK) code = apr_buf_append(&ends, &text.n_bytes, sizeof text.n_bytes, e);
    }
    if (code == APR_OK) code = apr_arena_try(in->arena, &s, (size_t)n, sizeof *s, what, e);
    if (code == APR_OK) code = apr_arena_try(in->arena, &block, text.n_bytes, 1, what, e);
    if (code == APR_OK && n) memcpy(block, text.data, text.n_bytes);
    for (uint64_t i = 0; i < n && code == APR_OK; i++) {
        memcpy(&end, ends.data + i * sizeof end, sizeof end);
        s[i] = (struct apr_str){.p = block + begin, .n_bytes = end - 1 - begin};
        begin = end;
    }
    apr_buf_free(&ends);
    apr_buf_free(&text);
    *out = s;
    return code;
}

static enum apr_code read_numbers(struct apr_gguf_in *in, struct apr_kv *kv, struct apr_err *e)
{
    uint64_t n_bytes, off = apr_rd_off(&in->rd);
    const uint8_t *p;
    void *copy;
    if (ckd_mul(&n_bytes, kv->v.a.n, (uint64_t)apr_kv_elem_bytes(kv->elem_type)))
        return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": key %s: %" PRIu64 " elements overflow",
                        in->file, off, kv->key.p, kv->v.a.n);
    TRY(apr_rd_bytes(&in->rd, n_bytes, &p, kv->key.p, e));
    for (uint64_t i = 0; kv->elem_type == APR_KV_BOOL && i < n_bytes; i++)
        if (p[i] > 1)
            return apr_fail(e, APR_EFORMAT,
                            "%s: byte %" PRIu64 ": key %s: a bool of value %u, expected 0 or 1", in->file,
                            off + i, kv->key.p, p[i]);
    TRY(apr_arena_try(in->arena, &copy, (size_t)n_bytes, 1, kv->key.p, e));
    if (n_bytes) memcpy(copy, p, (size_t)n_bytes);
    kv->v.a.items = copy;
    return APR_OK;
}

static enum apr_code read_array(struct apr_gguf_in *in, struct apr_kv *kv, struct apr_err *e)
{
    uint64_t off = apr_rd_off(&in->rd), n_each;
    uint32_t type;
    struct apr_str *strings;
    TRY(apr_rd_u32(&in->rd, &type, kv->key.p, e));
    if (type >= APR_KV_N_TYPES || type == APR_KV_ARRAY)
        return apr_fail(e, APR_EFORMAT,
                        "%s: byte %" PRIu64 ": key %s: an array of type %" PRIu32
                        ", expected 0 to 12, no array",
                        in->file, off, kv->key.p, type);
    kv->elem_type = (enum apr_kv_type)type;
    TRY(apr_rd_u64(&in->rd, &kv->v.a.n, kv->key.p, e));
    n_each = type == APR_KV_STR ? sizeof(uint64_t) : apr_kv_elem_bytes(kv->elem_type);
    TRY(apr_rd_room(&in->rd, kv->v.a.n, n_each, kv->key.p, e));
    if (type != APR_KV_STR) return read_numbers(in, kv, e);
    TRY(read_strings(in, kv->v.a.n, kv->key.p, &strings, e));
    kv->v.a.items = strings;
    return APR_OK;
}

enum apr_code apr_gguf_value(struct apr_gguf_in *in, struct apr_kv *kv, struct apr_err *e)
{
    if (kv->type == APR_KV_STR) return read_text(in, APR_MAX_META_BYTES, "string", &kv->v.s, e);
    return kv->type == APR_KV_ARRAY ? read_array(in, kv, e) : read_scalar(in, kv, e);
}

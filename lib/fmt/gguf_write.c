/* Writer of GGUF v3. See gguf.h. */
#include "gguf.h"

#include <inttypes.h>
#include <string.h>

#include "writer.h"

#define VERSION      3u
#define MAX_OWN_NAME (APR_GGUF_NAME_BYTES - 1) /* ggml keeps names with their NUL in 64 bytes */
#define FIRST_OWN_ID 128u                      /* types of ours that GGML does not know */

static enum apr_code put_uint(struct apr_buf *b, uint64_t v, size_t n_bytes, struct apr_err *e)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < n_bytes; i++) bytes[i] = (uint8_t)(v >> 8 * i);
    return apr_buf_append(b, bytes, n_bytes, e);
}

static enum apr_code put_str(struct apr_buf *b, const char *p, size_t n, struct apr_err *e)
{
    TRY(put_uint(b, n, 8, e));
    return apr_buf_append(b, p, n, e);
}

static uint64_t bits_of(const struct apr_kv *kv)
{
    float f = (float)kv->v.f;
    uint32_t u32;
    uint64_t u64;
    if (kv->type == APR_KV_F32) {
        memcpy(&u32, &f, sizeof u32);
        return u32;
    }
    if (kv->type == APR_KV_BOOL) return kv->v.b;
    memcpy(&u64, &kv->v, sizeof u64); /* every other scalar: the union's 64 bits, cut to the type's width */
    return u64;
}
_Static_assert(sizeof(double) == 8 && sizeof(((struct apr_kv *)0)->v.i) == 8, "scalars share 64 bits");

static enum apr_code put_array(struct apr_buf *b, const struct apr_kv *kv, struct apr_err *e)
{
    const struct apr_str *s = kv->v.a.items;
    TRY(put_uint(b, kv->elem_type, 4, e));
    TRY(put_uint(b, kv->v.a.n, 8, e));
    if (kv->elem_type != APR_KV_STR)
        return apr_buf_append(b, kv->v.a.items, (size_t)kv->v.a.n * apr_kv_elem_bytes(kv->elem_type), e);
    for (uint64_t i = 0; i < kv->v.a.n; i++) TRY(put_str(b, s[i].p, s[i].n_bytes, e));
    return APR_OK;
}

enum apr_code apr_gguf_put_kv(struct apr_buf *b, const struct apr_kv *kv, struct apr_err *e)
{
    TRY(put_str(b, kv->key.p, kv->key.n_bytes, e));
    TRY(put_uint(b, kv->type, 4, e));
    if (kv->type == APR_KV_STR) return put_str(b, kv->v.s.p, kv->v.s.n_bytes, e);
    if (kv->type == APR_KV_ARRAY) return put_array(b, kv, e);
    return put_uint(b, bits_of(kv), apr_kv_elem_bytes(kv->type), e);
}

static enum apr_code put_info(struct apr_buf *b, const struct apr_plan_tensor *t, struct apr_err *e)
{
    if (t->n_dims > APR_GGUF_MAX_DIMS)
        return apr_fail(e, APR_ELOAD, "tensor \"%s\": %" PRIu32 " dimensions, GGUF has at most %u", t->name,
                        t->n_dims, APR_GGUF_MAX_DIMS);
    if (!apr_gguf_holds(t->type))
        return apr_fail(e, APR_ELOAD, "tensor \"%s\": GGUF has no %s", t->name, apr_type_name(t->type));
    if (t->src && t->src->type == t->type && t->src->packing != APR_ROWS)
        return apr_fail(e, APR_ECONTRACT,
                        "tensor \"%s\": its rows are no whole blocks; GGUF needs --requantize", t->name);
    TRY(put_str(b, t->name, strlen(t->name), e));
    TRY(put_uint(b, t->n_dims, 4, e));
    for (uint32_t i = t->n_dims; i-- > 0;) TRY(put_uint(b, t->dims[i], 8, e));
    TRY(put_uint(b, t->type, 4, e));
    return put_uint(b, t->off_data, 8, e);
}

static enum apr_code put_head(const struct apr_plan *p, struct apr_buf *b, struct apr_err *e)
{
    static const uint8_t zeros[APR_GGUF_ALIGNMENT];
    const struct apr_kv *alignment = p->kvs ? apr_kvs_find(p->kvs, "general.alignment") : NULL;
    size_t n_kvs = p->kvs ? p->kvs->n : 0;
    TRY(apr_writer_check(p, MAX_OWN_NAME, e));
    if (p->alignment != APR_GGUF_ALIGNMENT)
        return apr_fail(e, APR_EFORMAT, "GGUF: alignment %" PRIu32 ", expected %u", p->alignment,
                        APR_GGUF_ALIGNMENT);
    TRY(apr_buf_append(b, "GGUF", 4, e));
    TRY(put_uint(b, VERSION, 4, e));
    TRY(put_uint(b, p->n_tensors, 8, e));
    TRY(put_uint(b, n_kvs - (alignment != NULL), 8, e));
    for (size_t i = 0; i < n_kvs; i++) /* a source's own alignment does not hold here */
        if (&p->kvs->at[i] != alignment) TRY(apr_gguf_put_kv(b, &p->kvs->at[i], e));
    for (uint64_t i = 0; i < p->n_tensors; i++) TRY(put_info(b, &p->tensors[i], e));
    return apr_buf_append(b, zeros,
                          (APR_GGUF_ALIGNMENT - b->n_bytes % APR_GGUF_ALIGNMENT) % APR_GGUF_ALIGNMENT, e);
}

enum apr_code apr_gguf_begin(const struct apr_plan *p, struct apr_sink *s, struct apr_writer **w,
                             struct apr_err *e)
{
    struct apr_buf b;
    enum apr_code code;
    apr_buf_init(&b, APR_MAX_META_BYTES);
    code = put_head(p, &b, e);
    if (code == APR_OK) {
        apr_sink_write(s, b.data, b.n_bytes);
        *w = apr_writer_new(p, s);
    }
    apr_buf_free(&b);
    return code;
}

enum apr_code apr_gguf_end(struct apr_writer *w, const json_t *trailer, struct apr_err *e)
{
    enum apr_code code = apr_writer_full(w, e);
    (void)trailer; /* the format has no place behind the data */
    apr_writer_free(w);
    return code;
}

enum apr_code apr_gguf_measure(const struct apr_plan *p, uint64_t *n_head, uint64_t *n_total,
                               struct apr_err *e)
{
    struct apr_buf b;
    enum apr_code code;
    apr_buf_init(&b, APR_MAX_META_BYTES);
    code = put_head(p, &b, e);
    *n_head = b.n_bytes;
    *n_total = b.n_bytes + p->n_data_bytes;
    apr_buf_free(&b);
    return code;
}

bool apr_gguf_holds(enum apr_type type)
{
    return (unsigned)type < FIRST_OWN_ID && apr_quant_of(type) != NULL;
}

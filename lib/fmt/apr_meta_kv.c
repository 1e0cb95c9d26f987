/* GGUF keys with their types as JSON: [key, type, value], arrays as [key, "array", element type, [values]].
 *
 * Numbers that JSON cannot hold (NaN, infinities, integers above 2^63) and text that is not UTF-8 are written
 * as
 * {"hex": ...}: the value's bits, little-endian.
 */
#include "apr_meta.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static bool is_signed(enum apr_kv_type t)
{
    return t == APR_KV_I8 || t == APR_KV_I16 || t == APR_KV_I32 || t == APR_KV_I64;
}

static bool is_float(enum apr_kv_type t)
{
    return t == APR_KV_F32 || t == APR_KV_F64;
}

/* ---- packing ------------------------------------------------------------------------------------------ */

static json_t *hex_of(const void *p, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *at = p;
    json_t *obj = json_object();
    struct apr_buf b;
    struct apr_err ignored;
    apr_buf_init(&b, SIZE_MAX / 2);
    for (size_t i = 0; i < n; i++) {
        char two[2] = {digits[at[i] >> 4], digits[at[i] & 15]};
        if (apr_buf_append(&b, two, 2, &ignored) != APR_OK) break;
    }
    json_object_set_new(obj, "hex", b.data ? json_stringn((const char *)b.data, b.n_bytes) : json_string(""));
    apr_buf_free(&b);
    return obj;
}

static json_t *pack_str(const struct apr_str *s)
{
    json_t *v = memchr(s->p, 0, s->n_bytes) ? NULL : json_stringn(s->p, s->n_bytes); /* NULL: not UTF-8 */
    return v ? v : hex_of(s->p, s->n_bytes);
}

static json_t *pack_number(enum apr_kv_type type, const struct apr_kv *kv)
{
    if (type == APR_KV_BOOL) return json_boolean(kv->v.b);
    if (is_float(type)) return isfinite(kv->v.f) ? json_real(kv->v.f) : hex_of(&kv->v.f, sizeof kv->v.f);
    if (is_signed(type)) return json_integer(kv->v.i);
    return kv->v.u <= INT64_MAX ? json_integer((json_int_t)kv->v.u) : hex_of(&kv->v.u, sizeof kv->v.u);
}

/* Element i of an array as a scalar. */
static struct apr_kv element(const struct apr_kv *kv, uint64_t i)
{
    size_t n = apr_kv_elem_bytes(kv->elem_type);
    const uint8_t *p = (const uint8_t *)kv->v.a.items + i * n;
    struct apr_kv out = {.type = kv->elem_type};
    uint64_t bits = 0;
    float f;
    if (kv->elem_type == APR_KV_F32) {
        memcpy(&f, p, sizeof f);
        out.v.f = (double)f;
        return out;
    }
    memcpy(&bits, p, n);
    if (is_signed(kv->elem_type) && n < sizeof bits && bits >> (8 * n - 1)) bits |= ~(uint64_t)0 << 8 * n;
    if (kv->elem_type == APR_KV_BOOL)
        out.v.b = bits != 0;
    else
        memcpy(&out.v, &bits, sizeof bits);
    return out;
}

static json_t *pack_array(const struct apr_kv *kv)
{
    json_t *list = json_array();
    const struct apr_str *s = kv->v.a.items;
    for (uint64_t i = 0; i < kv->v.a.n; i++) {
        if (kv->elem_type == APR_KV_STR) {
            json_array_append_new(list, pack_str(&s[i]));
        } else {
            struct apr_kv one = element(kv, i);
            json_array_append_new(list, pack_number(kv->elem_type, &one));
        }
    }
    return list;
}

json_t *apr_meta_kvs_pack(const struct apr_kvs *kvs)
{
    json_t *list = json_array();
    for (size_t i = 0; i < kvs->n; i++) {
        const struct apr_kv *kv = &kvs->at[i];
        if (strncmp(kv->key.p, "split.", 6) == 0) continue; /* of the files, not of the model */
        json_t *row = json_array();
        json_array_append_new(row, pack_str(&kv->key));
        json_array_append_new(row, json_string(apr_kv_type_name(kv->type)));
        if (kv->type == APR_KV_ARRAY) {
            json_array_append_new(row, json_string(apr_kv_type_name(kv->elem_type)));
            json_array_append_new(row, pack_array(kv));
        } else {
            json_array_append_new(row,
                                  kv->type == APR_KV_STR ? pack_str(&kv->v.s) : pack_number(kv->type, kv));
        }
        json_array_append_new(list, row);
    }
    return list;
}

/* ---- unpacking ---------------------------------------------------------------------------------------- */

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Bytes of {"hex": ...}; false when v is something else. */
static bool unhex(const json_t *v, struct apr_arena *a, struct apr_str *out)
{
    const char *hex = json_string_value(json_object_get(v, "hex"));
    size_t n = hex ? strlen(hex) : 0;
    char *p;
    if (!hex || n % 2) return false;
    p = apr_arena_get(a, n / 2 + 1);
    for (size_t i = 0; i < n; i += 2) {
        if (digit(hex[i]) < 0 || digit(hex[i + 1]) < 0) return false;
        p[i / 2] = (char)(digit(hex[i]) << 4 | digit(hex[i + 1]));
    }
    *out = (struct apr_str){.p = p, .n_bytes = n / 2};
    return true;
}

static bool unpack_str(const json_t *v, struct apr_arena *a, struct apr_str *out)
{
    if (!json_is_string(v)) return unhex(v, a, out);
    *out = (struct apr_str){.p = json_string_value(v), .n_bytes = json_string_length(v)};
    return true;
}

static bool in_range(enum apr_kv_type type, int64_t v)
{
    unsigned n_bits = 8 * (unsigned)apr_kv_elem_bytes(type);
    if (is_signed(type))
        return n_bits == 64 || (v >= -((int64_t)1 << (n_bits - 1)) && v < (int64_t)1 << (n_bits - 1));
    return v >= 0 && (n_bits == 64 || v < (int64_t)1 << n_bits);
}

static bool unpack_number(const json_t *v, enum apr_kv_type type, struct apr_arena *a, struct apr_kv *out)
{
    struct apr_str bits;
    if (type == APR_KV_BOOL) {
        out->v.b = json_is_true(v);
        return json_is_boolean(v);
    }
    if (json_is_object(v)) {
        if (!unhex(v, a, &bits) || bits.n_bytes != sizeof out->v.u) return false;
        memcpy(&out->v, bits.p, sizeof out->v.u);
        return true;
    }
    if (is_float(type)) {
        out->v.f = json_number_value(v);
        return json_is_number(v);
    }
    if (!json_is_integer(v) || !in_range(type, json_integer_value(v))) return false;
    out->v.i = json_integer_value(v);
    return true;
}

static bool type_named(const json_t *name, enum apr_kv_type *type)
{
    for (unsigned i = 0; json_is_string(name) && i < APR_KV_N_TYPES; i++) {
        if (strcmp(apr_kv_type_name((enum apr_kv_type)i), json_string_value(name)) != 0) continue;
        *type = (enum apr_kv_type)i;
        return true;
    }
    return false;
}

static bool unpack_array(const json_t *row, struct apr_arena *a, struct apr_kv *kv)
{
    const json_t *list = json_array_get(row, 3);
    uint64_t n = json_array_size(list);
    size_t n_each;
    uint8_t *items;
    if (!type_named(json_array_get(row, 2), &kv->elem_type) || kv->elem_type == APR_KV_ARRAY ||
        !json_is_array(list))
        return false;
    n_each = kv->elem_type == APR_KV_STR ? sizeof(struct apr_str) : apr_kv_elem_bytes(kv->elem_type);
    items = apr_arena_get(a, n * n_each + 1);
    for (uint64_t i = 0; i < n; i++) {
        struct apr_kv one = {0};
        const json_t *v = json_array_get(list, i);
        float f;
        if (kv->elem_type == APR_KV_STR) {
            if (!unpack_str(v, a, (struct apr_str *)(void *)items + i)) return false;
            continue;
        }
        if (!unpack_number(v, kv->elem_type, a, &one)) return false;
        f = (float)one.v.f;
        memcpy(items + i * n_each, kv->elem_type == APR_KV_F32 ? (const void *)&f : (const void *)&one.v,
               n_each);
    }
    kv->v.a.n = n;
    kv->v.a.items = items;
    return true;
}

static bool unpack_row(const json_t *row, struct apr_arena *a, struct apr_kv *kv)
{
    bool is_array;
    if (!unpack_str(json_array_get(row, 0), a, &kv->key) || kv->key.n_bytes == 0 ||
        !type_named(json_array_get(row, 1), &kv->type))
        return false;
    is_array = kv->type == APR_KV_ARRAY;
    if (json_array_size(row) != (is_array ? 4u : 3u)) return false;
    if (is_array) return unpack_array(row, a, kv);
    if (kv->type == APR_KV_STR) return unpack_str(json_array_get(row, 2), a, &kv->v.s);
    return unpack_number(json_array_get(row, 2), kv->type, a, kv);
}

enum apr_code apr_meta_kvs_unpack(const json_t *packed, struct apr_kvs *kvs, const char *file,
                                  struct apr_err *e)
{
    if (!json_is_array(packed))
        return apr_fail(e, APR_EFORMAT, "%s: metadata: apr.gguf: expected an array", file);
    for (size_t i = 0; i < json_array_size(packed); i++) {
        struct apr_kv kv = {0};
        if (!unpack_row(json_array_get(packed, i), kvs->arena, &kv))
            return apr_fail(e, APR_EFORMAT, "%s: metadata: apr.gguf[%zu]: expected [key, type, value]", file,
                            i);
        apr_kvs_add(kvs, &kv);
    }
    return APR_OK;
}

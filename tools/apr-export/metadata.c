#include "metadata.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define MAX_FILE_BYTES (16u << 20)
#define MAX_KEY_BYTES  1024u

/* What the writer makes itself, or what the data would contradict. */
static const char *const refused[] = {
    "general.architecture",
    "general.alignment",
    "general.quantization_version",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.model",
    "split.",
    "apr.",
};

enum apr_code metadata_load(const char *path, json_t **own, struct apr_err *e)
{
    TRY(apr_json_load(path, MAX_FILE_BYTES, own, e));
    if (json_is_object(*own)) return APR_OK;
    json_decref(*own);
    *own = NULL;
    return apr_fail(e, APR_EFORMAT, "%s: expected an object of GGUF keys", path);
}

static enum apr_code check_key(const char *key, const char *path, struct apr_err *e)
{
    char shown[96];
    size_t n = strlen(key);
    apr_escape(shown, sizeof shown, key, n);
    if (n == 0 || n > MAX_KEY_BYTES || strcmp(shown, key) != 0)
        return apr_fail(e, APR_EFORMAT, "%s: \"%s\": expected a key of plain text", path, shown);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        size_t k = strlen(refused[i]);
        bool is_prefix = refused[i][k - 1] == '.';
        if (strncmp(key, refused[i], k) == 0 && (is_prefix || key[k] == '\0'))
            return apr_fail(e, APR_EUSAGE, "%s: %s follows from the model and cannot be set", path, key);
    }
    return APR_OK;
}

static bool is_whole(enum apr_kv_type t)
{
    return t != APR_KV_F32 && t != APR_KV_F64 && t != APR_KV_BOOL && t != APR_KV_STR && t != APR_KV_ARRAY;
}

static bool is_signed(enum apr_kv_type t)
{
    return t == APR_KV_I8 || t == APR_KV_I16 || t == APR_KV_I32 || t == APR_KV_I64;
}

static bool holds(enum apr_kv_type t, json_int_t v)
{
    unsigned n_bits = 8 * (unsigned)apr_kv_elem_bytes(t);
    if (n_bits == 64) return is_signed(t) || v >= 0;
    if (is_signed(t)) return v >= -((json_int_t)1 << (n_bits - 1)) && v < (json_int_t)1 << (n_bits - 1);
    return v >= 0 && v < (json_int_t)1 << n_bits;
}

/* One value as type t; false when it does not fit. */
static bool scalar(const json_t *v, enum apr_kv_type t, struct apr_kv *kv)
{
    kv->type = t;
    if (t == APR_KV_STR) {
        kv->v.s = (struct apr_str){json_string_value(v), json_string_length(v)};
        return json_is_string(v) && kv->v.s.n_bytes > 0;
    }
    if (t == APR_KV_BOOL) {
        kv->v.b = json_is_true(v);
        return json_is_boolean(v);
    }
    if (is_whole(t)) {
        kv->v.i = json_integer_value(v);
        return json_is_integer(v) && holds(t, json_integer_value(v));
    }
    if (t == APR_KV_F32) {
        kv->v.f = (double)(float)json_number_value(v);
        return json_is_number(v) && isfinite(kv->v.f);
    }
    kv->v.f = json_number_value(v);
    return t == APR_KV_F64 && json_is_number(v);
}

static enum apr_kv_type type_of(const json_t *v)
{
    if (json_is_string(v)) return APR_KV_STR;
    if (json_is_boolean(v)) return APR_KV_BOOL;
    if (json_is_real(v)) return APR_KV_F32;
    if (json_is_integer(v)) return holds(APR_KV_U32, json_integer_value(v)) ? APR_KV_U32 : APR_KV_I64;
    return json_is_array(v) ? APR_KV_ARRAY : APR_KV_N_TYPES;
}

/* Elements packed as the list of keys holds them. */
static bool array(const json_t *v, enum apr_kv_type elem, struct apr_arena *a, struct apr_kv *kv)
{
    size_t n = json_array_size(v),
           n_each = elem == APR_KV_STR ? sizeof(struct apr_str) : apr_kv_elem_bytes(elem);
    if (!json_is_array(v) || n == 0 || n_each == 0) return false;
    uint8_t *items = apr_arena_get(a, n * n_each);
    kv->type = APR_KV_ARRAY;
    kv->elem_type = elem;
    for (size_t i = 0; i < n; i++) {
        struct apr_kv one = {.type = elem};
        float f;
        if (!scalar(json_array_get(v, i), elem, &one)) return false;
        f = (float)(elem == APR_KV_F32 ? one.v.f : 0);
        if (elem == APR_KV_F32)
            memcpy(items + i * n_each, &f, n_each);
        else
            memcpy(items + i * n_each, &one.v, n_each); /* little-endian: the low bytes are the number */
    }
    kv->v.a.n = n;
    kv->v.a.items = items;
    return true;
}

static enum apr_code set(struct apr_kvs *kvs, const char *key, const json_t *v, const char *path,
                         struct apr_err *e)
{
    const struct apr_kv *old = apr_kvs_find(kvs, key);
    struct apr_kv kv = {.key = {key, strlen(key)}};
    enum apr_kv_type type = old ? old->type : type_of(v);
    bool is_list = type == APR_KV_ARRAY;
    enum apr_kv_type elem = old && is_list ? old->elem_type
                            : is_list      ? type_of(json_array_get(v, 0))
                                           : APR_KV_N_TYPES;
    if (type == APR_KV_N_TYPES || !(is_list ? array(v, elem, kvs->arena, &kv) : scalar(v, type, &kv)))
        return apr_fail(e, APR_EFORMAT, "%s: %s: expected %s%s%s", path, key,
                        old ? "a value that fits "
                            : "a string, a "
                              "number, true, false, or a list of one of these",
                        old ? apr_kv_type_name(type) : "", old && is_list ? " as it is in this model" : "");
    apr_kvs_add(kvs, &kv);
    return APR_OK;
}

enum apr_code metadata_apply(const json_t *own, const char *path, struct apr_kvs *kvs, struct apr_err *e)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)own, key, v)
    {
        TRY(check_key(key, path, e));
        TRY(set(kvs, key, v, path, e));
    }
    return APR_OK;
}

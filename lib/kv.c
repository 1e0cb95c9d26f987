/* Open addressing over a growing array; both live in the arena. */
#include "kv.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "hash.h"

#define MIN_CAP 64 /* a power of two */

struct index {
    size_t n_slots;   /* a power of two, at least twice kvs->cap */
    uint32_t slots[]; /* i + 1; 0 = free */
};

static const uint8_t elem_bytes[APR_KV_N_TYPES] = {
    [APR_KV_U8] = 1,  [APR_KV_I8] = 1,  [APR_KV_U16] = 2,  [APR_KV_I16] = 2, [APR_KV_U32] = 4,
    [APR_KV_I32] = 4, [APR_KV_F32] = 4, [APR_KV_BOOL] = 1, [APR_KV_STR] = 0, [APR_KV_ARRAY] = 0,
    [APR_KV_U64] = 8, [APR_KV_I64] = 8, [APR_KV_F64] = 8,
};

static const char *const type_name[APR_KV_N_TYPES] = {
    [APR_KV_U8] = "u8",      [APR_KV_I8] = "i8",       [APR_KV_U16] = "u16", [APR_KV_I16] = "i16",
    [APR_KV_U32] = "u32",    [APR_KV_I32] = "i32",     [APR_KV_F32] = "f32", [APR_KV_BOOL] = "bool",
    [APR_KV_STR] = "string", [APR_KV_ARRAY] = "array", [APR_KV_U64] = "u64", [APR_KV_I64] = "i64",
    [APR_KV_F64] = "f64",
};

size_t apr_kv_elem_bytes(enum apr_kv_type type)
{
    return type < APR_KV_N_TYPES ? elem_bytes[type] : 0;
}

const char *apr_kv_type_name(enum apr_kv_type type)
{
    return type < APR_KV_N_TYPES ? type_name[type] : "unknown";
}

void apr_kvs_init(struct apr_kvs *kvs, struct apr_arena *arena)
{
    *kvs = (struct apr_kvs){.arena = arena};
}

/* The slot that holds key, or the free one where it belongs. */
static uint32_t *slot_of(const struct apr_kvs *kvs, const char *key, size_t n_bytes)
{
    struct index *x = kvs->index;
    size_t i = (size_t)apr_hash_key(key, n_bytes) & (x->n_slots - 1);
    while (x->slots[i]) {
        const struct apr_str *k = &kvs->at[x->slots[i] - 1].key;
        if (k->n_bytes == n_bytes && !memcmp(k->p, key, n_bytes)) break;
        i = (i + 1) & (x->n_slots - 1);
    }
    return &x->slots[i];
}

static void grow(struct apr_kvs *kvs)
{
    size_t cap = kvs->cap ? 2 * kvs->cap : MIN_CAP;
    struct apr_kv *at = apr_arena_get(kvs->arena, cap * sizeof *at);
    if (kvs->n) memcpy(at, kvs->at, kvs->n * sizeof *at);
    struct index *x = apr_arena_get(kvs->arena, sizeof *x + 2 * cap * sizeof x->slots[0]);
    x->n_slots = 2 * cap;
    kvs->at = at;
    kvs->cap = cap;
    kvs->index = x;
    for (size_t i = 0; i < kvs->n; i++) *slot_of(kvs, at[i].key.p, at[i].key.n_bytes) = (uint32_t)(i + 1);
}

const struct apr_kv *apr_kvs_find(const struct apr_kvs *kvs, const char *key)
{
    if (!kvs->n) return NULL;
    uint32_t i = *slot_of(kvs, key, strlen(key));
    return i ? &kvs->at[i - 1] : NULL;
}

static struct apr_str copy_str(struct apr_arena *a, struct apr_str s)
{
    return (struct apr_str){.p = apr_arena_strndup(a, s.p, s.n_bytes), .n_bytes = s.n_bytes};
}

static void copy_value(struct apr_arena *a, struct apr_kv *dst, const struct apr_kv *src)
{
    dst->type = src->type;
    dst->elem_type = src->elem_type;
    dst->v = src->v;
    if (src->type == APR_KV_STR) dst->v.s = copy_str(a, src->v.s);
    if (src->type != APR_KV_ARRAY) return;
    uint64_t n = src->v.a.n;
    if (src->elem_type == APR_KV_STR) {
        const struct apr_str *from = src->v.a.items;
        struct apr_str *to = apr_arena_get(a, n * sizeof *to);
        for (uint64_t i = 0; i < n; i++) to[i] = copy_str(a, from[i]);
        dst->v.a.items = to;
        return;
    }
    size_t n_bytes = n * apr_kv_elem_bytes(src->elem_type);
    void *to = apr_arena_get(a, n_bytes);
    if (n_bytes) memcpy(to, src->v.a.items, n_bytes);
    dst->v.a.items = to;
}

void apr_kvs_add(struct apr_kvs *kvs, const struct apr_kv *kv)
{
    if (kvs->n == kvs->cap) grow(kvs);
    uint32_t *slot = slot_of(kvs, kv->key.p, kv->key.n_bytes);
    if (!*slot) {
        kvs->at[kvs->n] = (struct apr_kv){.key = copy_str(kvs->arena, kv->key)};
        *slot = (uint32_t)++kvs->n;
    }
    copy_value(kvs->arena, &kvs->at[*slot - 1], kv);
}

static struct apr_kv named(const char *key, enum apr_kv_type type)
{
    return (struct apr_kv){.key = {key, strlen(key)}, .type = type};
}

void apr_kvs_u32(struct apr_kvs *kvs, const char *key, uint32_t v)
{
    struct apr_kv kv = named(key, APR_KV_U32);
    kv.v.u = v;
    apr_kvs_add(kvs, &kv);
}

void apr_kvs_i32(struct apr_kvs *kvs, const char *key, int32_t v)
{
    struct apr_kv kv = named(key, APR_KV_I32);
    kv.v.i = v;
    apr_kvs_add(kvs, &kv);
}

void apr_kvs_u64(struct apr_kvs *kvs, const char *key, uint64_t v)
{
    struct apr_kv kv = named(key, APR_KV_U64);
    kv.v.u = v;
    apr_kvs_add(kvs, &kv);
}

void apr_kvs_f32(struct apr_kvs *kvs, const char *key, float v)
{
    struct apr_kv kv = named(key, APR_KV_F32);
    kv.v.f = (double)v;
    apr_kvs_add(kvs, &kv);
}

void apr_kvs_bool(struct apr_kvs *kvs, const char *key, bool v)
{
    struct apr_kv kv = named(key, APR_KV_BOOL);
    kv.v.b = v;
    apr_kvs_add(kvs, &kv);
}

void apr_kvs_str(struct apr_kvs *kvs, const char *key, const char *v)
{
    if (!v || !*v) return;
    struct apr_kv kv = named(key, APR_KV_STR);
    kv.v.s = (struct apr_str){v, strlen(v)};
    apr_kvs_add(kvs, &kv);
}

void apr_kvs_array(struct apr_kvs *kvs, const char *key, enum apr_kv_type elem, uint64_t n, const void *items)
{
    struct apr_kv kv = named(key, APR_KV_ARRAY);
    kv.elem_type = elem;
    kv.v.a.n = n;
    kv.v.a.items = items;
    apr_kvs_add(kvs, &kv);
}

static bool is_signed(enum apr_kv_type t)
{
    return t == APR_KV_I8 || t == APR_KV_I16 || t == APR_KV_I32 || t == APR_KV_I64;
}

static bool is_unsigned(enum apr_kv_type t)
{
    return t == APR_KV_U8 || t == APR_KV_U16 || t == APR_KV_U32 || t == APR_KV_U64;
}

enum apr_code apr_kv_get_u64(const struct apr_kvs *kvs, const char *key, uint64_t min, uint64_t max,
                             uint64_t *v, const char *file, struct apr_err *e)
{
    const struct apr_kv *kv = apr_kvs_find(kvs, key);
    if (!kv) return APR_OK;
    if (!is_signed(kv->type) && !is_unsigned(kv->type))
        return apr_fail(e, APR_EFORMAT, "%s: key %s: found type %s, expected an integer", file, key,
                        apr_kv_type_name(kv->type));
    if (is_signed(kv->type) && kv->v.i < 0)
        return apr_fail(e, APR_EFORMAT, "%s: key %s: found %" PRId64 ", expected %" PRIu64 " to %" PRIu64,
                        file, key, kv->v.i, min, max);
    uint64_t u = is_signed(kv->type) ? (uint64_t)kv->v.i : kv->v.u;
    if (u < min || u > max)
        return apr_fail(e, APR_EFORMAT, "%s: key %s: found %" PRIu64 ", expected %" PRIu64 " to %" PRIu64,
                        file, key, u, min, max);
    *v = u;
    return APR_OK;
}

enum apr_code apr_kv_get_f64(const struct apr_kvs *kvs, const char *key, double *v, const char *file,
                             struct apr_err *e)
{
    const struct apr_kv *kv = apr_kvs_find(kvs, key);
    if (!kv) return APR_OK;
    double f;
    if (kv->type == APR_KV_F32 || kv->type == APR_KV_F64)
        f = kv->v.f;
    else if (is_signed(kv->type))
        f = (double)kv->v.i;
    else if (is_unsigned(kv->type))
        f = (double)kv->v.u;
    else
        return apr_fail(e, APR_EFORMAT, "%s: key %s: found type %s, expected a number", file, key,
                        apr_kv_type_name(kv->type));
    if (!isfinite(f))
        return apr_fail(e, APR_EFORMAT, "%s: key %s: found %f, expected a finite number", file, key, f);
    *v = f;
    return APR_OK;
}

enum apr_code apr_kv_get_bool(const struct apr_kvs *kvs, const char *key, bool *v, const char *file,
                              struct apr_err *e)
{
    const struct apr_kv *kv = apr_kvs_find(kvs, key);
    if (!kv) return APR_OK;
    if (kv->type != APR_KV_BOOL)
        return apr_fail(e, APR_EFORMAT, "%s: key %s: found type %s, expected bool", file, key,
                        apr_kv_type_name(kv->type));
    *v = kv->v.b;
    return APR_OK;
}

enum apr_code apr_kv_get_str(const struct apr_kvs *kvs, const char *key, const char **v, const char *file,
                             struct apr_err *e)
{
    const struct apr_kv *kv = apr_kvs_find(kvs, key);
    if (!kv) return APR_OK;
    if (kv->type != APR_KV_STR)
        return apr_fail(e, APR_EFORMAT, "%s: key %s: found type %s, expected a string", file, key,
                        apr_kv_type_name(kv->type));
    if (memchr(kv->v.s.p, 0, kv->v.s.n_bytes))
        return apr_fail(e, APR_EFORMAT, "%s: key %s: found a NUL byte, expected text", file, key);
    *v = kv->v.s.p;
    return APR_OK;
}

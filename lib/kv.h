/* Typed key-value list with GGUF's value types, in order. Used to read, carry and write GGUF metadata.
 *
 * Values live in an arena. An array holds packed little-endian elements, strings as struct apr_str.
 */
#ifndef APR_KV_H
#define APR_KV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "err.h"

struct apr_str {
    const char *p; /* not NUL-terminated unless its owner says so */
    size_t n_bytes;
};

enum apr_kv_type { /* GGUF ids */
                   APR_KV_U8 = 0,
                   APR_KV_I8 = 1,
                   APR_KV_U16 = 2,
                   APR_KV_I16 = 3,
                   APR_KV_U32 = 4,
                   APR_KV_I32 = 5,
                   APR_KV_F32 = 6,
                   APR_KV_BOOL = 7,
                   APR_KV_STR = 8,
                   APR_KV_ARRAY = 9,
                   APR_KV_U64 = 10,
                   APR_KV_I64 = 11,
                   APR_KV_F64 = 12,
                   APR_KV_N_TYPES = 13
};

struct apr_kv {
    struct apr_str key; /* NUL-terminated */
    enum apr_kv_type type;
    enum apr_kv_type elem_type; /* of an array */
    union {
        uint64_t u;
        int64_t i;
        double f; /* an F32 holds exactly a float */
        bool b;
        struct apr_str s; /* NUL-terminated */
        struct {
            uint64_t n;
            const void *items; /* packed numbers, or struct apr_str[n] */
        } a;
    } v;
};

struct apr_kvs {
    struct apr_arena *arena; /* borrowed */
    struct apr_kv *at;
    size_t n, cap;
    void *index; /* hash by key */
};

size_t apr_kv_elem_bytes(enum apr_kv_type type);     /* 0 for strings, arrays and unknown ids */
const char *apr_kv_type_name(enum apr_kv_type type); /* "u32"; "unknown" */

void apr_kvs_init(struct apr_kvs *kvs, struct apr_arena *arena);
const struct apr_kv *apr_kvs_find(const struct apr_kvs *kvs, const char *key);
/* Appends; an existing key keeps its place and gets the new value. Keys and values are copied. */
void apr_kvs_u32(struct apr_kvs *kvs, const char *key, uint32_t v);
void apr_kvs_i32(struct apr_kvs *kvs, const char *key, int32_t v);
void apr_kvs_u64(struct apr_kvs *kvs, const char *key, uint64_t v);
void apr_kvs_f32(struct apr_kvs *kvs, const char *key, float v);
void apr_kvs_bool(struct apr_kvs *kvs, const char *key, bool v);
void apr_kvs_str(struct apr_kvs *kvs, const char *key, const char *v); /* empty or NULL: nothing is written */
void apr_kvs_array(struct apr_kvs *kvs, const char *key, enum apr_kv_type elem, uint64_t n,
                   const void *items);
void apr_kvs_add(struct apr_kvs *kvs, const struct apr_kv *kv);

/* Typed reads. Absent: *v untouched. Any integer type that holds the value in range is accepted. */
APR_MUST_USE enum apr_code apr_kv_get_u64(const struct apr_kvs *kvs, const char *key, uint64_t min,
                                          uint64_t max, uint64_t *v, const char *file, struct apr_err *e);
APR_MUST_USE enum apr_code apr_kv_get_f64(const struct apr_kvs *kvs, const char *key, double *v,
                                          const char *file, struct apr_err *e);
APR_MUST_USE enum apr_code apr_kv_get_bool(const struct apr_kvs *kvs, const char *key, bool *v,
                                           const char *file, struct apr_err *e);
APR_MUST_USE enum apr_code apr_kv_get_str(const struct apr_kvs *kvs, const char *key, const char **v,
                                          const char *file, struct apr_err *e);

#endif

/* Values of the template language: what an expression is worth, and the memory of one rendering.
 *
 * A value is small and passed by copy; what it points to lives in the arena of its run and never
 * changes after it is made (namespaces, generators and loops excepted). Strings are UTF-8 and carry,
 * byte for byte when they are mixed, whether the text came from the template or from the context.
 *
 *     struct apr_jj_val v; TRY(apr_jj_list_new(r, 2, &list)); v = apr_jj_of_list(list, APR_JJ_TUPLE);
 */
#ifndef APR_JINJA_VAL_H
#define APR_JINJA_VAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../arena.h"
#include "../err.h"

enum apr_jj_kind {
    APR_JJ_ABSENT, /* an argument that was not given; never the worth of an expression */
    APR_JJ_UNDEF,
    APR_JJ_NONE,
    APR_JJ_BOOL,
    APR_JJ_INT,
    APR_JJ_FLOAT,
    APR_JJ_STR,
    APR_JJ_LIST, /* every ordered thing; enum apr_jj_seq tells which */
    APR_JJ_DICT,
    APR_JJ_NS,
    APR_JJ_MACRO,
    APR_JJ_FUNC,
    APR_JJ_LOOP
};

enum apr_jj_seq {
    APR_JJ_PLAIN,
    APR_JJ_TUPLE,
    APR_JJ_RANGE,
    APR_JJ_GEN, /* read once: result of map, select, batch ... */
    APR_JJ_ITEMS,
    APR_JJ_KEYS,
    APR_JJ_VALUES
};

/* Room behind a long string, so that s = s + x in a loop costs the length of x. */
struct apr_jj_grow {
    char *base;
    uint8_t *mark;
    size_t n_used, n_cap;
};

struct apr_jj_str {
    const char *p;       /* valid UTF-8, not NUL-terminated */
    size_t n;            /* bytes */
    const uint8_t *mark; /* [n] 1 where a byte came from the context; NULL: all bytes are as data says */
    struct apr_jj_grow *grow;
    bool data;
};

struct apr_jj_list;
struct apr_jj_dict;
struct apr_jj_macro;
struct apr_jj_loop;
struct apr_jj_func;
struct apr_jj_undef;

struct apr_jj_val {
    uint8_t kind; /* enum apr_jj_kind */
    uint8_t seq;  /* enum apr_jj_seq of a list */
    bool data;    /* a number or constant that came from the context */
    union {
        bool b;
        int64_t i;
        double f;
        const struct apr_jj_str *s;
        struct apr_jj_list *l;
        struct apr_jj_dict *d; /* dict and namespace */
        const struct apr_jj_macro *m;
        const struct apr_jj_func *fn;
        struct apr_jj_loop *loop;
        const struct apr_jj_undef *un;
    } u;
};

struct apr_jj_list {
    struct apr_jj_val *at;
    size_t n, n_cap;
    size_t i_next; /* first item that a generator has not yet given */
};

struct apr_jj_entry {
    struct apr_jj_val key, v;
    uint32_t hash;
};

struct apr_jj_dict { /* in insertion order */
    struct apr_jj_entry *at;
    size_t n, n_cap;
    uint32_t *slots; /* [n_slots] entry + 1, open addressing; NULL while small */
    size_t n_slots;
};

struct apr_jj_undef {
    struct apr_jj_val name; /* a string, or the index that was asked for */
    const char *owner;      /* "dict object"; NULL: a variable */
    bool unsafe;            /* the attribute exists and is refused */
};

struct apr_jj_run; /* run.h */

/* Memory and steps of the run. A step is charged for every allocation and every 64 bytes. */
APR_MUST_USE enum apr_code apr_jj_charge(struct apr_jj_run *r, uint64_t n_steps);
APR_MUST_USE enum apr_code apr_jj_alloc(struct apr_jj_run *r, size_t n, size_t n_each, void *out_ptr);
/* One more level of nested evaluation; the caller counts r->depth down again. */
APR_MUST_USE enum apr_code apr_jj_enter(struct apr_jj_run *r);

struct apr_jj_val apr_jj_none(void);
struct apr_jj_val apr_jj_bool(bool b);
struct apr_jj_val apr_jj_int(int64_t i);
struct apr_jj_val apr_jj_float(double f);
struct apr_jj_val apr_jj_of_str(const struct apr_jj_str *s);
struct apr_jj_val apr_jj_of_list(struct apr_jj_list *l, enum apr_jj_seq seq);
struct apr_jj_val apr_jj_of_dict(struct apr_jj_dict *d);
APR_MUST_USE enum apr_code apr_jj_undefined(struct apr_jj_run *r, struct apr_jj_val name, const char *owner,
                                            struct apr_jj_val *out);

APR_MUST_USE enum apr_code apr_jj_list_new(struct apr_jj_run *r, size_t n_cap, struct apr_jj_list **out);
APR_MUST_USE enum apr_code apr_jj_list_push(struct apr_jj_run *r, struct apr_jj_list *l, struct apr_jj_val v);

APR_MUST_USE enum apr_code apr_jj_dict_new(struct apr_jj_run *r, struct apr_jj_dict **out);
APR_MUST_USE enum apr_code apr_jj_dict_set(struct apr_jj_run *r, struct apr_jj_dict *d, struct apr_jj_val key,
                                           struct apr_jj_val v);
/* *out is NULL when the key is absent; an unhashable key is an error. */
APR_MUST_USE enum apr_code apr_jj_dict_get(struct apr_jj_run *r, const struct apr_jj_dict *d,
                                           struct apr_jj_val key, const struct apr_jj_val **out);
/* Lookup by text, for variables. */
const struct apr_jj_val *apr_jj_dict_find(const struct apr_jj_dict *d, const char *p, size_t n);

/* Python's type(v).__name__ and Jinja's "dict object". */
const char *apr_jj_type_name(struct apr_jj_val v);
const char *apr_jj_object_name(struct apr_jj_val v);
bool apr_jj_is_number(struct apr_jj_val v); /* bool, int, float */
double apr_jj_as_double(struct apr_jj_val v);

#endif

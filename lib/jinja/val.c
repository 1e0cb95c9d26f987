/* See val.h. Dictionaries are Python's: in insertion order, 1 == 1.0 == True as keys. */
#include "val.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../ckd.h"
#include "../hash.h"
#include "run.h"

#define CHUNK_BYTES 32768u
#define SMALL_DICT  8u

void apr_jj_error(struct apr_jj_run *r, const char *format, ...)
{
    char text[sizeof r->e->text];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    apr_err_set(r->e, APR_ECONTRACT, "template: line %u: %s", r->line, text);
}

enum apr_code apr_jj_charge(struct apr_jj_run *r, uint64_t n_steps)
{
    if (n_steps > r->n_steps_left) {
        r->n_steps_left = 0;
        return apr_jj_fail(r, "the template takes too many steps");
    }
    r->n_steps_left -= n_steps;
    return APR_OK;
}

enum apr_code apr_jj_enter(struct apr_jj_run *r)
{
    if (++r->depth > r->max_depth) return apr_jj_fail(r, "nested too deeply (%u levels)", r->max_depth);
    return apr_jj_charge(r, 1);
}

enum apr_code apr_jj_alloc(struct apr_jj_run *r, size_t n, size_t n_each, void *out_ptr)
{
    size_t n_bytes;
    void *p = NULL;
    if (ckd_mul(&n_bytes, n, n_each) || n_bytes > SIZE_MAX / 2) return apr_jj_fail(r, "a value is too large");
    TRY(apr_jj_charge(r, 1 + n_bytes / 64));
    n_bytes = (n_bytes + 7) & ~(size_t)7;
    if (n_bytes > CHUNK_BYTES / 4) {
        TRY(apr_arena_try(r->arena, &p, n_bytes, 1, "template value", r->e));
    } else {
        if (n_bytes > r->n_chunk_left) {
            TRY(apr_arena_try(r->arena, &r->chunk, CHUNK_BYTES, 1, "template values", r->e));
            r->n_chunk_left = CHUNK_BYTES;
        }
        p = r->chunk;
        r->chunk += n_bytes;
        r->n_chunk_left -= n_bytes;
    }
    memcpy(out_ptr, &p, sizeof p);
    return APR_OK;
}

struct apr_jj_val apr_jj_none(void)
{
    return (struct apr_jj_val){.kind = APR_JJ_NONE};
}

struct apr_jj_val apr_jj_bool(bool b)
{
    return (struct apr_jj_val){.kind = APR_JJ_BOOL, .u.b = b};
}

struct apr_jj_val apr_jj_int(int64_t i)
{
    return (struct apr_jj_val){.kind = APR_JJ_INT, .u.i = i};
}

struct apr_jj_val apr_jj_float(double f)
{
    return (struct apr_jj_val){.kind = APR_JJ_FLOAT, .u.f = f};
}

struct apr_jj_val apr_jj_of_str(const struct apr_jj_str *s)
{
    return (struct apr_jj_val){.kind = APR_JJ_STR, .u.s = s};
}

struct apr_jj_val apr_jj_of_list(struct apr_jj_list *l, enum apr_jj_seq seq)
{
    return (struct apr_jj_val){.kind = APR_JJ_LIST, .seq = (uint8_t)seq, .u.l = l};
}

struct apr_jj_val apr_jj_of_dict(struct apr_jj_dict *d)
{
    return (struct apr_jj_val){.kind = APR_JJ_DICT, .u.d = d};
}

enum apr_code apr_jj_undefined(struct apr_jj_run *r, struct apr_jj_val name, const char *owner,
                               struct apr_jj_val *out)
{
    struct apr_jj_undef *un = NULL;
    TRY(apr_jj_alloc(r, 1, sizeof *un, &un));
    *un = (struct apr_jj_undef){.name = name, .owner = owner};
    *out = (struct apr_jj_val){.kind = APR_JJ_UNDEF, .u.un = un};
    return APR_OK;
}

enum apr_code apr_jj_undef_error(struct apr_jj_run *r, struct apr_jj_val v)
{
    const struct apr_jj_undef *un = v.u.un;
    if (un->name.kind != APR_JJ_STR) {
        if (un->name.kind == APR_JJ_INT)
            return apr_jj_fail(r, "%s has no element %lld", un->owner, (long long)un->name.u.i);
        return apr_jj_fail(r, "%s has no such element", un->owner ? un->owner : "the object");
    }
    int n = (int)(un->name.u.s->n > 200 ? 200 : un->name.u.s->n);
    const char *p = un->name.u.s->p;
    if (un->unsafe) return apr_jj_fail(r, "access to attribute '%.*s' of '%s' is unsafe", n, p, un->owner);
    if (!un->owner) return apr_jj_fail(r, "'%.*s' is undefined", n, p);
    return apr_jj_fail(r, "'%s' has no attribute '%.*s'", un->owner, n, p);
}

enum apr_code apr_jj_list_new(struct apr_jj_run *r, size_t n_cap, struct apr_jj_list **out)
{
    struct apr_jj_list *l = NULL;
    TRY(apr_jj_alloc(r, 1, sizeof *l, &l));
    *l = (struct apr_jj_list){.n_cap = n_cap};
    if (n_cap) TRY(apr_jj_alloc(r, n_cap, sizeof *l->at, &l->at));
    *out = l;
    return APR_OK;
}

enum apr_code apr_jj_list_push(struct apr_jj_run *r, struct apr_jj_list *l, struct apr_jj_val v)
{
    if (l->n == l->n_cap) {
        size_t n_cap = l->n_cap ? 2 * l->n_cap : 8;
        struct apr_jj_val *at = NULL;
        TRY(apr_jj_alloc(r, n_cap, sizeof *at, &at));
        if (l->n) memcpy(at, l->at, l->n * sizeof *at);
        l->at = at;
        l->n_cap = n_cap;
    }
    l->at[l->n++] = v;
    return APR_OK;
}

enum apr_code apr_jj_dict_new(struct apr_jj_run *r, struct apr_jj_dict **out)
{
    TRY(apr_jj_alloc(r, 1, sizeof **out, out));
    **out = (struct apr_jj_dict){0};
    return APR_OK;
}

static uint32_t hash_bytes(const void *p, size_t n)
{
    return (uint32_t)apr_hash_key(p, n);
}

bool apr_jj_is_number(struct apr_jj_val v)
{
    return v.kind == APR_JJ_BOOL || v.kind == APR_JJ_INT || v.kind == APR_JJ_FLOAT;
}

double apr_jj_as_double(struct apr_jj_val v)
{
    if (v.kind == APR_JJ_BOOL) return v.u.b;
    return v.kind == APR_JJ_INT ? (double)v.u.i : v.u.f;
}

static enum apr_code hash_of(struct apr_jj_run *r, struct apr_jj_val key, uint32_t *hash)
{
    if (key.kind == APR_JJ_STR) {
        TRY(apr_jj_charge(r, key.u.s->n / 32)); /* the lookup that follows compares as many */
        *hash = hash_bytes(key.u.s->p, key.u.s->n);
        return APR_OK;
    }
    if (apr_jj_is_number(key)) {
        double f = apr_jj_as_double(key) + 0.0; /* -0.0 hashes as 0.0 */
        *hash = hash_bytes(&f, sizeof f);
        return APR_OK;
    }
    if (key.kind == APR_JJ_NONE || key.kind == APR_JJ_UNDEF) {
        *hash = key.kind;
        return APR_OK;
    }
    if (key.kind == APR_JJ_LIST && key.seq == APR_JJ_TUPLE) {
        uint32_t h = 3;
        TRY(apr_jj_enter(r));
        for (size_t i = 0; i < key.u.l->n; i++) {
            uint32_t part = 0;
            TRY(hash_of(r, key.u.l->at[i], &part));
            h = h * 1000003u + part;
        }
        r->depth--;
        *hash = h;
        return APR_OK;
    }
    return apr_jj_fail(r, "unhashable type: '%s'", apr_jj_type_name(key));
}

/* Keys are strings, numbers, None, undefined and tuples of these: all that hash_of lets through. */
static bool key_eq(struct apr_jj_val a, struct apr_jj_val b)
{
    if (a.kind == APR_JJ_STR && b.kind == APR_JJ_STR)
        return a.u.s->n == b.u.s->n && memcmp(a.u.s->p, b.u.s->p, a.u.s->n) == 0;
    if (a.kind == APR_JJ_INT && b.kind == APR_JJ_INT) return a.u.i == b.u.i;
    if (apr_jj_is_number(a) && apr_jj_is_number(b)) return apr_jj_as_double(a) == apr_jj_as_double(b);
    if (a.kind != b.kind) return false;
    if (a.kind == APR_JJ_LIST) {
        if (a.u.l->n != b.u.l->n) return false;
        for (size_t i = 0; i < a.u.l->n; i++)
            if (!key_eq(a.u.l->at[i], b.u.l->at[i])) return false; /* as deep as hash_of went */
        return true;
    }
    return a.kind == APR_JJ_NONE || a.kind == APR_JJ_UNDEF;
}

static struct apr_jj_entry *lookup(const struct apr_jj_dict *d, struct apr_jj_val key, uint32_t hash)
{
    if (!d->slots) {
        for (size_t i = 0; i < d->n; i++)
            if (d->at[i].hash == hash && key_eq(d->at[i].key, key)) return &d->at[i];
        return NULL;
    }
    for (size_t s = hash & (d->n_slots - 1); d->slots[s]; s = (s + 1) & (d->n_slots - 1)) {
        struct apr_jj_entry *en = &d->at[d->slots[s] - 1];
        if (en->hash == hash && key_eq(en->key, key)) return en;
    }
    return NULL;
}

static void index_entry(struct apr_jj_dict *d, size_t i)
{
    size_t s = d->at[i].hash & (d->n_slots - 1);
    while (d->slots[s]) s = (s + 1) & (d->n_slots - 1);
    d->slots[s] = (uint32_t)(i + 1);
}

static enum apr_code grow_dict(struct apr_jj_run *r, struct apr_jj_dict *d)
{
    size_t n_cap = d->n_cap ? 2 * d->n_cap : SMALL_DICT;
    struct apr_jj_entry *at = NULL;
    if (n_cap > UINT32_MAX / 4) return apr_jj_fail(r, "a dictionary has too many keys");
    TRY(apr_jj_alloc(r, n_cap, sizeof *at, &at));
    if (d->n) memcpy(at, d->at, d->n * sizeof *at);
    d->at = at;
    d->n_cap = n_cap;
    if (n_cap <= SMALL_DICT) return APR_OK;
    TRY(apr_jj_alloc(r, 2 * n_cap, sizeof *d->slots, &d->slots));
    memset(d->slots, 0, 2 * n_cap * sizeof *d->slots);
    d->n_slots = 2 * n_cap;
    for (size_t i = 0; i < d->n; i++) index_entry(d, i);
    return APR_OK;
}

enum apr_code apr_jj_dict_set(struct apr_jj_run *r, struct apr_jj_dict *d, struct apr_jj_val key,
                              struct apr_jj_val v)
{
    uint32_t hash = 0;
    TRY(hash_of(r, key, &hash));
    struct apr_jj_entry *en = lookup(d, key, hash);
    if (en) {
        en->v = v;
        return APR_OK;
    }
    if (d->n == d->n_cap) TRY(grow_dict(r, d));
    d->at[d->n++] = (struct apr_jj_entry){.key = key, .v = v, .hash = hash};
    if (d->slots) index_entry(d, d->n - 1);
    return APR_OK;
}

enum apr_code apr_jj_dict_get(struct apr_jj_run *r, const struct apr_jj_dict *d, struct apr_jj_val key,
                              const struct apr_jj_val **out)
{
    uint32_t hash = 0;
    TRY(hash_of(r, key, &hash));
    const struct apr_jj_entry *en = lookup(d, key, hash);
    *out = en ? &en->v : NULL;
    return APR_OK;
}

const struct apr_jj_val *apr_jj_dict_find(const struct apr_jj_dict *d, const char *p, size_t n)
{
    struct apr_jj_str s = {.p = p, .n = n};
    const struct apr_jj_entry *en = lookup(d, apr_jj_of_str(&s), hash_bytes(p, n));
    return en ? &en->v : NULL;
}

static const char *const list_names[] = {
    [APR_JJ_PLAIN] = "list",         [APR_JJ_TUPLE] = "tuple",      [APR_JJ_RANGE] = "range",
    [APR_JJ_GEN] = "generator",      [APR_JJ_ITEMS] = "dict_items", [APR_JJ_KEYS] = "dict_keys",
    [APR_JJ_VALUES] = "dict_values",
};
static const char *const type_names[] = {
    [APR_JJ_ABSENT] = "NoneType",  [APR_JJ_UNDEF] = "Undefined", [APR_JJ_NONE] = "NoneType",
    [APR_JJ_BOOL] = "bool",        [APR_JJ_INT] = "int",         [APR_JJ_FLOAT] = "float",
    [APR_JJ_STR] = "str",          [APR_JJ_LIST] = "list",       [APR_JJ_DICT] = "dict",
    [APR_JJ_NS] = "Namespace",     [APR_JJ_MACRO] = "Macro",     [APR_JJ_FUNC] = "function",
    [APR_JJ_LOOP] = "LoopContext",
};

const char *apr_jj_type_name(struct apr_jj_val v)
{
    return v.kind == APR_JJ_LIST ? list_names[v.seq] : type_names[v.kind];
}

const char *apr_jj_object_name(struct apr_jj_val v)
{
    static const char *const lists[] = {
        [APR_JJ_PLAIN] = "list object",         [APR_JJ_TUPLE] = "tuple object",
        [APR_JJ_RANGE] = "range object",        [APR_JJ_GEN] = "generator object",
        [APR_JJ_ITEMS] = "dict_items object",   [APR_JJ_KEYS] = "dict_keys object",
        [APR_JJ_VALUES] = "dict_values object",
    };
    static const char *const objects[] = {
        [APR_JJ_ABSENT] = "None",
        [APR_JJ_UNDEF] = "Undefined object",
        [APR_JJ_NONE] = "None",
        [APR_JJ_BOOL] = "bool object",
        [APR_JJ_INT] = "int object",
        [APR_JJ_FLOAT] = "float object",
        [APR_JJ_STR] = "str object",
        [APR_JJ_LIST] = "list object",
        [APR_JJ_DICT] = "dict object",
        [APR_JJ_NS] = "jinja2.utils.Namespace object",
        [APR_JJ_MACRO] = "jinja2.runtime.Macro object",
        [APR_JJ_FUNC] = "function object",
        [APR_JJ_LOOP] = "jinja2.runtime.LoopContext object",
    };
    return v.kind == APR_JJ_LIST ? lists[v.seq] : objects[v.kind];
}

/* References and schemas that hold together. */
#include <stdlib.h>
#include <string.h>

#include "schema_in.h"

#define MAX_PRODUCT 64u /* branches of two anyOf that hold together */

static json_t *borrow(const json_t *v)
{
    return json_incref((json_t *)(uintptr_t)v);
}

/* v becomes s's own. */
static enum apr_code keep(struct apr_sch *s, json_t *v, const struct apr_sch_path *at, struct apr_err *e)
{
    if (v && !json_array_append_new(s->keep, v)) return APR_OK;
    return apr_sch_refuse(s, at, e, "no memory for the schema");
}

/* One part of a JSON pointer (RFC 6901) into out: ~1 is /, ~0 is ~. Returns its end, NULL when out is too
 * small. */
static const char *pointer_part(const char *p, char *out, size_t n_out)
{
    size_t n = 0;
    for (; *p && *p != '/'; p++) {
        if (n + 1 == n_out) return NULL;
        out[n++] = *p != '~' ? *p : *++p == '1' ? '/' : '~';
        if (!*p) return NULL;
    }
    out[n] = '\0';
    return p;
}

enum apr_code apr_sch_target(const struct apr_sch *s, const char *ref, const struct apr_sch_path *at,
                             const json_t **schema, struct apr_err *e)
{
    char part[512];
    const json_t *v = s->root;
    if (*ref != '#' || (ref[1] && ref[1] != '/') || strchr(ref, '%'))
        return apr_sch_refuse(s, at, e, "$ref \"%.100s\": expected # or #/...", ref);
    for (const char *p = ref + 1; *p && v;) {
        p = pointer_part(p + 1, part, sizeof part);
        if (!p) return apr_sch_refuse(s, at, e, "$ref \"%.100s\" cannot be followed", ref);
        char *end;
        unsigned long i = strtoul(part, &end, 10);
        v = json_is_array(v) ? (*part && !*end ? json_array_get(v, i) : NULL) : json_object_get(v, part);
    }
    *schema = v;
    return v ? APR_OK : apr_sch_malformed(s, at, e, "$ref \"%.100s\" leads nowhere", ref);
}

/* {"allOf": [a, b]}, or the one of them that says it all. A new reference. */
static json_t *all_of(const json_t *a, const json_t *b)
{
    if (json_is_true(a) || json_is_false(b)) return borrow(b);
    if (json_is_true(b) || json_is_false(a) || json_equal(a, b)) return borrow(a);
    return json_pack("{s:[O,O]}", "allOf", a, b);
}

static enum apr_code flat_list(struct apr_sch *s, json_t *out, const struct apr_sch_path *at,
                               struct apr_err *e)
{
    json_t *list = json_object_get(out, "items"), *rest = json_object_get(out, "additionalItems");
    if (json_is_array(list)) { /* before draft 2020-12 */
        if (json_object_get(out, "prefixItems"))
            return apr_sch_malformed(s, at, e, "items must be a schema beside prefixItems");
        json_object_set(out, "prefixItems", list);
        json_object_del(out, "items");
        if (rest) json_object_set(out, "items", rest);
    }
    json_object_del(out, "additionalItems"); /* without a list it says nothing */
    if (json_object_get(out, "prefixItems") && !json_array_size(json_object_get(out, "prefixItems")))
        json_object_del(out, "prefixItems");
    return APR_OK;
}

/* Values in both lists. */
static json_t *common_values(const json_t *a, const json_t *b)
{
    json_t *out = json_array();
    for (size_t i = 0; i < json_array_size(a); i++)
        for (size_t j = 0; j < json_array_size(b); j++) {
            json_t *x = json_array_get(a, i), *y = json_array_get(b, j);
            bool same = json_equal(x, y) || (json_is_number(x) && json_is_number(y) &&
                                             json_number_value(x) == json_number_value(y));
            if (same) {
                json_array_append(out, x);
                break;
            }
        }
    return out;
}

/* const is an enum of one. */
static void flat_const(json_t *out)
{
    json_t *value = json_object_get(out, "const"), *values = json_object_get(out, "enum");
    if (!value) return;
    json_t *one = json_pack("[O]", value);
    json_object_set_new(out, "enum", values ? common_values(values, one) : json_incref(one));
    json_decref(one);
    json_object_del(out, "const");
}

static enum apr_code flat_parts(struct apr_sch *s, json_t *out, const struct apr_sch_path *at, json_t **done,
                                struct apr_err *e)
{
    json_t *ref = json_incref(json_object_get(out, "$ref")),
           *all = json_incref(json_object_get(out, "allOf"));
    enum apr_code code = APR_OK;
    const json_t *target = NULL;
    json_t *flat;
    json_object_del(out, "$ref");
    json_object_del(out, "allOf");
    if (ref) {
        const struct apr_sch_path in = apr_sch_key(at, "$ref");
        code = apr_sch_target(s, json_string_value(ref), at, &target, e);
        if (code == APR_OK) code = apr_sch_flat(s, target, &in, &flat, e);
        if (code == APR_OK) code = apr_sch_both(s, out, flat, at, &out, e);
    }
    for (size_t i = 0; code == APR_OK && i < json_array_size(all); i++) {
        const struct apr_sch_path list = apr_sch_key(at, "allOf"), in = apr_sch_index(&list, i);
        code = apr_sch_flat(s, json_array_get(all, i), &in, &flat, e);
        if (code == APR_OK) code = apr_sch_both(s, out, flat, at, &out, e);
    }
    json_decref(ref);
    json_decref(all);
    *done = out;
    return code;
}

enum apr_code apr_sch_flat(struct apr_sch *s, const json_t *schema, const struct apr_sch_path *at,
                           json_t **out, struct apr_err *e)
{
    s->n_nodes += 1 + (uint32_t)json_object_size(schema);
    if (s->n_nodes > APR_SCH_MAX_NODES || at->depth > APR_SCH_MAX_DEPTH)
        return apr_sch_refuse(s, at, e, "references and allOf unfold without end");
    if (json_is_false(schema)) return apr_sch_malformed(s, at, e, "nothing can be valid here");
    json_t *copy = json_is_true(schema) ? json_object() : json_copy((json_t *)(uintptr_t)schema);
    TRY(keep(s, copy, at, e));
    TRY(apr_sch_check(s, copy, at, e));
    flat_const(copy);
    TRY(flat_list(s, copy, at, e));
    return flat_parts(s, copy, at, out, e);
}

/* A property under the other schema, which may not name it. */
static json_t *property_under(const json_t *own, const json_t *other, const char *name)
{
    const json_t *named = json_object_get(json_object_get(other, "properties"), name);
    if (!named) named = json_object_get(other, "additionalProperties");
    return named ? all_of(own, named) : borrow(own);
}

static void merge_properties(json_t *out, const json_t *a, const json_t *b)
{
    const json_t *pa = json_object_get(a, "properties"), *pb = json_object_get(b, "properties");
    const json_t *xa = json_object_get(a, "additionalProperties"),
                 *xb = json_object_get(b, "additionalProperties");
    const char *name;
    json_t *v;
    if (pa || pb) {
        json_t *all = json_object();
        json_object_foreach((json_t *)(uintptr_t)pa, name, v)
        {
            json_object_set_new(all, name, property_under(v, b, name));
        }
        json_object_foreach((json_t *)(uintptr_t)pb, name, v)
        {
            if (!json_object_get(all, name)) json_object_set_new(all, name, property_under(v, a, name));
        }
        json_object_set_new(out, "properties", all);
    }
    if (xa && xb) json_object_set_new(out, "additionalProperties", all_of(xa, xb));
    if (xb && !xa) json_object_set(out, "additionalProperties", (json_t *)(uintptr_t)xb);
}

/* Each of one with each of the other. */
static json_t *product(const json_t *a, const json_t *b)
{
    json_t *out = json_array();
    for (size_t i = 0; i < json_array_size(a); i++)
        for (size_t j = 0; j < json_array_size(b); j++)
            json_array_append_new(out, all_of(json_array_get(a, i), json_array_get(b, j)));
    return out;
}

static enum apr_code merge_types(struct apr_sch *s, json_t *out, const json_t *a, const json_t *b,
                                 const struct apr_sch_path *at, struct apr_err *e)
{
    static const struct {
        const char *name;
        unsigned types;
    } rows[] = {{"null", APR_SCH_NULL},    {"boolean", APR_SCH_BOOL},  {"number", APR_SCH_NUMBER},
                {"integer", APR_SCH_INT},  {"string", APR_SCH_STRING}, {"array", APR_SCH_ARRAY},
                {"object", APR_SCH_OBJECT}};
    unsigned ta, tb;
    TRY(apr_sch_types(s, a, at, &ta, e));
    TRY(apr_sch_types(s, b, at, &tb, e));
    unsigned both = ta & tb;
    json_t *list = json_array();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if ((both & rows[i].types) == rows[i].types) {
            json_array_append_new(list, json_string(rows[i].name));
            both &= ~rows[i].types;
        }
    if (!json_array_size(list)) {
        json_decref(list);
        return apr_sch_malformed(s, at, e, "types that exclude each other");
    }
    json_object_set_new(out, "type", list);
    return APR_OK;
}

/* One keyword that both have. */
static enum apr_code merge_key(struct apr_sch *s, json_t *out, const char *key, const json_t *x,
                               const json_t *y, const struct apr_sch_path *at, struct apr_err *e)
{
    static const char larger[] = " minimum exclusiveMinimum minLength minItems minProperties ";
    static const char smaller[] = " maximum exclusiveMaximum maxLength maxItems maxProperties ";
    char word[64];
    snprintf(word, sizeof word, " %.60s ", key);
    if (strstr(larger, word) || strstr(smaller, word)) {
        bool first = json_number_value(x) > json_number_value(y);
        if (strstr(smaller, word)) first = !first;
        json_object_set(out, key, (json_t *)(uintptr_t)(first ? x : y));
        return APR_OK;
    }
    if (!strcmp(key, "enum")) {
        json_t *values = common_values(x, y);
        json_object_set_new(out, key, values);
        return json_array_size(values) ? APR_OK
                                       : apr_sch_malformed(s, at, e, "enum: no value is in both lists");
    }
    if (!strcmp(key, "required")) {
        json_t *all = json_copy((json_t *)(uintptr_t)x);
        json_array_extend(all, (json_t *)(uintptr_t)y);
        return json_object_set_new(out, key, all) ? apr_sch_refuse(s, at, e, "no memory for the schema")
                                                  : APR_OK;
    }
    if (!strcmp(key, "items")) {
        json_object_set_new(out, key, all_of(x, y));
        return APR_OK;
    }
    if (!strcmp(key, "anyOf") && json_array_size(x) * json_array_size(y) <= MAX_PRODUCT) {
        json_object_set_new(out, key, product(x, y));
        return APR_OK;
    }
    if (json_equal(x, y)) return APR_OK;
    return apr_sch_refuse(s, at, e, "%s stands in two schemas that must both hold; they cannot be merged",
                          key);
}

enum apr_code apr_sch_both(struct apr_sch *s, const json_t *a, const json_t *b, const struct apr_sch_path *at,
                           json_t **out, struct apr_err *e)
{
    const char *key;
    json_t *v;
    s->n_nodes += 1 + (uint32_t)(json_object_size(a) + json_object_size(json_object_get(a, "properties")));
    if (s->n_nodes > APR_SCH_MAX_NODES)
        return apr_sch_refuse(s, at, e, "references and allOf unfold without end");
    json_t *m = json_copy((json_t *)(uintptr_t)a);
    TRY(keep(s, m, at, e));
    *out = m;
    bool lists = json_object_get(a, "prefixItems") || json_object_get(b, "prefixItems");
    if (lists && !json_equal(json_object_get(a, "prefixItems"), json_object_get(b, "prefixItems")) &&
        (json_object_get(a, "items") || json_object_get(b, "items") ||
         (json_object_get(a, "prefixItems") && json_object_get(b, "prefixItems"))))
        return apr_sch_refuse(s, at, e, "prefixItems of two schemas cannot be merged");
    if (json_object_get(a, "type") || json_object_get(b, "type")) {
        /* Where one names types and the other only implies some, those of the former that it does not speak
         * of stay open. */
        const json_t *named_a = json_object_get(a, "type"), *named_b = json_object_get(b, "type");
        if (named_a && named_b) TRY(merge_types(s, m, a, b, at, e));
        if (!named_a) json_object_set(m, "type", (json_t *)(uintptr_t)named_b);
    }
    merge_properties(m, a, b);
    json_object_foreach((json_t *)(uintptr_t)b, key, v)
    {
        const json_t *own = json_object_get(a, key);
        if (!strcmp(key, "type") || !strcmp(key, "properties") || !strcmp(key, "additionalProperties") ||
            apr_sch_is_note(key))
            continue;
        if (own)
            TRY(merge_key(s, m, key, own, v, at, e));
        else
            json_object_set(m, key, v);
    }
    return APR_OK;
}

static bool is_required(const json_t *schema, const char *name)
{
    const json_t *list = json_object_get(schema, "required");
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!strcmp(json_string_value(json_array_get(list, i)), name)) return true;
    return false;
}

/* Objects: a property that one must have and the other cannot have, or not with such a value. */
static bool objects_apart(struct apr_sch *s, const json_t *a, const json_t *b, const struct apr_sch_path *at,
                          int depth)
{
    const json_t *required = json_object_get(a, "required"), *pb = json_object_get(b, "properties");
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *name = json_string_value(json_array_get(required, i));
        const json_t *x = json_object_get(json_object_get(a, "properties"), name),
                     *y = json_object_get(pb, name);
        if (!y && json_is_false(json_object_get(b, "additionalProperties"))) return true;
        if (json_is_false(y)) return true;
        if (x && y && is_required(b, name) && apr_sch_disjoint(s, x, y, at, depth + 1)) return true;
    }
    return false;
}

bool apr_sch_disjoint(struct apr_sch *s, const json_t *a, const json_t *b, const struct apr_sch_path *at,
                      int depth)
{
    struct apr_err ignored;
    json_t *x, *y;
    unsigned tx, ty;
    if (depth > 8) return false;
    if (json_is_false(a) || json_is_false(b)) return true;
    if (apr_sch_flat(s, a, at, &x, &ignored) != APR_OK || apr_sch_flat(s, b, at, &y, &ignored) != APR_OK)
        return false;
    const json_t *ex = json_object_get(x, "enum"), *ey = json_object_get(y, "enum");
    if (ex && ey) {
        json_t *both = common_values(ex, ey);
        bool none = !json_array_size(both);
        json_decref(both);
        if (none) return true;
    }
    /* Only what a schema says outright: implied types let all other types pass. */
    if ((!ex && !json_object_get(x, "type")) || (!ey && !json_object_get(y, "type"))) return false;
    if (apr_sch_types(s, x, at, &tx, &ignored) != APR_OK || apr_sch_types(s, y, at, &ty, &ignored) != APR_OK)
        return false;
    if (!(tx & ty)) return true;
    return (tx & ty) == APR_SCH_OBJECT &&
           (objects_apart(s, x, y, at, depth) || objects_apart(s, y, x, at, depth));
}

/* Keywords: which there are, what they hold, and what they say about the type. */
#include <math.h>
#include <string.h>

#include "schema_in.h"

enum shape { ANYTHING, SCHEMA, SCHEMAS, MAP, COUNT, NUMBER, TEXT, TEXTS, VALUES, TYPE, FLAG, SCHEMA_OR_LIST };

static const struct keyword {
    const char *name;
    enum shape shape;
    unsigned implies; /* types */
    bool is_note;
} keywords[] = {
    {"type", TYPE, 0, false},
    {"enum", VALUES, 0, false},
    {"const", ANYTHING, 0, false},
    {"$ref", TEXT, 0, false},
    {"anyOf", SCHEMAS, 0, false},
    {"oneOf", SCHEMAS, 0, false},
    {"allOf", SCHEMAS, 0, false},
    {"properties", MAP, APR_SCH_OBJECT, false},
    {"required", TEXTS, APR_SCH_OBJECT, false},
    {"additionalProperties", SCHEMA, APR_SCH_OBJECT, false},
    {"minProperties", COUNT, APR_SCH_OBJECT, false},
    {"maxProperties", COUNT, APR_SCH_OBJECT, false},
    {"items", SCHEMA_OR_LIST, APR_SCH_ARRAY, false},
    {"prefixItems", SCHEMAS, APR_SCH_ARRAY, false},
    {"additionalItems", SCHEMA, APR_SCH_ARRAY, false},
    {"minItems", COUNT, APR_SCH_ARRAY, false},
    {"maxItems", COUNT, APR_SCH_ARRAY, false},
    {"uniqueItems", FLAG, APR_SCH_ARRAY, false},
    {"minLength", COUNT, APR_SCH_STRING, false},
    {"maxLength", COUNT, APR_SCH_STRING, false},
    {"pattern", TEXT, APR_SCH_STRING, false},
    {"format", TEXT, APR_SCH_STRING, false},
    {"minimum", NUMBER, APR_SCH_NUMBER, false},
    {"maximum", NUMBER, APR_SCH_NUMBER, false},
    {"exclusiveMinimum", NUMBER, APR_SCH_NUMBER, false},
    {"exclusiveMaximum", NUMBER, APR_SCH_NUMBER, false},
    {"multipleOf", NUMBER, APR_SCH_NUMBER, false},
    {"$defs", MAP, 0, true},
    {"definitions", MAP, 0, true},
    {"title", ANYTHING, 0, true},
    {"description", ANYTHING, 0, true},
    {"default", ANYTHING, 0, true},
    {"examples", ANYTHING, 0, true},
    {"example", ANYTHING, 0, true},
    {"deprecated", ANYTHING, 0, true},
    {"readOnly", ANYTHING, 0, true},
    {"writeOnly", ANYTHING, 0, true},
    {"$schema", ANYTHING, 0, true},
    {"$id", ANYTHING, 0, true},
    {"id", ANYTHING, 0, true},
    {"$anchor", ANYTHING, 0, true},
    {"$comment", ANYTHING, 0, true},
    {"$vocabulary", ANYTHING, 0, true},
};

static const struct {
    const char *name;
    unsigned types;
} type_names[] = {{"null", APR_SCH_NULL},     {"boolean", APR_SCH_BOOL},  {"integer", APR_SCH_INT},
                  {"number", APR_SCH_NUMBER}, {"string", APR_SCH_STRING}, {"array", APR_SCH_ARRAY},
                  {"object", APR_SCH_OBJECT}};

static const struct keyword *find(const char *name)
{
    for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++)
        if (!strcmp(keywords[i].name, name)) return &keywords[i];
    return NULL;
}

bool apr_sch_is_note(const char *key)
{
    const struct keyword *k = find(key);
    return k ? k->is_note : !strncmp(key, "x-", 2);
}

static bool is_schema(const json_t *v)
{
    return json_is_object(v) || json_is_boolean(v);
}

static bool all_are(const json_t *list, bool (*is)(const json_t *v), size_t n_min)
{
    size_t n = json_array_size(list);
    for (size_t i = 0; i < n; i++)
        if (!is(json_array_get(list, i))) return false;
    return json_is_array(list) && n >= n_min;
}

static bool is_text(const json_t *v)
{
    return json_is_string(v);
}

static bool is_count(const json_t *v)
{
    return json_is_integer(v) ? json_integer_value(v) >= 0
                              : json_is_real(v) && json_real_value(v) >= 0 &&
                                    json_real_value(v) == floor(json_real_value(v));
}

static bool is_map(const json_t *v)
{
    const char *key;
    json_t *item;
    json_object_foreach((json_t *)(uintptr_t)v, key, item)
    {
        if (!is_schema(item)) return false;
    }
    return json_is_object(v);
}

/* NULL when v has the shape, else what was expected. */
static const char *misfit(enum shape shape, const json_t *v)
{
    switch (shape) {
    case ANYTHING:
        return NULL;
    case SCHEMA:
        return is_schema(v) ? NULL : "a schema";
    case SCHEMAS:
        return all_are(v, is_schema, 1) ? NULL : "a list of schemas";
    case SCHEMA_OR_LIST:
        return is_schema(v) || all_are(v, is_schema, 0) ? NULL : "a schema or a list of schemas";
    case MAP:
        return is_map(v) ? NULL : "an object of schemas";
    case COUNT:
        return is_count(v) ? NULL : "a whole number >= 0";
    case NUMBER:
        return json_is_number(v) ? NULL : "a number";
    case TEXT:
        return json_is_string(v) ? NULL : "a string";
    case TEXTS:
        return all_are(v, is_text, 0) ? NULL : "a list of strings";
    case VALUES:
        return json_array_size(v) > 0 ? NULL : "a list with a value";
    case TYPE:
        return json_is_string(v) || all_are(v, is_text, 1) ? NULL : "a type or a list of types";
    case FLAG:
        return json_is_boolean(v) ? NULL : "true or false";
    }
    return "something else";
}

enum apr_code apr_sch_check(const struct apr_sch *s, const json_t *schema, const struct apr_sch_path *at,
                            struct apr_err *e)
{
    const char *key;
    json_t *v;
    if (!json_is_object(schema)) return apr_sch_malformed(s, at, e, "a schema is an object, true or false");
    json_object_foreach((json_t *)(uintptr_t)schema, key, v)
    {
        const struct keyword *k = find(key);
        if (!k && strncmp(key, "x-", 2) != 0)
            return apr_sch_refuse(s, at, e, "keyword \"%.60s\" is not supported", key);
        const char *want = k ? misfit(k->shape, v) : NULL;
        if (want) return apr_sch_malformed(s, at, e, "%s must be %s", key, want);
    }
    return APR_OK;
}

enum apr_code apr_sch_count(const struct apr_sch *s, const json_t *schema, const char *key,
                            const struct apr_sch_path *at, uint32_t *n, struct apr_err *e)
{
    const json_t *v = json_object_get(schema, key);
    if (!v) return APR_OK;
    if (!is_count(v)) return apr_sch_malformed(s, at, e, "%s must be a whole number >= 0", key);
    double d = json_number_value(v);
    *n = d < (double)UINT32_MAX - 1 ? (uint32_t)d : UINT32_MAX - 1;
    return APR_OK;
}

unsigned apr_sch_type_of(const json_t *v)
{
    if (json_is_real(v) && json_real_value(v) != floor(json_real_value(v))) return APR_SCH_FRACTION;
    return json_is_object(v)    ? APR_SCH_OBJECT
           : json_is_array(v)   ? APR_SCH_ARRAY
           : json_is_string(v)  ? APR_SCH_STRING
           : json_is_number(v)  ? APR_SCH_INT
           : json_is_boolean(v) ? APR_SCH_BOOL
                                : APR_SCH_NULL;
}

static enum apr_code add_type(const struct apr_sch *s, const json_t *name, const struct apr_sch_path *at,
                              unsigned *types, struct apr_err *e)
{
    for (size_t i = 0; i < sizeof type_names / sizeof *type_names; i++) {
        if (strcmp(type_names[i].name, json_string_value(name)) != 0) continue;
        *types |= type_names[i].types;
        return APR_OK;
    }
    return apr_sch_malformed(s, at, e, "type \"%.40s\" is unknown", json_string_value(name));
}

enum apr_code apr_sch_types(const struct apr_sch *s, const json_t *schema, const struct apr_sch_path *at,
                            unsigned *types, struct apr_err *e)
{
    const json_t *type = json_object_get(schema, "type"), *values = json_object_get(schema, "enum");
    *types = 0;
    if (json_is_string(type)) return add_type(s, type, at, types, e);
    for (size_t i = 0; i < json_array_size(type); i++)
        TRY(add_type(s, json_array_get(type, i), at, types, e));
    if (type) return APR_OK;
    for (size_t i = 0; i < json_array_size(values); i++) *types |= apr_sch_type_of(json_array_get(values, i));
    if (values) return APR_OK;
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)schema, key, v)
    {
        const struct keyword *k = find(key);
        if (k) *types |= k->implies;
    }
    if (!*types) *types = APR_SCH_ANY;
    return APR_OK;
}

enum apr_code apr_sch_only_values(const struct apr_sch *s, const json_t *schema, unsigned types,
                                  const struct apr_sch_path *at, struct apr_err *e)
{
    const json_t *values = json_object_get(schema, "enum");
    unsigned there = 0;
    for (size_t i = 0; i < json_array_size(values); i++) there |= apr_sch_type_of(json_array_get(values, i));
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)schema, key, v)
    {
        const struct keyword *k = find(key);
        if (k && k->implies & there & types)
            return apr_sch_refuse(s, at, e, "%s beside enum or const is not supported", key);
    }
    return APR_OK;
}

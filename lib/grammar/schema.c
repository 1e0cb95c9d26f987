/* The walk over a schema: references, branches, values, types. */
#include "schema.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "schema_in.h"

struct apr_sch_path apr_sch_key(const struct apr_sch_path *up, const char *key)
{
    return (struct apr_sch_path){.up = up, .key = key, .depth = up->depth + 1};
}

struct apr_sch_path apr_sch_index(const struct apr_sch_path *up, size_t i)
{
    return (struct apr_sch_path){.up = up, .index = i, .depth = up->depth + 1};
}

/* "$.properties.a.anyOf[1]", its end where it is too long. */
static const char *path_text(const struct apr_sch_path *at, char *out, size_t n_out)
{
    size_t n = 0;
    const struct apr_sch_path *chain[APR_SCH_MAX_DEPTH + 2];
    size_t n_chain = 0;
    for (; at && n_chain < sizeof chain / sizeof *chain; at = at->up) chain[n_chain++] = at;
    while (n_chain && n + 1 < n_out) {
        const struct apr_sch_path *p = chain[--n_chain];
        int k = !p->up   ? snprintf(out + n, n_out - n, "$")
                : p->key ? snprintf(out + n, n_out - n, ".%.60s", p->key)
                         : snprintf(out + n, n_out - n, "[%zu]", p->index);
        n += (size_t)k;
    }
    return out;
}

static void say(const struct apr_sch *s, const struct apr_sch_path *at, enum apr_code code, struct apr_err *e,
                const char *format, va_list args)
{
    char path[400], text[400];
    vsnprintf(text, sizeof text, format, args);
    apr_err_set(e, code, "%s: %s: %s", s->file, path_text(at, path, sizeof path), text);
}

enum apr_code apr_sch_malformed(const struct apr_sch *s, const struct apr_sch_path *at, struct apr_err *e,
                                const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(s, at, APR_EFORMAT, e, format, args);
    va_end(args);
    return APR_EFORMAT;
}

enum apr_code apr_sch_refuse(const struct apr_sch *s, const struct apr_sch_path *at, struct apr_err *e,
                             const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(s, at, APR_EUSAGE, e, format, args);
    va_end(args);
    return APR_EUSAGE;
}

const struct apr_expr *apr_sch_rule(struct apr_sch *s, const struct apr_expr *x)
{
    if (x->kind == APR_EX_RULE) return x;
    uint32_t i = apr_rules_add(s->r, "(part of a schema)", x);
    return i == UINT32_MAX ? x : apr_ex_rule(s->r, i);
}

/* A reference is a rule by its text; its body is made later, so that a chain of them is no recursion. */
static enum apr_code reference(struct apr_sch *s, const char *ref, const struct apr_sch_path *at,
                               const struct apr_expr **x, struct apr_err *e)
{
    uint32_t n_before = s->r->n, rule = apr_rules_name(s->r, ref, strlen(ref));
    if (rule == UINT32_MAX) return apr_sch_refuse(s, at, e, "more than %u rules", APR_MAX_RULES);
    *x = apr_ex_rule(s->r, rule);
    if (rule < n_before) return APR_OK;
    if (s->n_pending == s->cap_pending) {
        s->cap_pending = s->cap_pending ? 2 * s->cap_pending : 16;
        struct apr_sch_pending *grown = apr_arena_get(s->r->arena, s->cap_pending * sizeof *grown);
        if (s->n_pending) memcpy(grown, s->pending, s->n_pending * sizeof *grown);
        s->pending = grown;
    }
    s->pending[s->n_pending].rule = rule;
    return apr_sch_target(s, ref, at, &s->pending[s->n_pending++].schema, e);
}

/* Whether anything beside key changes the meaning. */
static bool has_more(const json_t *schema, const char *key)
{
    const char *k;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)schema, k, v)
    {
        if (strcmp(k, key) != 0 && !apr_sch_is_note(k)) return true;
    }
    return false;
}

static enum apr_code check_one_of(struct apr_sch *s, const json_t *all, const struct apr_sch_path *at,
                                  struct apr_err *e)
{
    size_t n = json_array_size(all);
    if (n > 64) return apr_sch_refuse(s, at, e, "more than 64 branches");
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++)
            if (!apr_sch_disjoint(s, json_array_get(all, i), json_array_get(all, j), at, 0))
                return apr_sch_refuse(s, at, e,
                                      "branches %zu and %zu may hold at once; anyOf would take either", j, i);
    return APR_OK;
}

/* anyOf, oneOf: each branch together with what stands beside it. */
static enum apr_code branches(struct apr_sch *s, const json_t *schema, const char *key,
                              const struct apr_sch_path *up, const struct apr_expr **x, struct apr_err *e)
{
    const struct apr_sch_path at = apr_sch_key(up, key);
    const json_t *all = json_object_get(schema, key);
    struct apr_ex_list list = {0};
    json_t *beside = json_copy((json_t *)(uintptr_t)schema);
    if (!beside || json_array_append_new(s->keep, beside))
        return apr_sch_malformed(s, &at, e, "out of memory");
    json_object_del(beside, key);
    if (!strcmp(key, "oneOf")) TRY(check_one_of(s, all, &at, e));
    for (size_t i = 0; i < json_array_size(all); i++) {
        const struct apr_sch_path in = apr_sch_index(&at, i);
        const json_t *branch = json_array_get(all, i);
        const struct apr_expr *part;
        if (json_is_false(branch)) continue;
        if (has_more(schema, key) && !json_is_true(branch)) {
            json_t *flat, *both;
            TRY(apr_sch_flat(s, branch, &in, &flat, e));
            TRY(apr_sch_both(s, beside, flat, &in, &both, e));
            branch = both;
        } else if (json_is_true(branch)) {
            branch = beside;
        }
        TRY(apr_sch_node(s, branch, &in, &part, e));
        apr_ex_push(s->r, &list, part);
    }
    if (!list.n) return apr_sch_malformed(s, &at, e, "no branch can hold");
    *x = apr_ex_alt(s->r, list.at, list.n);
    return APR_OK;
}

static enum apr_code by_type(struct apr_sch *s, const json_t *schema, const struct apr_sch_path *at,
                             const struct apr_expr **x, struct apr_err *e)
{
    static const struct {
        unsigned types;
        apr_sch_fn *make;
    } rows[] = {{APR_SCH_OBJECT, apr_sch_object},
                {APR_SCH_ARRAY, apr_sch_array},
                {APR_SCH_STRING, apr_sch_string},
                {APR_SCH_FRACTION, apr_sch_number}};
    struct apr_ex_list list = {0};
    unsigned types;
    TRY(apr_sch_types(s, schema, at, &types, e));
    const json_t *values = json_object_get(schema, "enum");
    if (values) {
        TRY(apr_sch_only_values(s, schema, types, at, e));
        return apr_sch_values(s, values, types, at, x, e);
    }
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct apr_expr *part;
        if (!(types & rows[i].types)) continue;
        TRY(rows[i].make(s, schema, at, &part, e));
        apr_ex_push(s->r, &list, part);
    }
    if ((types & APR_SCH_NUMBER) == APR_SCH_INT) {
        const struct apr_expr *part;
        TRY(apr_sch_integer(s, schema, at, &part, e));
        apr_ex_push(s->r, &list, part);
    }
    if (types & APR_SCH_BOOL) apr_ex_push(s->r, &list, s->c.boolean);
    if (types & APR_SCH_NULL) apr_ex_push(s->r, &list, s->c.null);
    if (!list.n) return apr_sch_malformed(s, at, e, "no type is left: nothing can be valid");
    *x = apr_ex_alt(s->r, list.at, list.n);
    return APR_OK;
}

enum apr_code apr_sch_node(struct apr_sch *s, const json_t *schema, const struct apr_sch_path *at,
                           const struct apr_expr **x, struct apr_err *e)
{
    if (++s->n_nodes > APR_SCH_MAX_NODES)
        return apr_sch_refuse(s, at, e, "the schema unfolds to more than %u parts", APR_SCH_MAX_NODES);
    if (at->depth > APR_SCH_MAX_DEPTH)
        return apr_sch_refuse(s, at, e, "the schema nests more than %d deep", APR_SCH_MAX_DEPTH);
    if (json_is_true(schema)) {
        *x = s->c.value;
        return APR_OK;
    }
    if (json_is_false(schema)) return apr_sch_malformed(s, at, e, "nothing can be valid here");
    TRY(apr_sch_check(s, schema, at, e));
    const json_t *ref = json_object_get(schema, "$ref");
    if (ref && !has_more(schema, "$ref")) return reference(s, json_string_value(ref), at, x, e);
    json_t *flat;
    TRY(apr_sch_flat(s, schema, at, &flat, e));
    if (json_object_get(flat, "anyOf")) return branches(s, flat, "anyOf", at, x, e);
    if (json_object_get(flat, "oneOf")) return branches(s, flat, "oneOf", at, x, e);
    return by_type(s, flat, at, x, e);
}

static enum apr_code all_rules(struct apr_sch *s, uint32_t *root, struct apr_err *e)
{
    const struct apr_sch_path top = {0};
    const struct apr_expr *x;
    apr_sch_common(s);
    TRY(apr_sch_node(s, s->root, &top, &x, e));
    *root = apr_rules_add(s->r, "(the whole schema)", x);
    for (uint32_t i = 0; i < s->n_pending; i++) {
        const struct apr_sch_path at = apr_sch_key(&top, s->r->at[s->pending[i].rule].name);
        TRY(apr_sch_node(s, s->pending[i].schema, &at, &x, e));
        s->r->at[s->pending[i].rule].body = x;
    }
    if (*root == UINT32_MAX || s->r->n >= APR_MAX_RULES)
        return apr_sch_refuse(s, &top, e, "more than %u rules", APR_MAX_RULES);
    return APR_OK;
}

enum apr_code apr_schema_rules(struct apr_rules *r, const json_t *schema, const char *file, uint32_t *root,
                               struct apr_err *e)
{
    struct apr_sch s = {.r = r, .root = schema, .file = file, .keep = json_array()};
    enum apr_code code = all_rules(&s, root, e);
    json_decref(s.keep);
    return code;
}

/* Arrays: the items that prefixItems describes, then any number of others. */
#include "schema_in.h"

struct items {
    const struct apr_expr **prefix; /* [n] */
    size_t n;
    const struct apr_expr *rest; /* NULL: none */
    uint32_t min, max;           /* max APR_NO_LIMIT: any number */
};

static enum apr_code counts(struct apr_sch *s, const json_t *schema, struct items *t,
                            const struct apr_sch_path *at, struct apr_err *e)
{
    t->min = 0;
    t->max = APR_NO_LIMIT;
    TRY(apr_sch_count(s, schema, "minItems", at, &t->min, e));
    TRY(apr_sch_count(s, schema, "maxItems", at, &t->max, e));
    if (!t->rest && t->max > t->n) t->max = (uint32_t)t->n;
    if (t->min > t->max)
        return apr_sch_malformed(s, at, e, "minItems %u is more than the items that may stand", t->min);
    if (t->min > APR_SCH_MAX_COUNT)
        return apr_sch_refuse(s, at, e, "minItems is more than %u", APR_SCH_MAX_COUNT);
    if (json_is_true(json_object_get(schema, "uniqueItems")) && t->max > 1)
        return apr_sch_refuse(s, at, e, "uniqueItems with more than one item is not supported");
    if (t->max != APR_NO_LIMIT && t->max > APR_SCH_MAX_COUNT) t->max = APR_SCH_MAX_COUNT;
    if (t->n > t->max) t->n = t->max;
    return APR_OK;
}

/* What follows the prefix: with a comma before each where there is a prefix. */
static const struct apr_expr *others(struct apr_sch *s, const struct items *t, const struct apr_expr *comma)
{
    if (!t->rest || t->max == t->n) return apr_ex_empty(s->r);
    uint32_t n = (uint32_t)t->n, min = t->min > n ? t->min - n : 0;
    uint32_t max = t->max == APR_NO_LIMIT ? APR_NO_LIMIT : t->max - n;
    const struct apr_expr *more = apr_sch_rule(s, apr_ex_seq2(s->r, comma, t->rest));
    if (n) return apr_ex_repeat(s->r, more, min, max);
    const struct apr_expr *tail =
        apr_ex_repeat(s->r, more, min ? min - 1 : 0, max == APR_NO_LIMIT ? APR_NO_LIMIT : max - 1);
    return apr_ex_repeat(s->r, apr_ex_seq2(s->r, t->rest, tail), min ? 1 : 0, 1);
}

static const struct apr_expr *list(struct apr_sch *s, const struct items *t)
{
    const struct apr_expr *comma = apr_ex_seq2(s->r, apr_ex_text(s->r, ","), s->c.ws);
    const struct apr_expr *x = others(s, t, comma);
    for (size_t i = t->n; i-- > 0;) {
        x = apr_ex_seq2(s->r, t->prefix[i], x);
        if (i) x = apr_ex_seq2(s->r, comma, x);
        if (i >= t->min) x = apr_ex_repeat(s->r, x, 0, 1);
        x = apr_sch_rule(s, x);
    }
    return x;
}

enum apr_code apr_sch_array(struct apr_sch *s, const json_t *schema, const struct apr_sch_path *at,
                            const struct apr_expr **x, struct apr_err *e)
{
    const json_t *prefix = json_object_get(schema, "prefixItems"), *rest = json_object_get(schema, "items");
    const struct apr_sch_path in_p = apr_sch_key(at, "prefixItems"), in_i = apr_sch_key(at, "items");
    struct items t = {.n = json_array_size(prefix)};
    t.prefix = apr_arena_get(s->r->arena, (t.n + 1) * sizeof *t.prefix);
    for (size_t i = 0; i < t.n; i++) {
        const struct apr_sch_path in = apr_sch_index(&in_p, i);
        TRY(apr_sch_node(s, json_array_get(prefix, i), &in, &t.prefix[i], e));
    }
    t.rest = rest || prefix ? NULL : s->c.value;
    if (rest && !json_is_false(rest)) {
        TRY(apr_sch_node(s, rest, &in_i, &t.rest, e));
        t.rest = apr_sch_rule(s, t.rest);
    }
    TRY(counts(s, schema, &t, at, e));
    const struct apr_expr *open = apr_ex_seq2(s->r, apr_ex_text(s->r, "["), s->c.ws);
    const struct apr_expr *close = apr_ex_seq2(s->r, s->c.ws, apr_ex_text(s->r, "]"));
    *x = apr_sch_rule(s, apr_ex_seq2(s->r, open, apr_ex_seq2(s->r, list(s, &t), close)));
    return APR_OK;
}

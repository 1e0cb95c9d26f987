/* Objects: members in the schema's order, then others where they are allowed.
 *
 * With n properties there are two rules for each i: what may come from property i on after a member (rest),
 * and before any member (first). Each leads to the ones of i + 1, so the size is linear in n. */
#include <stdlib.h>
#include <string.h>

#include "../tok/utf8.h"
#include "schema_in.h"

#define MAX_KEY_CHARS 64u /* of a key that the schema does not name */

struct members {
    struct apr_sch *s;
    const struct apr_expr **at; /* [n] "name": value */
    bool *required;             /* [n] */
    const char **names;         /* [n] of all properties, those left out too: n_names */
    size_t n, n_names, n_required;
    const struct apr_expr *extra; /* one member that is not named; NULL: none */
    uint32_t extra_min, extra_max;
};

static const struct apr_expr *seq(struct apr_sch *s, const struct apr_expr *a, const struct apr_expr *b)
{
    return apr_ex_seq2(s->r, a, b);
}

static const struct apr_expr *member(struct apr_sch *s, const struct apr_expr *key,
                                     const struct apr_expr *value)
{
    return seq(s, key, seq(s, apr_ex_text(s->r, ":"), seq(s, s->c.ws, value)));
}

/* Names as code points, sorted, for the keys that equal none of them. */
struct word {
    const uint32_t *c;
    size_t n;
};

static int by_chars(const void *a_, const void *b_)
{
    const struct word *a = a_, *b = b_;
    for (size_t i = 0; i < a->n && i < b->n; i++)
        if (a->c[i] != b->c[i]) return a->c[i] < b->c[i] ? -1 : 1;
    return (a->n > b->n) - (a->n < b->n);
}

/* Characters of a key, none of them escaped, besides n others that are left out. */
static const struct apr_expr *key_chars(struct apr_sch *s, const uint32_t *but, size_t n)
{
    struct apr_range *at = apr_arena_get(s->r->arena, (n + 3) * sizeof *at);
    at[0] = (struct apr_range){0, 0x1f};
    at[1] = (struct apr_range){'"', '"'};
    at[2] = (struct apr_range){'\\', '\\'};
    for (size_t i = 0; i < n; i++) at[i + 3] = (struct apr_range){but[i], but[i]};
    return apr_ex_class(s->r, at, n + 3, true);
}

/* Texts that together with the i characters that all words share are none of the words. */
static const struct apr_expr *no_word(struct apr_sch *s, const struct word *at, size_t n, size_t i)
{
    struct apr_ex_list list = {0};
    uint32_t *next = apr_arena_get(s->r->arena, (n + 1) * sizeof *next);
    size_t k = 0, n_next = 0;
    while (k < n && at[k].n == i) k++;
    if (!k && i) apr_ex_push(s->r, &list, apr_ex_empty(s->r));
    for (size_t j; k < n; k = j) {
        for (j = k + 1; j < n && at[j].c[i] == at[k].c[i];) j++;
        next[n_next++] = at[k].c[i];
        if (i + 1 >= MAX_KEY_CHARS) continue;
        const struct apr_range c = {at[k].c[i], at[k].c[i]};
        apr_ex_push(s->r, &list, seq(s, apr_ex_class(s->r, &c, 1, false), no_word(s, at + k, j - k, i + 1)));
    }
    const struct apr_expr *any = apr_sch_rule(s, key_chars(s, NULL, 0));
    apr_ex_push(s->r, &list, seq(s, key_chars(s, next, n_next), apr_ex_repeat(s->r, any, 0, MAX_KEY_CHARS)));
    return apr_ex_alt(s->r, list.at, list.n);
}

static const struct apr_expr *other_key(const struct members *m)
{
    struct apr_sch *s = m->s;
    struct word *words = apr_arena_get(s->r->arena, (m->n_names + 1) * sizeof *words);
    for (size_t i = 0; i < m->n_names; i++) {
        size_t n_bytes = strlen(m->names[i]);
        uint32_t *c = apr_arena_get(s->r->arena, (n_bytes + 1) * sizeof *c);
        words[i].c = c;
        for (size_t at = 0; at < n_bytes;) {
            int n = apr_utf8_get((const uint8_t *)m->names[i] + at, n_bytes - at, &c[words[i].n++]);
            at += n > 0 ? (size_t)n : 1;
        }
    }
    qsort(words, m->n_names, sizeof *words, by_chars);
    const struct apr_expr *quote = apr_ex_text(s->r, "\"");
    return seq(s, quote, seq(s, no_word(s, words, m->n_names, 0), quote));
}

static bool in_list(const json_t *list, const char *name)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!strcmp(json_string_value(json_array_get(list, i)), name)) return true;
    return false;
}

static enum apr_code add(struct members *m, const char *name, const json_t *schema, bool required,
                         const struct apr_sch_path *at, struct apr_err *e)
{
    const struct apr_expr *key, *value;
    m->names[m->n_names++] = name;
    if (json_is_false(schema)) {
        if (required) return apr_sch_malformed(m->s, at, e, "required, but nothing can be valid here");
        return APR_OK;
    }
    TRY(apr_sch_node(m->s, schema, at, &value, e));
    TRY(apr_sch_quoted(m->s, name, &key, e));
    m->at[m->n] = apr_sch_rule(m->s, member(m->s, key, value));
    m->required[m->n++] = required;
    m->n_required += required;
    return APR_OK;
}

static enum apr_code gather(struct members *m, const json_t *schema, const struct apr_sch_path *at,
                            struct apr_err *e)
{
    const json_t *properties = json_object_get(schema, "properties"),
                 *required = json_object_get(schema, "required");
    const json_t *extra = json_object_get(schema, "additionalProperties");
    const struct apr_sch_path in_p = apr_sch_key(at, "properties"), in_r = apr_sch_key(at, "required");
    const char *name;
    json_t *v;
    size_t n = json_object_size(properties) + json_array_size(required) + 1;
    m->at = apr_arena_get(m->s->r->arena, n * sizeof *m->at);
    m->required = apr_arena_get(m->s->r->arena, n * sizeof *m->required);
    m->names = apr_arena_get(m->s->r->arena, n * sizeof *m->names);
    json_object_foreach((json_t *)(uintptr_t)properties, name, v)
    {
        const struct apr_sch_path in = apr_sch_key(&in_p, name);
        TRY(add(m, name, v, in_list(required, name), &in, e));
    }
    for (size_t i = 0; i < json_array_size(required); i++) {
        const struct apr_sch_path in = apr_sch_index(&in_r, i);
        name = json_string_value(json_array_get(required, i));
        bool known = false;
        for (size_t k = 0; k < m->n_names && !known; k++) known = !strcmp(m->names[k], name);
        if (!known) TRY(add(m, name, extra ? extra : json_true(), true, &in, e));
    }
    return APR_OK;
}

/* minProperties makes optional members required, maxProperties leaves some out. */
static enum apr_code fit_counts(struct members *m, const json_t *schema, const struct apr_sch_path *at,
                                struct apr_err *e)
{
    uint32_t min = 0, max = UINT32_MAX;
    TRY(apr_sch_count(m->s, schema, "minProperties", at, &min, e));
    TRY(apr_sch_count(m->s, schema, "maxProperties", at, &max, e));
    if (m->n_required > max || min > max)
        return apr_sch_malformed(m->s, at, e, "maxProperties is less than what is required");
    for (size_t i = 0; i < m->n && m->n_required < min; i++) {
        m->n_required += !m->required[i];
        m->required[i] = true;
    }
    m->extra_min = min > m->n_required ? min - (uint32_t)m->n_required : 0;
    if (m->extra_min > (m->extra ? 1 : 0)) /* two others could be the same key */
        return apr_sch_refuse(m->s, at, e, "minProperties %u needs more members than the schema names", min);
    for (size_t i = m->n; i-- > 0 && m->n > max;) {
        if (m->required[i]) continue;
        memmove(&m->at[i], &m->at[i + 1], (m->n - i - 1) * sizeof *m->at);
        memmove(&m->required[i], &m->required[i + 1], (m->n - i - 1) * sizeof *m->required);
        m->n--;
    }
    m->extra_max = max == UINT32_MAX ? APR_NO_LIMIT : max - (uint32_t)m->n;
    if (m->extra_max != APR_NO_LIMIT && m->extra_max > APR_SCH_MAX_COUNT) m->extra_max = APR_SCH_MAX_COUNT;
    if (!m->extra_max) m->extra = NULL;
    return APR_OK;
}

static const struct apr_expr *chain(const struct members *m)
{
    struct apr_sch *s = m->s;
    const struct apr_expr *comma = seq(s, apr_ex_text(s->r, ","), s->c.ws), *rest, *first;
    rest = first = apr_ex_empty(s->r);
    if (m->extra) {
        uint32_t max = m->extra_max == APR_NO_LIMIT ? APR_NO_LIMIT : m->extra_max - 1;
        first = seq(s, m->extra, apr_ex_repeat(s->r, seq(s, comma, m->extra), 0, max));
        rest = apr_ex_repeat(s->r, seq(s, comma, m->extra), m->extra_min, m->extra_max);
        if (!m->extra_min) first = apr_ex_repeat(s->r, first, 0, 1);
    }
    rest = apr_sch_rule(s, rest);
    first = apr_sch_rule(s, first);
    for (size_t i = m->n; i-- > 0;) {
        const struct apr_expr *here = seq(s, m->at[i], rest);
        const struct apr_expr *next = seq(s, comma, here);
        first = apr_sch_rule(s, m->required[i] ? here : apr_ex_alt2(s->r, here, first));
        rest = apr_sch_rule(s, m->required[i] ? next : apr_ex_alt2(s->r, next, rest));
    }
    return first;
}

enum apr_code apr_sch_object(struct apr_sch *s, const json_t *schema, const struct apr_sch_path *at,
                             const struct apr_expr **x, struct apr_err *e)
{
    struct members m = {.s = s};
    const json_t *extra = json_object_get(schema, "additionalProperties");
    TRY(gather(&m, schema, at, e));
    /* Without a word about others only a schema that names nothing lets them in. */
    if (extra ? !json_is_false(extra) : !m.n_names) {
        const struct apr_sch_path in = apr_sch_key(at, "additionalProperties");
        const struct apr_expr *value;
        TRY(apr_sch_node(s, extra ? extra : json_true(), &in, &value, e));
        m.extra = apr_sch_rule(s, member(s, other_key(&m), value));
    }
    TRY(fit_counts(&m, schema, at, e));
    const struct apr_expr *open = seq(s, apr_ex_text(s->r, "{"), s->c.ws);
    const struct apr_expr *close = seq(s, s->c.ws, apr_ex_text(s->r, "}"));
    *x = apr_sch_rule(s, seq(s, open, seq(s, chain(&m), close)));
    return APR_OK;
}

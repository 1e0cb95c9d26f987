/* Names, literals, brackets, and what may follow them: members, calls, filters, tests; see parse.h. */
#include <string.h>

#include "fn.h"
#include "parse.h"

static enum apr_code parse_list(struct apr_jj_parser *p, struct apr_jj_node **out)
{
    struct apr_jj_nodes items = {0};
    struct apr_jj_node *n = NULL, *a = NULL;
    TRY(apr_jj_node_new(p, APR_JJ_N_LIST, apr_jj_tok_now(p)->line, &n));
    p->i++;
    while (!apr_jj_tok_is(p, "]")) {
        if (items.n) TRY(apr_jj_tok_expect(p, ","));
        if (apr_jj_tok_is(p, "]")) break;
        TRY(apr_jj_parse_expr(p, true, &a));
        TRY(apr_jj_node_push(p, &items, a));
    }
    p->i++;
    n->at = items.at;
    n->n = items.n;
    *out = n;
    return apr_jj_node_seal(p, n);
}

static enum apr_code parse_dict(struct apr_jj_parser *p, struct apr_jj_node **out)
{
    struct apr_jj_nodes items = {0};
    struct apr_jj_node *n = NULL, *a = NULL;
    TRY(apr_jj_node_new(p, APR_JJ_N_DICT, apr_jj_tok_now(p)->line, &n));
    p->i++;
    while (!apr_jj_tok_is(p, "}")) {
        if (items.n) TRY(apr_jj_tok_expect(p, ","));
        if (apr_jj_tok_is(p, "}")) break;
        TRY(apr_jj_parse_expr(p, true, &a));
        TRY(apr_jj_node_push(p, &items, a));
        TRY(apr_jj_tok_expect(p, ":"));
        TRY(apr_jj_parse_expr(p, true, &a));
        TRY(apr_jj_node_push(p, &items, a));
    }
    p->i++;
    n->at = items.at;
    n->n = items.n;
    *out = n;
    return apr_jj_node_seal(p, n);
}

/* true, none ... are constants, not names. */
static bool const_name(const struct apr_jj_str *name, struct apr_jj_val *v)
{
    if (apr_jj_str_eq(name, "true") || apr_jj_str_eq(name, "True"))
        *v = apr_jj_bool(true);
    else if (apr_jj_str_eq(name, "false") || apr_jj_str_eq(name, "False"))
        *v = apr_jj_bool(false);
    else if (apr_jj_str_eq(name, "none") || apr_jj_str_eq(name, "None"))
        *v = apr_jj_none();
    else
        return false;
    return true;
}

static enum apr_code parse_name(struct apr_jj_parser *p, bool with_ns, struct apr_jj_node **out)
{
    struct apr_jj_node *n = NULL;
    const struct apr_jj_str *attr = NULL;
    TRY(apr_jj_node_new(p, APR_JJ_N_NAME, apr_jj_tok_now(p)->line, &n));
    TRY(apr_jj_tok_take_name(p, &n->name));
    *out = n;
    if (const_name(n->name, &n->v)) {
        n->type = APR_JJ_N_CONST;
    } else if (with_ns && apr_jj_tok_skip(p, ".")) {
        TRY(apr_jj_tok_take_name(p, &attr));
        n->type = APR_JJ_N_NSREF;
        n->v = apr_jj_of_str(attr);
    } else if (p->macro) {
        if (apr_jj_str_eq(n->name, "caller")) p->macro->uses_caller = true;
        if (apr_jj_str_eq(n->name, "varargs")) p->macro->uses_varargs = true;
        if (apr_jj_str_eq(n->name, "kwargs")) p->macro->uses_kwargs = true;
    }
    return apr_jj_node_seal(p, n);
}

static enum apr_code parse_const(struct apr_jj_parser *p, struct apr_jj_node **out)
{
    struct apr_jj_node *n = NULL;
    TRY(apr_jj_node_new(p, APR_JJ_N_CONST, apr_jj_tok_now(p)->line, &n));
    n->v = apr_jj_tok_now(p)->v;
    p->i++;
    while (n->v.kind == APR_JJ_STR && apr_jj_tok_now(p)->type == APR_JJ_T_CONST &&
           apr_jj_tok_now(p)->v.kind == APR_JJ_STR) { /* 'a' 'b' is 'ab' */
        TRY(apr_jj_str_concat(p->r, n->v.u.s, apr_jj_tok_now(p)->v.u.s, &n->v));
        p->i++;
    }
    *out = n;
    return apr_jj_node_seal(p, n);
}

/* ( ... ): an expression, or a tuple when there is a comma or nothing. */
static enum apr_code parse_parens(struct apr_jj_parser *p, struct apr_jj_node **out)
{
    uint32_t line = apr_jj_tok_now(p)->line;
    p->i++;
    if (apr_jj_tok_is(p, ")")) {
        TRY(apr_jj_node_new(p, APR_JJ_N_TUPLE, line, out));
        TRY(apr_jj_node_seal(p, *out));
    } else {
        TRY(apr_jj_parse_tuple(p, true, NULL, out));
    }
    return apr_jj_tok_expect(p, ")");
}

enum apr_code apr_jj_parse_primary(struct apr_jj_parser *p, bool with_ns, struct apr_jj_node **out)
{
    const struct apr_jj_tok *t = apr_jj_tok_now(p);
    if (t->type == APR_JJ_T_NAME) return parse_name(p, with_ns, out);
    if (t->type == APR_JJ_T_CONST) return parse_const(p, out);
    if (apr_jj_tok_is(p, "(")) return parse_parens(p, out);
    if (apr_jj_tok_is(p, "[")) return parse_list(p, out);
    if (apr_jj_tok_is(p, "{")) return parse_dict(p, out);
    return apr_jj_tok_unexpected(p, "an expression");
}

static bool tuple_ends(struct apr_jj_parser *p, const char *until)
{
    enum apr_jj_tok_type type = apr_jj_tok_now(p)->type;
    return type == APR_JJ_T_VAR_END || type == APR_JJ_T_BLOCK_END || apr_jj_tok_is(p, ")") ||
           (until && apr_jj_tok_name(p, until));
}

static enum apr_code parse_items(struct apr_jj_parser *p, bool target, bool flag, const char *until,
                                 struct apr_jj_node **out)
{
    struct apr_jj_nodes items = {0};
    struct apr_jj_node *a = NULL, *n = NULL;
    uint32_t line = apr_jj_tok_now(p)->line;
    bool comma = false;
    while (!tuple_ends(p, until)) {
        if (target)
            TRY(apr_jj_parse_primary(p, flag, &a));
        else
            TRY(apr_jj_parse_expr(p, flag, &a));
        TRY(apr_jj_node_push(p, &items, a));
        if (!apr_jj_tok_skip(p, ",")) break;
        comma = true;
    }
    if (!items.n) return apr_jj_tok_unexpected(p, "an expression");
    *out = items.at[0];
    if (!comma) return APR_OK;
    TRY(apr_jj_node_new(p, APR_JJ_N_TUPLE, line, &n));
    n->at = items.at;
    n->n = items.n;
    *out = n;
    return apr_jj_node_seal(p, n);
}

enum apr_code apr_jj_parse_tuple(struct apr_jj_parser *p, bool with_cond, const char *until,
                                 struct apr_jj_node **out)
{
    return parse_items(p, false, with_cond, until, out);
}

static enum apr_code check_target(struct apr_jj_parser *p, const struct apr_jj_node *n)
{
    p->r->line = n->line;
    if (n->type == APR_JJ_N_NAME || n->type == APR_JJ_N_NSREF) return APR_OK;
    if (n->type != APR_JJ_N_TUPLE) return apr_jj_fail(p->r, "cannot assign to this expression");
    for (size_t i = 0; i < n->n; i++) TRY(check_target(p, n->at[i])); /* as deep as the parser went */
    return APR_OK;
}

enum apr_code apr_jj_parse_target(struct apr_jj_parser *p, bool with_ns, const char *until,
                                  struct apr_jj_node **out)
{
    TRY(parse_items(p, true, with_ns, until, out));
    return check_target(p, *out);
}

static enum apr_code parse_call_args(struct apr_jj_parser *p, const struct apr_jj_call_args **out)
{
    struct apr_jj_call_args *args = NULL;
    struct apr_jj_nodes at = {0}, kw = {0};
    struct apr_jj_list *names = NULL;
    struct apr_jj_node *a = NULL;
    TRY(apr_jj_alloc(p->r, 1, sizeof *args, &args));
    *args = (struct apr_jj_call_args){0};
    TRY(apr_jj_list_new(p->r, 0, &names));
    TRY(apr_jj_tok_expect(p, "("));
    for (bool first = true; !apr_jj_tok_is(p, ")"); first = false) {
        if (!first) TRY(apr_jj_tok_expect(p, ","));
        if (apr_jj_tok_is(p, ")")) break;
        bool star = apr_jj_tok_skip(p, "*"), stars = !star && apr_jj_tok_skip(p, "**");
        bool named = apr_jj_tok_now(p)->type == APR_JJ_T_NAME && apr_jj_tok_next_is(p, "=");
        if (args->star_star || (args->star && !named && !stars) || (kw.n && !named && !star && !stars))
            return apr_jj_fail(p->r, "arguments in the wrong order");
        if (named) {
            const struct apr_jj_str *name = NULL;
            TRY(apr_jj_tok_take_name(p, &name));
            TRY(apr_jj_list_push(p->r, names, apr_jj_of_str(name)));
            p->i++;
        }
        TRY(apr_jj_parse_expr(p, true, &a));
        if (star)
            args->star = a;
        else if (stars)
            args->star_star = a;
        else
            TRY(apr_jj_node_push(p, named ? &kw : &at, a));
    }
    p->i++;
    args->at = at.at;
    args->n = at.n;
    args->kw = kw.at;
    args->n_kw = kw.n;
    TRY(apr_jj_alloc(p->r, kw.n + 1, sizeof(struct apr_jj_str *), &args->kw_names));
    for (size_t i = 0; i < kw.n; i++) args->kw_names[i] = names->at[i].u.s;
    *out = args;
    return APR_OK;
}

enum apr_code apr_jj_parse_call(struct apr_jj_parser *p, struct apr_jj_node **n)
{
    struct apr_jj_node *call = NULL;
    TRY(apr_jj_node_pair(p, APR_JJ_N_CALL, apr_jj_tok_now(p)->line, *n, NULL, &call));
    TRY(parse_call_args(p, &call->args));
    *n = call;
    return apr_jj_node_seal(p, call);
}

/* One index or slice between [ and ]. */
static enum apr_code parse_subscribed(struct apr_jj_parser *p, struct apr_jj_node **out)
{
    struct apr_jj_node *part[3] = {NULL, NULL, NULL}, *n = NULL;
    uint32_t line = apr_jj_tok_now(p)->line;
    if (!apr_jj_tok_is(p, ":")) TRY(apr_jj_parse_expr(p, true, &part[0]));
    *out = part[0];
    if (!apr_jj_tok_is(p, ":")) return APR_OK;
    for (int i = 1; i < 3 && apr_jj_tok_skip(p, ":"); i++)
        if (!apr_jj_tok_is(p, ":") && !apr_jj_tok_is(p, "]") && !apr_jj_tok_is(p, ","))
            TRY(apr_jj_parse_expr(p, true, &part[i]));
    TRY(apr_jj_node_new(p, APR_JJ_N_SLICE, line, &n));
    n->a = part[0];
    n->b = part[1];
    n->c = part[2];
    *out = n;
    return apr_jj_node_seal(p, n);
}

static enum apr_code parse_subscript(struct apr_jj_parser *p, struct apr_jj_node **n)
{
    struct apr_jj_node *key = NULL, *tuple = NULL;
    struct apr_jj_nodes keys = {0};
    uint32_t line = apr_jj_tok_now(p)->line;
    if (apr_jj_tok_skip(p, ".")) {
        const struct apr_jj_tok *t = apr_jj_tok_now(p);
        if (t->type == APR_JJ_T_CONST && t->v.kind == APR_JJ_INT) {
            TRY(parse_const(p, &key));
            return apr_jj_node_pair(p, APR_JJ_N_ITEM, line, *n, key, n);
        }
        TRY(apr_jj_node_pair(p, APR_JJ_N_ATTR, line, *n, NULL, n));
        return apr_jj_tok_take_name(p, &(*n)->name);
    }
    p->i++;
    while (!apr_jj_tok_is(p, "]")) {
        if (keys.n) TRY(apr_jj_tok_expect(p, ","));
        TRY(parse_subscribed(p, &key));
        TRY(apr_jj_node_push(p, &keys, key));
    }
    p->i++;
    if (keys.n == 1) return apr_jj_node_pair(p, APR_JJ_N_ITEM, line, *n, key, n);
    TRY(apr_jj_node_new(p, APR_JJ_N_TUPLE, line, &tuple));
    tuple->at = keys.at;
    tuple->n = keys.n;
    TRY(apr_jj_node_seal(p, tuple));
    return apr_jj_node_pair(p, APR_JJ_N_ITEM, line, *n, tuple, n);
}

enum apr_code apr_jj_parse_postfix(struct apr_jj_parser *p, struct apr_jj_node **n)
{
    for (;;) {
        if (apr_jj_tok_is(p, ".") || apr_jj_tok_is(p, "["))
            TRY(parse_subscript(p, n));
        else if (apr_jj_tok_is(p, "("))
            TRY(apr_jj_parse_call(p, n));
        else
            return APR_OK;
    }
}

enum apr_code apr_jj_parse_filters(struct apr_jj_parser *p, struct apr_jj_node *in, bool with_first,
                                   struct apr_jj_node **out)
{
    while (with_first || apr_jj_tok_skip(p, "|")) {
        struct apr_jj_node *n = NULL;
        with_first = false;
        TRY(apr_jj_node_new(p, APR_JJ_N_FILTER, apr_jj_tok_now(p)->line, &n));
        n->a = in;
        TRY(apr_jj_tok_take_name(p, &n->name));
        n->fn = apr_jj_find_filter(n->name);
        if (apr_jj_tok_is(p, "(")) TRY(parse_call_args(p, &n->args));
        TRY(apr_jj_node_seal(p, n));
        in = n;
    }
    *out = in;
    return APR_OK;
}

/* "x is test arg": one argument may follow without brackets. */
enum apr_code apr_jj_parse_test(struct apr_jj_parser *p, struct apr_jj_node **n)
{
    struct apr_jj_node *t = NULL;
    uint32_t line = apr_jj_tok_now(p)->line;
    p->i++;
    bool negated = apr_jj_tok_skip_name(p, "not");
    TRY(apr_jj_node_pair(p, APR_JJ_N_TEST, line, *n, NULL, &t));
    TRY(apr_jj_tok_take_name(p, &t->name));
    t->fn = apr_jj_find_test(t->name);
    enum apr_jj_tok_type type = apr_jj_tok_now(p)->type;
    bool word = type == APR_JJ_T_NAME && !apr_jj_tok_name(p, "else") && !apr_jj_tok_name(p, "or") &&
                !apr_jj_tok_name(p, "and");
    if (apr_jj_tok_is(p, "(")) {
        TRY(parse_call_args(p, &t->args));
    } else if (word || type == APR_JJ_T_CONST || apr_jj_tok_is(p, "[") || apr_jj_tok_is(p, "{")) {
        struct apr_jj_call_args *args = NULL;
        if (apr_jj_tok_name(p, "is")) return apr_jj_fail(p->r, "tests with 'is' cannot be chained");
        TRY(apr_jj_alloc(p->r, 1, sizeof *args, &args));
        *args = (struct apr_jj_call_args){.n = 1};
        TRY(apr_jj_alloc(p->r, 1, sizeof(struct apr_jj_node *), &args->at));
        TRY(apr_jj_parse_primary(p, false, &args->at[0]));
        TRY(apr_jj_parse_postfix(p, &args->at[0]));
        t->args = args;
    }
    TRY(apr_jj_node_seal(p, t));
    if (negated) TRY(apr_jj_node_pair(p, APR_JJ_N_NOT, line, t, NULL, &t));
    *n = t;
    return APR_OK;
}

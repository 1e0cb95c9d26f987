/* The worth of an expression; declared in run.h. */
#include <string.h>

#include "ast.h"
#include "attr.h"
#include "fn.h"
#include "ops.h"
#include "repr.h"

static enum apr_code eval_name(struct apr_jj_run *r, const struct apr_jj_node *n, struct apr_jj_val *out)
{
    for (const struct apr_jj_scope *s = r->scope; s; s = s->parent) {
        const struct apr_jj_val *v = apr_jj_dict_find(&s->vars, n->name->p, n->name->n);
        if (!v) continue;
        *out = *v;
        return APR_OK;
    }
    const struct apr_jj_fn *fn = apr_jj_find_global(n->name);
    if (!fn) return apr_jj_undefined(r, apr_jj_of_str(n->name), NULL, out);
    struct apr_jj_func *f = NULL;
    TRY(apr_jj_alloc(r, 1, sizeof *f, &f));
    *f = (struct apr_jj_func){.fn = fn, .self = apr_jj_none()};
    *out = (struct apr_jj_val){.kind = APR_JJ_FUNC, .u.fn = f};
    return APR_OK;
}

static enum apr_code eval_list(struct apr_jj_run *r, const struct apr_jj_node *n, struct apr_jj_val *out)
{
    struct apr_jj_list *l = NULL;
    struct apr_jj_val v;
    TRY(apr_jj_list_new(r, n->n, &l));
    for (size_t i = 0; i < n->n; i++) {
        TRY(apr_jj_eval(r, n->at[i], &v));
        TRY(apr_jj_list_push(r, l, v));
    }
    *out = apr_jj_of_list(l, n->type == APR_JJ_N_TUPLE ? APR_JJ_TUPLE : APR_JJ_PLAIN);
    return APR_OK;
}

static enum apr_code eval_dict(struct apr_jj_run *r, const struct apr_jj_node *n, struct apr_jj_val *out)
{
    struct apr_jj_dict *d = NULL;
    struct apr_jj_val key, v;
    TRY(apr_jj_dict_new(r, &d));
    for (size_t i = 0; i + 1 < n->n; i += 2) {
        TRY(apr_jj_eval(r, n->at[i], &key));
        TRY(apr_jj_eval(r, n->at[i + 1], &v));
        TRY(apr_jj_dict_set(r, d, key, v));
    }
    *out = apr_jj_of_dict(d);
    return APR_OK;
}

static enum apr_code eval_truth(struct apr_jj_run *r, const struct apr_jj_node *n, bool *yes)
{
    struct apr_jj_val v;
    TRY(apr_jj_eval(r, n, &v));
    return apr_jj_truth(r, v, yes);
}

/* and, or: the operand that decided. */
static enum apr_code eval_logic(struct apr_jj_run *r, const struct apr_jj_node *n, struct apr_jj_val *out)
{
    bool yes = false;
    TRY(apr_jj_eval(r, n->a, out));
    TRY(apr_jj_truth(r, *out, &yes));
    if (yes == (n->type == APR_JJ_N_OR)) return APR_OK;
    return apr_jj_eval(r, n->b, out);
}

static enum apr_code eval_compare(struct apr_jj_run *r, const struct apr_jj_node *n, struct apr_jj_val *out)
{
    struct apr_jj_val a, b;
    bool yes = true;
    TRY(apr_jj_eval(r, n->a, &a));
    for (size_t i = 0; yes && i < n->n; i++) {
        TRY(apr_jj_eval(r, n->at[i], &b));
        r->line = n->line;
        TRY(apr_jj_compare(r, (enum apr_jj_op)n->ops[i], a, b, &yes));
        a = b;
    }
    *out = apr_jj_bool(yes);
    return APR_OK;
}

static enum apr_code eval_concat(struct apr_jj_run *r, const struct apr_jj_node *n, struct apr_jj_val *out)
{
    struct apr_jj_val v, text;
    TRY(apr_jj_eval(r, n->at[0], &v));
    TRY(apr_jj_to_str(r, v, out));
    for (size_t i = 1; i < n->n; i++) {
        TRY(apr_jj_eval(r, n->at[i], &v));
        TRY(apr_jj_to_str(r, v, &text));
        TRY(apr_jj_str_concat(r, out->u.s, text.u.s, out));
    }
    return APR_OK;
}

static enum apr_code eval_cond(struct apr_jj_run *r, const struct apr_jj_node *n, struct apr_jj_val *out)
{
    bool yes = false;
    TRY(eval_truth(r, n->b, &yes));
    if (yes) return apr_jj_eval(r, n->a, out);
    if (n->c) return apr_jj_eval(r, n->c, out);
    struct apr_jj_val name;
    TRY(apr_jj_text(r, "the inline if without an else", &name));
    return apr_jj_undefined(r, name, NULL, out);
}

static enum apr_code eval_item(struct apr_jj_run *r, const struct apr_jj_node *n, struct apr_jj_val *out)
{
    struct apr_jj_val v, key, part[3] = {{0}, {0}, {0}};
    TRY(apr_jj_eval(r, n->a, &v));
    if (n->b->type != APR_JJ_N_SLICE) {
        TRY(apr_jj_eval(r, n->b, &key));
        r->line = n->line;
        return apr_jj_get_item(r, v, key, out);
    }
    const struct apr_jj_node *parts[3] = {n->b->a, n->b->b, n->b->c};
    for (int i = 0; i < 3; i++)
        if (parts[i]) TRY(apr_jj_eval(r, parts[i], &part[i]));
    r->line = n->line;
    return apr_jj_get_slice(r, v, part, out);
}

static enum apr_code spread_kw(struct apr_jj_run *r, struct apr_jj_val v, struct apr_jj_args *a)
{
    if (v.kind != APR_JJ_DICT)
        return apr_jj_fail(r, "argument after ** must be a mapping, not %s", apr_jj_type_name(v));
    for (size_t i = 0; i < v.u.d->n; i++) {
        if (v.u.d->at[i].key.kind != APR_JJ_STR) return apr_jj_fail(r, "keywords must be strings");
        a->kw_names[a->n_kw] = v.u.d->at[i].key.u.s;
        a->kw[a->n_kw++] = v.u.d->at[i].v;
    }
    return APR_OK;
}

/* The arguments of a call, filter or test node, evaluated from left to right. */
enum apr_code apr_jj_eval_args(struct apr_jj_run *r, const struct apr_jj_node *n, struct apr_jj_args *a)
{
    static const struct apr_jj_call_args none = {0};
    const struct apr_jj_call_args *c = n->args ? n->args : &none;
    const struct apr_jj_list *star = NULL;
    struct apr_jj_val v, stars = {0};
    *a = (struct apr_jj_args){0};
    if (!c->n && !c->n_kw && !c->star && !c->star_star) return APR_OK;
    if (c->star) {
        TRY(apr_jj_eval(r, c->star, &v));
        TRY(apr_jj_items(r, v, &star));
    }
    if (c->star_star) TRY(apr_jj_eval(r, c->star_star, &stars));
    size_t n_kw = c->n_kw + (stars.kind == APR_JJ_DICT ? stars.u.d->n : 0);
    TRY(apr_jj_alloc(r, c->n + (star ? star->n : 0) + 1, sizeof *a->at, &a->at));
    TRY(apr_jj_alloc(r, n_kw + 1, sizeof *a->kw, &a->kw));
    TRY(apr_jj_alloc(r, n_kw + 1, sizeof(struct apr_jj_str *), &a->kw_names));
    for (size_t i = 0; i < c->n; i++) {
        TRY(apr_jj_eval(r, c->at[i], &v));
        a->at[a->n++] = v;
    }
    for (size_t i = 0; star && i < star->n; i++) a->at[a->n++] = star->at[i];
    for (size_t i = 0; i < c->n_kw; i++) {
        TRY(apr_jj_eval(r, c->kw[i], &v));
        a->kw_names[a->n_kw] = c->kw_names[i];
        a->kw[a->n_kw++] = v;
    }
    return c->star_star ? spread_kw(r, stars, a) : APR_OK;
}

static enum apr_code eval_call(struct apr_jj_run *r, const struct apr_jj_node *n, struct apr_jj_val *out)
{
    struct apr_jj_val f;
    struct apr_jj_args a;
    TRY(apr_jj_eval(r, n->a, &f));
    TRY(apr_jj_eval_args(r, n, &a));
    r->line = n->line;
    return apr_jj_call(r, f, &a, out);
}

/* kind: "filter" or "test" */
static enum apr_code eval_piped(struct apr_jj_run *r, const struct apr_jj_node *n, const char *kind,
                                struct apr_jj_val *out)
{
    struct apr_jj_val self;
    struct apr_jj_args a;
    TRY(apr_jj_eval(r, n->a, &self));
    TRY(apr_jj_eval_args(r, n, &a));
    r->line = n->line;
    if (!n->fn)
        return apr_jj_fail(r, "no %s named '%.*s'", kind, (int)(n->name->n > 100 ? 100 : n->name->n),
                           n->name->p);
    return apr_jj_call_fn(r, n->fn, self, &a, out);
}

static enum apr_code eval_operator(struct apr_jj_run *r, const struct apr_jj_node *n, struct apr_jj_val *out)
{
    struct apr_jj_val a, b;
    bool yes = false;
    if (n->type == APR_JJ_N_NOT) {
        TRY(eval_truth(r, n->a, &yes));
        *out = apr_jj_bool(!yes);
        return APR_OK;
    }
    TRY(apr_jj_eval(r, n->a, &a));
    if (n->type == APR_JJ_N_UNARY) {
        r->line = n->line;
        return apr_jj_negate(r, a, n->op == '-', out);
    }
    TRY(apr_jj_eval(r, n->b, &b));
    r->line = n->line;
    return apr_jj_binary(r, (enum apr_jj_op)n->op, a, b, out);
}

static enum apr_code eval_node(struct apr_jj_run *r, const struct apr_jj_node *n, struct apr_jj_val *out)
{
    switch ((enum apr_jj_type)n->type) {
    case APR_JJ_N_CONST:
        *out = n->v;
        return APR_OK;
    case APR_JJ_N_NAME:
        return eval_name(r, n, out);
    case APR_JJ_N_LIST:
    case APR_JJ_N_TUPLE:
        return eval_list(r, n, out);
    case APR_JJ_N_DICT:
        return eval_dict(r, n, out);
    case APR_JJ_N_UNARY:
    case APR_JJ_N_NOT:
    case APR_JJ_N_BINARY:
        return eval_operator(r, n, out);
    case APR_JJ_N_AND:
    case APR_JJ_N_OR:
        return eval_logic(r, n, out);
    case APR_JJ_N_COMPARE:
        return eval_compare(r, n, out);
    case APR_JJ_N_CONCAT:
        return eval_concat(r, n, out);
    case APR_JJ_N_COND:
        return eval_cond(r, n, out);
    case APR_JJ_N_ATTR: {
        struct apr_jj_val v;
        TRY(apr_jj_eval(r, n->a, &v));
        r->line = n->line;
        return apr_jj_get_attr(r, v, n->name, out);
    }
    case APR_JJ_N_ITEM:
        return eval_item(r, n, out);
    case APR_JJ_N_CALL:
        return eval_call(r, n, out);
    case APR_JJ_N_FILTER:
        return eval_piped(r, n, "filter", out);
    case APR_JJ_N_TEST:
        return eval_piped(r, n, "test", out);
    case APR_JJ_N_SLICE:
        return apr_jj_fail(r, "a tuple of slices is not an index");
    case APR_JJ_N_NSREF:
    case APR_JJ_N_TEXT:
    case APR_JJ_N_OUTPUT:
    case APR_JJ_N_IF:
    case APR_JJ_N_FOR:
    case APR_JJ_N_SET:
    case APR_JJ_N_SETBLOCK:
    case APR_JJ_N_MACRO:
    case APR_JJ_N_CALLBLOCK:
    case APR_JJ_N_FILTERBLOCK:
    case APR_JJ_N_WITH:
    case APR_JJ_N_SCOPE:
    case APR_JJ_N_BODY:
    case APR_JJ_N_BREAK:
    case APR_JJ_N_CONTINUE:
        break;
    }
    return apr_jj_fail(r, "a statement is not an expression");
}

enum apr_code apr_jj_eval(struct apr_jj_run *r, const struct apr_jj_node *n, struct apr_jj_val *out)
{
    TRY(apr_jj_enter(r));
    TRY(eval_node(r, n, out));
    r->depth--;
    return APR_OK;
}

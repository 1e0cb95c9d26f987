/* Statements: what they print goes to the run's current output; declared in run.h. */
#include <string.h>

#include "ast.h"
#include "fn.h"
#include "ops.h"
#include "repr.h"

static enum apr_code exec(struct apr_jj_run *r, const struct apr_jj_node *n);

enum apr_code apr_jj_scope_push(struct apr_jj_run *r, struct apr_jj_scope *parent)
{
    struct apr_jj_scope *s = NULL;
    TRY(apr_jj_alloc(r, 1, sizeof *s, &s));
    *s = (struct apr_jj_scope){.parent = parent};
    r->scope = s;
    return APR_OK;
}

static enum apr_code assign_ns(struct apr_jj_run *r, const struct apr_jj_node *target, struct apr_jj_val v)
{
    const struct apr_jj_val *ns = NULL;
    for (const struct apr_jj_scope *s = r->scope; s && !ns; s = s->parent)
        ns = apr_jj_dict_find(&s->vars, target->name->p, target->name->n);
    if (!ns || ns->kind != APR_JJ_NS)
        return apr_jj_fail(r, "cannot assign attribute on non-namespace object");
    return apr_jj_dict_set(r, ns->u.d, target->v, v);
}

enum apr_code apr_jj_assign(struct apr_jj_run *r, const struct apr_jj_node *target, struct apr_jj_val v)
{
    const struct apr_jj_list *items = NULL;
    r->line = target->line;
    if (target->type == APR_JJ_N_NSREF) return assign_ns(r, target, v);
    if (target->type == APR_JJ_N_NAME)
        return apr_jj_dict_set(r, &r->scope->vars, apr_jj_of_str(target->name), v);
    TRY(apr_jj_items(r, v, &items));
    if (items->n != target->n)
        return apr_jj_fail(r, "cannot unpack %zu values into %zu names", items->n, target->n);
    for (size_t i = 0; i < target->n; i++) TRY(apr_jj_assign(r, target->at[i], items->at[i]));
    return APR_OK;
}

enum apr_code apr_jj_exec_body(struct apr_jj_run *r, const struct apr_jj_node *body)
{
    for (size_t i = 0; i < body->n && r->flow == APR_JJ_FLOW_NONE; i++) TRY(exec(r, body->at[i]));
    return APR_OK;
}

static enum apr_code exec_if(struct apr_jj_run *r, const struct apr_jj_node *n)
{
    for (size_t i = 0; i + 1 < n->n; i += 2) {
        struct apr_jj_val v;
        bool yes = false;
        TRY(apr_jj_charge(r, 1));
        TRY(apr_jj_eval(r, n->at[i], &v));
        TRY(apr_jj_truth(r, v, &yes));
        if (yes) return apr_jj_exec_body(r, n->at[i + 1]);
    }
    return n->c ? apr_jj_exec_body(r, n->c) : APR_OK;
}

/* for x in items if test: the items that pass, tested with x set. */
static enum apr_code keep_items(struct apr_jj_run *r, const struct apr_jj_node *n,
                                const struct apr_jj_list **items)
{
    struct apr_jj_scope *outer = r->scope;
    struct apr_jj_list *kept = NULL;
    TRY(apr_jj_list_new(r, 0, &kept));
    TRY(apr_jj_scope_push(r, outer));
    for (size_t i = 0; i < (*items)->n; i++) {
        struct apr_jj_val v;
        bool yes = false;
        TRY(apr_jj_assign(r, n->a, (*items)->at[i]));
        TRY(apr_jj_eval(r, n->test, &v));
        TRY(apr_jj_truth(r, v, &yes));
        if (yes) TRY(apr_jj_list_push(r, kept, (*items)->at[i]));
    }
    r->scope = outer;
    *items = kept;
    return APR_OK;
}

enum apr_code apr_jj_exec_for(struct apr_jj_run *r, const struct apr_jj_node *n, struct apr_jj_val iterable,
                              uint32_t depth0)
{
    struct apr_jj_scope *outer = r->scope;
    const struct apr_jj_list *items = NULL;
    struct apr_jj_loop *loop = NULL;
    struct apr_jj_val name;
    TRY(apr_jj_items(r, iterable, &items));
    if (n->test) TRY(keep_items(r, n, &items));
    if (!items->n) return n->d ? apr_jj_exec_body(r, n->d) : APR_OK;
    TRY(apr_jj_alloc(r, 1, sizeof *loop, &loop));
    *loop = (struct apr_jj_loop){.node = n, .scope = outer, .items = items, .depth0 = depth0};
    TRY(apr_jj_text(r, "loop", &name));
    for (; loop->i < items->n; loop->i++) {
        TRY(apr_jj_scope_push(r, outer));
        TRY(apr_jj_dict_set(r, &r->scope->vars, name,
                            (struct apr_jj_val){.kind = APR_JJ_LOOP, .u.loop = loop}));
        TRY(apr_jj_assign(r, n->a, items->at[loop->i]));
        TRY(apr_jj_exec_body(r, n->c));
        enum apr_jj_flow flow = r->flow;
        r->flow = APR_JJ_FLOW_NONE;
        if (flow == APR_JJ_FLOW_BREAK) break;
    }
    r->scope = outer;
    return APR_OK;
}

/* Runs a body in a scope of its own; what it prints becomes *text. */
static enum apr_code capture(struct apr_jj_run *r, const struct apr_jj_node *body, struct apr_jj_val *text)
{
    struct apr_jj_scope *outer = r->scope;
    struct apr_jj_sb *sink = r->out, *sb = NULL;
    TRY(apr_jj_sb_new(r, &sb));
    TRY(apr_jj_scope_push(r, outer));
    r->out = sb;
    TRY(apr_jj_exec_body(r, body));
    r->out = sink;
    r->scope = outer;
    return apr_jj_sb_done(sb, text);
}

/* Applies a chain of filters whose innermost input is text. */
static enum apr_code apply_chain(struct apr_jj_run *r, const struct apr_jj_node *chain,
                                 struct apr_jj_val text, struct apr_jj_val *out)
{
    struct apr_jj_args a;
    if (!chain) {
        *out = text;
        return APR_OK;
    }
    TRY(apr_jj_enter(r));
    TRY(apply_chain(r, chain->a, text, &text));
    r->depth--;
    TRY(apr_jj_eval_args(r, chain, &a));
    r->line = chain->line;
    if (!chain->fn)
        return apr_jj_fail(r, "no filter named '%.*s'", (int)(chain->name->n > 100 ? 100 : chain->name->n),
                           chain->name->p);
    return apr_jj_call_fn(r, chain->fn, text, &a, out);
}

static enum apr_code exec_captured(struct apr_jj_run *r, const struct apr_jj_node *n)
{
    struct apr_jj_val text;
    TRY(capture(r, n->c, &text));
    TRY(apply_chain(r, n->b, text, &text));
    if (n->type == APR_JJ_N_SETBLOCK) return apr_jj_assign(r, n->a, text);
    return apr_jj_put_str(r->out, text);
}

static enum apr_code make_macro(struct apr_jj_run *r, const struct apr_jj_node *n, struct apr_jj_val *out)
{
    struct apr_jj_macro *m = NULL;
    TRY(apr_jj_alloc(r, 1, sizeof *m, &m));
    *m = (struct apr_jj_macro){.node = n, .scope = r->scope};
    *out = (struct apr_jj_val){.kind = APR_JJ_MACRO, .u.m = m};
    return APR_OK;
}

/* {% call f(args) %}body{% endcall %}: the body is passed as the keyword argument caller. */
static enum apr_code exec_call_block(struct apr_jj_run *r, const struct apr_jj_node *n)
{
    struct apr_jj_val f, caller, text;
    struct apr_jj_args a;
    TRY(make_macro(r, n->b, &caller));
    TRY(apr_jj_eval(r, n->a->a, &f));
    TRY(apr_jj_eval_args(r, n->a, &a));
    const struct apr_jj_str **names = NULL;
    struct apr_jj_val *kw = NULL;
    TRY(apr_jj_alloc(r, a.n_kw + 1, sizeof(struct apr_jj_str *), &names));
    TRY(apr_jj_alloc(r, a.n_kw + 1, sizeof *kw, &kw));
    for (size_t i = 0; i < a.n_kw; i++) {
        names[i] = a.kw_names[i];
        kw[i] = a.kw[i];
    }
    names[a.n_kw] = n->b->name;
    kw[a.n_kw] = caller;
    a.kw_names = names;
    a.kw = kw;
    a.n_kw++;
    r->line = n->line;
    TRY(apr_jj_call(r, f, &a, &text));
    return apr_jj_put_str(r->out, text);
}

/* The values are evaluated outside, then set together. */
static enum apr_code exec_with(struct apr_jj_run *r, const struct apr_jj_node *n)
{
    struct apr_jj_scope *outer = r->scope;
    struct apr_jj_val *values = NULL;
    TRY(apr_jj_alloc(r, n->n / 2 + 1, sizeof *values, &values));
    for (size_t i = 0; i + 1 < n->n; i += 2) TRY(apr_jj_eval(r, n->at[i + 1], &values[i / 2]));
    TRY(apr_jj_scope_push(r, outer));
    for (size_t i = 0; i + 1 < n->n; i += 2) TRY(apr_jj_assign(r, n->at[i], values[i / 2]));
    TRY(apr_jj_exec_body(r, n->c));
    r->scope = outer;
    return APR_OK;
}

static enum apr_code exec_node(struct apr_jj_run *r, const struct apr_jj_node *n)
{
    struct apr_jj_val v;
    switch ((enum apr_jj_type)n->type) {
    case APR_JJ_N_TEXT:
        return apr_jj_sb_str(r->out, n->v.u.s);
    case APR_JJ_N_OUTPUT:
        TRY(apr_jj_eval(r, n->a, &v));
        return apr_jj_put_str(r->out, v);
    case APR_JJ_N_IF:
        return exec_if(r, n);
    case APR_JJ_N_FOR:
        TRY(apr_jj_eval(r, n->b, &v));
        return apr_jj_exec_for(r, n, v, 0);
    case APR_JJ_N_SET:
        TRY(apr_jj_eval(r, n->b, &v));
        return apr_jj_assign(r, n->a, v);
    case APR_JJ_N_SETBLOCK:
    case APR_JJ_N_FILTERBLOCK:
        return exec_captured(r, n);
    case APR_JJ_N_MACRO:
        TRY(make_macro(r, n, &v));
        return apr_jj_dict_set(r, &r->scope->vars, apr_jj_of_str(n->name), v);
    case APR_JJ_N_CALLBLOCK:
        return exec_call_block(r, n);
    case APR_JJ_N_WITH:
        return exec_with(r, n);
    case APR_JJ_N_SCOPE: {
        struct apr_jj_scope *outer = r->scope;
        TRY(apr_jj_scope_push(r, outer));
        TRY(apr_jj_exec_body(r, n->c));
        r->scope = outer;
        return APR_OK;
    }
    case APR_JJ_N_BODY:
        return apr_jj_exec_body(r, n);
    case APR_JJ_N_BREAK:
        r->flow = APR_JJ_FLOW_BREAK;
        return APR_OK;
    case APR_JJ_N_CONTINUE:
        r->flow = APR_JJ_FLOW_CONTINUE;
        return APR_OK;
    case APR_JJ_N_CONST:
    case APR_JJ_N_NAME:
    case APR_JJ_N_LIST:
    case APR_JJ_N_TUPLE:
    case APR_JJ_N_DICT:
    case APR_JJ_N_UNARY:
    case APR_JJ_N_BINARY:
    case APR_JJ_N_NOT:
    case APR_JJ_N_AND:
    case APR_JJ_N_OR:
    case APR_JJ_N_COMPARE:
    case APR_JJ_N_CONCAT:
    case APR_JJ_N_COND:
    case APR_JJ_N_ATTR:
    case APR_JJ_N_ITEM:
    case APR_JJ_N_SLICE:
    case APR_JJ_N_CALL:
    case APR_JJ_N_FILTER:
    case APR_JJ_N_TEST:
    case APR_JJ_N_NSREF:
        break;
    }
    return apr_jj_fail(r, "an expression is not a statement");
}

static enum apr_code exec(struct apr_jj_run *r, const struct apr_jj_node *n)
{
    TRY(apr_jj_enter(r));
    r->line = n->line;
    TRY(exec_node(r, n));
    r->depth--;
    return APR_OK;
}

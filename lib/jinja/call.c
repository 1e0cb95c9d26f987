/* Calls: functions by their row's parameters, macros by their signature; declared in run.h and fn.h. */
#include <string.h>

#include "ast.h"
#include "fn.h"
#include "ops.h"

#define MAX_PARAMS 8u

/* Place of name in the comma-separated params, or -1. */
static int param_place(const char *params, const struct apr_jj_str *name)
{
    int place = 0;
    for (const char *p = params; *p; place++) {
        size_t n = strcspn(p, ",");
        if (n == name->n && memcmp(p, name->p, n) == 0) return place;
        p += n + (p[n] == ',');
    }
    return -1;
}

static size_t n_params(const char *params)
{
    size_t n = *params != 0;
    for (; *params; params++) n += *params == ',';
    return n;
}

enum apr_code apr_jj_call_fn(struct apr_jj_run *r, const struct apr_jj_fn *fn, struct apr_jj_val self,
                             const struct apr_jj_args *a, struct apr_jj_val *out)
{
    struct apr_jj_val at[MAX_PARAMS + 1] = {{0}};
    struct apr_jj_args bound = {.at = at, .n = n_params(fn->params)};
    TRY(apr_jj_charge(r, 1));
    if (strcmp(fn->params, "*") == 0) {
        if (a->n + a->n_kw < fn->n_required) return apr_jj_fail(r, "%s() lacks an argument", fn->name);
        return fn->call(r, self, a, out);
    }
    if (a->n > bound.n)
        return apr_jj_fail(r, "%s() takes at most %zu arguments, found %zu", fn->name, bound.n, a->n);
    for (size_t i = 0; i < a->n; i++) at[i] = a->at[i];
    for (size_t i = 0; i < a->n_kw; i++) {
        int place = param_place(fn->params, a->kw_names[i]);
        int n = (int)(a->kw_names[i]->n > 60 ? 60 : a->kw_names[i]->n);
        if (place < 0) return apr_jj_fail(r, "%s() has no argument '%.*s'", fn->name, n, a->kw_names[i]->p);
        if (at[place].kind != APR_JJ_ABSENT)
            return apr_jj_fail(r, "%s() got argument '%.*s' twice", fn->name, n, a->kw_names[i]->p);
        at[place] = a->kw[i];
    }
    for (size_t i = 0; i < fn->n_required; i++)
        if (at[i].kind == APR_JJ_ABSENT) return apr_jj_fail(r, "%s() lacks an argument", fn->name);
    return fn->call(r, self, &bound, out);
}

static enum apr_code set_var(struct apr_jj_run *r, const char *name, struct apr_jj_val v)
{
    struct apr_jj_val key;
    TRY(apr_jj_text(r, name, &key));
    return apr_jj_dict_set(r, &r->scope->vars, key, v);
}

/* Keyword arguments: to parameters, to caller, or to kwargs. given[i] is set for parameters that got one. */
static enum apr_code bind_kw(struct apr_jj_run *r, const struct apr_jj_node *n, const struct apr_jj_args *a,
                             bool *given, struct apr_jj_dict *rest)
{
    for (size_t i = 0; i < a->n_kw; i++) {
        const struct apr_jj_str *name = a->kw_names[i];
        size_t k = 0;
        while (k < n->n && (n->at[k]->name->n != name->n || memcmp(n->at[k]->name->p, name->p, name->n) != 0))
            k++;
        int n_name = (int)(name->n > 60 ? 60 : name->n);
        if (k < n->n && given[k]) return apr_jj_fail(r, "macro got argument '%.*s' twice", n_name, name->p);
        if (k < n->n || (n->uses_caller && apr_jj_str_eq(name, "caller"))) {
            if (k < n->n) given[k] = true;
            TRY(apr_jj_dict_set(r, &r->scope->vars, apr_jj_of_str(name), a->kw[i]));
        } else if (n->uses_kwargs) {
            TRY(apr_jj_dict_set(r, rest, apr_jj_of_str(name), a->kw[i]));
        } else {
            return apr_jj_fail(r, "macro takes no keyword argument '%.*s'", n_name, name->p);
        }
    }
    return APR_OK;
}

/* The parameters as variables of the current scope, which is the macro's own. */
static enum apr_code bind_macro(struct apr_jj_run *r, const struct apr_jj_node *n,
                                const struct apr_jj_args *a)
{
    struct apr_jj_list *more = NULL;
    struct apr_jj_dict *rest = NULL;
    struct apr_jj_val v;
    bool *given = NULL;
    TRY(apr_jj_alloc(r, n->n + 1, sizeof *given, &given));
    memset(given, 0, n->n + 1);
    TRY(apr_jj_list_new(r, 0, &more));
    TRY(apr_jj_dict_new(r, &rest));
    for (size_t i = 0; i < a->n; i++) {
        if (i < n->n) {
            given[i] = true;
            TRY(apr_jj_dict_set(r, &r->scope->vars, apr_jj_of_str(n->at[i]->name), a->at[i]));
        } else if (n->uses_varargs) {
            TRY(apr_jj_list_push(r, more, a->at[i]));
        } else {
            return apr_jj_fail(r, "macro takes not more than %zu arguments", n->n);
        }
    }
    TRY(bind_kw(r, n, a, given, rest));
    if (n->uses_varargs) TRY(set_var(r, "varargs", apr_jj_of_list(more, APR_JJ_TUPLE)));
    if (n->uses_kwargs) TRY(set_var(r, "kwargs", apr_jj_of_dict(rest)));
    for (size_t i = 0; i < n->n; i++) { /* defaults may use the parameters before them */
        if (given[i]) continue;
        if (i < n->n_required)
            TRY(apr_jj_undefined(r, apr_jj_of_str(n->at[i]->name), NULL, &v));
        else
            TRY(apr_jj_eval(r, n->def[i - n->n_required], &v));
        TRY(apr_jj_dict_set(r, &r->scope->vars, apr_jj_of_str(n->at[i]->name), v));
    }
    return APR_OK;
}

static enum apr_code call_macro(struct apr_jj_run *r, const struct apr_jj_macro *m,
                                const struct apr_jj_args *a, struct apr_jj_val *out)
{
    struct apr_jj_scope *outer = r->scope;
    struct apr_jj_sb *sink = r->out, *text = NULL;
    if (++r->macro_depth > r->max_macro_depth)
        return apr_jj_fail(r, "macros nested too deeply (%u calls)", r->max_macro_depth);
    TRY(apr_jj_scope_push(r, m->scope));
    TRY(bind_macro(r, m->node, a));
    TRY(apr_jj_sb_new(r, &text));
    r->out = text;
    TRY(apr_jj_exec_body(r, m->node->c));
    r->out = sink;
    r->scope = outer;
    r->macro_depth--;
    return apr_jj_sb_done(text, out);
}

/* loop(items): the recursive loop's body over items, as text. */
static enum apr_code call_loop(struct apr_jj_run *r, struct apr_jj_loop *l, const struct apr_jj_args *a,
                               struct apr_jj_val *out)
{
    struct apr_jj_scope *outer = r->scope;
    struct apr_jj_sb *sink = r->out, *text = NULL;
    if (!l->node->recursive) return apr_jj_fail(r, "the loop is not marked recursive");
    if (a->n != 1 || a->n_kw) return apr_jj_fail(r, "loop() takes one argument");
    if (++r->macro_depth > r->max_macro_depth)
        return apr_jj_fail(r, "loops nested too deeply (%u calls)", r->max_macro_depth);
    TRY(apr_jj_sb_new(r, &text));
    r->out = text;
    r->scope = l->scope;
    TRY(apr_jj_exec_for(r, l->node, a->at[0], l->depth0 + 1));
    r->out = sink;
    r->scope = outer;
    r->macro_depth--;
    return apr_jj_sb_done(text, out);
}

enum apr_code apr_jj_call(struct apr_jj_run *r, struct apr_jj_val f, const struct apr_jj_args *a,
                          struct apr_jj_val *out)
{
    TRY(apr_jj_enter(r));
    if (f.kind == APR_JJ_FUNC)
        TRY(apr_jj_call_fn(r, f.u.fn->fn, f.u.fn->self, a, out));
    else if (f.kind == APR_JJ_MACRO)
        TRY(call_macro(r, f.u.m, a, out));
    else if (f.kind == APR_JJ_LOOP)
        TRY(call_loop(r, f.u.loop, a, out));
    else if (f.kind == APR_JJ_UNDEF)
        return apr_jj_undef_error(r, f);
    else
        return apr_jj_fail(r, "'%s' object is not callable", apr_jj_type_name(f));
    r->depth--;
    return APR_OK;
}

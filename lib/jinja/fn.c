/* See fn.h. */
#include "fn.h"

#include <string.h>

static const struct apr_jj_fn *find(const struct apr_jj_fn *rows, const struct apr_jj_str *name)
{
    for (; rows->name; rows++)
        if (apr_jj_str_eq(name, rows->name)) return rows;
    return NULL;
}

const struct apr_jj_fn *apr_jj_find_filter(const struct apr_jj_str *name)
{
    const struct apr_jj_fn *const tables[] = {apr_jj_filters_text, apr_jj_filters_value, apr_jj_filters_seq,
                                              apr_jj_filters_pick};
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        const struct apr_jj_fn *fn = find(tables[i], name);
        if (fn) return fn;
    }
    return NULL;
}

const struct apr_jj_fn *apr_jj_find_test(const struct apr_jj_str *name)
{
    return find(apr_jj_tests, name);
}

const struct apr_jj_fn *apr_jj_find_global(const struct apr_jj_str *name)
{
    return find(apr_jj_globals, name);
}

const struct apr_jj_fn *apr_jj_find_method(struct apr_jj_val v, const struct apr_jj_str *name)
{
    const struct apr_jj_fn *fn = NULL;
    if (v.kind == APR_JJ_STR) {
        fn = find(apr_jj_str_methods, name);
        return fn ? fn : find(apr_jj_str_asks, name);
    }
    if (v.kind == APR_JJ_DICT) return find(apr_jj_dict_methods, name);
    if (v.kind == APR_JJ_LIST && v.seq <= APR_JJ_TUPLE) return find(apr_jj_list_methods, name);
    if (v.kind == APR_JJ_LOOP) return find(apr_jj_loop_methods, name);
    return NULL;
}

bool apr_jj_method_unsafe(struct apr_jj_val v, const struct apr_jj_str *name)
{
    static const char *const list[] = {"append", "clear",   "extend", "insert", "pop",
                                       "remove", "reverse", "sort",   NULL};
    static const char *const dict[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};
    const char *const *names = v.kind == APR_JJ_DICT ? dict : list;
    if (name->n > 2 && name->p[0] == '_' && name->p[1] == '_') return true;
    if (v.kind != APR_JJ_DICT && !(v.kind == APR_JJ_LIST && v.seq == APR_JJ_PLAIN)) return false;
    for (; *names; names++)
        if (apr_jj_str_eq(name, *names)) return true;
    return false;
}

enum apr_code apr_jj_arg_int(struct apr_jj_run *r, struct apr_jj_val arg, const char *what, int64_t *v)
{
    if (arg.kind == APR_JJ_ABSENT) return APR_OK;
    if (arg.kind == APR_JJ_UNDEF) return apr_jj_undef_error(r, arg);
    if (arg.kind == APR_JJ_INT)
        *v = arg.u.i;
    else if (arg.kind == APR_JJ_BOOL)
        *v = arg.u.b;
    else
        return apr_jj_fail(r, "%s: expected an integer, found %s", what, apr_jj_type_name(arg));
    return APR_OK;
}

enum apr_code apr_jj_arg_str(struct apr_jj_run *r, struct apr_jj_val arg, const char *what,
                             const struct apr_jj_str **v)
{
    if (arg.kind == APR_JJ_ABSENT) return APR_OK;
    if (arg.kind == APR_JJ_UNDEF) return apr_jj_undef_error(r, arg);
    if (arg.kind != APR_JJ_STR)
        return apr_jj_fail(r, "%s: expected a string, found %s", what, apr_jj_type_name(arg));
    *v = arg.u.s;
    return APR_OK;
}

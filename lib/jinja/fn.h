/* The functions, methods, filters and tests that templates can use: tables of rows, found by name.
 *
 * A filter or test gets the piped value as self, a method its object, a global function nothing.
 *
 *     const struct apr_jj_fn *fn = apr_jj_find_filter(name);   NULL: no such filter
 */
#ifndef APR_JINJA_FN_H
#define APR_JINJA_FN_H

#include "run.h"

/* Tables end with a row whose name is NULL. */
extern const struct apr_jj_fn apr_jj_filters_text[];  /* filters_text.c */
extern const struct apr_jj_fn apr_jj_filters_value[]; /* filters_value.c */
extern const struct apr_jj_fn apr_jj_filters_seq[];   /* filters_seq.c */
extern const struct apr_jj_fn apr_jj_filters_pick[];  /* filters_pick.c */
extern const struct apr_jj_fn apr_jj_tests[];         /* tests.c */
extern const struct apr_jj_fn apr_jj_str_methods[];   /* methods_str.c */
extern const struct apr_jj_fn apr_jj_str_asks[];      /* methods_case.c */
extern const struct apr_jj_fn apr_jj_dict_methods[];  /* methods.c */
extern const struct apr_jj_fn apr_jj_list_methods[];  /* methods.c */
extern const struct apr_jj_fn apr_jj_loop_methods[];  /* methods.c */
extern const struct apr_jj_fn apr_jj_globals[];       /* globals.c */

const struct apr_jj_fn *apr_jj_find_filter(const struct apr_jj_str *name);
const struct apr_jj_fn *apr_jj_find_test(const struct apr_jj_str *name);
const struct apr_jj_fn *apr_jj_find_global(const struct apr_jj_str *name);
/* A method of v, or NULL. */
const struct apr_jj_fn *apr_jj_find_method(struct apr_jj_val v, const struct apr_jj_str *name);
/* True for methods that change their object, which templates must not. */
bool apr_jj_method_unsafe(struct apr_jj_val v, const struct apr_jj_str *name);

/* Arguments of a row's params, with their types checked. ABSENT leaves *v untouched. */
APR_MUST_USE enum apr_code apr_jj_arg_int(struct apr_jj_run *r, struct apr_jj_val arg, const char *what,
                                          int64_t *v);

APR_MUST_USE enum apr_code apr_jj_arg_str(struct apr_jj_run *r, struct apr_jj_val arg, const char *what,
                                          const struct apr_jj_str **v);

#endif

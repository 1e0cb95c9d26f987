/* One rendering: its limits, scopes and output. Shared by the files of the evaluator, used by no one else.
 *
 * The evaluator recurses over the tree; every level passes apr_jj_enter, so that neither the template nor
 * the context decides how deep the stack grows.
 */
#ifndef APR_JINJA_RUN_H
#define APR_JINJA_RUN_H

#include "str.h"
#include "val.h"

struct apr_jj_node;

struct apr_jj_scope {
    struct apr_jj_dict vars;
    struct apr_jj_scope *parent;
};

enum apr_jj_flow { APR_JJ_FLOW_NONE, APR_JJ_FLOW_BREAK, APR_JJ_FLOW_CONTINUE };

struct apr_jj_run {
    struct apr_arena *arena; /* borrowed */
    char *chunk;             /* small allocations are cut from here */
    size_t n_chunk_left;
    struct apr_err *e;
    uint64_t n_steps_left;
    uint32_t depth, max_depth;             /* nested evaluation */
    uint32_t macro_depth, max_macro_depth; /* nested macro calls */
    size_t max_str_bytes;
    uint32_t line; /* of the template, for messages */
    int64_t now_s; /* INT64_MIN: the clock */
    struct apr_jj_scope *scope;
    struct apr_jj_sb *out;
    enum apr_jj_flow flow;
};

struct apr_jj_macro {
    const struct apr_jj_node *node;
    struct apr_jj_scope *scope; /* where it was defined */
};

struct apr_jj_loop {
    const struct apr_jj_node *node;
    struct apr_jj_scope *scope; /* around the loop */
    const struct apr_jj_list *items;
    size_t i;
    uint32_t depth0;
    struct apr_jj_val changed; /* arguments of the last loop.changed(); ABSENT at first */
};

struct apr_jj_args {
    struct apr_jj_val *at;
    size_t n;
    const struct apr_jj_str **kw_names;
    struct apr_jj_val *kw;
    size_t n_kw;
};

/* One function, method, filter or test that templates can use. */
struct apr_jj_fn {
    const char *name;
    const char
        *params; /* "width,first,blank": bound by place or name, ABSENT when not given; "*": as they come */
    unsigned n_required;
    enum apr_code (*call)(struct apr_jj_run *r, struct apr_jj_val self, const struct apr_jj_args *a,
                          struct apr_jj_val *out);
};

struct apr_jj_func { /* a method bound to its object */
    const struct apr_jj_fn *fn;
    struct apr_jj_val self;
};

/* Fails with "template: line N: ..."; a macro whose value is the constant code, as apr_fail. */
#define apr_jj_fail(r, ...) (apr_jj_error((r), __VA_ARGS__), APR_ECONTRACT)
void apr_jj_error(struct apr_jj_run *r, const char *format, ...) APR_PRINTF(2, 3);
/* The error that using an undefined value raises. */
APR_MUST_USE enum apr_code apr_jj_undef_error(struct apr_jj_run *r, struct apr_jj_val v);

/* eval.c */
APR_MUST_USE enum apr_code apr_jj_eval(struct apr_jj_run *r, const struct apr_jj_node *n,
                                       struct apr_jj_val *out);
APR_MUST_USE enum apr_code apr_jj_eval_args(struct apr_jj_run *r, const struct apr_jj_node *n,
                                            struct apr_jj_args *a);
/* call.c */
APR_MUST_USE enum apr_code apr_jj_call(struct apr_jj_run *r, struct apr_jj_val f, const struct apr_jj_args *a,
                                       struct apr_jj_val *out);
APR_MUST_USE enum apr_code apr_jj_call_fn(struct apr_jj_run *r, const struct apr_jj_fn *fn,
                                          struct apr_jj_val self, const struct apr_jj_args *a,
                                          struct apr_jj_val *out);
/* exec.c */
APR_MUST_USE enum apr_code apr_jj_exec_body(struct apr_jj_run *r, const struct apr_jj_node *body);
APR_MUST_USE enum apr_code apr_jj_exec_for(struct apr_jj_run *r, const struct apr_jj_node *n,
                                           struct apr_jj_val iterable, uint32_t depth0);
APR_MUST_USE enum apr_code apr_jj_assign(struct apr_jj_run *r, const struct apr_jj_node *target,
                                         struct apr_jj_val v);
APR_MUST_USE enum apr_code apr_jj_scope_push(struct apr_jj_run *r, struct apr_jj_scope *parent);

#endif

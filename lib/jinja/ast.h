/* The tree that the parser makes and the evaluator walks. Everything lives in the template's arena.
 *
 *     struct apr_jj_node { type, line, up to three children a b c, a list of children at[n], a name, a value
 * }
 */
#ifndef APR_JINJA_AST_H
#define APR_JINJA_AST_H

#include "run.h"

enum apr_jj_type {
    /* expressions */
    APR_JJ_N_CONST,   /* v */
    APR_JJ_N_NAME,    /* name */
    APR_JJ_N_LIST,    /* at[n] */
    APR_JJ_N_TUPLE,   /* at[n]; also an assignment target */
    APR_JJ_N_DICT,    /* at[n]: key, value, key, value ... */
    APR_JJ_N_UNARY,   /* op a: '-' '+' */
    APR_JJ_N_BINARY,  /* a op b: enum apr_jj_op */
    APR_JJ_N_NOT,     /* a */
    APR_JJ_N_AND,     /* a and b */
    APR_JJ_N_OR,      /* a or b */
    APR_JJ_N_COMPARE, /* a, then at[n] with ops[n] */
    APR_JJ_N_CONCAT,  /* at[n] joined by ~ */
    APR_JJ_N_COND,    /* a if b else c; c may be NULL */
    APR_JJ_N_ATTR,    /* a.name */
    APR_JJ_N_ITEM,    /* a[b] */
    APR_JJ_N_SLICE,   /* a:b:c inside an ITEM, each may be NULL */
    APR_JJ_N_CALL,    /* a(args) */
    APR_JJ_N_FILTER,  /* a|name(args); a NULL: the body of a filter or set block */
    APR_JJ_N_TEST,    /* a is name(args) */
    APR_JJ_N_NSREF,   /* name.attr as a target: v is the attribute's name */
    /* statements */
    APR_JJ_N_TEXT,        /* v */
    APR_JJ_N_OUTPUT,      /* a */
    APR_JJ_N_IF,          /* at[n]: condition, body, condition, body ...; c: else body or NULL */
    APR_JJ_N_FOR,         /* a target, b iterable, c body, d else body, test, recursive */
    APR_JJ_N_SET,         /* a = b */
    APR_JJ_N_SETBLOCK,    /* a target, c body, b filter chain or NULL */
    APR_JJ_N_MACRO,       /* name, at[n] parameters, defaults from n_required on in def[], c body */
    APR_JJ_N_CALLBLOCK,   /* a call, b the block as a macro */
    APR_JJ_N_FILTERBLOCK, /* b filter chain, c body */
    APR_JJ_N_WITH,        /* at[n]: target, value ...; c body */
    APR_JJ_N_SCOPE,       /* c body in its own scope */
    APR_JJ_N_BODY,        /* at[n] statements */
    APR_JJ_N_BREAK,
    APR_JJ_N_CONTINUE
};

enum apr_jj_op {
    APR_JJ_OP_ADD,
    APR_JJ_OP_SUB,
    APR_JJ_OP_MUL,
    APR_JJ_OP_DIV,
    APR_JJ_OP_FLOORDIV,
    APR_JJ_OP_MOD,
    APR_JJ_OP_POW,
    APR_JJ_OP_EQ,
    APR_JJ_OP_NE,
    APR_JJ_OP_LT,
    APR_JJ_OP_LE,
    APR_JJ_OP_GT,
    APR_JJ_OP_GE,
    APR_JJ_OP_IN,
    APR_JJ_OP_NOT_IN
};

struct apr_jj_call_args { /* of a call, filter or test */
    struct apr_jj_node **at;
    size_t n;
    const struct apr_jj_str **kw_names;
    struct apr_jj_node **kw;
    size_t n_kw;
    struct apr_jj_node *star, *star_star;
};

struct apr_jj_node {
    uint8_t type;   /* enum apr_jj_type */
    uint8_t op;     /* enum apr_jj_op */
    uint16_t depth; /* of an expression: levels below it */
    uint32_t line;
    struct apr_jj_node *a, *b, *c, *d;
    struct apr_jj_node **at;
    size_t n;
    const uint8_t *ops; /* [n] of COMPARE */
    const struct apr_jj_str *name;
    struct apr_jj_val v;
    const struct apr_jj_call_args *args;
    const struct apr_jj_fn *fn;                  /* of FILTER and TEST; NULL: no such name */
    struct apr_jj_node *test;                    /* of FOR */
    size_t n_required;                           /* of MACRO: parameters without a default */
    struct apr_jj_node **def;                    /* [n - n_required] */
    bool recursive;                              /* of FOR */
    bool uses_caller, uses_varargs, uses_kwargs; /* of MACRO */
};

#endif

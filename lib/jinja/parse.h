/* Tokens to the tree of ast.h: Jinja's grammar, expressions in parse_expr.c, statements in parse.c.
 *
 *     struct apr_jj_parser p = {.r = r, .toks = toks, .n_toks = n}; TRY(apr_jj_parse(&p, &body));
 */
#ifndef APR_JINJA_PARSE_H
#define APR_JINJA_PARSE_H

#include "ast.h"
#include "lex.h"

#define APR_JJ_MAX_NEST 64  /* open blocks, and brackets inside one expression */
#define APR_JJ_MAX_TREE 256 /* levels of an expression's tree, chains like a + b + c included */

struct apr_jj_parser {
    struct apr_jj_run *r;
    const struct apr_jj_tok *toks; /* ends with EOF */
    size_t n_toks, i;
    uint32_t n_nested; /* brackets */
    uint32_t n_blocks, n_loops;
    struct apr_jj_node *macro; /* innermost, or NULL */
};

struct apr_jj_nodes {
    struct apr_jj_node **at;
    size_t n, n_cap;
};

/* parse.c */
APR_MUST_USE enum apr_code apr_jj_parse(struct apr_jj_parser *p, struct apr_jj_node **body);
/* token.c: looking at tokens and making nodes */
const struct apr_jj_tok *apr_jj_tok_now(struct apr_jj_parser *p);
bool apr_jj_tok_is(struct apr_jj_parser *p, const char *op);
bool apr_jj_tok_name(struct apr_jj_parser *p, const char *name);
bool apr_jj_tok_next_is(struct apr_jj_parser *p, const char *op_or_name);
bool apr_jj_tok_skip(struct apr_jj_parser *p, const char *op);
bool apr_jj_tok_skip_name(struct apr_jj_parser *p, const char *name);
APR_MUST_USE enum apr_code apr_jj_tok_expect(struct apr_jj_parser *p, const char *op);
APR_MUST_USE enum apr_code apr_jj_tok_take_name(struct apr_jj_parser *p, const struct apr_jj_str **name);
APR_MUST_USE enum apr_code apr_jj_tok_unexpected(struct apr_jj_parser *p, const char *wanted);
APR_MUST_USE enum apr_code apr_jj_node_new(struct apr_jj_parser *p, enum apr_jj_type type, uint32_t line,
                                           struct apr_jj_node **out);
APR_MUST_USE enum apr_code apr_jj_node_push(struct apr_jj_parser *p, struct apr_jj_nodes *v,
                                            struct apr_jj_node *n);
/* Sets the depth from the children; refuses a tree that is too deep. */
APR_MUST_USE enum apr_code apr_jj_node_seal(struct apr_jj_parser *p, struct apr_jj_node *n);
/* A sealed node with up to two children. */
APR_MUST_USE enum apr_code apr_jj_node_pair(struct apr_jj_parser *p, enum apr_jj_type type, uint32_t line,
                                            struct apr_jj_node *a, struct apr_jj_node *b,
                                            struct apr_jj_node **out);

/* parse_expr.c */
APR_MUST_USE enum apr_code apr_jj_parse_expr(struct apr_jj_parser *p, bool with_cond,
                                             struct apr_jj_node **out);
/* parse_primary.c: *n is replaced by the call, member, test ... of it */
APR_MUST_USE enum apr_code apr_jj_parse_primary(struct apr_jj_parser *p, bool with_ns,
                                                struct apr_jj_node **out);
APR_MUST_USE enum apr_code apr_jj_parse_postfix(struct apr_jj_parser *p, struct apr_jj_node **n);
APR_MUST_USE enum apr_code apr_jj_parse_call(struct apr_jj_parser *p, struct apr_jj_node **n);
APR_MUST_USE enum apr_code apr_jj_parse_test(struct apr_jj_parser *p, struct apr_jj_node **n);
/* Expressions with commas between them are a tuple; until names the word that ends it ("in"), or is NULL. */
APR_MUST_USE enum apr_code apr_jj_parse_tuple(struct apr_jj_parser *p, bool with_cond, const char *until,
                                              struct apr_jj_node **out);
APR_MUST_USE enum apr_code apr_jj_parse_target(struct apr_jj_parser *p, bool with_ns, const char *until,
                                               struct apr_jj_node **out);
/* "| a | b(1)" behind in; with_first: the first filter's bar is missing ({% filter a %}). */
APR_MUST_USE enum apr_code apr_jj_parse_filters(struct apr_jj_parser *p, struct apr_jj_node *in,
                                                bool with_first, struct apr_jj_node **out);

#endif

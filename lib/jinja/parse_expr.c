/* Expressions of Jinja's grammar, loosest binding first; see parse.h. */
#include <string.h>

#include "parse.h"

static enum apr_code parse_or(struct apr_jj_parser *p, struct apr_jj_node **out);
static enum apr_code parse_unary(struct apr_jj_parser *p, bool with_filters, struct apr_jj_node **out);

static enum apr_code nest(struct apr_jj_parser *p)
{
    if (++p->n_nested > APR_JJ_MAX_NEST)
        return apr_jj_fail(p->r, "brackets nested too deeply (%d levels)", APR_JJ_MAX_NEST);
    return APR_OK;
}

enum apr_code apr_jj_parse_expr(struct apr_jj_parser *p, bool with_cond, struct apr_jj_node **out)
{
    uint32_t line = apr_jj_tok_now(p)->line;
    struct apr_jj_node *then = NULL, *test = NULL, *other = NULL, *n = NULL;
    TRY(nest(p));
    TRY(parse_or(p, &then));
    while (with_cond && apr_jj_tok_skip_name(p, "if")) {
        other = NULL;
        TRY(parse_or(p, &test));
        if (apr_jj_tok_skip_name(p, "else")) TRY(apr_jj_parse_expr(p, true, &other));
        TRY(apr_jj_node_new(p, APR_JJ_N_COND, line, &n));
        n->a = then;
        n->b = test;
        n->c = other;
        TRY(apr_jj_node_seal(p, n));
        then = n;
    }
    p->n_nested--;
    *out = then;
    return APR_OK;
}

static enum apr_code parse_compare(struct apr_jj_parser *p, struct apr_jj_node **out);

static enum apr_code parse_not(struct apr_jj_parser *p, struct apr_jj_node **out)
{
    uint32_t line = apr_jj_tok_now(p)->line;
    struct apr_jj_node *a = NULL;
    size_t n_nots = 0;
    while (apr_jj_tok_skip_name(p, "not")) n_nots++;
    TRY(parse_compare(p, &a));
    for (; n_nots; n_nots--) TRY(apr_jj_node_pair(p, APR_JJ_N_NOT, line, a, NULL, &a));
    *out = a;
    return APR_OK;
}

static enum apr_code parse_and(struct apr_jj_parser *p, struct apr_jj_node **out)
{
    struct apr_jj_node *a = NULL, *b = NULL;
    TRY(parse_not(p, &a));
    while (apr_jj_tok_skip_name(p, "and")) {
        TRY(parse_not(p, &b));
        TRY(apr_jj_node_pair(p, APR_JJ_N_AND, a->line, a, b, &a));
    }
    *out = a;
    return APR_OK;
}

static enum apr_code parse_or(struct apr_jj_parser *p, struct apr_jj_node **out)
{
    struct apr_jj_node *a = NULL, *b = NULL;
    TRY(parse_and(p, &a));
    while (apr_jj_tok_skip_name(p, "or")) {
        TRY(parse_and(p, &b));
        TRY(apr_jj_node_pair(p, APR_JJ_N_OR, a->line, a, b, &a));
    }
    *out = a;
    return APR_OK;
}

struct op_row {
    const char *text;
    enum apr_jj_op op;
};

/* The operator of rows at the current token, which is then passed; rows end with a NULL text. */
static bool take_op(struct apr_jj_parser *p, const struct op_row *rows, uint8_t *op)
{
    for (; rows->text; rows++) {
        if (!apr_jj_tok_skip(p, rows->text)) continue;
        *op = (uint8_t)rows->op;
        return true;
    }
    return false;
}

static enum apr_code parse_binary(struct apr_jj_parser *p, const struct op_row *rows,
                                  enum apr_code (*operand)(struct apr_jj_parser *, struct apr_jj_node **),
                                  struct apr_jj_node **out)
{
    struct apr_jj_node *a = NULL, *b = NULL;
    uint8_t op = 0;
    TRY(operand(p, &a));
    while (take_op(p, rows, &op)) {
        uint32_t line = apr_jj_tok_now(p)->line;
        TRY(operand(p, &b));
        TRY(apr_jj_node_pair(p, APR_JJ_N_BINARY, line, a, b, &a));
        a->op = op;
    }
    *out = a;
    return APR_OK;
}

static enum apr_code parse_with_filters(struct apr_jj_parser *p, struct apr_jj_node **out)
{
    return parse_unary(p, true, out);
}

static enum apr_code parse_pow(struct apr_jj_parser *p, struct apr_jj_node **out)
{
    static const struct op_row rows[] = {{"**", APR_JJ_OP_POW}, {NULL, 0}};
    return parse_binary(p, rows, parse_with_filters, out);
}

static enum apr_code parse_product(struct apr_jj_parser *p, struct apr_jj_node **out)
{
    static const struct op_row rows[] = {{"*", APR_JJ_OP_MUL},
                                         {"/", APR_JJ_OP_DIV},
                                         {"//", APR_JJ_OP_FLOORDIV},
                                         {"%", APR_JJ_OP_MOD},
                                         {NULL, 0}};
    return parse_binary(p, rows, parse_pow, out);
}

static enum apr_code parse_concat(struct apr_jj_parser *p, struct apr_jj_node **out)
{
    struct apr_jj_nodes parts = {0};
    struct apr_jj_node *a = NULL, *n = NULL;
    TRY(parse_product(p, &a));
    if (!apr_jj_tok_is(p, "~")) {
        *out = a;
        return APR_OK;
    }
    TRY(apr_jj_node_new(p, APR_JJ_N_CONCAT, a->line, &n));
    TRY(apr_jj_node_push(p, &parts, a));
    while (apr_jj_tok_skip(p, "~")) {
        TRY(parse_product(p, &a));
        TRY(apr_jj_node_push(p, &parts, a));
    }
    n->at = parts.at;
    n->n = parts.n;
    *out = n;
    return apr_jj_node_seal(p, n);
}

static enum apr_code parse_sum(struct apr_jj_parser *p, struct apr_jj_node **out)
{
    static const struct op_row rows[] = {{"+", APR_JJ_OP_ADD}, {"-", APR_JJ_OP_SUB}, {NULL, 0}};
    return parse_binary(p, rows, parse_concat, out);
}

static bool take_compare(struct apr_jj_parser *p, uint8_t *op)
{
    static const struct op_row rows[] = {{"==", APR_JJ_OP_EQ},
                                         {"!=", APR_JJ_OP_NE},
                                         {"<=", APR_JJ_OP_LE},
                                         {">=", APR_JJ_OP_GE},
                                         {"<", APR_JJ_OP_LT},
                                         {">", APR_JJ_OP_GT},
                                         {NULL, 0}};
    if (take_op(p, rows, op)) return true;
    if (apr_jj_tok_skip_name(p, "in")) {
        *op = APR_JJ_OP_IN;
        return true;
    }
    if (!apr_jj_tok_name(p, "not") || !apr_jj_tok_next_is(p, "in")) return false;
    p->i += 2;
    *op = APR_JJ_OP_NOT_IN;
    return true;
}

static enum apr_code parse_compare(struct apr_jj_parser *p, struct apr_jj_node **out)
{
    struct apr_jj_nodes right = {0};
    struct apr_jj_node *a = NULL, *b = NULL, *n = NULL;
    uint8_t op = 0, ops[APR_JJ_MAX_NEST], *kept = NULL;
    TRY(parse_sum(p, &a));
    while (take_compare(p, &op)) {
        if (right.n == sizeof ops) return apr_jj_fail(p->r, "too many comparisons in a row");
        ops[right.n] = op;
        TRY(parse_sum(p, &b));
        TRY(apr_jj_node_push(p, &right, b));
    }
    *out = a;
    if (!right.n) return APR_OK;
    TRY(apr_jj_node_new(p, APR_JJ_N_COMPARE, a->line, &n));
    TRY(apr_jj_alloc(p->r, right.n, 1, &kept));
    memcpy(kept, ops, right.n);
    n->a = a;
    n->at = right.at;
    n->n = right.n;
    n->ops = kept;
    *out = n;
    return apr_jj_node_seal(p, n);
}

static enum apr_code parse_unary(struct apr_jj_parser *p, bool with_filters, struct apr_jj_node **out)
{
    struct apr_jj_node *n = NULL;
    uint32_t line = apr_jj_tok_now(p)->line;
    uint8_t sign = apr_jj_tok_is(p, "-") ? '-' : apr_jj_tok_is(p, "+") ? '+' : 0;
    if (sign) {
        p->i++;
        TRY(nest(p));
        TRY(parse_unary(p, false, &n));
        p->n_nested--;
        TRY(apr_jj_node_pair(p, APR_JJ_N_UNARY, line, n, NULL, &n));
        n->op = sign;
    } else {
        TRY(apr_jj_parse_primary(p, false, &n));
    }
    TRY(apr_jj_parse_postfix(p, &n));
    while (with_filters) {
        if (apr_jj_tok_is(p, "|"))
            TRY(apr_jj_parse_filters(p, n, false, &n));
        else if (apr_jj_tok_name(p, "is"))
            TRY(apr_jj_parse_test(p, &n));
        else if (apr_jj_tok_is(p, "("))
            TRY(apr_jj_parse_call(p, &n));
        else
            break;
    }
    *out = n;
    return APR_OK;
}

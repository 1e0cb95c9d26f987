/* The parser's hands: looking at tokens, making nodes. Declared in parse.h. */
#include <string.h>

#include "parse.h"

const struct apr_jj_tok *apr_jj_tok_now(struct apr_jj_parser *p)
{
    const struct apr_jj_tok *t = &p->toks[p->i];
    p->r->line = t->line;
    return t;
}

static bool text_is(const struct apr_jj_tok *t, enum apr_jj_tok_type type, const char *text)
{
    return t->type == type && t->n == strlen(text) && memcmp(t->p, text, t->n) == 0;
}

bool apr_jj_tok_is(struct apr_jj_parser *p, const char *op)
{
    return text_is(apr_jj_tok_now(p), APR_JJ_T_OP, op);
}

bool apr_jj_tok_name(struct apr_jj_parser *p, const char *name)
{
    return text_is(apr_jj_tok_now(p), APR_JJ_T_NAME, name);
}

bool apr_jj_tok_next_is(struct apr_jj_parser *p, const char *op_or_name)
{
    if (p->i + 1 >= p->n_toks) return false;
    const struct apr_jj_tok *t = &p->toks[p->i + 1];
    return text_is(t, APR_JJ_T_OP, op_or_name) || text_is(t, APR_JJ_T_NAME, op_or_name);
}

bool apr_jj_tok_skip(struct apr_jj_parser *p, const char *op)
{
    if (!apr_jj_tok_is(p, op)) return false;
    p->i++;
    return true;
}

bool apr_jj_tok_skip_name(struct apr_jj_parser *p, const char *name)
{
    if (!apr_jj_tok_name(p, name)) return false;
    p->i++;
    return true;
}

enum apr_code apr_jj_tok_unexpected(struct apr_jj_parser *p, const char *wanted)
{
    const struct apr_jj_tok *t = apr_jj_tok_now(p);
    static const char *const names[] = {
        [APR_JJ_T_EOF] = "the end of the template",
        [APR_JJ_T_DATA] = "text",
        [APR_JJ_T_VAR_BEGIN] = "'{{'",
        [APR_JJ_T_VAR_END] = "the end of the print tag",
        [APR_JJ_T_BLOCK_BEGIN] = "'{%'",
        [APR_JJ_T_BLOCK_END] = "the end of the tag",
        [APR_JJ_T_NAME] = NULL,
        [APR_JJ_T_CONST] = NULL,
        [APR_JJ_T_OP] = NULL,
    };
    if (names[t->type]) return apr_jj_fail(p->r, "found %s, expected %s", names[t->type], wanted);
    return apr_jj_fail(p->r, "found '%.*s', expected %s", (int)(t->n > 100 ? 100 : t->n), t->p, wanted);
}

enum apr_code apr_jj_tok_expect(struct apr_jj_parser *p, const char *op)
{
    char wanted[16] = "'";
    if (apr_jj_tok_skip(p, op)) return APR_OK;
    strncat(wanted, op, 8);
    strncat(wanted, "'", 2);
    return apr_jj_tok_unexpected(p, wanted);
}

enum apr_code apr_jj_tok_take_name(struct apr_jj_parser *p, const struct apr_jj_str **name)
{
    const struct apr_jj_tok *t = apr_jj_tok_now(p);
    struct apr_jj_val v;
    if (t->type != APR_JJ_T_NAME) return apr_jj_tok_unexpected(p, "a name");
    TRY(apr_jj_str_new(p->r, t->p, t->n, false, &v));
    *name = v.u.s;
    p->i++;
    return APR_OK;
}

enum apr_code apr_jj_node_new(struct apr_jj_parser *p, enum apr_jj_type type, uint32_t line,
                              struct apr_jj_node **out)
{
    TRY(apr_jj_alloc(p->r, 1, sizeof **out, out));
    **out = (struct apr_jj_node){.type = (uint8_t)type, .line = line};
    return APR_OK;
}

enum apr_code apr_jj_node_push(struct apr_jj_parser *p, struct apr_jj_nodes *v, struct apr_jj_node *n)
{
    if (v->n == v->n_cap) {
        size_t n_cap = v->n_cap ? 2 * v->n_cap : 4;
        struct apr_jj_node **at = NULL;
        TRY(apr_jj_alloc(p->r, n_cap, sizeof(struct apr_jj_node *), &at));
        if (v->n) memcpy(at, v->at, v->n * sizeof(struct apr_jj_node *));
        v->at = at;
        v->n_cap = n_cap;
    }
    v->at[v->n++] = n;
    return APR_OK;
}

static uint16_t deeper(uint16_t depth, const struct apr_jj_node *n)
{
    return n && n->depth > depth ? n->depth : depth;
}

enum apr_code apr_jj_node_seal(struct apr_jj_parser *p, struct apr_jj_node *n)
{
    uint16_t depth = deeper(deeper(deeper(0, n->a), n->b), n->c);
    for (size_t i = 0; i < n->n; i++) depth = deeper(depth, n->at[i]);
    if (n->args) {
        for (size_t i = 0; i < n->args->n; i++) depth = deeper(depth, n->args->at[i]);
        for (size_t i = 0; i < n->args->n_kw; i++) depth = deeper(depth, n->args->kw[i]);
        depth = deeper(deeper(depth, n->args->star), n->args->star_star);
    }
    if (depth >= APR_JJ_MAX_TREE) {
        p->r->line = n->line;
        return apr_jj_fail(p->r, "an expression is nested too deeply (%d levels)", APR_JJ_MAX_TREE);
    }
    n->depth = (uint16_t)(depth + 1);
    return APR_OK;
}

enum apr_code apr_jj_node_pair(struct apr_jj_parser *p, enum apr_jj_type type, uint32_t line,
                               struct apr_jj_node *a, struct apr_jj_node *b, struct apr_jj_node **out)
{
    struct apr_jj_node *n = NULL;
    TRY(apr_jj_node_new(p, type, line, &n));
    n->a = a;
    n->b = b;
    *out = n;
    return apr_jj_node_seal(p, n);
}

/* Statements of Jinja's grammar; see parse.h. */
#include "parse.h"

#include <string.h>

static enum apr_code parse_body(struct apr_jj_parser *p, const char *const *ends, struct apr_jj_node **out);

static bool at_end(struct apr_jj_parser *p, const char *const *ends)
{
    for (; *ends; ends++)
        if (apr_jj_tok_name(p, *ends)) return true;
    return false;
}

static enum apr_code block_end(struct apr_jj_parser *p)
{
    if (apr_jj_tok_now(p)->type != APR_JJ_T_BLOCK_END) return apr_jj_tok_unexpected(p, "the end of the tag");
    p->i++;
    return APR_OK;
}

/* The rest of the opening tag, the body, and the word that ends it, which stays the current token. */
static enum apr_code parse_block(struct apr_jj_parser *p, const char *const *ends, struct apr_jj_node **out)
{
    (void)apr_jj_tok_skip(p, ":");
    TRY(block_end(p));
    if (++p->n_blocks > APR_JJ_MAX_NEST)
        return apr_jj_fail(p->r, "blocks nested too deeply (%d levels)", APR_JJ_MAX_NEST);
    TRY(parse_body(p, ends, out));
    p->n_blocks--;
    return APR_OK;
}

/* A block with one end: passes the end word. */
static enum apr_code parse_simple_block(struct apr_jj_parser *p, const char *end, struct apr_jj_node **out)
{
    const char *ends[2] = {end, NULL};
    TRY(parse_block(p, ends, out));
    p->i++;
    return APR_OK;
}

static enum apr_code parse_if(struct apr_jj_parser *p, struct apr_jj_node *n)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    struct apr_jj_nodes arms = {0};
    struct apr_jj_node *test = NULL, *body = NULL;
    do {
        TRY(apr_jj_parse_tuple(p, false, NULL, &test));
        TRY(parse_block(p, ends, &body));
        TRY(apr_jj_node_push(p, &arms, test));
        TRY(apr_jj_node_push(p, &arms, body));
    } while (apr_jj_tok_skip_name(p, "elif"));
    if (apr_jj_tok_skip_name(p, "else"))
        TRY(parse_simple_block(p, "endif", &n->c));
    else
        p->i++;
    n->type = APR_JJ_N_IF;
    n->at = arms.at;
    n->n = arms.n;
    return APR_OK;
}

static enum apr_code parse_for(struct apr_jj_parser *p, struct apr_jj_node *n)
{
    static const char *const ends[] = {"endfor", "else", NULL};
    n->type = APR_JJ_N_FOR;
    TRY(apr_jj_parse_target(p, false, "in", &n->a));
    if (!apr_jj_tok_skip_name(p, "in")) return apr_jj_tok_unexpected(p, "'in'");
    TRY(apr_jj_parse_tuple(p, false, "recursive", &n->b));
    if (apr_jj_tok_skip_name(p, "if")) TRY(apr_jj_parse_expr(p, true, &n->test));
    n->recursive = apr_jj_tok_skip_name(p, "recursive");
    p->n_loops++;
    TRY(parse_block(p, ends, &n->c));
    p->n_loops--;
    if (apr_jj_tok_skip_name(p, "else")) return parse_simple_block(p, "endfor", &n->d);
    p->i++;
    return APR_OK;
}

static enum apr_code parse_set(struct apr_jj_parser *p, struct apr_jj_node *n)
{
    n->type = APR_JJ_N_SET;
    TRY(apr_jj_parse_target(p, true, NULL, &n->a));
    if (apr_jj_tok_skip(p, "=")) return apr_jj_parse_tuple(p, true, NULL, &n->b);
    n->type = APR_JJ_N_SETBLOCK;
    TRY(apr_jj_parse_filters(p, NULL, false, &n->b));
    return parse_simple_block(p, "endset", &n->c);
}

static enum apr_code parse_signature(struct apr_jj_parser *p, struct apr_jj_node *n)
{
    struct apr_jj_nodes params = {0}, defaults = {0};
    struct apr_jj_node *a = NULL;
    TRY(apr_jj_tok_expect(p, "("));
    while (!apr_jj_tok_is(p, ")")) {
        if (params.n) TRY(apr_jj_tok_expect(p, ","));
        TRY(apr_jj_node_new(p, APR_JJ_N_NAME, apr_jj_tok_now(p)->line, &a));
        TRY(apr_jj_tok_take_name(p, &a->name));
        TRY(apr_jj_node_push(p, &params, a));
        if (apr_jj_tok_skip(p, "=")) {
            TRY(apr_jj_parse_expr(p, true, &a));
            TRY(apr_jj_node_push(p, &defaults, a));
        } else if (defaults.n) {
            return apr_jj_fail(p->r, "a parameter without a default follows one with a default");
        }
    }
    p->i++;
    n->at = params.at;
    n->n = params.n;
    n->def = defaults.at;
    n->n_required = params.n - defaults.n;
    return APR_OK;
}

/* The body of a macro or call block: names like caller count for n, loops outside do not reach in. */
static enum apr_code parse_macro_body(struct apr_jj_parser *p, struct apr_jj_node *n, const char *end)
{
    struct apr_jj_node *outer = p->macro;
    uint32_t n_loops = p->n_loops;
    p->macro = n;
    p->n_loops = 0;
    TRY(parse_simple_block(p, end, &n->c));
    p->macro = outer;
    p->n_loops = n_loops;
    return APR_OK;
}

static enum apr_code parse_macro(struct apr_jj_parser *p, struct apr_jj_node *n)
{
    n->type = APR_JJ_N_MACRO;
    TRY(apr_jj_tok_take_name(p, &n->name));
    TRY(parse_signature(p, n));
    return parse_macro_body(p, n, "endmacro");
}

static enum apr_code parse_call_block(struct apr_jj_parser *p, struct apr_jj_node *n)
{
    struct apr_jj_val name;
    n->type = APR_JJ_N_CALLBLOCK;
    TRY(apr_jj_node_new(p, APR_JJ_N_MACRO, n->line, &n->b));
    TRY(apr_jj_text(p->r, "caller", &name));
    n->b->name = name.u.s;
    if (apr_jj_tok_is(p, "(")) TRY(parse_signature(p, n->b));
    TRY(apr_jj_parse_expr(p, true, &n->a));
    if (n->a->type != APR_JJ_N_CALL) return apr_jj_fail(p->r, "expected a call after 'call'");
    return parse_macro_body(p, n->b, "endcall");
}

static enum apr_code parse_filter_block(struct apr_jj_parser *p, struct apr_jj_node *n)
{
    n->type = APR_JJ_N_FILTERBLOCK;
    TRY(apr_jj_parse_filters(p, NULL, true, &n->b));
    return parse_simple_block(p, "endfilter", &n->c);
}

static enum apr_code parse_with(struct apr_jj_parser *p, struct apr_jj_node *n)
{
    struct apr_jj_nodes pairs = {0};
    struct apr_jj_node *a = NULL;
    n->type = APR_JJ_N_WITH;
    while (apr_jj_tok_now(p)->type != APR_JJ_T_BLOCK_END) {
        if (pairs.n) TRY(apr_jj_tok_expect(p, ","));
        TRY(apr_jj_parse_target(p, false, NULL, &a));
        TRY(apr_jj_node_push(p, &pairs, a));
        TRY(apr_jj_tok_expect(p, "="));
        TRY(apr_jj_parse_expr(p, true, &a));
        TRY(apr_jj_node_push(p, &pairs, a));
    }
    n->at = pairs.at;
    n->n = pairs.n;
    return parse_simple_block(p, "endwith", &n->c);
}

/* transformers marks the assistant's tokens with it; for the text it is only a scope. */
static enum apr_code parse_generation(struct apr_jj_parser *p, struct apr_jj_node *n)
{
    n->type = APR_JJ_N_SCOPE;
    return parse_simple_block(p, "endgeneration", &n->c);
}

static enum apr_code parse_named_block(struct apr_jj_parser *p, struct apr_jj_node *n)
{
    n->type = APR_JJ_N_SCOPE;
    TRY(apr_jj_tok_take_name(p, &n->name));
    (void)apr_jj_tok_skip_name(p, "scoped");
    TRY(parse_simple_block(p, "endblock", &n->c));
    if (apr_jj_tok_now(p)->type == APR_JJ_T_NAME) p->i++; /* {% endblock name %} */
    return APR_OK;
}

static enum apr_code parse_autoescape(struct apr_jj_parser *p, struct apr_jj_node *n)
{
    struct apr_jj_node *on = NULL;
    n->type = APR_JJ_N_SCOPE;
    TRY(apr_jj_parse_expr(p, true, &on));
    if (on->type != APR_JJ_N_CONST || on->v.kind != APR_JJ_BOOL || on->v.u.b)
        return apr_jj_fail(p->r, "a chat template cannot turn autoescape on");
    return parse_simple_block(p, "endautoescape", &n->c);
}

static enum apr_code parse_print(struct apr_jj_parser *p, struct apr_jj_node *n)
{
    struct apr_jj_nodes list = {0};
    struct apr_jj_node *one = NULL;
    do {
        TRY(apr_jj_node_new(p, APR_JJ_N_OUTPUT, n->line, &one));
        TRY(apr_jj_parse_expr(p, true, &one->a));
        TRY(apr_jj_node_push(p, &list, one));
    } while (apr_jj_tok_skip(p, ","));
    n->at = list.at; /* n is a BODY already */
    n->n = list.n;
    return APR_OK;
}

static enum apr_code parse_break(struct apr_jj_parser *p, struct apr_jj_node *n)
{
    n->type = APR_JJ_N_BREAK;
    return p->n_loops ? APR_OK : apr_jj_fail(p->r, "'break' outside a loop");
}

static enum apr_code parse_continue(struct apr_jj_parser *p, struct apr_jj_node *n)
{
    n->type = APR_JJ_N_CONTINUE;
    return p->n_loops ? APR_OK : apr_jj_fail(p->r, "'continue' outside a loop");
}

static enum apr_code refuse_file(struct apr_jj_parser *p, struct apr_jj_node *n)
{
    (void)n;
    return apr_jj_fail(p->r, "a chat template cannot read other templates");
}

static const struct {
    const char *word;
    enum apr_code (*parse)(struct apr_jj_parser *p, struct apr_jj_node *n);
} statements[] = {
    {"if", parse_if},
    {"for", parse_for},
    {"set", parse_set},
    {"macro", parse_macro},
    {"call", parse_call_block},
    {"filter", parse_filter_block},
    {"with", parse_with},
    {"generation", parse_generation},
    {"block", parse_named_block},
    {"autoescape", parse_autoescape},
    {"print", parse_print},
    {"break", parse_break},
    {"continue", parse_continue},
    {"include", refuse_file},
    {"import", refuse_file},
    {"from", refuse_file},
    {"extends", refuse_file},
};

static enum apr_code parse_statement(struct apr_jj_parser *p, struct apr_jj_node **out)
{
    struct apr_jj_node *n = NULL;
    const struct apr_jj_tok *t = apr_jj_tok_now(p);
    TRY(apr_jj_node_new(p, APR_JJ_N_BODY, t->line, &n));
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        if (!apr_jj_tok_skip_name(p, statements[i].word)) continue;
        TRY(statements[i].parse(p, n));
        *out = n;
        return block_end(p);
    }
    if (t->type != APR_JJ_T_NAME) return apr_jj_tok_unexpected(p, "the name of a tag");
    return apr_jj_fail(p->r, "unknown tag '%.*s'", (int)(t->n > 100 ? 100 : t->n), t->p);
}

static enum apr_code parse_output(struct apr_jj_parser *p, struct apr_jj_node **out)
{
    TRY(apr_jj_node_new(p, APR_JJ_N_OUTPUT, apr_jj_tok_now(p)->line, out));
    p->i++;
    TRY(apr_jj_parse_tuple(p, true, NULL, &(*out)->a));
    if (apr_jj_tok_now(p)->type != APR_JJ_T_VAR_END)
        return apr_jj_tok_unexpected(p, "the end of the print tag");
    p->i++;
    return APR_OK;
}

/* Statements up to a tag whose word is in ends (NULL: up to the end of the template). */
static enum apr_code parse_body(struct apr_jj_parser *p, const char *const *ends, struct apr_jj_node **out)
{
    struct apr_jj_nodes list = {0};
    struct apr_jj_node *n = NULL, *body = NULL;
    TRY(apr_jj_node_new(p, APR_JJ_N_BODY, apr_jj_tok_now(p)->line, &body));
    for (;;) {
        const struct apr_jj_tok *t = apr_jj_tok_now(p);
        if (t->type == APR_JJ_T_EOF) {
            if (ends) return apr_jj_fail(p->r, "the template ends inside a block, expected '%s'", ends[0]);
            break;
        }
        if (t->type == APR_JJ_T_DATA) {
            TRY(apr_jj_node_new(p, APR_JJ_N_TEXT, t->line, &n));
            n->v = t->v;
            p->i++;
        } else if (t->type == APR_JJ_T_VAR_BEGIN) {
            TRY(parse_output(p, &n));
        } else {
            p->i++; /* BLOCK_BEGIN */
            if (ends && at_end(p, ends)) break;
            TRY(parse_statement(p, &n));
        }
        TRY(apr_jj_node_push(p, &list, n));
    }
    body->at = list.at;
    body->n = list.n;
    *out = body;
    return APR_OK;
}

enum apr_code apr_jj_parse(struct apr_jj_parser *p, struct apr_jj_node **body)
{
    return parse_body(p, NULL, body);
}

/* See jinja.h: the template and its rendering, the context turned into values. */
#include "jinja.h"

#include <string.h>

#include "ast.h"
#include "lex.h"
#include "parse.h"

#define MAX_TEMPLATE_BYTES (1u << 20)
#define DEFAULT_STEPS      4000000u
#define DEFAULT_DEPTH      64u
#define DEFAULT_OUT_BYTES  (16u << 20)
#define DEPTH_PER_CALL     16u /* nested evaluation that one level of max_depth stands for */

struct apr_jinja {
    struct apr_arena arena;
    struct apr_jj_node *body;
};

enum apr_code apr_jinja_parse(struct apr_jinja **out, const char *text, size_t n_bytes, struct apr_err *e)
{
    struct apr_arena arena;
    struct apr_jj_tok *toks = NULL;
    struct apr_jinja *t;
    size_t n_toks = 0;
    *out = NULL;
    if (n_bytes > MAX_TEMPLATE_BYTES)
        return apr_fail(e, APR_ECONTRACT, "template: %zu bytes, the largest allowed is %u", n_bytes,
                        MAX_TEMPLATE_BYTES);
    apr_arena_init(&arena);
    struct apr_jj_run r = {.arena = &arena,
                           .e = e,
                           .n_steps_left = UINT64_MAX,
                           .max_depth = UINT32_MAX,
                           .max_str_bytes = MAX_TEMPLATE_BYTES * 4};
    struct apr_jj_parser p = {.r = &r};
    struct apr_jj_node *body = NULL;
    enum apr_code code = apr_jj_lex(&r, text, n_bytes, &toks, &n_toks);
    p.toks = toks;
    p.n_toks = n_toks;
    if (code == APR_OK) code = apr_jj_parse(&p, &body);
    if (code != APR_OK) {
        apr_arena_free(&arena);
        return code;
    }
    t = apr_arena_get(&arena, sizeof *t);
    t->arena = arena; /* the template lives in its own arena */
    t->body = body;
    *out = t;
    return APR_OK;
}

void apr_jinja_free(struct apr_jinja *t)
{
    if (!t) return;
    struct apr_arena arena = t->arena;
    apr_arena_free(&arena);
}

static enum apr_code from_json(struct apr_jj_run *r, const json_t *j, bool data, struct apr_jj_val *out);

static enum apr_code list_from_json(struct apr_jj_run *r, const json_t *j, bool data, struct apr_jj_val *out)
{
    struct apr_jj_list *l = NULL;
    struct apr_jj_val v;
    TRY(apr_jj_list_new(r, json_array_size(j), &l));
    for (size_t i = 0; i < json_array_size(j); i++) {
        TRY(from_json(r, json_array_get(j, i), data, &v));
        TRY(apr_jj_list_push(r, l, v));
    }
    *out = apr_jj_of_list(l, APR_JJ_PLAIN);
    return APR_OK;
}

static enum apr_code str_from_json(struct apr_jj_run *r, const char *p, size_t n, bool data,
                                   struct apr_jj_val *out)
{
    struct apr_jj_str *s = NULL;
    TRY(apr_jj_alloc(r, 1, sizeof *s, &s));
    *s = (struct apr_jj_str){.p = p, .n = n, .data = data}; /* borrowed from the context */
    *out = apr_jj_of_str(s);
    return APR_OK;
}

static enum apr_code dict_from_json(struct apr_jj_run *r, const json_t *j, bool data, struct apr_jj_val *out)
{
    struct apr_jj_dict *d = NULL;
    struct apr_jj_val key, v;
    TRY(apr_jj_dict_new(r, &d));
    json_t *object = (json_t *)(uintptr_t)j; /* iteration only reads, jansson's signature is not const */
    for (void *it = json_object_iter(object); it; it = json_object_iter_next(object, it)) {
        const char *name = json_object_iter_key(it);
        TRY(str_from_json(r, name, strlen(name), data, &key));
        TRY(from_json(r, json_object_iter_value(it), data, &v));
        TRY(apr_jj_dict_set(r, d, key, v));
    }
    *out = apr_jj_of_dict(d);
    return APR_OK;
}

static enum apr_code from_json(struct apr_jj_run *r, const json_t *j, bool data, struct apr_jj_val *out)
{
    TRY(apr_jj_enter(r));
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        TRY(dict_from_json(r, j, data, out));
        break;
    case JSON_ARRAY:
        TRY(list_from_json(r, j, data, out));
        break;
    case JSON_STRING:
        TRY(str_from_json(r, json_string_value(j), json_string_length(j), data, out));
        break;
    case JSON_INTEGER:
        *out = apr_jj_int(json_integer_value(j));
        break;
    case JSON_REAL:
        *out = apr_jj_float(json_real_value(j));
        break;
    case JSON_TRUE:
        *out = apr_jj_bool(true);
        break;
    case JSON_FALSE:
        *out = apr_jj_bool(false);
        break;
    case JSON_NULL:
        *out = apr_jj_none();
        break;
    }
    out->data = data;
    r->depth--;
    return APR_OK;
}

/* bos_token, eos_token ...: control tokens that the program, not a user, puts into the context. */
static bool is_token_variable(const char *name)
{
    size_t n = strlen(name);
    return n > 6 && strcmp(name + n - 6, "_token") == 0;
}

static enum apr_code context_scope(struct apr_jj_run *r, const json_t *context)
{
    struct apr_jj_val key, v;
    json_t *object = (json_t *)(uintptr_t)context; /* as in dict_from_json */
    TRY(apr_jj_scope_push(r, NULL));
    for (void *it = json_object_iter(object); it; it = json_object_iter_next(object, it)) {
        const char *name = json_object_iter_key(it);
        TRY(str_from_json(r, name, strlen(name), false, &key));
        TRY(from_json(r, json_object_iter_value(it), !is_token_variable(name), &v));
        TRY(apr_jj_dict_set(r, &r->scope->vars, key, v));
    }
    return apr_jj_scope_push(r, r->scope);
}

/* Calls piece for every run of bytes of one origin. */
static enum apr_code give_pieces(const struct apr_jinja_opts *opts, const struct apr_jj_sb *b,
                                 struct apr_err *e)
{
    for (size_t begin = 0, end; begin < b->n; begin = end) {
        end = begin + 1;
        while (end < b->n && b->mark[end] == b->mark[begin]) end++;
        TRY(opts->piece(opts->piece_ctx, b->p + begin, end - begin, b->mark[begin], e));
    }
    return APR_OK;
}

static enum apr_code render(struct apr_jj_run *r, const struct apr_jinja *t, const json_t *context,
                            const struct apr_jinja_opts *opts, struct apr_buf *out)
{
    TRY(context_scope(r, context));
    TRY(apr_jj_sb_new(r, &r->out));
    TRY(apr_jj_exec_body(r, t->body));
    if (r->out->n) TRY(apr_buf_append(out, r->out->p, r->out->n, r->e));
    return opts && opts->piece ? give_pieces(opts, r->out, r->e) : APR_OK;
}

enum apr_code apr_jinja_render(const struct apr_jinja *t, const json_t *context,
                               const struct apr_jinja_opts *opts, struct apr_buf *out, struct apr_err *e)
{
    static const struct apr_jinja_opts defaults = {.now_s = INT64_MIN};
    const struct apr_jinja_opts *o = opts ? opts : &defaults;
    uint32_t depth = o->max_depth ? o->max_depth : DEFAULT_DEPTH;
    struct apr_arena arena;
    if (!json_is_object(context)) return apr_fail(e, APR_EFORMAT, "template context: expected a JSON object");
    apr_arena_init(&arena);
    struct apr_jj_run r = {.arena = &arena,
                           .e = e,
                           .n_steps_left = o->max_steps ? o->max_steps : DEFAULT_STEPS,
                           .max_depth =
                               depth > UINT32_MAX / DEPTH_PER_CALL ? UINT32_MAX : depth * DEPTH_PER_CALL,
                           .max_macro_depth = depth,
                           .max_str_bytes = o->max_out_bytes ? o->max_out_bytes : DEFAULT_OUT_BYTES,
                           .line = 1,
                           .now_s = o->now_s};
    enum apr_code code = render(&r, t, context, o, out);
    apr_arena_free(&arena);
    return code;
}

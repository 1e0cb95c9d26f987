/* The fields of a request: one row each. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "logprobs.h"
#include "request.h"

#define OWN  APR_FORM_OWN
#define CHAT APR_FORM_CHAT
#define TEXT APR_FORM_COMPLETION
#define ALL  (OWN | CHAT | TEXT)

/* A field while it is read; name with its path, for messages. */
struct field {
    struct apr_request *r;
    const char *name;
    const json_t *v;
};
typedef enum apr_code take_fn(const struct field *f, struct apr_err *e);

static enum apr_code wrong(const struct field *f, const char *expected, struct apr_err *e)
{
    return apr_fail(e, APR_EUSAGE, "%s: expected %s", f->name, expected);
}

/* A whole number, also written as 1e3. */
static enum apr_code take_int(const struct field *f, int64_t least, int64_t largest, int64_t *out,
                              struct apr_err *e)
{
    double v = json_number_value(f->v);
    if (!json_is_number(f->v) || v != floor(v)) return wrong(f, "a whole number", e);
    if (v < (double)least || v > (double)largest || v >= 0x1p63)
        return apr_fail(e, APR_EUSAGE, "%s: found %g, expected %" PRId64 " to %" PRId64, f->name, v, least,
                        largest);
    *out = json_is_integer(f->v) ? json_integer_value(f->v) : (int64_t)v;
    return APR_OK;
}

static enum apr_code take_bool(const struct field *f, bool *out, struct apr_err *e)
{
    if (!json_is_boolean(f->v)) return wrong(f, "true or false", e);
    *out = json_is_true(f->v);
    return APR_OK;
}

static enum apr_code take_str(const struct field *f, const char **out, struct apr_err *e)
{
    if (!json_is_string(f->v)) return wrong(f, "a string", e);
    *out = json_string_value(f->v);
    return APR_OK;
}

/* A string or an array of strings. */
static enum apr_code take_strs(const struct field *f, struct apr_strs *out, struct apr_err *e)
{
    size_t n = json_is_array(f->v) ? json_array_size(f->v) : 1;
    if (n > APR_MAX_STOPS)
        return apr_fail(e, APR_EUSAGE, "%s: %zu strings; the limit is %u", f->name, n, APR_MAX_STOPS);
    const char **at = apr_arena_get(&f->r->arena, (n + 1) * sizeof *at);
    for (size_t i = 0; i < n; i++) {
        at[i] = json_string_value(json_is_array(f->v) ? json_array_get(f->v, i) : f->v);
        if (!at[i]) return wrong(f, "a string or an array of strings", e);
    }
    *out = (struct apr_strs){.at = at, .n = n};
    return APR_OK;
}

/* ---- prompts ------------------------------------------------------------------------------------------ */

static enum apr_code take_ids(const struct field *f, struct apr_err *e)
{
    size_t n = json_array_size(f->v);
    if (!json_is_array(f->v) || !n) return wrong(f, "an array of token ids", e);
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(f->v, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
            return apr_fail(e, APR_EUSAGE, "%s[%zu]: expected a token id", f->name, i);
        TRY(apr_ids_push(&f->r->ids, (int32_t)json_integer_value(id), e));
    }
    return APR_OK;
}

static enum apr_code take_prompt(const struct field *f, struct apr_err *e)
{
    const json_t *v = f->v;
    if (f->r->form == TEXT && json_is_array(v)) {
        if (!json_is_string(json_array_get(v, 0))) return take_ids(f, e);
        if (json_array_size(v) > 1) return wrong(f, "one prompt a line", e);
        v = json_array_get(v, 0);
    }
    if (!json_is_string(v)) return wrong(f, "a string", e);
    if (!json_string_length(v)) return apr_fail(e, APR_EUSAGE, "%s: is empty", f->name);
    f->r->prompt = json_string_value(v);
    f->r->n_prompt_bytes = json_string_length(v);
    return APR_OK;
}

/* [{"type": "text", "text": ...}, ...] as one string; owned by the caller. */
static enum apr_code flatten(const char *path, size_t i_message, const json_t *parts, json_t **out,
                             struct apr_err *e)
{
    struct apr_buf b;
    enum apr_code code = APR_OK;
    apr_buf_init(&b, APR_JSON_MAX_BYTES);
    for (size_t i = 0; i < json_array_size(parts) && code == APR_OK; i++) {
        const json_t *part = json_array_get(parts, i), *text = json_object_get(part, "text");
        const char *type = json_string_value(json_object_get(part, "type"));
        if (!type || strcmp(type, "text") != 0 || !json_is_string(text))
            code = apr_fail(e, APR_EUSAGE, "%s[%zu].content[%zu]: expected a part of type text", path,
                            i_message, i);
        else
            code = apr_buf_append(&b, json_string_value(text), json_string_length(text), e);
    }
    *out = code == APR_OK ? json_stringn(b.data ? (const char *)b.data : "", b.n_bytes) : NULL;
    apr_buf_free(&b);
    return code;
}

static enum apr_code take_messages(const struct field *f, struct apr_err *e)
{
    size_t n = json_array_size(f->v);
    if (!json_is_array(f->v) || !n) return wrong(f, "an array of messages", e);
    f->r->messages = json_array();
    for (size_t i = 0; i < n; i++) {
        const json_t *m = json_array_get(f->v, i), *content = json_object_get(m, "content");
        if (!json_is_object(m) || !json_is_string(json_object_get(m, "role")))
            return apr_fail(e, APR_EUSAGE, "%s[%zu]: expected an object with a role", f->name, i);
        json_t *copy = json_copy((json_t *)(uintptr_t)m), *text;
        json_array_append_new(f->r->messages, copy);
        if (json_is_array(content)) {
            TRY(flatten(f->name, i, content, &text, e));
            json_object_set_new(copy, "content", text);
        } else if (!json_is_string(content) && !(json_is_null(content) && json_object_get(m, "tool_calls"))) {
            return apr_fail(e, APR_EUSAGE, "%s[%zu].content: expected a string or an array of parts", f->name,
                            i);
        }
    }
    return APR_OK;
}

static enum apr_code take_system(const struct field *f, struct apr_err *e)
{
    return take_str(f, &f->r->system, e);
}

static enum apr_code take_template(const struct field *f, struct apr_err *e)
{
    return take_str(f, &f->r->template_name, e);
}

static enum apr_code take_raw(const struct field *f, struct apr_err *e)
{
    return take_bool(f, &f->r->raw, e);
}

/* ---- ends --------------------------------------------------------------------------------------------- */

static enum apr_code take_n_max(const struct field *f, struct apr_err *e)
{
    bool has_all = f->r->form == OWN && json_number_value(f->v) == -1;
    return take_int(f, has_all ? -1 : 1, INT64_C(1) << 53, &f->r->n_max, e);
}

static enum apr_code take_stop(const struct field *f, struct apr_err *e)
{
    return take_strs(f, &f->r->stops, e);
}

static enum apr_code take_ignore_eos(const struct field *f, struct apr_err *e)
{
    return take_bool(f, &f->r->ignore_eos, e);
}

/* ---- form of the text --------------------------------------------------------------------------------- */

static enum apr_code set_grammar(const struct field *f, const char *text, size_t n_bytes,
                                 enum apr_grammar_form form, struct apr_err *e)
{
    struct apr_request *r = f->r;
    if (r->own_grammar) return apr_fail(e, APR_EUSAGE, "%s: one grammar or schema is enough", f->name);
    TRY(apr_grammar_parse(&r->own_grammar, text, n_bytes, form, f->name, e));
    r->grammar = r->own_grammar;
    return APR_OK;
}

static enum apr_code take_grammar(const struct field *f, struct apr_err *e)
{
    if (!json_is_string(f->v)) return wrong(f, "a string", e);
    return set_grammar(f, json_string_value(f->v), json_string_length(f->v), APR_GRAMMAR_GBNF, e);
}

static enum apr_code take_schema(const struct field *f, struct apr_err *e)
{
    struct apr_buf b;
    if (!json_is_object(f->v) && !json_is_boolean(f->v)) return wrong(f, "a schema", e);
    apr_buf_init(&b, APR_GRAMMAR_MAX_BYTES);
    enum apr_code code = apr_json_dump(f->v, false, &b, e);
    if (code == APR_OK) code = set_grammar(f, (const char *)b.data, b.n_bytes, APR_GRAMMAR_SCHEMA, e);
    apr_buf_free(&b);
    return code;
}

static enum apr_code take_format(const struct field *f, struct apr_err *e)
{
    static const char any_object[] = "{\"type\":\"object\"}";
    const char *type = json_string_value(json_object_get(f->v, "type"));
    if (type && !strcmp(type, "text")) return APR_OK;
    if (type && !strcmp(type, "json_object"))
        return set_grammar(f, any_object, sizeof any_object - 1, APR_GRAMMAR_SCHEMA, e);
    if (!type || strcmp(type, "json_schema") != 0)
        return wrong(f, "an object whose type is text, json_object or json_schema", e);
    const json_t *schema = json_object_get(json_object_get(f->v, "json_schema"), "schema");
    return take_schema(&(struct field){f->r, f->name, schema}, e);
}

/* ---- choice ------------------------------------------------------------------------------------------- */

static enum apr_code take_seed(const struct field *f, struct apr_err *e)
{
    int64_t v = 0;
    TRY(take_int(f, 0, INT64_MAX, &v, e));
    f->r->sample.seed = (uint64_t)v;
    return APR_OK;
}

static enum apr_code take_samplers(const struct field *f, struct apr_err *e)
{
    return take_str(f, &f->r->sample.samplers, e);
}

static enum apr_code take_breakers(const struct field *f, struct apr_err *e)
{
    return take_strs(f, &f->r->sample.dry_breakers, e);
}

/* {"ID": V, ...}, or the option's own words: "ID+V". */
static enum apr_code take_bias(const struct field *f, struct apr_err *e)
{
    const char *key;
    json_t *v;
    if (!json_is_object(f->v)) return take_strs(f, &f->r->sample.logit_bias, e);
    size_t n = 0, n_all = json_object_size(f->v);
    if (n_all > 1024) return wrong(f, "at most 1024 tokens", e);
    const char **at = apr_arena_get(&f->r->arena, (n_all + 1) * sizeof *at);
    json_object_foreach((json_t *)(uintptr_t)f->v, key, v)
    {
        if (!json_is_number(v) || !*key || strspn(key, "0123456789") != strlen(key))
            return wrong(f, "an object of token ids and numbers", e);
        at[n++] = apr_arena_printf(&f->r->arena, "%s%+.17g", key, json_number_value(v));
    }
    f->r->sample.logit_bias = (struct apr_strs){.at = at, .n = n};
    return APR_OK;
}

static enum apr_code take_param(const struct field *f, const struct apr_sample_param *p, struct apr_err *e)
{
    double v = json_number_value(f->v);
    if (!json_is_number(f->v)) return wrong(f, "a number", e);
    if (p->is_int && v != floor(v)) return wrong(f, "a whole number", e);
    bool above = p->least == APR_SAMPLE_ABOVE;
    if (!(v >= p->least && v <= p->largest))
        return apr_fail(e, APR_EUSAGE, "%s: found %g, expected %s%g to %g", f->name, v,
                        above ? "more than " : "", above ? 0 : p->least, p->largest);
    apr_sample_set(&f->r->sample, p, v);
    return APR_OK;
}

/* ---- what else OpenAI's clients send ------------------------------------------------------------------ */

static enum apr_code take_logprobs(const struct field *f, struct apr_err *e)
{
    int64_t n = 0;
    if (f->r->form == CHAT) return take_bool(f, &f->r->has_logprobs, e);
    if (json_is_boolean(f->v)) return take_bool(f, &f->r->has_logprobs, e);
    TRY(take_int(f, 0, APR_MAX_LOGPROBS, &n, e));
    f->r->has_logprobs = true;
    f->r->n_top_logprobs = (size_t)n;
    return APR_OK;
}

static enum apr_code take_top_logprobs(const struct field *f, struct apr_err *e)
{
    int64_t n = 0;
    TRY(take_int(f, 0, APR_MAX_LOGPROBS, &n, e));
    f->r->n_top_logprobs = (size_t)n;
    return APR_OK;
}

static enum apr_code take_model(const struct field *f, struct apr_err *e)
{
    return take_str(f, &f->r->model, e);
}

static enum apr_code only_one(const struct field *f, struct apr_err *e)
{
    int64_t n;
    return take_int(f, 1, 1, &n, e);
}

static enum apr_code only_false(const struct field *f, struct apr_err *e)
{
    bool v = true;
    TRY(take_bool(f, &v, e));
    return v ? wrong(f, "false: a line is answered as a whole", e) : APR_OK;
}

/* A label of the request, which is the client's own. */
static enum apr_code take_label(const struct field *f, struct apr_err *e)
{
    (void)f, (void)e;
    return APR_OK;
}

static const struct row {
    const char *name;
    unsigned forms;
    take_fn *take;
} rows[] = {
    {"prompt", OWN | TEXT, take_prompt},
    {"messages", OWN | CHAT, take_messages},
    {"ids", OWN, take_ids},
    {"system", OWN, take_system},
    {"template_name", OWN, take_template},
    {"raw", OWN, take_raw},
    {"max_tokens", ALL, take_n_max},
    {"max_completion_tokens", CHAT, take_n_max},
    {"stop", ALL, take_stop},
    {"ignore_eos", ALL, take_ignore_eos},
    {"grammar", ALL, take_grammar},
    {"json_schema", OWN, take_schema},
    {"response_format", CHAT | TEXT, take_format},
    {"seed", ALL, take_seed},
    {"samplers", ALL, take_samplers},
    {"dry_sequence_breaker", ALL, take_breakers},
    {"logit_bias", ALL, take_bias},
    {"logprobs", ALL, take_logprobs},
    {"top_logprobs", OWN | CHAT, take_top_logprobs},
    {"id", OWN, take_label},
    {"model", CHAT | TEXT, take_model},
    {"n", CHAT | TEXT, only_one},
    {"best_of", TEXT, only_one},
    {"stream", CHAT | TEXT, only_false},
    {"echo", TEXT, only_false},
    {"user", CHAT | TEXT, take_label},
    {"metadata", CHAT | TEXT, take_label},
};

/* Names in JSON have _ where options have -; both are taken. */
static bool is_named(const char *key, const char *name)
{
    for (; *key && *name; key++, name++)
        if (*key != *name && !(*key == '-' && *name == '_')) return false;
    return *key == *name;
}

static const struct apr_sample_param *param_named(const char *key)
{
    size_t n;
    const struct apr_sample_param *p = apr_sample_params(&n);
    if (is_named(key, "temp")) key = "temperature";
    if (is_named(key, "repetition_penalty")) key = "repeat_penalty";
    for (size_t i = 0; i < n; i++)
        if (is_named(key, p[i].field)) return &p[i];
    return NULL;
}

static enum apr_code take_field(const struct field *f, const char *key, struct apr_err *e)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].forms & f->r->form && is_named(key, rows[i].name))
            return json_is_null(f->v) ? APR_OK : rows[i].take(f, e);
    const struct apr_sample_param *p = param_named(key);
    if (!p) return apr_fail(e, APR_EUSAGE, "%s: unknown field", f->name);
    return json_is_null(f->v) ? APR_OK : take_param(f, p, e);
}

enum apr_code apr_request_fields(struct apr_request *r, const json_t *obj, const char *path,
                                 struct apr_err *e)
{
    const char *key;
    json_t *v;
    char name[160];
    json_object_foreach((json_t *)(uintptr_t)obj, key, v)
    {
        char word[128];
        apr_escape(word, sizeof word, key, strlen(key));
        snprintf(name, sizeof name, "%s%s", path, word);
        TRY(take_field(&(struct field){r, name, v}, key, e));
    }
    if (r->n_top_logprobs && !r->has_logprobs)
        return apr_fail(e, APR_EUSAGE, "%stop_logprobs: does nothing without %slogprobs", path, path);
    return APR_OK;
}

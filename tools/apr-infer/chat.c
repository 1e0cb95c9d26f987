/* Templates, and tokenizing what they rendered. */
#include "chat.h"

#include <string.h>

#include "chat_format.h"
#include "log.h"
#include "templates.h"

#define MAX_RENDERED_BYTES (64u << 20)

/* What the template rendered, with a mark per byte. */
struct rendered {
    struct apr_buf text, is_data;
};

static enum apr_code take_piece(void *ctx, const char *p, size_t n, bool from_data, struct apr_err *e)
{
    struct rendered *r = ctx;
    uint8_t *at;
    TRY(apr_buf_append(&r->text, p, n, e));
    TRY(apr_buf_reserve(&r->is_data, n, &at, e));
    memset(at, from_data, n);
    apr_buf_commit(&r->is_data, n);
    return APR_OK;
}

static bool is_special(const struct apr_vocab *v, size_t id, bool with_user)
{
    int32_t type = v->types ? v->types[id] : APR_TOK_NORMAL;
    return v->toks[id].n_bytes &&
           (type == APR_TOK_CONTROL || type == APR_TOK_UNKNOWN || (with_user && type == APR_TOK_USER));
}

/* Ids of the special tokens, and the bytes with which one can begin. */
struct specials {
    int32_t *ids;
    size_t n;
    bool first[256];
};

static enum apr_code specials_collect(struct specials *s, const struct apr_vocab *v, bool with_user,
                                      struct apr_ids *room, struct apr_err *e)
{
    *s = (struct specials){0};
    for (uint32_t i = 0; i < v->n_toks; i++) {
        if (!is_special(v, i, with_user)) continue;
        TRY(apr_ids_push(room, (int32_t)i, e));
        s->first[(uint8_t)v->toks[i].p[0]] = true;
    }
    s->ids = room->at;
    s->n = room->n;
    return APR_OK;
}

/* The longest special token that begins at text[0], -1 when none. */
static int32_t special_at(const struct specials *s, const struct apr_vocab *v, const char *text,
                          size_t n_bytes)
{
    int32_t best = -1;
    if (!n_bytes || !s->first[(uint8_t)text[0]]) return best;
    for (size_t i = 0; i < s->n; i++) {
        const struct apr_str *t = &v->toks[s->ids[i]];
        if (t->n_bytes <= n_bytes && (best < 0 || t->n_bytes > v->toks[best].n_bytes) &&
            !memcmp(t->p, text, t->n_bytes))
            best = s->ids[i];
    }
    return best;
}

static bool any_data(const uint8_t *is_data, size_t n)
{
    return memchr(is_data, 1, n) != NULL;
}

/* Some control token's text stands, at least partly, in bytes of the messages. Every position is tried, so
 * that no order of matching can let one pass. */
static bool data_has_special(const struct specials *s, const struct apr_vocab *v, const char *text,
                             const uint8_t *is_data, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++) {
        int32_t id = special_at(s, v, text + i, n_bytes - i);
        if (id >= 0 && any_data(is_data + i, v->toks[id].n_bytes)) return true;
    }
    return false;
}

/* Splits at the special tokens that the template wrote; all between two of them is plain text. */
static enum apr_code tokenize_split(const struct apr_tok *tok, const struct specials *s,
                                    const struct apr_vocab *v, const char *text, const uint8_t *is_data,
                                    size_t n_bytes, struct apr_ids *ids, struct apr_err *e)
{
    size_t begin = 0, i = 0;
    while (i < n_bytes) {
        int32_t id = special_at(s, v, text + i, n_bytes - i);
        if (id < 0 || any_data(is_data + i, v->toks[id].n_bytes)) {
            i++;
            continue;
        }
        if (i > begin) TRY(apr_tok_encode(tok, text + begin, i - begin, 0, ids, e));
        TRY(apr_ids_push(ids, id, e));
        begin = i += v->toks[id].n_bytes;
    }
    if (i > begin) return apr_tok_encode(tok, text + begin, i - begin, 0, ids, e);
    return APR_OK;
}

enum apr_code apr_chat_tokenize(const struct apr_tok *tok, const struct apr_vocab *v, const char *text,
                                const uint8_t *is_data, size_t n_bytes, struct apr_ids *ids,
                                struct apr_err *e)
{
    struct specials s;
    struct apr_ids room = {0};
    enum apr_code code = specials_collect(&s, v, false, &room, e);
    if (code == APR_OK && !data_has_special(&s, v, text, is_data, n_bytes)) {
        code = apr_tok_encode(tok, text, n_bytes, APR_TOK_PARSE_SPECIAL, ids, e);
    } else if (code == APR_OK) {
        room.n = 0;
        code = specials_collect(&s, v, true, &room, e);
        if (code == APR_OK) code = tokenize_split(tok, &s, v, text, is_data, n_bytes, ids, e);
    }
    apr_ids_free(&room);
    return code;
}

/* The string of a special token as templates know it: tokenizer_config's word, else the vocabulary's. */
static void add_token(json_t *context, const struct apr_model *m, const char *key, int64_t id)
{
    json_t *v = json_object_get(m->hf_tok_config, key);
    if (json_object_get(context, key)) return;
    if (json_is_object(v)) v = json_object_get(v, "content");
    if (m->hf_tok_config) {
        if (json_is_string(v)) json_object_set(context, key, v);
    } else if (id >= 0 && id < m->vocab.n_toks) {
        const struct apr_str *t = &m->vocab.toks[id];
        json_object_set_new(context, key, json_stringn(t->p, t->n_bytes));
    }
}

void apr_chat_add_tokens(json_t *context, const struct apr_model *m)
{
    add_token(context, m, "bos_token", m->vocab.bos_id);
    add_token(context, m, "eos_token", m->vocab.eos_id);
    add_token(context, m, "unk_token", m->vocab.unk_id);
    add_token(context, m, "pad_token", m->vocab.pad_id);
}

static json_t *context_make(const struct apr_model *m, const json_t *messages, bool add_generation_prompt)
{
    json_t *context = json_object();
    json_object_set(context, "messages", (json_t *)(uintptr_t)messages);
    json_object_set_new(context, "add_generation_prompt", json_boolean(add_generation_prompt));
    apr_chat_add_tokens(context, m);
    return context;
}

/* Contents one after the other: plain text of the user, nothing of it special. */
static enum apr_code render_raw(const json_t *messages, struct rendered *r, struct apr_err *e)
{
    size_t i;
    json_t *m;
    json_array_foreach(messages, i, m)
    {
        json_t *content = json_object_get(m, "content");
        if (json_is_string(content))
            TRY(take_piece(r, json_string_value(content), json_string_length(content), true, e));
    }
    return APR_OK;
}

static enum apr_code render(const struct apr_chat *c, const json_t *messages, bool add_generation_prompt,
                            struct rendered *r, struct apr_err *e)
{
    if (!c->tmpl) return render_raw(messages, r, e);
    struct apr_jinja_opts opts = {.now_s = INT64_MIN, .piece = take_piece, .piece_ctx = r};
    json_t *context = context_make(c->model, messages, add_generation_prompt);
    struct apr_buf whole;
    apr_buf_init(&whole, MAX_RENDERED_BYTES);
    enum apr_code code = apr_jinja_render(c->tmpl, context, &opts, &whole, e);
    apr_buf_free(&whole);
    json_decref(context);
    if (code != APR_OK) apr_err_prefix(e, "chat template");
    return code;
}

static enum apr_code parse(struct apr_chat *c, const char *text, struct apr_err *e)
{
    if (!text) return APR_OK;
    enum apr_code code = apr_jinja_parse(&c->tmpl, text, strlen(text), e);
    if (code != APR_OK) apr_err_prefix(e, "%s", c->model->path);
    return code;
}

enum apr_code apr_chat_open_format(struct apr_chat *c, const struct apr_model *m, const struct apr_tok *tok,
                                   const char *format, struct apr_err *e)
{
    const struct apr_chat_format *f = apr_chat_format_named(format);
    *c = (struct apr_chat){.model = m, .tok = tok, .format = format};
    if (!f) return apr_fail(e, APR_EUSAGE, "unknown chat format \"%.64s\"", format);
    return parse(c, f->tmpl, e);
}

static bool knows(const struct apr_tok *tok, const char *token)
{
    return apr_tok_find(tok, token, strlen(token)) >= 0;
}

enum apr_code apr_chat_open_named(struct apr_chat *c, const struct apr_model *m, const struct apr_tok *tok,
                                  const char *name, struct apr_err *e)
{
    const char *text = NULL;
    *c = (struct apr_chat){.model = m, .tok = tok, .format = "template"};
    if (name || m->vocab.chat_template || m->vocab.n_templates) {
        TRY(apr_chat_template(m, name, &text, e));
        return parse(c, text, e);
    }
    struct apr_chat_hints hints = {.model_name = m->name,
                                   .has_im = knows(tok, "<|im_start|>") && knows(tok, "<|im_end|>"),
                                   .has_inst = knows(tok, "[INST]") && knows(tok, "[/INST]")};
    TRY(apr_chat_open_format(c, m, tok, apr_chat_detect(&hints), e));
    apr_note("%s has no chat template: using the format %s (%s)", m->name ? m->name : m->path, c->format,
             c->tmpl ? "--raw feeds the prompt as it is" : "the contents as they are");
    return APR_OK;
}

enum apr_code apr_chat_open(struct apr_chat *c, const struct apr_model *m, const struct apr_tok *tok,
                            struct apr_err *e)
{
    return apr_chat_open_named(c, m, tok, NULL, e);
}

enum apr_code apr_chat_template(const struct apr_model *m, const char *name, const char **text,
                                struct apr_err *e)
{
    char names[512];
    *text = apr_templates_find(&m->vocab, name ? name : "default");
    if (*text) return APR_OK;
    apr_templates_names(&m->vocab, names, sizeof names);
    if (!*names) return apr_fail(e, APR_ENOTFOUND, "%s: the model has no chat template", m->path);
    if (!name)
        return apr_fail(e, APR_ECONTRACT, "%s: no default chat template; --template-name takes one of: %s",
                        m->path, names);
    return apr_fail(e, APR_EUSAGE, "%s: no chat template named \"%.63s\"; --template-name takes one of: %s",
                    m->path, name, names);
}

void apr_chat_close(struct apr_chat *c)
{
    if (c->tmpl) apr_jinja_free(c->tmpl);
    c->tmpl = NULL;
}

enum apr_code apr_chat_encode(const struct apr_chat *c, const json_t *messages, bool add_generation_prompt,
                              struct apr_ids *ids, struct apr_err *e)
{
    struct rendered r;
    apr_buf_init(&r.text, MAX_RENDERED_BYTES);
    apr_buf_init(&r.is_data, MAX_RENDERED_BYTES);
    enum apr_code code = render(c, messages, add_generation_prompt, &r, e);
    if (code == APR_OK && r.text.n_bytes)
        code = apr_chat_tokenize(c->tok, &c->model->vocab, (const char *)r.text.data, r.is_data.data,
                                 r.text.n_bytes, ids, e);
    apr_buf_free(&r.text);
    apr_buf_free(&r.is_data);
    return code;
}

json_t *apr_chat_messages(const char *system, const char *user, size_t n_user_bytes)
{
    json_t *messages = json_array();
    json_t *text = json_stringn(user, n_user_bytes);
    if (system) json_array_append_new(messages, json_pack("{s:s, s:s}", "role", "system", "content", system));
    if (text) json_array_append_new(messages, json_pack("{s:s, s:o}", "role", "user", "content", text));
    if (text && json_array_size(messages) == (system ? 2u : 1u)) return messages;
    json_decref(messages);
    return NULL;
}

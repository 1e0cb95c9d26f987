/* Templates, known formats, and tokenizing what they rendered. */
#include "chat.h"

#include <ctype.h>
#include <string.h>

#define MAX_RENDERED_BYTES (64u << 20)

/* Formats of models without a template: engine facts, 3. names are parts of the lower-case model name; the
 * first row that matches wins. */
struct format {
    const char *name;
    const char *names[4];
    const char *tmpl; /* NULL: contents, concatenated */
};

static const struct format formats[] = {
    {"ChatML",
     {"qwen", "openhermes", "yi-"},
     "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"},
    {"Zephyr",
     {"tinyllama", "zephyr", "stablelm"},
     "{% for m in messages %}{% if m.role == 'system' %}{{ '<|system|>\n' }}{% elif m.role == 'user' %}"
     "{{ '<|user|>\n' }}{% else %}{{ '<|assistant|>\n' }}{% endif %}{{ m.content + eos_token + '\n' }}{% "
     "endfor %}"
     "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"},
    {"Mistral",
     {"mistral", "mixtral"},
     "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}"
     "{% elif m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
     "{% else %}{{ raise_exception('the Mistral format has no system message') }}{% endif %}{% endfor %}"},
    {"Llama2",
     {"llama", "vicuna"},
     "{% set sys = '' %}{% set rest = messages %}{% if messages[0].role == 'system' %}"
     "{% set sys = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}{% set rest = messages[1:] %}{% "
     "endif %}"
     "{% for m in rest %}{% if m.role == 'assistant' %}{{ ' ' + m.content + ' ' + eos_token }}{% else %}"
     "{{ bos_token + '[INST] ' }}{% if loop.first %}{{ sys }}{% endif %}{{ m.content + ' [/INST]' }}{% endif "
     "%}"
     "{% endfor %}"},
    {"Phi",
     {"phi-", "phi2", "phi3"},
     "{% for m in messages %}{% if m.role == 'system' %}{{ m.content + '\n' }}{% elif m.role == 'user' %}"
     "{{ 'Instruct: ' + m.content + '\n' }}{% else %}{{ 'Output: ' + m.content + '\n' }}{% endif %}{% endfor "
     "%}"
     "{% if add_generation_prompt %}{{ 'Output:' }}{% endif %}"},
    {"Alpaca",
     {"alpaca"},
     "{% for m in messages %}{% if m.role == 'system' %}{{ m.content + '\n\n' }}{% elif m.role == 'user' %}"
     "{{ '### Instruction:\n' + m.content + '\n\n' }}{% else %}{{ '### Response:\n' + m.content + '\n\n' }}"
     "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"},
    {"Raw", {""}, NULL},
};

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

const char *apr_chat_detect(const char *model_name, bool has_im_tokens)
{
    if (has_im_tokens) return formats[0].name;
    char lower[256];
    size_t n = 0;
    for (; model_name[n] && n + 1 < sizeof lower; n++) lower[n] = (char)tolower((unsigned char)model_name[n]);
    lower[n] = 0;
    /* ChatML (row 0) would only be letters to a model without its markers. */
    for (size_t i = 1; i < sizeof formats / sizeof *formats; i++)
        for (size_t k = 0; k < sizeof formats[i].names / sizeof *formats[i].names && formats[i].names[k]; k++)
            if (strstr(lower, formats[i].names[k])) return formats[i].name;
    return "Raw";
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
    *c = (struct apr_chat){.model = m, .tok = tok, .format = format};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (!strcmp(formats[i].name, format)) return parse(c, formats[i].tmpl, e);
    return apr_fail(e, APR_EUSAGE, "unknown chat format \"%s\"", format);
}

enum apr_code apr_chat_open(struct apr_chat *c, const struct apr_model *m, const struct apr_tok *tok,
                            struct apr_err *e)
{
    if (m->vocab.chat_template) {
        *c = (struct apr_chat){.model = m, .tok = tok, .format = "template"};
        return parse(c, m->vocab.chat_template, e);
    }
    bool has_im = apr_tok_find(tok, "<|im_start|>", 12) >= 0 && apr_tok_find(tok, "<|im_end|>", 10) >= 0;
    return apr_chat_open_format(c, m, tok, apr_chat_detect(m->name, has_im), e);
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

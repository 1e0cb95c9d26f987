/* Prompts of requests. */
#include "prompter.h"

#include <inttypes.h>
#include <string.h>

#include "prompt.h"

void apr_prompter_init(struct apr_prompter *p, const struct apr_session *s)
{
    *p = (struct apr_prompter){.s = s};
}

void apr_prompter_close(struct apr_prompter *p)
{
    for (size_t i = 0; i < p->n; i++) {
        apr_chat_close(&p->chats[i]);
        apr_heap_free(p->names[i]);
    }
}

static bool same_name(const char *a, const char *b)
{
    return a && b ? !strcmp(a, b) : a == b;
}

static enum apr_code chat_of(struct apr_prompter *p, const char *name, const struct apr_chat **chat,
                             struct apr_err *e)
{
    for (size_t i = 0; i < p->n; i++)
        if (same_name(p->names[i], name)) return *chat = &p->chats[i], APR_OK;
    if (p->n == APR_MAX_TEMPLATES)
        return apr_fail(e, APR_EUSAGE, "template_name: more than %u of them", APR_MAX_TEMPLATES);
    TRY(apr_chat_open_named(&p->chats[p->n], p->s->model, p->s->tok, name, e));
    if (name) {
        size_t n_bytes = strlen(name) + 1;
        p->names[p->n] = apr_heap_get(n_bytes);
        memcpy(p->names[p->n], name, n_bytes);
    }
    *chat = &p->chats[p->n++];
    return APR_OK;
}

static enum apr_code encode_messages(struct apr_prompter *p, const struct apr_request *r, struct apr_ids *ids,
                                     struct apr_err *e)
{
    const struct apr_chat *chat;
    TRY(chat_of(p, r->template_name, &chat, e));
    if (!chat->tmpl && (r->messages || r->system))
        return apr_fail(e, APR_EUSAGE, "%s: no chat format is known for this model; give prompt alone",
                        p->s->model->path);
    if (!chat->tmpl)
        return apr_prompt_encode(p->s->tok, &p->s->model->vocab, r->prompt, r->n_prompt_bytes, ids, e);
    if (r->messages) return apr_chat_encode(chat, r->messages, true, ids, e);
    json_t *messages = apr_chat_messages(r->system, r->prompt, r->n_prompt_bytes);
    if (!messages) return apr_fail(e, APR_EUSAGE, "prompt: is not valid UTF-8");
    enum apr_code code = apr_chat_encode(chat, messages, true, ids, e);
    json_decref(messages);
    return code;
}

static enum apr_code take_ids(const struct apr_prompter *p, const struct apr_request *r, struct apr_ids *ids,
                              struct apr_err *e)
{
    uint32_t n_vocab = p->s->model->config.n_vocab;
    for (size_t i = 0; i < r->ids.n; i++)
        if ((uint32_t)r->ids.at[i] >= n_vocab)
            return apr_fail(e, APR_EUSAGE, "ids[%zu]: found %" PRId32 ", the vocabulary has %" PRIu32, i,
                            r->ids.at[i], n_vocab);
    return apr_ids_push_all(ids, r->ids.at, r->ids.n, e);
}

enum apr_code apr_prompter_encode(struct apr_prompter *p, const struct apr_request *r, struct apr_ids *ids,
                                  struct apr_err *e)
{
    const struct apr_tok *tok;
    if (r->ids.n) return take_ids(p, r, ids, e);
    TRY(apr_session_tok(p->s, &tok, e));
    if (!r->raw) return encode_messages(p, r, ids, e);
    return apr_prompt_encode(tok, &p->s->model->vocab, r->prompt, r->n_prompt_bytes, ids, e);
}

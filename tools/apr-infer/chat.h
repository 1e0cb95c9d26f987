/* From messages to token ids: the model's own chat template, or a known format where it has none.
 *
 * Special tokens count only where the template wrote them: text from the messages can never become a
 * control token. Where no message holds the text of one, the ids are those of the rendered text as a whole,
 * as Hugging Face would tokenize it.
 *
 *     struct apr_chat c; TRY(apr_chat_open(&c, model, tok, e));   // c.format says which; apr_chat_close(&c)
 *     TRY(apr_chat_encode(&c, messages, true, &ids, e));
 */
#ifndef APR_INFER_CHAT_H
#define APR_INFER_CHAT_H

#include "jinja/jinja.h"
#include "model.h"
#include "tok/tok.h"

struct apr_chat {
    const struct apr_model *model; /* borrowed */
    const struct apr_tok *tok;     /* borrowed */
    struct apr_jinja *tmpl;        /* owned; NULL: raw */
    const char *format;            /* "template" (the model's own), "ChatML" ..., "Raw" */
};

/* A broken template of the model is an error; a model without one gets what apr_chat_detect (chat_format.h)
 * names, which a note says. */
APR_MUST_USE enum apr_code apr_chat_open(struct apr_chat *c, const struct apr_model *m,
                                         const struct apr_tok *tok, struct apr_err *e);
/* The same with the template of that name (tool_use, rag); NULL: the default one. */
APR_MUST_USE enum apr_code apr_chat_open_named(struct apr_chat *c, const struct apr_model *m,
                                               const struct apr_tok *tok, const char *name,
                                               struct apr_err *e);
/* The text of a template of the model; NULL is "default". A name that it lacks is APR_EUSAGE with all names,
 * a model without any APR_ENOTFOUND. */
APR_MUST_USE enum apr_code apr_chat_template(const struct apr_model *m, const char *name, const char **text,
                                             struct apr_err *e);
/* The same with a format by name: "ChatML", "Zephyr", "Mistral", "Llama2", "Phi", "Alpaca", "Raw". */
APR_MUST_USE enum apr_code apr_chat_open_format(struct apr_chat *c, const struct apr_model *m,
                                                const struct apr_tok *tok, const char *format,
                                                struct apr_err *e);
void apr_chat_close(struct apr_chat *c);
/* messages: array of {"role", "content"}. Appends to ids. */
APR_MUST_USE enum apr_code apr_chat_encode(const struct apr_chat *c, const json_t *messages,
                                           bool add_generation_prompt, struct apr_ids *ids,
                                           struct apr_err *e);
/* Adds bos_token, eos_token, unk_token and pad_token of the model, each where context has none of its own. */
void apr_chat_add_tokens(json_t *context, const struct apr_model *m);
/* One user message, and a system message unless NULL: owned by the caller; NULL when a text is no UTF-8. */
json_t *apr_chat_messages(const char *system, const char *user, size_t n_user_bytes);

/* Ids of text whose bytes are marked (1 = from the messages). The rule above; apart for its test. */
APR_MUST_USE enum apr_code apr_chat_tokenize(const struct apr_tok *tok, const struct apr_vocab *v,
                                             const char *text, const uint8_t *is_data, size_t n_bytes,
                                             struct apr_ids *ids, struct apr_err *e);

#endif

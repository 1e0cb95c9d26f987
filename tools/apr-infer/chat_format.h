/* Chat formats of models that bring no template, and which of them a model means: engine facts, 3.
 *
 *     const struct apr_chat_format *f = apr_chat_format_named(apr_chat_detect(&(struct
 * apr_chat_hints){...}));
 */
#ifndef APR_INFER_CHAT_FORMAT_H
#define APR_INFER_CHAT_FORMAT_H

#include <stdbool.h>
#include <stddef.h>

struct apr_chat_format {
    const char *name;     /* "ChatML" */
    const char *names[4]; /* parts of lower-case model names that mean it */
    const char *tmpl;     /* Jinja; NULL: the contents, one after the other */
};

struct apr_chat_hints {
    const char *model_name; /* or NULL */
    const char *tmpl;       /* the model's own template; NULL: it has none */
    bool has_im;            /* the vocabulary has <|im_start|> and <|im_end|> */
    bool has_inst;          /* the vocabulary has [INST] and [/INST] */
};

const struct apr_chat_format *apr_chat_format_at(size_t i); /* NULL past the end; "Raw" is the last */
const struct apr_chat_format *apr_chat_format_named(const char *name);
/* Markers of the vocabulary, then the template's text, then the model's name. Never NULL. With a template
 * that nothing matches: "Custom", which is no row of the table. */
const char *apr_chat_detect(const struct apr_chat_hints *h);

#endif

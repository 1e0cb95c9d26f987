/* The chat templates of a vocabulary: the default one, and others by name (tool_use, rag ...).
 *
 * A name is printable ASCII, 1 to 63 bytes. GGUF keys hold letters, digits and underscores only, so that two
 * names that differ elsewhere alone are refused. Everything is copied into the arena.
 *
 *     TRY(apr_templates_from_json(v, arena, json_object_get(config, "chat_template"), file, e));
 *     const char *text = apr_templates_find(v, "tool_use"); // NULL: there is none
 */
#ifndef APR_TEMPLATES_H
#define APR_TEMPLATES_H

#include "vocab.h"

#define APR_MAX_TEMPLATES      32u
#define APR_MAX_TEMPLATE_NAME  63u
#define APR_MAX_TEMPLATE_BYTES ((size_t)4 << 20)

/* "default" is chat_template itself. A name that is known already gets the new text. */
APR_MUST_USE enum apr_code apr_templates_add(struct apr_vocab *v, struct apr_arena *arena, const char *name,
                                             const char *text, size_t n_bytes, const char *file,
                                             struct apr_err *e);
/* What tokenizer_config.json may say: a text, a list of {"name", "template"}, or an object of texts by name.
 * Anything else, NULL included, adds nothing. */
APR_MUST_USE enum apr_code apr_templates_from_json(struct apr_vocab *v, struct apr_arena *arena,
                                                   const json_t *t, const char *file, struct apr_err *e);
/* The same in the shortest form: a text, a list, or NULL without templates. The caller's. */
json_t *apr_templates_to_json(const struct apr_vocab *v);
/* GGUF: tokenizer.chat_template, tokenizer.chat_template.NAME and the list of names. */
APR_MUST_USE enum apr_code apr_templates_from_kvs(struct apr_vocab *v, struct apr_arena *arena,
                                                  const struct apr_kvs *kvs, const char *file,
                                                  struct apr_err *e);
void apr_templates_to_kvs(const struct apr_vocab *v, struct apr_kvs *kvs);
const char *apr_templates_find(const struct apr_vocab *v, const char *name);
/* "default, rag, tool_use" for messages. */
const char *apr_templates_names(const struct apr_vocab *v, char *out, size_t n_out);

#endif

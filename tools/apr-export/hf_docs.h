/* The documents of a Hugging Face folder, written from any model: config.json, generation_config.json,
 * tokenizer.json, tokenizer_config.json, README.md with its front matter.
 *
 * A model that carries the documents (a folder, an .apr made from one) gets them back; from a GGUF they are
 * rebuilt as far as its keys tell, and what they do not tell is said on stderr.
 *
 *     TRY(hf_docs_write(m, &plan, dir, e));
 */
#ifndef APR_EXPORT_HF_DOCS_H
#define APR_EXPORT_HF_DOCS_H

#include "fmt/fmt.h"

APR_MUST_USE enum apr_code hf_docs_write(struct apr_model *m, const struct apr_plan *plan, const char *dir,
                                         struct apr_err *e);
/* Text as one file of the folder. */
APR_MUST_USE enum apr_code hf_docs_put(const char *dir, const char *name, const struct apr_buf *text,
                                       struct apr_err *e);
/* v with an indentation of two, as transformers writes it. */
APR_MUST_USE enum apr_code hf_docs_pretty(const char *compact, size_t n, struct apr_buf *out,
                                          struct apr_err *e);

/* In hf_tokenizer.c: tokenizer.json; *known: false when there is none to write, told on stderr. */
APR_MUST_USE enum apr_code hf_tokenizer_text(const struct apr_model *m, struct apr_buf *out, bool *known,
                                             struct apr_err *e);

#endif

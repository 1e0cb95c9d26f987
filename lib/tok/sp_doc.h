/* What tokenizer.json says of a SentencePiece model, as transformers' converter writes it; without vocabulary
 * and merges, and without the tokens around a text.
 *
 *     json_t *doc = apr_sp_document(&sp, arena);   owned by the caller; NULL: out of memory
 */
#ifndef APR_TOK_SP_DOC_H
#define APR_TOK_SP_DOC_H

#include <jansson.h>

#include "sp_model.h"

json_t *apr_sp_document(const struct apr_sp_model *sp, struct apr_arena *arena);
/* TemplateProcessing of one token before and one after a text, either may be NULL; null when both are. */
json_t *apr_template_processor(const char *first, int64_t first_id, const char *last, int64_t last_id);

#endif

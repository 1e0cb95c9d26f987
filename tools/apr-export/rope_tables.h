/* Rotary tables that GGUF holds as tensors, told as the rule that config.json has for them.
 *
 *     TRY(rope_from_tables(m, &config, e));
 */
#ifndef APR_EXPORT_ROPE_TABLES_H
#define APR_EXPORT_ROPE_TABLES_H

#include "model.h"

/* c: a copy of the model's config; its rope gets the factors of longrope, or the rule of Llama 3.1 where that
 * gives exactly the table that is there. Refuses a table behind which no rule is known. Before the other
 * tensors are read: in a stream the tables come first. */
APR_MUST_USE enum apr_code rope_from_tables(struct apr_model *m, struct apr_config *c, struct apr_err *e);

#endif

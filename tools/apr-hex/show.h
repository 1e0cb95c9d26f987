/* What several verbs of this tool print the same way.
 *
 *     show_format(m, text, sizeof text); show_json(o, "metadata", value);
 */
#ifndef APR_HEX_SHOW_H
#define APR_HEX_SHOW_H

#include "model.h"
#include "out.h"

/* "APR v2", "GGUF v3", "SafeTensors". */
const char *show_format(const struct apr_model *m, char *out, size_t n_out);
/* Bytes of all files; of a stream what was read. */
uint64_t show_file_bytes(const struct apr_model *m);
/* A JSON value under key, whatever it is. */
void show_json(struct apr_out *o, const char *key, const json_t *v);
/* dims as an array of numbers, outermost first. */
void show_shape(struct apr_out *o, const char *key, const struct apr_tensor *t);

#endif

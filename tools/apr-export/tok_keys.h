/* The tokenizer's keys of a GGUF, in the order of llama.cpp's converter.
 *
 *     TRY(tok_keys(m, &kvs, e));            from the vocabulary and its documents
 *     tok_arrays(&m->vocab, &kvs);          the long arrays alone, where the other keys are copied
 */
#ifndef APR_EXPORT_TOK_KEYS_H
#define APR_EXPORT_TOK_KEYS_H

#include "model.h"

APR_MUST_USE enum apr_code tok_keys(const struct apr_model *m, struct apr_kvs *kvs, struct apr_err *e);
void tok_arrays(const struct apr_vocab *v, struct apr_kvs *kvs);

#endif

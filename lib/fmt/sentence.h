/* What a sentence-transformers folder says about embedding: modules.json, the pooling module's config.json,
 * sentence_bert_config.json, config_sentence_transformers.json.
 *
 * The documents travel whole, as one object {file name: document}, in a folder, in .apr metadata and back
 * into a folder. GGUF has a key for the pooling; the rest stands under apr.embedding there.
 *
 *     TRY(apr_sentence_load(m, dir, e)); ... TRY(apr_sentence_derive(m, e));   // fills m->config
 */
#ifndef APR_FMT_SENTENCE_H
#define APR_FMT_SENTENCE_H

#include "../model.h"

/* m->hf_sentence stays NULL where the folder has no modules.json. */
APR_MUST_USE enum apr_code apr_sentence_load(struct apr_model *m, const char *dir, struct apr_err *e);
/* pooling, normalize and n_max_embed of m->config, from the documents or from GGUF keys; after the family's
 * own reading. */
APR_MUST_USE enum apr_code apr_sentence_derive(struct apr_model *m, struct apr_err *e);
/* GGUF keys: <arch>.pooling_type where GGUF has the kind, and apr.embedding.* */
void apr_sentence_to_gguf(const struct apr_model *m, struct apr_kvs *kvs);
/* The type of a module that an embedding needs and that is not computed here ("Dense"), or NULL. */
const char *apr_sentence_unknown(const struct apr_model *m);
/* Name of a pooling, "mean"; by name: APR_POOL_NONE when unknown. */
const char *apr_pooling_name(enum apr_pooling p);
enum apr_pooling apr_pooling_named(const char *name);
/* The prompt of that name, or the default one (NULL), which stands before a text; NULL where there is none.
 */
const char *apr_sentence_prompt(const struct apr_model *m, const char *name);
/* Do the prompt's tokens take part in the pooling? */
bool apr_sentence_pools_prompt(const struct apr_model *m);
/* A file name of such a folder: "modules.json", "1_Pooling/config.json". */
bool apr_sentence_is_document(const char *name);

#endif

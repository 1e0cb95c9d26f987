/* general.* keys of a GGUF: sampling values, names, licence, base models, tags.
 *
 * Sources, first hit wins: the model card's front matter, config.json's _name_or_path, the folder's name
 * (facts on GGUF export, section 2). Keys are appended in the order of llama.cpp's converter.
 *
 *     TRY(authorship_keys(m, n_params, kvs, e));
 */
#ifndef APR_EXPORT_AUTHORSHIP_H
#define APR_EXPORT_AUTHORSHIP_H

#include "model.h"

void authorship_keys(const struct apr_model *m, uint64_t n_params, struct apr_kvs *kvs);

#endif

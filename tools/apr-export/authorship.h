/* general.* keys of a GGUF: sampling values, names, licence, base models, tags.
 *
 * Sources, first hit wins: the model card's front matter, config.json's _name_or_path, the folder's name
 * (facts on GGUF export, section 2). Keys are appended in the order of llama.cpp's converter.
 *
 *     authorship_keys(m, &size, kvs);
 */
#ifndef APR_EXPORT_AUTHORSHIP_H
#define APR_EXPORT_AUTHORSHIP_H

#include "model.h"

struct authorship_size {
    uint64_t n_params;                /* in all */
    uint64_t n_params_one, n_experts; /* with one expert of each stack; 0 = no stacks */
};

void authorship_keys(const struct apr_model *m, const struct authorship_size *size, struct apr_kvs *kvs);

#endif

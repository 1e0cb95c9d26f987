/* The one door: a path or "-" becomes a model.
 *
 * Peek, probe by content, parse, name the family, read the config. Folders are Hugging Face folders; a
 * *.safetensors.index.json stands for its folder. "hf://" is fetched by apr-pull.
 */
#ifndef APR_LOAD_H
#define APR_LOAD_H

#include "contract.h"
#include "model.h"

enum apr_load_how {
    APR_LOAD_STREAM = 0, /* converters: standard input stays a stream */
    APR_LOAD_RANDOM =
        1,             /* engine, inspection: a pipe is spooled to an unlinked temporary file; data mapped */
    APR_LOAD_LOOK = 2, /* or-ed: for verbs that only show; a config that the family does not support is noted
                          in model->unsupported and the family left NULL, instead of status 6 */
    APR_LOAD_HASH = 4, /* or-ed: files whose SHA-256 is not known are hashed while they are read in order */
};
APR_MUST_USE enum apr_code apr_load_model(const char *path, enum apr_load_how how, struct apr_model **out,
                                          struct apr_err *e);
/* Only what tokenizing needs: a folder with tokenizer files, or any model. */
APR_MUST_USE enum apr_code apr_load_vocab(const char *path, struct apr_model **out, struct apr_err *e);

#endif

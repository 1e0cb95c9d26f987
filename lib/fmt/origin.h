/* Where a model came from, as far as the file system tells: base names, hashes known before the data is
 * read, and the name of the model.
 *
 *     TRY(apr_model_add_files(m, 1, e)); apr_origin_file(m, 0, src, path); apr_origin_name(m, path);
 */
#ifndef APR_FMT_ORIGIN_H
#define APR_FMT_ORIGIN_H

#include "../model.h"

/* Fills m->files[i]. The SHA-256 is taken from the Hugging Face cache, where a file is a link to
 * blobs/<sha256>, or from the record that Hugging Face's client keeps beside a local folder
 * (.cache/huggingface/download/NAME.metadata), as long as the file is not newer than the record. */
void apr_origin_file(struct apr_model *m, uint32_t i_file, struct apr_src *src, const char *path);
/* m->name from a path: a folder's base name, the repository's name for a snapshot in the Hugging Face cache,
 * a file's stem; a file named like a checkpoint part ("model", "model-00001-of-00004") takes its folder's. */
void apr_origin_name(struct apr_model *m, const char *path);

#endif

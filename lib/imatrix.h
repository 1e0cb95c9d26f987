/* Importance matrices: for each matrix of a model, how much each column of it matters.
 *
 * A value is the mean over tokens of the square of the activation that meets the column. Two forms are read:
 * GGUF with pairs of F32 tensors NAME.in_sum2 [n_matrices, n_cols] and NAME.counts [n_matrices], and the
 * older .dat: i32 n_entries; each i32 n, n bytes of name, i32 n_calls, i32 n_values, f32[n_values] (sums of
 * means); then, if present, i32 n_chunks, i32 n, n bytes naming the text. The matrices of a stacked tensor
 * follow each other; one that no token reached counts 1 in every column. Names are GGUF's.
 *
 *     TRY(apr_imatrix_open(&im, "imatrix.gguf", e));
 *     const struct apr_imatrix_entry *entry = apr_imatrix_find(im, "blk.0.ffn_up.weight");
 *     apr_imatrix_close(im);
 */
#ifndef APR_IMATRIX_H
#define APR_IMATRIX_H

#include "model.h"

struct apr_imatrix_entry {
    const char *name;
    const float *values; /* [n_values], finite and >= 0 */
    uint64_t n_values;   /* n_matrices * n_cols */
};

struct apr_imatrix {
    struct apr_arena arena;            /* owns all that follows */
    const char *file;                  /* base name */
    const char *dataset;               /* what the file says of its text; NULL */
    uint32_t n_chunks;                 /* 0: not said */
    struct apr_imatrix_entry *entries; /* by name */
    size_t n_entries;
};

APR_MUST_USE enum apr_code apr_imatrix_open(struct apr_imatrix **out, const char *path, struct apr_err *e);
void apr_imatrix_close(struct apr_imatrix *im); /* NULL is fine */
const struct apr_imatrix_entry *apr_imatrix_find(const struct apr_imatrix *im, const char *gguf_name);
/* {"file", "dataset", "entries_count", "chunks_count"}: what a quantized model says of it. A new reference.
 */
json_t *apr_imatrix_describe(const struct apr_imatrix *im);
/* The keys quantize.imatrix.* of a GGUF from such an object. */
void apr_imatrix_keys(const json_t *description, struct apr_kvs *kvs);

#endif

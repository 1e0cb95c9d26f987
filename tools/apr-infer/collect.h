/* Sums of squares of what enters each matrix: the content of an importance matrix.
 *
 * A matrix is known by where its data lies, so that any forward pass is served. Stacked tensors have a row of
 * sums for each of their matrices. Sums are in double and in token order: the same for any number of threads.
 *
 *     struct apr_collect k = {.model = m}; TRY(apr_collect_open(&k, e)); fwd.c.tap = apr_collect_tap;
 *     ... TRY(apr_collect_write(&k, sink, "text", n_chunks, 512, e)); apr_collect_close(&k);
 */
#ifndef APR_INFER_COLLECT_H
#define APR_INFER_COLLECT_H

#include "linear.h"
#include "model.h"

struct apr_collect_entry {
    const struct apr_tensor *tensor;
    const char *name; /* GGUF's */
    double *sums;     /* [n_matrices, n_cols] */
    uint64_t *n_toks; /* [n_matrices] */
    uint64_t n_matrices, n_cols;
};

/* Where a matrix lies. */
struct apr_collect_place {
    const uint8_t *data;
    size_t i_entry;
    uint64_t i_matrix;
};

struct apr_collect {
    const struct apr_model *model;
    bool with_output; /* also output.weight; the layers alone otherwise */
    struct apr_arena arena;
    struct apr_collect_entry *entries; /* [n]; by name once written */
    size_t n;
    struct apr_collect_place *places; /* [n_places], by address */
    size_t n_places;
};

/* model and with_output are set. */
APR_MUST_USE enum apr_code apr_collect_open(struct apr_collect *k, struct apr_err *e);
void apr_collect_close(struct apr_collect *k);
apr_tap_fn apr_collect_tap; /* ctx: struct apr_collect */
/* Writes the GGUF form. A sum that is not finite: APR_EINFER. */
APR_MUST_USE enum apr_code apr_collect_write(struct apr_collect *k, struct apr_sink *s, const char *dataset,
                                             uint32_t n_chunks, uint32_t chunk_toks, struct apr_err *e);

#endif

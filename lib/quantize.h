/* What the options of import, convert, quantize and export say about types: stated once, opened once.
 *
 * Ownership: the strings are argv's; close frees patterns and importance matrix.
 *
 *     static const struct apr_opt opts[] = {APR_QUANTIZE_OPTIONS(struct my_args, types), ...};
 *     TRY(apr_quantize_open(&q, &args->types, arena, e)); ... apr_quantize_close(&q);
 */
#ifndef APR_QUANTIZE_H
#define APR_QUANTIZE_H

#include "imatrix.h"
#include "mix.h"
#include "opt.h"

struct apr_quantize_args {
    const char *recipe, *output_type, *embedding_type, *imatrix;
    struct apr_strs tensor_types;
    bool pure, requantize, leave_output;
};

#define APR_QUANTIZE_OPTIONS(type_, field_)                                                                  \
    APR_OPT(type_, field_.recipe, "quantize", 0, "TYPE",                                                     \
            "store matrices by this recipe: q4k, q8_0, f16 ..."),                                            \
        APR_OPT(type_, field_.pure, "pure", 0, NULL, "give every matrix the recipe's own type"),             \
        APR_OPT(type_, field_.tensor_types, "tensor-type", 0, "REGEX=TYPE",                                  \
                "store tensors whose GGUF name matches as TYPE (repeatable; the first match counts)"),       \
        APR_OPT(type_, field_.output_type, "output-type", 0, "TYPE", "store output.weight as TYPE"),         \
        APR_OPT(type_, field_.embedding_type, "embedding-type", 0, "TYPE",                                   \
                "store the token embedding as TYPE"),                                                        \
        APR_OPT(type_, field_.leave_output, "leave-output-tensor", 0, NULL,                                  \
                "store output.weight as it is in the source"),                                               \
        APR_OPT(type_, field_.imatrix, "imatrix", 0, "FILE",                                                 \
                "weigh errors by the importance matrix in FILE (GGUF or .dat)"),                             \
        APR_OPT(type_, field_.requantize, "requantize", 0, NULL,                                             \
                "let quantized data become another quantized type")

struct apr_quantize {
    const struct apr_recipe *recipe; /* NULL: keep types */
    bool pure, requantize;
    struct apr_mix_overrides overrides;
    struct apr_imatrix *imatrix; /* owned; NULL: none */
};

/* The recipe alone; NULL without one. */
APR_MUST_USE enum apr_code apr_quantize_recipe(const struct apr_quantize_args *args,
                                               const struct apr_recipe **recipe, struct apr_err *e);
/* Refuses (2) unknown types and patterns, and options that need --quantize without it; errors of the imatrix
 * file are its own. Close in any case. */
APR_MUST_USE enum apr_code apr_quantize_open(struct apr_quantize *q, const struct apr_quantize_args *args,
                                             struct apr_arena *a, struct apr_err *e);
void apr_quantize_close(struct apr_quantize *q);
/* Adds to o what makes a difference beside recipe and pure: overrides and imatrix. */
void apr_quantize_describe(const struct apr_quantize *q, json_t *o);

#endif

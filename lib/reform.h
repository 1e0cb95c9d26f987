/* A model's tensors in the form that another file format wants: Hugging Face's checkpoints and GGUF hold the
 * same model with other names, shapes and values. What changes is the family's to say (struct
 * apr_tensor_form); how is one function each in the table of reform.c. Nothing is read here: changed tensors
 * are views.
 *
 *     TRY(apr_reform(m, APR_TO_GGUF, arena, &list, e)); ... list.at[i] ...
 */
#ifndef APR_REFORM_H
#define APR_REFORM_H

#include "model.h"

enum apr_target {
    APR_TO_APR = 0,    /* as the model has them */
    APR_TO_CHECKPOINT, /* Hugging Face's values, an expert a tensor, [in, out] where the checkpoint has that
                        */
    APR_TO_GGUF,       /* GGUF's values, generated tables first */
};

struct apr_tensors {
    const struct apr_tensor **at; /* in the model's order; names are the model's */
    uint64_t n, cap;
};

/* From arena a. Refuses (5) what cannot be changed as it is stored, naming the tensor. */
APR_MUST_USE enum apr_code apr_reform(const struct apr_model *m, enum apr_target to, struct apr_arena *a,
                                      struct apr_tensors *out, struct apr_err *e);
/* GGUF's name of a model's tensor (or of an expert of one), in a; NULL when the family has none. */
const char *apr_reform_gguf_name(const struct apr_model *m, const char *name, struct apr_arena *a);

#endif

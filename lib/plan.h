/* The plan of an output: type, name, size and place of every tensor, before any data is read.
 *
 *     struct apr_plan_how how = {.fmt = fmt, .recipe = apr_recipe_named("q4_k_m")};
 *     TRY(apr_plan_make(m, &how, arena, &plan, e));
 */
#ifndef APR_PLAN_H
#define APR_PLAN_H

#include "fmt/fmt.h"
#include "imatrix.h"
#include "mix.h"
#include "out.h"

struct apr_plan_how {
    const struct apr_fmt *fmt;                 /* of the output */
    const struct apr_recipe *recipe;           /* NULL: keep types */
    bool pure;                                 /* the recipe's own type for every matrix */
    bool requantize;                           /* let a quantized source become another quantized type */
    bool materialize_head;                     /* write a tied lm_head as a tensor of its own */
    const struct apr_mix_overrides *overrides; /* NULL: none */
    const struct apr_imatrix *imatrix;         /* NULL: none; borrowed by the plan */
    /* out */
    uint64_t n_fallbacks; /* tensors whose columns do not divide the wanted type's block */
    uint64_t n_unguided;  /* matrices to be quantized that the imatrix does not hold */
};

/* p->tensors is allocated from a, in the model's tensor order; layout is done. Refuses (5) a type that the
 * output cannot hold, or would requantize without leave, naming the tensor. */
APR_MUST_USE enum apr_code apr_plan_make(const struct apr_model *m, struct apr_plan_how *how,
                                         struct apr_arena *a, struct apr_plan *p, struct apr_err *e);
/* general.file_type: the recipe's, else what the source says, else by the type that holds most bytes. */
uint32_t apr_plan_file_type(const struct apr_model *m, const struct apr_plan *p,
                            const struct apr_recipe *recipe);
/* What --dry-run shows: every tensor, totals, peak memory of the conversion, bytes on disk. */
APR_MUST_USE enum apr_code apr_plan_report(const struct apr_plan *p, const struct apr_fmt *fmt,
                                           uint64_t n_peak_bytes, struct apr_out *o, struct apr_err *e);

#endif

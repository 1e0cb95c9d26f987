#include "to_apr.h"
#include "verbs.h"

static const struct apr_opt opts[] = {TO_APR_OPTIONS};

static enum apr_code run(void *p, struct apr_ctx *ctx, struct apr_err *e)
{
    struct to_apr_args *args = p;
    const struct apr_strs *in = ctx->operands;
    if (in->n > 1 && args->types.recipe)
        return apr_fail(e, APR_EUSAGE, "quantize: the type is given twice: %s and --quantize %s", in->at[1],
                        args->types.recipe);
    if (in->n > 1) args->types.recipe = in->at[1];
    if (!args->types.recipe) return apr_fail(e, APR_EUSAGE, "quantize: expected a type: quantize INPUT TYPE");
    return to_apr_run(args, "quantize", NULL, in->n > 0 ? in->at[0] : "-", ctx, e);
}

const struct apr_verb verb_quantize = {
    .name = "quantize",
    .operands = "[INPUT [TYPE]]",
    .n_operands_max = 2,
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .args_bytes = sizeof(struct to_apr_args),
    .run = run,
    .details = "Writes INPUT (any format; - is standard input) as .apr with the types of a recipe.\n"
               "Examples:\n"
               "    apr quantize model.apr q4_k_m -o model-q4.apr",
};

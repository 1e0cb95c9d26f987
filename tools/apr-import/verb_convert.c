#include "to_apr.h"
#include "verbs.h"

static const struct apr_opt opts[] = {TO_APR_OPTIONS};

static enum apr_code run(void *p, struct apr_ctx *ctx, struct apr_err *e)
{
    return to_apr_run(p, "convert", NULL, ctx->operands->n > 0 ? ctx->operands->at[0] : "-", ctx, e);
}

const struct apr_verb verb_convert = {
    .name = "convert",
    .operands = "[INPUT]",
    .n_operands_max = 1,
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .args_bytes = sizeof(struct to_apr_args),
    .run = run,
    .details = "Writes INPUT (any format; - is standard input) as .apr, with other types when --quantize "
               "names a recipe.\n"
               "Examples:\n"
               "    apr convert model.apr --quantize q8_0 -o model-q8.apr",
};

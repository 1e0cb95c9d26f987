#include <string.h>

#include "fmt/fmt.h"
#include "to_apr.h"
#include "verbs.h"

static const struct apr_opt opts[] = {
    TO_APR_OPTIONS,
    APR_OPT(struct to_apr_args, arch, "arch", 0, "FAMILY", "refuse a model of another family (auto: any)"),
    APR_OPT(struct to_apr_args, enforce_provenance, "enforce-provenance", 0, NULL,
            "refuse sources that were quantized elsewhere (GGUF)"),
};

static enum apr_code run(void *p, struct apr_ctx *ctx, struct apr_err *e)
{
    const struct apr_strs *in = ctx->operands;
    const char *format = in->n > 0 && apr_fmt_named(in->at[0]) ? in->at[0] : NULL;
    size_t first = format ? 1 : 0;
    if (in->n > first + 1)
        return apr_fail(e, APR_EUSAGE, "%s: %s: expected one source", ctx->verb, in->at[first + 1]);
    return to_apr_run(p, "import", format, in->n > first ? in->at[first] : "-", ctx, e);
}

const struct apr_verb verb_import = {
    .name = "import",
    .operands = "[FORMAT] [SOURCE]",
    .n_operands_max = 2,
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .args_bytes = sizeof(struct to_apr_args),
    .run = run,
    .details = "SOURCE is a Hugging Face folder, a SafeTensors, GGUF or .apr file, an hf:// name, or - (the "
               "default) for "
               "standard input. FORMAT (st, apr, gguf), when given, must be what SOURCE holds. Data is read "
               "in pieces, so "
               "memory stays small for any model. Every tensor is checked on the way: NaN, infinities, all "
               "zeros and the "
               "like stop the import with status 5, and no output appears.\n"
               "Examples:\n"
               "    apr import DIR --quantize q4k -o model.apr\n"
               "    apr-import st DIR --quantize q4k | apr-export gguf > model.gguf",
};

/* One conversion to .apr: what import, convert, quantize and merge have in common.
 *
 *     TRY(to_apr_run(args, "import", NULL, "DIR", ctx, e));
 */
#ifndef APR_IMPORT_TO_APR_H
#define APR_IMPORT_TO_APR_H

#include "model.h"
#include "override.h"
#include "quantize.h"
#include "tool.h"

struct to_apr_args { /* the options that all three verbs share */
    const char *output, *compress, *arch;
    struct apr_quantize_args types;
    bool force, materialize_head, hash_sources, enforce_provenance, dry_run;
    uint64_t n_threads;
    struct apr_override over;
};

#define TO_APR_OPTIONS                                                                                       \
    APR_OPT(struct to_apr_args, output, "output", 'o', "FILE", "write to FILE; - is standard output"),       \
        APR_QUANTIZE_OPTIONS(struct to_apr_args, types),                                                     \
        APR_OPT(struct to_apr_args, materialize_head, "materialize-head", 0, NULL,                           \
                "write a tied lm_head as a tensor of its own"),                                              \
        APR_OPT(struct to_apr_args, hash_sources, "hash-sources", 0, NULL,                                   \
                "read the sources once more, first, and record their SHA-256"),                              \
        APR_OPT(struct to_apr_args, compress, "compress", 0, "HOW",                                          \
                "compress the file: none (the default), lz4, zstd or zstd-max"),                             \
        APR_OVERRIDE_OPTIONS(struct to_apr_args, over),                                                      \
        APR_OPT(struct to_apr_args, over.tokenizer, "tokenizer", 0, "PATH",                                  \
                "take the tokenizer from a folder, a tokenizer.json or a model"),                            \
        APR_OPT(struct to_apr_args, force, "force", 'f', NULL, "replace an existing output"),                \
        APR_OPT(struct to_apr_args, dry_run, "dry-run", 'n', NULL,                                           \
                "show type, size and place of every tensor and stop"),                                       \
        APR_OPT(struct to_apr_args, n_threads, "threads", 'j', "N", "use N threads (0: all CPUs)")

/* format: NULL, or the format that the source must have. */
APR_MUST_USE enum apr_code to_apr_run(struct to_apr_args *args, const char *step, const char *format,
                                      const char *source, struct apr_ctx *ctx, struct apr_err *e);

/* A model that is open already. */
struct to_apr_source {
    struct apr_model *model; /* metadata, names and types */
    struct apr_model *data;  /* values, by the same names; NULL: the model's own */
    json_t *provenance;      /* borrowed; NULL: the model's own and this step */
    uint64_t n_held_bytes;   /* memory that computing the values takes, for --dry-run */
    const struct apr_kern *kern;
    struct apr_pool *pool;
};
APR_MUST_USE enum apr_code to_apr_from(struct to_apr_args *args, const char *step,
                                       const struct to_apr_source *source, struct apr_ctx *ctx,
                                       struct apr_err *e);
/* Refuses (2) a terminal as the output, and --json beside a model on standard output. */
APR_MUST_USE enum apr_code to_apr_check_output(const struct to_apr_args *args, const struct apr_ctx *ctx,
                                               struct apr_err *e);

#endif

/* What the three kinds of source share: options in, a report out.
 *
 *     struct pull p = {.args = args, .ctx = ctx}; TRY(pull_hub(&p, &source, e));
 */
#ifndef APR_PULL_VERB_PULL_H
#define APR_PULL_VERB_PULL_H

#include "source.h"
#include "tool.h"

struct pull_args {
    const char *revision, *output, *sha256, *max_size;
    struct apr_strs include, exclude;
    bool force, dry_run;
    uint64_t n_retries, stall_s;
};

struct pull_file {
    const char *name, *sha256; /* sha256: NULL when not known (dry run) */
    uint64_t n_bytes;
    bool cached;
};

struct pull {
    const struct pull_args *args;
    struct apr_ctx *ctx;
    bool offline;
    uint64_t max_bytes;
    /* the report */
    const char *path, *revision;
    struct pull_file *files;
    size_t n_files;
};

APR_MUST_USE enum apr_code pull_hub(struct pull *p, const struct source *s, struct apr_err *e);
APR_MUST_USE enum apr_code pull_url(struct pull *p, const struct source *s, struct apr_err *e);

#endif

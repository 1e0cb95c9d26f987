/* Options for the life of a context: what happens when it is full, and what of it is kept on disk.
 *
 *     struct run_args { ...; struct apr_context_opts context; };  apr_context_defaults(&a->context);
 *     TRY(apr_context_check(&a->context, e));
 */
#ifndef APR_INFER_CONTEXT_OPTS_H
#define APR_INFER_CONTEXT_OPTS_H

#include <stdbool.h>
#include <stdint.h>

#include "opt.h"
#include "shift.h"
#include "tok/tok.h"

#define APR_KEEP_OPENING INT64_MIN /* n_keep: what every prompt of this chat begins with */

struct apr_context_opts {
    bool shift;
    int64_t n_keep; /* -1: the prompt */
    const char *saved;
    bool saved_all, saved_read_only;
};
#define APR_CONTEXT_OPTS(type_)                                                                              \
    APR_OPT(type_, context.shift, "context-shift", 0, NULL,                                                  \
            "when the context is full, drop the older half of what --keep leaves and go on"),                \
        APR_OPT(type_, context.n_keep, "keep", 0, "N",                                                       \
                "tokens of the prompt that a shift keeps; -1: all (default: BOS and system message)"),       \
        APR_OPT(type_, context.saved, "prompt-cache", 0, "FILE",                                             \
                "reuse the computed prompt in FILE as far as it is the same, and save this one"),            \
        APR_OPT(type_, context.saved_all, "prompt-cache-all", 0, NULL, "save what was generated, too"),      \
        APR_OPT(type_, context.saved_read_only, "prompt-cache-ro", 0, NULL,                                  \
                "the file must be there, and stays as it is")

void apr_context_defaults(struct apr_context_opts *o);
/* Options that do nothing without another, or exclude each other: APR_EUSAGE. */
APR_MUST_USE enum apr_code apr_context_check(const struct apr_context_opts *o, struct apr_err *e);
/* The opening has to be known: the tokens of an empty prompt. */
bool apr_context_wants_opening(const struct apr_context_opts *o);
/* What of the prompt a shift keeps: as many tokens as --keep says, or as the opening has in common with it.
 */
APR_MUST_USE enum apr_code apr_context_shift(const struct apr_context_opts *o, const struct apr_ids *opening,
                                             const struct apr_ids *prompt, size_t n_ctx,
                                             struct apr_shift *shift, struct apr_err *e);
/* The name of an option that was given, without dashes; NULL: none. */
const char *apr_context_given(const struct apr_context_opts *o);

#endif

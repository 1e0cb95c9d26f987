/* What to propose, and how much: options that every verb of generation may take.
 *
 *     struct run_args { struct apr_spec_opts spec; ... };  APR_SPEC_OPTS(struct run_args),
 *     apr_spec_defaults(&a->spec); ... TRY(apr_spec_resolve(&a->spec, &o, e));
 */
#ifndef APR_INFER_SPECULATE_OPTS_H
#define APR_INFER_SPECULATE_OPTS_H

#include "opt.h"

struct apr_spec_opts {
    bool lookup;
    const char *ngram; /* "MIN..MAX" or "N"; NULL = the default */
    const char *draft; /* a model; NULL = none */
    int64_t n_max, n_min;
    double p_min;
    size_t n_gram_min, n_gram_max; /* set by apr_spec_resolve */
};
#define APR_SPEC_OPTS(type_)                                                                                 \
    APR_OPT(type_, spec.lookup, "lookup", 0, NULL,                                                           \
            "speculate: verify at once what followed the same words before"),                                \
        APR_OPT(type_, spec.ngram, "lookup-ngram", 0, "MIN..MAX",                                            \
                "tokens that must be the same for --lookup, the most first (default 1..8)"),                 \
        APR_OPT(type_, spec.draft, "draft", 0, "MODEL",                                                      \
                "speculate: verify at once what this smaller model of the same vocabulary guesses"),         \
        APR_OPT(type_, spec.n_max, "draft-max", 0, "N", "propose at most N tokens at once (default 16)"),    \
        APR_OPT(type_, spec.n_min, "draft-min", 0, "N",                                                      \
                "propose at least N where there are, whatever they cost (default 0)"),                       \
        APR_OPT(type_, spec.p_min, "draft-p-min", 0, "P",                                                    \
                "--draft stops where its likeliest token has less than P (default 0.4)")

/* For the manual of such a verb. */
#define APR_SPEC_DETAILS                                                                                     \
    "--lookup and --draft speculate: several tokens are proposed, one step of the model verifies them all, " \
    "and\n"                                                                                                  \
    "from the first that is not the model's own choice on they are dropped. --lookup proposes what "         \
    "followed the\n"                                                                                         \
    "last tokens where they stood before (edited code, quotes, structured text), --draft what a smaller "    \
    "model\n"                                                                                                \
    "guesses. Every token is still chosen from the model's own logits at its place: the text is that of "    \
    "plain\n"                                                                                                \
    "decoding, for any seed; only with --draft and --temperature it is another one, accepted by rejection\n" \
    "sampling and so of the same distribution. How many are proposed follows from the time that wider "      \
    "steps\n"                                                                                                \
    "take here and from how often proposals were right; equal --draft-min and --draft-max fix it. On a GPU " \
    "a\n"                                                                                                    \
    "wider step may round differently. apr batch does not speculate: its steps are wide already.\n"

/* Values that say "not given". */
void apr_spec_defaults(struct apr_spec_opts *o);
/* As given, and defaults for the rest. Out of range, or without effect: APR_EUSAGE naming the option. */
APR_MUST_USE enum apr_code apr_spec_resolve(const struct apr_spec_opts *given, struct apr_spec_opts *o,
                                            struct apr_err *e);
/* The first option given, without dashes, or NULL. */
const char *apr_spec_given(const struct apr_spec_opts *o);
static inline bool apr_spec_is_on(const struct apr_spec_opts *o)
{
    return o->lookup || o->draft;
}

#endif

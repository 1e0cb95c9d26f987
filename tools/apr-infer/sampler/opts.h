/* What shapes the choice of a token: one struct, one table of parameters, one row of options each.
 *
 * The list below is the only one: fields, option names, defaults (the values that change nothing), ranges and
 * help come from it. A struct whose values were "not given" (apr_sample_unset) is filled by options, then
 * apr_sample_resolve puts it over the defaults, or over the model's own values.
 *
 *     struct run_args { struct apr_sample_opts sample; ... };  APR_SAMPLE_OPTS(struct run_args),
 *     apr_sample_unset(&a->sample); ... TRY(apr_sample_resolve(&a->sample, generation_or_NULL, &o, e));
 */
#ifndef APR_INFER_SAMPLER_OPTS_H
#define APR_INFER_SAMPLER_OPTS_H

#include <float.h>

#include "config.h"
#include "opt.h"

#define APR_SAMPLE_SEED  299792458u
#define APR_SAMPLE_ABOVE DBL_MIN /* a least value that is itself excluded: more than 0 */

/* X(T, field, option, value name, step of the chain, neutral value, least, largest, help) */
#define APR_SAMPLE_PARAMS(X, T)                                                                              \
    X(T, temperature, "temperature", "T", "temperature", 0, 0, 100,                                          \
      "sample at temperature T; 0 is greedy (default 0)")                                                    \
    X(T, dynatemp_range, "dynatemp-range", "R", "temperature", 0, 0, 100,                                    \
      "let the temperature follow the entropy, from T - R to T + R")                                         \
    X(T, dynatemp_exponent, "dynatemp-exponent", "E", "temperature", 1, 0, 100,                              \
      "bend of --dynatemp-range (default 1)")                                                                \
    X(T, top_k, "top-k", "K", "top_k", 0, -1, 0x1p31, "sample from the K likeliest tokens (0: all)")         \
    X(T, top_p, "top-p", "P", "top_p", 1, APR_SAMPLE_ABOVE, 1,                                               \
      "sample from the smallest set with probability P (1: all)")                                            \
    X(T, min_p, "min-p", "P", "min_p", 0, 0, 1,                                                              \
      "drop tokens less likely than P times the likeliest (0: none)")                                        \
    X(T, typical_p, "typical-p", "P", "typical", 1, APR_SAMPLE_ABOVE, 1,                                     \
      "sample from the most typical tokens with probability P (1: all)")                                     \
    X(T, tail_free, "tail-free", "Z", "tail_free", 1, APR_SAMPLE_ABOVE, 1,                                   \
      "cut the tail where the curve of probabilities has flattened to Z (1: off)")                           \
    X(T, top_n_sigma, "top-n-sigma", "N", "top_n_sigma", 0, 0, 1e4,                                          \
      "keep logits within N standard deviations of the largest (0: all)")                                    \
    X(T, eta_cutoff, "eta-cutoff", "E", "eta", 0, 0, 1,                                                      \
      "drop tokens less likely than E, less at high entropy (0: none)")                                      \
    X(T, epsilon_cutoff, "epsilon-cutoff", "E", "epsilon", 0, 0, 1,                                          \
      "drop tokens less likely than E (0: none)")                                                            \
    X(T, xtc_probability, "xtc-probability", "P", "xtc", 0, 0, 1,                                            \
      "exclude top choices: with probability P drop all likely tokens but the last")                         \
    X(T, xtc_threshold, "xtc-threshold", "P", "xtc", 0.1, 0, 1,                                              \
      "what --xtc-probability calls likely (default 0.1; above 0.5: off)")                                   \
    X(T, repeat_penalty, "repeat-penalty", "R", "penalties", 1, APR_SAMPLE_ABOVE, 100,                       \
      "make repeated tokens less likely (1: off)")                                                           \
    X(T, presence_penalty, "presence-penalty", "V", "penalties", 0, -100, 100,                               \
      "subtract V from the logits of tokens that occurred")                                                  \
    X(T, frequency_penalty, "frequency-penalty", "V", "penalties", 0, -100, 100,                             \
      "subtract V for each time a token occurred")                                                           \
    X(T, repeat_last_n, "repeat-last-n", "N", "penalties", 64, -1, 0x1p31,                                   \
      "tokens these penalties look back at (default 64; -1: all)")                                           \
    X(T, dry_multiplier, "dry-multiplier", "M", "dry", 0, 0, 1e4,                                            \
      "subtract M * B^(length - L) from what would extend a repetition")                                     \
    X(T, dry_base, "dry-base", "B", "dry", 1.75, 1, 1e3, "B of --dry-multiplier (default 1.75)")             \
    X(T, dry_allowed_length, "dry-allowed-length", "L", "dry", 2, 1, 0x1p31,                                 \
      "L of --dry-multiplier: shorter repetitions are free (default 2)")                                     \
    X(T, dry_last_n, "dry-last-n", "N", "dry", -1, -1, 0x1p31,                                               \
      "tokens that --dry-multiplier looks back at (default -1: all)")                                        \
    X(T, mirostat, "mirostat", "V", "mirostat", 0, 0, 2,                                                     \
      "2: hold the surprise of the text at --mirostat-tau (0: off)")                                         \
    X(T, mirostat_tau, "mirostat-tau", "S", "mirostat", 5, 0, 100,                                           \
      "surprise to hold, in bits a token (default 5)")                                                       \
    X(T, mirostat_eta, "mirostat-eta", "R", "mirostat", 0.1, 0, 1, "rate of correction (default 0.1)")

struct apr_sample_opts {
    double temperature, dynatemp_range, dynatemp_exponent;
    int64_t top_k; /* <= 0 = all */
    double top_p, min_p, typical_p, tail_free, top_n_sigma, eta_cutoff, epsilon_cutoff;
    double xtc_probability, xtc_threshold;
    double repeat_penalty, presence_penalty, frequency_penalty;
    int64_t repeat_last_n; /* 0 = none, -1 = all */
    double dry_multiplier, dry_base;
    int64_t dry_allowed_length, dry_last_n; /* dry_last_n: as repeat_last_n */
    int64_t mirostat;
    double mirostat_tau, mirostat_eta;
    const char *samplers;         /* "penalties;top_k;..."; NULL: the default chain */
    struct apr_strs dry_breakers; /* none: the default ones */
    struct apr_strs logit_bias;   /* "ID+V", "TEXT-V" */
    uint64_t seed;
};

#define APR_SAMPLE_ROW(T, field_, option_, value_, step_, neutral_, least_, largest_, help_)                 \
    APR_OPT(T, sample.field_, option_, 0, value_, help_),
#define APR_SAMPLE_OPTS(T)                                                                                   \
    APR_SAMPLE_PARAMS(APR_SAMPLE_ROW, T)                                                                     \
    APR_OPT(T, sample.temperature, "temp", 0, "T", "the same as --temperature"),                             \
        APR_OPT(T, sample.repeat_penalty, "repetition-penalty", 0, "R", "the same as --repeat-penalty"),     \
        APR_OPT(T, sample.dry_breakers, "dry-sequence-breaker", 0, "TEXT",                                   \
                "text across which repetitions are not counted (repeatable)"),                               \
        APR_OPT(T, sample.logit_bias, "logit-bias", 0, "TOKEN+V",                                            \
                "add V to a token's logit: ID+V, ID-V, TEXT-inf (repeatable)"),                              \
        APR_OPT(T, sample.samplers, "samplers", 0, "LIST",                                                   \
                "the steps of the chain, in this order, with semicolons"),                                   \
        APR_OPT(T, sample.seed, "seed", 0, "N", "seed of the sampler (default 299792458)")

/* One parameter, for whoever walks them: reports, requests in JSON. Its name in JSON is its field's. */
struct apr_sample_param {
    const char *field, *option, *step;
    size_t off;
    bool is_int; /* int64_t, else double */
    double neutral, least, largest;
};
const struct apr_sample_param *apr_sample_params(size_t *n);
double apr_sample_get(const struct apr_sample_opts *o, const struct apr_sample_param *p);
void apr_sample_set(struct apr_sample_opts *o, const struct apr_sample_param *p, double v);
/* Not what apr_sample_unset left. */
bool apr_sample_is_given(const struct apr_sample_opts *o, const struct apr_sample_param *p);

void apr_sample_unset(struct apr_sample_opts *o);
/* Greedy; the neutral value everywhere else. */
void apr_sample_defaults(struct apr_sample_opts *o);
/* Takes the values that the model's own generation_config gives; do_sample false gives greedy. */
void apr_sample_from_model(struct apr_sample_opts *o, const struct apr_generation *g);
/* Defaults, then the model's own (unless NULL), then what was given. Refuses what is out of range, and what
 * would do nothing: a value of a step that the chain lacks, or whose other values leave it off. */
APR_MUST_USE enum apr_code apr_sample_resolve(const struct apr_sample_opts *given,
                                              const struct apr_generation *model, struct apr_sample_opts *out,
                                              struct apr_err *e);
/* Refuses values outside their range: APR_EUSAGE naming the option. */
APR_MUST_USE enum apr_code apr_sample_check(const struct apr_sample_opts *o, struct apr_err *e);
/* The first value given that greedy choice never looks at, or NULL. */
const char *apr_sample_idle(const struct apr_sample_opts *given, const struct apr_sample_opts *o);

#endif

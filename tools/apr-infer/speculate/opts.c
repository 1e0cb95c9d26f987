/* Defaults and ranges. */
#include "opts.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ngrams.h"
#include "pace.h"

#define NOT_GIVEN     INT64_MIN
#define N_MAX_DEFAULT 16
#define P_MIN_DEFAULT 0.4
#define GRAM_MIN      1u
#define GRAM_MAX      8u

void apr_spec_defaults(struct apr_spec_opts *o)
{
    *o = (struct apr_spec_opts){.n_max = NOT_GIVEN, .n_min = NOT_GIVEN, .p_min = NAN};
}

const char *apr_spec_given(const struct apr_spec_opts *o)
{
    return o->lookup               ? "lookup"
           : o->ngram              ? "lookup-ngram"
           : o->draft              ? "draft"
           : o->n_max != NOT_GIVEN ? "draft-max"
           : o->n_min != NOT_GIVEN ? "draft-min"
           : !isnan(o->p_min)      ? "draft-p-min"
                                   : NULL;
}

/* Digits of 1 .. APR_MAX_GRAM; *end behind them. */
static bool parse_size(const char *s, size_t *n, char **end)
{
    if (*s < '0' || *s > '9') return false;
    unsigned long v = strtoul(s, end, 10);
    *n = (size_t)v;
    return v >= 1 && v <= APR_MAX_GRAM;
}

static enum apr_code parse_ngram(struct apr_spec_opts *o, struct apr_err *e)
{
    char *end = NULL;
    o->n_gram_min = GRAM_MIN;
    o->n_gram_max = GRAM_MAX;
    if (!o->ngram) return APR_OK;
    bool ok = parse_size(o->ngram, &o->n_gram_min, &end);
    o->n_gram_max = o->n_gram_min;
    if (ok && !strncmp(end, "..", 2)) ok = parse_size(end + 2, &o->n_gram_max, &end);
    if (ok && !*end && o->n_gram_min <= o->n_gram_max) return APR_OK;
    return apr_fail(e, APR_EUSAGE, "--lookup-ngram: found \"%.40s\", expected N or MIN..MAX, of 1 to %u",
                    o->ngram, APR_MAX_GRAM);
}

static enum apr_code check_count(const char *name, int64_t v, int64_t least, int64_t most, struct apr_err *e)
{
    if (v >= least && v <= most) return APR_OK;
    return apr_fail(e, APR_EUSAGE, "%s: found %" PRId64 ", expected %" PRId64 " to %" PRId64, name, v, least,
                    most);
}

enum apr_code apr_spec_resolve(const struct apr_spec_opts *given, struct apr_spec_opts *o, struct apr_err *e)
{
    const char *option = apr_spec_given(given);
    *o = *given;
    if (option && !apr_spec_is_on(o))
        return apr_fail(e, APR_EUSAGE, "--%s does nothing without --lookup or --draft", option);
    if (o->ngram && !o->lookup)
        return apr_fail(e, APR_EUSAGE, "--lookup-ngram does nothing without --lookup");
    if (!isnan(o->p_min) && !o->draft)
        return apr_fail(e, APR_EUSAGE, "--draft-p-min does nothing without --draft");
    if (o->draft && !strcmp(o->draft, "-"))
        return apr_fail(e, APR_EUSAGE, "--draft: a draft model cannot come from standard input");
    TRY(parse_ngram(o, e));
    if (o->n_max == NOT_GIVEN) o->n_max = o->n_min > N_MAX_DEFAULT ? o->n_min : N_MAX_DEFAULT;
    if (o->n_min == NOT_GIVEN) o->n_min = 0;
    if (isnan(o->p_min)) o->p_min = P_MIN_DEFAULT;
    TRY(check_count("--draft-max", o->n_max, 1, APR_MAX_DRAFT, e));
    TRY(check_count("--draft-min", o->n_min, 0, o->n_max, e));
    if (!(o->p_min >= 0 && o->p_min <= 1))
        return apr_fail(e, APR_EUSAGE, "--draft-p-min: found %g, expected 0 to 1", o->p_min);
    return APR_OK;
}

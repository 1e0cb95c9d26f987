/* Parameters: defaults, ranges, and what may stand beside what. */
#include "opts.h"

#include <math.h>
#include <string.h>

#include "step.h"

#define NOT_GIVEN INT64_MIN

#define ROW(T, field_, option_, value_, step_, neutral_, least_, largest_, help_)                            \
    {.field = #field_,                                                                                       \
     .option = "--" option_,                                                                                 \
     .step = (step_),                                                                                        \
     .off = offsetof(struct apr_sample_opts, field_),                                                        \
     .is_int = _Generic(((struct apr_sample_opts *)0)->field_, int64_t                                       \
                        : true, double                                                                       \
                        : false),                                                                            \
     .neutral = (neutral_),                                                                                  \
     .least = (least_),                                                                                      \
     .largest = (largest_)},
static const struct apr_sample_param params[] = {APR_SAMPLE_PARAMS(ROW, )};
#define N_PARAMS (sizeof params / sizeof *params)

const struct apr_sample_param *apr_sample_params(size_t *n)
{
    *n = N_PARAMS;
    return params;
}

static void *field(const struct apr_sample_opts *o, const struct apr_sample_param *p)
{
    return (char *)(uintptr_t)o + p->off;
}

double apr_sample_get(const struct apr_sample_opts *o, const struct apr_sample_param *p)
{
    return p->is_int ? (double)*(int64_t *)field(o, p) : *(double *)field(o, p);
}

void apr_sample_set(struct apr_sample_opts *o, const struct apr_sample_param *p, double v)
{
    if (p->is_int)
        *(int64_t *)field(o, p) = (int64_t)v;
    else
        *(double *)field(o, p) = v;
}

bool apr_sample_is_given(const struct apr_sample_opts *o, const struct apr_sample_param *p)
{
    return p->is_int ? *(int64_t *)field(o, p) != NOT_GIVEN : !isnan(*(double *)field(o, p));
}

void apr_sample_unset(struct apr_sample_opts *o)
{
    *o = (struct apr_sample_opts){.seed = APR_SAMPLE_SEED};
    for (size_t i = 0; i < N_PARAMS; i++) apr_sample_set(o, &params[i], params[i].is_int ? -0x1p63 : NAN);
}

void apr_sample_defaults(struct apr_sample_opts *o)
{
    *o = (struct apr_sample_opts){.seed = APR_SAMPLE_SEED};
    for (size_t i = 0; i < N_PARAMS; i++) apr_sample_set(o, &params[i], params[i].neutral);
}

void apr_sample_from_model(struct apr_sample_opts *o, const struct apr_generation *g)
{
    if (g->has_temperature) o->temperature = g->temperature;
    if (g->has_top_k) o->top_k = g->top_k;
    if (g->has_top_p) o->top_p = g->top_p;
    if (g->has_min_p) o->min_p = g->min_p;
    if (g->has_repetition_penalty) o->repeat_penalty = g->repetition_penalty;
    if (!g->has_temperature && g->do_sample) o->temperature = 1;
    if (!g->do_sample) o->temperature = 0;
}

enum apr_code apr_sample_check(const struct apr_sample_opts *o, struct apr_err *e)
{
    for (size_t i = 0; i < N_PARAMS; i++) {
        const struct apr_sample_param *p = &params[i];
        double v = apr_sample_get(o, p);
        if (v >= p->least && v <= p->largest) continue;
        if (p->least == APR_SAMPLE_ABOVE)
            return apr_fail(e, APR_EUSAGE, "%s: found %g, expected more than 0, at most %g", p->option, v,
                            p->largest);
        return apr_fail(e, APR_EUSAGE, "%s: found %g, expected %g to %g", p->option, v, p->least, p->largest);
    }
    if (o->mirostat == 1)
        return apr_fail(e, APR_EUSAGE, "--mirostat: found 1, expected 0 or 2 (version 2 of the algorithm)");
    return APR_OK;
}

/* Given, and not the value that changes nothing. */
static bool is_wanted(const struct apr_sample_opts *given, const struct apr_sample_param *p)
{
    if (!apr_sample_is_given(given, p)) return false;
    double v = apr_sample_get(given, p);
    return v != p->neutral && !(p->off == offsetof(struct apr_sample_opts, temperature) && v == 1);
}

/* What was asked for must have an effect: option is one of the step's. */
static enum apr_code check_step(const struct apr_sample_opts *o, const char *name, const char *option,
                                struct apr_err *e)
{
    const struct apr_step *step = apr_step_find(name, strlen(name));
    if (!apr_steps_have(o, step->name))
        return apr_fail(e, APR_EUSAGE, "%s: the chain of %s has no step %s", option,
                        o->samplers   ? "--samplers"
                        : o->mirostat ? "--mirostat"
                                      : "steps",
                        step->name);
    if (!step->active(o))
        return apr_fail(e, APR_EUSAGE, "%s does nothing with these values: step %s is off, see %s", option,
                        step->name, step->needs);
    return APR_OK;
}

enum apr_code apr_sample_resolve(const struct apr_sample_opts *given, const struct apr_generation *model,
                                 struct apr_sample_opts *out, struct apr_err *e)
{
    const struct apr_step *steps[APR_MAX_STEPS];
    size_t n_steps;
    apr_sample_defaults(out);
    if (model) apr_sample_from_model(out, model);
    for (size_t i = 0; i < N_PARAMS; i++)
        if (apr_sample_is_given(given, &params[i]))
            apr_sample_set(out, &params[i], apr_sample_get(given, &params[i]));
    out->samplers = given->samplers;
    out->dry_breakers = given->dry_breakers;
    out->logit_bias = given->logit_bias;
    out->seed = given->seed;
    TRY(apr_sample_check(out, e));
    TRY(apr_steps_of(out, steps, &n_steps, e));
    for (size_t i = 0; i < N_PARAMS; i++)
        if (is_wanted(given, &params[i])) TRY(check_step(out, params[i].step, params[i].option, e));
    if (given->dry_breakers.n) TRY(check_step(out, "dry", "--dry-sequence-breaker", e));
    if (out->dynatemp_range == 0 && out->dynatemp_exponent != 1)
        return apr_fail(e, APR_EUSAGE, "--dynatemp-exponent does nothing without --dynatemp-range");
    return APR_OK;
}

const char *apr_sample_idle(const struct apr_sample_opts *given, const struct apr_sample_opts *o)
{
    if (o->temperature > 0) return NULL;
    for (size_t i = 0; i < N_PARAMS; i++)
        if (is_wanted(given, &params[i])) return params[i].option;
    return given->samplers ? "--samplers" : NULL;
}

/* A step of the chain: one file, one row in table.c.
 *
 *     const struct apr_step apr_step_top_k = {.name = "top_k", .active = is_active, .apply = apply};
 */
#ifndef APR_INFER_SAMPLER_STEP_H
#define APR_INFER_SAMPLER_STEP_H

#include "sampler.h"

struct apr_step {
    const char *name;    /* in --samplers and in reports */
    const char *aliases; /* other spellings of it, with blanks; or NULL */
    const char *needs;   /* the option that switches it on */
    bool not_in_default; /* only where --samplers or its own option asks for it */
    bool is_last;        /* nothing may follow */
    /* Whether it does anything with these values. */
    bool (*active)(const struct apr_sample_opts *o);
    /* Narrows or changes s->c. */
    void (*apply)(struct apr_sampler *s);
    /* The token drawn had probability p; or NULL. */
    void (*drawn)(struct apr_sampler *s, double p);
};

/* In the order of the default chain; ends with NULL. */
extern const struct apr_step *const apr_steps[];
const struct apr_step *apr_step_find(const char *name, size_t n_bytes);
/* The steps that opts name, or the default chain; those without effect are left out of steps. */
APR_MUST_USE enum apr_code apr_steps_of(const struct apr_sample_opts *o,
                                        const struct apr_step *steps[APR_MAX_STEPS], size_t *n_steps,
                                        struct apr_err *e);
/* Whether the chain that opts ask for has the step of this name, with effect or without. */
bool apr_steps_have(const struct apr_sample_opts *o, const char *name);

extern const struct apr_step apr_step_penalties, apr_step_dry, apr_step_top_n_sigma, apr_step_top_k,
    apr_step_typical, apr_step_tail_free, apr_step_top_p, apr_step_min_p, apr_step_eta, apr_step_epsilon,
    apr_step_xtc, apr_step_temperature, apr_step_mirostat;

#endif

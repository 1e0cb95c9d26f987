/* The steps, and the chain that options ask for. */
#include "step.h"

#include <string.h>

const struct apr_step *const apr_steps[] = {&apr_step_penalties,   &apr_step_dry,
                                            &apr_step_top_n_sigma, &apr_step_top_k,
                                            &apr_step_typical,     &apr_step_tail_free,
                                            &apr_step_top_p,       &apr_step_min_p,
                                            &apr_step_eta,         &apr_step_epsilon,
                                            &apr_step_xtc,         &apr_step_temperature,
                                            &apr_step_mirostat,    NULL};
_Static_assert(sizeof apr_steps / sizeof *apr_steps <= APR_MAX_STEPS, "apr_steps");

#define MIROSTAT_CHAIN "penalties;dry;temperature;mirostat"

/* "top-k" is "top_k". */
static bool same(const char *name, const char *word, size_t n_bytes)
{
    size_t i = 0;
    for (; i < n_bytes && name[i] && (name[i] == word[i] || (name[i] == '_' && word[i] == '-')); i++) {
    }
    return i == n_bytes && (name[i] == '\0' || name[i] == ' ');
}

const struct apr_step *apr_step_find(const char *name, size_t n_bytes)
{
    for (size_t i = 0; apr_steps[i]; i++) {
        if (same(apr_steps[i]->name, name, n_bytes)) return apr_steps[i];
        for (const char *a = apr_steps[i]->aliases; a && *a; a += strcspn(a, " "), a += *a == ' ')
            if (same(a, name, n_bytes)) return apr_steps[i];
    }
    return NULL;
}

static enum apr_code unknown(const char *name, size_t n_bytes, struct apr_err *e)
{
    char names[256] = "";
    size_t n = 0;
    for (size_t i = 0; apr_steps[i]; i++) {
        const char *step = apr_steps[i]->name;
        if (n + strlen(step) + 2 > sizeof names) break;
        if (n) names[n++] = ' ';
        memcpy(names + n, step, strlen(step) + 1);
        n += strlen(step);
    }
    return apr_fail(e, APR_EUSAGE, "--samplers: unknown step \"%.*s\"; known: %s", (int)n_bytes, name, names);
}

/* Every step of a list, whether it does something or not. */
static enum apr_code parse(const char *list, const struct apr_step *steps[APR_MAX_STEPS], size_t *n_steps,
                           struct apr_err *e)
{
    *n_steps = 0;
    for (const char *p = list;; p++) {
        size_t n = strcspn(p, ";");
        const struct apr_step *step = apr_step_find(p, n);
        if (!step) return unknown(p, n, e);
        for (size_t i = 0; i < *n_steps; i++)
            if (steps[i] == step) return apr_fail(e, APR_EUSAGE, "--samplers: %s stands twice", step->name);
        if (*n_steps && steps[*n_steps - 1]->is_last)
            return apr_fail(e, APR_EUSAGE, "--samplers: %s must be the last step", steps[*n_steps - 1]->name);
        steps[(*n_steps)++] = step;
        p += n;
        if (!*p) return APR_OK;
    }
}

static enum apr_code all_steps(const struct apr_sample_opts *o, const struct apr_step *steps[APR_MAX_STEPS],
                               size_t *n_steps, struct apr_err *e)
{
    if (o->samplers) return parse(o->samplers, steps, n_steps, e);
    if (o->mirostat) return parse(MIROSTAT_CHAIN, steps, n_steps, e);
    *n_steps = 0;
    for (size_t i = 0; apr_steps[i]; i++)
        if (!apr_steps[i]->not_in_default) steps[(*n_steps)++] = apr_steps[i];
    return APR_OK;
}

enum apr_code apr_steps_of(const struct apr_sample_opts *o, const struct apr_step *steps[APR_MAX_STEPS],
                           size_t *n_steps, struct apr_err *e)
{
    size_t n_all, n = 0;
    TRY(all_steps(o, steps, &n_all, e));
    for (size_t i = 0; i < n_all; i++)
        if (steps[i]->active(o)) steps[n++] = steps[i];
    *n_steps = n;
    return APR_OK;
}

bool apr_steps_have(const struct apr_sample_opts *o, const char *name)
{
    const struct apr_step *steps[APR_MAX_STEPS];
    struct apr_err e;
    size_t n;
    if (all_steps(o, steps, &n, &e) != APR_OK) return false;
    for (size_t i = 0; i < n; i++)
        if (!strcmp(steps[i]->name, name)) return true;
    return false;
}

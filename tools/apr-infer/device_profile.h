/* Where the time of a model goes on a device: its rates, and the launches of a prompt and of a token.
 *
 * Rates are measured as users see them (prompts of n_prompt tokens, then n_gen tokens chosen on the device);
 * launches are timed by themselves, in a graph that keeps them apart. Their sum exceeds the step's own time,
 * in which they overlap.
 *
 *     struct apr_device_profile d; TRY(apr_device_profile_run(&d, &s, &size, arena, e));
 *     apr_device_profile_out(o, &d, granular); d.toks_per_s ...
 */
#ifndef APR_INFER_DEVICE_PROFILE_H
#define APR_INFER_DEVICE_PROFILE_H

#include "launches.h"
#include "profile.h"

struct apr_device_phase {
    struct apr_launches launches;
    double *pass_ms; /* [n_passes] of a prompt; of a token */
    size_t n_passes, n_toks;
    struct apr_summary latency_ms;
    double toks_per_s;
};

struct apr_device_profile {
    struct apr_session *session; /* borrowed */
    struct apr_device_phase phases[APR_N_PHASES];
};

APR_MUST_USE enum apr_code apr_device_profile_run(struct apr_device_profile *d, struct apr_session *s,
                                                  const struct apr_profile_size *size,
                                                  struct apr_arena *arena, struct apr_err *e);
/* What a token must read over what the memory gives, in the time that it takes: percent. */
double apr_device_profile_bandwidth(const struct apr_device_profile *d);
void apr_device_profile_out(struct apr_out *o, const struct apr_device_profile *d, bool granular, bool alone);

#endif

/* Generating one answer: prompt ids in, tokens and text out, one token at a time. What is chosen and what it
 * becomes is reply.h's; here the model is stepped.
 *
 *     struct apr_reply r; apr_reply_init(&r, &opts, &site);
 *     TRY(apr_generate(&session, &r, ids, n, &(struct apr_ways){.spec = NULL}, e)); ... apr_reply_free(&r);
 */
#ifndef APR_INFER_GENERATE_H
#define APR_INFER_GENERATE_H

#include "prompt_cache.h"
#include "reply.h"
#include "session.h"
#include "shift.h"
#include "speculate/spec.h"

/* Classifier-free guidance: a second sequence that begins with other tokens, and goes on with the same. */
struct apr_guide {
    double scale;
    struct apr_ids ids; /* the caller's */
};

/* What else takes part; all borrowed, zeroed: nothing. */
struct apr_ways {
    const struct apr_guide *guide;
    struct apr_spec *spec;          /* opened for this model */
    struct apr_prompt_cache *saved; /* opened for this model */
    struct apr_shift shift;         /* n_keep is checked; the guide keeps no more than its own prompt */
};

/* Starts from an empty cache. */
APR_MUST_USE enum apr_code apr_generate(struct apr_session *s, struct apr_reply *r, const int32_t *ids,
                                        size_t n_ids, const struct apr_ways *ways, struct apr_err *e);

#endif

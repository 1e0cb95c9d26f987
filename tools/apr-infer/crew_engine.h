/* A session as the engine of a crew.
 *
 *     struct apr_crew_engine ce; TRY(apr_crew_engine_open(&ce, &session, n_seats, e));
 *     TRY(apr_crew_open(&crew, &ce.engine, n_seats, e)); ... apr_crew_close(&crew);
 * apr_crew_engine_close(&ce);
 */
#ifndef APR_INFER_CREW_ENGINE_H
#define APR_INFER_CREW_ENGINE_H

#include "crew.h"
#include "prefixes.h"
#include "prompt_cache.h"
#include "session.h"

struct apr_crew_engine {
    struct apr_engine engine;
    struct apr_session *s; /* borrowed; its own cache is not used */
    struct apr_prefixes prefixes;
    struct apr_prompt_cache *saved;  /* borrowed; NULL: nothing is to be saved, or it has been */
    size_t n_seats, n_kept;          /* positions of prompts that nobody uses now */
    struct apr_arena arena;          /* owns all below */
    struct apr_part *parts;          /* [n_seats] of a step */
    struct apr_offload_draws *draws; /* [n_seats] */
    size_t *rows;                    /* [n_seats] whose logits are wanted */
    float *logits;                   /* [n_seats, n_vocab]; NULL on a device, where they are kept */
};

/* Prompts share what they begin with, but not on a device. Positions for all are bounded by what n_seats can
 * fill and by half of the memory that is free. */
APR_MUST_USE enum apr_code apr_crew_engine_open(struct apr_crew_engine *ce, struct apr_session *s,
                                                size_t n_seats, struct apr_err *e);
/* Prompts share with the one that p, opened for the session, has on disk. Where there is no file yet, the
 * first prompt that is computed is saved. Not on a device. */
APR_MUST_USE enum apr_code apr_crew_engine_recall(struct apr_crew_engine *ce, struct apr_prompt_cache *p,
                                                  struct apr_err *e);
void apr_crew_engine_close(struct apr_crew_engine *ce);

#endif

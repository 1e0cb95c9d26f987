/* What was said: the last tokens, and where a sequence breaker ended. For penalties and DRY.
 *
 *     TRY(apr_history_init(&h, n_max, n_vocab, tok, &breakers, arena, e)); TRY(apr_history_add(&h, id, e));
 *     n = apr_history_counts(&h, 64); for (i < n) h.ids[i], h.counts[h.ids[i]]
 */
#ifndef APR_INFER_SAMPLER_HISTORY_H
#define APR_INFER_SAMPLER_HISTORY_H

#include <stdbool.h>

#include "arena.h"
#include "opt.h"
#include "tok/tok.h"

#define APR_MAX_BREAKERS      64u
#define APR_MAX_BREAKER_BYTES 64u

struct apr_history {
    const struct apr_tok *tok; /* borrowed; NULL: no breakers */
    size_t n_vocab, n_max;
    int32_t *ring;    /* [n_max] */
    bool *breaks;     /* [n_max] a breaker ends inside this token, or at its end */
    size_t n_seen;    /* in all */
    uint32_t *counts; /* [n_vocab] scratch of the users; valid for ids[] of the same call */
    uint32_t *round;  /* [n_vocab] in which counts was set last */
    uint32_t i_round;
    int32_t *ids;                        /* [n_max] distinct tokens */
    int32_t *back;                       /* [n_max] the tokens, the newest first */
    uint32_t *lengths;                   /* [n_max] scratch */
    const struct apr_strs *breakers;     /* borrowed */
    uint8_t tail[APR_MAX_BREAKER_BYTES]; /* the last bytes of the text */
    size_t n_tail;
};

/* n_max 0: nothing is remembered. */
APR_MUST_USE enum apr_code apr_history_init(struct apr_history *h, size_t n_max, size_t n_vocab,
                                            const struct apr_tok *tok, const struct apr_strs *breakers,
                                            struct apr_arena *arena, struct apr_err *e);
APR_MUST_USE enum apr_code apr_history_add(struct apr_history *h, int32_t id, struct apr_err *e);
/* Distinct tokens among the last n (SIZE_MAX: all), in ids, with their counts. Returns how many. */
size_t apr_history_counts(struct apr_history *h, size_t n);
/* A new round of counts: the first touch of an id gives false and clears it. */
void apr_history_round(struct apr_history *h);
bool apr_history_touched(struct apr_history *h, int32_t id);
/* The last n tokens, newest first, in back; returns how many there are. */
size_t apr_history_back(struct apr_history *h, size_t n);
/* How many tokens stand after the last breaker (all that are remembered where there is none). */
size_t apr_history_unbroken(const struct apr_history *h);

#endif

/* Many answers at once: a crew of sequences that share every step of the model.
 *
 * Each step takes one token of every sequence that is answering and, as far as the step has room, the next
 * tokens of prompts: the oldest first, so that no answer waits for a long prompt. A place that falls free is
 * taken by the next sequence. A prompt that begins as another which is being computed waits for it, and takes
 * over what is computed. The forward pass is batch-invariant (forward.h): what a sequence says does not
 * depend on who is beside it.
 *
 *     struct apr_crew c; TRY(apr_crew_open(&c, &engine, n_seats, e));
 *     if (apr_crew_has_room(&c, n_positions)) TRY(apr_crew_admit(&c, &seat, e));
 *     TRY(apr_crew_step(&c, e)); while ((seat = apr_crew_finished(&c))) { ... apr_crew_leave(&c, seat); }
 *     apr_crew_close(&c);
 */
#ifndef APR_INFER_CREW_H
#define APR_INFER_CREW_H

#include "cache.h"
#include "logprobs.h"
#include "pool.h"
#include "reply.h"
#include "sampler/device.h"

#define APR_MAX_SEATS 256u

/* One sequence's share of a step. */
struct apr_turn {
    struct apr_cache *cache;
    const int32_t *ids;
    size_t n;
    size_t n_later; /* tokens of the prompt that later steps bring */
    bool wants_logits;
    /* For go_on: how the tokens are drawn (sampler/device.h), bits [n]; NULL: by the largest logit. */
    const struct apr_gpu_chain *chain;
    const uint64_t *bits;
    /* Set by the engine where they are wanted: */
    const float *logits; /* [n_vocab] of the last token, until the next step */
    enum apr_code code;  /* of these logits */
    struct apr_err err;
};

/* What steps the model; crew_engine.h has the real one. */
struct apr_engine {
    void *ctx;
    size_t n_batch; /* most tokens of a step */
    size_t n_vocab;
    size_t n_ctx;          /* most positions of a sequence */
    size_t n_positions;    /* of all sequences together */
    struct apr_pool *pool; /* for the choice of tokens, sequence by sequence; NULL: the caller alone */
    /* For a prompt of n tokens; cache->n_pos < n of them are there already. */
    enum apr_code (*open)(void *ctx, struct apr_cache *cache, const int32_t *ids, size_t n,
                          struct apr_err *e);
    void (*close)(void *ctx, struct apr_cache *cache); /* also of one that open refused */
    /* The prompt is computed, and its whole blocks of APR_PAGE_POS tokens are there for others that begin
     * the same; n_need: positions that the crew may use. NULL: nothing is shared. */
    enum apr_code (*keep)(void *ctx, struct apr_cache *cache, size_t n_need, struct apr_err *e);
    /* Distinct caches; n >= 1 each, n_batch in all at most. */
    enum apr_code (*step)(void *ctx, struct apr_turn *turns, size_t n_turns, struct apr_err *e);
    /* For turns of one token each: appends it and the tokens that follow as their chains or the largest
     * logits have it, n in all; out: [n_turns, n_ahead] what was chosen after each, *n_out of every one.
     * APR_EUNAVAIL: step has to do it. NULL: it always has to. */
    enum apr_code (*go_on)(void *ctx, const struct apr_turn *turns, size_t n_turns, size_t n, int32_t *out,
                           size_t *n_out, struct apr_err *e);
    size_t n_ahead; /* most tokens of go_on */
    bool
        recovers; /* a step that failed is an error of its sequences, and others may succeed; false: of all */
};

/* A place and the sequence in it. The user fills sampler, limit, reply and ids between take and admit. */
struct apr_seat {
    struct apr_arena arena; /* of sampler and limit; freed by leave */
    struct apr_sampler sampler;
    struct apr_limit limit;
    struct apr_reply reply;
    struct apr_ids ids; /* owned: the prompt */
    bool has_logprobs;
    struct apr_logprobs logprobs;
    void *tag; /* the user's */

    struct apr_cache cache;
    size_t n_need;   /* positions that may be used */
    size_t n_fed;    /* tokens of the prompt that are computed */
    size_t n_shared; /* of these, those that were there */
    size_t i_seat, i_age;
    int32_t next; /* the token chosen last, which the next step computes */
    bool is_taken, is_running, is_open, is_over;
    enum apr_code code; /* why it failed */
    struct apr_err err;
};

struct apr_crew {
    const struct apr_engine *engine; /* borrowed */
    struct apr_arena arena;
    struct apr_seat *seats; /* [n_seats] */
    size_t n_seats, n_taken, n_running;
    size_t n_need;                /* positions that those who are here may use */
    struct apr_turn *turns;       /* [n_seats] of the step */
    size_t *turn_seat;            /* [n_seats] */
    int32_t *chosen;              /* [n_seats, n_ahead] by the engine */
    struct apr_gpu_chain *chains; /* [n_seats] of turns */
    uint64_t *bits;               /* [n_seats, n_ahead] */
    size_t i_age;
    uint64_t n_steps, n_prompt_toks, n_shared_toks, n_reply_toks; /* so far; prompt: computed */
};

/* Memory for n_seats; the engine outlives the crew. */
APR_MUST_USE enum apr_code apr_crew_open(struct apr_crew *c, const struct apr_engine *engine, size_t n_seats,
                                         struct apr_err *e);
void apr_crew_close(struct apr_crew *c);
/* There is a place, and n_need positions for it (one sequence alone always has them). */
bool apr_crew_has_room(const struct apr_crew *c, size_t n_need);
/* A free seat, emptied, for the user to fill; NULL: none. Ends with admit or leave. */
struct apr_seat *apr_crew_take(struct apr_crew *c);
/* n_need: positions that it may use. The prompt is seen by the sampler now. */
APR_MUST_USE enum apr_code apr_crew_admit(struct apr_crew *c, struct apr_seat *seat, size_t n_need,
                                          struct apr_err *e);
/* One step of all who run; no effect without any. What concerns single sequences is in their seats; an
 * error here ends them all. */
APR_MUST_USE enum apr_code apr_crew_step(struct apr_crew *c, struct apr_err *e);
/* A seat whose answer is complete or has failed (code); NULL: none. */
struct apr_seat *apr_crew_finished(struct apr_crew *c);
/* The seat is free again; reply, ids and logprobs are freed. */
void apr_crew_leave(struct apr_crew *c, struct apr_seat *seat);

#endif

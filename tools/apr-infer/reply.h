/* One answer in the making: its tokens, its text, and why it ends. Whoever owns it computes the logits.
 *
 * Text leaves as soon as it is certain: never half a UTF-8 character, never part of a stop string. One
 * sequence (generate.h) and many at once (batch) differ only in who steps the model, so their answers cannot.
 *
 *     struct apr_reply r; apr_reply_init(&r, &opts, &site); TRY(apr_reply_prompt(&r, ids, n, e));
 *     while (!r.is_over) { logits of the last token; TRY(apr_reply_next(&r, logits, n_room, &id, e)); }
 *     TRY(apr_reply_end(&r, e)); r.text, r.ids, r.finish ... apr_reply_free(&r);
 */
#ifndef APR_INFER_REPLY_H
#define APR_INFER_REPLY_H

#include "model.h"
#include "sampler/sampler.h"

/* Takes the next bytes of the text. */
struct apr_text_sink {
    enum apr_code (*write)(void *ctx, const char *p, size_t n_bytes, struct apr_err *e);
    void *ctx;
};

struct apr_reply_opts {
    size_t n_max;                 /* tokens at most */
    const struct apr_strs *stops; /* borrowed; NULL = none */
    bool ignore_eos;
};

/* What answers of one model share; all borrowed. */
struct apr_reply_site {
    struct apr_sampler *sampler; /* with its limit: this answer's own */
    const struct apr_tok *tok;   /* NULL: tokens without text */
    const struct apr_generation *ends;
    const struct apr_text_sink *to; /* NULL: the text is only kept */
};

struct apr_reply {
    struct apr_reply_opts opts;
    struct apr_reply_site site;
    struct apr_ids ids;  /* owned: what was generated, the end token included */
    struct apr_buf text; /* owned: what was emitted */
    bool is_over;
    const char *finish; /* "stop": end token, stop string or end of the grammar; "length": n_max or the
                           context's end */
    size_t n_prompt;
    size_t n_reused; /* tokens of the prompt that were computed before: set by who steps the model */
    double prompt_s; /* until the first token was chosen */
    double decode_s; /* the others */

    struct apr_utf8_gate gate;
    struct apr_buf piece, held;
    bool is_cut; /* by a stop string */
    int64_t ns_start, ns_first;
};

void apr_reply_init(struct apr_reply *r, const struct apr_reply_opts *o, const struct apr_reply_site *site);
void apr_reply_free(struct apr_reply *r);
/* The tokens before the answer, for the sampler; the clock starts. Without one: APR_EUSAGE. */
APR_MUST_USE enum apr_code apr_reply_prompt(struct apr_reply *r, const int32_t *ids, size_t n,
                                            struct apr_err *e);
/* Tokens that may still come where the sequence has room for n_room more positions: the last one needs none.
 */
size_t apr_reply_n_left(const struct apr_reply *r, size_t n_room);
/* Chooses the next token; nothing is taken yet. */
APR_MUST_USE enum apr_code apr_reply_choose(struct apr_reply *r, const float *logits, size_t n_room,
                                            int32_t *id, struct apr_err *e);
/* id, chosen here or elsewhere, is the next token. */
APR_MUST_USE enum apr_code apr_reply_take(struct apr_reply *r, int32_t id, struct apr_err *e);
/* Both. */
APR_MUST_USE enum apr_code apr_reply_next(struct apr_reply *r, const float *logits, size_t n_room,
                                          int32_t *id, struct apr_err *e);
/* No token follows: is_over says why, or finish is "length". The text that was held back leaves. A grammar
 * that is not satisfied: APR_EINFER. */
APR_MUST_USE enum apr_code apr_reply_end(struct apr_reply *r, struct apr_err *e);
/* Tokens a second, 0 where nothing was measured. */
double apr_reply_prompt_rate(const struct apr_reply *r);
double apr_reply_decode_rate(const struct apr_reply *r);

/* How many bytes of held can go out now; *stopped when a stop string was found (they end before it). last: no
 * more text follows. For its test. */
size_t apr_stop_scan(const struct apr_strs *stops, const char *held, size_t n_held, bool last, bool *stopped);

#endif

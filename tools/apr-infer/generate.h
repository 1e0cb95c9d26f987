/* Generating text: prompt ids in, tokens and text out, one token at a time.
 *
 * Text leaves as soon as it is certain: never half a UTF-8 character, never part of a stop string.
 *
 *     struct apr_gen g; apr_gen_init(&g, &opts);
 *     TRY(apr_generate(&session, &sampler, ids, n, &g, &to, e)); ... apr_gen_free(&g);
 */
#ifndef APR_INFER_GENERATE_H
#define APR_INFER_GENERATE_H

#include "sampler/sampler.h"
#include "session.h"

struct apr_gen_opts {
    size_t n_max;                 /* tokens at most */
    const struct apr_strs *stops; /* borrowed; NULL = none */
    bool ignore_eos;
    /* Classifier-free guidance: a second sequence that begins with other tokens, and goes on with the same.
     */
    double guide_scale;
    const struct apr_ids *guide; /* borrowed; NULL = none */
};

struct apr_gen {
    struct apr_gen_opts opts;
    struct apr_ids ids;  /* owned: what was generated, the end token included */
    struct apr_buf text; /* owned: what was emitted */
    const char *finish;  /* "stop": end token or stop string; "length": n_max or the context's end */
    size_t n_prompt;
    double prompt_s; /* prefill, until the first token was chosen */
    double decode_s; /* the others */
};

/* Takes the next bytes of the text. */
struct apr_text_sink {
    enum apr_code (*write)(void *ctx, const char *p, size_t n_bytes, struct apr_err *e);
    void *ctx;
};

void apr_gen_init(struct apr_gen *g, const struct apr_gen_opts *o);
void apr_gen_free(struct apr_gen *g);
/* Starts from an empty cache. to may be NULL. */
APR_MUST_USE enum apr_code apr_generate(struct apr_session *s, struct apr_sampler *sampler,
                                        const int32_t *ids, size_t n_ids, struct apr_gen *g,
                                        const struct apr_text_sink *to, struct apr_err *e);
/* Tokens a second, 0 where nothing was measured. */
double apr_gen_prompt_rate(const struct apr_gen *g);
double apr_gen_decode_rate(const struct apr_gen *g);

/* How many bytes of held can go out now; *stopped when a stop string was found (they end before it). last: no
 * more text follows. For its test. */
size_t apr_stop_scan(const struct apr_strs *stops, const char *held, size_t n_held, bool last, bool *stopped);

#endif

/* From sound to timed text: windows of 30 seconds, decoded one after the other.
 *
 * The published procedure: a window is decoded greedily; where the text repeats itself or is unlikely it is
 * decoded again at higher temperatures, and where it is probably silence it is left out. The next window
 * begins where the last complete segment ended. What was said before is the prompt of what follows.
 *
 * The engine is a table of functions, so that a test can script what the model says.
 *
 *     struct apr_asr a = {.engine = &engine, .tokens = &tokens, .opts = opts, .take = take, .ctx = ctx};
 *     TRY(apr_asr_run(&a, frames, n_frames, kern, e)); ... a.language, a.n_segments
 */
#ifndef APR_INFER_ASR_H
#define APR_INFER_ASR_H

#include "asr_rules.h"
#include "sampler/sampler.h"
#include "tok/tok.h"

#define APR_ASR_FRAME_S 0.01

struct apr_asr_engine {
    void *ctx;
    size_t n_ctx;    /* positions of the decoder */
    size_t n_window; /* frames of a window */
    size_t n_mels;
    enum apr_code (*encode)(void *ctx, const float *frames, size_t n_frames, struct apr_err *e);
    /* n tokens behind those before; logits: [n_rows, n_vocab] of the last n_rows */
    enum apr_code (*decode)(void *ctx, const int32_t *ids, size_t n, size_t n_rows, float *logits,
                            struct apr_err *e);
    void (*rewind)(void *ctx, size_t n_pos); /* only the first n_pos tokens were said */
    enum apr_code (*text)(void *ctx, const int32_t *ids, size_t n, struct apr_buf *out, struct apr_err *e);
};

struct apr_asr_opts {
    const char *language; /* NULL: detected in the first window */
    bool translate;
    bool no_timestamps; /* windows are segments */
    bool no_context;    /* a window does not know what was said before */
    double temperature; /* of the first attempt */
    double increment;   /* for each further one, up to 1; 0 = one attempt */
    double max_ratio;   /* bytes of text to bytes of it compressed */
    double min_logprob; /* mean over tokens */
    double max_silence; /* probability of no speech */
    uint64_t n_best;    /* samples of an attempt at a temperature above 0 */
    size_t n_max;       /* tokens of a window; 0 = half the decoder's positions */
    uint64_t seed;
    const int32_t *prompt; /* said before the first window */
    size_t n_prompt;
};
void apr_asr_defaults(struct apr_asr_opts *o);

struct apr_asr_segment {
    size_t i;
    double start_s, end_s;
    const char *text; /* [n_text], valid during the call */
    size_t n_text;
    const int32_t *ids; /* with times */
    size_t n_ids;
    double temperature, avg_logprob, ratio, no_speech;
};
typedef enum apr_code apr_asr_take_fn(void *ctx, const struct apr_asr_segment *s, struct apr_err *e);

struct apr_asr {
    const struct apr_asr_engine *engine;
    const struct apr_asr_tokens *tokens;
    struct apr_asr_opts opts;
    apr_asr_take_fn *take;
    void *ctx; /* of take */
    /* Called after each window with the frames done; NULL = none. */
    void (*progress)(void *ctx, size_t n_frames);
    /* out */
    const char *language; /* code, or NULL: the model has no choice */
    double language_p;    /* of the detection; 1 when it was given */
    size_t n_segments, n_windows, n_attempts, n_tokens;
};

APR_MUST_USE enum apr_code apr_asr_run(struct apr_asr *a, const float *frames, size_t n_frames,
                                       const struct apr_kern *kern, struct apr_err *e);

#endif

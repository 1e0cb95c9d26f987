/* The forward pass of a speech recognizer (encoder-decoder over log-mel frames).
 *
 * A window of sound is encoded once; the keys and values of the decoder's cross attention are computed then,
 * too. The decoder runs any number of tokens at a time and can be set back to an earlier position. The
 * reference mode (exact) keeps activations and caches in f32. A row's values do not depend on how many run
 * beside it.
 *
 *     struct apr_speech s; TRY(apr_speech_open(&s, &checked, kern, pool, exact, e));
 *     TRY(apr_speech_encode(&s, frames, n_frames, e));
 *     TRY(apr_speech_decode(&s, ids, n, 1, logits, e)); ... s.n_pos = n_prompt; ... apr_speech_close(&s);
 */
#ifndef APR_INFER_SPEECH_H
#define APR_INFER_SPEECH_H

#include "bind.h"
#include "contract.h"

struct apr_speech {
    struct apr_arena arena; /* owns what is not the stacks' */
    const struct apr_config *cfg;
    size_t n_frames_most; /* of a window: two for each position of the encoder */
    size_t n_ctx;         /* positions of the decoder */
    size_t n_pos;         /* of them filled */
    const float *encoded; /* [n_ctx_audio, n_hidden] */

    struct apr_mat conv1, conv2; /* [n_hidden, n_mels * 3], [n_hidden, n_hidden * 3] */
    struct apr_rows enc_positions, embed, positions;
    struct apr_lnorm enc_norm, norm;
    struct apr_block *enc_blocks, *blocks; /* [n_layers_enc], [n_layers] */
    struct apr_mat head;                   /* [n_vocab, n_hidden] */
    struct apr_stack enc, dec;
    struct apr_acts conv1_in, conv2_in;
    float *conv1_out; /* [n_frames_most, n_hidden] */

    bool is_f32;                /* of the caches; else F16 */
    size_t n_value_bytes;       /* 4 or 2 */
    uint8_t *self_k, *self_v;   /* [n_layers, n_ctx, n_hidden] */
    uint8_t *cross_k, *cross_v; /* [n_layers, n_ctx_audio, n_hidden] */
};

APR_MUST_USE enum apr_code apr_speech_open(struct apr_speech *s, const struct apr_checked_model *m,
                                           const struct apr_kern *kern, struct apr_pool *pool, bool exact,
                                           struct apr_err *e);
void apr_speech_close(struct apr_speech *s);
/* frames: [n_frames, n_mels], n_frames <= n_frames_most; zeros follow. Empties the decoder. */
APR_MUST_USE enum apr_code apr_speech_encode(struct apr_speech *s, const float *frames, size_t n_frames,
                                             struct apr_err *e);
/* Runs n >= 1 tokens at positions n_pos ..; logits: [n_rows, n_vocab] of the last n_rows of them. Beyond
 * n_ctx or an id outside the vocabulary: APR_EUSAGE; values that are not finite: APR_EINFER. */
APR_MUST_USE enum apr_code apr_speech_decode(struct apr_speech *s, const int32_t *ids, size_t n,
                                             size_t n_rows, float *logits, struct apr_err *e);

#endif

/* Sound at the rate that the model hears: 16 kHz, by a windowed-sinc polyphase filter.
 *
 * Kaiser window, 64 zero crossings to either side, -6 dB at 0.95 of the lower Nyquist frequency: flat within
 * 0.001 dB below 0.9 of it, aliases 100 dB down. Output sample i stands at time i / 16000 exactly. The
 * samples do not depend on the number of threads.
 *
 *     float *x; size_t n; TRY(apr_resample_16k(&wav, pool, arena, &x, &n, e));
 */
#ifndef APR_INFER_AUDIO_RESAMPLE_H
#define APR_INFER_AUDIO_RESAMPLE_H

#include "arena.h"
#include "audio_wav.h"
#include "pool.h"

#define APR_AUDIO_RATE 16000u

/* *out: [*n] in the arena, *n = ceil(frames * 16000 / rate). */
APR_MUST_USE enum apr_code apr_resample_16k(const struct apr_wav *w, struct apr_pool *pool,
                                            struct apr_arena *arena, float **out, size_t *n,
                                            struct apr_err *e);

#endif

/* Log-mel spectrogram of 16 kHz sound, as Whisper's feature extractor defines it.
 *
 * Frames of 400 samples (periodic Hann window) every 160, centred, reflected at the ends of the padded sound;
 * power; mel bands on Slaney's scale with unit area, 0 to 8000 Hz; log10 of at least 1e-10; raised to the
 * loudest value of the whole sound minus 8; (x + 4) / 4. Everything is computed in double.
 *
 *     struct apr_mel m; TRY(apr_mel_open(&m, n_mels, arena, e));
 *     TRY(apr_mel_spectrogram(&m, pool, samples, n, arena, &frames, &n_frames, e));
 */
#ifndef APR_INFER_AUDIO_MEL_H
#define APR_INFER_AUDIO_MEL_H

#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "err.h"
#include "pool.h"

#define APR_MEL_HOP     160u /* samples from frame to frame: 100 frames a second */
#define APR_MEL_FFT     400u
#define APR_MEL_BINS    (APR_MEL_FFT / 2 + 1)
#define APR_MEL_PADDING 480000u /* silence behind the sound: 30 s */

struct apr_mel {
    size_t n_mels;
    const double *window;              /* [400] periodic Hann */
    const double *re, *im;             /* [400] exp(-2 pi i k / 400) */
    const double *bank;                /* [n_mels, 201] */
    const unsigned short *begin, *end; /* [n_mels] bins whose weight is not zero */
};

APR_MUST_USE enum apr_code apr_mel_open(struct apr_mel *m, size_t n_mels, struct apr_arena *arena,
                                        struct apr_err *e);
/* *frames: [*n_frames, n_mels] in the arena, *n_frames = n / 160: those of the sound, not of the padding.
 * x: [n]. The same values for any number of threads. */
APR_MUST_USE enum apr_code apr_mel_spectrogram(const struct apr_mel *m, struct apr_pool *pool, const float *x,
                                               size_t n, struct apr_arena *arena, float **frames,
                                               size_t *n_frames, struct apr_err *e);
/* Power of the first 201 bins of one frame of 400 samples, the window applied. For its test. */
void apr_mel_power(const struct apr_mel *m, const double x[APR_MEL_FFT], double power[APR_MEL_BINS]);

#endif

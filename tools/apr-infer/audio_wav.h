/* Sound files: a RIFF WAVE in memory, read as one channel of samples at its own rate.
 *
 * PCM of 8, 16, 24 and 32 bits, IEEE floats of 32 and 64, WAVE_FORMAT_EXTENSIBLE, RF64, any number of
 * channels (their mean is taken). A length that a writer into a pipe could not know ends with the file.
 * Everything borrows from the bytes.
 *
 *     struct apr_wav w; TRY(apr_wav_open(&w, p, n_bytes, file, e));
 *     TRY(apr_wav_mono(&w, first, n, samples, e));
 */
#ifndef APR_INFER_AUDIO_WAV_H
#define APR_INFER_AUDIO_WAV_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define APR_WAV_MIN_RATE 1000u
#define APR_WAV_MAX_RATE 768000u

struct apr_wav;
/* Samples [0, n) of one channel; p is the first, each lies stride_bytes behind the one before. */
typedef void apr_wav_decode_fn(const uint8_t *p, size_t stride_bytes, size_t n, float *out);

struct apr_wav {
    const char *file;    /* for messages */
    const uint8_t *data; /* n_frames of frame_bytes */
    apr_wav_decode_fn *decode;
    uint32_t rate, n_channels;
    uint32_t sample_bytes, frame_bytes;
    uint64_t n_frames;
    const char *encoding; /* "16-bit PCM" */
};

/* Malformed, cut off or of an encoding that is not listed above: APR_EFORMAT with the byte. */
APR_MUST_USE enum apr_code apr_wav_open(struct apr_wav *w, const void *p, uint64_t n_bytes, const char *file,
                                        struct apr_err *e);
/* Frames [first, first + n), which must exist, as the mean of the channels; full scale is 1. A sample that is
 * not finite: APR_EFORMAT naming its frame. */
APR_MUST_USE enum apr_code apr_wav_mono(const struct apr_wav *w, uint64_t first, size_t n, float *out,
                                        struct apr_err *e);

#endif

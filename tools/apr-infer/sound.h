/* A sound file as log-mel frames: read, brought to 16 kHz, transformed.
 *
 *     struct apr_sound s = {.path = "a.wav"}; TRY(apr_sound_open(&s, n_mels, pool, arena, e));
 */
#ifndef APR_INFER_SOUND_H
#define APR_INFER_SOUND_H

#include "arena.h"
#include "buf.h"
#include "pool.h"

struct apr_sound {
    const char *path;            /* NULL: the bytes */
    const struct apr_buf *bytes; /* borrowed */
    /* out */
    float *frames; /* [n_frames, n_mels], in the arena */
    size_t n_frames;
    double seconds;
    uint32_t rate, n_channels; /* of the file */
    const char *encoding;
};

APR_MUST_USE enum apr_code apr_sound_open(struct apr_sound *s, size_t n_mels, struct apr_pool *pool,
                                          struct apr_arena *arena, struct apr_err *e);

#endif

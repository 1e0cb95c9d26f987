/* Sound files to frames. See sound.h. */
#include "sound.h"

#include "audio_mel.h"
#include "audio_resample.h"
#include "io.h"

/* The samples at 16 kHz are not needed once there are frames. */
static enum apr_code transform(struct apr_sound *s, const struct apr_wav *w, size_t n_mels,
                               struct apr_pool *pool, struct apr_arena *arena, struct apr_err *e)
{
    struct apr_arena own;
    struct apr_mel mel;
    float *x;
    size_t n;
    apr_arena_init(&own);
    enum apr_code code = apr_resample_16k(w, pool, &own, &x, &n, e);
    if (code == APR_OK) code = apr_mel_open(&mel, n_mels, &own, e);
    if (code == APR_OK) code = apr_mel_spectrogram(&mel, pool, x, n, arena, &s->frames, &s->n_frames, e);
    apr_arena_free(&own);
    s->seconds = (double)w->n_frames / w->rate;
    s->rate = w->rate;
    s->n_channels = w->n_channels;
    s->encoding = w->encoding;
    return code;
}

static enum apr_code from_file(struct apr_sound *s, size_t n_mels, struct apr_pool *pool,
                               struct apr_arena *arena, struct apr_err *e)
{
    struct apr_src *src;
    struct apr_wav w;
    const uint8_t *p;
    TRY(apr_src_open(&src, s->path, e));
    enum apr_code code = apr_src_spool(src, e);
    if (code == APR_OK && apr_src_size(src) == 0)
        code = apr_fail(e, APR_EFORMAT, "%s: 0 bytes, expected a WAVE file", apr_src_name(src));
    if (code == APR_OK) code = apr_src_map(src, &p, e);
    if (code == APR_OK) code = apr_wav_open(&w, p, apr_src_size(src), apr_src_name(src), e);
    if (code == APR_OK) code = transform(s, &w, n_mels, pool, arena, e);
    apr_src_close(src);
    return code;
}

enum apr_code apr_sound_open(struct apr_sound *s, size_t n_mels, struct apr_pool *pool,
                             struct apr_arena *arena, struct apr_err *e)
{
    struct apr_wav w;
    if (s->path) return from_file(s, n_mels, pool, arena, e);
    TRY(apr_wav_open(&w, s->bytes->data, s->bytes->n_bytes, "standard input", e));
    return transform(s, &w, n_mels, pool, arena, e);
}

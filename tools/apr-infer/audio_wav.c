/* RIFF WAVE. Layout: Microsoft, "Multimedia Programming Interface and Data Specifications 1.0" (1991) and
 * "Multiple channel audio data and WAVE files" (2001); RF64: EBU Tech 3306. See audio_wav.h. */
#include "audio_wav.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "rd.h"

#define TAG_PCM        1u
#define TAG_FLOAT      3u
#define TAG_EXTENSIBLE 0xfffeu
#define MAX_CHANNELS   256u
#define UNKNOWN_BYTES  0x7ffff000u /* at least this and more than the file has: the writer was a pipe */
#define MAX_CHUNKS     4096u
#define N_MIXED        1024u /* frames that are mixed at a time */

/* ---- samples ------------------------------------------------------------------------------------------ */

static void decode_u8(const uint8_t *p, size_t stride_bytes, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) out[i] = (float)((int)p[i * stride_bytes] - 128) * 0x1p-7f;
}

static void decode_s16(const uint8_t *p, size_t stride_bytes, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        int16_t v;
        memcpy(&v, p + i * stride_bytes, sizeof v);
        out[i] = (float)v * 0x1p-15f;
    }
}

static void decode_s24(const uint8_t *p, size_t stride_bytes, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        const uint8_t *b = p + i * stride_bytes;
        uint32_t v = (uint32_t)b[0] << 8 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 24;
        out[i] = (float)(int32_t)v * 0x1p-31f;
    }
}

static void decode_s32(const uint8_t *p, size_t stride_bytes, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        int32_t v;
        memcpy(&v, p + i * stride_bytes, sizeof v);
        out[i] = (float)v * 0x1p-31f;
    }
}

static void decode_f32(const uint8_t *p, size_t stride_bytes, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) memcpy(&out[i], p + i * stride_bytes, sizeof *out);
}

static void decode_f64(const uint8_t *p, size_t stride_bytes, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        double v;
        memcpy(&v, p + i * stride_bytes, sizeof v);
        out[i] = (float)v;
    }
}

static const struct encoding {
    uint32_t tag, sample_bytes;
    apr_wav_decode_fn *decode;
    const char *name;
} encodings[] = {
    {TAG_PCM, 1, decode_u8, "8-bit PCM"},       {TAG_PCM, 2, decode_s16, "16-bit PCM"},
    {TAG_PCM, 3, decode_s24, "24-bit PCM"},     {TAG_PCM, 4, decode_s32, "32-bit PCM"},
    {TAG_FLOAT, 4, decode_f32, "32-bit float"}, {TAG_FLOAT, 8, decode_f64, "64-bit float"},
};

/* ---- header ------------------------------------------------------------------------------------------- */

struct format {
    uint16_t tag, n_channels, frame_bytes, n_bits;
    uint32_t rate;
};

/* The tag inside WAVE_FORMAT_EXTENSIBLE: cbSize, valid bits, channel mask, then a GUID that begins with it.
 */
static enum apr_code read_extension(struct apr_rd *rd, uint64_t n_bytes, struct format *f, struct apr_err *e)
{
    static const uint8_t guid_end[14] = {0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71};
    const uint8_t *p;
    uint64_t off = apr_rd_off(rd);
    if (n_bytes < 24)
        return apr_fail(e, APR_EFORMAT,
                        "%s: byte %" PRIu64 ": extensible format of %" PRIu64 " bytes, expected 40", rd->file,
                        off, n_bytes + 16);
    TRY(apr_rd_bytes(rd, 24, &p, "fmt extension", e));
    f->tag = (uint16_t)(p[8] | p[9] << 8);
    if (memcmp(p + 10, guid_end, sizeof guid_end) != 0)
        return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": unknown sub-format of an extensible WAVE",
                        rd->file, off + 8);
    return APR_OK;
}

static enum apr_code read_format(struct apr_rd *rd, uint64_t n_bytes, struct format *f, struct apr_err *e)
{
    uint32_t bytes_per_s;
    if (n_bytes < 16)
        return apr_fail(e, APR_EFORMAT,
                        "%s: byte %" PRIu64 ": fmt chunk of %" PRIu64 " bytes, expected 16 or more", rd->file,
                        apr_rd_off(rd), n_bytes);
    TRY(apr_rd_u16(rd, &f->tag, "format tag", e));
    TRY(apr_rd_u16(rd, &f->n_channels, "channels", e));
    TRY(apr_rd_u32(rd, &f->rate, "sample rate", e));
    TRY(apr_rd_u32(rd, &bytes_per_s, "byte rate", e)); /* follows from the others; often wrong */
    TRY(apr_rd_u16(rd, &f->frame_bytes, "block align", e));
    TRY(apr_rd_u16(rd, &f->n_bits, "bits per sample", e));
    return f->tag == TAG_EXTENSIBLE ? read_extension(rd, n_bytes - 16, f, e) : APR_OK;
}

static enum apr_code take_format(struct apr_wav *w, const struct format *f, uint64_t off, struct apr_err *e)
{
    if (f->n_channels == 0 || f->n_channels > MAX_CHANNELS)
        return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": %u channels, expected 1 to %u", w->file, off,
                        f->n_channels, MAX_CHANNELS);
    if (f->rate < APR_WAV_MIN_RATE || f->rate > APR_WAV_MAX_RATE)
        return apr_fail(e, APR_EFORMAT,
                        "%s: byte %" PRIu64 ": %" PRIu32 " samples a second, expected %u to %u", w->file, off,
                        f->rate, APR_WAV_MIN_RATE, APR_WAV_MAX_RATE);
    w->rate = f->rate;
    w->n_channels = f->n_channels;
    w->frame_bytes = f->frame_bytes;
    w->sample_bytes = (uint32_t)f->frame_bytes / f->n_channels;
    for (size_t i = 0; i < sizeof encodings / sizeof *encodings; i++) {
        const struct encoding *x = &encodings[i];
        if (x->tag != f->tag || x->sample_bytes * w->n_channels != w->frame_bytes) continue;
        /* fewer bits than the container has are left-justified in it; floats fill theirs */
        if (f->n_bits > 8u * x->sample_bytes || f->n_bits + 8u <= 8u * x->sample_bytes) continue;
        w->decode = x->decode;
        w->encoding = x->name;
        return APR_OK;
    }
    return apr_fail(e, APR_EFORMAT,
                    "%s: byte %" PRIu64
                    ": encoding %u of %u bits, %u bytes a frame of %u channels; expected PCM "
                    "of 8, 16, 24 or 32 bits or floats of 32 or 64",
                    w->file, off, f->tag, f->n_bits, f->frame_bytes, f->n_channels);
}

/* n_bytes as the chunk says; ds64: what an RF64 says, 0 = nothing. */
static enum apr_code take_data(struct apr_wav *w, struct apr_rd *rd, uint64_t n_bytes, uint64_t ds64,
                               struct apr_err *e)
{
    uint64_t n_left = apr_rd_left(rd), off = apr_rd_off(rd);
    bool is_open = n_bytes >= UNKNOWN_BYTES && n_bytes > n_left;
    if (!w->decode)
        return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": data comes before the fmt chunk", w->file,
                        off);
    if (n_bytes == UINT32_MAX && ds64) n_bytes = ds64, is_open = false;
    if (is_open || (n_bytes == 0 && n_left > 0)) n_bytes = n_left;
    if (n_bytes > n_left)
        return apr_fail(e, APR_EFORMAT,
                        "%s: ends at byte %" PRIu64 " inside the samples: %" PRIu64
                        " bytes announced, %" PRIu64 " there",
                        w->file, off + n_left, n_bytes, n_left);
    w->n_frames = n_bytes / w->frame_bytes;
    return apr_rd_bytes(rd, n_bytes, &w->data, "samples", e);
}

static enum apr_code skip(struct apr_rd *rd, uint64_t n, struct apr_err *e)
{
    const uint8_t *p;
    return apr_rd_bytes(rd, n, &p, "chunk", e);
}

static enum apr_code read_chunk(struct apr_wav *w, struct apr_rd *rd, uint64_t *ds64, struct apr_err *e)
{
    const uint8_t *id;
    uint32_t n_bytes;
    char name[4];
    TRY(apr_rd_bytes(rd, 4, &id, "chunk name", e));
    memcpy(name, id, 4);
    TRY(apr_rd_u32(rd, &n_bytes, "chunk size", e));
    uint64_t off = apr_rd_off(rd), n_next = (uint64_t)n_bytes + (n_bytes & 1);
    if (memcmp(name, "data", 4) == 0) return take_data(w, rd, n_bytes, *ds64, e);
    if (memcmp(name, "fmt ", 4) == 0) {
        struct format f;
        TRY(read_format(rd, n_bytes, &f, e));
        TRY(take_format(w, &f, off, e));
    } else if (memcmp(name, "ds64", 4) == 0 && n_bytes >= 16) {
        TRY(skip(rd, 8, e)); /* size of the whole file */
        TRY(apr_rd_u64(rd, ds64, "data size", e));
    }
    return skip(rd, n_next - (apr_rd_off(rd) - off), e);
}

enum apr_code apr_wav_open(struct apr_wav *w, const void *p, uint64_t n_bytes, const char *file,
                           struct apr_err *e)
{
    struct apr_rd rd;
    const uint8_t *head;
    uint64_t ds64 = 0;
    *w = (struct apr_wav){.file = file};
    apr_rd_mem(&rd, p, n_bytes, 0, file);
    if (n_bytes < 12)
        return apr_fail(e, APR_EFORMAT, "%s: %" PRIu64 " bytes, expected a WAVE file", file, n_bytes);
    TRY(apr_rd_bytes(&rd, 12, &head, "RIFF header", e));
    if ((memcmp(head, "RIFF", 4) != 0 && memcmp(head, "RF64", 4) != 0) || memcmp(head + 8, "WAVE", 4) != 0)
        return apr_fail(e, APR_EFORMAT,
                        "%s: byte 0: not a WAVE file; convert it: ffmpeg -i IN -f wav OUT.wav", file);
    for (unsigned i = 0; !w->data && i < MAX_CHUNKS; i++) TRY(read_chunk(w, &rd, &ds64, e));
    if (!w->data) return apr_fail(e, APR_EFORMAT, "%s: no data among the first %u chunks", file, MAX_CHUNKS);
    return APR_OK;
}

enum apr_code apr_wav_mono(const struct apr_wav *w, uint64_t first, size_t n, float *out, struct apr_err *e)
{
    float one[N_MIXED];
    for (size_t done = 0; done < n; done += N_MIXED) {
        size_t n_now = n - done < N_MIXED ? n - done : N_MIXED;
        const uint8_t *p = w->data + (first + done) * w->frame_bytes;
        double sum = 0;
        w->decode(p, w->frame_bytes, n_now, out + done);
        for (uint32_t c = 1; c < w->n_channels; c++) {
            w->decode(p + (size_t)c * w->sample_bytes, w->frame_bytes, n_now, one);
            for (size_t i = 0; i < n_now; i++) out[done + i] += one[i];
        }
        for (size_t i = 0; i < n_now; i++) {
            out[done + i] /= (float)w->n_channels;
            sum += (double)out[done + i] * 0; /* NaN where a sample is not finite */
        }
        if (sum == 0) continue;
        for (size_t i = 0; i < n_now; i++)
            if (!isfinite(out[done + i]))
                return apr_fail(e, APR_EFORMAT, "%s: frame %" PRIu64 ": a sample is not a finite number",
                                w->file, first + done + i);
    }
    return APR_OK;
}

/* Log-mel spectrogram. Scale: Slaney, "Auditory Toolbox" (1998): linear below 1000 Hz, logarithmic above;
 * features: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision" (2022), 2.2. See
 * audio_mel.h. */
#include "audio_mel.h"

#include <math.h>
#include <string.h>

#define PI          3.14159265358979323846
#define RATE        16000.0
#define FLOOR       1e-10
#define RANGE       8.0
#define FRAMES_TASK 64u

/* ---- tables ------------------------------------------------------------------------------------------- */

#define MEL_LINEAR (200.0 / 3)               /* Hz a mel below 1000 Hz */
#define MEL_BREAK  15.0                      /* mels at 1000 Hz */
#define LOG_STEP   (1.8562979903656263 / 27) /* ln(6.4) / 27 */

static double to_hz(double mel)
{
    return mel < MEL_BREAK ? mel * MEL_LINEAR : 1000 * exp(LOG_STEP * (mel - MEL_BREAK));
}

static double to_mel(double hz)
{
    return hz < 1000 ? hz / MEL_LINEAR : MEL_BREAK + log(hz / 1000) / LOG_STEP;
}

/* Triangles between neighbours of n_mels + 2 equally spaced mels, each of area 1 (in Hz). */
static void fill_bank(size_t n_mels, double *bank, unsigned short *begin, unsigned short *end)
{
    const double top = to_mel(RATE / 2), step = top / (double)(n_mels + 1);
    for (size_t i = 0; i < n_mels; i++) {
        double low = to_hz((double)i * step), mid = to_hz((double)(i + 1) * step),
               high = to_hz((double)(i + 2) * step);
        begin[i] = end[i] = 0;
        for (unsigned k = 0; k < APR_MEL_BINS; k++) {
            double f = k * (RATE / APR_MEL_FFT), up = (f - low) / (mid - low),
                   down = (high - f) / (high - mid);
            double v = (up < down ? up : down) * 2 / (high - low);
            if (v <= 0) continue;
            if (end[i] == 0) begin[i] = (unsigned short)k;
            end[i] = (unsigned short)(k + 1);
            bank[i * APR_MEL_BINS + k] = v;
        }
    }
}

enum apr_code apr_mel_open(struct apr_mel *m, size_t n_mels, struct apr_arena *arena, struct apr_err *e)
{
    double *window, *re, *im, *bank;
    unsigned short *begin, *end;
    *m = (struct apr_mel){.n_mels = n_mels};
    TRY(apr_arena_try(arena, &window, APR_MEL_FFT, sizeof *window, "window", e));
    TRY(apr_arena_try(arena, &re, APR_MEL_FFT, sizeof *re, "roots of unity", e));
    TRY(apr_arena_try(arena, &im, APR_MEL_FFT, sizeof *im, "roots of unity", e));
    TRY(apr_arena_try(arena, &bank, n_mels * APR_MEL_BINS, sizeof *bank, "mel bands", e));
    TRY(apr_arena_try(arena, &begin, n_mels, sizeof *begin, "mel bands", e));
    TRY(apr_arena_try(arena, &end, n_mels, sizeof *end, "mel bands", e));
    for (unsigned k = 0; k < APR_MEL_FFT; k++) {
        double angle = 2 * PI * k / APR_MEL_FFT;
        window[k] = 0.5 - 0.5 * cos(angle);
        re[k] = cos(angle);
        im[k] = -sin(angle);
    }
    fill_bank(n_mels, bank, begin, end);
    m->window = window;
    m->re = re;
    m->im = im;
    m->bank = bank;
    m->begin = begin;
    m->end = end;
    return APR_OK;
}

/* ---- transform ---------------------------------------------------------------------------------------- */

struct complex {
    double re, im;
};

static const unsigned factors[] = {5, 5, 4, 4}; /* of 400 */

/* Cooley and Tukey, decimation in time: y[n] = DFT of x[0], x[stride], ... with n the product of factors from
 * i_factor on; n * stride = 400. */
static void transform(const struct apr_mel *m, const double *x, unsigned n, unsigned stride,
                      unsigned i_factor, struct complex *y)
{
    if (n == 1) {
        y[0] = (struct complex){*x, 0};
        return;
    }
    unsigned p = factors[i_factor], q = n / p;
    for (unsigned r = 0; r < p; r++) transform(m, x + r * stride, q, stride * p, i_factor + 1, y + r * q);
    for (unsigned k = 0; k < q; k++) {
        struct complex in[5], out[5];
        for (unsigned r = 0; r < p; r++) in[r] = y[r * q + k];
        for (unsigned s = 0; s < p; s++) {
            out[s] = in[0];
            for (unsigned r = 1; r < p; r++) {
                unsigned w = r * (k + s * q) % n * stride; /* root of order 400 */
                out[s].re += in[r].re * m->re[w] - in[r].im * m->im[w];
                out[s].im += in[r].re * m->im[w] + in[r].im * m->re[w];
            }
        }
        for (unsigned s = 0; s < p; s++) y[s * q + k] = out[s];
    }
}

void apr_mel_power(const struct apr_mel *m, const double x[APR_MEL_FFT], double power[APR_MEL_BINS])
{
    double windowed[APR_MEL_FFT];
    struct complex y[APR_MEL_FFT];
    for (unsigned i = 0; i < APR_MEL_FFT; i++) windowed[i] = x[i] * m->window[i];
    transform(m, windowed, APR_MEL_FFT, 1, 0, y);
    for (unsigned k = 0; k < APR_MEL_BINS; k++) power[k] = y[k].re * y[k].re + y[k].im * y[k].im;
}

/* ---- frames ------------------------------------------------------------------------------------------- */

struct job {
    const struct apr_mel *m;
    const float *x;
    size_t n, n_padded;
    float *out;
    double *loudest; /* [tasks] */
};

/* Sample i of the padded sound, reflected at both ends without repeating the end itself. */
static double sample(const struct job *j, int64_t i)
{
    if (i < 0) i = -i;
    if ((uint64_t)i >= j->n_padded) i = 2 * (int64_t)(j->n_padded - 1) - i;
    return (uint64_t)i < j->n ? (double)j->x[i] : 0;
}

static double frame(const struct job *j, size_t i_frame)
{
    double x[APR_MEL_FFT], power[APR_MEL_BINS], loudest = -INFINITY;
    int64_t first = (int64_t)(i_frame * APR_MEL_HOP) - (int64_t)(APR_MEL_FFT / 2);
    for (unsigned i = 0; i < APR_MEL_FFT; i++) x[i] = sample(j, first + i);
    apr_mel_power(j->m, x, power);
    for (size_t b = 0; b < j->m->n_mels; b++) {
        const double *bank = j->m->bank + b * APR_MEL_BINS;
        double v = 0;
        for (unsigned k = j->m->begin[b]; k < j->m->end[b]; k++) v += bank[k] * power[k];
        v = log10(v > FLOOR ? v : FLOOR);
        j->out[i_frame * j->m->n_mels + b] = (float)v;
        if (v > loudest) loudest = v;
    }
    return loudest;
}

static void frames_task(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    const struct job *j = ctx;
    double loudest = -INFINITY;
    (void)i_thread;
    for (size_t i = i_begin; i < i_end; i++) {
        double v = frame(j, i);
        if (v > loudest) loudest = v;
    }
    j->loudest[i_begin / FRAMES_TASK] = loudest;
}

enum apr_code apr_mel_spectrogram(const struct apr_mel *m, struct apr_pool *pool, const float *x, size_t n,
                                  struct apr_arena *arena, float **frames, size_t *n_frames,
                                  struct apr_err *e)
{
    struct job j = {.m = m, .x = x, .n = n, .n_padded = n + APR_MEL_PADDING};
    size_t n_all = (n + APR_MEL_FFT / 2) / APR_MEL_HOP + 1; /* that reach into the sound */
    size_t n_tasks = n_all / FRAMES_TASK + 1;
    double loudest = log10(FLOOR); /* of the padding */
    TRY(apr_arena_try(arena, &j.out, n_all * m->n_mels, sizeof *j.out, "spectrogram", e));
    TRY(apr_arena_try(arena, &j.loudest, n_tasks, sizeof *j.loudest, "spectrogram", e));
    apr_parallel_for(pool, n_all, FRAMES_TASK, frames_task, &j);
    for (size_t i = 0; i * FRAMES_TASK < n_all; i++)
        if (j.loudest[i] > loudest) loudest = j.loudest[i];
    for (size_t i = 0; i < n_all * m->n_mels; i++) {
        double v = (double)j.out[i];
        if (v < loudest - RANGE) v = loudest - RANGE;
        j.out[i] = (float)((v + 4) / 4);
    }
    *frames = j.out;
    *n_frames = n / APR_MEL_HOP;
    return APR_OK;
}

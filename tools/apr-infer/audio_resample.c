/* Polyphase resampling: J. O. Smith, "Digital Audio Resampling" (bandlimited interpolation); the window is
 * Kaiser's, beta by his formula for 100 dB. See audio_resample.h. */
#include "audio_resample.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "ckd.h"

#define N_CROSSINGS 64.0
#define ROLLOFF     0.95
#define BETA        10.06 /* 0.1102 (100 - 8.7) */
#define PI          3.14159265358979323846
#define MAX_TABLE   (4u << 20) /* coefficients; a ratio with more phases computes them as it goes */
#define N_CHUNK     4096u      /* outputs of one task */
#define MAX_HOURS   24u

struct job {
    const struct apr_wav *w;
    uint64_t up, down;  /* rate of output : rate of input, reduced */
    size_t n_half;      /* taps to either side of an output sample */
    double cutoff;      /* of the input's Nyquist frequency */
    const float *table; /* [up, 2 n_half] or NULL */
    float *out;
    size_t n_out;
    float *room; /* [threads, n_room]: input of a chunk, then one phase */
    size_t n_room, n_in_most;
    struct apr_err *errs; /* [threads] */
};

static uint64_t gcd(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t t = a % b;
        a = b;
        b = t;
    }
    return a;
}

/* Modified Bessel function of the first kind, order 0, by its series. */
static double bessel_i0(double x)
{
    double sum = 1, term = 1;
    for (int k = 1; k < 64 && term > sum * 1e-17; k++) {
        term *= (x / 2 / k) * (x / 2 / k);
        sum += term;
    }
    return sum;
}

/* Coefficients of the input samples i0 - n_half + 1 .. i0 + n_half for an output at i0 + frac; they sum to 1,
 * so that a constant stays what it is. */
static void phase(const struct job *j, double frac, float *taps)
{
    double sum = 0, i0_beta = bessel_i0(BETA);
    for (int pass = 0; pass < 2; pass++)
        for (size_t k = 0; k < 2 * j->n_half; k++) {
            double t = ((double)k - (double)(j->n_half - 1) - frac) * j->cutoff;
            double u = t / N_CROSSINGS, v = 0;
            if (fabs(u) < 1) {
                double window = bessel_i0(BETA * sqrt(1 - u * u)) / i0_beta;
                v = window * (fabs(t) < 1e-12 ? 1 : sin(PI * t) / (PI * t));
            }
            if (pass == 0)
                sum += v;
            else
                taps[k] = (float)(v / sum);
        }
}

static float filter(const float *x, const float *taps, size_t n)
{
    float acc[8] = {0};
    size_t k = 0;
    for (; k + 8 <= n; k += 8)
        for (size_t l = 0; l < 8; l++) acc[l] += x[k + l] * taps[k + l];
    for (; k < n; k++) acc[0] += x[k] * taps[k];
    return ((acc[0] + acc[4]) + (acc[2] + acc[6])) + ((acc[1] + acc[5]) + (acc[3] + acc[7]));
}

/* Input frames [first, first + n) where they exist, zeros before and after. */
static enum apr_code gather(const struct apr_wav *w, int64_t first, size_t n, float *x, struct apr_err *e)
{
    int64_t n_frames = (int64_t)w->n_frames;
    int64_t begin = first > 0 ? first : 0,
            end = first + (int64_t)n < n_frames ? first + (int64_t)n : n_frames;
    memset(x, 0, n * sizeof *x);
    if (begin >= end) return APR_OK;
    return apr_wav_mono(w, (uint64_t)begin, (size_t)(end - begin), x + (begin - first), e);
}

static void chunk_task(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    const struct job *j = ctx;
    float *x = j->room + i_thread * j->n_room, *own = x + j->n_in_most;
    int64_t first = (int64_t)(i_begin * j->down / j->up) - (int64_t)j->n_half + 1;
    int64_t last = (int64_t)((i_end - 1) * j->down / j->up) + (int64_t)j->n_half;
    if (j->errs[i_thread].code != APR_OK) return;
    if (gather(j->w, first, (size_t)(last - first + 1), x, &j->errs[i_thread]) != APR_OK) return;
    for (size_t i = i_begin; i < i_end; i++) {
        uint64_t pos = i * j->down, i0 = pos / j->up, i_phase = pos % j->up;
        const float *taps = j->table ? j->table + i_phase * 2 * j->n_half : own;
        if (!j->table) phase(j, (double)i_phase / (double)j->up, own);
        j->out[i] = filter(x + ((int64_t)i0 - (int64_t)j->n_half + 1 - first), taps, 2 * j->n_half);
    }
}

static enum apr_code prepare(struct job *j, struct apr_pool *pool, struct apr_arena *arena, struct apr_err *e)
{
    unsigned n_threads = apr_pool_threads(pool);
    double lower = j->down > j->up ? (double)j->up / (double)j->down : 1;
    j->cutoff = lower * ROLLOFF;
    j->n_half = (size_t)ceil(N_CROSSINGS / j->cutoff);
    j->n_in_most = (size_t)(N_CHUNK * j->down / j->up) + 2 * j->n_half + 2;
    j->n_room = (j->n_in_most + 2 * j->n_half + 15) / 16 * 16;
    TRY(apr_arena_try(arena, &j->room, n_threads, j->n_room * sizeof *j->room, "resampling", e));
    TRY(apr_arena_try(arena, &j->errs, n_threads, sizeof *j->errs, "resampling", e));
    if (j->up * 2 * j->n_half > MAX_TABLE) return APR_OK;
    float *table;
    TRY(apr_arena_try(arena, &table, j->up * 2 * j->n_half, sizeof *table, "resampling filter", e));
    for (uint64_t i = 0; i < j->up; i++) phase(j, (double)i / (double)j->up, table + i * 2 * j->n_half);
    j->table = table;
    return APR_OK;
}

enum apr_code apr_resample_16k(const struct apr_wav *w, struct apr_pool *pool, struct apr_arena *arena,
                               float **out, size_t *n, struct apr_err *e)
{
    uint64_t common = gcd(APR_AUDIO_RATE, w->rate), n_out;
    struct job j = {.w = w, .up = APR_AUDIO_RATE / common, .down = w->rate / common};
    if (ckd_mul(&n_out, w->n_frames, j.up) || ckd_add(&n_out, n_out, j.down - 1) ||
        n_out / j.down > (uint64_t)MAX_HOURS * 3600 * APR_AUDIO_RATE)
        return apr_fail(e, APR_ELOAD, "%s: %" PRIu64 " frames are more than %u hours of sound; cut the file",
                        w->file, w->n_frames, MAX_HOURS);
    *n = j.n_out = (size_t)(n_out / j.down);
    TRY(apr_arena_try(arena, out, *n, sizeof **out, "samples", e));
    if (j.up == 1 && j.down == 1) return apr_wav_mono(w, 0, *n, *out, e);
    j.out = *out;
    struct apr_arena own;
    apr_arena_init(&own);
    enum apr_code code = prepare(&j, pool, &own, e);
    if (code == APR_OK) apr_parallel_for(pool, j.n_out, N_CHUNK, chunk_task, &j);
    for (unsigned i = 0; code == APR_OK && i < apr_pool_threads(pool); i++)
        if (j.errs[i].code != APR_OK) *e = j.errs[i], code = e->code;
    apr_arena_free(&own);
    return code;
}

/* Sound files, resampling and log-mel: against definitions computed plainly. Run from the project root. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../tools/apr-infer/audio_mel.h"
#include "../../tools/apr-infer/audio_resample.h"
#include "../../tools/apr-infer/audio_wav.h"

#define PI 3.14159265358979323846

/* ---- files -------------------------------------------------------------------------------------------- */

struct file {
    uint8_t at[1 << 20];
    size_t n;
};
static struct file file;

static void put(const void *p, size_t n)
{
    memcpy(file.at + file.n, p, n);
    file.n += n;
}

static void put_u32(uint32_t v)
{
    put(&v, 4);
}

static void put_u16(unsigned v)
{
    uint16_t x = (uint16_t)v;
    put(&x, 2);
}

struct spec {
    unsigned tag, n_channels, rate, n_bits, sample_bytes;
    bool extensible;
};

static void head(const struct spec *s)
{
    static const uint8_t guid_end[14] = {0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71};
    unsigned frame = s->sample_bytes * s->n_channels;
    file.n = 0;
    put("RIFF", 4);
    put_u32(0);
    put("WAVE", 4);
    put("LIST", 4); /* a chunk of odd length before the format */
    put_u32(3);
    put("abc\0", 4);
    put("fmt ", 4);
    put_u32(s->extensible ? 40 : 16);
    put_u16(s->extensible ? 0xfffe : s->tag);
    put_u16(s->n_channels);
    put_u32(s->rate);
    put_u32(s->rate * frame);
    put_u16(frame);
    put_u16(s->n_bits);
    if (!s->extensible) return;
    put_u16(22);
    put_u16(s->n_bits);
    put_u32(3);
    put_u16(s->tag);
    put(guid_end, 14);
}

static double wave(size_t i, unsigned channel)
{
    return 0.7 * sin(0.01 * (double)i + channel);
}

static void put_sample(const struct spec *s, double v)
{
    float f = (float)v;
    if (s->tag == 3) {
        if (s->sample_bytes == 8) put(&v, 8);
        if (s->sample_bytes == 4) put(&f, 4);
        return;
    }
    int64_t x = llround(ldexp(v, (int)(8 * s->sample_bytes) - 1));
    if (s->sample_bytes == 1) x += 128;
    put(&x, s->sample_bytes);
}

static void data(const struct spec *s, size_t n_frames, uint32_t n_bytes)
{
    put("data", 4);
    put_u32(n_bytes);
    for (size_t i = 0; i < n_frames; i++)
        for (unsigned c = 0; c < s->n_channels; c++) put_sample(s, wave(i, c));
}

static void test_encodings(void **state)
{
    (void)state;
    static const struct spec specs[] = {
        {1, 1, 16000, 8, 1, false},  {1, 1, 16000, 16, 2, false},  {1, 2, 44100, 24, 3, false},
        {1, 1, 8000, 32, 4, false},  {1, 6, 48000, 20, 3, true},   {1, 2, 48000, 16, 2, true},
        {3, 1, 48000, 32, 4, false}, {3, 3, 96000, 64, 8, false},  {3, 2, 16000, 32, 4, true},
        {1, 1, 1000, 12, 2, false},  {1, 200, 16000, 16, 2, true},
    };
    static float x[2000];
    for (size_t k = 0; k < sizeof specs / sizeof *specs; k++) {
        const struct spec *s = &specs[k];
        const size_t n = 1500;
        struct apr_wav w;
        struct apr_err e = {0};
        head(s);
        data(s, n, (uint32_t)(n * s->n_channels * s->sample_bytes));
        put("LIST\4\0\0\0abcd", 12); /* what follows does not count */
        assert_int_equal(apr_wav_open(&w, file.at, file.n, "t.wav", &e), APR_OK);
        assert_int_equal(w.n_frames, n);
        assert_int_equal(w.rate, s->rate);
        assert_int_equal(apr_wav_mono(&w, 100, n - 100, x, &e), APR_OK);
        double step = s->tag == 3 ? 1e-7 : pow(2, 1 - 8.0 * s->sample_bytes) + 1e-7;
        for (size_t i = 0; i < n - 100; i++) {
            double want = 0;
            for (unsigned c = 0; c < s->n_channels; c++) want += wave(i + 100, c) / s->n_channels;
            if (fabs((double)x[i] - want) > step)
                fail_msg("case %zu, frame %zu: %g for %g", k, i, (double)x[i], want);
        }
    }
}

/* Writers into pipes do not know the length. */
static void test_open_lengths(void **state)
{
    (void)state;
    static const struct spec s = {1, 1, 16000, 16, 2, false};
    static const uint32_t lengths[] = {0xffffffff, 0x7ffff000, 0, 0x7fffffff};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct apr_wav w;
        struct apr_err e = {0};
        head(&s);
        data(&s, 501, lengths[i]);
        put("x", 1); /* half a frame at the end */
        assert_int_equal(apr_wav_open(&w, file.at, file.n, "t.wav", &e), APR_OK);
        assert_int_equal(w.n_frames, 501);
    }
}

static void expect_bad(const char *says)
{
    struct apr_wav w;
    struct apr_err e = {0};
    assert_int_equal(apr_wav_open(&w, file.at, file.n, "t.wav", &e), APR_EFORMAT);
    if (!strstr(e.text, says) || !strstr(e.text, "t.wav"))
        fail_msg("\"%s\" does not say \"%s\"", e.text, says);
}

static void test_hostile(void **state)
{
    (void)state;
    static const struct {
        struct spec s;
        const char *says;
    } cases[] = {
        {{1, 0, 16000, 16, 2, false}, "0 channels"},
        {{1, 300, 16000, 16, 2, false}, "300 channels"},
        {{1, 1, 0, 16, 2, false}, "0 samples a second"},
        {{1, 1, 999, 16, 2, false}, "999 samples"},
        {{1, 1, 4000000000u, 16, 2, false}, "samples a second"},
        {{1, 1, 16000, 16, 0, false}, "encoding"},
        {{1, 1, 16000, 17, 2, false}, "encoding"},
        {{1, 1, 16000, 0, 2, false}, "encoding"},
        {{6, 1, 8000, 8, 1, false}, "encoding 6"},
        {{2, 1, 8000, 4, 1, false}, "encoding 2"},
        {{3, 1, 8000, 16, 2, false}, "encoding 3"},
        {{1, 1, 8000, 64, 8, false}, "encoding 1"},
    };
    struct spec good = {1, 1, 16000, 16, 2, false};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        head(&cases[i].s);
        put("data\4\0\0\0abcd", 12);
        expect_bad(cases[i].says);
    }
    head(&good);
    data(&good, 100, 201); /* one byte more than there is */
    expect_bad("inside the samples");
    head(&good);
    put("data", 4);
    expect_bad("t.wav");
    head(&good);
    put("junk\xff\xff\xff\xff", 8);
    expect_bad("t.wav");
    file.n = 0;
    put("RIFF\0\0\0\0WAVEdata\4\0\0\0abcd", 24);
    expect_bad("before the fmt");
    file.n = 11;
    expect_bad("11 bytes");
    file.n = 0;
    put("OggS\0\0\0\0WAVE", 12);
    expect_bad("not a WAVE");
    head(&good);
    for (int i = 0; i < 5000; i++) put("junk\0\0\0\0", 8);
    expect_bad("no data among");
    /* every beginning of a good file ends in an error or a shorter sound, never elsewhere */
    head(&good);
    data(&good, 10, 20);
    size_t n = file.n;
    for (size_t k = 0; k < n; k++) {
        uint8_t *copy = malloc(k ? k : 1);
        struct apr_wav w;
        struct apr_err e;
        memcpy(copy, file.at, k);
        assert_int_equal(apr_wav_open(&w, copy, k, "t.wav", &e), APR_EFORMAT);
        free(copy);
    }
}

static void test_not_finite(void **state)
{
    (void)state;
    static const struct spec s = {3, 1, 16000, 32, 4, false};
    static float x[3000];
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        struct apr_wav w;
        struct apr_err e = {0};
        head(&s);
        data(&s, 3000, 12000);
        memcpy(file.at + file.n - 12000 + 4 * 1234, &bad[i], 4);
        assert_int_equal(apr_wav_open(&w, file.at, file.n, "t.wav", &e), APR_OK);
        assert_int_equal(apr_wav_mono(&w, 0, 3000, x, &e), APR_EFORMAT);
        assert_non_null(strstr(e.text, "frame 1234"));
    }
}

/* ---- resampling --------------------------------------------------------------------------------------- */

static void tone(struct apr_wav *w, unsigned rate, double hz, size_t n)
{
    static const struct spec base = {3, 1, 0, 32, 4, false};
    struct spec s = base;
    struct apr_err e = {0};
    s.rate = rate;
    head(&s);
    put("data", 4);
    put_u32((uint32_t)(4 * n));
    for (size_t i = 0; i < n; i++) {
        float v = (float)sin(2 * PI * hz * (double)i / rate);
        put(&v, 4);
    }
    assert_int_equal(apr_wav_open(w, file.at, file.n, "tone.wav", &e), APR_OK);
}

/* Largest difference to the tone itself, sampled at 16 kHz, away from the ends. */
static double error_of(unsigned rate, double hz, double gain, unsigned n_threads)
{
    struct apr_wav w;
    struct apr_arena a;
    struct apr_err e = {0};
    struct apr_pool *pool = apr_pool_open(n_threads);
    float *x;
    size_t n, n_in = rate > 100000 ? 200000 : rate;
    double worst = 0;
    apr_arena_init(&a);
    tone(&w, rate, hz, n_in);
    assert_int_equal(apr_resample_16k(&w, pool, &a, &x, &n, &e), APR_OK);
    assert_int_equal(n, (n_in * 16000 + rate - 1) / rate);
    size_t margin = (size_t)(80.0 * 16000 / (rate < 16000 ? rate : 16000)) + 80;
    for (size_t i = margin; i + margin < n; i++) {
        double d = fabs((double)x[i] - gain * sin(2 * PI * hz * (double)i / 16000));
        if (d > worst) worst = d;
    }
    assert_true(n > 2 * margin + 100);
    apr_arena_free(&a);
    apr_pool_close(pool);
    return worst;
}

static void test_resample(void **state)
{
    (void)state;
    static const unsigned rates[] = {8000,  11025, 12000, 16000, 22050, 24000,
                                     32000, 44100, 48000, 96000, 192000};
    static const double parts[] = {0.01, 0.3, 0.7, 0.89};
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++)
        for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) {
            double nyquist = rates[i] < 16000 ? rates[i] / 2.0 : 8000;
            double d = error_of(rates[i], nyquist * parts[k], 1, 1);
            if (d > 2e-4) fail_msg("%u Hz, tone of %g of the band: off by %g", rates[i], parts[k], d);
        }
    /* 44101 and 16000 have no common divisor: coefficients are computed as they are needed */
    assert_true(error_of(44101, 3000, 1, 1) < 2e-4);
    /* what 16 kHz cannot hold does not come back as something else */
    assert_true(error_of(48000, 9000, 0, 1) < 2e-5);
    assert_true(error_of(44100, 15000, 0, 1) < 2e-5);
    assert_true(error_of(192000, 60000, 0, 1) < 2e-5);
}

static void test_resample_threads(void **state)
{
    (void)state;
    struct apr_wav w;
    struct apr_arena a;
    struct apr_err e = {0};
    float *x[2];
    size_t n[2];
    apr_arena_init(&a);
    tone(&w, 44100, 1234, 60000);
    for (unsigned i = 0; i < 2; i++) {
        struct apr_pool *pool = apr_pool_open(i ? 3 : 1);
        assert_int_equal(apr_resample_16k(&w, pool, &a, &x[i], &n[i], &e), APR_OK);
        apr_pool_close(pool);
    }
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(x[0], x[1], n[0] * sizeof *x[0]);
    apr_arena_free(&a);
}

/* ---- mel ---------------------------------------------------------------------------------------------- */

static void test_power(void **state)
{
    (void)state;
    struct apr_arena a;
    struct apr_mel m;
    struct apr_err e = {0};
    double x[APR_MEL_FFT], power[APR_MEL_BINS];
    apr_arena_init(&a);
    assert_int_equal(apr_mel_open(&m, 80, &a, &e), APR_OK);
    for (unsigned i = 0; i < APR_MEL_FFT; i++) x[i] = (double)(i * 2654435761u % 1000) / 1000 - 0.5;
    apr_mel_power(&m, x, power);
    for (unsigned k = 0; k < APR_MEL_BINS; k++) {
        double re = 0, im = 0;
        for (unsigned i = 0; i < APR_MEL_FFT; i++) {
            double v = x[i] * (0.5 - 0.5 * cos(2 * PI * i / APR_MEL_FFT)), t = 2 * PI * i * k / APR_MEL_FFT;
            re += v * cos(t);
            im -= v * sin(t);
        }
        double want = re * re + im * im;
        if (fabs(power[k] - want) > 1e-11 * (1 + want)) fail_msg("bin %u: %g for %g", k, power[k], want);
    }
    apr_arena_free(&a);
}

/* Bands have unit area over the frequency, which the bins sample coarsely where bands are narrow. */
static void test_bands(void **state)
{
    (void)state;
    for (size_t n_mels = 80; n_mels <= 128; n_mels += 48) {
        struct apr_arena a;
        struct apr_mel m;
        struct apr_err e = {0};
        apr_arena_init(&a);
        assert_int_equal(apr_mel_open(&m, n_mels, &a, &e), APR_OK);
        for (size_t i = 0; i < n_mels; i++) {
            double sum = 0;
            assert_true(m.begin[i] < m.end[i] && m.end[i] <= APR_MEL_BINS);
            for (unsigned k = 0; k < APR_MEL_BINS; k++) {
                double v = m.bank[i * APR_MEL_BINS + k];
                assert_true(v >= 0 && (v == 0 || (k >= m.begin[i] && k < m.end[i])));
                sum += v * 40;
            }
            if (i > n_mels / 2 && fabs(sum - 1) > 0.1) fail_msg("band %zu has area %g", i, sum);
        }
        apr_arena_free(&a);
    }
}

static void spectrogram(const float *x, size_t n, unsigned n_threads, struct apr_arena *a, float **out,
                        size_t *n_out)
{
    struct apr_mel m;
    struct apr_err e = {0};
    struct apr_pool *pool = apr_pool_open(n_threads);
    assert_int_equal(apr_mel_open(&m, 80, a, &e), APR_OK);
    assert_int_equal(apr_mel_spectrogram(&m, pool, x, n, a, out, n_out, &e), APR_OK);
    apr_pool_close(pool);
}

static void test_spectrogram(void **state)
{
    (void)state;
    struct apr_arena a;
    static float x[40000];
    float *one, *three;
    size_t n_one, n_three;
    apr_arena_init(&a);
    spectrogram(x, 40000, 1, &a, &one, &n_one); /* silence */
    assert_int_equal(n_one, 250);
    for (size_t i = 0; i < n_one * 80; i++) assert_true(one[i] == -1.5f);
    for (size_t i = 0; i < 40000; i++) x[i] = (float)sin(2 * PI * 1000 * (double)i / 16000);
    spectrogram(x, 40000, 1, &a, &one, &n_one);
    spectrogram(x, 40000, 3, &a, &three, &n_three);
    assert_int_equal(n_one, n_three);
    assert_memory_equal(one, three, n_one * 80 * sizeof *one);
    float most = -10, least = 10;
    size_t at = 0;
    for (size_t i = 0; i < 80; i++) {
        float v = one[100 * 80 + i];
        if (v > most) most = v, at = i;
        if (v < least) least = v;
    }
    assert_true(fabs((double)(most - least) - 2) < 1e-6); /* the range is 8, in log10 / 4 */
    /* 1000 Hz is mel 15 of 45.245640471924965: band 80 / 45.2456 * 15, less one */
    assert_true(at == 25 || at == 26);
    spectrogram(x, 159, 1, &a, &one, &n_one);
    assert_int_equal(n_one, 0);
    spectrogram(x, 160, 1, &a, &one, &n_one);
    assert_int_equal(n_one, 1);
    apr_arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_encodings),   cmocka_unit_test(test_open_lengths),
        cmocka_unit_test(test_hostile),     cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_resample),    cmocka_unit_test(test_resample_threads),
        cmocka_unit_test(test_power),       cmocka_unit_test(test_bands),
        cmocka_unit_test(test_spectrogram),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

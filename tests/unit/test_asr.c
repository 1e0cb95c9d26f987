/* Decoding of sound: rules, windows, attempts, segments and writers, on a model that says what a script says.
 * Run from the project root. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "../../tools/apr-infer/asr_text.h"
#include "json.h"

/* Ids: texts "a" to "j" are 0 to 9. */
enum { END = 10, START, EN, DE, TRANSLATE, TRANSCRIBE, SOLO, PREV, SILENT, NOTIMES, T0, N_VOCAB = T0 + 1501 };
#define T(seconds) (T0 + (int)((seconds)*50 + 0.5))

static struct apr_asr_lang langs[] = {{"en", EN}, {"de", DE}};
static const int32_t never[] = {9}, not_first[] = {8};
static const struct apr_asr_tokens tokens = {.n_vocab = N_VOCAB,
                                             .start = START,
                                             .end = END,
                                             .transcribe = TRANSCRIBE,
                                             .translate = TRANSLATE,
                                             .no_timestamps = NOTIMES,
                                             .no_speech = SILENT,
                                             .previous = PREV,
                                             .solo = SOLO,
                                             .time0 = T0,
                                             .max_first = 50,
                                             .langs = langs,
                                             .n_langs = 2,
                                             .never = never,
                                             .n_never = 1,
                                             .not_first = not_first,
                                             .n_not_first = 1};

/* ---- rules -------------------------------------------------------------------------------------------- */

static float logits[N_VOCAB];

static void filter(const int32_t *said, size_t n, bool times)
{
    for (size_t i = 0; i < N_VOCAB; i++) logits[i] = 0;
    logits[3] = logits[END] = 20; /* text is likelier than all times together */
    apr_asr_filter(&tokens, said, n, times, logits);
}

static bool banned(int32_t id)
{
    return isinf(logits[id]);
}

static void test_rules(void **state)
{
    (void)state;
    filter(NULL, 0, true); /* a transcript begins with a time, at most a second in */
    assert_true(banned(3) && banned(END) && banned(8) && banned(9));
    assert_false(banned(T(0)) || banned(T(1)));
    assert_true(banned(T(1.02)) && banned(T(30)));

    const int32_t opened[] = {T(0.5)};
    filter(opened, 1, true); /* then comes text */
    assert_false(banned(3) || banned(END) || banned(8));
    assert_true(banned(9) && banned(T(0)) && banned(T(0.5)) && banned(T(20)));

    const int32_t text[] = {T(0.5), 3, 4};
    filter(text, 3, true); /* text goes on, or ends later than it began */
    assert_false(banned(3) || banned(END) || banned(T(0.52)) || banned(T(30)));
    assert_true(banned(T(0.5)) && banned(T(0)));

    const int32_t closed[] = {T(0.5), 3, T(2)};
    filter(closed, 3, true); /* the next segment opens where this one closed or later, or all ends */
    assert_true(banned(3) && banned(T(1.98)));
    assert_false(banned(END) || banned(T(2)) || banned(T(30)));

    const int32_t pair[] = {T(0.5), 3, T(2), T(2)};
    filter(pair, 4, true);
    assert_false(banned(3));
    assert_true(banned(T(2)) && banned(T(2.02)));
    filter(text, 3, false); /* without times the times are tokens like others */
    assert_false(banned(T(0)) || banned(3));
    const int32_t marks[] = {START, TRANSLATE, TRANSCRIBE, SOLO, PREV, SILENT};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) assert_true(banned(marks[i]));
}

/* Many times, each a little less likely than the text, are together likelier: a time is said. */
static void test_times_together(void **state)
{
    (void)state;
    const int32_t said[] = {T(0), 3};
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < N_VOCAB; i++) logits[i] = 0;
        logits[3] = pass ? 7 : 8; /* ln(1500) = 7.3 */
        apr_asr_filter(&tokens, said, 2, true, logits);
        assert_int_equal(banned(3), pass);
        assert_false(banned(T(5)));
    }
}

static void test_logsumexp(void **state)
{
    (void)state;
    const float x[] = {1000, 1000, -INFINITY}, none[] = {-INFINITY, -INFINITY};
    assert_true(fabs(apr_asr_logsumexp(x, 3) - (1000 + log(2))) < 1e-9);
    assert_true(isinf(apr_asr_logsumexp(none, 2)) && isinf(apr_asr_logsumexp(none, 0)));
}

/* ---- a scripted model --------------------------------------------------------------------------------- */

struct attempt {
    float peak; /* logit of what is said; 0 = 50 */
    int32_t ids[80];
};
struct window {
    float silence; /* logit of no speech after the start token */
    struct attempt attempts[4];
};
struct script {
    const struct window *windows;
    size_t n_windows, i_window, i_attempt;
    int32_t said[400];
    size_t n_said, n_prompt;
    size_t at[16], n_frames[16]; /* of the windows */
    int32_t prompts[16][80];
    int lang;
};

static enum apr_code encode(void *ctx, const float *frames, size_t n_frames, struct apr_err *e)
{
    struct script *s = ctx;
    (void)e;
    assert_true(s->i_window < s->n_windows);
    s->at[s->i_window] = (size_t)frames[0];
    s->n_frames[s->i_window] = n_frames;
    s->i_window++;
    s->i_attempt = 0;
    return APR_OK;
}

static void row(struct script *s, float *out)
{
    const struct window *w = &s->windows[s->i_window - 1];
    for (size_t i = 0; i < N_VOCAB; i++) out[i] = 0;
    if (s->said[s->n_said - 1] == START) {
        out[SILENT] = w->silence;
        out[s->lang] = 3;
    }
    if (s->n_said < s->n_prompt || !s->n_prompt) return;
    const struct attempt *a = &w->attempts[s->i_attempt ? s->i_attempt - 1 : 0];
    out[a->ids[s->n_said - s->n_prompt]] = a->peak != 0 ? a->peak : 50;
}

/* A prompt is what is run at once and ends with the task or "no times"; a single start token asks for the
 * language. */
static enum apr_code decode(void *ctx, const int32_t *ids, size_t n, size_t n_rows, float *out,
                            struct apr_err *e)
{
    struct script *s = ctx;
    (void)e;
    const size_t n_before = s->n_said;
    for (size_t i = 0; i < n; i++) s->said[s->n_said++] = ids[i];
    if (n_before == 0) {
        s->n_prompt = n > 1 ? n : 0;
        memset(s->prompts[s->i_window - 1], 0, sizeof s->prompts[0]);
        memcpy(s->prompts[s->i_window - 1], s->said, n * sizeof *ids);
    }
    for (size_t r = 0; r < n_rows; r++) {
        s->n_said = n_before + n - n_rows + r + 1;
        row(s, out + r * N_VOCAB);
    }
    return APR_OK;
}

static void rewind_to(void *ctx, size_t n_pos)
{
    struct script *s = ctx;
    s->n_said = n_pos;
    if (n_pos) s->i_attempt++;
}

static enum apr_code text_of(void *ctx, const int32_t *ids, size_t n, struct apr_buf *out, struct apr_err *e)
{
    (void)ctx;
    for (size_t i = 0; i < n; i++) {
        const char text[2] = {' ', (char)('a' + ids[i])};
        assert_true(ids[i] < END);
        enum apr_code code = apr_buf_append(out, text, 2, e);
        if (code != APR_OK) return code;
    }
    return APR_OK;
}

/* ---- running it --------------------------------------------------------------------------------------- */

static struct script script;
static char transcript[4096];
static struct apr_asr asr;
static float frames[9000];

static enum apr_code note(void *ctx, const struct apr_asr_segment *s, struct apr_err *e)
{
    (void)ctx, (void)e;
    size_t n = strlen(transcript);
    snprintf(transcript + n, sizeof transcript - n, "%.2f-%.2f %.*s|", s->start_s, s->end_s, (int)s->n_text,
             s->text);
    return APR_OK;
}

static void run_with(const struct window *windows, size_t n, size_t n_frames, const struct apr_asr_opts *o)
{
    static const struct apr_asr_engine engine = {.ctx = &script,
                                                 .n_ctx = 128,
                                                 .n_window = 3000,
                                                 .n_mels = 1,
                                                 .encode = encode,
                                                 .decode = decode,
                                                 .rewind = rewind_to,
                                                 .text = text_of};
    struct apr_err e = {0};
    int lang = script.lang;
    script = (struct script){.windows = windows, .n_windows = n, .lang = lang ? lang : DE};
    transcript[0] = '\0';
    for (size_t i = 0; i < 9000; i++) frames[i] = (float)i;
    asr = (struct apr_asr){.engine = &engine, .tokens = &tokens, .opts = *o, .take = note};
    if (apr_asr_run(&asr, frames, n_frames, &apr_kern_scalar, &e) != APR_OK) fail_msg("%s", e.text);
    assert_int_equal(script.i_window, n);
}

static void run(const struct window *windows, size_t n, size_t n_frames)
{
    struct apr_asr_opts o;
    apr_asr_defaults(&o);
    run_with(windows, n, n_frames, &o);
}

/* Segments meet in pairs of times; an open one at the end is heard again from its beginning. */
static void test_segments_and_seek(void **state)
{
    (void)state;
    static const struct window w[] = {
        {.attempts = {{.ids = {T(0.2), 0, 1, T(2), T(2), 2, T(4), T(4.5), 3, 4, END}}}},
        {.attempts = {{.ids = {T(0), 3, 4, T(3.1), END}}}},
    };
    run(w, 2, 3300);
    assert_string_equal(transcript, "0.20-2.00 a b|2.00-4.00 c|4.00-7.10 d e|");
    assert_int_equal(script.at[0], 0);
    assert_int_equal(script.n_frames[0], 3000);
    assert_int_equal(script.at[1], 400);
    assert_int_equal(script.n_frames[1], 2900);
    assert_int_equal(asr.n_windows, 2);
    assert_string_equal(asr.language, "de");
    assert_true(asr.language_p > 0.9);
    /* what was said before stands in front, with its times */
    const int32_t want[] = {PREV, T(0.2), 0, 1, T(2), T(2), 2, T(4), START, DE, TRANSCRIBE, 0};
    assert_memory_equal(script.prompts[1], want, sizeof want);
}

/* A single time at the end closes the window. */
static void test_single_time(void **state)
{
    (void)state;
    static const struct window w[] = {
        {.attempts = {{.ids = {T(0), 0, T(2), T(2), 1, T(25), END}}}},
        {.attempts = {{.ids = {T(0.5), 2, END}}}},
        {.attempts = {{.ids = {T(0), T(0), 3, END}}}}, /* the rules forbid the second time: text follows */
    };
    run(w, 3, 6100);
    assert_string_equal(transcript, "0.00-2.00 a|2.00-25.00 b|30.00-30.50 c|60.00-61.00 a d|");
    assert_int_equal(script.at[1], 3000);
    assert_int_equal(script.at[2], 6000);
    assert_int_equal(script.n_frames[2], 100);
}

/* A text that repeats itself is said again at a higher temperature. */
static void test_fallback(void **state)
{
    (void)state;
    static struct window w[1] = {{.attempts = {{.ids = {T(0)}}, {.ids = {T(0), 0, 1, 2, T(9), END}}}}};
    struct attempt *bad = &w[0].attempts[0];
    for (size_t i = 1; i < 60; i++) bad->ids[i] = 3;
    bad->ids[60] = T(9), bad->ids[61] = END;
    struct apr_asr_opts o;
    apr_asr_defaults(&o);
    o.n_best = 1;
    run_with(w, 1, 1000, &o);
    assert_string_equal(transcript, "0.00-9.00 a b c|");
    assert_int_equal(asr.n_attempts, 2);
    o.increment = 0; /* no second attempt */
    run_with(w, 1, 1000, &o);
    assert_int_equal(asr.n_attempts, 1);
    assert_true(strstr(transcript, "d d d d d") != NULL);
}

/* An unlikely text is tried at every temperature; then the last one stands. */
static void test_unlikely(void **state)
{
    (void)state;
    static const struct window w[] = {
        {.attempts = {{.peak = 1, .ids = {END}}, {.peak = 1, .ids = {END}}, {.peak = 1, .ids = {END}}}}};
    struct apr_asr_opts o;
    apr_asr_defaults(&o);
    o.n_best = 1;
    o.n_max = 1;
    o.no_timestamps = true;
    static struct window flat[1];
    flat[0] = w[0];
    for (int i = 0; i < 4; i++) flat[0].attempts[i] = (struct attempt){.peak = 1, .ids = {0, 1, 2, END}};
    struct apr_asr_opts two = o;
    two.temperature = 0.6; /* 0.6, 0.8, 1.0 */
    run_with(flat, 1, 1000, &two);
    assert_int_equal(asr.n_attempts, 3);
    two.min_logprob = -100;
    run_with(flat, 1, 1000, &two);
    assert_int_equal(asr.n_attempts, 1);
}

/* Probably silence, and an unlikely text: nothing is said, and nothing is tried again. */
static void test_silence(void **state)
{
    (void)state;
    static const struct window w[] = {
        {.silence = 60, .attempts = {{.peak = 1, .ids = {T(0), 0, T(1), END}}}},
        {.silence = 60, .attempts = {{.ids = {T(0), 1, T(1), END}}}}, /* likely text is heard all the same */
    };
    run(w, 2, 4000);
    assert_string_equal(transcript, "30.00-31.00 b|");
    assert_int_equal(asr.n_attempts, 2);
}

static void test_context(void **state)
{
    (void)state;
    static const struct window w[] = {
        {.attempts = {{.ids = {T(0), 0, T(1), END}}}},
        {.attempts = {{.ids = {T(0), 1, T(1), END}}}},
    };
    struct apr_asr_opts o;
    static const int32_t before[] = {5, 6};
    apr_asr_defaults(&o);
    o.language = "en";
    o.translate = true;
    o.prompt = before;
    o.n_prompt = 2;
    run_with(w, 2, 6000, &o);
    const int32_t first[] = {PREV, 5, 6, START, EN, TRANSLATE, 0};
    const int32_t second[] = {PREV, 5, 6, T(0), 0, T(1), START, EN, TRANSLATE, 0};
    assert_memory_equal(script.prompts[0], first, sizeof first);
    assert_memory_equal(script.prompts[1], second, sizeof second);
    o.no_context = true;
    run_with(w, 2, 6000, &o);
    const int32_t alone[] = {START, EN, TRANSLATE, 0};
    assert_memory_equal(script.prompts[1], alone, sizeof alone);
    o.no_context = false;
    o.temperature = 0.6; /* what was said so freely is no context */
    o.n_best = 1;
    run_with(w, 2, 6000, &o);
    assert_memory_equal(script.prompts[1], alone, sizeof alone);
    o.no_timestamps = true;
    o.temperature = 0;
    static const struct window plain[] = {{.attempts = {{.ids = {0, 1, END}}}}};
    run_with(plain, 1, 2000, &o);
    const int32_t bare[] = {PREV, 5, 6, START, EN, TRANSLATE, NOTIMES, 0};
    assert_memory_equal(script.prompts[0], bare, sizeof bare);
    assert_string_equal(transcript, "0.00-20.00 a b|");
}

static void test_refused(void **state)
{
    (void)state;
    struct apr_err e = {0};
    struct apr_asr a = asr;
    apr_asr_defaults(&a.opts);
    a.opts.language = "xx";
    assert_int_equal(apr_asr_run(&a, frames, 100, &apr_kern_scalar, &e), APR_EUSAGE);
    assert_non_null(strstr(e.text, "\"xx\""));
    struct apr_asr_tokens mono = tokens;
    mono.n_langs = 0;
    mono.translate = mono.transcribe = -1;
    a.tokens = &mono;
    assert_int_equal(apr_asr_run(&a, frames, 100, &apr_kern_scalar, &e), APR_EUSAGE);
    a.opts.language = "en";
    a.opts.translate = true;
    assert_int_equal(apr_asr_run(&a, frames, 100, &apr_kern_scalar, &e), APR_EUSAGE);
    assert_non_null(strstr(e.text, "--task translate"));
}

static void test_no_sound(void **state)
{
    (void)state;
    run(NULL, 0, 0);
    assert_string_equal(transcript, "");
    assert_int_equal(asr.n_segments, 0);
}

/* ---- writers ------------------------------------------------------------------------------------------ */

static void expect_written(const char *format, bool times, const char *want)
{
    static const struct apr_asr_segment s[] = {
        {.i = 0, .start_s = 0, .end_s = 1.5, .text = "Hi --> there", .n_text = 12, .ids = never, .n_ids = 1},
        {.i = 1, .start_s = 3661.0419, .end_s = 3662, .text = "b\n\nc", .n_text = 4, .avg_logprob = -0.5},
    };
    char got[2048] = "";
    struct apr_err e = {0};
    FILE *f = tmpfile();
    struct apr_asr_writer w = {
        .to = f, .format = apr_asr_format_named(format), .with_times = times, .model = "m"};
    struct apr_asr a = {.language = "de", .language_p = 0.5, .n_windows = 2};
    assert_int_equal(apr_asr_write_begin(&w, &e), APR_OK);
    for (size_t i = 0; i < 2; i++) assert_int_equal(apr_asr_write_segment(&w, &s[i], &e), APR_OK);
    assert_int_equal(apr_asr_write_end(&w, &a, 3663, &e), APR_OK);
    apr_asr_write_free(&w);
    rewind(f);
    assert_true(fread(got, 1, sizeof got - 1, f) > 0);
    fclose(f);
    assert_string_equal(got, want);
}

static void test_writers(void **state)
{
    (void)state;
    assert_null(apr_asr_format_named("xml"));
    expect_written("text", false, "Hi --> there\nb\n\nc\n");
    expect_written("text", true,
                   "[00:00.000 --> 00:01.500]  Hi --> there\n[01:01:01.042 --> 01:01:02.000]  b\n\nc\n");
    expect_written("srt", false,
                   "1\n00:00:00,000 --> 00:00:01,500\nHi -> there\n\n"
                   "2\n01:01:01,042 --> 01:01:02,000\nb\nc\n\n");
    expect_written("vtt", false,
                   "WEBVTT\n\n00:00.000 --> 00:01.500\nHi -> there\n\n"
                   "01:01:01.042 --> 01:01:02.000\nb\nc\n\n");
    expect_written(
        "json", false,
        "{\"schema\":\"apr.transcribe/1\",\"model\":\"m\",\"text\":\"Hi --> there b\\n\\nc\","
        "\"language\":\"de\",\"language_probability\":0.5,\"task\":\"transcribe\",\"duration_s\":3663.0,"
        "\"segments\":[{\"id\":0,\"start_s\":0.0,\"end_s\":1.5,\"text\":\"Hi --> there\",\"tokens\":[9],"
        "\"temperature\":0.0,\"avg_logprob\":0.0,\"compression_ratio\":0.0,\"no_speech_prob\":0.0},"
        "{\"id\":1,\"start_s\":3661.0419,\"end_s\":3662.0,\"text\":\"b\\n\\nc\",\"tokens\":[],"
        "\"temperature\":0.0,\"avg_logprob\":-0.5,\"compression_ratio\":0.0,\"no_speech_prob\":0.0}],"
        "\"n_windows\":2,\"n_attempts\":0,\"n_generated\":0}\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rules),       cmocka_unit_test(test_times_together),
        cmocka_unit_test(test_logsumexp),   cmocka_unit_test(test_segments_and_seek),
        cmocka_unit_test(test_single_time), cmocka_unit_test(test_fallback),
        cmocka_unit_test(test_unlikely),    cmocka_unit_test(test_silence),
        cmocka_unit_test(test_context),     cmocka_unit_test(test_refused),
        cmocka_unit_test(test_no_sound),    cmocka_unit_test(test_writers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

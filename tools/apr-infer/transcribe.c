/* Sound, model, decoding and writer put together. See transcribe.h. */
#include "transcribe.h"

#include <string.h>

#include "asr_text.h"
#include "audio_mel.h"
#include "speech.h"

struct work {
    struct apr_session *s;
    struct apr_speech speech;
    struct apr_asr_writer writer;
    struct apr_progress progress;
    struct apr_ids prompt; /* owned */
    struct apr_arena arena;
};

const char *apr_speech_given(const struct apr_speech_opts *o)
{
    return o->language        ? "--language"
           : o->task          ? "--task"
           : o->timestamps    ? "--timestamps"
           : o->no_timestamps ? "--no-timestamps"
           : o->no_context    ? "--no-context"
           : o->no_fallback   ? "--no-fallback"
           : o->n_best        ? "--best-of"
                              : NULL;
}

/* ---- the model as an engine --------------------------------------------------------------------------- */

static enum apr_code encode(void *ctx, const float *frames, size_t n_frames, struct apr_err *e)
{
    struct work *w = ctx;
    return apr_speech_encode(&w->speech, frames, n_frames, e);
}

static enum apr_code decode(void *ctx, const int32_t *ids, size_t n, size_t n_rows, float *logits,
                            struct apr_err *e)
{
    struct work *w = ctx;
    return apr_speech_decode(&w->speech, ids, n, n_rows, logits, e);
}

static void go_back(void *ctx, size_t n_pos)
{
    struct work *w = ctx;
    w->speech.n_pos = n_pos;
}

static enum apr_code text_of(void *ctx, const int32_t *ids, size_t n, struct apr_buf *out, struct apr_err *e)
{
    struct work *w = ctx;
    return apr_tok_decode(w->s->tok, ids, n, false, out, e);
}

static enum apr_code take(void *ctx, const struct apr_asr_segment *s, struct apr_err *e)
{
    struct work *w = ctx;
    return apr_asr_write_segment(&w->writer, s, e);
}

static void progress(void *ctx, size_t n_frames)
{
    struct work *w = ctx;
    apr_progress_add(&w->progress, n_frames);
}

/* ---- options ------------------------------------------------------------------------------------------ */

static enum apr_code options(const struct apr_speech_opts *o, const struct apr_transcribe *t,
                             const struct apr_asr_tokens *tokens, struct apr_asr_opts *to, struct apr_err *e)
{
    const char *task = o->task ? o->task : tokens->is_translator ? "translate" : "transcribe";
    apr_asr_defaults(to);
    if (strcmp(task, "transcribe") != 0 && strcmp(task, "translate") != 0)
        return apr_fail(e, APR_EUSAGE, "--task: found \"%.40s\", expected transcribe or translate", task);
    if (o->timestamps && o->no_timestamps)
        return apr_fail(e, APR_EUSAGE, "--timestamps and --no-timestamps exclude each other");
    if (o->timestamps && tokens->time0 < 0)
        return apr_fail(e, APR_EUSAGE, "--timestamps: this model says no times");
    if (o->n_best > 100)
        return apr_fail(e, APR_EUSAGE, "--best-of: found %llu, expected 1 to 100",
                        (unsigned long long)o->n_best);
    if (t->temperature > 1)
        return apr_fail(e, APR_EUSAGE, "--temperature: found %g, expected 0 to 1 for sound", t->temperature);
    to->language = o->language;
    to->translate = strcmp(task, "translate") == 0;
    to->no_timestamps = o->no_timestamps || tokens->time0 < 0;
    to->no_context = o->no_context;
    to->temperature = t->temperature;
    if (o->no_fallback) to->increment = 0;
    if (o->n_best) to->n_best = o->n_best;
    to->n_max = t->n_max;
    to->seed = t->seed;
    return APR_OK;
}

static enum apr_code encode_prompt(struct work *w, const struct apr_transcribe *t, struct apr_err *e)
{
    const char *p = t->prompt;
    if (!p) return APR_OK;
    while (*p == ' ') p++;
    const char *text = apr_arena_printf(&w->arena, " %s", p);
    return apr_tok_encode(w->s->tok, text, strlen(text), 0, &w->prompt, e);
}

/* ---- the run ------------------------------------------------------------------------------------------ */

static enum apr_code decode_all(struct work *w, const struct apr_speech_opts *o, struct apr_transcribe *t,
                                struct apr_err *e)
{
    const struct apr_config *c = &w->s->model->config;
    struct apr_asr_tokens tokens;
    struct apr_asr asr = {.tokens = &tokens, .take = take, .ctx = w, .progress = progress};
    const struct apr_asr_engine engine = {.ctx = w,
                                          .n_ctx = w->speech.n_ctx,
                                          .n_window = w->speech.n_frames_most,
                                          .n_mels = c->n_mels,
                                          .encode = encode,
                                          .decode = decode,
                                          .rewind = go_back,
                                          .text = text_of};
    TRY(apr_asr_tokens_read(&tokens, w->s->model, &w->arena, e));
    TRY(options(o, t, &tokens, &asr.opts, e));
    TRY(encode_prompt(w, t, e));
    asr.engine = &engine;
    asr.opts.prompt = w->prompt.at;
    asr.opts.n_prompt = w->prompt.n;
    TRY(apr_sound_open(&t->sound, c->n_mels, w->s->pool, &w->arena, e));
    apr_verbose("%.2f s of sound: %s, %u channels, %u Hz", t->sound.seconds, t->sound.encoding,
                t->sound.n_channels, t->sound.rate);
    TRY(apr_asr_write_begin(&w->writer, e));
    apr_progress_begin(&w->progress, "transcribing", t->sound.n_frames, "frames");
    enum apr_code code = apr_asr_run(&asr, t->sound.frames, t->sound.n_frames, w->s->kern, e);
    apr_progress_end(&w->progress);
    TRY(code);
    if (asr.language && !o->language && !tokens.lang)
        apr_note("language: %s (probability %.2f)", asr.language, asr.language_p);
    return apr_asr_write_end(&w->writer, &asr, t->sound.seconds, e);
}

enum apr_code apr_transcribe(struct apr_session *s, const struct apr_speech_opts *o, struct apr_transcribe *t,
                             struct apr_err *e)
{
    const struct apr_tok *tok;
    struct work w = {.s = s, .writer = {.to = stdout, .with_times = o->timestamps, .model = s->model->name}};
    w.writer.format = apr_asr_format_named(t->format);
    if (!w.writer.format)
        return apr_fail(e, APR_EUSAGE, "--format: found \"%.40s\", expected text, srt, vtt or json",
                        t->format);
    TRY(apr_session_tok(s, &tok, e));
    apr_arena_init(&w.arena);
    apr_arena_init(&w.writer.arena);
    enum apr_code code = apr_speech_open(&w.speech, &s->checked, s->kern, s->pool, t->exact, e);
    if (code == APR_OK) code = decode_all(&w, o, t, e);
    apr_speech_close(&w.speech);
    apr_asr_write_free(&w.writer);
    apr_ids_free(&w.prompt);
    apr_arena_free(&w.arena);
    return code;
}

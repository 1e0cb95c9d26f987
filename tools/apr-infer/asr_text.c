/* Transcript formats. SubRip as players read it; WebVTT: W3C, "WebVTT: The Web Video Text Tracks Format". See
 * asr_text.h. */
#include "asr_text.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

struct apr_asr_format {
    const char *name;
    const char *head;
    bool needs_times, is_json;
    enum apr_code (*segment)(struct apr_asr_writer *w, const struct apr_asr_segment *s, struct apr_buf *b,
                             struct apr_err *e);
};

#define MAX_TEXT_BYTES (256u << 20)

/* "01:02:03,004"; hours only where there are some, or always. */
static enum apr_code stamp(struct apr_buf *b, double seconds, char point, bool hours, struct apr_err *e)
{
    uint64_t ms = (uint64_t)llround((seconds > 0 ? seconds : 0) * 1000);
    uint64_t h = ms / 3600000, min = ms / 60000 % 60, s = ms / 1000 % 60;
    if (hours || h) TRY(apr_buf_printf(b, e, "%02" PRIu64 ":", h));
    return apr_buf_printf(b, e, "%02" PRIu64 ":%02" PRIu64 "%c%03" PRIu64, min, s, point, ms % 1000);
}

static enum apr_code span(struct apr_buf *b, const struct apr_asr_segment *s, char point, bool hours,
                          struct apr_err *e)
{
    TRY(stamp(b, s->start_s, point, hours, e));
    TRY(apr_buf_append(b, " --> ", 5, e));
    return stamp(b, s->end_s, point, hours, e);
}

/* An arrow in a cue's text would read as a time line; so would an empty line as its end. */
static enum apr_code cue_text(struct apr_buf *b, const struct apr_asr_segment *s, struct apr_err *e)
{
    for (size_t i = 0; i < s->n_text; i++) {
        bool arrow = i + 3 <= s->n_text && memcmp(s->text + i, "-->", 3) == 0;
        bool empty_line = s->text[i] == '\n' && i + 1 < s->n_text && s->text[i + 1] == '\n';
        if (!arrow && !empty_line) TRY(apr_buf_append(b, s->text + i, 1, e));
    }
    return apr_buf_append(b, "\n\n", 2, e);
}

static enum apr_code plain(struct apr_asr_writer *w, const struct apr_asr_segment *s, struct apr_buf *b,
                           struct apr_err *e)
{
    if (w->with_times) {
        TRY(apr_buf_append(b, "[", 1, e));
        TRY(span(b, s, '.', false, e));
        TRY(apr_buf_append(b, "]  ", 3, e));
    }
    TRY(apr_buf_append(b, s->text, s->n_text, e));
    return apr_buf_append(b, "\n", 1, e);
}

static enum apr_code srt(struct apr_asr_writer *w, const struct apr_asr_segment *s, struct apr_buf *b,
                         struct apr_err *e)
{
    (void)w;
    TRY(apr_buf_printf(b, e, "%zu\n", s->i + 1));
    TRY(span(b, s, ',', true, e));
    TRY(apr_buf_append(b, "\n", 1, e));
    return cue_text(b, s, e);
}

static enum apr_code vtt(struct apr_asr_writer *w, const struct apr_asr_segment *s, struct apr_buf *b,
                         struct apr_err *e)
{
    (void)w;
    TRY(span(b, s, '.', false, e));
    TRY(apr_buf_append(b, "\n", 1, e));
    return cue_text(b, s, e);
}

/* ---- JSON: one document, so the segments are kept ----------------------------------------------------- */

struct apr_asr_kept {
    struct apr_asr_segment s;
    struct apr_asr_kept *next;
};

static enum apr_code keep(struct apr_asr_writer *w, const struct apr_asr_segment *s, struct apr_buf *b,
                          struct apr_err *e)
{
    struct apr_asr_kept *k;
    int32_t *ids;
    (void)b;
    TRY(apr_arena_try(&w->arena, &k, 1, sizeof *k, "the transcript", e));
    TRY(apr_arena_try(&w->arena, &ids, s->n_ids, sizeof *ids, "the transcript", e));
    if (s->n_ids) memcpy(ids, s->ids, s->n_ids * sizeof *ids);
    k->s = *s;
    k->s.ids = ids;
    k->s.text = apr_arena_strndup(&w->arena, s->text, s->n_text);
    if (w->last)
        w->last->next = k;
    else
        w->first = k;
    w->last = k;
    w->n_text += s->n_text + 1;
    return APR_OK;
}

static void show(struct apr_out *o, const struct apr_asr_segment *s)
{
    apr_out_obj(o, NULL);
    apr_out_u64(o, "id", s->i);
    apr_out_f64(o, "start_s", s->start_s);
    apr_out_f64(o, "end_s", s->end_s);
    apr_out_strn(o, "text", s->text, s->n_text);
    apr_out_arr(o, "tokens");
    for (size_t i = 0; i < s->n_ids; i++) apr_out_i64(o, NULL, s->ids[i]);
    apr_out_end(o);
    apr_out_f64(o, "temperature", s->temperature);
    apr_out_f64(o, "avg_logprob", s->avg_logprob);
    apr_out_f64(o, "compression_ratio", s->ratio);
    apr_out_f64(o, "no_speech_prob", s->no_speech);
    apr_out_end(o);
}

static enum apr_code document(struct apr_asr_writer *w, const struct apr_asr *a, double sound_s,
                              struct apr_err *e)
{
    char *text;
    size_t n = 0;
    TRY(apr_arena_try(&w->arena, &text, w->n_text + 1, 1, "the transcript", e));
    for (const struct apr_asr_kept *k = w->first; k; k = k->next) {
        if (n) text[n++] = ' ';
        memcpy(text + n, k->s.text, k->s.n_text);
        n += k->s.n_text;
    }
    struct apr_out *o = apr_out_open(w->to, true, "apr.transcribe/1");
    apr_out_str(o, "model", w->model);
    apr_out_strn(o, "text", text, n);
    apr_out_str(o, "language", a->language);
    apr_out_f64(o, "language_probability", a->language_p);
    apr_out_str(o, "task", a->opts.translate ? "translate" : "transcribe");
    apr_out_f64(o, "duration_s", sound_s);
    apr_out_arr(o, "segments");
    for (const struct apr_asr_kept *k = w->first; k; k = k->next) show(o, &k->s);
    apr_out_end(o);
    apr_out_u64(o, "n_windows", a->n_windows);
    apr_out_u64(o, "n_attempts", a->n_attempts);
    apr_out_u64(o, "n_generated", a->n_tokens);
    return apr_out_close(o, e);
}

static const struct apr_asr_format formats[] = {
    {.name = "text", .head = "", .segment = plain},
    {.name = "srt", .head = "", .needs_times = true, .segment = srt},
    {.name = "vtt", .head = "WEBVTT\n\n", .needs_times = true, .segment = vtt},
    {.name = "json", .head = "", .is_json = true, .segment = keep},
};

const struct apr_asr_format *apr_asr_format_named(const char *name)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strcmp(formats[i].name, name) == 0) return &formats[i];
    return NULL;
}

bool apr_asr_format_is_json(const struct apr_asr_format *f)
{
    return f->is_json;
}

bool apr_asr_format_needs_times(const struct apr_asr_format *f)
{
    return f->needs_times;
}

static enum apr_code put(struct apr_asr_writer *w, const void *p, size_t n, struct apr_err *e)
{
    if (fwrite(p, 1, n, w->to) == n && !fflush(w->to)) return APR_OK;
    return apr_fail(e, APR_EIO, "standard output: %m");
}

enum apr_code apr_asr_write_begin(struct apr_asr_writer *w, struct apr_err *e)
{
    apr_arena_init(&w->arena);
    return put(w, w->format->head, strlen(w->format->head), e);
}

enum apr_code apr_asr_write_segment(void *ctx, const struct apr_asr_segment *s, struct apr_err *e)
{
    struct apr_asr_writer *w = ctx;
    struct apr_buf b;
    apr_buf_init(&b, MAX_TEXT_BYTES);
    enum apr_code code = w->format->segment(w, s, &b, e);
    if (code == APR_OK && b.n_bytes) code = put(w, b.data, b.n_bytes, e);
    apr_buf_free(&b);
    return code;
}

enum apr_code apr_asr_write_end(struct apr_asr_writer *w, const struct apr_asr *a, double sound_s,
                                struct apr_err *e)
{
    return w->format->is_json ? document(w, a, sound_s, e) : APR_OK;
}

void apr_asr_write_free(struct apr_asr_writer *w)
{
    apr_arena_free(&w->arena);
}

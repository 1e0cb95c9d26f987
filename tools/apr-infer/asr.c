/* Decoding of long sound: Radford et al. (2022), 4.5. See asr.h. */
#include "asr.h"

#include <math.h>
#include <string.h>
#include <zlib.h>

#define MAX_PREFIX 4u /* start, language, task, no timestamps */

void apr_asr_defaults(struct apr_asr_opts *o)
{
    *o = (struct apr_asr_opts){.increment = 0.2,
                               .max_ratio = 2.4,
                               .min_logprob = -1.0,
                               .max_silence = 0.6,
                               .n_best = 5,
                               .seed = 299792458};
}

/* What one attempt at a window said. */
struct said {
    struct apr_ids ids;  /* owned; without the end token */
    struct apr_buf text; /* owned */
    double sum_logprob, avg_logprob, ratio, temperature;
};

struct state {
    struct apr_asr *a;
    struct apr_arena arena;
    struct apr_sampler sampler;
    int32_t prefix[MAX_PREFIX];
    size_t n_prefix;
    struct apr_ids past;   /* everything said, with times */
    size_t i_context;      /* of past: the prompt begins here at the earliest */
    struct apr_ids prompt; /* of this window */
    float *first, *logits; /* [MAX_PREFIX, n_vocab] after the prompt, [n_vocab] */
    double no_speech;
    struct said best, other;
};

static void said_free(struct said *s)
{
    apr_ids_free(&s->ids);
    apr_buf_free(&s->text);
}

static bool is_text(const struct apr_asr_tokens *t, int32_t id)
{
    return t->time0 >= 0 ? id < t->end : id != t->end;
}

/* ---- one attempt -------------------------------------------------------------------------------------- */

static enum apr_code text_of(const struct state *st, const int32_t *ids, size_t n, struct apr_buf *out,
                             struct apr_err *e)
{
    const struct apr_asr *a = st->a;
    struct apr_ids words = {0};
    enum apr_code code = APR_OK;
    for (size_t i = 0; i < n && code == APR_OK; i++)
        if (is_text(a->tokens, ids[i])) code = apr_ids_push(&words, ids[i], e);
    if (code == APR_OK) code = a->engine->text(a->engine->ctx, words.at, words.n, out, e);
    apr_ids_free(&words);
    return code;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static void strip(const char **p, size_t *n)
{
    while (*n && is_blank(**p)) (*p)++, (*n)--;
    while (*n && is_blank((*p)[*n - 1])) (*n)--;
}

/* A text that repeats itself compresses well. */
static enum apr_code ratio_of(const struct apr_buf *text, double *ratio, struct apr_err *e)
{
    const char *p = (const char *)text->data;
    size_t n = text->n_bytes;
    uint8_t *room;
    *ratio = 0;
    strip(&p, &n);
    if (n == 0) return APR_OK;
    struct apr_buf packed;
    uLongf n_packed = compressBound((uLong)n);
    apr_buf_init(&packed, SIZE_MAX / 2);
    enum apr_code code = apr_buf_reserve(&packed, n_packed, &room, e);
    if (code == APR_OK &&
        compress2(room, &n_packed, (const Bytef *)p, (uLong)n, Z_DEFAULT_COMPRESSION) != Z_OK)
        code = apr_fail(e, APR_EINFER, "zlib could not compress %zu bytes of text", n);
    if (code == APR_OK) *ratio = (double)n / (double)n_packed;
    apr_buf_free(&packed);
    return code;
}

/* Tokens after the prompt until the end token, the limit or the last position. st->logits holds the first. */
static enum apr_code say(struct state *st, double temperature, struct said *s, struct apr_err *e)
{
    const struct apr_asr *a = st->a;
    const struct apr_asr_tokens *t = a->tokens;
    const size_t n_most = a->opts.n_max ? a->opts.n_max : a->engine->n_ctx / 2;
    s->ids.n = 0;
    s->sum_logprob = 0;
    s->temperature = temperature;
    st->sampler.opts.temperature = temperature;
    for (;;) {
        int32_t id;
        apr_asr_filter(t, s->ids.at, s->ids.n, !a->opts.no_timestamps, st->logits);
        double all = apr_asr_logsumexp(st->logits, t->n_vocab);
        TRY(apr_sampler_next(&st->sampler, st->logits, &id, e));
        s->sum_logprob += (double)st->logits[id] - all;
        st->a->n_tokens++;
        if (id == t->end) break;
        TRY(apr_ids_push(&s->ids, id, e));
        if (s->ids.n >= n_most || st->prompt.n + s->ids.n >= a->engine->n_ctx) break;
        TRY(a->engine->decode(a->engine->ctx, &id, 1, 1, st->logits, e));
    }
    s->avg_logprob = s->sum_logprob / (double)(s->ids.n + 1);
    s->text.n_bytes = 0;
    TRY(text_of(st, s->ids.at, s->ids.n, &s->text, e));
    return ratio_of(&s->text, &s->ratio, e);
}

/* The best of n_best samples, or the greedy one: best mean likelihood. */
static enum apr_code attempt(struct state *st, double temperature, struct apr_err *e)
{
    const struct apr_asr *a = st->a;
    const size_t n_vocab = a->tokens->n_vocab;
    const uint64_t n = temperature > 0 ? a->opts.n_best : 1;
    double best = 0;
    st->a->n_attempts++;
    for (uint64_t i = 0; i < n; i++) {
        a->engine->rewind(a->engine->ctx, st->prompt.n);
        memcpy(st->logits, st->first, n_vocab * sizeof *st->logits);
        TRY(say(st, temperature, &st->other, e));
        double score = st->other.sum_logprob / (double)(st->other.ids.n ? st->other.ids.n : 1);
        if (i > 0 && score <= best) continue;
        struct said swap = st->best;
        st->best = st->other;
        st->other = swap;
        best = score;
    }
    return APR_OK;
}

/* ---- one window --------------------------------------------------------------------------------------- */

/* What was said before as far as it fits, then how this model begins. */
static enum apr_code make_prompt(struct state *st, struct apr_err *e)
{
    const struct apr_asr *a = st->a;
    const size_t n_most = a->engine->n_ctx / 2 - 1, n_past = st->past.n - st->i_context;
    const size_t n_kept = n_past < n_most ? n_past : n_most;
    st->prompt.n = 0;
    if (n_kept && a->tokens->previous >= 0) {
        TRY(apr_ids_push(&st->prompt, a->tokens->previous, e));
        for (size_t i = 0; i < n_kept; i++)
            TRY(apr_ids_push(&st->prompt, st->past.at[st->past.n - n_kept + i], e));
    }
    for (size_t i = 0; i < st->n_prefix; i++) TRY(apr_ids_push(&st->prompt, st->prefix[i], e));
    return APR_OK;
}

/* Runs the prompt; the row after it goes to the front, the row of the start token tells about speech. */
static enum apr_code run_prompt(struct state *st, struct apr_err *e)
{
    const struct apr_asr *a = st->a;
    const struct apr_asr_tokens *t = a->tokens;
    const size_t n = t->n_vocab;
    a->engine->rewind(a->engine->ctx, 0);
    TRY(make_prompt(st, e));
    TRY(a->engine->decode(a->engine->ctx, st->prompt.at, st->prompt.n, st->n_prefix, st->first, e));
    st->no_speech = 0;
    if (t->no_speech >= 0)
        st->no_speech = exp((double)st->first[t->no_speech] - apr_asr_logsumexp(st->first, n));
    memmove(st->first, st->first + (st->n_prefix - 1) * n, n * sizeof *st->first);
    return APR_OK;
}

static bool is_poor(const struct state *st)
{
    const struct apr_asr_opts *o = &st->a->opts;
    if (st->no_speech > o->max_silence && st->best.avg_logprob < o->min_logprob) return false; /* silence */
    return st->best.ratio > o->max_ratio || st->best.avg_logprob < o->min_logprob;
}

static enum apr_code decode_window(struct state *st, struct apr_err *e)
{
    const struct apr_asr_opts *o = &st->a->opts;
    TRY(run_prompt(st, e));
    for (int i = 0;; i++) {
        double temperature = o->temperature + i * o->increment;
        if (i > 0 && temperature > 1 + 1e-9) return APR_OK;
        TRY(attempt(st, temperature, e));
        if (o->increment <= 0 || !is_poor(st)) return APR_OK;
    }
}

/* ---- segments ----------------------------------------------------------------------------------------- */

/* A segment without text or without length is dropped. */
static enum apr_code emit(struct state *st, double start_s, double end_s, const int32_t *ids, size_t n,
                          struct apr_err *e)
{
    struct apr_buf text;
    apr_buf_init(&text, SIZE_MAX / 2);
    enum apr_code code = text_of(st, ids, n, &text, e);
    const char *p = (const char *)text.data;
    size_t n_text = text.n_bytes;
    strip(&p, &n_text);
    if (code == APR_OK && n_text && end_s > start_s) {
        const struct apr_asr_segment s = {.i = st->a->n_segments++,
                                          .start_s = start_s,
                                          .end_s = end_s,
                                          .text = p,
                                          .n_text = n_text,
                                          .ids = ids,
                                          .n_ids = n,
                                          .temperature = st->best.temperature,
                                          .avg_logprob = st->best.avg_logprob,
                                          .ratio = st->best.ratio,
                                          .no_speech = st->no_speech};
        code = st->a->take(st->a->ctx, &s, e);
        for (size_t i = 0; i < n && code == APR_OK; i++) code = apr_ids_push(&st->past, ids[i], e);
    }
    apr_buf_free(&text);
    return code;
}

static bool is_time(const struct state *st, size_t i)
{
    return st->a->tokens->time0 >= 0 && st->best.ids.at[i] >= st->a->tokens->time0;
}

static double tick(const struct state *st, size_t i)
{
    return (double)(st->best.ids.at[i] - st->a->tokens->time0);
}

/* Text of the window with at most one time at its end: one segment. */
static enum apr_code whole(struct state *st, double offset_s, size_t n_frames, struct apr_err *e)
{
    double duration_s = (double)n_frames * APR_ASR_FRAME_S;
    for (size_t i = st->best.ids.n; i-- > 0;) {
        if (!is_time(st, i)) continue;
        if (tick(st, i) > 0) duration_s = tick(st, i) * APR_ASR_TICK_S;
        break;
    }
    return emit(st, offset_s, offset_s + duration_s, st->best.ids.at, st->best.ids.n, e);
}

/* Cuts the window where a closing and an opening time meet. *n_done: frames until the last complete segment.
 */
static enum apr_code cut(struct state *st, double offset_s, size_t n_frames, size_t *n_done,
                         struct apr_err *e)
{
    const struct apr_ids *ids = &st->best.ids;
    const size_t n = ids->n;
    size_t first = 0;
    bool ends_with_one = n >= 2 && is_time(st, n - 1) && !is_time(st, n - 2);
    *n_done = n_frames;
    for (size_t i = 1; i <= n; i++) {
        bool meets = i < n && is_time(st, i) && is_time(st, i - 1);
        if (!meets && !(i == n && first && ends_with_one)) continue;
        double start = is_time(st, first) ? tick(st, first) : 0, end = tick(st, i - 1);
        TRY(emit(st, offset_s + start * APR_ASR_TICK_S, offset_s + end * APR_ASR_TICK_S, ids->at + first,
                 i - first, e));
        first = i;
    }
    if (!first) return whole(st, offset_s, n_frames, e);
    if (ends_with_one) return APR_OK;
    size_t n_frames_tick = 2, n_to = (size_t)tick(st, first - 1) * n_frames_tick;
    if (n_to > 0 && n_to < n_frames) *n_done = n_to;
    return APR_OK;
}

/* ---- the whole sound ---------------------------------------------------------------------------------- */

static enum apr_code detect(struct state *st, struct apr_err *e)
{
    struct apr_asr *a = st->a;
    const struct apr_asr_tokens *t = a->tokens;
    float *p = st->logits;
    size_t best = 0;
    a->engine->rewind(a->engine->ctx, 0);
    TRY(a->engine->decode(a->engine->ctx, &t->start, 1, 1, st->first, e));
    for (size_t i = 0; i < t->n_langs; i++) {
        p[i] = st->first[t->langs[i].id];
        if (p[i] > p[best]) best = i;
    }
    a->language = t->langs[best].code;
    a->language_p = exp((double)p[best] - apr_asr_logsumexp(p, t->n_langs));
    st->prefix[1] = t->langs[best].id;
    return APR_OK;
}

static enum apr_code choose_language(struct state *st, struct apr_err *e)
{
    struct apr_asr *a = st->a;
    const struct apr_asr_tokens *t = a->tokens;
    const char *want = a->opts.language;
    const struct apr_asr_lang *lang = want ? apr_asr_lang(t, want) : t->lang;
    if (want && !lang && !(t->n_langs == 0 && strcmp(want, "en") == 0))
        return apr_fail(e, APR_EUSAGE,
                        "--language: the model knows %zu languages, \"%.32s\" is none of them%s", t->n_langs,
                        want, t->n_langs ? "" : "; it has no choice of language");
    if (a->opts.translate && t->translate < 0)
        return apr_fail(e, APR_EUSAGE, "--task translate: this model only transcribes");
    st->prefix[st->n_prefix++] = t->start;
    if (t->n_langs) {
        st->prefix[st->n_prefix++] = lang ? lang->id : -1; /* detected with the first window */
        if (t->transcribe >= 0) st->prefix[st->n_prefix++] = a->opts.translate ? t->translate : t->transcribe;
    }
    if (a->opts.no_timestamps && t->no_timestamps >= 0) st->prefix[st->n_prefix++] = t->no_timestamps;
    a->language = lang ? lang->code : NULL;
    a->language_p = lang ? 1 : 0;
    return APR_OK;
}

static enum apr_code prepare(struct state *st, const struct apr_kern *kern, struct apr_err *e)
{
    const struct apr_asr *a = st->a;
    const struct apr_sampler_site site = {
        .n_vocab = a->tokens->n_vocab, .n_ctx = a->engine->n_ctx, .kern = kern};
    struct apr_sample_opts o;
    apr_sample_defaults(&o);
    o.seed = a->opts.seed;
    o.temperature = 0.5; /* so that the chain has the step; its value is set for each attempt */
    TRY(choose_language(st, e));
    TRY(apr_sampler_init(&st->sampler, &o, &site, &st->arena, e));
    TRY(apr_arena_try(&st->arena, &st->first, MAX_PREFIX, a->tokens->n_vocab * sizeof(float), "logits", e));
    TRY(apr_arena_try(&st->arena, &st->logits, a->tokens->n_vocab, sizeof(float), "logits", e));
    for (size_t i = 0; i < a->opts.n_prompt; i++) TRY(apr_ids_push(&st->past, a->opts.prompt[i], e));
    return APR_OK;
}

static enum apr_code windows(struct state *st, const float *frames, size_t n_frames, struct apr_err *e)
{
    struct apr_asr *a = st->a;
    const struct apr_asr_opts *o = &a->opts;
    for (size_t at = 0; at < n_frames;) {
        size_t n = n_frames - at, n_done;
        if (n > a->engine->n_window) n = a->engine->n_window;
        TRY(a->engine->encode(a->engine->ctx, frames + at * a->engine->n_mels, n, e));
        if (a->tokens->n_langs && !a->language) TRY(detect(st, e));
        TRY(decode_window(st, e));
        a->n_windows++;
        n_done = n;
        bool silent = st->no_speech > o->max_silence && st->best.avg_logprob <= o->min_logprob;
        if (!silent) TRY(cut(st, (double)at * APR_ASR_FRAME_S, n, &n_done, e));
        if (o->no_context || st->best.temperature > 0.5) st->i_context = st->past.n;
        at += n_done;
        if (a->progress) a->progress(a->ctx, n_done);
    }
    return APR_OK;
}

enum apr_code apr_asr_run(struct apr_asr *a, const float *frames, size_t n_frames,
                          const struct apr_kern *kern, struct apr_err *e)
{
    struct state st = {.a = a};
    apr_arena_init(&st.arena);
    apr_buf_init(&st.best.text, SIZE_MAX / 2);
    apr_buf_init(&st.other.text, SIZE_MAX / 2);
    a->n_segments = a->n_windows = a->n_attempts = a->n_tokens = 0;
    enum apr_code code = prepare(&st, kern, e);
    if (code == APR_OK) code = windows(&st, frames, n_frames, e);
    said_free(&st.best);
    said_free(&st.other);
    apr_ids_free(&st.past);
    apr_ids_free(&st.prompt);
    apr_arena_free(&st.arena);
    return code;
}

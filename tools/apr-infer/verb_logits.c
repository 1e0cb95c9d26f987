/* logits: every logit of every prompt token, as raw numbers. */
#include <inttypes.h>
#include <string.h>

#include "encoder.h"
#include "io.h"
#include "prompt.h"
#include "session.h"
#include "sound.h"
#include "speech.h"
#include "verbs.h"

struct logits_args {
    struct apr_engine_opts engine;
    const char *prompt, *prompt_file, *ids, *output, *features, *sound, *stage;
    bool force;
};

static const struct apr_opt opts[] = {
    APR_OPT(struct logits_args, prompt, "prompt", 'p', "TEXT",
            "the prompt, special tokens parsed, nothing added"),
    APR_OPT(struct logits_args, prompt_file, "prompt-file", 0, "FILE",
            "the same from FILE; - is standard input"),
    APR_OPT(struct logits_args, ids, "ids", 0, "LIST", "token ids, comma-separated, instead of a text"),
    APR_OPT(struct logits_args, features, "features", 0, "FILE",
            "speech: log-mel frames, little-endian f32 [mels, frames] of one window"),
    APR_OPT(struct logits_args, sound, "sound", 0, "FILE", "speech: the first window of a WAVE file"),
    APR_OPT(struct logits_args, stage, "stage", 0, "STAGE",
            "speech: what to write: features, encoder or logits (default logits)"),
    APR_OPT(struct logits_args, output, "output", 'o', "FILE",
            "write the logits to FILE; - is standard output"),
    APR_OPT(struct logits_args, force, "force", 'f', NULL, "replace an existing output"),
    APR_ENGINE_OPTS(struct logits_args),
};

static void init(void *args_)
{
    struct logits_args *a = args_;
    apr_engine_defaults(&a->engine);
    a->engine.runs = APR_RUNS_TEXT | APR_RUNS_ENCODER | APR_RUNS_SPEECH;
}

static enum apr_code parse_ids(const char *list, struct apr_ids *ids, struct apr_err *e)
{
    int64_t *at;
    size_t n;
    TRY(apr_parse_ints(list, 0, INT32_MAX, &at, &n, e));
    enum apr_code code = APR_OK;
    for (size_t i = 0; i < n && code == APR_OK; i++) code = apr_ids_push(ids, (int32_t)at[i], e);
    apr_ints_free(at);
    return code;
}

static enum apr_code read_prompt(const struct logits_args *a, const struct apr_ctx *ctx, struct apr_ids *ids,
                                 struct apr_buf *text, struct apr_err *e)
{
    if (a->ids && (a->prompt || a->prompt_file))
        return apr_fail(e, APR_EUSAGE, "more than one prompt was given");
    if (a->ids) return parse_ids(a->ids, ids, e);
    if ((a->features || a->sound) && !a->prompt && !a->prompt_file) return APR_OK;
    struct apr_prompt_from from = {.model = ctx->operands->at[0], .text = a->prompt, .file = a->prompt_file};
    TRY(apr_prompt_read(&from, text, e));
    return text->n_bytes ? APR_OK : apr_fail(e, APR_EUSAGE, "the prompt is empty");
}

/* What was computed: for the report. */
struct result {
    const char *what; /* "logits", "hidden", "encoder", "features" */
    size_t n_rows, n_cols;
};

struct rows_out {
    struct apr_sink *sink;
    size_t n_cols;
};

/* Floats are written as they stand in memory, which is little-endian on every machine this builds for. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "logits are written little-endian");
static enum apr_code write_rows(void *ctx, size_t i_tok, size_t n_rows, const float *rows, struct apr_err *e)
{
    const struct rows_out *out = ctx;
    (void)i_tok;
    apr_sink_write(out->sink, rows, n_rows * out->n_cols * sizeof *rows);
    return apr_sink_failed(out->sink) ? apr_fail(e, APR_EIO, "the output cannot be written") : APR_OK;
}

static enum apr_code finish(struct apr_sink *sink, enum apr_code code, struct apr_err *e)
{
    if (code != APR_OK && !apr_sink_failed(sink)) {
        apr_sink_abort(sink);
        return code;
    }
    return apr_sink_finish(sink, e);
}

static enum apr_code write_all(const struct logits_args *a, const float *rows, const struct result *r,
                               struct apr_err *e)
{
    struct rows_out out = {.n_cols = r->n_cols};
    TRY(apr_sink_open(&out.sink, a->output, a->force, e));
    return finish(out.sink, write_rows(&out, 0, r->n_rows, rows, e), e);
}

static enum apr_code encode(struct apr_session *s, const struct apr_buf *text, struct apr_ids *ids,
                            struct apr_err *e)
{
    const struct apr_tok *tok;
    if (!text->n_bytes) return APR_OK;
    TRY(apr_session_tok(s, &tok, e));
    return apr_tok_encode(tok, (const char *)text->data, text->n_bytes, APR_TOK_PARSE_SPECIAL, ids, e);
}

/* ---- decoders ----------------------------------------------------------------------------------------- */

static enum apr_code compute_text(const struct logits_args *a, struct apr_session *s, struct apr_ids *ids,
                                  struct result *r, struct apr_err *e)
{
    struct rows_out out = {.n_cols = s->model->config.n_vocab};
    *r = (struct result){.what = "logits", .n_rows = ids->n, .n_cols = out.n_cols};
    TRY(apr_session_fits(s, ids->n, 0, e));
    TRY(apr_sink_open(&out.sink, a->output, a->force, e));
    enum apr_code code = apr_sink_need(out.sink, (uint64_t)ids->n * out.n_cols * sizeof(float), e);
    if (code == APR_OK)
        code = apr_forward_all_logits(&s->fwd, &s->cache, ids->at, ids->n, write_rows, &out, e);
    return finish(out.sink, code, e);
}

/* ---- encoders ----------------------------------------------------------------------------------------- */

static enum apr_code compute_hidden(const struct logits_args *a, struct apr_session *s, struct apr_ids *ids,
                                    struct result *r, struct apr_err *e)
{
    struct apr_encoder x;
    struct apr_seq seq = {.ids = ids->at, .n = ids->n};
    *r = (struct result){.what = "hidden", .n_rows = ids->n, .n_cols = s->model->config.n_hidden};
    enum apr_code code = apr_encoder_open(&x, &s->checked, s->kern, s->pool, a->engine.exact, ids->n, e);
    if (code == APR_OK) code = apr_encoder_run(&x, &seq, 1, e);
    if (code == APR_OK) code = write_all(a, x.hidden, r, e);
    apr_encoder_close(&x);
    return code;
}

/* ---- speech ------------------------------------------------------------------------------------------- */

/* [mels, frames] of the file into [frames, mels]. */
static enum apr_code read_features(const char *path, size_t n_mels, size_t n_most, struct apr_arena *arena,
                                   float **frames, size_t *n_frames, struct apr_err *e)
{
    struct apr_buf b;
    size_t n_max = n_mels * n_most * sizeof(float);
    apr_buf_init(&b, n_max + 1);
    enum apr_code code = apr_read_file(path, n_max, &b, e);
    size_t n = *n_frames = b.n_bytes / sizeof(float) / n_mels;
    if (code == APR_OK && (!n || n * n_mels * sizeof(float) != b.n_bytes))
        code = apr_fail(e, APR_EFORMAT, "%s: %zu bytes, expected f32 of %zu bands for 1 to %zu frames", path,
                        b.n_bytes, n_mels, n_most);
    if (code == APR_OK) code = apr_arena_try(arena, frames, n * n_mels, sizeof **frames, "features", e);
    const float *from = (const float *)(const void *)b.data; /* the start of a heap block */
    for (size_t i = 0; code == APR_OK && i < n_mels * n; i++) (*frames)[i % n * n_mels + i / n] = from[i];
    apr_buf_free(&b);
    return code;
}

static enum apr_code speech_stage(const struct logits_args *a, struct apr_speech *x, struct apr_session *s,
                                  const struct apr_ids *ids, struct apr_arena *arena, struct result *r,
                                  struct apr_err *e)
{
    const struct apr_config *c = &s->model->config;
    const char *stage = a->stage ? a->stage : "logits";
    struct apr_sound sound = {.path = a->sound};
    float *frames, *logits;
    size_t n;
    if (a->features) {
        TRY(read_features(a->features, c->n_mels, x->n_frames_most, arena, &frames, &n, e));
    } else {
        TRY(apr_sound_open(&sound, c->n_mels, s->pool, arena, e));
        frames = sound.frames;
        n = sound.n_frames < x->n_frames_most ? sound.n_frames : x->n_frames_most;
    }
    *r = (struct result){.what = stage, .n_rows = n, .n_cols = c->n_mels};
    if (!strcmp(stage, "features")) return write_all(a, frames, r, e);
    TRY(apr_speech_encode(x, frames, n, e));
    *r = (struct result){.what = stage, .n_rows = c->n_ctx_audio, .n_cols = c->n_hidden};
    if (!strcmp(stage, "encoder")) return write_all(a, x->encoded, r, e);
    *r = (struct result){.what = stage, .n_rows = ids->n, .n_cols = c->n_vocab};
    if (ids->n == 0 || ids->n > x->n_ctx)
        return apr_fail(e, APR_EUSAGE, "%zu tokens for the decoder, expected 1 to %zu: --ids LIST", ids->n,
                        x->n_ctx);
    TRY(apr_arena_try(arena, &logits, ids->n, c->n_vocab * sizeof *logits, "logits", e));
    TRY(apr_speech_decode(x, ids->at, ids->n, ids->n, logits, e));
    return write_all(a, logits, r, e);
}

static enum apr_code compute_speech(const struct logits_args *a, struct apr_session *s, struct apr_ids *ids,
                                    struct result *r, struct apr_err *e)
{
    struct apr_speech x;
    struct apr_arena arena;
    apr_arena_init(&arena);
    if (!a->features == !a->sound)
        return apr_fail(e, APR_EUSAGE,
                        "a speech recognizer needs --features FILE or --sound FILE, one of them");
    enum apr_code code = apr_speech_open(&x, &s->checked, s->kern, s->pool, a->engine.exact, e);
    if (code == APR_OK) code = speech_stage(a, &x, s, ids, &arena, r, e);
    apr_speech_close(&x);
    apr_arena_free(&arena);
    return code;
}

/* ---- the verb ----------------------------------------------------------------------------------------- */

static enum apr_code compute(const struct logits_args *a, struct apr_session *s, const struct apr_buf *text,
                             struct apr_ids *ids, struct result *r, struct apr_err *e)
{
    static const char *const stages[] = {"features", "encoder", "logits"};
    bool known = !a->stage;
    for (size_t i = 0; i < 3; i++) known |= a->stage && !strcmp(a->stage, stages[i]);
    if (!known)
        return apr_fail(e, APR_EUSAGE, "--stage: found \"%.40s\", expected features, encoder or logits",
                        a->stage);
    TRY(encode(s, text, ids, e));
    if (s->kind == APR_RUNS_SPEECH) return compute_speech(a, s, ids, r, e);
    if (a->features || a->sound || a->stage)
        return apr_fail(e, APR_EUSAGE, "--features, --sound and --stage are for speech recognizers");
    return s->kind == APR_RUNS_ENCODER ? compute_hidden(a, s, ids, r, e) : compute_text(a, s, ids, r, e);
}

static enum apr_code report(const struct apr_session *s, const struct apr_ids *ids, const struct result *r,
                            struct apr_err *e)
{
    struct apr_out *o = apr_out_open(stdout, true, "apr.logits/1");
    apr_out_str(o, "what", r->what);
    apr_out_arr(o, "shape");
    apr_out_u64(o, NULL, r->n_rows);
    apr_out_u64(o, NULL, r->n_cols);
    apr_out_end(o);
    apr_out_u64(o, "n_toks", ids->n);
    apr_out_u64(o, "n_vocab", s->model->config.n_vocab);
    apr_out_arr(o, "ids");
    for (size_t i = 0; i < ids->n; i++) apr_out_i64(o, NULL, ids->at[i]);
    apr_out_end(o);
    return apr_out_close(o, e);
}

static enum apr_code with_model(const struct logits_args *a, const struct apr_ctx *ctx,
                                const struct apr_buf *text, struct apr_ids *ids, struct apr_err *e)
{
    struct apr_session s;
    struct result r;
    TRY(apr_session_open(&s, ctx->operands->at[0], &a->engine, ctx, e));
    enum apr_code code = compute(a, &s, text, ids, &r, e);
    if (code == APR_OK && ctx->g->json) code = report(&s, ids, &r, e);
    if (code == APR_OK && !ctx->g->json) apr_note("%s: %zu rows of %zu", r.what, r.n_rows, r.n_cols);
    apr_session_close(&s);
    return code;
}

static enum apr_code run(void *args_, struct apr_ctx *ctx, struct apr_err *e)
{
    const struct logits_args *a = args_;
    if (!a->output) return apr_fail(e, APR_EUSAGE, "no output: give -o FILE, or -o - for standard output");
    if (ctx->g->json && !strcmp(a->output, "-"))
        return apr_fail(e, APR_EUSAGE, "--json and the logits cannot both go to standard output");
    struct apr_ids ids = {0};
    struct apr_buf text;
    apr_buf_init(&text, APR_MAX_PROMPT_BYTES);
    enum apr_code code = read_prompt(a, ctx, &ids, &text, e);
    if (code == APR_OK) code = with_model(a, ctx, &text, &ids, e);
    apr_buf_free(&text);
    apr_ids_free(&ids);
    return code;
}

static const char details[] =
    "Writes little-endian 32-bit floats, one row of vocabulary size for each "
    "prompt token: row i holds the logits\n"
    "of the token after token i. The bits do not depend on --threads, "
    "--prefill-chunk or the machine's kernels.\n"
    "\n"
    "  apr logits model.apr --exact --prompt 'def f(x):' -o logits.f32 --json\n"
    "\n"
    "Of an encoder the hidden states after the last block are written, [tokens, hidden "
    "size]. Of a speech\n"
    "recognizer the logits of the decoder's tokens (--ids), or with --stage the log-mel "
    "frames [frames, mels] or the\n"
    "encoder's output [positions, hidden size]. --json says which, and the shape.\n"
    "\n"
    "  apr logits whisper.apr --features mel.f32 --ids 50258,50259,50359 -o logits.f32\n";

const struct apr_verb verb_logits = {
    .name = "logits",
    .operands = "MODEL",
    .n_operands_min = 1,
    .n_operands_max = 1,
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .args_bytes = sizeof(struct logits_args),
    .init = init,
    .run = run,
    .details = details,
};

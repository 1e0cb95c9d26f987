/* run: one prompt, one answer. */
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "chat.h"
#include "context_opts.h"
#include "generate.h"
#include "prompt.h"
#include "speculate/speculate.h"
#include "transcribe.h"
#include "verbs.h"

struct run_args {
    struct apr_engine_opts engine;
    const char *prompt, *input, *system, *format, *template_name;
    int64_t n_max;
    struct apr_strs stops;
    bool raw, chat, stream, benchmark, ignore_eos, model_sampling, gpu, no_gpu;
    struct apr_sample_opts sample;
    double cfg_scale; /* NaN = not given */
    const char *negative;
    const char *grammar, *schema;   /* files */
    struct apr_grammar *constraint; /* owned; what is in them */
    struct apr_spec_opts spec;
    struct apr_context_opts context;
    struct apr_speech_opts speech;
};

static const struct apr_opt opts[] = {
    APR_OPT(struct run_args, prompt, "prompt", 'p', "TEXT",
            "the prompt; with sound: words that were said before it"),
    APR_OPT(struct run_args, input, "input", 'i', "FILE", "read the prompt from FILE; - is standard input"),
    APR_OPT(struct run_args, n_max, "max-tokens", 'n', "N",
            "generate at most N tokens; -1: to the context's end (default 32; all with a grammar or sound)"),
    APR_OPT(struct run_args, system, "system", 's', "TEXT", "system message of the chat template"),
    APR_OPT(struct run_args, template_name, "template-name", 0, "NAME",
            "use the model's chat template of that name (tool_use, rag)"),
    APR_OPT(struct run_args, raw, "raw", 0, NULL, "feed the prompt as it is, special tokens parsed"),
    APR_OPT(struct run_args, chat, "chat", 0, NULL, "refuse a model for which no chat format is known"),
    APR_OPT(struct run_args, format, "format", 'f', "FORMAT",
            "text or json; of a transcript also srt or vtt (default text)"),
    APR_OPT(struct run_args, stream, "stream", 0, NULL,
            "write text as it is made (what text output does; not with json)"),
    APR_OPT(struct run_args, benchmark, "benchmark", 0, NULL, "print timings on standard error"),
    APR_SAMPLE_OPTS(struct run_args),
    APR_OPT(struct run_args, cfg_scale, "cfg-scale", 0, "S",
            "guide away from --negative-prompt: other + S * (logits - other) (1: off)"),
    APR_OPT(struct run_args, negative, "negative-prompt", 0, "TEXT",
            "what --cfg-scale takes instead of the prompt (default: nothing)"),
    APR_OPT(struct run_args, grammar, "grammar", 0, "FILE", "the text must match the GBNF grammar in FILE"),
    APR_OPT(struct run_args, schema, "json-schema", 0, "FILE",
            "the text must be JSON that the schema in FILE accepts"),
    APR_OPT(struct run_args, model_sampling, "model-sampling", 0, NULL,
            "start from the model's own sampling values"),
    APR_OPT(struct run_args, stops, "stop", 0, "TEXT", "end before TEXT (repeatable)"),
    APR_OPT(struct run_args, ignore_eos, "ignore-eos", 0, NULL, "go on behind the model's end tokens"),
    APR_OPT(struct run_args, no_gpu, "no-gpu", 0, NULL, "compute on the CPU"),
    APR_OPT(struct run_args, gpu, "gpu", 0, NULL, "compute on a GPU"),
    APR_CONTEXT_OPTS(struct run_args),
    APR_SPEC_OPTS(struct run_args),
    APR_SPEECH_OPTS(struct run_args),
    APR_ENGINE_OPTS(struct run_args),
};

#define N_MAX_DEFAULT 32
#define NOT_GIVEN     INT64_MIN

static void init(void *args_)
{
    struct run_args *a = args_;
    apr_engine_defaults(&a->engine);
    a->engine.runs = APR_RUNS_TEXT | APR_RUNS_SPEECH;
    a->n_max = NOT_GIVEN;
    apr_sample_unset(&a->sample);
    apr_spec_defaults(&a->spec);
    apr_context_defaults(&a->context);
    a->cfg_scale = NAN;
    a->format = "text";
}

static enum apr_code check_args(const struct run_args *a, bool *json, struct apr_err *e)
{
    const bool is_subtitles = !strcmp(a->format, "srt") || !strcmp(a->format, "vtt");
    const bool is_json = !strcmp(a->format, "json");
    if (!is_json && !is_subtitles && strcmp(a->format, "text") != 0)
        return apr_fail(e, APR_EUSAGE,
                        "--format: found \"%s\", expected text or json, or srt or vtt for sound", a->format);
    if (*json && is_subtitles)
        return apr_fail(e, APR_EUSAGE, "--json and --format %s exclude each other", a->format);
    *json |= is_json;
    if (*json && a->stream) return apr_fail(e, APR_EUSAGE, "--stream writes text; it does not go with json");
    if (a->gpu && a->no_gpu) return apr_fail(e, APR_EUSAGE, "--gpu and --no-gpu exclude each other");
    if (a->gpu) return apr_fail(e, APR_EUNAVAIL, "--gpu: this build computes on the CPU only");
    if (a->raw && a->chat) return apr_fail(e, APR_EUSAGE, "--raw and --chat exclude each other");
    if (a->raw && a->system)
        return apr_fail(e, APR_EUSAGE, "--system needs a chat template; --raw uses none");
    if (a->raw && a->template_name)
        return apr_fail(e, APR_EUSAGE, "--raw and --template-name exclude each other");
    if (a->negative && isnan(a->cfg_scale))
        return apr_fail(e, APR_EUSAGE, "--negative-prompt does nothing without --cfg-scale");
    if (!isnan(a->cfg_scale) && (a->cfg_scale < 0 || a->cfg_scale > 100))
        return apr_fail(e, APR_EUSAGE, "--cfg-scale: found %g, expected 0 to 100", a->cfg_scale);
    if (a->grammar && a->schema)
        return apr_fail(e, APR_EUSAGE, "--grammar and --json-schema exclude each other");
    if (a->ignore_eos && (a->grammar || a->schema))
        return apr_fail(e, APR_EUSAGE, "--ignore-eos: a grammar ends its text itself");
    if (a->n_max != NOT_GIVEN && (a->n_max < -1 || a->n_max == 0))
        return apr_fail(e, APR_EUSAGE, "--max-tokens: found %" PRId64 ", expected 1 or more, or -1",
                        a->n_max);
    return APR_OK;
}

static enum apr_code encode_chat(const struct run_args *a, const struct apr_session *s,
                                 const struct apr_buf *text, struct apr_ids *ids, struct apr_err *e)
{
    struct apr_chat chat;
    TRY(apr_chat_open_named(&chat, s->model, s->tok, a->template_name, e));
    enum apr_code code = APR_OK;
    json_t *messages = NULL;
    if (!chat.tmpl) {
        if (a->chat || a->system)
            code = apr_fail(e, APR_EUSAGE, "%s: no chat format is known for this model", s->model->path);
        else
            code =
                apr_prompt_encode(s->tok, &s->model->vocab, (const char *)text->data, text->n_bytes, ids, e);
    } else {
        messages = apr_chat_messages(a->system, text->n_bytes ? (const char *)text->data : "", text->n_bytes);
        if (messages)
            code = apr_chat_encode(&chat, messages, true, ids, e);
        else
            code = apr_fail(e, APR_EUSAGE, "the prompt or the system message is not valid UTF-8");
    }
    json_decref(messages);
    apr_chat_close(&chat);
    return code;
}

static enum apr_code read_prompt(const struct run_args *a, const struct apr_ctx *ctx, struct apr_buf *text,
                                 struct apr_err *e)
{
    const struct apr_strs *ops = ctx->operands;
    const char *operand = ops->n > 1 ? ops->at[1] : NULL;
    const bool has_both = a->prompt && (operand || a->input); /* right with sound alone; see with_model */
    struct apr_prompt_from from = {
        .model = ops->at[0], .operand = operand, .text = has_both ? NULL : a->prompt, .file = a->input};
    TRY(apr_prompt_read(&from, text, e));
    return text->n_bytes ? APR_OK : apr_fail(e, APR_EUSAGE, "the prompt is empty");
}

static enum apr_code encode_prompt(const struct run_args *a, const struct apr_session *s,
                                   const struct apr_buf *text, struct apr_ids *ids, struct apr_err *e)
{
    const struct apr_tok *tok;
    TRY(apr_session_tok(s, &tok, e));
    if (!a->raw) return encode_chat(a, s, text, ids, e);
    return apr_prompt_encode(tok, &s->model->vocab, (const char *)text->data, text->n_bytes, ids, e);
}

static enum apr_code write_text(void *ctx, const char *p, size_t n_bytes, struct apr_err *e)
{
    FILE *to = ctx;
    if (fwrite(p, 1, n_bytes, to) != n_bytes || fflush(to))
        return apr_fail(e, APR_EIO, "standard output: %m");
    return APR_OK;
}

/* Timings of one run; the same numbers for --benchmark and json. */
static void timings(struct apr_out *o, const struct apr_session *s, const struct apr_reply *g, double start_s)
{
    apr_out_f64(o, "load_s", s->load_s);
    apr_out_f64(o, "data_scan_s", s->checked.scan_s);
    apr_out_f64(o, "prompt_s", g->prompt_s);
    apr_out_f64(o, "prompt_toks_per_s", apr_reply_prompt_rate(g));
    apr_out_f64(o, "first_token_s", start_s + g->prompt_s);
    apr_out_f64(o, "decode_s", g->decode_s);
    apr_out_f64(o, "decode_toks_per_s", apr_reply_decode_rate(g));
    apr_out_u64(o, "n_threads", apr_pool_threads(s->pool));
    apr_out_str(o, "kernels", s->kern->name);
}

static enum apr_code report_json(const struct apr_session *s, const struct apr_reply *g,
                                 const struct apr_sampler *sampler, const struct apr_spec *spec,
                                 double start_s, struct apr_err *e)
{
    struct apr_out *o = apr_out_open(stdout, true, "apr.run/1");
    apr_out_str(o, "model", s->model->name);
    apr_out_strn(o, "text", g->text.data ? (const char *)g->text.data : "", g->text.n_bytes);
    apr_out_arr(o, "tokens");
    for (size_t i = 0; i < g->ids.n; i++) apr_out_i64(o, NULL, g->ids.at[i]);
    apr_out_end(o);
    apr_out_u64(o, "n_prompt_toks", g->n_prompt);
    apr_out_u64(o, "n_prompt_reused", g->n_reused);
    apr_out_u64(o, "n_generated", g->ids.n);
    apr_out_str(o, "finish_reason", g->finish);
    apr_sampler_report(sampler, o);
    if (spec) apr_spec_report(spec, o);
    apr_cache_report(&s->cache, s->cache.n_pos, o);
    apr_out_obj(o, "timings");
    timings(o, s, g, start_s);
    apr_out_end(o);
    return apr_out_close(o, e);
}

/* The sequence of --cfg-scale: the negative prompt where the prompt stands. A raw one without text is the
 * prompt's last token alone, as Hugging Face has it. */
static enum apr_code encode_guide(const struct run_args *a, const struct apr_session *s,
                                  const struct apr_ids *prompt, struct apr_ids *ids, struct apr_err *e)
{
    struct apr_buf text;
    if (isnan(a->cfg_scale) || a->cfg_scale == 1) return APR_OK;
    apr_buf_init(&text, APR_MAX_PROMPT_BYTES);
    const char *negative = a->negative ? a->negative : "";
    enum apr_code code = apr_buf_append(&text, negative, strlen(negative), e);
    if (code == APR_OK) code = encode_prompt(a, s, &text, ids, e);
    if (code == APR_OK && !ids->n) code = apr_ids_push(ids, prompt->at[prompt->n - 1], e);
    apr_buf_free(&text);
    return code;
}

static enum apr_code init_sampler(const struct run_args *a, const struct apr_ctx *ctx,
                                  const struct apr_session *s, struct apr_sampler *sampler, struct apr_err *e)
{
    const struct apr_sampler_site site = {s->model->config.n_vocab, s->n_ctx, s->kern, s->tok};
    struct apr_sample_opts o;
    TRY(apr_sample_resolve(&a->sample, a->model_sampling ? &s->model->generation : NULL, &o, e));
    const char *idle = apr_sample_idle(&a->sample, &o);
    if (idle) apr_warn("temperature 0 is greedy: %s does nothing; give --temperature", idle);
    return apr_sampler_init(sampler, &o, &site, ctx->arena, e);
}

/* With a grammar the sampler is limited to it. */
static enum apr_code init_limit(const struct run_args *a, const struct apr_ctx *ctx,
                                const struct apr_session *s, struct apr_sampler *sampler,
                                struct apr_limit *limit, struct apr_err *e)
{
    const struct apr_tok *tok;
    const struct apr_model *m = s->model;
    if (!a->constraint) return APR_OK;
    TRY(apr_session_tok(s, &tok, e));
    TRY(apr_limit_open(limit, a->constraint, tok, &m->vocab, m->config.n_vocab, &m->generation, ctx->arena,
                       e));
    sampler->limit = limit;
    return APR_OK;
}

static enum apr_code init_shift(const struct run_args *a, const struct apr_session *s,
                                const struct apr_ids *prompt, struct apr_shift *shift, struct apr_err *e)
{
    struct apr_ids opening = {0};
    struct apr_buf nothing;
    enum apr_code code = APR_OK;
    apr_buf_init(&nothing, 1);
    if (apr_context_wants_opening(&a->context)) code = encode_prompt(a, s, &nothing, &opening, e);
    if (code != APR_OK) apr_err_prefix(e, "--context-shift: what to keep is not clear, give --keep");
    if (code == APR_OK) code = apr_context_shift(&a->context, &opening, prompt, s->n_ctx, shift, e);
    apr_ids_free(&opening);
    return code;
}

static enum apr_code generate(const struct run_args *a, struct apr_session *s, const struct apr_buf *text,
                              struct apr_reply *g, struct apr_spec *spec, bool json, struct apr_err *e)
{
    struct apr_ids ids = {0};
    struct apr_guide guide = {.scale = a->cfg_scale};
    struct apr_prompt_cache saved = {
        .path = a->context.saved, .all = a->context.saved_all, .read_only = a->context.saved_read_only};
    struct apr_ways ways = {.spec = spec, .saved = saved.path ? &saved : NULL};
    enum apr_code code = encode_prompt(a, s, text, &ids, e);
    if (code == APR_OK) code = encode_guide(a, s, &ids, &guide.ids, e);
    if (guide.ids.n) ways.guide = &guide;
    if (code == APR_OK) code = init_shift(a, s, &ids, &ways.shift, e);
    if (code == APR_OK && saved.path)
        code = apr_prompt_cache_open(&saved, s->model, a->engine.exact, &s->blocks, e);
    if (code == APR_OK) code = apr_generate(s, g, ids.at, ids.n, &ways, e);
    apr_prompt_cache_close(&saved);
    apr_ids_free(&guide.ids);
    apr_ids_free(&ids);
    /* A line of its own for the shell's prompt, but only there: a pipe gets the generated text alone. */
    if (code == APR_OK && !json && isatty(STDOUT_FILENO)) code = write_text(stdout, "\n", 1, e);
    return code;
}

static enum apr_code benchmark(const struct apr_session *s, const struct apr_reply *g,
                               const struct apr_spec *spec, double start_s, struct apr_err *e)
{
    struct apr_out *o = apr_out_open(stderr, false, "apr.run.timings/1");
    apr_out_u64(o, "n_prompt_toks", g->n_prompt);
    apr_out_u64(o, "n_generated", g->ids.n);
    timings(o, s, g, start_s);
    if (spec) apr_spec_report(spec, o);
    return apr_out_close(o, e);
}

/* An option of text generation that was given, or NULL. */
static const char *text_option(const struct run_args *a)
{
    size_t n;
    const struct apr_sample_param *p = apr_sample_params(&n);
    for (size_t i = 0; i < n; i++)
        if (strcmp(p[i].field, "temperature") != 0 && apr_sample_is_given(&a->sample, &p[i]))
            return p[i].option;
    return a->system                                ? "system"
           : a->raw                                 ? "raw"
           : a->chat                                ? "chat"
           : a->stops.n                             ? "stop"
           : a->ignore_eos                          ? "ignore-eos"
           : a->benchmark                           ? "benchmark"
           : a->model_sampling                      ? "model-sampling"
           : a->sample.samplers                     ? "samplers"
           : a->sample.logit_bias.n                 ? "logit-bias"
           : a->sample.dry_breakers.n               ? "dry-sequence-breaker"
           : a->template_name                       ? "template-name"
           : !isnan(a->cfg_scale)                   ? "cfg-scale"
           : a->grammar                             ? "grammar"
           : a->schema                              ? "json-schema"
           : apr_spec_given(&a->spec)               ? apr_spec_given(&a->spec)
           : apr_context_given(&a->context)         ? apr_context_given(&a->context)
           : a->engine.n_batch != APR_DEFAULT_BATCH ? "prefill-chunk"
                                                    : NULL;
}

/* The second operand is a sound file, or "-" for standard input, which has been read. */
static enum apr_code with_sound(const struct run_args *a, const struct apr_ctx *ctx, struct apr_session *s,
                                const struct apr_buf *bytes, bool json, struct apr_err *e)
{
    const struct apr_strs *ops = ctx->operands;
    const char *path = ops->n > 1 && strcmp(ops->at[1], "-") != 0 ? ops->at[1] : NULL;
    struct apr_sample_opts o;
    if (text_option(a)) return apr_fail(e, APR_EUSAGE, "--%s does nothing with sound", text_option(a));
    if (ops->n < 2 && !a->input)
        return apr_fail(e, APR_EUSAGE, "no sound: give a WAVE file, or - for standard input");
    TRY(apr_sample_resolve(&a->sample, NULL, &o, e));
    struct apr_transcribe t = {.sound = {.path = path, .bytes = bytes},
                               .format = json ? "json" : a->format,
                               .prompt = a->prompt,
                               .temperature = o.temperature,
                               .seed = o.seed,
                               .n_max = a->n_max > 0 ? (size_t)a->n_max : 0,
                               .exact = a->engine.exact};
    return apr_transcribe(s, &a->speech, &t, e);
}

/* What only sound makes sense of. */
static enum apr_code check_text(const struct run_args *a, const struct apr_ctx *ctx,
                                const struct apr_session *s, bool json, struct apr_err *e)
{
    const char *given = apr_speech_given(&a->speech);
    if (given)
        return apr_fail(e, APR_EUSAGE, "%s is for sound; %s generates text from text", given, s->model->path);
    if (!json && strcmp(a->format, "text") != 0)
        return apr_fail(e, APR_EUSAGE, "--format: found \"%s\", expected text or json", a->format);
    if (a->prompt && (a->input || ctx->operands->n > 1))
        return apr_fail(e, APR_EUSAGE, "more than one prompt was given");
    return APR_OK;
}

static enum apr_code with_text(const struct run_args *a, const struct apr_ctx *ctx, struct apr_session *s,
                               const struct apr_buf *text, bool json, struct apr_err *e)
{
    int64_t ns_start = apr_now_ns();
    struct apr_reply g;
    struct apr_sampler sampler = {0};
    struct apr_limit limit = {0};
    struct apr_speculate sp = {.is_on = false};
    size_t n_max = a->n_max > 0                              ? (size_t)a->n_max
                   : a->n_max == NOT_GIVEN && !a->constraint ? N_MAX_DEFAULT
                                                             : SIZE_MAX;
    TRY(check_text(a, ctx, s, json, e));
    const struct apr_text_sink to = {write_text, stdout};
    const struct apr_reply_site site = {&sampler, s->tok, &s->model->generation, json ? NULL : &to};
    apr_reply_init(&g, &(struct apr_reply_opts){n_max, &a->stops, a->ignore_eos}, &site);
    enum apr_code code = init_sampler(a, ctx, s, &sampler, e);
    if (code == APR_OK) code = init_limit(a, ctx, s, &sampler, &limit, e);
    if (code == APR_OK) code = apr_speculate_open(&sp, &a->spec, &a->engine, s, &sampler, ctx, e);
    if (code == APR_OK) code = generate(a, s, text, &g, apr_speculate_spec(&sp), json, e);
    apr_limit_close(&limit);
    double start_s = s->load_s + (double)(apr_now_ns() - ns_start) * 1e-9 - g.prompt_s - g.decode_s;
    if (code == APR_OK && json) code = report_json(s, &g, &sampler, apr_speculate_spec(&sp), start_s, e);
    if (code == APR_OK && a->benchmark) code = benchmark(s, &g, apr_speculate_spec(&sp), start_s, e);
    apr_speculate_close(&sp);
    apr_reply_free(&g);
    return code;
}

static enum apr_code with_model(const struct run_args *a, const struct apr_ctx *ctx,
                                const struct apr_buf *text, bool json, struct apr_err *e)
{
    struct apr_session s;
    TRY(apr_session_open(&s, ctx->operands->at[0], &a->engine, ctx, e));
    enum apr_code code = s.kind == APR_RUNS_SPEECH ? with_sound(a, ctx, &s, text, json, e)
                                                   : with_text(a, ctx, &s, text, json, e);
    apr_session_close(&s);
    return code;
}

static enum apr_code load_constraint(struct run_args *a, struct apr_err *e)
{
    if (a->grammar) return apr_grammar_load(&a->constraint, a->grammar, APR_GRAMMAR_GBNF, e);
    return a->schema ? apr_grammar_load(&a->constraint, a->schema, APR_GRAMMAR_SCHEMA, e) : APR_OK;
}

/* Prompt and grammar come first: a missing one should not cost the loading of a model. */
static enum apr_code run(void *args_, struct apr_ctx *ctx, struct apr_err *e)
{
    struct run_args *a = args_;
    bool json = ctx->g->json;
    struct apr_sample_opts o;
    TRY(check_args(a, &json, e));
    TRY(apr_context_check(&a->context, e));
    if (a->context.saved) a->engine.on_cpu = "--prompt-cache";
    TRY(apr_spec_resolve(&a->spec, &(struct apr_spec_opts){.lookup = false}, e));
    TRY(apr_sample_resolve(&a->sample, NULL, &o, e));
    struct apr_buf text;
    apr_buf_init(&text, APR_MAX_PROMPT_BYTES);
    enum apr_code code = load_constraint(a, e);
    if (code == APR_OK) code = read_prompt(a, ctx, &text, e);
    if (code == APR_OK) code = with_model(a, ctx, &text, json, e);
    apr_buf_free(&text);
    apr_grammar_free(a->constraint);
    return code;
}

static const char details[] =
    "MODEL is a Hugging Face folder, a .safetensors, .apr or GGUF file, or - for standard input. The "
    "generated text\n"
    "alone goes to standard output. A model with a chat template gets PROMPT as a user message; special "
    "tokens in\n"
    "it stay text. --raw feeds PROMPT as it is.\n"
    "\n"
    "The default is greedy. --temperature or --model-sampling starts sampling by a chain of steps; each "
    "narrows or\n"
    "changes what the ones before it left, and one without effect is skipped. --samplers names them in "
    "another order;\n"
    "by default:\n"
    "\n"
    "  penalties;dry;top_n_sigma;top_k;typical;tail_free;top_p;min_p;eta;epsilon;xtc;temperature\n"
    "\n"
    "With --mirostat 2: penalties;dry;temperature;mirostat. --logit-bias and --cfg-scale act before the "
    "chain, and\n"
    "greedy too; temperature 0 applies no penalty. The same seed gives the same text on any machine and "
    "thread count.\n"
    "A GPU chooses by itself where the chain begins with --top-k, at most 512, or is a temperature alone; "
    "else "
    "each\ntoken's logits come to the host. Both draw the same token from the same logits.\n"
    "\n"
    "--grammar takes llama.cpp's GBNF, --json-schema a JSON Schema: types, properties, items, lengths, "
    "bounds, patterns,\n"
    "enum, anyOf, oneOf, allOf, $ref, formats date, time, date-time, uuid and ipv4; a keyword that cannot be "
    "kept is\n"
    "refused with its path. The text ends properly within --max-tokens if a byte a token is enough for that; "
    "otherwise\n"
    "the status is 8.\n"
    "\n" APR_SPEC_DETAILS "\n"
    "A full context ends the text. With --context-shift it goes on: the first --keep tokens of the prompt "
    "stay, "
    "of the\n"
    "rest the newer half, which is computed again at its new positions, so that every token is chosen "
    "exactly "
    "as after\n"
    "a fresh prompt of what stayed. --prompt-cache keeps the computed prompt: the next run computes what "
    "comes "
    "after the\n"
    "beginning that both have in common, and gives the same text as without. Another model, --exact or "
    "--cache-type is\n"
    "refused with status 5. Models with a window reuse a prompt only where it goes on from its end. "
    "Quantized "
    "caches\n"
    "halve (q8_0) or quarter (q4_0) the memory; apr eval --against measures what they cost.\n"
    "\n"
    "  apr run model.apr \"What is 2+2?\"\n"
    "  apr run model.apr --json-schema person.json 'Describe Alice.' | jq .name\n"
    "  apr run model.gguf --raw -n 64 --stop 'def ' 'def fib(n):'\n"
    "  git diff | apr run model.apr -i - --system 'Describe this change.' -n 200\n"
    "  apr run model.apr -i edit-request.txt -n 2000 --lookup --benchmark\n"
    "\n"
    "With a speech recognizer the second operand is a WAVE file (PCM or float, any rate and channels), or - "
    "for "
    "standard\n"
    "input; the transcript goes to standard output as text, srt, vtt or json. A window of 30 seconds is "
    "decoded "
    "greedily, and\n"
    "again at higher temperatures where its text repeats itself or is unlikely.\n"
    "\n"
    "  apr run whisper.apr talk.wav --format srt > talk.srt\n"
    "  ffmpeg -i talk.mp4 -f wav - | apr run whisper.apr - --language de --task translate\n";

const struct apr_verb verb_run = {
    .name = "run",
    .operands = "MODEL [PROMPT | SOUND.wav]",
    .n_operands_min = 1,
    .n_operands_max = 2,
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .args_bytes = sizeof(struct run_args),
    .init = init,
    .run = run,
    .details = details,
};

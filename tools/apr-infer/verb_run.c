/* run: one prompt, one answer. */
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "chat.h"
#include "generate.h"
#include "prompt.h"
#include "verbs.h"

struct run_args {
    struct apr_engine_opts engine;
    const char *prompt, *input, *system, *format;
    int64_t n_max;
    struct apr_strs stops;
    bool raw, chat, stream, benchmark, model_sampling, gpu, no_gpu;
    double temperature, top_p, min_p, repeat_penalty;
    int64_t top_k, repeat_last_n;
    uint64_t seed;
};

static const struct apr_opt opts[] = {
    APR_OPT(struct run_args, prompt, "prompt", 'p', "TEXT", "the prompt"),
    APR_OPT(struct run_args, input, "input", 'i', "FILE", "read the prompt from FILE; - is standard input"),
    APR_OPT(struct run_args, n_max, "max-tokens", 'n', "N",
            "generate at most N tokens; -1: to the context's end (default 32)"),
    APR_OPT(struct run_args, system, "system", 's', "TEXT", "system message of the chat template"),
    APR_OPT(struct run_args, raw, "raw", 0, NULL, "feed the prompt as it is, special tokens parsed"),
    APR_OPT(struct run_args, chat, "chat", 0, NULL, "refuse a model for which no chat format is known"),
    APR_OPT(struct run_args, format, "format", 'f', "FORMAT", "text or json (default text)"),
    APR_OPT(struct run_args, stream, "stream", 0, NULL,
            "write text as it is made (what text output does; not with json)"),
    APR_OPT(struct run_args, benchmark, "benchmark", 0, NULL, "print timings on standard error"),
    APR_OPT(struct run_args, temperature, "temperature", 0, "T",
            "sample at temperature T; 0 is greedy (default 0)"),
    APR_OPT(struct run_args, temperature, "temp", 0, "T", "the same as --temperature"),
    APR_OPT(struct run_args, top_k, "top-k", 0, "K", "sample from the K likeliest tokens (0: all)"),
    APR_OPT(struct run_args, top_p, "top-p", 0, "P",
            "sample from the smallest set with probability P (1: all)"),
    APR_OPT(struct run_args, min_p, "min-p", 0, "P",
            "drop tokens less likely than P times the likeliest (0: none)"),
    APR_OPT(struct run_args, repeat_penalty, "repeat-penalty", 0, "R",
            "make repeated tokens less likely (1: off)"),
    APR_OPT(struct run_args, repeat_penalty, "repetition-penalty", 0, "R", "the same as --repeat-penalty"),
    APR_OPT(struct run_args, repeat_last_n, "repeat-last-n", 0, "N",
            "tokens the penalty looks back at (default 64; -1: all)"),
    APR_OPT(struct run_args, seed, "seed", 0, "N", "seed of the sampler (default 299792458)"),
    APR_OPT(struct run_args, model_sampling, "model-sampling", 0, NULL,
            "start from the model's own sampling values"),
    APR_OPT(struct run_args, stops, "stop", 0, "TEXT", "end before TEXT (repeatable)"),
    APR_OPT(struct run_args, no_gpu, "no-gpu", 0, NULL, "compute on the CPU"),
    APR_OPT(struct run_args, gpu, "gpu", 0, NULL, "compute on a GPU"),
    APR_ENGINE_OPTS(struct run_args),
};

/* Options that were not given: a NaN, or a number that no one would give. */
#define NOT_GIVEN INT64_MIN

static void init(void *args_)
{
    struct run_args *a = args_;
    apr_engine_defaults(&a->engine);
    a->n_max = 32;
    a->temperature = a->top_p = a->min_p = a->repeat_penalty = NAN;
    a->top_k = a->repeat_last_n = NOT_GIVEN;
    a->seed = 299792458;
    a->format = "text";
}

static enum apr_code check_args(const struct run_args *a, bool *json, struct apr_err *e)
{
    bool is_text = !strcmp(a->format, "text");
    if (!is_text && strcmp(a->format, "json") != 0)
        return apr_fail(e, APR_EUSAGE, "--format: found \"%s\", expected text or json", a->format);
    *json |= !is_text;
    if (*json && a->stream) return apr_fail(e, APR_EUSAGE, "--stream writes text; it does not go with json");
    if (a->gpu && a->no_gpu) return apr_fail(e, APR_EUSAGE, "--gpu and --no-gpu exclude each other");
    if (a->gpu) return apr_fail(e, APR_EUNAVAIL, "--gpu: this build computes on the CPU only");
    if (a->raw && a->chat) return apr_fail(e, APR_EUSAGE, "--raw and --chat exclude each other");
    if (a->raw && a->system)
        return apr_fail(e, APR_EUSAGE, "--system needs a chat template; --raw uses none");
    if (a->n_max < -1 || a->n_max == 0)
        return apr_fail(e, APR_EUSAGE, "--max-tokens: found %" PRId64 ", expected 1 or more, or -1",
                        a->n_max);
    return APR_OK;
}

static void sampling(const struct run_args *a, const struct apr_model *m, struct apr_sample_opts *o)
{
    apr_sample_defaults(o);
    if (a->model_sampling) apr_sample_from_model(o, &m->generation);
    if (!isnan(a->temperature)) o->temperature = a->temperature;
    if (!isnan(a->top_p)) o->top_p = a->top_p;
    if (!isnan(a->min_p)) o->min_p = a->min_p;
    if (!isnan(a->repeat_penalty)) o->repeat_penalty = a->repeat_penalty;
    if (a->top_k != NOT_GIVEN) o->top_k = a->top_k;
    if (a->repeat_last_n != NOT_GIVEN) o->repeat_last_n = a->repeat_last_n;
    o->seed = a->seed;
}

static void warn_if_idle(const struct run_args *a, const struct apr_sample_opts *o)
{
    bool shaped = !isnan(a->top_p) || !isnan(a->min_p) || !isnan(a->repeat_penalty) || a->top_k != NOT_GIVEN;
    if (shaped && o->temperature == 0)
        apr_warn("temperature 0 is greedy: --top-k, --top-p, --min-p and penalties do nothing");
}

static enum apr_code encode_chat(const struct run_args *a, const struct apr_session *s,
                                 const struct apr_buf *text, struct apr_ids *ids, struct apr_err *e)
{
    struct apr_chat chat;
    TRY(apr_chat_open(&chat, s->model, s->tok, e));
    if (strcmp(chat.format, "template") != 0)
        apr_note("%s has no chat template: using the format %s (--raw feeds the prompt as it is)",
                 s->model->name, chat.format);
    enum apr_code code = APR_OK;
    json_t *messages = NULL;
    if (!chat.tmpl) {
        if (a->chat || a->system)
            code = apr_fail(e, APR_EUSAGE, "%s: no chat format is known for this model", s->model->path);
        else
            code =
                apr_prompt_encode(s->tok, &s->model->vocab, (const char *)text->data, text->n_bytes, ids, e);
    } else {
        messages = apr_chat_messages(a->system, (const char *)text->data, text->n_bytes);
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
    struct apr_prompt_from from = {
        .model = ops->at[0], .operand = ops->n > 1 ? ops->at[1] : NULL, .text = a->prompt, .file = a->input};
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
static void timings(struct apr_out *o, const struct apr_session *s, const struct apr_gen *g, double start_s)
{
    apr_out_f64(o, "load_s", s->load_s);
    apr_out_f64(o, "data_scan_s", s->checked.scan_s);
    apr_out_f64(o, "prompt_s", g->prompt_s);
    apr_out_f64(o, "prompt_toks_per_s", apr_gen_prompt_rate(g));
    apr_out_f64(o, "first_token_s", start_s + g->prompt_s);
    apr_out_f64(o, "decode_s", g->decode_s);
    apr_out_f64(o, "decode_toks_per_s", apr_gen_decode_rate(g));
    apr_out_u64(o, "n_threads", apr_pool_threads(s->pool));
    apr_out_str(o, "kernels", s->kern->name);
}

static enum apr_code report_json(const struct apr_session *s, const struct apr_gen *g, double start_s,
                                 struct apr_err *e)
{
    struct apr_out *o = apr_out_open(stdout, true, "apr.run/1");
    apr_out_str(o, "model", s->model->name);
    apr_out_strn(o, "text", g->text.data ? (const char *)g->text.data : "", g->text.n_bytes);
    apr_out_arr(o, "tokens");
    for (size_t i = 0; i < g->ids.n; i++) apr_out_i64(o, NULL, g->ids.at[i]);
    apr_out_end(o);
    apr_out_u64(o, "n_prompt_toks", g->n_prompt);
    apr_out_u64(o, "n_generated", g->ids.n);
    apr_out_str(o, "finish_reason", g->finish);
    apr_out_obj(o, "timings");
    timings(o, s, g, start_s);
    apr_out_end(o);
    return apr_out_close(o, e);
}

static enum apr_code generate(const struct run_args *a, const struct apr_ctx *ctx, struct apr_session *s,
                              const struct apr_buf *text, struct apr_gen *g, bool json, struct apr_err *e)
{
    struct apr_sample_opts o;
    struct apr_sampler sampler;
    struct apr_ids ids = {0};
    sampling(a, s->model, &o);
    TRY(apr_sample_check(&o, e));
    warn_if_idle(a, &o);
    TRY(apr_sampler_init(&sampler, &o, s->model->config.n_vocab, s->n_ctx, s->kern, ctx->arena, e));
    enum apr_code code = encode_prompt(a, s, text, &ids, e);
    const struct apr_text_sink to = {write_text, stdout};
    if (code == APR_OK) code = apr_generate(s, &sampler, ids.at, ids.n, g, json ? NULL : &to, e);
    apr_ids_free(&ids);
    /* A line of its own for the shell's prompt, but only there: a pipe gets the generated text alone. */
    if (code == APR_OK && !json && isatty(STDOUT_FILENO)) code = write_text(stdout, "\n", 1, e);
    return code;
}

static enum apr_code benchmark(const struct apr_session *s, const struct apr_gen *g, double start_s,
                               struct apr_err *e)
{
    struct apr_out *o = apr_out_open(stderr, false, "apr.run.timings/1");
    apr_out_u64(o, "n_prompt_toks", g->n_prompt);
    apr_out_u64(o, "n_generated", g->ids.n);
    timings(o, s, g, start_s);
    return apr_out_close(o, e);
}

static enum apr_code with_model(const struct run_args *a, const struct apr_ctx *ctx,
                                const struct apr_buf *text, bool json, struct apr_err *e)
{
    int64_t ns_start = apr_now_ns();
    struct apr_session s;
    struct apr_gen g;
    TRY(apr_session_open(&s, ctx->operands->at[0], &a->engine, ctx, e));
    apr_gen_init(
        &g, &(struct apr_gen_opts){.n_max = a->n_max < 0 ? SIZE_MAX : (size_t)a->n_max, .stops = &a->stops});
    enum apr_code code = generate(a, ctx, &s, text, &g, json, e);
    double start_s = (double)(apr_now_ns() - ns_start) * 1e-9 - g.prompt_s - g.decode_s;
    if (code == APR_OK && json) code = report_json(&s, &g, start_s, e);
    if (code == APR_OK && a->benchmark) code = benchmark(&s, &g, start_s, e);
    apr_gen_free(&g);
    apr_session_close(&s);
    return code;
}

/* The prompt comes first: a missing one should not cost the loading of a model. */
static enum apr_code run(void *args_, struct apr_ctx *ctx, struct apr_err *e)
{
    const struct run_args *a = args_;
    bool json = ctx->g->json;
    TRY(check_args(a, &json, e));
    struct apr_buf text;
    apr_buf_init(&text, APR_MAX_PROMPT_BYTES);
    enum apr_code code = read_prompt(a, ctx, &text, e);
    if (code == APR_OK) code = with_model(a, ctx, &text, json, e);
    apr_buf_free(&text);
    return code;
}

static const char details[] =
    "MODEL is a Hugging Face folder, a .safetensors, .apr or GGUF file, or - for standard input. The "
    "generated text\n"
    "alone goes to standard output. A model with a chat template gets PROMPT as a user message; special "
    "tokens in\n"
    "it stay text. --raw feeds PROMPT as it is.\n"
    "\n"
    "The default is greedy. Any of --temperature, --model-sampling starts sampling: penalties, top-k, top-p, "
    "min-p,\n"
    "temperature, draw, in this order; the same seed gives the same text on any machine and thread count.\n"
    "\n"
    "  apr run model.apr \"What is 2+2?\"\n"
    "  apr run model.gguf --raw -n 64 --stop 'def ' 'def fib(n):'\n"
    "  git diff | apr run model.apr -i - --system 'Describe this change.' -n 200\n";

const struct apr_verb verb_run = {
    .name = "run",
    .operands = "MODEL [PROMPT]",
    .n_operands_min = 1,
    .n_operands_max = 2,
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .args_bytes = sizeof(struct run_args),
    .init = init,
    .run = run,
    .details = details,
};

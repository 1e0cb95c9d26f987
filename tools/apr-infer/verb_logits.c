/* logits: every logit of every prompt token, as raw numbers. */
#include <inttypes.h>
#include <string.h>

#include "io.h"
#include "prompt.h"
#include "session.h"
#include "verbs.h"

struct logits_args {
    struct apr_engine_opts engine;
    const char *prompt, *prompt_file, *ids, *output;
    bool force;
};

static const struct apr_opt opts[] = {
    APR_OPT(struct logits_args, prompt, "prompt", 'p', "TEXT",
            "the prompt, special tokens parsed, nothing added"),
    APR_OPT(struct logits_args, prompt_file, "prompt-file", 0, "FILE",
            "the same from FILE; - is standard input"),
    APR_OPT(struct logits_args, ids, "ids", 0, "LIST", "token ids, comma-separated, instead of a text"),
    APR_OPT(struct logits_args, output, "output", 'o', "FILE",
            "write the logits to FILE; - is standard output"),
    APR_OPT(struct logits_args, force, "force", 'f', NULL, "replace an existing output"),
    APR_ENGINE_OPTS(struct logits_args),
};

static void init(void *args_)
{
    struct logits_args *a = args_;
    apr_engine_defaults(&a->engine);
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
    struct apr_prompt_from from = {.model = ctx->operands->at[0], .text = a->prompt, .file = a->prompt_file};
    TRY(apr_prompt_read(&from, text, e));
    return text->n_bytes ? APR_OK : apr_fail(e, APR_EUSAGE, "the prompt is empty");
}

struct rows_out {
    struct apr_sink *sink;
    size_t n_vocab;
};

/* Floats are written as they stand in memory, which is little-endian on every machine this builds for. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "logits are written little-endian");
static enum apr_code write_rows(void *ctx, size_t i_tok, size_t n_rows, const float *logits,
                                struct apr_err *e)
{
    const struct rows_out *out = ctx;
    (void)i_tok;
    apr_sink_write(out->sink, logits, n_rows * out->n_vocab * sizeof *logits);
    return apr_sink_failed(out->sink) ? apr_fail(e, APR_EIO, "the output cannot be written") : APR_OK;
}

static enum apr_code compute(const struct logits_args *a, struct apr_session *s, const struct apr_buf *text,
                             struct apr_ids *ids, struct apr_err *e)
{
    struct rows_out out = {.n_vocab = s->model->config.n_vocab};
    if (text->n_bytes) {
        const struct apr_tok *tok;
        TRY(apr_session_tok(s, &tok, e));
        TRY(apr_tok_encode(tok, (const char *)text->data, text->n_bytes, APR_TOK_PARSE_SPECIAL, ids, e));
    }
    TRY(apr_session_fits(s, ids->n, 0, e));
    TRY(apr_sink_open(&out.sink, a->output, a->force, e));
    enum apr_code code = apr_sink_need(out.sink, (uint64_t)ids->n * out.n_vocab * sizeof(float), e);
    if (code == APR_OK)
        code = apr_forward_all_logits(&s->fwd, &s->cache, ids->at, ids->n, write_rows, &out, e);
    if (code != APR_OK && !apr_sink_failed(out.sink)) {
        apr_sink_abort(out.sink);
        return code;
    }
    return apr_sink_finish(out.sink, e);
}

static enum apr_code report(const struct apr_session *s, const struct apr_ids *ids, struct apr_err *e)
{
    struct apr_out *o = apr_out_open(stdout, true, "apr.logits/1");
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
    TRY(apr_session_open(&s, ctx->operands->at[0], &a->engine, ctx, e));
    enum apr_code code = compute(a, &s, text, ids, e);
    if (code == APR_OK && ctx->g->json) code = report(&s, ids, e);
    if (code == APR_OK && !ctx->g->json) apr_note("%zu rows of %u logits", ids->n, s.model->config.n_vocab);
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

static const char details[] = "Writes little-endian 32-bit floats, one row of vocabulary size for each "
                              "prompt token: row i holds the logits\n"
                              "of the token after token i. The bits do not depend on --threads, "
                              "--prefill-chunk or the machine's kernels.\n"
                              "\n"
                              "  apr logits model.apr --exact --prompt 'def f(x):' -o logits.f32 --json\n";

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

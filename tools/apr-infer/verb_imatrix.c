/* imatrix: how much each column of each matrix matters, measured on a text. */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "collect.h"
#include "prompt.h"
#include "session.h"
#include "verbs.h"

struct imatrix_args {
    struct apr_engine_opts engine;
    const char *file, *output;
    uint64_t window, n_max;
    bool force, with_output, parse_special;
};

static const struct apr_opt opts[] = {
    APR_OPT(struct imatrix_args, file, "file", 'f', "FILE", "the text; - is standard input"),
    APR_OPT(struct imatrix_args, output, "output", 'o', "FILE", "write to FILE; - is standard output"),
    APR_OPT(struct imatrix_args, window, "window", 'w', "N",
            "tokens that are computed from one empty cache (default 512)"),
    APR_OPT(struct imatrix_args, n_max, "max-tokens", 'n', "N", "use the first N tokens only (default: all)"),
    APR_OPT(struct imatrix_args, with_output, "process-output", 0, NULL, "also measure output.weight"),
    APR_OPT(struct imatrix_args, parse_special, "parse-special", 0, NULL,
            "let special tokens in the text be special"),
    APR_OPT(struct imatrix_args, force, "force", 0, NULL, "replace an existing output"),
    APR_ENGINE_OPTS(struct imatrix_args),
};

static void init(void *args_)
{
    struct imatrix_args *a = args_;
    apr_engine_defaults(&a->engine);
    a->engine.on_cpu = "inputs of matrices";
    a->window = 512;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static enum apr_code drop_logits(void *ctx, size_t i_tok, size_t n_rows, const float *logits,
                                 struct apr_err *e)
{
    (void)ctx, (void)i_tok, (void)n_rows, (void)logits, (void)e;
    return APR_OK;
}

/* Whole windows from empty caches; each begins with the model's BOS if it wants one. */
static enum apr_code compute(const struct imatrix_args *a, struct apr_session *s, struct apr_ids *ids,
                             struct apr_err *e)
{
    const struct apr_vocab *v = &s->model->vocab;
    size_t window = (size_t)a->window;
    struct apr_progress bar;
    enum apr_code code = APR_OK;
    apr_progress_begin(&bar, "imatrix", ids->n / window * window, "tokens");
    for (size_t i = 0; ids->n - i >= window && code == APR_OK; i += window) {
        if (v->add_bos == 1 && v->bos_id != APR_ID_NONE) ids->at[i] = (int32_t)v->bos_id;
        apr_cache_truncate(&s->cache, 0);
        code = a->with_output
                   ? apr_forward_all_logits(&s->fwd, &s->cache, ids->at + i, window, drop_logits, NULL, e)
                   : apr_forward_prompt(&s->fwd, &s->cache, ids->at + i, window, e);
        apr_progress_add(&bar, window);
    }
    apr_progress_end(&bar);
    return code;
}

static enum apr_code write_output(const struct imatrix_args *a, struct apr_collect *k, uint32_t n_chunks,
                                  struct apr_err *e)
{
    struct apr_sink *s;
    TRY(apr_sink_open(&s, a->output ? a->output : "-", a->force, e));
    const char *dataset = strcmp(a->file, "-") == 0 ? "standard input" : base_name(a->file);
    enum apr_code code = apr_collect_write(k, s, dataset, n_chunks, (uint32_t)a->window, e);
    if (code == APR_OK) return apr_sink_finish(s, e);
    apr_sink_abort(s);
    return code;
}

static enum apr_code report(const struct imatrix_args *a, const struct apr_ctx *ctx,
                            const struct apr_collect *k, uint32_t n_chunks, double compute_s,
                            struct apr_err *e)
{
    uint64_t n_toks = n_chunks * a->window;
    if (!ctx->g->json) {
        apr_note("%zu matrices, %" PRIu64 " tokens in %" PRIu32 " windows, %.2f s", k->n, n_toks, n_chunks,
                 compute_s);
        return APR_OK;
    }
    struct apr_out *o = apr_out_open(stdout, true, "apr.imatrix/1");
    apr_out_str(o, "model", k->model->name);
    apr_out_str(o, "output", a->output);
    apr_out_u64(o, "n_entries", k->n);
    apr_out_u64(o, "n_toks", n_toks);
    apr_out_u64(o, "window", a->window);
    apr_out_u64(o, "n_windows", n_chunks);
    apr_out_f64(o, "compute_s", compute_s);
    return apr_out_close(o, e);
}

static enum apr_code measure(const struct imatrix_args *a, const struct apr_ctx *ctx, struct apr_session *s,
                             struct apr_ids *ids, struct apr_err *e)
{
    if (a->n_max && ids->n > a->n_max) ids->n = (size_t)a->n_max;
    uint32_t n_chunks = (uint32_t)(ids->n / a->window);
    if (n_chunks == 0)
        return apr_fail(e, APR_EUSAGE, "%s: %zu tokens do not fill one window of %" PRIu64 "; see --window",
                        a->file, ids->n, a->window);
    TRY(apr_session_fits(s, (size_t)a->window, 0, e));
    struct apr_collect k = {.model = s->model, .with_output = a->with_output};
    enum apr_code code = apr_collect_open(&k, e);
    int64_t ns_start = apr_now_ns();
    s->fwd.c.tap = apr_collect_tap;
    s->fwd.c.tap_ctx = &k;
    if (code == APR_OK) code = compute(a, s, ids, e);
    double compute_s = (double)(apr_now_ns() - ns_start) * 1e-9;
    if (code == APR_OK) code = write_output(a, &k, n_chunks, e);
    if (code == APR_OK) code = report(a, ctx, &k, n_chunks, compute_s, e);
    apr_collect_close(&k);
    return code;
}

static enum apr_code with_model(const struct imatrix_args *a, const struct apr_ctx *ctx,
                                const struct apr_buf *text, struct apr_err *e)
{
    struct apr_session s;
    struct apr_ids ids = {0};
    const struct apr_tok *tok;
    unsigned flags = APR_TOK_ADD_SPECIAL | (a->parse_special ? APR_TOK_PARSE_SPECIAL : 0);
    TRY(apr_session_open(&s, ctx->operands->at[0], &a->engine, ctx, e));
    enum apr_code code = apr_session_tok(&s, &tok, e);
    if (code == APR_OK) code = apr_tok_encode(tok, (const char *)text->data, text->n_bytes, flags, &ids, e);
    if (code == APR_OK) code = measure(a, ctx, &s, &ids, e);
    apr_ids_free(&ids);
    apr_session_close(&s);
    return code;
}

static enum apr_code check_args(const struct imatrix_args *a, const struct apr_ctx *ctx, struct apr_err *e)
{
    bool to_stdout = !a->output || strcmp(a->output, "-") == 0;
    if (!a->file) return apr_fail(e, APR_EUSAGE, "no text: give --file FILE");
    if (a->window < 16 || a->window > 1u << 20)
        return apr_fail(e, APR_EUSAGE, "--window: found %" PRIu64 ", expected 16 to 1048576", a->window);
    if (to_stdout && isatty(STDOUT_FILENO))
        return apr_fail(e, APR_EUSAGE, "standard output is a terminal; name an output with -o FILE");
    if (to_stdout && ctx->g->json)
        return apr_fail(e, APR_EUSAGE, "--json needs -o FILE: standard output carries the matrix");
    return APR_OK;
}

static enum apr_code run(void *args_, struct apr_ctx *ctx, struct apr_err *e)
{
    const struct imatrix_args *a = args_;
    TRY(check_args(a, ctx, e));
    struct apr_prompt_from from = {.model = ctx->operands->at[0], .file = a->file};
    struct apr_buf text;
    apr_buf_init(&text, APR_MAX_PROMPT_BYTES);
    enum apr_code code = apr_prompt_read(&from, &text, e);
    if (code == APR_OK) code = with_model(a, ctx, &text, e);
    apr_buf_free(&text);
    return code;
}

static const char details[] =
    "For each matrix of the layers: the mean over the text's tokens of the squares of what meets each "
    "column. "
    "The output is the GGUF form that --imatrix of import, convert, quantize and export reads, and "
    "llama.cpp. "
    "The text is cut into windows, each from an empty cache; what does not fill a window takes no part.\n"
    "\n"
    "  apr imatrix model.apr -f calibration.txt -o imatrix.gguf\n"
    "  apr export gguf DIR --quantize q4_k_m --imatrix imatrix.gguf -o model-q4.gguf\n";

const struct apr_verb verb_imatrix = {
    .name = "imatrix",
    .operands = "MODEL",
    .n_operands_min = 1,
    .n_operands_max = 1,
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .args_bytes = sizeof(struct imatrix_args),
    .init = init,
    .run = run,
    .details = details,
};

/* eval: perplexity of a text, and whether it is good enough. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "perplexity.h"
#include "prompt.h"
#include "verbs.h"

struct eval_args {
    struct apr_engine_opts engine;
    const char *dataset, *text, *file;
    uint64_t window, n_max;
    double threshold;
};

static const struct apr_opt opts[] = {
    APR_OPT(struct eval_args, file, "file", 0, "FILE", "the text to judge by; - is standard input"),
    APR_OPT(struct eval_args, text, "text", 0, "TEXT", "the text itself"),
    APR_OPT(struct eval_args, dataset, "dataset", 0, "NAME",
            "custom: the text of --file or --text (default)"),
    APR_OPT(struct eval_args, window, "window", 'w', "N",
            "tokens that are predicted from one empty cache (default 512)"),
    APR_OPT(struct eval_args, n_max, "max-tokens", 'n', "N", "use the first N tokens only (default: all)"),
    APR_OPT(struct eval_args, threshold, "threshold", 0, "PPL",
            "answer no (status 1) when the perplexity is above PPL"),
    APR_ENGINE_OPTS(struct eval_args),
};

static void init(void *args_)
{
    struct eval_args *a = args_;
    apr_engine_defaults(&a->engine);
    a->dataset = "custom";
    a->window = 512;
    a->threshold = NAN;
}

/* Words for a perplexity: quality facts, 18. */
static const char *verdict_of(double ppl)
{
    static const struct {
        double below;
        const char *word;
    } rows[] = {{10, "excellent"}, {15, "good"}, {20, "acceptable"}, {50, "poor"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (ppl < rows[i].below) return rows[i].word;
    return "garbage";
}

static enum apr_code report(const struct eval_args *a, const struct apr_ctx *ctx, const struct apr_session *s,
                            const struct apr_ids *ids, const struct apr_ppl *p, struct apr_err *e)
{
    double ppl = apr_nll_ppl(&p->all);
    bool has_threshold = !isnan(a->threshold), passed = !has_threshold || ppl <= a->threshold;
    struct apr_out *o = apr_out_open(stdout, ctx->g->json, "apr.eval/1");
    apr_out_str(o, "model", s->model->name);
    apr_out_str(o, "mode", a->engine.exact ? "exact" : "default");
    apr_out_u64(o, "n_toks", ids->n);
    apr_out_u64(o, "window", p->window);
    apr_out_u64(o, "n_windows", p->n_windows);
    apr_out_u64(o, "n_toks_predicted", p->all.n);
    apr_out_f64(o, "ppl_all", ppl);
    apr_out_f64(o, "ppl_all_stderr", apr_nll_stderr(&p->all));
    apr_out_f64(o, "ppl_second_half", apr_nll_ppl(&p->second_half));
    apr_out_f64(o, "nll_mean", p->all.sum / (double)p->all.n);
    apr_out_str(o, "verdict", verdict_of(ppl));
    if (has_threshold) {
        apr_out_f64(o, "threshold", a->threshold);
        apr_out_bool(o, "passed", passed);
    }
    apr_out_f64(o, "compute_s", p->compute_s);
    apr_out_f64(o, "toks_per_s", (double)p->n_toks / p->compute_s);
    TRY(apr_out_close(o, e));
    if (passed) return APR_OK;
    return apr_fail(e, APR_ENO, "perplexity %.4f is above the threshold %g", ppl, a->threshold);
}

static enum apr_code check_args(const struct eval_args *a, struct apr_err *e)
{
    if (strcmp(a->dataset, "custom") != 0)
        return apr_fail(e, APR_EUSAGE, "--dataset: found \"%s\", expected custom, with --file or --text",
                        a->dataset);
    if (a->window < 2 || a->window > 1u << 20)
        return apr_fail(e, APR_EUSAGE, "--window: found %" PRIu64 ", expected 2 to 1048576", a->window);
    if (!a->file && !a->text) return apr_fail(e, APR_EUSAGE, "no text: give --file FILE or --text TEXT");
    if (!isnan(a->threshold) && a->threshold < 1)
        return apr_fail(e, APR_EUSAGE, "--threshold: found %g, expected 1 or more", a->threshold);
    return APR_OK;
}

static enum apr_code with_model(const struct eval_args *a, const struct apr_ctx *ctx,
                                const struct apr_buf *text, struct apr_err *e)
{
    struct apr_session s;
    struct apr_ids ids = {0};
    struct apr_ppl p;
    const struct apr_tok *tok;
    TRY(apr_session_open(&s, ctx->operands->at[0], &a->engine, ctx, e));
    enum apr_code code = apr_session_tok(&s, &tok, e);
    if (code == APR_OK)
        code = apr_tok_encode(tok, (const char *)text->data, text->n_bytes, APR_TOK_PARSE_SPECIAL, &ids, e);
    if (a->n_max && ids.n > a->n_max) ids.n = (size_t)a->n_max;
    if (code == APR_OK) code = apr_ppl_run(&p, &s, ids.at, ids.n, (size_t)a->window, e);
    if (code == APR_OK) code = report(a, ctx, &s, &ids, &p, e);
    apr_ids_free(&ids);
    apr_session_close(&s);
    return code;
}

static enum apr_code run(void *args_, struct apr_ctx *ctx, struct apr_err *e)
{
    const struct eval_args *a = args_;
    TRY(check_args(a, e));
    struct apr_prompt_from from = {.model = ctx->operands->at[0], .text = a->text, .file = a->file};
    struct apr_buf text;
    apr_buf_init(&text, APR_MAX_PROMPT_BYTES);
    enum apr_code code = apr_prompt_read(&from, &text, e);
    if (code == APR_OK && !text.n_bytes) code = apr_fail(e, APR_EUSAGE, "the text is empty");
    if (code == APR_OK) code = with_model(a, ctx, &text, e);
    apr_buf_free(&text);
    return code;
}

static const char details[] =
    "Perplexity is exp of the mean of -ln p over predicted tokens. The text is cut into windows; nothing is\n"
    "prepended; special tokens in it are parsed. ppl_all counts every predicted token, ppl_second_half those "
    "after\n"
    "the middle of each window, as llama.cpp's perplexity does.\n"
    "\n"
    "  apr eval model.apr --file wiki.test.txt --threshold 12\n";

const struct apr_verb verb_eval = {
    .name = "eval",
    .operands = "MODEL",
    .n_operands_min = 1,
    .n_operands_max = 1,
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .args_bytes = sizeof(struct eval_args),
    .init = init,
    .run = run,
    .details = details,
};

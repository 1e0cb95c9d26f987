/* eval: perplexity of a text, last words, the distance to another model; and whether it is good enough. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "lambada.h"
#include "perplexity.h"
#include "prompt.h"
#include "series.h"
#include "verbs.h"

struct eval_args {
    struct apr_engine_opts engine;
    const char *dataset, *text, *file, *against, *count;
    uint64_t window, stride, n_max;
    double threshold, max_kl, min_accuracy;
};

static const struct apr_opt opts[] = {
    APR_OPT(struct eval_args, file, "file", 0, "FILE", "the text to judge by; - is standard input"),
    APR_OPT(struct eval_args, text, "text", 0, "TEXT", "the text itself"),
    APR_OPT(struct eval_args, dataset, "dataset", 0, "NAME",
            "custom: any text (default); wikitext: a raw file; lambada: JSON lines"),
    APR_OPT(struct eval_args, against, "against", 0, "OTHER",
            "measure the distance from this model on the same tokens"),
    APR_OPT(struct eval_args, window, "window", 'w', "N",
            "tokens that are predicted from one empty cache (default 512)"),
    APR_OPT(struct eval_args, stride, "stride", 0, "N",
            "windows begin every N tokens and count their last N (default: --window)"),
    APR_OPT(struct eval_args, count, "count", 0, "WHICH",
            "tokens that --against counts: all (default), or second-half as llama.cpp"),
    APR_OPT(struct eval_args, n_max, "max-tokens", 'n', "N",
            "use the first N tokens only, of lambada N passages (default: all)"),
    APR_OPT(struct eval_args, threshold, "max-ppl", 0, "PPL",
            "answer no (status 1) when the perplexity is above PPL"),
    APR_OPT(struct eval_args, threshold, "threshold", 0, "PPL", "the same as --max-ppl"),
    APR_OPT(struct eval_args, max_kl, "max-kl", 0, "NATS",
            "answer no when the mean divergence from OTHER is above NATS"),
    APR_OPT(struct eval_args, min_accuracy, "min-accuracy", 0, "SHARE",
            "answer no when fewer last words are right; 0 to 1"),
    APR_ENGINE_OPTS(struct eval_args),
};

static void init(void *args_)
{
    struct eval_args *a = args_;
    apr_engine_defaults(&a->engine);
    a->dataset = "custom";
    a->count = "all";
    a->window = 512;
    a->threshold = a->max_kl = a->min_accuracy = NAN;
}

/* How a dataset is read. */
struct dataset {
    const char *name;
    const char *file_like; /* must come from --file: this is what the file looks like; NULL: any text */
    unsigned tok_flags;
    bool window_bos; /* a window begins with BOS where the tokenizer adds one */
    bool is_lambada;
};
static const struct dataset datasets[] = {
    {"custom", NULL, APR_TOK_PARSE_SPECIAL, false, false},
    {"wikitext", "wiki.test.raw", APR_TOK_ADD_SPECIAL, true, false},
    {"wikitext-2", "wiki.test.raw", APR_TOK_ADD_SPECIAL, true, false},
    {"wikitext2", "wiki.test.raw", APR_TOK_ADD_SPECIAL, true, false},
    {"lambada", "lambada_test.jsonl", 0, false, true},
};

static const struct dataset *dataset_named(const char *name)
{
    for (size_t i = 0; i < sizeof datasets / sizeof *datasets; i++)
        if (strcmp(datasets[i].name, name) == 0) return &datasets[i];
    return NULL;
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

/* A limit that was given, what was found, and whether that is good enough. The first missed one is the
 * answer. */
struct limits {
    struct apr_out *o;
    struct apr_err *e;
    enum apr_code code;
    bool any;
};

static void limit_check(struct limits *l, const char *key, const char *what, double limit, double found,
                        bool is_most)
{
    if (isnan(limit)) return;
    apr_out_f64(l->o, key, limit);
    l->any = true;
    if ((is_most ? found <= limit : found >= limit) || l->code != APR_OK) return;
    l->code = apr_fail(l->e, APR_ENO, "%s %.6g is %s the threshold %g", what, found,
                       is_most ? "above" : "below", limit);
}

/* Writes the report; a missed limit comes after it. */
static enum apr_code finish(struct limits *l, double compute_s, uint64_t n_toks)
{
    struct apr_err e;
    if (l->any) apr_out_bool(l->o, "passed", l->code == APR_OK);
    apr_out_f64(l->o, "compute_s", compute_s);
    apr_out_f64(l->o, "toks_per_s", (double)n_toks / compute_s);
    enum apr_code code = apr_out_close(l->o, &e);
    if (code == APR_OK) return l->code;
    *l->e = e;
    return code;
}

static void out_divergence(struct apr_out *o, struct limits *l, const struct eval_args *a,
                           const struct apr_session *ref, struct apr_ppl *p)
{
    double *kls = (double *)(void *)p->kls.data;
    size_t n = p->kls.n_bytes / sizeof *kls;
    struct apr_summary kl = apr_summary_of(kls, n);
    double n_kl = (double)n;
    apr_out_obj(o, "against");
    apr_out_str(o, "model", ref->model->name);
    apr_out_str(o, "count", a->count);
    apr_out_u64(o, "n_toks_compared", n);
    apr_out_f64(o, "ppl_all", apr_nll_ppl(&p->ref_all));
    apr_out_f64(o, "ppl_second_half", apr_nll_ppl(&p->ref_second_half));
    apr_out_f64(o, "ppl_ratio", exp((p->all.sum - p->ref_all.sum) / (double)p->all.n));
    apr_out_obj(o, "kl_nats");
    apr_out_f64(o, "mean", kl.mean);
    apr_out_f64(o, "mean_stderr", n ? kl.sd / sqrt(n_kl) : 0);
    apr_out_f64(o, "median", kl.p50);
    apr_out_f64(o, "p95", kl.p95);
    apr_out_f64(o, "p99", kl.p99);
    apr_out_f64(o, "p999", n ? apr_percentile(kls, n, 99.9) : 0);
    apr_out_f64(o, "max", kl.max);
    apr_out_end(o);
    apr_out_f64(o, "top1_agreement", (double)p->n_same_top / n_kl);
    apr_out_f64(o, "dp_mean", p->dp_sum / n_kl);
    apr_out_f64(o, "dp_rms", sqrt(p->dp_sum_sq / n_kl));
    apr_out_end(o);
    limit_check(l, "max_kl", "the mean divergence", a->max_kl, kl.mean, true);
}

static enum apr_code report_ppl(const struct eval_args *a, const struct apr_ctx *ctx,
                                const struct apr_session *s, const struct apr_session *ref, size_t n_toks,
                                struct apr_ppl *p, struct apr_err *e)
{
    double ppl = apr_nll_ppl(&p->all);
    struct apr_out *o = apr_out_open(stdout, ctx->g->json, "apr.eval/1");
    struct limits l = {.o = o, .e = e};
    apr_out_str(o, "model", s->model->name);
    apr_out_str(o, "mode", a->engine.exact ? "exact" : "default");
    apr_out_str(o, "dataset", a->dataset);
    apr_out_u64(o, "n_toks", n_toks);
    apr_out_u64(o, "window", p->window);
    apr_out_u64(o, "stride", p->stride);
    apr_out_u64(o, "n_windows", p->n_windows);
    apr_out_u64(o, "n_toks_predicted", p->all.n);
    apr_out_f64(o, "ppl_all", ppl);
    apr_out_f64(o, "ppl_all_stderr", apr_nll_stderr(&p->all));
    apr_out_f64(o, "ppl_second_half", apr_nll_ppl(&p->second_half));
    apr_out_f64(o, "ppl_second_half_stderr", apr_nll_stderr(&p->second_half));
    apr_out_f64(o, "nll_mean", p->all.sum / (double)p->all.n);
    apr_out_str(o, "verdict", verdict_of(ppl));
    limit_check(&l, "threshold", "the perplexity", a->threshold, ppl, true);
    if (ref) out_divergence(o, &l, a, ref, p);
    return finish(&l, p->compute_s, p->n_toks);
}

static enum apr_code report_lambada(const struct eval_args *a, const struct apr_ctx *ctx,
                                    const struct apr_session *s, const struct apr_lambada *d,
                                    struct apr_err *e)
{
    double ppl = apr_nll_ppl(&d->passages), n = (double)d->passages.n, accuracy = (double)d->n_right / n;
    struct apr_out *o = apr_out_open(stdout, ctx->g->json, "apr.eval.lambada/1");
    struct limits l = {.o = o, .e = e};
    apr_out_str(o, "model", s->model->name);
    apr_out_str(o, "mode", a->engine.exact ? "exact" : "default");
    apr_out_str(o, "dataset", a->dataset);
    apr_out_u64(o, "n_passages", d->passages.n);
    apr_out_u64(o, "n_right", d->n_right);
    apr_out_f64(o, "accuracy", accuracy);
    apr_out_f64(o, "accuracy_stderr", d->passages.n > 1 ? sqrt(accuracy * (1 - accuracy) / (n - 1)) : 0);
    apr_out_f64(o, "ppl", ppl);
    apr_out_f64(o, "ppl_stderr", apr_nll_stderr(&d->passages));
    apr_out_u64(o, "n_target_toks", d->n_target_toks);
    limit_check(&l, "threshold", "the perplexity", a->threshold, ppl, true);
    limit_check(&l, "min_accuracy", "the accuracy", a->min_accuracy, accuracy, false);
    return finish(&l, d->compute_s, d->n_toks);
}

static enum apr_code check_limits(const struct eval_args *a, const struct dataset *d, struct apr_err *e)
{
    if (!isnan(a->threshold) && a->threshold < 1)
        return apr_fail(e, APR_EUSAGE, "--max-ppl: found %g, expected 1 or more", a->threshold);
    if (!isnan(a->max_kl) && (a->max_kl < 0 || !a->against))
        return apr_fail(e, APR_EUSAGE, "--max-kl: expected 0 or more, with --against OTHER");
    if (!isnan(a->min_accuracy) && (!(a->min_accuracy >= 0 && a->min_accuracy <= 1) || !d->is_lambada))
        return apr_fail(e, APR_EUSAGE, "--min-accuracy: expected 0 to 1, with --dataset lambada");
    return APR_OK;
}

static enum apr_code check_args(const struct eval_args *a, struct apr_err *e)
{
    const struct dataset *d = dataset_named(a->dataset);
    if (!d)
        return apr_fail(e, APR_EUSAGE, "--dataset: found \"%.40s\", expected custom, wikitext or lambada",
                        a->dataset);
    if (d->file_like && (!a->file || a->text))
        return apr_fail(e, APR_EUSAGE, "--dataset %s is read from a file: give --file %s", d->name,
                        d->file_like);
    if (a->window < 2 || a->window > 1u << 20)
        return apr_fail(e, APR_EUSAGE, "--window: found %" PRIu64 ", expected 2 to 1048576", a->window);
    if (a->stride > a->window)
        return apr_fail(e, APR_EUSAGE, "--stride: found %" PRIu64 ", expected at most --window %" PRIu64,
                        a->stride, a->window);
    bool is_half = strcmp(a->count, "second-half") == 0;
    if (!is_half && strcmp(a->count, "all") != 0)
        return apr_fail(e, APR_EUSAGE, "--count: found \"%.40s\", expected all or second-half", a->count);
    if (is_half && (!a->against || (a->stride && a->stride < a->window)))
        return apr_fail(e, APR_EUSAGE, "--count second-half goes with --against, without --stride");
    if (d->is_lambada && (a->against || a->stride))
        return apr_fail(e, APR_EUSAGE, "--dataset lambada has no windows: no --against, no --stride");
    if (!a->file && !a->text) return apr_fail(e, APR_EUSAGE, "no text: give --file FILE or --text TEXT");
    return check_limits(a, d, e);
}

static enum apr_code text_tokens(const struct apr_session *s, const struct dataset *d,
                                 const struct apr_buf *text, struct apr_ids *ids, struct apr_err *e)
{
    const struct apr_tok *tok;
    TRY(apr_session_tok(s, &tok, e));
    return apr_tok_encode(tok, (const char *)text->data, text->n_bytes, d->tok_flags, ids, e);
}

/* Two models are compared on the same tokens, or not at all. */
static enum apr_code check_same_tokens(const struct apr_session *s, const struct apr_session *ref,
                                       const struct dataset *d, const struct apr_buf *text,
                                       const struct apr_ids *ids, struct apr_err *e)
{
    struct apr_ids theirs = {0};
    enum apr_code code = ref->tok ? text_tokens(ref, d, text, &theirs, e) : APR_OK;
    if (code == APR_OK && ref->tok &&
        (theirs.n != ids->n || memcmp(theirs.at, ids->at, ids->n * sizeof *ids->at) != 0))
        code = apr_fail(e, APR_ELOAD, "%s and %s cut the text into different tokens: they cannot be compared",
                        s->model->path, ref->model->path);
    apr_ids_free(&theirs);
    return code;
}

/* The token that the tokenizer puts before a text, where that is BOS; else -1. */
static enum apr_code window_bos(const struct apr_session *s, int64_t *bos, struct apr_err *e)
{
    struct apr_ids ids = {0};
    enum apr_code code = apr_tok_encode(s->tok, "", 0, APR_TOK_ADD_SPECIAL, &ids, e);
    *bos = code == APR_OK && ids.n && ids.at[0] == s->model->vocab.bos_id ? ids.at[0] : -1;
    apr_ids_free(&ids);
    return code;
}

static enum apr_code perplexity(const struct eval_args *a, const struct apr_ctx *ctx, struct apr_session *s,
                                struct apr_session *ref, const struct apr_buf *text, struct apr_err *e)
{
    const struct dataset *d = dataset_named(a->dataset);
    struct apr_ids ids = {0};
    struct apr_ppl p = {.window = (size_t)a->window,
                        .stride = (size_t)a->stride,
                        .bos = -1,
                        .kl_of_second_half = strcmp(a->count, "all") != 0};
    enum apr_code code = text_tokens(s, d, text, &ids, e);
    if (code == APR_OK && ref) code = check_same_tokens(s, ref, d, text, &ids, e);
    if (code == APR_OK && d->window_bos) code = window_bos(s, &p.bos, e);
    if (a->n_max && ids.n > a->n_max) ids.n = (size_t)a->n_max;
    if (code == APR_OK) code = apr_ppl_run(&p, s, ref, ids.at, ids.n, e);
    if (code == APR_OK) code = report_ppl(a, ctx, s, ref, ids.n, &p, e);
    apr_ppl_free(&p);
    apr_ids_free(&ids);
    return code;
}

static enum apr_code with_model(const struct eval_args *a, const struct apr_ctx *ctx,
                                const struct apr_buf *text, struct apr_err *e)
{
    struct apr_session s, ref;
    enum apr_code code;
    TRY(apr_session_open(&s, ctx->operands->at[0], &a->engine, ctx, e));
    if (dataset_named(a->dataset)->is_lambada) {
        struct apr_lambada l = {0};
        code = apr_lambada_run(&l, &s, (const char *)text->data, text->n_bytes, a->file, a->n_max, e);
        if (code == APR_OK) code = report_lambada(a, ctx, &s, &l, e);
    } else if (a->against) {
        struct apr_engine_opts engine = a->engine;
        engine.cache = (struct apr_cache_opts){0}; /* the reference's is plain */
        code = apr_session_open(&ref, a->against, &engine, ctx, e);
        if (code == APR_OK) {
            code = perplexity(a, ctx, &s, &ref, text, e);
            apr_session_close(&ref);
        }
    } else {
        code = perplexity(a, ctx, &s, NULL, text, e);
    }
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
    "Perplexity is exp of the mean of -ln p over predicted tokens. The text is cut into windows of\n"
    "--window tokens (llama.cpp's context, -c) that begin with an empty cache; what does not fill the last\n"
    "one takes no part. ppl_all counts every predicted token; ppl_second_half those after the middle of\n"
    "each window: this is llama-perplexity's number. custom: special tokens in the text are parsed and\n"
    "nothing is prepended. wikitext: the raw file as llama-perplexity reads it: special tokens are not\n"
    "parsed, and where the tokenizer adds BOS it stands in the place of each window's first token. With\n"
    "--stride windows overlap, and each token is predicted once with at least --window minus --stride\n"
    "tokens before it (transformers' way). lambada: JSON lines {\"text\": ...}; the share of passages whose\n"
    "last word is predicted greedily, and exp of the mean of -ln p(last word).\n"
    "--against: OTHER is the reference, KL(OTHER || MODEL) in nats of each predicted token;\n"
    "top1_agreement is the share of tokens where both find the same token most probable, dp the\n"
    "difference of the probabilities of the token that follows. Both models must have the same\n"
    "vocabulary and cut the text alike. --cache-type is MODEL's; OTHER keeps its cache in f16, so that a "
    "model\n"
    "against itself shows what a quantized cache costs.\n"
    "\n"
    "  apr eval model.apr --file wiki.test.raw --dataset wikitext --max-ppl 12\n"
    "  apr eval q4.gguf --against bf16.gguf --file text --max-kl 0.05 --json\n"
    "  apr eval m.gguf --against m.gguf --cache-type q8_0 --file text --max-kl 0.001\n";

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

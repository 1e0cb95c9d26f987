/* compare-inference: the same prompt through two models; apr-infer tokenizes and computes. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "json.h"
#include "level.h"
#include "load.h"
#include "sibling.h"
#include "verbs.h"

#define MAX_REPLY_BYTES (64u << 20)

struct infer_args {
    const char *prompt;
    uint64_t n_max;
    double temperature, tolerance;
    bool chat;
};

static const struct apr_opt opts[] = {
    APR_OPT(struct infer_args, prompt, "prompt", 'p', "TEXT", "the prompt (default \"2+2=\")"),
    APR_OPT(struct infer_args, n_max, "max-tokens", 'n', "N", "generate at most N tokens (default 5)"),
    APR_OPT(struct infer_args, temperature, "temperature", 0, "T",
            "sample at temperature T, with the same seed; 0 is greedy (default 0)"),
    APR_OPT(struct infer_args, tolerance, "tolerance", 0, "X",
            "fraction of tokens that may differ (default 0.1)"),
    APR_OPT(struct infer_args, chat, "chat", 0, NULL, "put the prompt into each model's chat template"),
};

static void init(void *args)
{
    *(struct infer_args *)args = (struct infer_args){.prompt = "2+2=", .n_max = 5, .tolerance = 0.1};
}

/* One model's side. */
struct side {
    const char *path;
    json_t *ids;   /* owned; reply of tokenize */
    json_t *reply; /* owned; reply of run */
    const json_t *prompt_ids, *tokens;
    const char *text;
    uint64_t n_prompt; /* as the engine counted */
};

static enum apr_code ask(const char *const *argv, const char *path, json_t **reply, struct apr_err *e)
{
    struct apr_buf out;
    apr_buf_init(&out, MAX_REPLY_BYTES);
    enum apr_code code = apr_sibling_read(argv, &out, e);
    if (code == APR_OK) code = apr_json_parse((const char *)out.data, out.n_bytes, argv[0], reply, e);
    apr_buf_free(&out);
    if (code != APR_OK) apr_err_prefix(e, "%s", path);
    return code;
}

static enum apr_code list_of(const json_t *reply, const char *key, const json_t **list, struct apr_err *e)
{
    *list = json_object_get(reply, key);
    if (!json_is_array(*list)) return apr_fail(e, APR_EFORMAT, "apr-infer: $.%s: expected an array", key);
    return APR_OK;
}

static enum apr_code tokenize(struct side *s, const struct infer_args *a, struct apr_err *e)
{
    const char *argv[] = {"apr-infer", "tokenize", "--add-special", "--json", "--", s->path, a->prompt, NULL};
    TRY(ask(argv, s->path, &s->ids, e));
    return list_of(s->ids, "ids", &s->prompt_ids, e);
}

static enum apr_code generate(struct side *s, const struct infer_args *a, const struct apr_ctx *ctx,
                              struct apr_err *e)
{
    char n_max[24], temperature[40];
    const char *argv[16] = {"apr-infer", "run", "--json", a->chat ? "--chat" : "--raw"};
    size_t n = 4;
    (void)snprintf(n_max, sizeof n_max, "%" PRIu64, a->n_max);
    (void)snprintf(temperature, sizeof temperature, "%.17g", a->temperature);
    argv[n++] = "--max-tokens";
    argv[n++] = n_max;
    argv[n++] = "--temperature";
    argv[n++] = temperature;
    if (ctx->g->skip_contract) argv[n++] = "--skip-contract";
    if (ctx->g->quiet) argv[n++] = "--quiet";
    argv[n++] = "--";
    argv[n++] = s->path;
    argv[n] = a->prompt;
    TRY(ask(argv, s->path, &s->reply, e));
    TRY(list_of(s->reply, "tokens", &s->tokens, e));
    TRY(apr_json_str(s->reply, "text", &s->text, "apr-infer", e));
    return apr_json_u64(s->reply, "n_prompt_toks", 0, UINT64_MAX, &s->n_prompt, "apr-infer", e);
}

/* ---- verdict ------------------------------------------------------------------------------------------ */

struct verdict {
    bool same_prompt, passed;
    size_t n_tokens, n_mismatches; /* n_tokens: of the longer answer */
    double match_rate;             /* NaN when nothing was generated */
    uint64_t n_mixed;
};

static bool same_id(const json_t *a, const json_t *b, size_t i)
{
    const json_t *x = json_array_get(a, i), *y = json_array_get(b, i);
    return x && y && json_equal(x, y);
}

static void judge(const struct side *a, const struct side *b, double tolerance, struct verdict *v)
{
    const size_t n_a = json_array_size(a->tokens), n_b = json_array_size(b->tokens);
    v->same_prompt = json_equal(a->prompt_ids, b->prompt_ids) && a->n_prompt == b->n_prompt;
    v->n_tokens = n_a > n_b ? n_a : n_b;
    for (size_t i = 0; i < v->n_tokens; i++) v->n_mismatches += !same_id(a->tokens, b->tokens, i);
    v->match_rate = v->n_tokens ? 1.0 - (double)v->n_mismatches / (double)v->n_tokens : NAN;
    /* 1e-12: one of ten is within 0.1, whatever the binary fraction says */
    v->passed =
        v->same_prompt && v->n_tokens && (v->n_mismatches == 0 || 1.0 - v->match_rate <= tolerance + 1e-12);
}

static void put_ids(struct apr_out *o, const char *key, const json_t *ids)
{
    apr_out_arr(o, key);
    for (size_t i = 0; i < json_array_size(ids); i++)
        apr_out_i64(o, NULL, json_integer_value(json_array_get(ids, i)));
    apr_out_end(o);
}

static void put_id(struct apr_out *o, const char *key, const json_t *ids, size_t i)
{
    if (i < json_array_size(ids))
        apr_out_i64(o, key, json_integer_value(json_array_get(ids, i)));
    else
        apr_out_str(o, key, NULL);
}

static enum apr_code report(const struct side *a, const struct side *b, const struct infer_args *args,
                            const struct verdict *v, bool json, struct apr_err *e)
{
    struct apr_out *o = apr_out_open(stdout, json, "apr.compare-inference/1");
    apr_out_str(o, "model_a", a->path);
    apr_out_str(o, "model_b", b->path);
    apr_out_str(o, "prompt", args->prompt);
    put_ids(o, "prompt_ids_a", a->prompt_ids);
    put_ids(o, "prompt_ids_b", b->prompt_ids);
    apr_out_bool(o, "prompt_ids_match", v->same_prompt);
    apr_out_u64(o, "total_tokens", v->n_tokens);
    apr_out_u64(o, "mismatches", v->n_mismatches);
    apr_out_f64(o, "match_rate", v->match_rate);
    apr_out_f64(o, "tolerance", args->tolerance);
    apr_out_u64(o, "mixed_quantization_count", v->n_mixed);
    apr_out_arr(o, "tokens");
    for (size_t i = 0; i < v->n_tokens; i++) {
        apr_out_obj(o, NULL);
        apr_out_u64(o, "position", i);
        put_id(o, "a", a->tokens, i);
        put_id(o, "b", b->tokens, i);
        apr_out_bool(o, "match", same_id(a->tokens, b->tokens, i));
        apr_out_end(o);
    }
    apr_out_end(o);
    apr_out_str(o, "text_a", a->text);
    apr_out_str(o, "text_b", b->text);
    apr_out_bool(o, "passed", v->passed);
    return apr_out_close(o, e);
}

static enum apr_code fail(const struct side *a, const struct side *b, const struct verdict *v,
                          struct apr_err *e)
{
    if (!v->same_prompt)
        return apr_fail(e, APR_ENO, "%s and %s: the prompt's token ids differ (F-GT-005)", a->path, b->path);
    if (v->n_tokens == 0)
        return apr_fail(e, APR_ENO, "%s and %s: no token was generated, nothing was compared", a->path,
                        b->path);
    return apr_fail(e, APR_ENO, "%s and %s: %zu of %zu tokens differ", a->path, b->path, v->n_mismatches,
                    v->n_tokens);
}

/* Headers only: are the two stored at one level? (F-GT-002) */
static enum apr_code levels(const char *path_a, const char *path_b, uint64_t *n_mixed, struct apr_err *e)
{
    struct apr_model *a, *b;
    TRY(apr_load_model(path_a, APR_LOAD_RANDOM | APR_LOAD_LOOK, &a, e));
    enum apr_code code = apr_load_model(path_b, APR_LOAD_RANDOM | APR_LOAD_LOOK, &b, e);
    if (code == APR_OK) {
        *n_mixed = apr_level_warn(a, b);
        apr_model_close(b);
    }
    apr_model_close(a);
    return code;
}

static enum apr_code compare(const struct infer_args *args, const struct apr_ctx *ctx, struct side *a,
                             struct side *b, struct apr_err *e)
{
    struct verdict v = {.passed = false};
    struct apr_err out_error;
    TRY(levels(a->path, b->path, &v.n_mixed, e));
    TRY(tokenize(a, args, e));
    TRY(tokenize(b, args, e));
    TRY(generate(a, args, ctx, e));
    TRY(generate(b, args, ctx, e));
    judge(a, b, args->tolerance, &v);
    enum apr_code code = report(a, b, args, &v, ctx->g->json, &out_error);
    if (code != APR_OK) {
        *e = out_error;
        return code;
    }
    return v.passed ? APR_OK : fail(a, b, &v, e);
}

static enum apr_code run(void *args_, struct apr_ctx *ctx, struct apr_err *e)
{
    const struct infer_args *args = args_;
    struct side a = {.path = ctx->operands->at[0]}, b = {.path = ctx->operands->at[1]};
    if (args->n_max == 0 || args->n_max > INT32_MAX)
        return apr_fail(e, APR_EUSAGE, "--max-tokens %" PRIu64 ": expected 1 to %d", args->n_max, INT32_MAX);
    if (!(args->tolerance >= 0 && args->tolerance < 1))
        return apr_fail(e, APR_EUSAGE, "--tolerance: expected a number from 0, below 1");
    if (!(args->temperature >= 0)) return apr_fail(e, APR_EUSAGE, "--temperature: expected 0 or more");
    if (!args->prompt[0]) return apr_fail(e, APR_EUSAGE, "the prompt is empty");
    if (!strcmp(a.path, "-") || !strcmp(b.path, "-"))
        return apr_fail(e, APR_EUSAGE, "each model is read several times: name files or folders, not -");
    enum apr_code code = compare(args, ctx, &a, &b, e);
    json_decref(a.ids);
    json_decref(a.reply);
    json_decref(b.ids);
    json_decref(b.reply);
    return code;
}

const struct apr_verb verb_compare_inference = {
    .name = "compare-inference",
    .operands = "MODEL_A MODEL_B",
    .n_operands_min = 2,
    .n_operands_max = 2,
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .args_bytes = sizeof(struct infer_args),
    .init = init,
    .run = run,
    .details =
        "Runs the same prompt through two models and compares token by token. First the ids of the prompt, "
        "which must be the same; then the generated ids, of which the fraction --tolerance may differ. "
        "Status "
        "1 when it does not pass. The prompt is fed as it is unless --chat is given. Models of different "
        "quantization levels are compared with a warning (rule R3). apr-infer does the computing; both "
        "models "
        "pass its contract gate.\n"
        "\n"
        "    apr compare-inference DIR model.apr --prompt 'What is 2+2?' --chat\n"
        "    apr compare-inference a.apr a.gguf -n 64 --tolerance 0 --json | jq .match_rate",
};

/* bench: how fast prompts are read and tokens are made. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "generate.h"
#include "prompt.h"
#include "verbs.h"

#define MAX_RUNS 10000u

struct bench_args {
    struct apr_engine_opts engine;
    uint64_t n_warmup, n_iterations, n_max, n_prompt;
    const char *prompt;
};

static const struct apr_opt opts[] = {
    APR_OPT(struct bench_args, n_warmup, "warmup", 0, "N", "runs before measuring (default 3)"),
    APR_OPT(struct bench_args, n_iterations, "iterations", 0, "N", "measured runs (default 5)"),
    APR_OPT(struct bench_args, n_iterations, "measure", 0, "N", "the same as --iterations"),
    APR_OPT(struct bench_args, n_max, "max-tokens", 'n', "N", "tokens to make in each run (default 32)"),
    APR_OPT(struct bench_args, prompt, "prompt", 'p', "TEXT", "the prompt (default: \"What is 2+2?\")"),
    APR_OPT(struct bench_args, n_prompt, "n-prompt", 0, "N", "repeat the prompt's tokens up to N tokens"),
    APR_ENGINE_OPTS(struct bench_args),
};

static void init(void *args_)
{
    struct bench_args *a = args_;
    apr_engine_defaults(&a->engine);
    a->n_warmup = 3;
    a->n_iterations = 5;
    a->n_max = 32;
    a->prompt = "What is 2+2?";
}

struct series {
    double *at; /* [n], sorted by summary */
    size_t n;
};

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void summary(struct apr_out *o, const char *key, struct series *s)
{
    qsort(s->at, s->n, sizeof *s->at, compare);
    double median = s->n % 2 ? s->at[s->n / 2] : (s->at[s->n / 2 - 1] + s->at[s->n / 2]) / 2;
    apr_out_obj(o, key);
    apr_out_f64(o, "median", median);
    apr_out_f64(o, "min", s->at[0]);
    apr_out_f64(o, "max", s->at[s->n - 1]);
    apr_out_end(o);
}

static enum apr_code one_run(struct apr_session *s, const struct apr_ids *ids, const struct bench_args *a,
                             struct apr_gen *g, struct apr_err *e)
{
    struct apr_sample_opts o;
    struct apr_sampler sampler;
    struct apr_arena arena;
    apr_arena_init(&arena);
    apr_sample_defaults(&o);
    apr_gen_init(g, &(struct apr_gen_opts){.n_max = (size_t)a->n_max, .ignore_eos = true});
    const struct apr_sampler_site site = {s->model->config.n_vocab, s->n_ctx, s->kern, s->tok};
    enum apr_code code = apr_sampler_init(&sampler, &o, &site, &arena, e);
    if (code == APR_OK) code = apr_generate(s, &sampler, ids->at, ids->n, g, NULL, e);
    apr_arena_free(&arena);
    return code;
}

static enum apr_code prompt_ids(const struct bench_args *a, const struct apr_session *s, struct apr_ids *ids,
                                struct apr_err *e)
{
    const struct apr_tok *tok;
    TRY(apr_session_tok(s, &tok, e));
    TRY(apr_prompt_encode(tok, &s->model->vocab, a->prompt, strlen(a->prompt), ids, e));
    if (!ids->n) return apr_fail(e, APR_EUSAGE, "the prompt has no tokens");
    size_t n_given = ids->n;
    while (ids->n < a->n_prompt) TRY(apr_ids_push(ids, ids->at[ids->n % n_given], e));
    if (a->n_prompt && ids->n > a->n_prompt) ids->n = (size_t)a->n_prompt;
    return apr_session_fits(s, ids->n, (size_t)a->n_max, e);
}

static enum apr_code measure(const struct bench_args *a, const struct apr_ctx *ctx, struct apr_session *s,
                             const struct apr_ids *ids, struct apr_err *e)
{
    struct series prompt = {0}, decode = {0}, first = {0};
    TRY(apr_arena_try(ctx->arena, &prompt.at, a->n_iterations, sizeof(double), "timings", e));
    TRY(apr_arena_try(ctx->arena, &decode.at, a->n_iterations, sizeof(double), "timings", e));
    TRY(apr_arena_try(ctx->arena, &first.at, a->n_iterations, sizeof(double), "timings", e));
    for (uint64_t i = 0; i < a->n_warmup + a->n_iterations; i++) {
        struct apr_gen g;
        enum apr_code code = one_run(s, ids, a, &g, e);
        if (code == APR_OK && i >= a->n_warmup) {
            prompt.at[prompt.n++] = apr_gen_prompt_rate(&g);
            first.at[first.n++] = g.prompt_s;
            if (g.ids.n > 1) decode.at[decode.n++] = apr_gen_decode_rate(&g);
        }
        apr_gen_free(&g);
        TRY(code);
    }
    struct apr_out *o = apr_out_open(stdout, ctx->g->json, "apr.bench/1");
    apr_out_str(o, "model", s->model->name);
    apr_out_str(o, "kernels", s->kern->name);
    apr_out_u64(o, "n_threads", apr_pool_threads(s->pool));
    apr_out_bytes(o, "bytes_per_token", s->fwd.w.n_bytes);
    apr_out_u64(o, "n_prompt_toks", ids->n);
    apr_out_u64(o, "n_generated", a->n_max);
    apr_out_u64(o, "n_iterations", a->n_iterations);
    apr_out_f64(o, "load_s", s->load_s);
    summary(o, "prompt_toks_per_s", &prompt);
    if (decode.n) summary(o, "decode_toks_per_s", &decode);
    summary(o, "first_token_s", &first);
    return apr_out_close(o, e);
}

static enum apr_code run(void *args_, struct apr_ctx *ctx, struct apr_err *e)
{
    struct bench_args *a = args_;
    if (a->n_iterations < 1 || a->n_iterations > MAX_RUNS || a->n_warmup > MAX_RUNS)
        return apr_fail(e, APR_EUSAGE, "--iterations: expected 1 to %u; --warmup: at most as many", MAX_RUNS);
    if (a->n_max < 1 || a->n_max > 1u << 20)
        return apr_fail(e, APR_EUSAGE, "--max-tokens: found %" PRIu64 ", expected 1 to 1048576", a->n_max);
    struct apr_session s;
    struct apr_ids ids = {0};
    TRY(apr_session_open(&s, ctx->operands->at[0], &a->engine, ctx, e));
    enum apr_code code = prompt_ids(a, &s, &ids, e);
    if (code == APR_OK) code = measure(a, ctx, &s, &ids, e);
    apr_ids_free(&ids);
    apr_session_close(&s);
    return code;
}

static const char details[] = "Each run reads the prompt into an empty cache and makes tokens greedily; end "
                              "tokens do not end it. Rates are\n"
                              "tokens a second; the first token counts to the prompt.\n"
                              "\n"
                              "  apr bench model.gguf --n-prompt 512 -n 64 --json\n";

const struct apr_verb verb_bench = {
    .name = "bench",
    .operands = "MODEL",
    .n_operands_min = 1,
    .n_operands_max = 1,
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .args_bytes = sizeof(struct bench_args),
    .init = init,
    .run = run,
    .details = details,
};

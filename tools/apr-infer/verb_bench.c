/* bench: how fast prompts are read and tokens are made. */
#include <inttypes.h>
#include <string.h>

#include "bench.h"
#include "prompt.h"
#include "ranges.h"
#include "verbs.h"

#define MAX_RUNS       10000u
#define MAX_TOKS       (1u << 20)
#define MAX_THREADS    1024u
#define MAX_CHUNK      65536u
#define MAX_TESTS      4096u
#define MAX_SEQS       256u
#define DEFAULT_PROMPT 512u
#define DEFAULT_GEN    128u

struct bench_args {
    struct apr_engine_opts engine; /* threads and chunk are set from the lists, one after the other */
    uint64_t n_warmup, n_repetitions;
    const char *prompt_toks, *gen_toks, *depths, *threads, *chunks, *parallel;
    struct apr_strs pairs;
    const char *prompt, *output;
};

static const struct apr_opt opts[] = {
    APR_OPT(struct bench_args, prompt_toks, "n-prompt", 'p', "N,...",
            "tokens of prompts; 0: no such test (default 512, or --prompt's)"),
    APR_OPT(struct bench_args, gen_toks, "n-gen", 'n', "N,...",
            "tokens to make; 0: no such test (default 128)"),
    APR_OPT(struct bench_args, gen_toks, "max-tokens", 0, "N,...", "the same as --n-gen"),
    APR_OPT(struct bench_args, pairs, "pg", 0, "P,G", "also read P and then make G tokens; repeatable"),
    APR_OPT(struct bench_args, depths, "n-depth", 'd', "N,...", "tokens in the cache before (default 0)"),
    APR_OPT(struct bench_args, parallel, "parallel", 0, "N,...",
            "N sequences that make --n-gen tokens each, together, behind --n-prompt tokens each"),
    APR_OPT(struct bench_args, n_repetitions, "repetitions", 'r', "N", "measured runs of a test (default 5)"),
    APR_OPT(struct bench_args, n_repetitions, "iterations", 0, "N", "the same as --repetitions"),
    APR_OPT(struct bench_args, n_repetitions, "measure", 0, "N", "the same as --repetitions"),
    APR_OPT(struct bench_args, n_warmup, "warmup", 0, "N", "runs of a test before measuring (default 1)"),
    APR_OPT(struct bench_args, prompt, "prompt", 0, "TEXT",
            "tokens of this text, repeated (default: drawn from the vocabulary)"),
    APR_OPT(struct bench_args, output, "output", 'o', "FORMAT", "md, json, jsonl or csv (default md)"),
    APR_OPT(struct bench_args, threads, "threads", 't', "N,...", "threads (default: the CPUs available)"),
    APR_OPT(struct bench_args, threads, "jobs", 'j', "N,...", "the same as --threads"),
    APR_OPT(struct bench_args, chunks, "prefill-chunk", 'b', "N,...",
            "tokens computed at once (default 512)"),
    APR_ENGINE_OPTS_BUT_NUMBERS(struct bench_args),
};

static void init(void *args_)
{
    struct bench_args *a = args_;
    apr_engine_defaults(&a->engine);
    a->n_warmup = 1;
    a->n_repetitions = 5;
    a->depths = "0";
    a->threads = NULL;
    a->chunks = NULL;
}

/* Everything that was asked for, as numbers. */
struct plan {
    struct apr_ranges prompts, gens, depths, threads, chunks, seqs;
    struct apr_bench_test pairs[APR_MAX_RANGE];
    size_t n_pairs;
    struct apr_ids text;
    struct apr_bench_row *rows; /* [n_rows] of n_cap */
    size_t n_rows, n_cap;
};

static enum apr_code plan_pairs(const struct bench_args *a, struct plan *p, struct apr_err *e)
{
    for (size_t i = 0; i < a->pairs.n; i++) {
        struct apr_ranges r = {0};
        TRY(apr_ranges_parse("--pg", a->pairs.at[i], 1, MAX_TOKS, &r, e));
        if (r.n != 2 || strchr(a->pairs.at[i], '-'))
            return apr_fail(e, APR_EUSAGE, "--pg: found \"%.40s\", expected P,G such as 512,128",
                            a->pairs.at[i]);
        if (p->n_pairs == APR_MAX_RANGE)
            return apr_fail(e, APR_EUSAGE, "--pg: more than %u pairs", APR_MAX_RANGE);
        p->pairs[p->n_pairs++] =
            (struct apr_bench_test){.n_prompt = (size_t)r.at[0], .n_gen = (size_t)r.at[1]};
    }
    return APR_OK;
}

static enum apr_code plan_parse(const struct bench_args *a, size_t n_models, struct plan *p,
                                struct apr_arena *arena, struct apr_err *e)
{
    if (a->n_repetitions < 1 || a->n_repetitions > MAX_RUNS || a->n_warmup > MAX_RUNS)
        return apr_fail(e, APR_EUSAGE, "--repetitions: expected 1 to %u; --warmup: at most as many",
                        MAX_RUNS);
    if (a->prompt_toks) TRY(apr_ranges_parse("--n-prompt", a->prompt_toks, 0, MAX_TOKS, &p->prompts, e));
    if (a->gen_toks) TRY(apr_ranges_parse("--n-gen", a->gen_toks, 0, MAX_TOKS, &p->gens, e));
    TRY(apr_ranges_parse("--n-depth", a->depths, 0, MAX_TOKS, &p->depths, e));
    if (a->threads) TRY(apr_ranges_parse("--threads", a->threads, 1, MAX_THREADS, &p->threads, e));
    if (a->chunks) TRY(apr_ranges_parse("--prefill-chunk", a->chunks, 1, MAX_CHUNK, &p->chunks, e));
    if (!p->threads.n) p->threads = (struct apr_ranges){.at = {a->engine.n_threads}, .n = 1};
    if (!p->chunks.n) p->chunks = (struct apr_ranges){.at = {a->engine.n_batch}, .n = 1};
    if (a->parallel) TRY(apr_ranges_parse("--parallel", a->parallel, 1, MAX_SEQS, &p->seqs, e));
    TRY(plan_pairs(a, p, e));
    if (p->seqs.n && p->n_pairs) return apr_fail(e, APR_EUSAGE, "--parallel and --pg exclude each other");
    size_t n_prompts = p->prompts.n ? p->prompts.n : 1, n_gens = p->gens.n ? p->gens.n : 1;
    size_t n_each = p->seqs.n ? n_prompts * n_gens * p->seqs.n : n_prompts + n_gens + p->n_pairs;
    p->n_cap = n_models * p->threads.n * p->chunks.n * p->depths.n * n_each;
    if (p->n_cap > MAX_TESTS)
        return apr_fail(e, APR_EUSAGE, "%zu tests are more than %u", p->n_cap, MAX_TESTS);
    return apr_arena_try(arena, &p->rows, p->n_cap, sizeof *p->rows, "results", e);
}

static enum apr_code text_ids(const struct bench_args *a, const struct apr_session *s, struct apr_ids *ids,
                              struct apr_err *e)
{
    const struct apr_tok *tok;
    ids->n = 0;
    if (!a->prompt) return APR_OK;
    TRY(apr_session_tok(s, &tok, e));
    TRY(apr_prompt_encode(tok, &s->model->vocab, a->prompt, strlen(a->prompt), ids, e));
    return ids->n ? APR_OK : apr_fail(e, APR_EUSAGE, "the prompt has no tokens");
}

/* Sizes at a depth. Those that were not given shrink to a short context; the test's name says so. */
static void sizes_at(const struct plan *p, const struct apr_session *s, size_t depth,
                     struct apr_ranges *prompts, struct apr_ranges *gens)
{
    size_t n_room = s->n_ctx > depth ? s->n_ctx - depth : 1;
    size_t n_gen = DEFAULT_GEN < n_room ? DEFAULT_GEN : n_room;
    if (p->seqs.n) { /* both are in the context together */
        size_t n_made = p->gens.n ? (size_t)p->gens.at[p->gens.n - 1] : n_gen;
        n_room = n_room > n_made ? n_room - n_made : 0;
    }
    size_t n_prompt = p->text.n ? p->text.n : DEFAULT_PROMPT < n_room ? DEFAULT_PROMPT : n_room;
    *prompts = p->prompts.n ? p->prompts : (struct apr_ranges){{n_prompt}, 1};
    *gens = p->gens.n ? p->gens : (struct apr_ranges){{n_gen}, 1};
}

/* Sequences together: a prompt is part of the depth. */
static size_t list_parallel(const struct plan *p, const struct apr_ranges *prompts,
                            const struct apr_ranges *gens, size_t depth, struct apr_bench_test *tests)
{
    size_t n = 0;
    for (size_t i = 0; i < prompts->n; i++)
        for (size_t k = 0; k < gens->n; k++)
            for (size_t x = 0; x < p->seqs.n && gens->at[k]; x++)
                tests[n++] = (struct apr_bench_test){.n_gen = (size_t)gens->at[k],
                                                     .n_depth = depth + (size_t)prompts->at[i],
                                                     .n_seqs = (size_t)p->seqs.at[x]};
    return n;
}

/* Prompts, generation, pairs. */
static size_t list_plain(const struct plan *p, const struct apr_ranges *prompts,
                         const struct apr_ranges *gens, size_t depth, struct apr_bench_test *tests)
{
    size_t n = 0;
    for (size_t i = 0; i < prompts->n; i++)
        if (prompts->at[i])
            tests[n++] = (struct apr_bench_test){.n_prompt = (size_t)prompts->at[i], .n_depth = depth};
    for (size_t i = 0; i < gens->n; i++)
        if (gens->at[i]) tests[n++] = (struct apr_bench_test){.n_gen = (size_t)gens->at[i], .n_depth = depth};
    for (size_t i = 0; i < p->n_pairs; i++) {
        tests[n] = p->pairs[i];
        tests[n++].n_depth = depth;
    }
    return n;
}

/* The tests of one session in order; each at every depth. */
static enum apr_code list_tests(const struct plan *p, const struct apr_session *s,
                                struct apr_bench_test *tests, size_t *n_tests, struct apr_err *e)
{
    size_t n = 0;
    for (size_t d = 0; d < p->depths.n; d++) {
        struct apr_ranges prompts, gens;
        sizes_at(p, s, (size_t)p->depths.at[d], &prompts, &gens);
        n += (p->seqs.n ? list_parallel : list_plain)(p, &prompts, &gens, (size_t)p->depths.at[d], tests + n);
    }
    for (size_t i = 0; i < n; i++)
        TRY(apr_session_fits(s, tests[i].n_depth + tests[i].n_prompt + tests[i].n_gen, 0, e));
    *n_tests = n;
    return n ? APR_OK : apr_fail(e, APR_EUSAGE, "nothing to measure: --n-prompt and --n-gen are 0");
}

/* Caches for the test with most sequences and the longest ones. */
static enum apr_code open_seqs(const struct apr_bench_test *tests, size_t n_tests, struct apr_bench *b,
                               struct apr_arena *arena, struct apr_err *e)
{
    size_t n_seqs = 0, n_pos = 0;
    for (size_t i = 0; i < n_tests; i++) {
        if (tests[i].n_seqs > n_seqs) n_seqs = tests[i].n_seqs;
        if (tests[i].n_depth + tests[i].n_gen > n_pos) n_pos = tests[i].n_depth + tests[i].n_gen;
    }
    return n_seqs ? apr_bench_seqs(b, n_seqs, n_pos, arena, e) : APR_OK;
}

static enum apr_code run_list(struct plan *p, struct apr_bench *b, const struct apr_bench_test *tests,
                              size_t n_tests, struct apr_arena *arena, struct apr_err *e)
{
    TRY(open_seqs(tests, n_tests, b, arena, e));
    for (size_t i = 0; i < n_tests; i++) {
        char name[128];
        apr_verbose("%s: %s", b->session->model->name, apr_bench_name(&tests[i], name, sizeof name));
        TRY(apr_bench_run(b, &tests[i], &p->rows[p->n_rows], arena, e));
        p->n_rows++;
    }
    return APR_OK;
}

static enum apr_code run_tests(const struct bench_args *a, struct plan *p, struct apr_session *s,
                               struct apr_arena *arena, struct apr_err *e)
{
    struct apr_bench b = {.session = s, .n_warmup = a->n_warmup, .n_repetitions = a->n_repetitions};
    struct apr_bench_test *tests;
    size_t n_tests = 0;
    TRY(text_ids(a, s, &p->text, e));
    if (p->text.n) b.text = &p->text;
    TRY(apr_arena_try(arena, &tests, p->n_cap, sizeof *tests, "tests", e));
    TRY(list_tests(p, s, tests, &n_tests, e));
    enum apr_code code = run_list(p, &b, tests, n_tests, arena, e);
    apr_bench_seqs_free(&b);
    return code;
}

static enum apr_code run_models(const struct bench_args *a, const struct apr_ctx *ctx, struct plan *p,
                                struct apr_err *e)
{
    const size_t n_each = p->threads.n * p->chunks.n;
    for (size_t i = 0; i < ctx->operands->n * n_each; i++) {
        struct apr_engine_opts o = a->engine;
        struct apr_session s;
        o.n_threads = p->threads.at[i % n_each / p->chunks.n];
        o.n_batch = p->chunks.at[i % p->chunks.n];
        TRY(apr_session_open(&s, ctx->operands->at[i / n_each], &o, ctx, e));
        enum apr_code code = run_tests(a, p, &s, ctx->arena, e);
        apr_session_close(&s);
        TRY(code);
    }
    return APR_OK;
}

static enum apr_code run(void *args_, struct apr_ctx *ctx, struct apr_err *e)
{
    const struct bench_args *a = args_;
    enum apr_bench_format format = ctx->g->json ? APR_BENCH_JSON : APR_BENCH_MD;
    struct plan *p = apr_arena_get(ctx->arena, sizeof *p);
    if (a->output) TRY(apr_bench_format_named(a->output, &format, e));
    if (ctx->g->json && format != APR_BENCH_JSON)
        return apr_fail(e, APR_EUSAGE, "--json and --output %s exclude each other", a->output);
    TRY(plan_parse(a, ctx->operands->n, p, ctx->arena, e));
    enum apr_code code = run_models(a, ctx, p, e);
    if (code == APR_OK) code = apr_bench_report(p->rows, p->n_rows, format, e);
    apr_ids_free(&p->text);
    return code;
}

static const char details[] =
    "Tests are named as llama-bench names them: pp512 reads a prompt of 512 tokens in chunks and computes\n"
    "the logits of the last one; tg128 makes 128 tokens one by one, each with its logits, without\n"
    "sampling; --pg does one after the other; \"@ d1024\" begins with 1024 tokens in the cache, which are\n"
    "not timed. --parallel N measures N sequences together instead, each with its own tokens: tg128 x 4 @\n"
    "d512 is the rate of all four, which make 128 tokens each behind prompts of 512, not timed. Lists may\n"
    "hold ranges: 128,512 or 64-256+64 or 1-16*2. Several models, threads and chunks make a test each.\n"
    "Rates are tokens a second: mean, standard deviation and CV of the repetitions. p50, p95 and p99 are\n"
    "milliseconds: of single steps in tg tests, of whole runs in the others, where p50 of pp is the time\n"
    "to the first token. On a device sequences go on alone, as in apr run and apr batch: greedily behind\n"
    "the first token and past end tokens, 8 tokens in one go. Times are then means of the tokens of one go,\n"
    "marked (\"2.01 of 8\"; n_latency_toks): a single slow token shows as an eighth of its delay. --exact\n"
    "steps token by token there, too.\n"
    "Sizes that are not given shrink to a context that is shorter.\n"
    "Results appear when all tests are done: after a failure there is no output.\n"
    "\n"
    "  apr bench model.gguf -p 512 -n 128 --pg 512,128 -d 0,4096 -r 5\n"
    "  apr bench model.gguf --parallel 1,2,4,8 -p 512 -n 64\n"
    "  apr bench a.gguf b.gguf -t 1-16*2 -o csv > threads.csv\n";

const struct apr_verb verb_bench = {
    .name = "bench",
    .operands = "MODEL...",
    .n_operands_min = 1,
    .n_operands_max = 64,
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .args_bytes = sizeof(struct bench_args),
    .init = init,
    .run = run,
    .details = details,
};

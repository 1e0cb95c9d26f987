/* batch: many requests, one line each. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "batch.h"
#include "verbs.h"

#define N_PARALLEL_DEFAULT 16

struct batch_args {
    struct apr_engine_opts engine;
    const char *input, *output, *shard;
    uint64_t n_parallel;
    bool resume, force, unordered, fail_fast, tokens, timings;
    int64_t n_max;
    const char *system, *template_name;
    bool raw, ignore_eos, model_sampling;
    struct apr_strs stops;
    struct apr_sample_opts sample;
    const char *saved; /* --prompt-cache */
    bool saved_read_only;
    const char *grammar, *schema;   /* files */
    struct apr_grammar *constraint; /* owned; what is in them */
    uint64_t i_shard, n_shards;     /* of --shard */
};

static const struct apr_opt opts[] = {
    APR_OPT(struct batch_args, input, "input", 'i', "FILE", "requests, a JSON object a line (default -)"),
    APR_OPT(struct batch_args, output, "output", 'o', "FILE",
            "results, a line each, written as they come (default -)"),
    APR_OPT(struct batch_args, resume, "resume", 0, NULL,
            "keep what FILE of -o answers already, do the rest"),
    APR_OPT(struct batch_args, force, "force", 'f', NULL, "replace an existing FILE of -o"),
    APR_OPT(struct batch_args, n_parallel, "parallel", 'P', "N", "sequences computed together (default 16)"),
    APR_OPT(struct batch_args, unordered, "unordered", 'u', NULL,
            "write results as they are ready, not in the order of the requests"),
    APR_OPT(struct batch_args, fail_fast, "fail-fast", 0, NULL, "end after the first line that fails"),
    APR_OPT(struct batch_args, shard, "shard", 0, "K/N", "answer lines K, K + N, K + 2N ... only; K from 1"),
    APR_OPT(struct batch_args, tokens, "tokens", 0, NULL, "add the generated token ids to each result"),
    APR_OPT(struct batch_args, timings, "timings", 0, NULL, "add seconds to each result"),
    APR_OPT(struct batch_args, n_max, "max-tokens", 'n', "N",
            "generate at most N tokens where a request does not say; -1: to the context's end"),
    APR_OPT(struct batch_args, system, "system", 's', "TEXT", "system message of prompts that have none"),
    APR_OPT(struct batch_args, template_name, "template-name", 0, "NAME",
            "use the model's chat template of that name"),
    APR_OPT(struct batch_args, raw, "raw", 0, NULL, "feed prompts as they are, special tokens parsed"),
    APR_OPT(struct batch_args, stops, "stop", 0, "TEXT", "end before TEXT (repeatable)"),
    APR_OPT(struct batch_args, ignore_eos, "ignore-eos", 0, NULL, "go on behind the model's end tokens"),
    APR_SAMPLE_OPTS(struct batch_args),
    APR_OPT(struct batch_args, model_sampling, "model-sampling", 0, NULL,
            "start from the model's own sampling values"),
    APR_OPT(struct batch_args, grammar, "grammar", 0, "FILE", "texts must match the GBNF grammar in FILE"),
    APR_OPT(struct batch_args, schema, "json-schema", 0, "FILE",
            "texts must be JSON that the schema in FILE accepts"),
    APR_OPT(struct batch_args, saved, "prompt-cache", 0, "FILE",
            "prompts begin with the computed one in FILE as far as it is the same; without one the first is "
            "saved"),
    APR_OPT(struct batch_args, saved_read_only, "prompt-cache-ro", 0, NULL, "the file must be there"),
    APR_ENGINE_OPTS(struct batch_args),
};

static void init(void *args_)
{
    struct batch_args *a = args_;
    apr_engine_defaults(&a->engine);
    a->input = a->output = "-";
    a->n_parallel = N_PARALLEL_DEFAULT;
    a->n_max = APR_N_MAX_UNSET;
    a->n_shards = 1;
    apr_sample_unset(&a->sample);
}

/* "K/N" */
static enum apr_code parse_shard(struct batch_args *a, struct apr_err *e)
{
    char *end;
    if (!a->shard) return APR_OK;
    if (strspn(a->shard, "0123456789/") == strlen(a->shard)) {
        a->i_shard = strtoull(a->shard, &end, 10);
        a->n_shards = *end == '/' && end[1] ? strtoull(end + 1, &end, 10) : 0;
        if (!*end && a->i_shard >= 1 && a->i_shard-- <= a->n_shards && a->n_shards <= 1u << 20) return APR_OK;
    }
    return apr_fail(e, APR_EUSAGE, "--shard: found \"%.40s\", expected K/N with K from 1 to N", a->shard);
}

/* Writing the results would destroy the requests. */
static bool is_same_file(const struct batch_args *a)
{
    struct stat in, out;
    bool has_in = strcmp(a->input, "-") != 0 ? !stat(a->input, &in) : !fstat(STDIN_FILENO, &in);
    return has_in && S_ISREG(in.st_mode) && !stat(a->output, &out) && in.st_dev == out.st_dev &&
           in.st_ino == out.st_ino;
}

static enum apr_code check_args(const struct batch_args *a, const struct apr_ctx *ctx, struct apr_err *e)
{
    bool to_stdout = !strcmp(a->output, "-");
    if (a->n_parallel < 1 || a->n_parallel > APR_MAX_SEATS)
        return apr_fail(e, APR_EUSAGE, "--parallel: found %" PRIu64 ", expected 1 to %u", a->n_parallel,
                        APR_MAX_SEATS);
    if (a->resume && a->force) return apr_fail(e, APR_EUSAGE, "--resume and --force exclude each other");
    if (to_stdout && (a->resume || a->force))
        return apr_fail(e, APR_EUSAGE, "--%s needs -o FILE", a->resume ? "resume" : "force");
    if (to_stdout && ctx->g->json)
        return apr_fail(e, APR_EUSAGE, "--json reports on standard output; results then need -o FILE");
    if (!strcmp(a->input, "-") && !strcmp(ctx->operands->at[0], "-"))
        return apr_fail(e, APR_EUSAGE, "model and requests cannot both come from standard input");
    if (!to_stdout && is_same_file(a))
        return apr_fail(e, APR_EUSAGE, "%s: holds the requests; results need another file", a->output);
    if (a->raw && (a->system || a->template_name))
        return apr_fail(e, APR_EUSAGE, "--%s needs a chat template; --raw uses none",
                        a->system ? "system" : "template-name");
    if (a->saved_read_only && !a->saved)
        return apr_fail(e, APR_EUSAGE, "--prompt-cache-ro does nothing without --prompt-cache");
    if (a->saved && !*a->saved) return apr_fail(e, APR_EUSAGE, "--prompt-cache: the name is empty");
    if (a->grammar && a->schema)
        return apr_fail(e, APR_EUSAGE, "--grammar and --json-schema exclude each other");
    if (a->n_max != APR_N_MAX_UNSET && (a->n_max < -1 || a->n_max == 0))
        return apr_fail(e, APR_EUSAGE, "--max-tokens: found %" PRId64 ", expected 1 or more, or -1",
                        a->n_max);
    struct apr_sample_opts o;
    return apr_sample_resolve(&a->sample, NULL, &o, e);
}

static enum apr_code load_constraint(struct batch_args *a, struct apr_err *e)
{
    if (a->grammar) return apr_grammar_load(&a->constraint, a->grammar, APR_GRAMMAR_GBNF, e);
    return a->schema ? apr_grammar_load(&a->constraint, a->schema, APR_GRAMMAR_SCHEMA, e) : APR_OK;
}

static enum apr_code open_output(const struct batch_args *a, struct apr_batch *b, struct apr_err *e)
{
    uint64_t n_whole_bytes = 0;
    bool exists = a->resume && !access(a->output, F_OK);
    TRY(apr_journal_open(&b->out, a->output,
                         a->resume  ? APR_JOURNAL_RESUME
                         : a->force ? APR_JOURNAL_REPLACE
                                    : APR_JOURNAL_NEW,
                         e));
    if (!exists) return APR_OK;
    TRY(apr_batch_known(b, a->output, &n_whole_bytes, e));
    return apr_journal_cut(b->out, n_whole_bytes, e);
}

/* Threads leave signals to us, so that one which ends the program cannot cut a line. */
static enum apr_code open_session(const struct batch_args *a, const struct apr_ctx *ctx,
                                  struct apr_session *s, struct apr_err *e)
{
    apr_signals_hold(true);
    enum apr_code code = apr_session_open(s, ctx->operands->at[0], &a->engine, ctx, e);
    apr_signals_hold(false);
    return code;
}

static enum apr_code report(const struct apr_batch *b, double run_s, struct apr_err *e)
{
    struct apr_out *o = apr_out_open(stdout, true, "apr.batch/1");
    apr_out_str(o, "model", b->session->model->name);
    apr_out_u64(o, "n_answered", b->n_answered);
    apr_out_u64(o, "n_failed", b->n_failed);
    apr_out_u64(o, "n_answered_before", b->n_before);
    apr_out_u64(o, "n_prompt_toks", b->n_prompt_toks);
    apr_out_u64(o, "n_shared_toks", b->n_shared_toks);
    apr_out_u64(o, "n_generated", b->n_reply_toks);
    apr_out_u64(o, "n_steps", b->n_steps);
    apr_out_u64(o, "n_parallel", b->n_seats);
    apr_out_f64(o, "load_s", b->session->load_s);
    apr_out_f64(o, "run_s", run_s);
    apr_out_f64(o, "generated_toks_per_s", run_s > 0 ? (double)b->n_reply_toks / run_s : 0);
    return apr_out_close(o, e);
}

static enum apr_code verdict(const struct apr_batch *b, struct apr_err *e)
{
    const char *name = apr_lines_name(b->in);
    if (!b->n_failed) return APR_OK;
    if (!b->first_failed.text[0])
        return apr_fail(e, APR_ENO, "%s: %" PRIu64 " of %" PRIu64 " lines failed", name, b->n_failed,
                        b->n_answered);
    return apr_fail(e, APR_ENO, "%s: %" PRIu64 " of %" PRIu64 " lines failed; line %" PRIu64 ": %.700s", name,
                    b->n_failed, b->n_answered, b->i_first_failed + 1, b->first_failed.text);
}

/* What the batch borrows while it runs. */
struct engine {
    struct apr_session session;
    struct apr_prompt_cache saved;
};

static enum apr_code with_model(const struct batch_args *a, const struct apr_ctx *ctx, struct apr_batch *b,
                                struct engine *x, struct apr_err *e)
{
    struct apr_session *s = &x->session;
    x->saved = (struct apr_prompt_cache){.path = a->saved, .read_only = a->saved_read_only};
    TRY(open_session(a, ctx, s, e));
    b->session = s;
    b->opts.model_sampling = a->model_sampling ? &s->model->generation : NULL;
    int64_t ns_start = apr_now_ns();
    enum apr_code code = APR_OK;
    if (a->saved) {
        code = apr_prompt_cache_open(&x->saved, s->model, a->engine.exact, &s->blocks, e);
        b->saved = &x->saved;
    }
    if (code == APR_OK) code = apr_batch_run(b, e);
    double run_s = (double)(apr_now_ns() - ns_start) * 1e-9;
    if (code == APR_OK)
        apr_verbose("%" PRIu64 " answered, %" PRIu64 " prompt and %" PRIu64 " generated tokens in %.2f s",
                    b->n_answered - b->n_before, b->n_prompt_toks, b->n_reply_toks, run_s);
    if (code == APR_OK && ctx->g->json) code = report(b, run_s, e);
    apr_prompt_cache_close(&x->saved);
    apr_session_close(s);
    return code;
}

static struct apr_batch_opts batch_opts(const struct batch_args *a)
{
    return (struct apr_batch_opts){
        .n_seats = (size_t)a->n_parallel,
        .unordered = a->unordered,
        .fail_fast = a->fail_fast,
        .with_tokens = a->tokens,
        .with_times = a->timings,
        .i_shard = a->i_shard,
        .n_shards = a->n_shards,
        .defaults = {.sample = a->sample,
                     .n_max = a->n_max,
                     .system = a->system,
                     .template_name = a->template_name,
                     .raw = a->raw,
                     .ignore_eos = a->ignore_eos,
                     .stops = a->stops,
                     .grammar = a->constraint},
    };
}

/* Files come before the model: what is wrong with them should not cost its loading. */
static enum apr_code with_files(struct batch_args *a, const struct apr_ctx *ctx, struct apr_batch *b,
                                struct engine *x, struct apr_err *e)
{
    TRY(load_constraint(a, e));
    b->opts = batch_opts(a);
    TRY(apr_lines_open(&b->in, a->input, APR_MAX_REQUEST_BYTES, e));
    TRY(open_output(a, b, e));
    return with_model(a, ctx, b, x, e);
}

static enum apr_code run(void *args_, struct apr_ctx *ctx, struct apr_err *e)
{
    struct batch_args *a = args_;
    struct engine x;
    struct apr_batch b = {0};
    struct apr_err late;
    TRY(parse_shard(a, e));
    TRY(check_args(a, ctx, e));
    if (a->saved) a->engine.on_cpu = "--prompt-cache";
    enum apr_code code = with_files(a, ctx, &b, &x, e);
    if (code == APR_OK) code = verdict(&b, e);
    if (apr_journal_close(b.out, &late) != APR_OK && (code == APR_OK || code == APR_ENO)) {
        *e = late;
        code = late.code;
    }
    apr_lines_close(b.in);
    apr_batch_free(&b);
    apr_grammar_free(a->constraint);
    return code;
}

static const char details[] =
    "Reads requests, one JSON object a line, and writes one line for each: many sequences are computed "
    "together, and\n"
    "a place that falls free is taken by the next line at once. Results come in the order of the requests, "
    "as soon as\n"
    "they can; a pipe may stay open. An answer is bit for bit that of apr run, whatever stands beside it: "
    "the same\n"
    "requests give the same bytes for any --parallel, --threads and --shard. Prompts that begin alike "
    "are computed\n"
    "once as far as they do; with --prompt-cache also from one run to the next: the first prompt of the "
    "first "
    "run is\n"
    "saved, and array jobs that are given the same FILE begin with what their prompts share with it.\n"
    "\n"
    "  {\"id\": \"q1\", \"prompt\": \"What is 2+2?\"}\n"
    "  {\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], \"max_tokens\": 64, \"temperature\": 0.7, "
    "\"seed\": 7}\n"
    "  {\"ids\": [1, 2, 3], \"stop\": [\"\\n\"], \"logprobs\": 5}\n"
    "\n"
    "  {\"index\":0,\"id\":\"q1\",\"text\":\"4\",\"finish_reason\":\"stop\",\"usage\":{...}}\n"
    "  {\"index\":1,\"error\":{\"code\":2,\"message\":\"max_token: unknown field\"}}\n"
    "\n"
    "Fields: id; prompt, messages or ids; system, template_name, raw; max_tokens, stop, ignore_eos; "
    "json_schema or\n"
    "grammar (the schema or GBNF itself); logprobs, top_logprobs; seed, samplers, logit_bias and every "
    "sampling option\n"
    "by its name, with _ for -. Options are what a request gets that does not say. A field that is not known "
    "is an\n"
    "error. index is the number of the line from 0; finish_reason is stop or length; code of an error is the "
    "exit\n"
    "status that apr run would have had.\n"
    "\n"
    "Lines of OpenAI's batch files are taken as well: custom_id, method, url (/v1/chat/completions or\n"
    "/v1/completions) and body; they are answered in that form. created is 0 unless --timings asks for "
    "times.\n"
    "\n"
    "A line that is wrong is answered by its error, and the status is 1 at the end. What ends the whole is "
    "the model,\n"
    "the input or the output. The file of -o grows by whole lines; after an interruption\n"
    "\n"
    "  apr batch model.apr -i requests.jsonl -o results.jsonl --resume\n"
    "\n"
    "answers the lines that have no result yet, and leaves the same bytes as one run.\n"
    "\n"
    "Several processes or machines: each takes a shard of one file, the results are merged by index. On one "
    "machine a\n"
    "single process with its threads is faster than several; they share the model's memory, though.\n"
    "\n"
    "  seq 4 | xargs -P 4 -I{} apr batch model.apr -t 1 --shard {}/4 -i requests.jsonl -o part-{}.jsonl "
    "--resume\n"
    "  jq -c -s 'sort_by(.index)[]' part-*.jsonl > results.jsonl\n"
    "\n"
    "GNU parallel, also over ssh; or cutting a stream into blocks, where index begins again in each and ids "
    "tell:\n"
    "\n"
    "  parallel -j 4 apr batch model.apr -t 1 --shard {}/4 -i requests.jsonl -o part-{}.jsonl --resume ::: 1 "
    "2 "
    "3 4\n"
    "  parallel -k --pipe -N 100 apr batch model.apr -t 1 < requests.jsonl > results.jsonl\n"
    "\n"
    "make: a file of results for each file of requests, which appears when no line failed. make -j 4 "
    "continues what\n"
    "was interrupted:\n"
    "\n"
    "  all: $(patsubst requests/%,results/%,$(wildcard requests/*.jsonl))\n"
    "  results/%.jsonl: requests/%.jsonl; apr batch model.apr -t 1 -i $< -o $@.part --resume && mv $@.part "
    "$@\n"
    "\n"
    "Slurm, an array job of eight tasks; one that is requeued goes on where it was:\n"
    "\n"
    "  sbatch --array=1-8 --cpus-per-task=16 --requeue --wrap 'apr batch model.apr -i requests.jsonl \\\n"
    "    --shard $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT -o part-$SLURM_ARRAY_TASK_ID.jsonl --resume'\n";

const struct apr_verb verb_batch = {
    .name = "batch",
    .operands = "MODEL",
    .n_operands_min = 1,
    .n_operands_max = 1,
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .args_bytes = sizeof(struct batch_args),
    .init = init,
    .run = run,
    .details = details,
};

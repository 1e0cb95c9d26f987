/* profile: where the time goes, and how near to this machine's limits. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "device_profile.h"
#include "fmt/fmt.h"
#include "profile_report.h"
#include "verbs.h"

#define MAX_PASSES 10000u
#define MAX_TOKS   (1u << 20)

struct profile_args {
    struct apr_engine_opts engine;
    uint64_t n_warmup, n_measure, n_gen, n_prompt;
    const char *output, *compare;
    double min_throughput, max_p50, max_p99, threshold, peer_rate;
    bool granular, grade_alone, detect_naive, fail_on_naive, ci, force;
};

static const struct apr_opt opts[] = {
    APR_OPT(struct profile_args, n_warmup, "warmup", 0, "N", "passes before measuring (default 1)"),
    APR_OPT(struct profile_args, n_measure, "measure", 0, "N", "measured passes (default 3)"),
    APR_OPT(struct profile_args, n_gen, "tokens", 'n', "N", "tokens made in a pass (default 32)"),
    APR_OPT(struct profile_args, n_prompt, "n-prompt", 'p', "N", "tokens of the prompt (default 64)"),
    APR_OPT(struct profile_args, granular, "granular", 0, NULL, "also the times of every layer"),
    APR_OPT(struct profile_args, grade_alone, "perf-grade", 0, NULL,
            "roofline, phases and grade, without the tables"),
    APR_OPT(struct profile_args, detect_naive, "detect-naive", 0, NULL,
            "name steps far below the roofline, or with kernels that are not the best"),
    APR_OPT(struct profile_args, fail_on_naive, "fail-on-naive", 0, NULL,
            "the same, and answer no (status 1) when there is one"),
    APR_OPT(struct profile_args, threshold, "threshold", 0, "PCT",
            "of the roofline: less is naive (default 10)"),
    APR_OPT(struct profile_args, compare, "compare", 0, "OTHER", "profile this model too, side by side"),
    APR_OPT(struct profile_args, peer_rate, "peer-rate", 0, "N",
            "tokens a second that another engine decodes of this model: ratio and letter"),
    APR_OPT(struct profile_args, output, "output", 'o', "FILE.svg", "also write a flame graph"),
    APR_OPT(struct profile_args, force, "force", 'f', NULL, "replace an existing FILE.svg"),
    APR_OPT(struct profile_args, ci, "ci", 0, NULL, "answer with the status; needs an --assert option"),
    APR_OPT(struct profile_args, min_throughput, "assert-throughput", 0, "N",
            "answer no below N tokens a second of decoding"),
    APR_OPT(struct profile_args, max_p50, "assert-p50", 0, "MS",
            "answer no when half the tokens take longer"),
    APR_OPT(struct profile_args, max_p99, "assert-p99", 0, "MS",
            "answer no when one in a hundred takes longer"),
    APR_ENGINE_OPTS(struct profile_args),
};

static void init(void *args_)
{
    struct profile_args *a = args_;
    apr_engine_defaults(&a->engine);
    a->engine.on_cpu = "the time of single steps";
    a->n_warmup = 1;
    a->n_measure = 3;
    a->n_gen = 32;
    a->n_prompt = 64;
    a->threshold = 10;
    a->min_throughput = a->max_p50 = a->max_p99 = a->peer_rate = NAN;
}

static bool has_asserts(const struct profile_args *a)
{
    return !isnan(a->min_throughput) || !isnan(a->max_p50) || !isnan(a->max_p99);
}

/* Assertions: the first that fails is the answer. */
struct judge {
    struct apr_out *o;
    struct apr_err *e;
    enum apr_code code;
};

static void assertion(struct judge *j, const char *name, const char *unit, double expected, double actual,
                      bool is_least)
{
    if (isnan(expected)) return;
    bool passed = is_least ? actual >= expected : actual <= expected;
    apr_out_obj(j->o, NULL);
    apr_out_str(j->o, "name", name);
    apr_out_f64(j->o, "expected", expected);
    apr_out_f64(j->o, "actual", actual);
    apr_out_bool(j->o, "passed", passed);
    apr_out_end(j->o);
    if (!passed && j->code == APR_OK)
        j->code = apr_fail(j->e, APR_ENO, "%s: %.4g %s, %s %g are asserted", name, actual, unit,
                           is_least ? "at least" : "at most", expected);
}

static void out_asserts(struct judge *j, const struct profile_args *a, double toks_per_s,
                        const struct apr_summary *latency_ms)
{
    apr_out_obj(j->o, "metrics");
    apr_out_f64(j->o, "throughput_tok_s", toks_per_s);
    apr_out_f64(j->o, "latency_p50_ms", latency_ms->p50);
    apr_out_f64(j->o, "latency_p99_ms", latency_ms->p99);
    apr_out_end(j->o);
    if (!has_asserts(a)) return;
    apr_out_arr(j->o, "assertions");
    assertion(j, "throughput", "tokens/s", a->min_throughput, toks_per_s, true);
    assertion(j, "latency_p50", "ms", a->max_p50, latency_ms->p50, false);
    assertion(j, "latency_p99", "ms", a->max_p99, latency_ms->p99, false);
    apr_out_end(j->o);
    apr_out_bool(j->o, "passed", j->code == APR_OK);
}

static void out_side(struct apr_out *o, const struct apr_profile *p)
{
    const struct apr_profile_phase *d = &p->phases[APR_PHASE_DECODE];
    double efficiency = apr_profile_efficiency(d);
    apr_out_obj(o, NULL);
    apr_out_str(o, "model", p->session->model->name);
    apr_out_str(o, "format", p->session->model->fmt->name);
    apr_out_bytes(o, "bytes_per_token", p->session->fwd.w.n_bytes);
    apr_out_f64(o, "prefill_toks_per_s", p->phases[APR_PHASE_PREFILL].toks_per_s);
    apr_out_f64(o, "decode_toks_per_s", d->toks_per_s);
    apr_out_f64(o, "p50_ms", d->latency_ms.p50);
    apr_out_f64(o, "p99_ms", d->latency_ms.p99);
    apr_out_f64(o, "efficiency_pct", efficiency);
    apr_out_str(o, "grade", apr_profile_grade(efficiency));
    apr_out_end(o);
}

static void out_compare(struct apr_out *o, const struct apr_profile *p, const struct apr_profile *other)
{
    apr_out_arr(o, "comparison");
    out_side(o, p);
    out_side(o, other);
    apr_out_end(o);
    apr_out_f64(o, "decode_ratio",
                p->phases[APR_PHASE_DECODE].toks_per_s / other->phases[APR_PHASE_DECODE].toks_per_s);
}

static void out_peer(struct apr_out *o, double toks_per_s, double peer_rate)
{
    double ratio = toks_per_s / peer_rate;
    apr_out_obj(o, "peer");
    apr_out_f64(o, "toks_per_s", peer_rate);
    apr_out_f64(o, "ratio", ratio);
    apr_out_str(o, "grade", apr_profile_peer_grade(ratio));
    apr_out_end(o);
}

static enum apr_code report(const struct profile_args *a, const struct apr_ctx *ctx,
                            const struct apr_profile *p, const struct apr_profile *other, struct apr_err *e)
{
    const struct apr_profile_view view = {.granular = a->granular, .grade_alone = a->grade_alone};
    struct apr_out *o = apr_out_open(stdout, ctx->g->json, "apr.profile/1");
    struct judge j = {.o = o, .e = e};
    struct apr_err write_error;
    size_t n_naive = 0;
    apr_profile_out(o, p, &view);
    if (a->detect_naive || a->fail_on_naive) n_naive = apr_profile_naive(o, p, a->threshold);
    if (other) out_compare(o, p, other);
    const struct apr_profile_phase *d = &p->phases[APR_PHASE_DECODE];
    if (!isnan(a->peer_rate)) out_peer(o, d->toks_per_s, a->peer_rate);
    out_asserts(&j, a, d->toks_per_s, &d->latency_ms);
    if (a->fail_on_naive && n_naive && j.code == APR_OK)
        j.code = apr_fail(e, APR_ENO,
                          "%zu steps are naive: below %g %% of the roofline, or not this CPU's best "
                          "kernels",
                          n_naive, a->threshold);
    enum apr_code code = apr_out_close(o, &write_error);
    if (code == APR_OK) return j.code;
    *e = write_error;
    return code;
}

/* Roof and profile of one open model. */
static enum apr_code measure(const struct profile_args *a, const struct apr_ctx *ctx, struct apr_session *s,
                             struct apr_roof *roof, struct apr_profile *p, struct apr_err *e)
{
    const struct apr_profile_size size = {.n_prompt = (size_t)a->n_prompt,
                                          .n_gen = (size_t)a->n_gen,
                                          .n_warmup = (size_t)a->n_warmup,
                                          .n_measure = (size_t)a->n_measure};
    TRY(apr_session_fits(s, size.n_prompt + size.n_gen, 0, e));
    TRY(apr_roof_measure(roof, s, e));
    return apr_profile_run(p, s, roof, &size, ctx->arena, e);
}

static enum apr_code with_other(const struct profile_args *a, const struct apr_ctx *ctx,
                                const struct apr_profile *p, struct apr_err *e)
{
    struct apr_session s;
    struct apr_roof *roof = apr_arena_get(ctx->arena, sizeof *roof);
    struct apr_profile *other = apr_arena_get(ctx->arena, sizeof *other);
    if (!a->compare) return report(a, ctx, p, NULL, e);
    TRY(apr_session_open(&s, a->compare, &a->engine, ctx, e));
    enum apr_code code = measure(a, ctx, &s, roof, other, e);
    if (code == APR_OK) code = report(a, ctx, p, other, e);
    apr_session_close(&s);
    return code;
}

/* ---- on a device --------------------------------------------------------------------------------------- */

/* Asked for by name: what "auto" means is the CPU, whose steps can be looked into. */
static bool is_on_device(const struct profile_args *a)
{
    return a->engine.device && strcmp(a->engine.device, "auto") != 0 && strcmp(a->engine.device, "cpu") != 0;
}

static enum apr_code report_device(const struct profile_args *a, const struct apr_ctx *ctx,
                                   const struct apr_device_profile *d, struct apr_err *e)
{
    const struct apr_device_phase *decode = &d->phases[APR_PHASE_DECODE];
    struct apr_out *o = apr_out_open(stdout, ctx->g->json, "apr.profile/1");
    struct judge j = {.o = o, .e = e};
    struct apr_err write_error;
    apr_device_profile_out(o, d, a->granular, a->grade_alone);
    if (!isnan(a->peer_rate)) out_peer(o, decode->toks_per_s, a->peer_rate);
    out_asserts(&j, a, decode->toks_per_s, &decode->latency_ms);
    enum apr_code code = apr_out_close(o, &write_error);
    if (code == APR_OK) return j.code;
    *e = write_error;
    return code;
}

static enum apr_code run_device(const struct profile_args *a, const struct apr_ctx *ctx, struct apr_err *e)
{
    const struct apr_profile_size size = {.n_prompt = (size_t)a->n_prompt,
                                          .n_gen = (size_t)a->n_gen,
                                          .n_warmup = (size_t)a->n_warmup,
                                          .n_measure = (size_t)a->n_measure};
    struct apr_device_profile d;
    struct apr_session s;
    TRY(apr_session_open(&s, ctx->operands->at[0], &a->engine, ctx, e));
    enum apr_code code = apr_session_fits(&s, size.n_prompt + size.n_gen, 1, e);
    if (code == APR_OK) code = apr_device_profile_run(&d, &s, &size, ctx->arena, e);
    if (code == APR_OK) code = report_device(a, ctx, &d, e);
    apr_session_close(&s);
    return code;
}

static enum apr_code check_device_args(const struct profile_args *a, struct apr_err *e)
{
    const char *what = a->compare                            ? "--compare"
                       : a->detect_naive || a->fail_on_naive ? "--detect-naive"
                       : a->output                           ? "--output"
                                                             : NULL;
    if (!what || !is_on_device(a)) return APR_OK;
    return apr_fail(e, APR_EUNAVAIL, "%s: only the CPU's steps are looked at so; leave out --device %.40s",
                    what, a->engine.device);
}

static enum apr_code check_args(const struct profile_args *a, struct apr_err *e)
{
    if (a->n_measure < 1 || a->n_measure > MAX_PASSES || a->n_warmup > MAX_PASSES)
        return apr_fail(e, APR_EUSAGE, "--measure: expected 1 to %u; --warmup: at most as many", MAX_PASSES);
    if (a->n_gen < 1 || a->n_gen > MAX_TOKS || a->n_prompt < 1 || a->n_prompt > MAX_TOKS)
        return apr_fail(e, APR_EUSAGE, "--tokens and --n-prompt: expected 1 to %u", MAX_TOKS);
    if (a->ci && !has_asserts(a))
        return apr_fail(e, APR_EUSAGE,
                        "--ci: nothing is asserted: give --assert-throughput, --assert-p50 or "
                        "--assert-p99");
    if (!(a->threshold > 0 && a->threshold <= 100))
        return apr_fail(e, APR_EUSAGE, "--threshold: found %g, expected more than 0 and at most 100",
                        a->threshold);
    if (!isnan(a->peer_rate) && !(a->peer_rate > 0 && isfinite(a->peer_rate)))
        return apr_fail(e, APR_EUSAGE, "--peer-rate: found %g, expected more than 0", a->peer_rate);
    if (a->grade_alone && a->granular)
        return apr_fail(e, APR_EUSAGE, "--perf-grade and --granular exclude each other");
    if (a->force && !a->output) return apr_fail(e, APR_EUSAGE, "--force goes with --output FILE.svg");
    return APR_OK;
}

static enum apr_code run(void *args_, struct apr_ctx *ctx, struct apr_err *e)
{
    struct profile_args *a = args_;
    struct apr_session s;
    struct apr_roof *roof = apr_arena_get(ctx->arena, sizeof *roof);
    struct apr_profile *p = apr_arena_get(ctx->arena, sizeof *p);
    TRY(check_args(a, e));
    TRY(check_device_args(a, e));
    if (is_on_device(a)) return a->engine.on_cpu = NULL, run_device(a, ctx, e);
    TRY(apr_session_open(&s, ctx->operands->at[0], &a->engine, ctx, e));
    enum apr_code code = measure(a, ctx, &s, roof, p, e);
    if (code == APR_OK && a->output) code = apr_profile_flame(p, a->output, a->force, e);
    if (code == APR_OK) code = with_other(a, ctx, p, e);
    apr_session_close(&s);
    return code;
}

static const char details[] =
    "A pass reads a prompt and makes tokens one by one; every step of every layer is timed. Bytes are the\n"
    "weights and the cache that a step must read, operations count a multiplication and an addition as two.\n"
    "The roofline is measured in the same run: the rate at which all threads read 256 MiB, or four times "
    "the\n"
    "last cache where that is more, and as many bytes as a token does when they are fewer and may lie in\n"
    "caches; and the rate of products whose data stays in the cache, by the best kernels of this CPU, for\n"
    "each type of weights. A step is bound by memory when\n"
    "its bytes take longer from memory than its operations at these rates: below ridge_flops_per_byte.\n"
    "efficiency_pct is the least time that the rates allow (reading at that of a token's bytes) over the\n"
    "time taken; of a phase, over its median pass. It exceeds 100 % where caches held more of the data than\n"
    "in the measurement.\n"
    "Grade, by the efficiency of decoding: A+ from 80 %, A from 50 %, B from 30 %, C from 15 %, D from 5 %,\n"
    "F below; of --peer-rate, by our rate over the other's: A+ from 2, A from 1.5, B from 1, C from 0.75,\n"
    "D from 0.5, F below. --detect-naive names steps of 5 % or more of a phase whose best pass stays below "
    "--threshold,\n"
    "and every such step where the kernels in use are not the best of this CPU. An assertion that fails is\n"
    "status 1, after the report.\n"
    "With --device cuda the launches of the GPU are profiled: time, bytes, rate and occupancy of each part "
    "of a\n"
    "step (of every launch with --granular), each timed by itself; what as many empty launches take, in "
    "percent\n"
    "of a step; and efficiency_pct is a token's bytes over the memory's measured read bandwidth.\n"
    "\n"
    "  apr profile model.gguf --granular -o flame.svg\n"
    "  apr profile model.apr --compare model.gguf --json\n"
    "  apr profile model.gguf --device cuda --granular\n"
    "  apr profile model.gguf --ci --assert-throughput 20 --assert-p99 80\n";

const struct apr_verb verb_profile = {
    .name = "profile",
    .operands = "MODEL",
    .n_operands_min = 1,
    .n_operands_max = 1,
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .args_bytes = sizeof(struct profile_args),
    .init = init,
    .run = run,
    .details = details,
};

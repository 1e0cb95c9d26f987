/* validate: structure, checksums and data of a model file, and the rubric of 100 points. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "facts.h"
#include "rubric.h"
#include "sources.h"
#include "verbs.h"

#define NO_MIN_SCORE UINT64_MAX

struct validate_args {
    bool quality, strict;
    uint64_t min_score, n_threads;
    struct apr_strs sources;
};

static const struct apr_opt opts[] = {
    APR_OPT(struct validate_args, quality, "quality", 0, NULL, "show all 100 points, and violations by rule"),
    APR_OPT(struct validate_args, strict, "strict", 0, NULL, "warnings fail too"),
    APR_OPT(struct validate_args, min_score, "min-score", 0, "N", "fail below N % of the applicable points"),
    APR_OPT(struct validate_args, sources, "sources", 0, "DIR",
            "prove by hashing that the model was made from the files in DIR (repeatable: of a merge, every "
            "model's)"),
    APR_OPT(struct validate_args, n_threads, "threads", 'j', "N", "threads (0: all processors)"),
};

static void init(void *p)
{
    ((struct validate_args *)p)->min_score = NO_MIN_SCORE;
}

/* A structural fault of a tensor, or its data's. A violation borrows the name of the tensor that it is about.
 */
static bool tensor_failed(const struct facts *f, const char *name)
{
    for (size_t i = 0; i < f->verdict.n; i++)
        if (f->verdict.at[i].tensor == name) return true;
    return false;
}

static void show_tensor(const struct facts *f, const struct apr_tensor *t, bool json, struct apr_out *o)
{
    const struct apr_stats *s = &f->stats[t - f->model->tensors];
    bool failed = f->verdict.n && tensor_failed(f, t->name), known = s->n > s->n_nan + s->n_inf;
    if (!json && !failed) return;
    apr_out_obj(o, NULL);
    apr_out_str(o, "name", t->name);
    if (json) apr_out_bool(o, "is_valid", !failed);
    apr_out_u64(o, "nan_count", s->n_nan);
    apr_out_u64(o, "inf_count", s->n_inf);
    apr_out_u64(o, "zero_count", s->n_zero);
    apr_out_u64(o, "element_count", s->n);
    apr_out_f64(o, "min", known ? (double)s->min : NAN);
    apr_out_f64(o, "max", known ? (double)s->max : NAN);
    apr_out_f64(o, "mean", facts_mean(s));
    apr_out_f64(o, "std", facts_std(s));
    if (json) {
        apr_out_arr(o, "failures");
        for (size_t i = 0; failed && i < f->verdict.n; i++) {
            const struct apr_violation *x = &f->verdict.at[i];
            char text[512];
            if (x->tensor != t->name) continue;
            (void)snprintf(text, sizeof text, "%s: %s", x->rule, x->text);
            apr_out_str(o, NULL, text);
        }
        apr_out_end(o);
    }
    apr_out_end(o);
}

static void show_tensors(const struct facts *f, bool json, struct apr_out *o)
{
    uint64_t n_nan = 0, n_inf = 0;
    for (uint64_t i = 0; i < f->model->n_tensors; i++) {
        n_nan += f->stats[i].n_nan;
        n_inf += f->stats[i].n_inf;
    }
    apr_out_u64(o, "tensor_count", f->model->n_tensors);
    apr_out_u64(o, "failed_tensor_count", f->verdict.n_tensors_failed);
    apr_out_u64(o, "total_nan_count", n_nan);
    apr_out_u64(o, "total_inf_count", n_inf);
    apr_out_arr(o, "all_zero_tensors");
    for (uint64_t i = 0; i < f->model->n_tensors; i++)
        if (f->stats[i].n && f->stats[i].n_zero == f->stats[i].n)
            apr_out_str(o, NULL, f->model->tensors[i].name);
    apr_out_end(o);
    if (!json && f->verdict.n_tensors_failed == 0) return;
    apr_out_arr(o, "tensors");
    for (uint64_t i = 0; i < f->model->n_tensors; i++) show_tensor(f, &f->model->tensors[i], json, o);
    apr_out_end(o);
}

static void show_violations(const struct facts *f, bool json, struct apr_out *o)
{
    if (!json && f->verdict.n == 0) return;
    apr_out_u64(o, "violation_count", f->verdict.n + f->verdict.n_dropped);
    apr_out_arr(o, "violations");
    for (size_t i = 0; i < f->verdict.n; i++) {
        const struct apr_violation *x = &f->verdict.at[i];
        apr_out_obj(o, NULL);
        apr_out_str(o, "rule", x->rule);
        apr_out_str(o, "tensor", x->tensor);
        apr_out_str(o, "text", x->text);
        apr_out_end(o);
    }
    apr_out_end(o);
}

/* How often each rule was broken, with the rule's meaning. */
static void show_by_rule(const struct facts *f, bool json, struct apr_out *o)
{
    if (!json && f->verdict.n == 0) return;
    apr_out_arr(o, "violations_by_rule");
    for (size_t k = 0; apr_contract_rule_at(k); k++) {
        const struct apr_rule *rule = apr_contract_rule_at(k);
        uint64_t n = 0;
        for (size_t i = 0; i < f->verdict.n; i++) n += strcmp(f->verdict.at[i].rule, rule->id) == 0;
        if (n == 0) continue;
        apr_out_obj(o, NULL);
        apr_out_str(o, "rule", rule->id);
        apr_out_u64(o, "count", n);
        apr_out_str(o, "requires", rule->meaning);
        apr_out_end(o);
    }
    apr_out_end(o);
}

static void show_points(const struct point_result *r, struct apr_out *o)
{
    apr_out_arr(o, "categories");
    for (unsigned first = 1; first <= N_POINTS; first += 25) {
        struct score s;
        rubric_score(r, first, first + 24, &s);
        apr_out_obj(o, NULL);
        apr_out_str(o, "category", rubric_category(first));
        apr_out_u64(o, "passed", s.n_passed);
        apr_out_u64(o, "applicable", s.n_applicable);
        apr_out_u64(o, "skipped", 25 - s.n_applicable);
        apr_out_end(o);
    }
    apr_out_end(o);
    apr_out_arr(o, "checks");
    for (unsigned k = 1; k <= N_POINTS; k++) {
        apr_out_obj(o, NULL);
        apr_out_u64(o, "id", k);
        apr_out_str(o, "check", rubric_at(k)->subject);
        apr_out_str(o, "status", rubric_status(r[k - 1].status));
        apr_out_str(o, "detail", r[k - 1].detail);
        apr_out_end(o);
    }
    apr_out_end(o);
}

static void show_score(const struct score *s, struct apr_out *o)
{
    apr_out_obj(o, "score");
    apr_out_u64(o, "passed", s->n_passed);
    apr_out_u64(o, "applicable", s->n_applicable);
    apr_out_u64(o, "warned", s->n_warned);
    apr_out_u64(o, "failed", s->n_failed);
    apr_out_u64(o, "skipped", N_POINTS - s->n_applicable);
    apr_out_f64(o, "percent", s->pct);
    apr_out_str(o, "grade", s->grade);
    apr_out_end(o);
}

static enum apr_code report(const struct facts *f, const struct validate_args *a,
                            const struct point_result *r, const struct score *s,
                            const struct sources *sources, bool valid, bool json, struct apr_err *e)
{
    static const char *const integrity[] = {
        [INTEGRITY_NONE] = "no checksums in this format", [INTEGRITY_OK] = "ok", [INTEGRITY_BAD] = "damaged"};
    struct apr_out *o = apr_out_open(stdout, json, "apr.validate/1");
    apr_out_str(o, "file_path", f->model->path);
    apr_out_str(o, "format", f->model->fmt->title);
    apr_out_bool(o, "is_valid", valid);
    apr_out_str(o, "family", f->model->family ? f->model->family->name : NULL);
    apr_out_str(o, "integrity", integrity[f->integrity]);
    if (f->integrity == INTEGRITY_BAD) apr_out_str(o, "integrity_error", f->integrity_error.text);
    if (a->sources.n > 0) sources_show(sources, o);
    show_tensors(f, json, o);
    show_violations(f, json, o);
    if (a->quality || json) show_by_rule(f, json, o);
    if (a->quality || json) show_points(r, o);
    if (json) show_score(s, o);
    if (json) apr_out_f64(o, "duration_ms", f->elapsed_s * 1e3);
    if (f->no_contract)
        apr_out_text(o, "note: no contract for this family: names and shapes were not judged");
    apr_out_text(
        o,
        "score: %u of %u applicable points (%.1f %%, %s); %u warned; %u of 100 do not apply to this file%s",
        s->n_passed, s->n_applicable, s->pct, s->grade, s->n_warned, N_POINTS - s->n_applicable,
        a->quality ? "" : " (--quality lists all)");
    apr_out_text(o, "%s", valid ? "VALID" : "INVALID");
    return apr_out_close(o, e);
}

/* What the exit status says, worst first. */
static enum apr_code judge(const struct facts *f, const struct validate_args *a, const struct point_result *r,
                           const struct score *s, struct apr_err *e)
{
    TRY(apr_verdict_error(&f->verdict, f->model->path, e));
    if (f->integrity == INTEGRITY_BAD) {
        *e = f->integrity_error;
        return f->integrity_error.code;
    }
    for (unsigned k = 1; k <= N_POINTS; k++) {
        if (r[k - 1].status != POINT_FAIL && !(a->strict && r[k - 1].status == POINT_WARN)) continue;
        return apr_fail(e, APR_ECONTRACT, "%s: check %u, %s: %s", f->model->path, k, rubric_at(k)->subject,
                        r[k - 1].detail);
    }
    if (a->min_score != NO_MIN_SCORE && s->pct < (double)a->min_score)
        return apr_fail(e, APR_ECONTRACT,
                        "%s: score %.1f %% (%u of %u points), expected at least %" PRIu64 " %%",
                        f->model->path, s->pct, s->n_passed, s->n_applicable, a->min_score);
    return APR_OK;
}

/* A file that could not even be read: --json still gets its document. */
static void report_unreadable(const char *path, const struct apr_err *why)
{
    struct apr_err ignored;
    struct apr_out *o = apr_out_open(stdout, true, "apr.validate/1");
    apr_out_str(o, "file_path", path);
    apr_out_bool(o, "is_valid", false);
    apr_out_str(o, "error", why->text);
    if (apr_out_close(o, &ignored) != APR_OK) return; /* the fault of the file is the one to report */
}

static enum apr_code validate(const struct validate_args *a, struct apr_ctx *ctx, struct facts *f,
                              struct apr_err *e)
{
    const char *path = ctx->operands->n ? ctx->operands->at[0] : "-";
    enum apr_code code = facts_gather(f, path, (unsigned)a->n_threads, a->strict, e);
    struct point_result *r;
    struct score score;
    struct sources sources = {0};
    struct apr_err out_error;
    if (code != APR_OK) {
        if (ctx->g->json) report_unreadable(path, e);
        return code;
    }
    r = apr_arena_get(ctx->arena, N_POINTS * sizeof *r);
    rubric_run(f, r);
    rubric_score(r, 1, N_POINTS, &score);
    if (a->sources.n > 0) TRY(sources_check(f->model, &a->sources, ctx->arena, &sources, e));
    code = judge(f, a, r, &score, e);
    if (code == APR_OK) code = sources_judge(&sources, f->model->path, e);
    if (ctx->g->quiet && !ctx->g->json) return code;
    enum apr_code out_code = report(f, a, r, &score, &sources, code == APR_OK, ctx->g->json, &out_error);
    if (out_code == APR_OK) return code;
    *e = out_error;
    return out_code;
}

static enum apr_code run(void *p, struct apr_ctx *ctx, struct apr_err *e)
{
    const struct validate_args *a = p;
    struct facts f;
    if (a->min_score != NO_MIN_SCORE && a->min_score > 100)
        return apr_fail(e, APR_EUSAGE, "--min-score %" PRIu64 ": expected 0 to 100", a->min_score);
    enum apr_code code = validate(a, ctx, &f, e);
    facts_free(&f);
    return code;
}

const struct apr_verb verb_validate = {
    .name = "validate",
    .operands = "[FILE]",
    .n_operands_max = 1,
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .args_bytes = sizeof(struct validate_args),
    .init = init,
    .run = run,
    .details = "Reads FILE (SafeTensors, .apr, GGUF, a Hugging Face folder, or - for standard input) to its "
               "last byte and "
               "judges it: names, shapes and sizes against the family's contract; checksums where the format "
               "has them; NaN, "
               "infinities, zeros and spread of every tensor. Status 5 when a rule is broken, naming rule, "
               "tensor, what was "
               "found and what was expected; 4 when the file is malformed or damaged.\n"
               "The score counts the points of the 100-point rubric that apply to this file and were "
               "checked; the others "
               "are listed as skipped, with the reason, by --quality.\n"
               "Examples:\n"
               "    apr validate model.apr\n"
               "    apr validate model.apr --sources DIR\n"
               "    apr validate merged.apr --sources A --sources B\n"
               "    apr validate DIR --json | jq '.violations'\n"
               "    apr validate model.gguf --min-score 95 --strict",
};

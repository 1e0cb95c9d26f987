/* diff-tensors: two models tensor by tensor, by name: shapes and values. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "level.h"
#include "load.h"
#include "show.h"
#include "tensor_diff.h"
#include "verbs.h"

struct diff_args {
    bool mismatches_only;
    uint64_t n_show, n_threads;
    const char *filter;
    double tolerance;
};

static const struct apr_opt opts[] = {
    APR_OPT(struct diff_args, mismatches_only, "mismatches-only", 0, NULL, "leave out tensors that agree"),
    APR_OPT(struct diff_args, n_show, "show-values", 0, "N",
            "show the first N values that differ of each tensor (default 0)"),
    APR_OPT(struct diff_args, filter, "filter", 0, "TEXT", "only tensors whose name contains TEXT"),
    APR_OPT(struct diff_args, tolerance, "tolerance", 0, "X",
            "values that differ by at most X agree (default 0)"),
    APR_OPT(struct diff_args, n_threads, "threads", 'j', "N", "use N threads (0: all CPUs)"),
};

struct job {
    const struct diff_args *args;
    struct apr_model *a, *b;
    const struct apr_kern *kern;
    struct apr_pool *pool;
    struct apr_out *o;
    bool json;
    uint64_t n_compared, n_mixed, n_of[N_DIFF];
    double max_diff, sum_diff;
    uint64_t n_values;
};

static void put_values(const struct job *j, const struct tensor_diff *d)
{
    if (j->args->n_show == 0) return;
    apr_out_arr(j->o, "values");
    for (size_t i = 0; i < d->n_shown; i++) {
        apr_out_obj(j->o, NULL);
        apr_out_u64(j->o, "index", d->shown[i].i);
        apr_out_f64(j->o, "a", (double)d->shown[i].a);
        apr_out_f64(j->o, "b", (double)d->shown[i].b);
        apr_out_end(j->o);
    }
    apr_out_end(j->o);
}

static void put_shape(const struct job *j, const char *key, const struct apr_tensor *t)
{
    if (t)
        show_shape(j->o, key, t);
    else
        apr_out_str(j->o, key, NULL);
}

static void put_diff(const struct job *j, const char *name, const struct apr_tensor *t,
                     const struct apr_tensor *u, const struct tensor_diff *d)
{
    apr_out_obj(j->o, NULL);
    apr_out_str(j->o, "name", name);
    apr_out_str(j->o, "status", tensor_diff_name(d->status));
    put_shape(j, "shape_a", t);
    put_shape(j, "shape_b", u);
    apr_out_str(j->o, "dtype_a", t ? apr_type_name(t->type) : NULL);
    apr_out_str(j->o, "dtype_b", u ? apr_type_name(u->type) : NULL);
    if (d->is_known) {
        apr_out_f64(j->o, "max_diff", d->max_diff);
        apr_out_f64(j->o, "mean_diff", d->n ? d->sum_diff / (double)d->n : 0);
        apr_out_u64(j->o, "different_count", d->n_different);
    } else {
        apr_out_str(j->o, "max_diff", NULL);
        apr_out_str(j->o, "mean_diff", NULL);
        apr_out_str(j->o, "different_count", NULL);
    }
    if (j->json) put_values(j, d);
    apr_out_end(j->o);
}

/* Text: the values as a table of their own, below the tensor's line. */
static void put_values_text(const struct job *j, const char *name, const struct tensor_diff *d)
{
    if (j->json || d->n_shown == 0) return;
    char shown[300];
    apr_out_text(j->o, "  %s:", apr_escape(shown, sizeof shown, name, strlen(name)));
    for (size_t i = 0; i < d->n_shown; i++)
        apr_out_text(j->o, "    [%" PRIu64 "] %.9g  %.9g", d->shown[i].i, (double)d->shown[i].a,
                     (double)d->shown[i].b);
}

static enum apr_code compare(struct job *j, const char *name, const struct apr_tensor *t,
                             const struct apr_tensor *u, struct apr_arena *arena, struct apr_err *e)
{
    struct tensor_diff d = {.tolerance = j->args->tolerance, .n_show = j->args->n_show};
    TRY(tensor_diff_run(&d, j->a, t, j->b, u, j->kern, j->pool, arena, e));
    j->n_compared++;
    j->n_of[d.status]++;
    if (d.is_known) {
        j->max_diff = fmax(j->max_diff, d.max_diff);
        j->sum_diff += d.sum_diff;
        j->n_values += d.n;
    }
    if (j->args->mismatches_only && d.status <= DIFF_WITHIN) return APR_OK;
    put_diff(j, name, t, u, &d);
    put_values_text(j, name, &d);
    return APR_OK;
}

static bool is_wanted(const struct job *j, const char *name)
{
    return !j->args->filter || strstr(name, j->args->filter);
}

static enum apr_code compare_all(struct job *j, struct apr_arena *arena, struct apr_err *e)
{
    enum apr_code code = APR_OK;
    apr_out_arr(j->o, "results");
    for (uint64_t i = 0; i < j->a->n_tensors && code == APR_OK; i++) {
        const struct apr_tensor *t = &j->a->tensors[i];
        if (is_wanted(j, t->name)) code = compare(j, t->name, t, apr_model_find(j->b, t->name), arena, e);
    }
    for (uint64_t i = 0; i < j->b->n_tensors && code == APR_OK; i++) {
        const struct apr_tensor *u = &j->b->tensors[i];
        if (is_wanted(j, u->name) && !apr_model_find(j->a, u->name))
            code = compare(j, u->name, NULL, u, arena, e);
    }
    apr_out_end(j->o);
    return code;
}

static void put_sums(const struct job *j, uint64_t n_mismatches)
{
    apr_out_u64(j->o, "tensors_compared", j->n_compared);
    for (unsigned s = 0; s < N_DIFF; s++) {
        char key[40];
        (void)snprintf(key, sizeof key, "%s_count", tensor_diff_name(s));
        apr_out_u64(j->o, key, j->n_of[s]);
    }
    apr_out_u64(j->o, "mismatch_count", n_mismatches);
    apr_out_f64(j->o, "max_diff", j->max_diff);
    apr_out_f64(j->o, "mean_diff", j->n_values ? j->sum_diff / (double)j->n_values : 0);
    apr_out_f64(j->o, "tolerance", j->args->tolerance);
    apr_out_u64(j->o, "mixed_quantization_count", j->n_mixed);
}

static enum apr_code report(struct job *j, struct apr_arena *arena, struct apr_err *e)
{
    j->o = apr_out_open(stdout, j->json, "apr.diff-tensors/1");
    apr_out_str(j->o, "model_a", j->a->path);
    apr_out_str(j->o, "model_b", j->b->path);
    apr_out_str(j->o, "quantization_a", apr_level_main(j->a));
    apr_out_str(j->o, "quantization_b", apr_level_main(j->b));
    enum apr_code code = compare_all(j, arena, e);
    const uint64_t n_bad = j->n_compared - j->n_of[DIFF_IDENTICAL] - j->n_of[DIFF_WITHIN];
    put_sums(j, n_bad);
    if (j->n_of[DIFF_TRANSPOSED])
        apr_out_text(j->o, "transposed dimensions detected in %" PRIu64 " tensors", j->n_of[DIFF_TRANSPOSED]);
    struct apr_err ignored;
    enum apr_code closed = apr_out_close(j->o, code == APR_OK ? e : &ignored);
    if (code != APR_OK || closed != APR_OK) return code != APR_OK ? code : closed;
    if (j->n_compared == 0)
        return apr_fail(e, APR_ENO, "%s and %s: no tensor to compare", j->a->path, j->b->path);
    if (n_bad == 0) return APR_OK;
    return apr_fail(e, APR_ENO, "%s and %s: %" PRIu64 " of %" PRIu64 " tensors differ%s", j->a->path,
                    j->b->path, n_bad, j->n_compared,
                    j->n_of[DIFF_TRANSPOSED] ? "; transposed dimensions detected" : "");
}

static enum apr_code run(void *args, struct apr_ctx *ctx, struct apr_err *e)
{
    struct job j = {.args = args, .json = ctx->g->json};
    const enum apr_load_how how = APR_LOAD_RANDOM | APR_LOAD_LOOK;
    if (!(j.args->tolerance >= 0))
        return apr_fail(e, APR_EUSAGE, "--tolerance: expected a number of 0 or more");
    if (j.args->n_show > TENSOR_DIFF_MAX_SHOWN)
        return apr_fail(e, APR_EUSAGE, "--show-values %" PRIu64 ": expected at most %u", j.args->n_show,
                        TENSOR_DIFF_MAX_SHOWN);
    TRY(apr_kern_pick(&j.kern, e));
    TRY(apr_load_model(ctx->operands->at[0], how, &j.a, e));
    enum apr_code code = apr_load_model(ctx->operands->at[1], how, &j.b, e);
    if (code == APR_OK) {
        j.n_mixed = apr_level_warn(j.a, j.b);
        j.pool = apr_pool_open((unsigned)j.args->n_threads);
        code = report(&j, ctx->arena, e);
        apr_pool_close(j.pool);
        apr_model_close(j.b);
    }
    apr_model_close(j.a);
    return code;
}

const struct apr_verb verb_diff_tensors = {
    .name = "diff-tensors",
    .operands = "MODEL_A MODEL_B",
    .n_operands_min = 2,
    .n_operands_max = 2,
    .opts = opts,
    .n_opts = sizeof opts / sizeof opts[0],
    .args_bytes = sizeof(struct diff_args),
    .run = run,
    .details =
        "Compares two models of any formats tensor by tensor. Names are those of Hugging Face and shapes "
        "have "
        "the outermost dimension first, whatever the format, so a difference is one of content. Status of a "
        "tensor: identical; within_tolerance; different (values); transposed (the dimensions of A in another "
        "order: \"transposed dimensions detected\"); shape_mismatch; missing_in_a; missing_in_b; "
        "not_computable (a type without values whose bytes differ). Of swapped shapes the values are "
        "compared "
        "in the order of storage. Any mismatch makes status 1.\n"
        "Models of different quantization levels are compared with a warning: their values differ by "
        "nature.\n"
        "\n"
        "    apr diff-tensors a.apr b.gguf --mismatches-only\n"
        "    apr diff-tensors DIR b.apr --filter layers.0. --tolerance 1e-3 --show-values 4",
};

/* tensors: names, shapes, types and, where asked for, statistics of the values. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "load.h"
#include "show.h"
#include "verbs.h"

struct tensors_args {
    bool stats;
    const char *filter;
    uint64_t limit, n_threads;
};

static const struct apr_opt opts[] = {
    APR_OPT(struct tensors_args, stats, "stats", 0, NULL,
            "read the data: mean, deviation, range, NaN, infinities"),
    APR_OPT(struct tensors_args, filter, "filter", 0, "TEXT", "only tensors whose name contains TEXT"),
    APR_OPT(struct tensors_args, limit, "limit", 0, "N", "at most N tensors (0: all)"),
    APR_OPT(struct tensors_args, n_threads, "threads", 'j', "N", "use N threads (0: all CPUs)"),
};

struct job {
    const struct tensors_args *args;
    struct apr_model *m;
    const struct apr_kern *kern;
    struct apr_pool *pool; /* NULL without --stats */
    struct apr_out *o;
};

static void put_stats(struct apr_out *o, const struct apr_stats *s)
{
    uint64_t n = s->n - s->n_nan - s->n_inf;
    double mean = n ? s->sum / (double)n : NAN, var = n ? s->sum_sq / (double)n - mean * mean : NAN;
    apr_out_f64(o, "mean", mean);
    apr_out_f64(o, "std", var > 0 ? sqrt(var) : n ? 0 : NAN);
    apr_out_f64(o, "min", n ? (double)s->min : NAN);
    apr_out_f64(o, "max", n ? (double)s->max : NAN);
    apr_out_u64(o, "nan_count", s->n_nan);
    apr_out_u64(o, "inf_count", s->n_inf);
    apr_out_u64(o, "zero_count", s->n_zero);
}

/* A type whose values are not computed has no statistics: its cells stay empty. */
static void put_no_stats(struct apr_out *o)
{
    static const char *const keys[] = {"mean", "std", "min", "max", "nan_count", "inf_count", "zero_count"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) apr_out_str(o, keys[i], NULL);
}

static enum apr_code put_tensor(const struct job *j, const struct apr_tensor *t, struct apr_err *e)
{
    struct apr_stats s;
    apr_out_obj(j->o, NULL);
    apr_out_str(j->o, "name", t->name);
    show_shape(j->o, "shape", t);
    apr_out_str(j->o, "dtype", apr_type_name(t->type));
    apr_out_bytes(j->o, "size_bytes", t->n_bytes);
    if (j->pool && t->packing == APR_ROWS && j->kern->to_f32[t->type]) {
        TRY(apr_contract_stats(j->m, t, j->kern, j->pool, &s, e));
        put_stats(j->o, &s);
    } else if (j->pool) {
        put_no_stats(j->o);
    }
    apr_out_end(j->o);
    return APR_OK;
}

static enum apr_code put_tensors(const struct job *j, uint64_t *n_shown, struct apr_err *e)
{
    enum apr_code code = APR_OK;
    apr_out_arr(j->o, "tensors");
    for (uint64_t i = 0; i < j->m->n_tensors && code == APR_OK; i++) {
        if (j->args->filter && !strstr(j->m->tensors[i].name, j->args->filter)) continue;
        if (j->args->limit && *n_shown == j->args->limit) break;
        code = put_tensor(j, &j->m->tensors[i], e);
        ++*n_shown;
    }
    apr_out_end(j->o);
    return code;
}

static enum apr_code report(struct job *j, bool json, struct apr_err *e)
{
    char format[64];
    uint64_t n_bytes = 0, n_shown = 0;
    for (uint64_t i = 0; i < j->m->n_tensors; i++) n_bytes += j->m->tensors[i].n_bytes;
    j->o = apr_out_open(stdout, json, "apr.tensors/1");
    apr_out_str(j->o, "file", j->m->path);
    apr_out_str(j->o, "format_version", show_format(j->m, format, sizeof format));
    apr_out_u64(j->o, "tensor_count", j->m->n_tensors);
    apr_out_bytes(j->o, "total_size_bytes", n_bytes);
    enum apr_code code = put_tensors(j, &n_shown, e);
    apr_out_u64(j->o, "shown_count", n_shown);
    struct apr_err ignored;
    enum apr_code closed = apr_out_close(j->o, code == APR_OK ? e : &ignored);
    return code != APR_OK ? code : closed;
}

static enum apr_code run(void *args, struct apr_ctx *ctx, struct apr_err *e)
{
    struct job j = {.args = args};
    enum apr_load_how how = APR_LOAD_LOOK | (j.args->stats ? APR_LOAD_RANDOM : APR_LOAD_STREAM);
    TRY(apr_kern_pick(&j.kern, e));
    TRY(apr_load_model(ctx->operands->n ? ctx->operands->at[0] : "-", how, &j.m, e));
    enum apr_code code = apr_model_end(j.m, e);
    if (code == APR_OK && j.args->stats) j.pool = apr_pool_open((unsigned)j.args->n_threads);
    if (code == APR_OK) code = report(&j, ctx->g->json, e);
    if (j.pool) apr_pool_close(j.pool);
    apr_model_close(j.m);
    return code;
}

const struct apr_verb verb_tensors = {
    .name = "tensors",
    .operands = "[MODEL]",
    .n_operands_max = 1,
    .opts = opts,
    .n_opts = sizeof opts / sizeof opts[0],
    .args_bytes = sizeof(struct tensors_args),
    .run = run,
    .details =
        "Lists the tensors of a model: name (as Hugging Face has it, whatever the format), shape with the\n"
        "outermost dimension first, type, size. MODEL is an .apr, GGUF or SafeTensors file, a Hugging Face\n"
        "folder, or - for standard input (the default). --stats reads all data; a pipe is then copied to\n"
        "a temporary file first.\n"
        "\n"
        "    apr tensors model.apr --filter layers.0. --stats\n"
        "    apr tensors model.gguf --json | jq -r '.tensors[] | select(.dtype == \"Q6_K\") | .name'",
};

/* fingerprint: statistics and checksums of every tensor; of two models, where they depart from each other. */
#include "fingerprint.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "level.h"
#include "verbs.h"

#define MAX_SIGMA 3.0

struct fingerprint_args {
    const char *output, *filter;
    bool force;
    uint64_t n_threads;
};

static const struct apr_opt opts[] = {
    APR_OPT(struct fingerprint_args, output, "output", 'o', "FILE", "write the JSON document to FILE"),
    APR_OPT(struct fingerprint_args, force, "force", 'f', NULL, "replace an existing FILE"),
    APR_OPT(struct fingerprint_args, filter, "filter", 0, "TEXT", "only tensors whose name contains TEXT"),
    APR_OPT(struct fingerprint_args, n_threads, "threads", 'j', "N", "use N threads (0: all CPUs)"),
};

struct pair {
    struct apr_fingerprints a, b;
    bool has_b;
    uint64_t n_anomalies;
};

static void put_anomaly(struct apr_out *o, struct pair *p, const char *tensor, const char *field, double a,
                        double b, double sigma)
{
    apr_out_obj(o, NULL);
    apr_out_str(o, "tensor", tensor);
    apr_out_str(o, "field", field);
    apr_out_f64(o, "a", a);
    apr_out_f64(o, "b", b);
    apr_out_f64(o, "deviation_sigma", sigma);
    apr_out_end(o);
    p->n_anomalies++;
}

static void compare(struct apr_out *o, struct pair *p, const struct apr_fingerprint *a,
                    const struct apr_fingerprint *b)
{
    const double sigma = apr_fingerprint_sigma(a->mean, b->mean, a->std, 1);
    if (!apr_fingerprint_same_shape(a, b)) put_anomaly(o, p, a->name, "shape", NAN, NAN, NAN);
    if (!a->is_known || !b->is_known) {
        if (a->is_known != b->is_known || a->data_xxh3 != b->data_xxh3)
            put_anomaly(o, p, a->name, "data", NAN, NAN, NAN);
        return;
    }
    if (sigma > MAX_SIGMA) put_anomaly(o, p, a->name, "mean", a->mean, b->mean, sigma);
    if (a->n_nan != b->n_nan)
        put_anomaly(o, p, a->name, "nan_count", (double)a->n_nan, (double)b->n_nan, NAN);
    if (a->n_inf != b->n_inf)
        put_anomaly(o, p, a->name, "inf_count", (double)a->n_inf, (double)b->n_inf, NAN);
}

static void put_anomalies(struct apr_out *o, struct pair *p)
{
    uint64_t n_same = 0;
    apr_out_arr(o, "anomalies");
    for (size_t i = 0; i < p->a.n; i++) {
        const struct apr_fingerprint *a = &p->a.at[i], *b = apr_fingerprints_find(&p->b, a->name);
        if (b) compare(o, p, a, b);
        if (!b) put_anomaly(o, p, a->name, "missing in B", NAN, NAN, NAN);
        n_same += b && a->is_known && b->is_known && a->checksum == b->checksum;
    }
    for (size_t i = 0; i < p->b.n; i++)
        if (!apr_fingerprints_find(&p->a, p->b.at[i].name))
            put_anomaly(o, p, p->b.at[i].name, "missing in A", NAN, NAN, NAN);
    apr_out_end(o);
    apr_out_u64(o, "anomaly_count", p->n_anomalies);
    apr_out_u64(o, "same_checksum_count", n_same);
}

static void put_list(struct apr_out *o, const char *key, const struct apr_fingerprints *f, bool brief)
{
    apr_out_arr(o, key);
    for (size_t i = 0; i < f->n; i++) apr_fingerprint_put(o, &f->at[i], brief);
    apr_out_end(o);
}

static enum apr_code report(struct pair *p, FILE *to, bool json, bool brief, struct apr_err *e)
{
    struct apr_out *o = apr_out_open(to, json, "apr.fingerprint/1");
    apr_out_str(o, "model", p->a.model->path);
    if (p->has_b) apr_out_str(o, "model_b", p->b.model->path);
    apr_out_u64(o, "tensor_count", p->a.n);
    put_list(o, "fingerprints", &p->a, brief && !json);
    if (p->has_b) put_list(o, "fingerprints_b", &p->b, brief && !json);
    if (p->has_b) put_anomalies(o, p);
    return apr_out_close(o, e);
}

static ssize_t to_sink(void *sink, const char *p, size_t n)
{
    apr_sink_write(sink, p, n);
    return (ssize_t)n; /* the sink keeps its own error until it is finished */
}

static enum apr_code write_file(const struct fingerprint_args *a, struct pair *p, struct apr_err *e)
{
    struct apr_sink *sink;
    TRY(apr_sink_open(&sink, a->output, a->force, e));
    const cookie_io_functions_t io = {.write = to_sink};
    FILE *to = fopencookie(sink, "w", io);
    enum apr_code code;
    if (to)
        code = report(p, to, true, false, e);
    else
        code = apr_fail(e, APR_EIO, "%s: %m", a->output);
    if (to && fclose(to) && code == APR_OK) code = apr_fail(e, APR_EIO, "%s: %m", a->output);
    if (code == APR_OK) return apr_sink_finish(sink, e);
    apr_sink_abort(sink);
    return code;
}

static enum apr_code gather(const struct fingerprint_args *a, const struct apr_ctx *ctx, struct pair *p,
                            struct apr_err *e)
{
    const struct apr_strs *in = ctx->operands;
    const struct apr_kern *kern;
    TRY(apr_kern_pick(&kern, e));
    struct apr_pool *pool = apr_pool_open((unsigned)a->n_threads);
    p->has_b = in->n > 1;
    enum apr_code code = apr_fingerprints_of_model(&p->a, in->n ? in->at[0] : "-", a->filter, kern, pool, e);
    if (code == APR_OK && p->has_b)
        code = apr_fingerprints_of_model(&p->b, in->at[1], a->filter, kern, pool, e);
    apr_pool_close(pool);
    if (code == APR_OK && p->a.n + p->b.n == 0)
        code = apr_fail(e, APR_ENO, "%s: no tensor%s%s", p->a.model->path,
                        a->filter ? " whose name contains " : "", a->filter ? a->filter : "");
    return code;
}

static enum apr_code run(void *args, struct apr_ctx *ctx, struct apr_err *e)
{
    const struct fingerprint_args *a = args;
    struct pair p = {.has_b = false};
    enum apr_code code = gather(a, ctx, &p, e);
    if (code == APR_OK && p.has_b) (void)apr_level_warn(p.a.model, p.b.model);
    if (code == APR_OK && a->output && strcmp(a->output, "-") != 0)
        code = write_file(a, &p, e);
    else if (code == APR_OK)
        code = report(&p, stdout, ctx->g->json || a->output, !ctx->g->verbose, e);
    if (code == APR_OK && p.n_anomalies)
        code = apr_fail(e, APR_ENO, "%s and %s: %llu anomalies", p.a.model->path, p.b.model->path,
                        (unsigned long long)p.n_anomalies);
    apr_fingerprints_free(&p.a);
    apr_fingerprints_free(&p.b);
    return code;
}

const struct apr_verb verb_fingerprint = {
    .name = "fingerprint",
    .operands = "[MODEL] [MODEL_B]",
    .n_operands_max = 2,
    .opts = opts,
    .n_opts = sizeof opts / sizeof opts[0],
    .args_bytes = sizeof(struct fingerprint_args),
    .run = run,
    .details =
        "Prints mean, standard deviation, range and checksum of every tensor; with --verbose, --json and -o "
        "also the percentiles 5, 25, 50, 75, 95, the counts of NaN and infinities, the fraction of zeros and "
        "a hash of the stored bytes. Percentiles are exact. The checksum is the sum of the values' F32 bit "
        "patterns modulo 2^32: the same in every format that stores the same values. MODEL is any model, or "
        "- "
        "for standard input (the default).\n"
        "With MODEL_B the two are compared: a mean that moved by more than 3 standard deviations, other "
        "counts of NaN or infinities, another shape or a missing tensor is an anomaly, and any makes "
        "status 1. Models of different quantization levels are compared with a warning.\n"
        "\n"
        "    apr fingerprint model.apr -o model.fingerprint.json\n"
        "    apr fingerprint DIR model.gguf --json | jq .anomalies",
};

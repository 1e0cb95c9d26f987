/* validate-stats: the statistics of a model against those of a reference, in units of its deviations. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "fingerprint.h"
#include "level.h"
#include "verbs.h"

#define GROSS_SIGMA 10.0   /* beyond it the error is E020 */
#define FLAT_FACTOR 1000.0 /* a reference without spread: the difference times this */

struct stats_args {
    const char *reference, *fingerprints;
    double threshold;
    bool strict;
    uint64_t n_threads;
};

static const struct apr_opt opts[] = {
    APR_OPT(struct stats_args, reference, "reference", 0, "MODEL",
            "compare with this model, or with a .json that fingerprint wrote"),
    APR_OPT(struct stats_args, fingerprints, "fingerprints", 0, "JSON",
            "compare with what fingerprint wrote"),
    APR_OPT(struct stats_args, threshold, "threshold", 0, "SIGMA",
            "deviations allowed, in standard deviations (default 3)"),
    APR_OPT(struct stats_args, strict, "strict", 0, NULL,
            "by role: norms 2, embeddings 5, the head 3; others by --threshold"),
    APR_OPT(struct stats_args, n_threads, "threads", 'j', "N", "use N threads (0: all CPUs)"),
};

static void init(void *args)
{
    ((struct stats_args *)args)->threshold = 3.0;
}

/* The first row that matches a part of the name. (quality: strict roles) */
static const struct {
    const char *part;
    double sigma;
} roles[] = {{"layernorm", 2.0}, {"ln_", 2.0},     {"norm", 2.0},
             {"embed", 5.0},     {"lm_head", 3.0}, {"output.weight", 3.0}};

struct job {
    const struct stats_args *args;
    struct apr_fingerprints model, ref;
    struct apr_out *o;
    uint64_t n_anomalies, n_compared, n_unreferenced;
    double worst;
};

static double limit_of(const struct stats_args *a, const char *name)
{
    for (size_t i = 0; a->strict && i < sizeof roles / sizeof roles[0]; i++)
        if (strstr(name, roles[i].part)) return roles[i].sigma;
    return a->threshold;
}

static void anomaly(struct job *j, const char *tensor, const char *field, double expected, double actual,
                    double sigma)
{
    apr_out_obj(j->o, NULL);
    apr_out_str(j->o, "tensor", tensor);
    apr_out_str(j->o, "field", field);
    apr_out_f64(j->o, "expected", expected);
    apr_out_f64(j->o, "actual", actual);
    apr_out_f64(j->o, "deviation_sigma", sigma);
    apr_out_end(j->o);
    j->n_anomalies++;
    j->worst = fmax(j->worst, sigma);
}

/* A field that the reference does not tell is not compared. */
static void check(struct job *j, const struct apr_fingerprint *r, const char *field, double expected,
                  double actual)
{
    if (isnan(expected)) return;
    const double sigma = apr_fingerprint_sigma(expected, actual, r->std, FLAT_FACTOR);
    if (sigma > limit_of(j->args, r->name)) anomaly(j, r->name, field, expected, actual, sigma);
}

static void compare(struct job *j, const struct apr_fingerprint *r, const struct apr_fingerprint *f)
{
    static const char *const percentile_fields[APR_N_PERCENTILES] = {"p5", "p25", "p50", "p75", "p95"};
    j->n_compared++;
    if (!apr_fingerprint_same_shape(r, f)) anomaly(j, r->name, "shape", NAN, NAN, INFINITY);
    if (r->is_known != f->is_known) anomaly(j, r->name, "dtype", NAN, NAN, INFINITY);
    if (!r->is_known || !f->is_known) return;
    check(j, r, "mean", r->mean, f->mean);
    check(j, r, "std", r->std, f->std);
    for (size_t i = 0; i < APR_N_PERCENTILES; i++)
        check(j, r, percentile_fields[i], r->percentile[i], f->percentile[i]);
    if (f->n_nan > r->n_nan) anomaly(j, r->name, "nan_count", (double)r->n_nan, (double)f->n_nan, INFINITY);
    if (f->n_inf > r->n_inf) anomaly(j, r->name, "inf_count", (double)r->n_inf, (double)f->n_inf, INFINITY);
}

static void compare_all(struct job *j)
{
    apr_out_arr(j->o, "anomalies");
    for (size_t i = 0; i < j->ref.n; i++) {
        const struct apr_fingerprint *r = &j->ref.at[i], *f = apr_fingerprints_find(&j->model, r->name);
        if (f)
            compare(j, r, f);
        else
            anomaly(j, r->name, "missing", NAN, NAN, INFINITY);
    }
    apr_out_end(j->o);
    for (size_t i = 0; i < j->model.n; i++)
        j->n_unreferenced += !apr_fingerprints_find(&j->ref, j->model.at[i].name);
}

static enum apr_code report(struct job *j, bool json, struct apr_err *e)
{
    const struct stats_args *a = j->args;
    j->o = apr_out_open(stdout, json, "apr.validate-stats/1");
    apr_out_str(j->o, "model", j->model.model->path);
    apr_out_str(j->o, "reference", a->reference ? a->reference : a->fingerprints);
    apr_out_f64(j->o, "threshold", a->threshold);
    apr_out_bool(j->o, "strict", a->strict);
    apr_out_u64(j->o, "total_tensors", j->model.n);
    compare_all(j);
    apr_out_u64(j->o, "compared_tensors", j->n_compared);
    apr_out_u64(j->o, "unreferenced_tensors", j->n_unreferenced);
    apr_out_u64(j->o, "anomaly_count", j->n_anomalies);
    apr_out_bool(j->o, "passed", j->n_anomalies == 0);
    TRY(apr_out_close(j->o, e));
    if (j->n_unreferenced)
        apr_warn("%s: the reference does not tell about %" PRIu64 " tensors", j->model.model->path,
                 j->n_unreferenced);
    if (j->n_anomalies == 0) return APR_OK;
    return apr_fail(e, APR_ECONTRACT,
                    "%s: %s%" PRIu64 " statistics depart from the reference, by up to %.3g sigma",
                    j->model.model->path, j->worst > GROSS_SIGMA ? "E020: " : "", j->n_anomalies, j->worst);
}

static bool has_suffix(const char *s, const char *suffix)
{
    size_t n = strlen(s), k = strlen(suffix);
    return n >= k && strcmp(s + n - k, suffix) == 0;
}

/* A .json is a report, but the index of a folder stands for its model. */
static bool is_report(const char *path)
{
    struct stat st;
    return has_suffix(path, ".json") && !has_suffix(path, ".safetensors.index.json") &&
           !(stat(path, &st) == 0 && S_ISDIR(st.st_mode));
}

static enum apr_code gather(struct job *j, const char *path, struct apr_err *e)
{
    const char *ref = j->args->reference ? j->args->reference : j->args->fingerprints;
    const struct apr_kern *kern;
    enum apr_code code;
    TRY(apr_kern_pick(&kern, e));
    if (j->args->fingerprints || is_report(ref)) TRY(apr_fingerprints_of_json(&j->ref, ref, e));
    struct apr_pool *pool = apr_pool_open((unsigned)j->args->n_threads);
    code = apr_fingerprints_of_model(&j->model, path, NULL, kern, pool, e);
    if (code == APR_OK && !j->ref.n) code = apr_fingerprints_of_model(&j->ref, ref, NULL, kern, pool, e);
    apr_pool_close(pool);
    if (code == APR_OK && j->ref.n == 0) code = apr_fail(e, APR_EFORMAT, "%s: no tensors found", ref);
    if (code == APR_OK && j->ref.model) (void)apr_level_warn(j->model.model, j->ref.model);
    return code;
}

static enum apr_code run(void *args, struct apr_ctx *ctx, struct apr_err *e)
{
    struct job j = {.args = args};
    if ((j.args->reference != NULL) + (j.args->fingerprints != NULL) != 1)
        return apr_fail(e, APR_EUSAGE, "expected one of: --reference MODEL, --fingerprints JSON");
    if (!(j.args->threshold > 0)) return apr_fail(e, APR_EUSAGE, "--threshold: expected a number above 0");
    enum apr_code code = gather(&j, ctx->operands->at[0], e);
    if (code == APR_OK) code = report(&j, ctx->g->json, e);
    apr_fingerprints_free(&j.model);
    apr_fingerprints_free(&j.ref);
    return code;
}

const struct apr_verb verb_validate_stats = {
    .name = "validate-stats",
    .operands = "MODEL",
    .n_operands_min = 1,
    .n_operands_max = 1,
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .args_bytes = sizeof(struct stats_args),
    .init = init,
    .run = run,
    .details =
        "Compares mean, standard deviation and percentiles of every tensor with those of a reference: a "
        "model, "
        "or the document that apr fingerprint wrote. A deviation is the difference in units of the "
        "reference's "
        "standard deviation (a reference without spread: the difference times 1000). NaN or infinities that "
        "the reference does not have, another shape and a missing tensor are infinitely far. Status 5 when a "
        "deviation passes the threshold; the message begins with E020 when one passes 10.\n"
        "\n"
        "    apr fingerprint DIR -o good.json && apr validate-stats model.apr --fingerprints good.json\n"
        "    apr validate-stats model.gguf --reference DIR --strict --json | jq .anomalies",
};

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "contract.h"
#include "load.h"
#include "merge.h"
#include "merge_record.h"
#include "provenance.h"
#include "to_apr.h"
#include "verbs.h"

#define DEFAULT_T       0.5
#define DEFAULT_LAMBDA  1.0
#define DEFAULT_DENSITY 0.2
#define DEFAULT_DROP    0.9
#define DEFAULT_SEED    42
#define NO_SEED         INT64_MIN

struct merge_args {
    struct to_apr_args to; /* first: TO_APR_OPTIONS count from its begin */
    const char *strategy, *base_model, *weights;
    double t, lambda, density, drop_rate; /* NaN: not given */
    int64_t seed;                         /* NO_SEED: not given */
};
_Static_assert(offsetof(struct merge_args, to) == 0, "the common options come first");

static const struct apr_opt opts[] = {
    APR_OPT(
        struct merge_args, strategy, "strategy", 's', "NAME",
        "average (the default), weighted, linear, slerp, ties, dare-linear, dare-ties or task-arithmetic"),
    APR_OPT(struct merge_args, base_model, "base-model", 'b', "MODEL",
            "the model that the others were tuned from: ties, dare, task-arithmetic"),
    APR_OPT(struct merge_args, weights, "weights", 'w', "LIST", "one number per model, with commas"),
    APR_OPT(struct merge_args, t, "t", 0, "T",
            "slerp: how far from the first model to the second (default 0.5)"),
    APR_OPT(struct merge_args, lambda, "lambda", 0, "X", "scale of what is added to the base (default 1)"),
    APR_OPT(struct merge_args, density, "density", 0, "D",
            "ties: fraction of each delta that is kept (default 0.2)"),
    APR_OPT(struct merge_args, drop_rate, "drop-rate", 0, "P",
            "dare: probability that a value is dropped (default 0.9)"),
    APR_OPT(struct merge_args, seed, "seed", 0, "N", "dare: seed of the random numbers (default 42)"),
    TO_APR_OPTIONS,
};

static void init(void *p)
{
    struct merge_args *args = p;
    args->t = args->lambda = args->density = args->drop_rate = (double)NAN;
    args->seed = NO_SEED;
}

/* ---- parameters --------------------------------------------------------------------------------------- */

static enum apr_code find_method(const char *name, const struct merge_method **method, struct apr_err *e)
{
    char names[256] = "";
    const struct merge_method *m;
    *method = name ? merge_method_named(name) : merge_method_at(0);
    if (*method) return APR_OK;
    for (size_t i = 0; (m = merge_method_at(i)) != NULL; i++) {
        size_t n = strlen(names);
        snprintf(names + n, sizeof names - n, "%s%s", n ? " " : "", m->name);
    }
    return apr_fail(e, APR_EUSAGE, "--strategy %s: unknown; expected one of: %s", name, names);
}

/* An option that the method would not look at is refused. */
static enum apr_code check_idle(const struct merge_args *a, const struct merge_method *m, struct apr_err *e)
{
    const struct {
        bool given, taken;
        const char *name;
    } options[] = {
        {a->base_model != NULL, m->needs_base, "base-model"},
        {a->weights != NULL, m->takes & MERGE_WEIGHTS, "weights"},
        {!isnan(a->t), m->takes & MERGE_T, "t"},
        {!isnan(a->lambda), m->takes & MERGE_LAMBDA, "lambda"},
        {!isnan(a->density), m->takes & MERGE_DENSITY, "density"},
        {!isnan(a->drop_rate), m->takes & MERGE_DROP, "drop-rate"},
        {a->seed != NO_SEED, m->takes & MERGE_DROP, "seed"},
    };
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (options[i].given && !options[i].taken)
            return apr_fail(e, APR_EUSAGE, "--%s has no meaning for %s", options[i].name, m->name);
    if (m->needs_base && !a->base_model)
        return apr_fail(e, APR_EUSAGE, "%s needs --base-model, the model that the others were tuned from",
                        m->name);
    if (m->needs_weights && !a->weights)
        return apr_fail(e, APR_EUSAGE, "%s needs --weights, one number per model", m->name);
    return APR_OK;
}

static enum apr_code check_count(const struct merge_method *m, size_t n, struct apr_err *e)
{
    if (n >= m->n_min && n <= m->n_max) return APR_OK;
    if (m->n_min == m->n_max)
        return apr_fail(e, APR_EUSAGE, "%s takes exactly %zu models, found %zu", m->name, m->n_min, n);
    return apr_fail(e, APR_EUSAGE, "%s takes %zu to %zu models, found %zu", m->name, m->n_min, m->n_max, n);
}

static enum apr_code parse_weights(const char *text, double *w, size_t n, struct apr_err *e)
{
    size_t n_found = 0;
    for (const char *at = text;; at++) {
        char *end;
        double v = strtod(at, &end);
        if (!*at || !strchr("0123456789.-+", *at) || end == at || (*end && *end != ',') || !isfinite(v))
            return apr_fail(e, APR_EUSAGE, "--weights: expected finite numbers with commas, found \"%.40s\"",
                            at);
        if (n_found < n) w[n_found] = v;
        n_found++;
        at = end;
        if (!*at) break;
    }
    if (n_found != n) return apr_fail(e, APR_EUSAGE, "--weights: %zu numbers for %zu models", n_found, n);
    return APR_OK;
}

static enum apr_code make_weights(const struct merge_args *a, const struct merge_method *m, double *w,
                                  size_t n, struct apr_err *e)
{
    double sum = 0;
    bool ones = m->weights == MERGE_ONES || m->weights == MERGE_POSITIVE;
    for (size_t k = 0; k < n; k++) w[k] = ones ? 1 : 1 / (double)n;
    if (!a->weights) return APR_OK;
    TRY(parse_weights(a->weights, w, n, e));
    for (size_t k = 0; k < n; k++) {
        sum += w[k];
        if (w[k] < 0 && m->weights == MERGE_POSITIVE)
            return apr_fail(e, APR_EUSAGE, "--weights: %g: %s takes weights >= 0 only", w[k], m->name);
    }
    if (m->weights != MERGE_NORMALISED) return APR_OK;
    if (!isfinite(sum) || !(sum > 0))
        return apr_fail(e, APR_EUSAGE, "--weights: their sum is %g, expected above 0", sum);
    for (size_t k = 0; k < n; k++) w[k] /= sum;
    return APR_OK;
}

static double given_or(double v, double otherwise)
{
    return isnan(v) ? otherwise : v;
}

static enum apr_code make_params(const struct merge_args *a, const struct merge_method *m, size_t n,
                                 struct apr_arena *arena, struct merge_params *p, struct apr_err *e)
{
    double *weights = apr_arena_get(arena, n * sizeof *weights);
    TRY(make_weights(a, m, weights, n, e));
    *p = (struct merge_params){.weights = weights,
                               .t = given_or(a->t, DEFAULT_T),
                               .lambda = given_or(a->lambda, DEFAULT_LAMBDA),
                               .density = given_or(a->density, DEFAULT_DENSITY),
                               .drop_rate = given_or(a->drop_rate, DEFAULT_DROP),
                               .seed = a->seed == NO_SEED ? DEFAULT_SEED : (uint64_t)a->seed};
    if (!(p->t >= 0 && p->t <= 1)) return apr_fail(e, APR_EUSAGE, "--t %g: expected 0 to 1", p->t);
    if (!(p->density > 0 && p->density <= 1))
        return apr_fail(e, APR_EUSAGE, "--density %g: expected above 0, at most 1", p->density);
    if (!(p->drop_rate >= 0 && p->drop_rate < 1))
        return apr_fail(e, APR_EUSAGE, "--drop-rate %g: expected at least 0, below 1", p->drop_rate);
    if (a->seed != NO_SEED && a->seed < 0)
        return apr_fail(e, APR_EUSAGE, "--seed %" PRId64 ": expected at least 0", a->seed);
    return APR_OK;
}

/* ---- models ------------------------------------------------------------------------------------------- */

struct job {
    struct merge_args *args;
    struct apr_ctx *ctx;
    const struct apr_recipe *recipe;
    struct merge merge;
    struct apr_model *models[MERGE_MAX_INPUTS + 1]; /* owned; the base is the last */
    size_t n_models;
};

/* What can be read once only is spooled. */
static bool is_pipe(const char *path)
{
    struct stat st;
    if (strcmp(path, "-") == 0) return true;
    return stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode);
}

static enum apr_code load_one(struct job *j, const char *path, struct apr_err *e)
{
    struct apr_model *m;
    /* Random access would map the file, and decode a compressed one into memory; reading does neither. */
    TRY(apr_load_model(path, is_pipe(path) ? APR_LOAD_RANDOM : APR_LOAD_STREAM, &m, e));
    j->models[j->n_models++] = m;
    if (m->vocab_only || m->n_tensors == 0)
        return apr_fail(e, APR_EFORMAT, "%s: no tensors found; a model needs weights", m->path);
    if (j->args->to.hash_sources) TRY(apr_provenance_hash(m, e));
    if (!j->ctx->gated) return APR_OK;
    struct apr_verdict v;
    apr_verdict_init(&v, j->ctx->arena);
    apr_contract_structure(m, &v);
    return apr_verdict_error(&v, m->path, e);
}

static enum apr_code load_all(struct job *j, struct apr_err *e)
{
    const struct apr_strs *in = j->ctx->operands;
    size_t n_stdin = 0;
    for (size_t k = 0; k < in->n; k++) n_stdin += strcmp(in->at[k], "-") == 0;
    if (j->args->base_model) n_stdin += strcmp(j->args->base_model, "-") == 0;
    if (n_stdin > 1) return apr_fail(e, APR_EUSAGE, "merge: only one model can come from standard input");
    for (size_t k = 0; k < in->n; k++) TRY(load_one(j, in->at[k], e));
    return j->args->base_model ? load_one(j, j->args->base_model, e) : APR_OK;
}

/* Blocks are widened, mixed, and made into blocks again: that loses, and needs leave. */
static enum apr_code check_requantize(const struct job *j, struct apr_err *e)
{
    if (j->args->to.types.requantize || (j->recipe && j->recipe->is_float)) return APR_OK;
    size_t n = j->recipe ? j->n_models : 1; /* without a recipe the first model's types are written */
    for (size_t k = 0; k < n; k++)
        for (uint64_t i = 0; i < j->models[k]->n_tensors; i++) {
            const struct apr_tensor *t = &j->models[k]->tensors[i];
            const struct apr_quant *q = apr_quant_of(t->type);
            if (q && q->is_quantized)
                return apr_fail(
                    e, APR_ECONTRACT,
                    "%s: tensor %s is %s already; quantizing the merge loses twice: --requantize allows "
                    "it, --quantize f16 avoids it",
                    j->models[k]->path, t->name, q->name);
        }
    return APR_OK;
}

static enum apr_code merge_models(struct job *j, struct apr_err *e)
{
    struct merge *g = &j->merge;
    size_t n = j->ctx->operands->n;
    TRY(load_all(j, e));
    TRY(check_requantize(j, e));
    TRY(merge_open(g, j->models, n, j->args->base_model ? j->models[n] : NULL, e));
    struct to_apr_source source = {.model = j->models[0],
                                   .data = g->model,
                                   .provenance = merge_record(g, j->recipe, j->args->to.types.pure),
                                   .n_held_bytes = merge_held_bytes(g),
                                   .kern = g->kern,
                                   .pool = g->pool};
    enum apr_code code = to_apr_from(&j->args->to, "merge", &source, j->ctx, e);
    json_decref(source.provenance);
    return code;
}

static enum apr_code run(void *p, struct apr_ctx *ctx, struct apr_err *e)
{
    struct job j = {.args = p, .ctx = ctx};
    struct merge *g = &j.merge;
    TRY(find_method(j.args->strategy, &g->method, e));
    TRY(check_count(g->method, ctx->operands->n, e));
    TRY(check_idle(j.args, g->method, e));
    TRY(make_params(j.args, g->method, ctx->operands->n, ctx->arena, &g->params, e));
    TRY(to_apr_check_output(&j.args->to, ctx, e));
    TRY(apr_quantize_recipe(&j.args->to.types, &j.recipe, e));
    TRY(apr_kern_pick(&g->kern, e));
    g->pool = apr_pool_open((unsigned)j.args->to.n_threads);
    enum apr_code code = merge_models(&j, e);
    merge_close(g);
    apr_pool_close(g->pool);
    for (size_t k = 0; k < j.n_models; k++) apr_model_close(j.models[k]);
    return code;
}

const struct apr_verb verb_merge = {
    .name = "merge",
    .operands = "MODEL [MODEL...]",
    .n_operands_min = 1,
    .n_operands_max = MERGE_MAX_INPUTS,
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .args_bytes = sizeof(struct merge_args),
    .init = init,
    .run = run,
    .details =
        "Mixes models of one shape into one .apr, tensor by tensor. Any format that apr reads will do; "
        "names, shapes, "
        "architecture and tokenizer must agree (else status 5). Metadata and, without --quantize, types are "
        "the "
        "first model's. Sums are in double; the bytes do not depend on the number of threads.\n"
        "average: the mean (model soup, Wortsman 2022). weighted: sum of w x, --weights divided by their "
        "sum. "
        "linear: sum of w x, --weights as they stand (default 1/n).\n"
        "slerp (Shoemake 1985): two models; each tensor is one vector and moves along the arc; linear where "
        "there is "
        "none.\n"
        "task-arithmetic (Ilharco 2022): base + lambda * sum of w (x - base), weights as they stand (default "
        "1).\n"
        "ties (Yadav 2023): of each delta x - base the --density part with the largest magnitudes is kept, "
        "per "
        "tensor; the sign of the weighted sum is elected; base + lambda * weighted mean of the deltas of "
        "that sign.\n"
        "dare-linear (or dare; Yu 2023): each value of a delta is dropped with --drop-rate and the rest "
        "divided by "
        "1 - rate; base + lambda * weighted mean. dare-ties: the same, then elected and averaged as in ties, "
        "without "
        "trimming. The random numbers follow from --seed, the tensor's name, the model's place and the "
        "value's.\n"
        "Examples:\n"
        "    apr merge a.apr b.apr -o soup.apr\n"
        "    apr merge math.apr code.apr --strategy ties --base-model base.apr --density 0.3 -o both.apr\n"
        "    apr merge a b --strategy slerp --t 0.3 --quantize q4k | apr-export gguf > m.gguf",
};

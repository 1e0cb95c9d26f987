#include "to_apr.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "convert.h"
#include "fmt/apr_meta.h"
#include "load.h"
#include "plan.h"
#include "provenance.h"

struct job {
    struct to_apr_args *args;
    const char *step;
    struct apr_ctx *ctx;
    struct apr_model *m, *data; /* data: see to_apr_source; may be m */
    const struct apr_kern *kern;
    struct apr_pool *pool;
    struct apr_quantize types;
    struct apr_plan_how how;
    struct apr_plan plan;
    json_t *meta;             /* owned */
    const json_t *provenance; /* borrowed, or NULL */
    uint64_t n_held_bytes;
};

static enum apr_code check_source(const struct job *j, const char *format, struct apr_err *e)
{
    const struct apr_model *m = j->m;
    const char *arch = j->args->arch;
    if (format && apr_fmt_named(format) != m->fmt)
        return apr_fail(e, APR_EFORMAT, "%s: expected format %s, found %s", m->path, format, m->fmt->name);
    if (m->vocab_only || m->n_tensors == 0)
        return apr_fail(e, APR_EFORMAT, "%s: no tensors found; a model needs weights", m->path);
    if (j->args->enforce_provenance && m->fmt->gguf_rules)
        return apr_fail(e, APR_ECONTRACT,
                        "%s: F-GT-001: a GGUF was quantized elsewhere; expected SafeTensors", m->path);
    if (arch && strcmp(arch, "auto") != 0 && (!m->family || strcmp(m->family->name, arch) != 0))
        return apr_fail(e, APR_ECONTRACT, "%s: --arch %s: found %s", m->path, arch,
                        m->family ? m->family->name : "an unknown family");
    return APR_OK;
}

/* Names, shapes and sizes, before a byte of data is read. (F-ARCH-003) */
static enum apr_code gate(const struct job *j, struct apr_err *e)
{
    if (!j->ctx->gated) return APR_OK;
    struct apr_verdict v;
    apr_verdict_init(&v, j->ctx->arena);
    apr_contract_structure(j->m, &v);
    return apr_verdict_error(&v, j->m->path, e);
}

static void put_quantization(const struct job *j, json_t *apr)
{
    if (!j->types.recipe) return;
    json_t *q = json_object();
    json_object_set_new(q, "recipe", json_string(j->types.recipe->name));
    if (j->types.recipe->file_type != APR_NO_FILE_TYPE)
        json_object_set_new(q, "file_type", json_integer(j->types.recipe->file_type));
    if (j->types.pure) json_object_set_new(q, "pure", json_true());
    apr_quantize_describe(&j->types, q);
    json_object_set_new(apr, "quantization", q);
}

static enum apr_code make_meta(struct job *j, struct apr_err *e)
{
    TRY(apr_meta_build(j->m, &j->meta, e));
    json_t *apr = json_object_get(j->meta, "apr");
    json_t *provenance = j->provenance ? json_deep_copy(j->provenance) : apr_provenance_of(j->m);
    if (!j->provenance) apr_provenance_step(provenance, j->step, j->types.recipe, j->types.pure);
    json_t *steps = json_object_get(provenance, "steps");
    if (json_array_size(steps) > 0)
        apr_quantize_describe(&j->types, json_array_get(steps, json_array_size(steps) - 1));
    json_object_set_new(apr, "provenance", provenance);
    put_quantization(j, apr);
    if (j->args->materialize_head) json_object_set_new(j->meta, "tied_embeddings", json_false());
    j->plan.meta = j->meta;
    j->plan.vocab = &j->m->vocab;
    return APR_OK;
}

static enum apr_code report_plan(const struct job *j, struct apr_err *e)
{
    struct apr_out *o = apr_out_open(stdout, j->ctx->g->json, "apr.plan/1");
    enum apr_code code =
        apr_plan_report(&j->plan, j->how.fmt, apr_convert_peak_bytes(j->pool) + j->n_held_bytes, o, e);
    enum apr_code closed = apr_out_close(o, e);
    return code != APR_OK ? code : closed;
}

static enum apr_code report_done(const struct job *j, const char *output, uint64_t n_out, int64_t ns,
                                 struct apr_err *e)
{
    uint64_t n_in = 0;
    for (uint64_t i = 0; i < j->plan.n_tensors; i++) n_in += j->plan.tensors[i].src->n_bytes;
    double s = (double)ns * 1e-9;
    if (!j->ctx->g->json) {
        apr_note("%" PRIu64 " tensors, %.1f MB in, %.1f MB out, %.2f s, %.0f MB/s", j->plan.n_tensors,
                 (double)n_in * 1e-6, (double)n_out * 1e-6, s, (double)n_in * 1e-6 / s);
        return APR_OK;
    }
    struct apr_out *o = apr_out_open(stdout, true, "apr.import/1");
    apr_out_str(o, "output", output);
    apr_out_str(o, "family", j->m->family ? j->m->family->name : NULL);
    apr_out_str(o, "recipe", j->types.recipe ? j->types.recipe->name : NULL);
    apr_out_u64(o, "n_tensors", j->plan.n_tensors);
    apr_out_u64(o, "n_fallbacks", j->how.n_fallbacks);
    apr_out_u64(o, "source_bytes", n_in);
    apr_out_u64(o, "output_bytes", n_out);
    apr_out_f64(o, "seconds", s);
    return apr_out_close(o, e);
}

/* The plan was made for the model's types; values come from where they are. */
static enum apr_code take_data(struct job *j, struct apr_err *e)
{
    for (uint64_t i = 0; j->data != j->m && i < j->plan.n_tensors; i++) {
        struct apr_plan_tensor *p = &j->plan.tensors[i];
        const struct apr_tensor *t = apr_model_find(j->data, p->src->name);
        if (!t) return apr_fail(e, APR_ECONTRACT, "%s: tensor %s is missing", j->data->path, p->src->name);
        p->src = t;
    }
    return APR_OK;
}

static enum apr_code write_output(struct job *j, const char *output, struct apr_err *e)
{
    struct apr_sink *s;
    int64_t ns = apr_now_ns();
    TRY(take_data(j, e));
    TRY(apr_sink_open(&s, output, j->args->force, e));
    struct apr_convert c = {.model = j->data,
                            .plan = &j->plan,
                            .fmt = j->how.fmt,
                            .kern = j->kern,
                            .pool = j->pool,
                            .gate = j->ctx->gated};
    json_t *trailer = json_object();
    enum apr_code code = apr_convert_run(&c, s, trailer, e);
    json_decref(trailer);
    if (code != APR_OK && !apr_sink_failed(s)) {
        apr_sink_abort(s);
        return code;
    }
    apr_sink_sync(s);
    uint64_t n_out = apr_sink_stored(s);
    TRY(apr_sink_finish(s, e));
    return report_done(j, output, n_out, apr_now_ns() - ns, e);
}

static enum apr_code run(struct job *j, const char *format, struct apr_err *e)
{
    TRY(apr_quantize_open(&j->types, &j->args->types, j->ctx->arena, e));
    TRY(check_source(j, format, e));
    TRY(apr_override_apply(&j->args->over, j->m, e));
    TRY(gate(j, e));
    if (j->args->hash_sources && !j->provenance) TRY(apr_provenance_hash(j->m, e));
    j->how = (struct apr_plan_how){.fmt = apr_fmt_named("apr"),
                                   .recipe = j->types.recipe,
                                   .pure = j->types.pure,
                                   .requantize = j->types.requantize,
                                   .overrides = &j->types.overrides,
                                   .imatrix = j->types.imatrix,
                                   .materialize_head = j->args->materialize_head};
    TRY(apr_plan_make(j->m, &j->how, j->ctx->arena, &j->plan, e));
    if (j->args->compress && !apr_pack_named(j->args->compress, &j->plan.pack))
        return apr_fail(e, APR_EUSAGE, "--compress %s: expected none, lz4, zstd or zstd-max",
                        j->args->compress);
    TRY(make_meta(j, e));
    return j->args->dry_run ? report_plan(j, e) : write_output(j, j->args->output ? j->args->output : "-", e);
}

enum apr_code to_apr_check_output(const struct to_apr_args *args, const struct apr_ctx *ctx,
                                  struct apr_err *e)
{
    if (args->dry_run || (args->output && strcmp(args->output, "-") != 0)) return APR_OK;
    if (isatty(STDOUT_FILENO))
        return apr_fail(e, APR_EUSAGE, "standard output is a terminal; name an output with -o FILE");
    if (ctx->g->json)
        return apr_fail(e, APR_EUSAGE, "--json needs -o FILE: standard output carries the model");
    return APR_OK;
}

enum apr_code to_apr_from(struct to_apr_args *args, const char *step, const struct to_apr_source *source,
                          struct apr_ctx *ctx, struct apr_err *e)
{
    struct job j = {.args = args,
                    .step = step,
                    .ctx = ctx,
                    .m = source->model,
                    .data = source->data ? source->data : source->model,
                    .provenance = source->provenance,
                    .n_held_bytes = source->n_held_bytes,
                    .kern = source->kern,
                    .pool = source->pool};
    enum apr_code code = run(&j, NULL, e);
    apr_quantize_close(&j.types);
    json_decref(j.meta);
    apr_override_close(&args->over);
    return code;
}

enum apr_code to_apr_run(struct to_apr_args *args, const char *step, const char *format, const char *source,
                         struct apr_ctx *ctx, struct apr_err *e)
{
    struct job j = {.args = args, .step = step, .ctx = ctx};
    TRY(to_apr_check_output(args, ctx, e));
    TRY(apr_kern_pick(&j.kern, e));
    TRY(apr_load_model(source, APR_LOAD_STREAM | APR_LOAD_HASH, &j.m, e));
    j.data = j.m;
    j.pool = apr_pool_open((unsigned)args->n_threads);
    enum apr_code code = run(&j, format, e);
    apr_pool_close(j.pool);
    apr_quantize_close(&j.types);
    json_decref(j.meta);
    apr_model_close(j.m);
    apr_override_close(&args->over);
    return code;
}

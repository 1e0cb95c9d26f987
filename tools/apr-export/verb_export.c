#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "convert.h"
#include "folder.h"
#include "gguf_keys.h"
#include "load.h"
#include "metadata.h"
#include "override.h"
#include "plan.h"
#include "provenance.h"
#include "quantize.h"
#include "split.h"
#include "verbs.h"

struct export_args {
    struct apr_quantize_args types;
    const char *format, *output, *max_shard_size, *split_max_size;
    uint64_t split_max_tensors;
    bool force, materialize_head, no_provenance, dry_run, list_formats;
    uint64_t n_threads;
    const char *metadata;
    struct apr_override over;
};

static const struct apr_opt opts[] = {
    APR_OPT(struct export_args, format, "format", 0, "FORMAT", "gguf or safetensors (default: safetensors)"),
    APR_OPT(struct export_args, output, "output", 'o', "FILE",
            "write to FILE, or to a Hugging Face folder; - is standard output"),
    APR_QUANTIZE_OPTIONS(struct export_args, types),
    APR_OPT(struct export_args, materialize_head, "materialize-head", 0, NULL,
            "write a tied lm_head as a tensor of its own"),
    APR_OPT(struct export_args, no_provenance, "no-provenance", 0, NULL,
            "leave out the keys that tell where the model comes from"),
    APR_OPT(struct export_args, max_shard_size, "max-shard-size", 0, "SIZE",
            "cut the SafeTensors of a folder into shards of at most SIZE (5GB)"),
    APR_OPT(struct export_args, split_max_size, "split-max-size", 0, "SIZE",
            "write a split GGUF of parts with at most SIZE of data"),
    APR_OPT(struct export_args, split_max_tensors, "split-max-tensors", 0, "N",
            "write a split GGUF of parts with at most N tensors"),
    APR_OVERRIDE_OPTIONS(struct export_args, over),
    APR_OPT(struct export_args, metadata, "metadata", 0, "FILE",
            "JSON object of GGUF keys that replace or add to the model's"),
    APR_OPT(struct export_args, force, "force", 'f', NULL, "replace an existing output"),
    APR_OPT(struct export_args, dry_run, "dry-run", 'n', NULL,
            "show type, size and place of every tensor and stop"),
    APR_OPT(struct export_args, list_formats, "list-formats", 0, NULL,
            "list the formats that can be written and stop"),
    APR_OPT(struct export_args, n_threads, "threads", 'j', "N", "use N threads (0: all CPUs)"),
};

struct job {
    struct export_args *args;
    struct apr_ctx *ctx;
    struct apr_model *m;
    const struct apr_kern *kern;
    struct apr_pool *pool;
    struct apr_quantize types;
    struct apr_plan_how how;
    struct apr_plan plan;
    struct apr_kvs kvs;
    json_t *provenance, *st_meta, *own; /* owned; own: of --metadata */
    bool to_folder;
    struct parts_limit limit; /* both 0: one file */
};

static enum apr_code list_formats(bool json, struct apr_err *e)
{
    struct apr_out *o = apr_out_open(stdout, json, "apr.formats/1");
    const struct apr_fmt *f;
    apr_out_arr(o, "formats");
    for (size_t i = 0; (f = apr_fmt_at(i)) != NULL; i++) {
        if (!f->begin) continue;
        apr_out_obj(o, NULL);
        apr_out_str(o, "name", f->name);
        apr_out_str(o, "aliases", f->aliases);
        apr_out_end(o);
    }
    apr_out_end(o);
    return apr_out_close(o, e);
}

static enum apr_code check_source(const struct job *j, struct apr_err *e)
{
    if (j->m->vocab_only || j->m->n_tensors == 0)
        return apr_fail(e, APR_EFORMAT, "%s: no tensors found; a model needs weights", j->m->path);
    if (!j->ctx->gated) return APR_OK;
    struct apr_verdict v;
    apr_verdict_init(&v, j->ctx->arena);
    apr_contract_structure(j->m, &v);
    return apr_verdict_error(&v, j->m->path, e);
}

/* SafeTensors: __metadata__ holds strings only; {"format": "pt"} is what readers look for. */
static void st_meta(struct job *j)
{
    j->st_meta = json_is_object(j->m->st_metadata) ? json_deep_copy(j->m->st_metadata) : json_object();
    if (!json_object_get(j->st_meta, "format")) json_object_set_new(j->st_meta, "format", json_string("pt"));
    j->plan.meta = j->st_meta;
}

static void add_step(struct job *j)
{
    apr_provenance_step(j->provenance, "export", j->types.recipe, j->types.pure);
    const json_t *steps = json_object_get(j->provenance, "steps");
    apr_quantize_describe(&j->types, json_array_get(steps, json_array_size(steps) - 1));
}

/* quantize.imatrix.*: of this run, or as the source remembers. */
static void imatrix_keys(struct job *j)
{
    const json_t *old =
        json_object_get(json_object_get(json_object_get(j->m->apr_meta, "apr"), "quantization"), "imatrix");
    if (!j->types.imatrix) {
        if (old) apr_imatrix_keys(old, &j->kvs);
        return;
    }
    json_t *own = apr_imatrix_describe(j->types.imatrix);
    apr_imatrix_keys(own, &j->kvs);
    json_decref(own);
}

static enum apr_code make_meta(struct job *j, struct apr_err *e)
{
    if (!j->how.fmt->gguf_rules) {
        st_meta(j);
        return APR_OK;
    }
    if (!j->args->no_provenance) {
        j->provenance = apr_provenance_of(j->m);
        if (j->types.recipe) add_step(j);
    }
    apr_kvs_init(&j->kvs, j->ctx->arena);
    TRY(gguf_keys(j->m, &j->plan, apr_plan_file_type(j->m, &j->plan, j->types.recipe), j->own,
                  j->args->metadata, j->provenance, &j->kvs, e));
    imatrix_keys(j);
    j->plan.kvs = &j->kvs;
    return APR_OK;
}

static enum apr_code report_plan(const struct job *j, struct apr_err *e)
{
    struct apr_out *o = apr_out_open(stdout, j->ctx->g->json, "apr.plan/1");
    enum apr_code code = apr_plan_report(&j->plan, j->how.fmt, apr_convert_peak_bytes(j->pool), o, e);
    enum apr_code closed = apr_out_close(o, e);
    return code != APR_OK ? code : closed;
}

static enum apr_code report_done(const struct job *j, const char *output, uint32_t n_parts, uint64_t n_out,
                                 int64_t ns, struct apr_err *e)
{
    double s = (double)ns * 1e-9;
    if (!j->ctx->g->json) {
        apr_note("%" PRIu64 " tensors, %.1f MB out, %.2f s, %.0f MB/s", j->plan.n_tensors,
                 (double)n_out * 1e-6, s, (double)n_out * 1e-6 / s);
        return APR_OK;
    }
    struct apr_out *o = apr_out_open(stdout, true, "apr.export/1");
    apr_out_str(o, "output", output);
    apr_out_str(o, "format", j->how.fmt->name);
    apr_out_str(o, "recipe", j->types.recipe ? j->types.recipe->name : NULL);
    apr_out_u64(o, "n_tensors", j->plan.n_tensors);
    apr_out_u64(o, "n_fallbacks", j->how.n_fallbacks);
    apr_out_u64(o, "n_files", n_parts);
    apr_out_u64(o, "output_bytes", n_out);
    apr_out_f64(o, "seconds", s);
    return apr_out_close(o, e);
}

static enum apr_code write_file(const struct job *j, const struct apr_convert *c, const char *output,
                                uint64_t *n_out, struct apr_err *e)
{
    struct apr_sink *s;
    TRY(apr_sink_open(&s, output, j->args->force, e));
    enum apr_code code = apr_convert_run(c, s, NULL, e);
    if (code != APR_OK && !apr_sink_failed(s)) {
        apr_sink_abort(s);
        return code;
    }
    *n_out = apr_sink_pos(s);
    return apr_sink_finish(s, e);
}

static enum apr_code write_output(struct job *j, const char *output, struct apr_err *e)
{
    int64_t ns = apr_now_ns();
    uint64_t n_out = 0;
    uint32_t n_parts = 1;
    struct apr_convert c = {.model = j->m,
                            .plan = &j->plan,
                            .fmt = j->how.fmt,
                            .kern = j->kern,
                            .pool = j->pool,
                            .gate = j->ctx->gated};
    if (j->to_folder)
        TRY(folder_write(&c, output, j->limit.n_bytes, j->args->force, j->ctx->arena, &n_parts, &n_out, e));
    else if (j->limit.n_bytes || j->limit.n_tensors)
        TRY(split_write(&c, output, j->limit, j->args->force, j->ctx->arena, &n_parts, &n_out, e));
    else
        TRY(write_file(j, &c, output, &n_out, e));
    return report_done(j, output, n_parts, n_out, apr_now_ns() - ns, e);
}

static enum apr_code run_job(struct job *j, const struct apr_fmt *fmt, const char *output, struct apr_err *e)
{
    TRY(apr_quantize_open(&j->types, &j->args->types, j->ctx->arena, e));
    if (j->args->metadata && !fmt->gguf_rules)
        return apr_fail(e, APR_EUSAGE, "--metadata holds GGUF keys; %s has none", fmt->title);
    if (j->args->metadata) TRY(metadata_load(j->args->metadata, &j->own, e));
    TRY(apr_override_apply(&j->args->over, j->m, e));
    TRY(check_source(j, e));
    j->how = (struct apr_plan_how){.fmt = fmt,
                                   .recipe = j->types.recipe,
                                   .pure = j->types.pure,
                                   .requantize = j->types.requantize,
                                   .overrides = &j->types.overrides,
                                   .imatrix = j->types.imatrix,
                                   .materialize_head = j->args->materialize_head};
    TRY(apr_plan_make(j->m, &j->how, j->ctx->arena, &j->plan, e));
    if (!fmt->gguf_rules) TRY(folder_order(j->m, &j->plan, e));
    TRY(make_meta(j, e));
    return j->args->dry_run ? report_plan(j, e) : write_output(j, output, e);
}

static enum apr_code pick_parts(struct job *j, const struct apr_fmt *fmt, const char *output,
                                struct apr_err *e)
{
    const struct export_args *a = j->args;
    bool split = a->split_max_size || a->split_max_tensors;
    j->to_folder = !fmt->gguf_rules && folder_is_meant(output);
    if (split && !fmt->gguf_rules)
        return apr_fail(e, APR_EUSAGE,
                        "--split-max-size and --split-max-tensors are for GGUF; a folder of "
                        "SafeTensors has --max-shard-size");
    if (split && strcmp(output, "-") == 0)
        return apr_fail(e, APR_EUSAGE, "a split GGUF is several files; name them with -o FILE");
    if (a->max_shard_size && !j->to_folder)
        return apr_fail(e, APR_EUSAGE,
                        "--max-shard-size is for a folder of SafeTensors; name it with -o DIR");
    if (j->to_folder) j->limit.n_bytes = FOLDER_SHARD_BYTES;
    if (a->max_shard_size) TRY(parts_size("--max-shard-size", a->max_shard_size, &j->limit.n_bytes, e));
    if (a->split_max_size) TRY(parts_size("--split-max-size", a->split_max_size, &j->limit.n_bytes, e));
    j->limit.n_tensors = a->split_max_tensors;
    return APR_OK;
}

static enum apr_code check_output(const struct export_args *args, const struct apr_ctx *ctx,
                                  struct apr_err *e)
{
    if (args->dry_run || (args->output && strcmp(args->output, "-") != 0)) return APR_OK;
    if (isatty(STDOUT_FILENO))
        return apr_fail(e, APR_EUSAGE, "standard output is a terminal; name an output with -o FILE");
    if (ctx->g->json)
        return apr_fail(e, APR_EUSAGE, "--json needs -o FILE: standard output carries the model");
    return APR_OK;
}

static enum apr_code pick_format(const struct export_args *args, const char *named,
                                 const struct apr_fmt **fmt, struct apr_err *e)
{
    const char *name = named ? named : args->format ? args->format : "safetensors";
    if (named && args->format && apr_fmt_named(named) != apr_fmt_named(args->format))
        return apr_fail(e, APR_EUSAGE, "two formats are named: %s and --format %s", named, args->format);
    *fmt = apr_fmt_named(name);
    if (!*fmt || !(*fmt)->begin)
        return apr_fail(e, APR_EUSAGE, "--format %s: unknown; see --list-formats", name);
    if (*fmt == apr_fmt_named("apr"))
        return apr_fail(e, APR_EUSAGE, "--format apr: apr convert writes .apr files");
    return APR_OK;
}

static enum apr_code run(void *p, struct apr_ctx *ctx, struct apr_err *e)
{
    struct export_args *args = p;
    const struct apr_strs *in = ctx->operands;
    const char *named = in->n > 0 && apr_fmt_named(in->at[0]) ? in->at[0] : NULL;
    size_t first = named ? 1 : 0;
    struct job j = {.args = args, .ctx = ctx};
    const struct apr_fmt *fmt;
    if (args->list_formats) return list_formats(ctx->g->json, e);
    if (in->n > first + 1)
        return apr_fail(e, APR_EUSAGE, "export: %s: expected one input", in->at[first + 1]);
    TRY(pick_format(args, named, &fmt, e));
    TRY(check_output(args, ctx, e));
    TRY(pick_parts(&j, fmt, args->output ? args->output : "-", e));
    TRY(apr_kern_pick(&j.kern, e));
    TRY(apr_load_model(in->n > first ? in->at[first] : "-", APR_LOAD_STREAM, &j.m, e));
    j.pool = apr_pool_open((unsigned)args->n_threads);
    enum apr_code code = run_job(&j, fmt, args->output ? args->output : "-", e);
    apr_pool_close(j.pool);
    apr_quantize_close(&j.types);
    json_decref(j.provenance);
    json_decref(j.st_meta);
    json_decref(j.own);
    apr_model_close(j.m);
    apr_override_close(&args->over);
    return code;
}

const struct apr_verb verb_export = {
    .name = "export",
    .operands = "[FORMAT] [INPUT]",
    .n_operands_max = 2,
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .args_bytes = sizeof(struct export_args),
    .run = run,
    .details = "INPUT is an .apr, a Hugging Face folder, SafeTensors, GGUF, or - (the default) for standard "
               "input. GGUF gets "
               "the keys, names and types that llama.cpp's converter writes; quantized blocks pass through "
               "unchanged. A SafeTensors output that is not named *.safetensors is a Hugging Face folder: "
               "config.json, tokenizer files, model card, and shards with their index.\n"
               "Examples:\n"
               "    apr export model.apr --format gguf -o model.gguf\n"
               "    apr export model.gguf --format safetensors --quantize bf16 -o DIR/\n"
               "    apr export model.apr --format gguf --split-max-size 2G -o model.gguf\n"
               "    apr-import st DIR --quantize q4k | apr-export gguf > model.gguf",
};

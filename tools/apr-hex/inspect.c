/* inspect: what a model file says about itself. */
#include <inttypes.h>
#include <string.h>

#include "fmt/apr_meta.h"
#include "fmt/fmt.h"
#include "level.h"
#include "load.h"
#include "provenance.h"
#include "show.h"
#include "verbs.h"

#define LONG_TEXT_BYTES 200

struct inspect_args {
    bool vocab, filters, weights, provenance;
};

static const struct apr_opt opts[] = {
    APR_OPT(struct inspect_args, vocab, "vocab", 0, NULL, "show the tokenizer: kind, sizes, special tokens"),
    APR_OPT(struct inspect_args, filters, "filters", 0, NULL, "show the mel filter bank of an audio model"),
    APR_OPT(struct inspect_args, weights, "weights", 0, NULL, "list the tensors"),
    APR_OPT(struct inspect_args, provenance, "provenance", 0, NULL,
            "show sources, steps and the hash of every tensor, as far as the file knows them"),
};

static const struct {
    const char *name;
    uint32_t bit;
} flags[] = {
    {"lz4_compressed", 0x0001}, {"zstd_compressed", 0x0002}, {"encrypted", 0x0004},  {"signed", 0x0008},
    {"sharded", 0x0010},        {"quantized", 0x0020},       {"filterbank", 0x0040}, {"model_card", 0x0080},
    {"streaming", 0x0100},      {"has_vocab", 0x0200},       {"row_major", 0x0400},
};

/* ---- head --------------------------------------------------------------------------------------------- */

static uint64_t n_params(const struct apr_model *m)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < m->n_tensors; i++) n += apr_tensor_elems(&m->tensors[i]);
    return n;
}

static void show_apr_header(const struct apr_model *m, struct apr_out *o)
{
    char version[32];
    (void)snprintf(version, sizeof version, "%" PRIu32 ".%" PRIu32, m->header.version,
                   m->header.version_minor);
    apr_out_str(o, "version", version);
    apr_out_bool(o, "checksum_valid", true); /* the header's; a wrong one was refused */
    apr_out_bool(o, "has_footer", m->header.has_footer);
    apr_out_obj(o, "flags");
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
        apr_out_bool(o, flags[i].name, (m->header.flags & flags[i].bit) != 0);
    apr_out_end(o);
}

static void show_head(const struct apr_model *m, bool json, struct apr_out *o)
{
    char format[64];
    apr_out_str(o, "file", m->path);
    apr_out_bool(o, "valid", true);
    apr_out_str(o, "format", show_format(m, format, sizeof format));
    if (m->apr_meta) show_apr_header(m, o);
    apr_out_bytes(o, "size_bytes", show_file_bytes(m));
    if (json) apr_out_u64(o, "file_size", show_file_bytes(m)); /* the same, under the original's key */
    apr_out_u64(o, "n_files", m->n_files);
    apr_out_u64(o, "tensor_count", m->n_tensors);
    apr_out_u64(o, "total_params", n_params(m));
    apr_out_bytes(o, "data_bytes", m->header.n_data_bytes);
    apr_out_u64(o, "data_offset", m->header.off_data);
    apr_out_str(o, "name", m->name);
    apr_out_str(o, "architecture", m->arch);
    apr_out_str(o, "family", m->family ? m->family->name : NULL);
    if (m->unsupported) apr_out_str(o, "unsupported", m->unsupported);
    apr_out_str(o, "quantization", apr_level_main(m));
}

/* ---- metadata ----------------------------------------------------------------------------------------- */

static void show_kv_number(struct apr_out *o, const struct apr_kv *kv)
{
    char text[64];
    if (kv->type == APR_KV_BOOL)
        (void)snprintf(text, sizeof text, "%s", kv->v.b ? "true" : "false");
    else if (kv->type == APR_KV_F32 || kv->type == APR_KV_F64)
        (void)snprintf(text, sizeof text, "%.9g", kv->v.f);
    else if (kv->type == APR_KV_I8 || kv->type == APR_KV_I16 || kv->type == APR_KV_I32 ||
             kv->type == APR_KV_I64)
        (void)snprintf(text, sizeof text, "%" PRId64, kv->v.i);
    else
        (void)snprintf(text, sizeof text, "%" PRIu64, kv->v.u);
    apr_out_str(o, kv->key.p, text);
}

/* On a terminal a chat template or a licence would hide the rest: there long text is cut. */
static void show_text(struct apr_out *o, const char *key, const char *s, size_t n, bool json)
{
    char text[160];
    if (json || n <= LONG_TEXT_BYTES) {
        apr_out_strn(o, key, s, n);
    } else {
        (void)snprintf(text, sizeof text, "%zu bytes, see --json", n);
        apr_out_str(o, key, text);
    }
}

/* Keys of a GGUF, each as a string; an array as its length and type. */
static void show_kvs(const struct apr_model *m, bool json, struct apr_out *o)
{
    for (size_t i = 0; i < m->kvs.n; i++) {
        const struct apr_kv *kv = &m->kvs.at[i];
        char text[96];
        if (kv->type == APR_KV_STR) {
            show_text(o, kv->key.p, kv->v.s.p, kv->v.s.n_bytes, json);
        } else if (kv->type == APR_KV_ARRAY) {
            (void)snprintf(text, sizeof text, "%" PRIu64 " x %s", kv->v.a.n, apr_kv_type_name(kv->elem_type));
            apr_out_str(o, kv->key.p, text);
        } else {
            show_kv_number(o, kv);
        }
    }
}

/* The original's list of keys, as far as they are set. */
static void show_apr_metadata(const struct apr_model *m, bool json, struct apr_out *o)
{
    static const char *const keys[] = {"model_type",
                                       "name",
                                       "description",
                                       "author",
                                       "license",
                                       "version",
                                       "source",
                                       "original_format",
                                       "created_at",
                                       "architecture",
                                       "param_count",
                                       "vocab_size",
                                       "hidden_size",
                                       "num_layers",
                                       "num_heads",
                                       "num_kv_heads",
                                       "head_dim",
                                       "intermediate_size",
                                       "max_position_embeddings",
                                       "rope_theta",
                                       "rope_type",
                                       "rms_norm_eps",
                                       "tied_embeddings",
                                       "chat_format",
                                       "chat_template",
                                       "special_tokens",
                                       "source_metadata",
                                       "custom",
                                       "quantization",
                                       "sharding"};
    const json_t *recipe = json_object_get(json_object_get(m->apr_meta, "apr"), "quantization");
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const json_t *v = json_object_get(m->apr_meta, keys[i]);
        if (json_is_string(v))
            show_text(o, keys[i], json_string_value(v), json_string_length(v), json);
        else if (v && !json_is_null(v))
            show_json(o, keys[i], v);
    }
    if (recipe) show_json(o, "recipe", recipe);
}

static void show_config(const struct apr_model *m, struct apr_out *o)
{
    const struct apr_config *c = &m->config;
    if (!m->family || !c->n_hidden) return;
    apr_out_obj(o, "config");
    apr_out_u64(o, "num_layers", c->n_layers);
    apr_out_u64(o, "hidden_size", c->n_hidden);
    apr_out_u64(o, "num_heads", c->n_heads);
    apr_out_u64(o, "num_kv_heads", c->n_heads_kv);
    apr_out_u64(o, "head_dim", c->head_dim);
    apr_out_u64(o, "intermediate_size", c->n_inter);
    apr_out_u64(o, "vocab_size", c->n_vocab);
    apr_out_u64(o, "max_position_embeddings", c->n_ctx_train);
    apr_out_f64(o, "rope_theta", c->rope_theta);
    apr_out_f64(o, "rms_norm_eps", c->norm_eps);
    apr_out_bool(o, "tied_embeddings", c->tied);
    apr_out_end(o);
}

static void show_metadata(const struct apr_model *m, bool json, struct apr_out *o)
{
    apr_out_obj(o, "metadata");
    if (m->apr_meta)
        show_apr_metadata(m, json, o);
    else if (m->has_kvs)
        show_kvs(m, json, o);
    else if (m->st_metadata)
        for (void *i = json_object_iter(m->st_metadata); i; i = json_object_iter_next(m->st_metadata, i))
            show_json(o, json_object_iter_key(i), json_object_iter_value(i));
    apr_out_end(o);
}

/* ---- on demand ---------------------------------------------------------------------------------------- */

static void show_special(const struct apr_vocab *v, const char *name, int64_t id, struct apr_out *o)
{
    if (id < 0 || id >= v->n_toks) return;
    apr_out_obj(o, NULL);
    apr_out_str(o, "role", name);
    apr_out_i64(o, "id", id);
    apr_out_strn(o, "text", v->toks[id].p, v->toks[id].n_bytes);
    apr_out_end(o);
}

static void show_vocab(const struct apr_model *m, struct apr_out *o)
{
    static const char *const kinds[] = {"none", "bpe", "spm", "wordpiece", "unigram"};
    const struct apr_vocab *v = &m->vocab;
    apr_out_obj(o, "vocab");
    apr_out_str(o, "kind", kinds[v->kind]);
    apr_out_u64(o, "n_tokens", v->n_toks);
    apr_out_u64(o, "n_merges", v->n_merges);
    apr_out_str(o, "pre_tokenizer", v->pre);
    apr_out_bool(o, "has_chat_template", v->chat_template != NULL);
    if (v->n_templates) {
        apr_out_arr(o, "named_chat_templates");
        for (uint32_t i = 0; i < v->n_templates; i++) apr_out_str(o, NULL, v->templates[i].name);
        apr_out_end(o);
    }
    apr_out_arr(o, "special_tokens");
    show_special(v, "bos", v->bos_id, o);
    show_special(v, "eos", v->eos_id, o);
    show_special(v, "unk", v->unk_id, o);
    show_special(v, "sep", v->sep_id, o);
    show_special(v, "pad", v->pad_id, o);
    show_special(v, "cls", v->cls_id, o);
    show_special(v, "mask", v->mask_id, o);
    show_special(v, "eot", v->eot_id, o);
    for (uint32_t i = 0; i < m->generation.n_eos; i++) show_special(v, "end", m->generation.eos_ids[i], o);
    apr_out_end(o);
    apr_out_end(o);
}

static void show_tensor(const struct apr_model *m, const struct apr_tensor *t, struct apr_out *o)
{
    apr_out_obj(o, NULL);
    apr_out_str(o, "name", t->name);
    apr_out_str(o, "dtype", apr_type_name(t->type));
    show_shape(o, "shape", t);
    apr_out_bytes(o, "size_bytes", t->n_bytes);
    apr_out_u64(o, "offset", t->off_file);
    apr_out_str(o, "in", m->files[t->i_file].name);
    apr_out_end(o);
}

static void show_filters(const struct apr_model *m, struct apr_out *o)
{
    apr_out_arr(o, "filters");
    for (uint64_t i = 0; i < m->n_tensors; i++)
        if (strstr(m->tensors[i].name, "mel_filter") || strstr(m->tensors[i].name, "filterbank"))
            show_tensor(m, &m->tensors[i], o);
    apr_out_end(o);
}

/* One source file: what is known of it, wherever it is recorded. */
static void show_source(const json_t *row, const json_t *trail, struct apr_out *o)
{
    const char *name = json_string_value(json_object_get(row, "name"));
    const char *sha256 = json_string_value(json_object_get(row, "sha256"));
    const json_t *size = json_object_get(row, "size_bytes");
    apr_out_obj(o, NULL);
    apr_out_str(o, "name", name);
    if (json_is_integer(size)) apr_out_i64(o, "size_bytes", json_integer_value(size));
    if (!sha256 && name) sha256 = json_string_value(json_object_get(trail, name));
    apr_out_str(o, "sha256", sha256 ? sha256 : "not recorded");
    apr_out_end(o);
}

static void show_step(const json_t *step, struct apr_out *o)
{
    apr_out_obj(o, NULL);
    apr_out_str(o, "step", json_string_value(json_object_get(step, "step")));
    apr_out_str(o, "recipe", json_string_value(json_object_get(step, "recipe")));
    apr_out_str(o, "tool", json_string_value(json_object_get(step, "tool")));
    apr_out_end(o);
}

/* From the sources to this file, for people; --json shows the document as it is. */
static void show_chain(const struct apr_model *m, const json_t *own, struct apr_out *o)
{
    const json_t *list = json_object_get(own, "sources"), *steps = json_object_get(own, "steps");
    apr_out_obj(o, "chain");
    apr_out_str(o, "repository", json_string_value(json_object_get(own, "repository")));
    apr_out_str(o, "revision", json_string_value(json_object_get(own, "revision")));
    apr_out_arr(o, "sources");
    for (size_t i = 0; i < json_array_size(list); i++)
        show_source(json_array_get(list, i), json_object_get(m->trailer, "sources"), o);
    apr_out_end(o);
    apr_out_arr(o, "steps");
    for (size_t i = 0; i < json_array_size(steps); i++) show_step(json_array_get(steps, i), o);
    apr_out_end(o);
    apr_out_end(o);
}

static void show_files(const struct apr_model *m, struct apr_out *o)
{
    apr_out_arr(o, "files");
    for (uint32_t i = 0; i < m->n_files; i++) {
        apr_out_obj(o, NULL);
        apr_out_str(o, "name", m->files[i].name);
        apr_out_str(o, "sha256", m->files[i].sha256);
        apr_out_end(o);
    }
    apr_out_end(o);
}

static void show_provenance(const struct apr_model *m, bool json, struct apr_out *o)
{
    bool carries = m->apr_meta || (m->has_kvs && apr_kvs_find(&m->kvs, "apr.provenance"));
    json_t *own = carries ? apr_provenance_of(m) : NULL;
    if (own && json) show_json(o, "provenance", own);
    if (own && !json) show_chain(m, own, o);
    json_decref(own);
    show_files(m, o);
    if (!m->trailer) return;
    if (json)
        show_json(o, "integrity", m->trailer);
    else
        apr_out_u64(o, "tensor_hashes", json_object_size(json_object_get(m->trailer, "tensors")));
}

/* ---- verb --------------------------------------------------------------------------------------------- */

static enum apr_code report(const struct inspect_args *args, const struct apr_model *m,
                            const struct apr_ctx *ctx, struct apr_err *e)
{
    struct apr_out *o = apr_out_open(stdout, ctx->g->json, "apr.inspect/1");
    show_head(m, ctx->g->json, o);
    show_config(m, o);
    show_metadata(m, ctx->g->json, o);
    if (args->vocab) show_vocab(m, o);
    if (args->filters) show_filters(m, o);
    if (args->weights) {
        apr_out_arr(o, "weights");
        for (uint64_t i = 0; i < m->n_tensors; i++) show_tensor(m, &m->tensors[i], o);
        apr_out_end(o);
    }
    if (args->provenance) show_provenance(m, ctx->g->json, o);
    return apr_out_close(o, e);
}

/* A pipe is read to its end, so that its producer can finish and a cut stream is noticed. */
static enum apr_code run(void *args, struct apr_ctx *ctx, struct apr_err *e)
{
    struct apr_model *m;
    TRY(apr_load_model(ctx->operands->n ? ctx->operands->at[0] : "-", APR_LOAD_STREAM | APR_LOAD_LOOK, &m,
                       e));
    enum apr_code code = apr_model_end(m, e);
    if (code == APR_OK) code = report(args, m, ctx, e);
    apr_model_close(m);
    return code;
}

const struct apr_verb verb_inspect = {
    .name = "inspect",
    .operands = "[MODEL]",
    .n_operands_max = 1,
    .opts = opts,
    .n_opts = sizeof opts / sizeof opts[0],
    .args_bytes = sizeof(struct inspect_args),
    .run = run,
    .details = "Shows what a model says about itself: format, sizes, family, hyper-parameters, metadata.\n"
               "MODEL is an .apr, GGUF or SafeTensors file, a Hugging Face folder, or - for standard input\n"
               "(the default). Headers are checked strictly; weights are not read. A model of an unknown\n"
               "family, or one whose weights are broken, is shown all the same.\n"
               "\n"
               "    apr inspect model.gguf --json | jq .metadata\n"
               "    apr inspect model.apr --provenance",
};

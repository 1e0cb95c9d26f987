/* oracle: names a model's family and size, and says what the contract knows about them. */
#include "oracle.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fmt/fmt.h"
#include "verbs.h"

struct oracle_args {
    const char *family, *size;
    bool compliance, tensors, stats, explain, kernels, validate, full;
};

static const struct apr_opt opts[] = {
    APR_OPT(struct oracle_args, family, "family", 0, "NAME",
            "the family's contract, whatever the source says"),
    APR_OPT(struct oracle_args, size, "size", 0, "SIZE", "one size of the family: 7b"),
    APR_OPT(struct oracle_args, compliance, "compliance", 0, NULL,
            "compare the source's tensors with the contract"),
    APR_OPT(struct oracle_args, tensors, "tensors", 0, NULL, "list the tensors that the contract asks for"),
    APR_OPT(struct oracle_args, stats, "stats", 0, NULL, "sizes, cache, work per token"),
    APR_OPT(struct oracle_args, explain, "explain", 0, NULL, "the architecture in words, with its papers"),
    APR_OPT(struct oracle_args, kernels, "kernels", 0, NULL,
            "types that this build computes with on this CPU"),
    APR_OPT(struct oracle_args, validate, "validate", 0, NULL,
            "compare the source with the contract, field by field; a MISMATCH is status 5"),
    APR_OPT(struct oracle_args, full, "full", 0, NULL,
            "all of stats, explain, kernels, validate and compliance"),
};

static void show_list(struct apr_out *o, const char *key, const char *list)
{
    apr_out_arr(o, key);
    while (*list) {
        size_t n = strcspn(list, ",");
        apr_out_strn(o, NULL, list, n);
        list += n + (list[n] == ',');
    }
    apr_out_end(o);
}

static void show_family(const struct apr_contract_family *f, const struct apr_contract_size *z,
                        struct apr_out *o)
{
    apr_out_obj(o, "family");
    apr_out_str(o, "name", f->name);
    apr_out_str(o, "display_name", f->display_name);
    apr_out_str(o, "vendor", f->vendor);
    show_list(o, "architectures", f->architectures);
    apr_out_str(o, "hf_pattern", f->hf_pattern);
    apr_out_obj(o, "constraints");
    apr_out_str(o, "attention", z ? z->attention : f->attention);
    apr_out_str(o, "activation", z ? z->activation : f->activation);
    apr_out_str(o, "norm", z ? z->norm : f->norm);
    apr_out_str(o, "mlp", z ? z->mlp : f->mlp);
    apr_out_str(o, "positional_encoding", f->position);
    apr_out_bool(o, "bias", z ? z->has_bias : f->has_bias);
    apr_out_bool(o, "tied_embeddings", z ? z->tied_embeddings : f->tied_embeddings);
    apr_out_end(o);
    apr_out_str(o, "chat_template_format", f->chat_format);
    show_list(o, "quantizations", f->quantizations);
    apr_out_end(o);
}

static void show_sizes(const struct apr_contract_family *f, struct apr_out *o)
{
    apr_out_arr(o, "sizes");
    for (size_t i = 0; i < f->n_sizes; i++) apr_out_str(o, NULL, f->sizes[i].size);
    apr_out_end(o);
}

/* What only some architectures have. */
static void show_parts_of(const struct apr_contract_size *z, struct apr_out *o)
{
    const struct {
        const char *name;
        uint64_t v;
        bool shown;
    } parts[] = {{"n_experts", z->n_experts, z->n_experts},
                 {"n_experts_used", z->n_experts_used, z->n_experts},
                 {"expert_dim", z->expert_dim, z->n_experts},
                 {"shared_expert_dim", z->shared_expert_dim, z->n_experts},
                 {"n_dense_layers", z->n_dense_layers, z->n_experts},
                 {"kv_lora_rank", z->kv_lora_rank, z->kv_lora_rank},
                 {"q_lora_rank", z->q_lora_rank, z->kv_lora_rank},
                 {"qk_nope_dim", z->qk_nope_dim, z->kv_lora_rank},
                 {"qk_rope_dim", z->qk_rope_dim, z->kv_lora_rank},
                 {"v_head_dim", z->v_head_dim, z->kv_lora_rank},
                 {"sliding_window", z->sliding_window, z->sliding_window}};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (parts[i].shown) apr_out_u64(o, parts[i].name, parts[i].v);
}

static void show_size(const struct subject *s, const struct apr_contract_size *z, struct apr_out *o)
{
    uint64_t n_expected = subject_n_tensors(s);
    apr_out_obj(o, "size_variant");
    apr_out_str(o, "name", z->size ? z->size : NULL);
    apr_out_bool(o, "listed", z->size != NULL);
    apr_out_str(o, "parameters", z->parameters);
    apr_out_u64(o, "hidden_dim", z->hidden_dim);
    apr_out_u64(o, "num_layers", z->num_layers);
    apr_out_u64(o, "num_heads", z->num_heads);
    apr_out_u64(o, "num_kv_heads", z->num_kv_heads);
    apr_out_u64(o, "intermediate_dim", z->intermediate_dim);
    apr_out_u64(o, "vocab_size", z->vocab_size);
    apr_out_u64(o, "head_dim", z->head_dim);
    apr_out_u64(o, "max_position_embeddings", z->max_position_embeddings);
    if (z->rope_theta > 0) apr_out_f64(o, "rope_theta", z->rope_theta);
    apr_out_f64(o, "norm_eps", z->norm_eps);
    show_parts_of(z, o);
    if (z->category) apr_out_str(o, "category", z->category);
    if (n_expected) apr_out_u64(o, "expected_tensor_count", n_expected);
    apr_out_end(o);
}

static void show_format(const struct apr_model *m, struct apr_out *o)
{
    uint64_t n_file = 0, n_params = 0, n_of[APR_N_TYPES] = {0};
    size_t most = 0; /* the type that holds most bytes */
    for (uint32_t i = 0; i < m->n_files; i++) n_file += m->files[i].n_bytes;
    for (uint64_t i = 0; i < m->n_tensors; i++) {
        n_params += apr_tensor_elems(&m->tensors[i]);
        if (m->tensors[i].type < APR_N_TYPES) n_of[m->tensors[i].type] += m->tensors[i].n_bytes;
    }
    for (size_t i = 0; i < APR_N_TYPES; i++)
        if (n_of[i] > n_of[most]) most = i;
    apr_out_obj(o, "format");
    apr_out_str(o, "format_type", m->fmt->title);
    apr_out_bytes(o, "file_size", n_file);
    apr_out_u64(o, "tensor_count", m->n_tensors);
    apr_out_u64(o, "total_params", n_params);
    apr_out_str(o, "quantization", n_of[most] ? apr_type_name((uint32_t)most) : NULL);
    apr_out_str(o, "architecture", m->arch);
    apr_out_end(o);
}

/* The line that people look for. */
static void show_names(const struct subject *s, const struct apr_contract_size *z, struct apr_out *o)
{
    char size[64];
    if (!z) return;
    if (z->size)
        (void)snprintf(size, sizeof size, "%s", z->parameters);
    else
        (void)snprintf(size, sizeof size, "%.4g M parameters, not a listed size",
                       (double)oracle_n_params(s, z) / 1e6);
    apr_out_text(o, "Family: %s, Size: %s", s->family->display_name, size);
}

/* Every family with its sizes, when nothing is asked for. */
static enum apr_code show_all(bool json, struct apr_err *e)
{
    const struct apr_contract_family *f;
    struct apr_out *o = apr_out_open(stdout, json, "apr.oracle/1");
    apr_out_u64(o, "proofs_first_8_families", apr_contract_n_proofs_first());
    apr_out_u64(o, "proofs", apr_contract_n_proofs());
    apr_out_arr(o, "families");
    for (size_t i = 0; (f = apr_contract_family_at(i)); i++) {
        apr_out_obj(o, NULL);
        apr_out_str(o, "name", f->name);
        apr_out_str(o, "vendor", f->vendor);
        show_sizes(f, o);
        show_list(o, "architectures", f->architectures);
        apr_out_end(o);
    }
    apr_out_end(o);
    return apr_out_close(o, e);
}

static enum apr_code no_family(const struct subject *s, struct apr_err *e)
{
    if (!s->found_arch)
        return apr_fail(e, APR_ECONTRACT,
                        "%s: F-FAMILY-001: the file does not name its architecture; --family gives one",
                        s->source);
    return apr_fail(e, APR_ECONTRACT, "%s: F-FAMILY-001: no contract for architecture \"%.64s\"", s->source,
                    s->found_arch);
}

static void show_parts(const struct subject *s, const struct oracle_args *a, struct apr_out *o)
{
    const struct apr_contract_size *z = subject_numbers(s);
    if (a->tensors) oracle_tensors(s, o);
    if (!z) return;
    if (a->stats || a->full) oracle_stats(s, z, o);
    if (a->explain || a->full) oracle_explain(s, z, o);
    if (a->kernels || a->full) oracle_kernels(s, z, o);
}

static enum apr_code check_args(const struct subject *s, const struct oracle_args *a, struct apr_err *e)
{
    if (a->validate && !s->source)
        return apr_fail(e, APR_EUSAGE, "--validate compares a source with the contract; none is given");
    if (a->compliance && !s->model)
        return apr_fail(e, APR_EUSAGE,
                        "--compliance compares tensors with the contract; no weights are given");
    if ((a->stats || a->explain || a->kernels || a->full) && !s->size && !s->has_numbers)
        return apr_fail(e, APR_EUSAGE, "a size is needed: --size, or a source that has one");
    return APR_OK;
}

static enum apr_code report(const struct subject *s, const struct oracle_args *a, bool json,
                            struct apr_arena *arena, struct apr_err *e)
{
    const struct apr_contract_size *z = subject_numbers(s);
    struct apr_verdict v;
    unsigned n_mismatches = 0;
    bool cross = (a->validate || a->full) && s->size && s->has_numbers;
    apr_verdict_init(&v, arena);
    struct apr_out *o = apr_out_open(stdout, json, "apr.oracle/1");
    apr_out_str(o, "source", s->source);
    apr_out_str(o, "mode", s->model ? "model" : s->source ? "config" : "contract");
    show_names(s, z, o);
    show_family(s->family, z, o);
    if (z)
        show_size(s, z, o);
    else
        show_sizes(s->family, o);
    if (s->model) show_format(s->model, o);
    if (cross) n_mismatches = oracle_cross(s, json, o);
    if (s->model && (a->compliance || a->validate || a->full)) oracle_compliance(s, &v, o);
    show_parts(s, a, o);
    if (n_mismatches) apr_out_text(o, "%u fields: MISMATCH", n_mismatches);
    TRY(apr_out_close(o, e));
    if (!a->validate) return APR_OK;
    if (n_mismatches)
        return apr_fail(e, APR_ECONTRACT, "%s: MISMATCH: %u fields differ from the contract of %s/%s",
                        s->source, n_mismatches, s->family->name, s->size->size);
    return apr_verdict_error(&v, s->source, e);
}

static enum apr_code run(void *p, struct apr_ctx *ctx, struct apr_err *e)
{
    const struct oracle_args *a = p;
    struct subject s;
    if (ctx->operands->n == 0 && !a->family) {
        if (a->size) return apr_fail(e, APR_EUSAGE, "--size %s: needs --family or a source", a->size);
        return show_all(ctx->g->json, e);
    }
    enum apr_code code =
        subject_open(&s, ctx->operands->n ? ctx->operands->at[0] : NULL, a->family, a->size, e);
    if (code == APR_OK && !s.family) code = no_family(&s, e);
    if (code == APR_OK) code = check_args(&s, a, e);
    if (code == APR_OK) code = report(&s, a, ctx->g->json, ctx->arena, e);
    subject_close(&s);
    return code;
}

const struct apr_verb verb_oracle = {
    .name = "oracle",
    .operands = "[SOURCE]",
    .n_operands_max = 1,
    .opts = opts,
    .n_opts = sizeof opts / sizeof *opts,
    .args_bytes = sizeof(struct oracle_args),
    .run = run,
    .details = "Names the family and the size of SOURCE (a model in any format, a Hugging Face folder, a "
               "config.json, or - "
               "for standard input) and prints the contract's numbers. Without SOURCE, --family and --size "
               "name a line of the "
               "contracts; without anything all families are listed. A size that no contract lists is "
               "described by its own "
               "numbers.\n"
               "--validate compares hyper-parameters with the contract of the size (status 5 and a MISMATCH "
               "line where they "
               "differ; a context length below the contract's is a match), and the tensors with the family's "
               "rules.\n"
               "Examples:\n"
               "    apr oracle model.gguf\n"
               "    apr oracle --family qwen2 --size 7b --stats --kernels\n"
               "    apr oracle DIR --validate",
};

/* gen-contracts: model contracts (YAML) -> build/gen/contracts.h.
 *
 *     gen-contracts bert.yaml ... whisper.yaml > contracts.h
 *
 * Runs on the build machine and is no part of the library. Each number of each size becomes a #define,
 * each algebraic rule that a number must satisfy a _Static_assert with its source, so that a wrong
 * number does not compile. Reals cannot be asserted (_Static_assert(1e6 > 0) is an error with
 * -Wpedantic), so theta and epsilon become scaled integers whose bounds #error guards.
 *
 * The schema is strict: an unknown, missing or repeated key, a wrong type, an alias or a tag ends the run
 * with file:line. Tables for contract_tables.c follow the proofs.
 */
#include "gen.h"

#include <stdio.h>
#include <string.h>

#define MAX_FILES 64

/* Activation and feed-forward shape go together: ALG-006. An unknown pair is no pair. */
static void check_pair(const struct size *z, long line)
{
    static const char *const pairs[][2] = {{"swiglu", "silu"}, {"gelu_mlp", "gelu"}, {"gated_mlp", "gelu"}};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        if (strcmp(z->mlp.at, pairs[i][0]) != 0) continue;
        if (strcmp(z->activation.at, pairs[i][1]) == 0) return;
        gen_fail_line(line, "ALG-006 Shazeer (2020): mlp_type %s requires activation %s; found %s",
                      pairs[i][0], pairs[i][1], z->activation.at);
    }
    gen_fail_line(line, "ALG-006 Shazeer (2020): no activation is known to go with mlp_type %s", z->mlp.at);
}

static const char *const attentions[] = {"mha", "gqa", NULL}, *const activations[] = {"silu", "gelu", NULL},
                         *const norms[] = {"rmsnorm", "layernorm", NULL},
                         *const mlps[] = {"swiglu", "gelu_mlp", "gated_mlp", NULL},
                         *const positions[] = {"rope", "absolute", NULL};

/* The constraints of a family, or those of them that one size overrides. */
static void get_constraints(const yaml_node_t *const *v, struct size *z)
{
    if (v[0]) gen_one_of(v[0], "attention_type", attentions, &z->attention);
    if (v[1]) gen_one_of(v[1], "activation", activations, &z->activation);
    if (v[2]) gen_one_of(v[2], "norm_type", norms, &z->norm);
    if (v[3]) gen_one_of(v[3], "mlp_type", mlps, &z->mlp);
    if (v[4]) gen_bool(v[4], "has_bias", &z->has_bias);
    if (v[5]) gen_bool(v[5], "tied_embeddings", &z->tied);
}

static void get_size(const struct family *f, struct size *z, const yaml_node_t *n)
{
    static const char *const keys[] = {"parameters",
                                       "category",
                                       "hidden_dim",
                                       "num_layers",
                                       "num_heads",
                                       "num_kv_heads",
                                       "intermediate_dim",
                                       "vocab_size",
                                       "head_dim",
                                       "max_position_embeddings",
                                       "?n_mels",
                                       "?max_source_positions",
                                       "?max_target_positions",
                                       "?rope_theta",
                                       "?rms_norm_eps",
                                       "?layer_norm_eps",
                                       "?attention_type",
                                       "?activation",
                                       "?norm_type",
                                       "?mlp_type",
                                       "?has_bias",
                                       "?tied_embeddings",
                                       NULL};
    const yaml_node_t *v[sizeof keys / sizeof keys[0]], *eps;
    bool rope = strcmp(f->position.at, "rope") == 0;
    gen_map(n, z->name.at, keys, v);
    z->line = line_of(n);
    gen_word(v[0], "parameters", &z->parameters);
    gen_word(v[1], "category", &z->category);
    for (size_t i = 0; i < N_INTS; i++)
        if (v[2 + i]) gen_u64(v[2 + i], gen_int_keys[i], &z->ints[i]);
    get_constraints(&v[16], z);
    check_pair(z, z->line);
    if (rope != (v[13] != NULL))
        fail(n, "%s: rope_theta %s", z->name.at,
             rope ? "is missing" : "in a family without rotary positions");
    if (rope)
        gen_scaled(v[13], "rope_theta", THETA_SCALE,
                   "ALG-007 Su (2024) RoPE: rope_theta must be positive and finite", &z->theta_milli,
                   &z->theta);
    eps = strcmp(z->norm.at, "rmsnorm") == 0 ? v[14] : v[15];
    if (!eps || (v[14] && v[15]))
        fail(n, "%s: expected %s alone", z->name.at, eps == v[14] ? "rms_norm_eps" : "layer_norm_eps");
    gen_scaled(eps, "norm epsilon", EPS_SCALE, "ALG-009: the norm epsilon must be finite and below 1",
               &z->eps_pico, &z->eps);
}

static void get_sizes(struct family *f, const yaml_node_t *n)
{
    if (n->type != YAML_MAPPING_NODE) fail(n, "size_variants: expected a mapping");
    for (const yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top; p++) {
        const yaml_node_t *kn = gen_node(p->key);
        struct size *z = &f->sizes[f->n_sizes];
        if (f->n_sizes == MAX_SIZES) fail(kn, "more than %d sizes", MAX_SIZES);
        *z = f->defaults;
        gen_word(kn, "size_variants", &z->name);
        gen_identifier(z->name.at, &z->id);
        for (size_t i = 0; i < f->n_sizes; i++)
            if (strcmp(f->sizes[i].id.at, z->id.at) == 0)
                fail(kn, "size_variants: key \"%s\" stands twice", z->name.at);
        get_size(f, z, gen_node(p->value));
        f->n_sizes++;
    }
    if (f->n_sizes == 0) fail(n, "size_variants: expected at least one size");
}

/* ---- tensors ---------------------------------------------------------------------------------------- */

static const char *const dim_names[] = {"vocab_size",
                                        "hidden_dim",
                                        "q_dim",
                                        "kv_dim",
                                        "qkv_dim",
                                        "intermediate_dim",
                                        "gate_up_dim",
                                        "max_position_embeddings",
                                        "n_mels",
                                        "max_source_positions",
                                        "max_target_positions",
                                        NULL};

static void check_shape(const yaml_node_t *n, const char *shape)
{
    while (*shape) {
        size_t len = strcspn(shape, ",");
        bool known = strspn(shape, "0123456789") == len;
        for (size_t i = 0; dim_names[i]; i++)
            if (strlen(dim_names[i]) == len && strncmp(dim_names[i], shape, len) == 0) known = true;
        if (!known) fail(n, "shape: unknown dimension \"%.*s\"", (int)len, shape);
        shape += len + (shape[len] == ',');
    }
}

static void check_row_sizes(const struct family *f, const yaml_node_t *n, const char *list)
{
    while (*list) {
        size_t len = strcspn(list, ",");
        bool known = false;
        for (size_t i = 0; i < f->n_sizes; i++)
            if (strlen(f->sizes[i].name.at) == len && strncmp(f->sizes[i].name.at, list, len) == 0)
                known = true;
        if (!known) fail(n, "sizes: unknown size \"%.*s\"", (int)len, list);
        list += len + (list[len] == ',');
    }
}

static void get_tensors(struct family *f, const yaml_node_t *n)
{
    static const char *const keys[] = {"role",   "hf",        "?gguf",        "shape",
                                       "?sizes", "?critical", "?unless_tied", NULL};
    const yaml_node_t *v[sizeof keys / sizeof keys[0]];
    if (n->type != YAML_SEQUENCE_NODE) fail(n, "tensors: expected a list");
    for (const yaml_node_item_t *i = n->data.sequence.items.start; i < n->data.sequence.items.top; i++) {
        const yaml_node_t *rn = gen_node(*i);
        struct row *r = &f->rows[f->n_rows];
        if (f->n_rows == MAX_ROWS) fail(rn, "more than %d tensors", MAX_ROWS);
        gen_map(rn, "tensors", keys, v);
        gen_word(v[0], "role", &r->role);
        gen_word(v[1], "hf", &r->hf);
        if (v[2]) gen_word(v[2], "gguf", &r->gguf);
        gen_list(v[3], "shape", &r->shape);
        check_shape(v[3], r->shape.at);
        if (v[4]) gen_list(v[4], "sizes", &r->sizes);
        if (v[4]) check_row_sizes(f, v[4], r->sizes.at);
        if (v[5]) gen_bool(v[5], "critical", &r->critical);
        if (v[6]) gen_bool(v[6], "unless_tied", &r->unless_tied);
        for (size_t k = 0; k < f->n_rows; k++)
            if (strcmp(f->rows[k].hf.at, r->hf.at) == 0 && strcmp(f->rows[k].sizes.at, r->sizes.at) == 0)
                fail(rn, "tensors: \"%s\" stands twice", r->hf.at);
        f->n_rows++;
    }
    if (f->n_rows == 0) fail(n, "tensors: expected at least one tensor");
}

static void get_chat(struct family *f, const yaml_node_t *n)
{
    static const char *const keys[] = {"format", "?bos_token", "?eos_token", "?special_tokens", NULL};
    const yaml_node_t *v[4];
    size_t len = 0;
    gen_map(n, "chat_template", keys, v);
    gen_word(v[0], "format", &f->chat_format);
    if (v[1]) gen_str(v[1], "bos_token", &f->bos);
    if (v[2]) gen_str(v[2], "eos_token", &f->eos);
    if (!v[3]) return;
    if (v[3]->type != YAML_MAPPING_NODE) fail(v[3], "special_tokens: expected a mapping");
    for (const yaml_node_pair_t *p = v[3]->data.mapping.pairs.start; p < v[3]->data.mapping.pairs.top; p++) {
        struct str key, value;
        char probe[MAX_TEXT + 3];
        gen_word(gen_node(p->key), "special_tokens", &key);
        gen_word(gen_node(p->value), "special_tokens", &value);
        snprintf(probe, sizeof probe, " %s=", key.at);
        if (strchr(key.at, ' ') || strchr(value.at, ' ') || strstr(f->special.at, probe))
            fail(v[3], "special_tokens: key \"%s\" stands twice, or a space", key.at);
        if (len + strlen(key.at) + strlen(value.at) + 3 > sizeof f->special.at)
            fail(v[3], "special_tokens: too long");
        len += (size_t)snprintf(f->special.at + len, sizeof f->special.at - len, " %s=%s", key.at, value.at);
    }
}

static void get_family(struct family *f, const yaml_node_t *n)
{
    static const char *const keys[] = {
        "family",      "display_name",  "vendor",  "hf_pattern",    "architectures",
        "constraints", "size_variants", "tensors", "chat_template", "quantizations",
        NULL};
    static const char *const constraint_keys[] = {
        "attention_type", "activation",      "norm_type",           "mlp_type",
        "has_bias",       "tied_embeddings", "positional_encoding", NULL};
    const yaml_node_t *v[10], *c[7];
    gen_map(n, "contract", keys, v);
    gen_word(v[0], "family", &f->name);
    gen_identifier(f->name.at, &f->id);
    gen_word(v[1], "display_name", &f->display_name);
    gen_word(v[2], "vendor", &f->vendor);
    gen_word(v[3], "hf_pattern", &f->hf_pattern);
    gen_list(v[4], "architectures", &f->architectures);
    gen_map(v[5], "constraints", constraint_keys, c);
    get_constraints(c, &f->defaults);
    gen_one_of(c[6], "positional_encoding", positions, &f->position);
    check_pair(&f->defaults, line_of(v[5]));
    get_sizes(f, v[6]);
    get_tensors(f, v[7]);
    get_chat(f, v[8]);
    gen_list(v[9], "quantizations", &f->quantizations);
}

int main(int argc, char **argv)
{
    static struct family families[MAX_FILES];
    size_t n = (size_t)argc - 1;
    if (argc < 2 || n > MAX_FILES) {
        fprintf(stderr, "usage: gen-contracts FILE.yaml ... > contracts.h\n");
        return 2;
    }
    for (size_t i = 0; i < n; i++) {
        get_family(&families[i], gen_open(argv[i + 1]));
        for (size_t k = 0; k < i; k++)
            if (strcmp(families[k].id.at, families[i].id.at) == 0)
                gen_fail_line(1, "family \"%s\" stands twice", families[i].name.at);
        gen_close();
    }
    gen_emit(families, n);
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}

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

static const char *const attentions[] = {"mha", "gqa", "mla", NULL},
                         *const activations[] = {"silu", "gelu", NULL},
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

enum { PARAMETERS = N_INTS, CATEGORY, THETA, RMS_EPS, LAYER_EPS, CONSTRAINTS, N_SIZE_KEYS = CONSTRAINTS + 6 };

/* Experts and latent attention are given whole or not at all; the shape rules are proofs. */
static void check_parts(const struct size *z, const yaml_node_t *n)
{
    bool mla = strcmp(z->attention.at, "mla") == 0;
    if (!z->ints[EXPERTS] &&
        (z->ints[EXPERTS_USED] || z->ints[EXPERT_DIM] || z->ints[SHARED_DIM] || z->ints[DENSE_LAYERS]))
        fail(n, "%s: n_experts is missing", z->name.at);
    if (mla != (z->ints[KV_RANK] != 0))
        fail(n, "%s: kv_lora_rank %s", z->name.at, mla ? "is missing" : "without attention_type mla");
    if (!mla && (z->ints[Q_RANK] || z->ints[NOPE_DIM] || z->ints[ROPE_DIM] || z->ints[V_DIM]))
        fail(n, "%s: parts of latent attention without attention_type mla", z->name.at);
}

static void get_reals(const struct family *f, struct size *z, const yaml_node_t *n,
                      const yaml_node_t *const *v)
{
    bool rope = strcmp(f->position.at, "rope") == 0, rms = strcmp(z->norm.at, "rmsnorm") == 0;
    const yaml_node_t *eps = v[rms ? RMS_EPS : LAYER_EPS];
    if (rope != (v[THETA] != NULL))
        fail(n, "%s: rope_theta %s", z->name.at,
             rope ? "is missing" : "in a family without rotary positions");
    if (rope)
        gen_scaled(v[THETA], "rope_theta", THETA_SCALE,
                   "ALG-007 Su (2024) RoPE: rope_theta must be positive and finite", &z->theta_milli,
                   &z->theta);
    if (!eps || (v[RMS_EPS] && v[LAYER_EPS]))
        fail(n, "%s: expected %s alone", z->name.at, rms ? "rms_norm_eps" : "layer_norm_eps");
    gen_scaled(eps, "norm epsilon", EPS_SCALE, "ALG-009: the norm epsilon must be finite and below 1",
               &z->eps_pico, &z->eps);
}

static void get_size(const struct family *f, struct size *z, const yaml_node_t *n)
{
    static const char *const others[] = {
        "parameters",  "category",   "?rope_theta", "?rms_norm_eps", "?layer_norm_eps", "?attention_type",
        "?activation", "?norm_type", "?mlp_type",   "?has_bias",     "?tied_embeddings"};
    const char *keys[N_SIZE_KEYS + 1] = {NULL};
    char optional[N_INTS][48];
    const yaml_node_t *v[N_SIZE_KEYS];
    for (size_t i = 0; i < N_INTS; i++) {
        snprintf(optional[i], sizeof optional[i], "?%s", gen_int_keys[i]);
        keys[i] = i < N_NEEDED ? gen_int_keys[i] : optional[i];
    }
    for (size_t i = N_INTS; i < N_SIZE_KEYS; i++) keys[i] = others[i - N_INTS];
    gen_map(n, z->name.at, keys, v);
    z->line = line_of(n);
    gen_word(v[PARAMETERS], "parameters", &z->parameters);
    gen_word(v[CATEGORY], "category", &z->category);
    for (size_t i = 0; i < N_INTS; i++)
        if (v[i]) gen_u64(v[i], gen_int_keys[i], &z->ints[i]);
    get_constraints(&v[CONSTRAINTS], z);
    check_pair(z, z->line);
    check_parts(z, n);
    get_reals(f, z, n, v);
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
                                        "head_dim",
                                        "intermediate_dim",
                                        "gate_up_dim",
                                        "max_position_embeddings",
                                        "n_mels",
                                        "max_source_positions",
                                        "max_target_positions",
                                        "n_experts",
                                        "expert_dim",
                                        "shared_expert_dim",
                                        "kv_lora_rank",
                                        "q_lora_rank",
                                        "kv_a_dim",
                                        "kv_b_dim",
                                        "v_dim",
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

static void get_tensor(struct family *f, struct row *r, const yaml_node_t *rn)
{
    static const char *const keys[] = {"role",      "hf",           "?gguf",   "shape", "?sizes",
                                       "?critical", "?unless_tied", "?layers", NULL};
    static const char *const layers[] = {"dense", "moe", NULL};
    const yaml_node_t *v[sizeof keys / sizeof keys[0]];
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
    if (v[7]) gen_one_of(v[7], "layers", layers, &r->layers);
}

static void get_tensors(struct family *f, const yaml_node_t *n)
{
    if (n->type != YAML_SEQUENCE_NODE) fail(n, "tensors: expected a list");
    for (const yaml_node_item_t *i = n->data.sequence.items.start; i < n->data.sequence.items.top; i++) {
        const yaml_node_t *rn = gen_node(*i);
        struct row *r = &f->rows[f->n_rows];
        if (f->n_rows == MAX_ROWS) fail(rn, "more than %d tensors", MAX_ROWS);
        get_tensor(f, r, rn);
        for (size_t k = 0; k < f->n_rows; k++)
            if (strcmp(f->rows[k].hf.at, r->hf.at) == 0 && strcmp(f->rows[k].sizes.at, r->sizes.at) == 0)
                fail(rn, "tensors: \"%s\" stands twice", r->hf.at);
        f->n_rows++;
    }
    if (f->n_rows == 0) fail(n, "tensors: expected at least one tensor");
}

/* Rules that some sizes are excused from, each with where the published number stands. */
static void get_exceptions(struct family *f, const yaml_node_t *n)
{
    static const char *const keys[] = {"rule", "sizes", "cite", NULL};
    const yaml_node_t *v[3];
    if (n->type != YAML_SEQUENCE_NODE) fail(n, "exceptions: expected a list");
    for (const yaml_node_item_t *i = n->data.sequence.items.start; i < n->data.sequence.items.top; i++) {
        const yaml_node_t *rn = gen_node(*i);
        struct excused *x = &f->excused[f->n_excused];
        if (f->n_excused == MAX_EXCUSED) fail(rn, "more than %d exceptions", MAX_EXCUSED);
        gen_map(rn, "exceptions", keys, v);
        gen_one_of(v[0], "rule", gen_excusable, &x->rule);
        gen_list(v[1], "sizes", &x->sizes);
        check_row_sizes(f, v[1], x->sizes.at);
        gen_word(v[2], "cite", &x->cite);
        for (size_t k = 0; k < f->n_excused; k++)
            if (strcmp(f->excused[k].rule.at, x->rule.at) == 0)
                fail(rn, "exceptions: rule %s stands twice", x->rule.at);
        f->n_excused++;
    }
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
        "?extension",  "?exceptions",   NULL};
    static const char *const constraint_keys[] = {
        "attention_type", "activation",      "norm_type",           "mlp_type",
        "has_bias",       "tied_embeddings", "positional_encoding", NULL};
    const yaml_node_t *v[12], *c[7];
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
    if (v[10]) gen_bool(v[10], "extension", &f->extension);
    if (v[11]) get_exceptions(f, v[11]);
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

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
#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#define MAX_FILES   64
#define MAX_SIZES   32
#define MAX_ROWS    128
#define MAX_NODES   4096
#define MAX_TEXT    512
#define THETA_SCALE 1000          /* theta in thousandths */
#define EPS_SCALE   1000000000000 /* epsilon in 1e-12 */

struct str {
    char at[MAX_TEXT];
};

enum { HIDDEN, LAYERS, HEADS, KV, INTER, VOCAB, HEAD_DIM, MAX_POS, N_MELS, SRC_POS, TGT_POS, N_INTS };

struct size {
    struct str name, id, parameters, category;
    uint64_t ints[N_INTS];
    uint64_t theta_milli, eps_pico;
    struct str theta, eps; /* as written */
    struct str attention, activation, norm, mlp;
    bool has_bias, tied;
    long line;
};

struct row {
    struct str role, hf, gguf, shape, sizes;
    bool critical, unless_tied;
};

struct family {
    const char *file;
    struct str name, id, display_name, vendor, hf_pattern, architectures, quantizations;
    struct str position, chat_format, bos, eos, special;
    struct size defaults; /* the constraints block */
    struct size sizes[MAX_SIZES];
    size_t n_sizes;
    struct row rows[MAX_ROWS];
    size_t n_rows;
};

static yaml_document_t doc;
static const char *file_now;
static bool visited[MAX_NODES];
static unsigned n_proofs;
static unsigned n_sizes_all;

__attribute__((noreturn, format(printf, 2, 3))) static void fail_line(long line, const char *format, ...)
{
    va_list ap;
    fprintf(stderr, "%s:%ld: ", file_now, line);
    va_start(ap, format);
    vfprintf(stderr, format, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}
#define line_of(n)   ((long)(n)->start_mark.line + 1)
#define fail(n, ...) fail_line(line_of(n), __VA_ARGS__)

/* ---- typed reads ---------------------------------------------------------------------------------- */

static const yaml_node_t *node(int i)
{
    const yaml_node_t *n = yaml_document_get_node(&doc, i);
    if (i >= MAX_NODES) fail(n, "more than %d YAML nodes", MAX_NODES);
    if (visited[i]) fail(n, "aliases are not allowed");
    visited[i] = true;
    if (n->type == YAML_SCALAR_NODE ? strcmp((const char *)n->tag, YAML_STR_TAG) != 0
                                    : strcmp((const char *)n->tag, YAML_MAP_TAG) != 0 &&
                                          strcmp((const char *)n->tag, YAML_SEQ_TAG) != 0)
        fail(n, "tags are not allowed: found %s", (const char *)n->tag);
    return n;
}

static const char *scalar(const yaml_node_t *n, const char *what)
{
    if (n->type != YAML_SCALAR_NODE) fail(n, "%s: expected a scalar", what);
    return (const char *)n->data.scalar.value;
}

static bool plain(const yaml_node_t *n)
{
    return n->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

static void get_str(const yaml_node_t *n, const char *what, struct str *out)
{
    const char *s = scalar(n, what);
    if (strlen(s) != n->data.scalar.length || strlen(s) >= sizeof out->at)
        fail(n, "%s: text too long, or with a NUL", what);
    snprintf(out->at, sizeof out->at, "%s", s);
}

static void get_word(const yaml_node_t *n, const char *what, struct str *out)
{
    get_str(n, what, out);
    if (out->at[0] == '\0') fail(n, "%s: expected a text that is not empty", what);
}

static void get_u64(const yaml_node_t *n, const char *what, uint64_t *out)
{
    const char *s = scalar(n, what);
    size_t n_digits = strspn(s, "0123456789");
    if (!plain(n) || n_digits == 0 || n_digits > 15 || s[n_digits] != '\0' || (s[0] == '0' && n_digits > 1))
        fail(n, "%s: expected a whole number, found \"%s\"", what, s);
    *out = strtoull(s, NULL, 10);
}

static void get_bool(const yaml_node_t *n, const char *what, bool *out)
{
    const char *s = scalar(n, what);
    if (!plain(n) || (strcmp(s, "true") != 0 && strcmp(s, "false") != 0))
        fail(n, "%s: expected true or false, found \"%s\"", what, s);
    *out = s[0] == 't';
}

/* v * scale, which must be whole; rule cites where the bound comes from. */
static void get_scaled(const yaml_node_t *n, const char *what, uint64_t scale, const char *rule,
                       uint64_t *out, struct str *text)
{
    const char *s = scalar(n, what);
    char *end;
    double v = strtod(s, &end), scaled = v * (double)scale;
    if (!plain(n) || *s == '\0' || *end != '\0' || isspace((unsigned char)*s))
        fail(n, "%s: expected a number, found \"%s\"", what, s);
    if (!isfinite(v) || scaled < 0 || scaled > 9e18) fail(n, "%s; found %s: %s", rule, what, s);
    *out = (uint64_t)(scaled + 0.5);
    if (fabs(scaled - (double)*out) > 1e-6 * scaled)
        fail(n, "%s: %s is no multiple of 1/%" PRIu64, what, s, scale);
    get_str(n, what, text);
}

/* A sequence of scalars joined with commas. */
static void get_list(const yaml_node_t *n, const char *what, struct str *out)
{
    size_t len = 0;
    if (n->type != YAML_SEQUENCE_NODE) fail(n, "%s: expected a list", what);
    for (const yaml_node_item_t *i = n->data.sequence.items.start; i < n->data.sequence.items.top; i++) {
        struct str s;
        get_word(node(*i), what, &s);
        if (strchr(s.at, ',') || len + strlen(s.at) + 2 > sizeof out->at)
            fail(n, "%s: a comma, or too long", what);
        len += (size_t)snprintf(out->at + len, sizeof out->at - len, "%s%s", len ? "," : "", s.at);
    }
    if (len == 0) fail(n, "%s: expected at least one", what);
}

/* ---- mappings --------------------------------------------------------------------------------------- */

#define MAX_KEYS 24
struct found {
    const char *key;
    const yaml_node_t *value;
};

/* Values of a mapping by the position of their key in keys ("?name": may be absent). */
static void get_map(const yaml_node_t *n, const char *what, const char *const *keys,
                    const yaml_node_t **values)
{
    if (n->type != YAML_MAPPING_NODE) fail(n, "%s: expected a mapping", what);
    for (size_t k = 0; keys[k]; k++) values[k] = NULL;
    for (const yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top; p++) {
        const yaml_node_t *kn = node(p->key);
        const char *key = scalar(kn, what);
        size_t k = 0;
        while (keys[k] && strcmp(keys[k] + (keys[k][0] == '?'), key) != 0) k++;
        if (!keys[k]) fail(kn, "%s: unknown key \"%s\"", what, key);
        if (values[k]) fail(kn, "%s: key \"%s\" stands twice", what, key);
        values[k] = node(p->value);
    }
    for (size_t k = 0; keys[k]; k++)
        if (!values[k] && keys[k][0] != '?') fail(n, "%s: key \"%s\" is missing", what, keys[k]);
}

static const char *const int_keys[N_INTS] = {
    "hidden_dim",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "intermediate_dim",
    "vocab_size",
    "head_dim",
    "max_position_embeddings",
    "n_mels",
    "max_source_positions",
    "max_target_positions",
};

/* "qwen2" -> "QWEN2", "0.5b" -> "0_5B" */
static void identifier(const char *s, struct str *out)
{
    size_t i = 0;
    for (; s[i]; i++) out->at[i] = (char)(isalnum((unsigned char)s[i]) ? toupper((unsigned char)s[i]) : '_');
    out->at[i] = '\0';
}

/* Activation and feed-forward shape go together: ALG-006. An unknown pair is no pair. */
static void check_pair(const struct size *z, long line)
{
    static const char *const pairs[][2] = {{"swiglu", "silu"}, {"gelu_mlp", "gelu"}, {"gated_mlp", "gelu"}};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        if (strcmp(z->mlp.at, pairs[i][0]) != 0) continue;
        if (strcmp(z->activation.at, pairs[i][1]) == 0) return;
        fail_line(line, "ALG-006 Shazeer (2020): mlp_type %s requires activation %s; found %s", pairs[i][0],
                  pairs[i][1], z->activation.at);
    }
    fail_line(line, "ALG-006 Shazeer (2020): no activation is known to go with mlp_type %s", z->mlp.at);
}

static void one_of(const yaml_node_t *n, const char *what, const char *const *choices, struct str *out)
{
    get_word(n, what, out);
    for (size_t i = 0; choices[i]; i++)
        if (strcmp(choices[i], out->at) == 0) return;
    fail(n, "%s: unknown value \"%s\"", what, out->at);
}

static const char *const attentions[] = {"mha", "gqa", NULL}, *const activations[] = {"silu", "gelu", NULL},
                         *const norms[] = {"rmsnorm", "layernorm", NULL},
                         *const mlps[] = {"swiglu", "gelu_mlp", "gated_mlp", NULL},
                         *const positions[] = {"rope", "absolute", NULL};

/* The constraints of a family, or those of them that one size overrides. */
static void get_constraints(const yaml_node_t *const *v, struct size *z)
{
    if (v[0]) one_of(v[0], "attention_type", attentions, &z->attention);
    if (v[1]) one_of(v[1], "activation", activations, &z->activation);
    if (v[2]) one_of(v[2], "norm_type", norms, &z->norm);
    if (v[3]) one_of(v[3], "mlp_type", mlps, &z->mlp);
    if (v[4]) get_bool(v[4], "has_bias", &z->has_bias);
    if (v[5]) get_bool(v[5], "tied_embeddings", &z->tied);
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
    get_map(n, z->name.at, keys, v);
    z->line = line_of(n);
    get_word(v[0], "parameters", &z->parameters);
    get_word(v[1], "category", &z->category);
    for (size_t i = 0; i < N_INTS; i++)
        if (v[2 + i]) get_u64(v[2 + i], int_keys[i], &z->ints[i]);
    get_constraints(&v[16], z);
    check_pair(z, z->line);
    if (rope != (v[13] != NULL))
        fail(n, "%s: rope_theta %s", z->name.at,
             rope ? "is missing" : "in a family without rotary positions");
    if (rope)
        get_scaled(v[13], "rope_theta", THETA_SCALE,
                   "ALG-007 Su (2024) RoPE: rope_theta must be positive and finite", &z->theta_milli,
                   &z->theta);
    eps = strcmp(z->norm.at, "rmsnorm") == 0 ? v[14] : v[15];
    if (!eps || (v[14] && v[15]))
        fail(n, "%s: expected %s alone", z->name.at, eps == v[14] ? "rms_norm_eps" : "layer_norm_eps");
    get_scaled(eps, "norm epsilon", EPS_SCALE, "ALG-009: the norm epsilon must be finite and below 1",
               &z->eps_pico, &z->eps);
}

static void get_sizes(struct family *f, const yaml_node_t *n)
{
    if (n->type != YAML_MAPPING_NODE) fail(n, "size_variants: expected a mapping");
    for (const yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top; p++) {
        const yaml_node_t *kn = node(p->key);
        struct size *z = &f->sizes[f->n_sizes];
        if (f->n_sizes == MAX_SIZES) fail(kn, "more than %d sizes", MAX_SIZES);
        *z = f->defaults;
        get_word(kn, "size_variants", &z->name);
        identifier(z->name.at, &z->id);
        for (size_t i = 0; i < f->n_sizes; i++)
            if (strcmp(f->sizes[i].id.at, z->id.at) == 0)
                fail(kn, "size_variants: key \"%s\" stands twice", z->name.at);
        get_size(f, z, node(p->value));
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
        const yaml_node_t *rn = node(*i);
        struct row *r = &f->rows[f->n_rows];
        if (f->n_rows == MAX_ROWS) fail(rn, "more than %d tensors", MAX_ROWS);
        get_map(rn, "tensors", keys, v);
        get_word(v[0], "role", &r->role);
        get_word(v[1], "hf", &r->hf);
        if (v[2]) get_word(v[2], "gguf", &r->gguf);
        get_list(v[3], "shape", &r->shape);
        check_shape(v[3], r->shape.at);
        if (v[4]) get_list(v[4], "sizes", &r->sizes);
        if (v[4]) check_row_sizes(f, v[4], r->sizes.at);
        if (v[5]) get_bool(v[5], "critical", &r->critical);
        if (v[6]) get_bool(v[6], "unless_tied", &r->unless_tied);
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
    get_map(n, "chat_template", keys, v);
    get_word(v[0], "format", &f->chat_format);
    if (v[1]) get_str(v[1], "bos_token", &f->bos);
    if (v[2]) get_str(v[2], "eos_token", &f->eos);
    if (!v[3]) return;
    if (v[3]->type != YAML_MAPPING_NODE) fail(v[3], "special_tokens: expected a mapping");
    for (const yaml_node_pair_t *p = v[3]->data.mapping.pairs.start; p < v[3]->data.mapping.pairs.top; p++) {
        struct str key, value;
        char probe[MAX_TEXT + 3];
        get_word(node(p->key), "special_tokens", &key);
        get_word(node(p->value), "special_tokens", &value);
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
    get_map(n, "contract", keys, v);
    get_word(v[0], "family", &f->name);
    identifier(f->name.at, &f->id);
    get_word(v[1], "display_name", &f->display_name);
    get_word(v[2], "vendor", &f->vendor);
    get_word(v[3], "hf_pattern", &f->hf_pattern);
    get_list(v[4], "architectures", &f->architectures);
    get_map(v[5], "constraints", constraint_keys, c);
    get_constraints(c, &f->defaults);
    one_of(c[6], "positional_encoding", positions, &f->position);
    check_pair(&f->defaults, line_of(v[5]));
    get_sizes(f, v[6]);
    get_tensors(f, v[7]);
    get_chat(f, v[8]);
    get_list(v[9], "quantizations", &f->quantizations);
}

/* ---- output ----------------------------------------------------------------------------------------- */

static void quoted(const char *s)
{
    putchar('"');
    for (; *s; s++) printf(*s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
    putchar('"');
}

static void strings(const char *const *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        quoted(s[i]);
        fputs(", ", stdout);
    }
}

/* One proof. $ in the condition stands for the prefix of the size. */
static void prove(const struct family *f, const struct size *z, const char *rule, const char *condition,
                  const char *citation)
{
    fputs("_Static_assert(", stdout);
    for (const char *s = condition; *s; s++) {
        if (*s == '$')
            printf("APR_%s_%s_", f->id.at, z->id.at);
        else
            putchar(*s);
    }
    printf(", \"%s %s/%s: %s\");\n", rule, f->name.at, z->name.at, citation);
    n_proofs++;
}

static const struct proof {
    const char *rule, *condition, *citation;
    bool rope_only,
        if_grouped; /* only with rotary positions; only where heads share a KV head by more than one */
} proofs[] = {
    {"ALG-005", "$HIDDEN_DIM > 0", "non-degeneracy (definition): hidden_dim must be positive", false, false},
    {"ALG-005", "$NUM_LAYERS > 0", "non-degeneracy (definition): num_layers must be positive", false, false},
    {"ALG-005", "$NUM_HEADS > 0", "non-degeneracy (definition): num_heads must be positive", false, false},
    {"ALG-005", "$VOCAB_SIZE > 0", "non-degeneracy (definition): vocab_size must be positive", false, false},
    {"ALG-005", "$NUM_KV_HEADS > 0", "non-degeneracy (definition): num_kv_heads must be positive", false,
     false},
    {"ALG-008", "$NUM_KV_HEADS <= $NUM_HEADS", "Ainslie (2023) GQA: num_kv_heads must be <= num_heads", false,
     false},
    {"ALG-001", "$HIDDEN_DIM % $NUM_HEADS == 0", "Vaswani (2017): hidden_dim must be divisible by num_heads",
     false, false},
    {"ALG-002", "$NUM_HEADS % $NUM_KV_HEADS == 0",
     "Ainslie (2023) GQA: num_heads must be divisible by num_kv_heads", false, true},
    {"ALG-003a", "$HEAD_DIM >= $HIDDEN_DIM / $NUM_HEADS",
     "Vaswani (2017): head_dim must be >= hidden_dim / num_heads", false, false},
    {"ALG-003b", "$HEAD_DIM <= 2 * ($HIDDEN_DIM / $NUM_HEADS)",
     "Gemma Team (2024), the widest known: head_dim must be <= 2 * (hidden_dim / num_heads)", false, false},
    {"ALG-004", "$INTERMEDIATE_DIM > $HIDDEN_DIM",
     "Shazeer (2020) FFN expansion: intermediate_dim must exceed hidden_dim", false, false},
    {"ALG-007a", "$HEAD_DIM % 2 == 0", "Su (2024) RoPE: head_dim must be even for cos/sin pairs", true,
     false},
    {"ALG-007b", "$MAX_POSITION_EMBEDDINGS > 0", "Su (2024) RoPE: max_position_embeddings must be positive",
     true, false},
};

/* Scaled reals: bounded by #error, so that they are not among the counted assertions. */
static void guard(const struct family *f, const struct size *z, const char *name, uint64_t v,
                  const char *upper, const char *message)
{
    printf("#define APR_%s_%s_%s %" PRIu64 "\n", f->id.at, z->id.at, name, v);
    printf("#if !(APR_%s_%s_%s > 0%s%s)\n#error \"%s/%s: %s\"\n#endif\n", f->id.at, z->id.at, name,
           upper ? " && " : "", upper ? upper : "", f->name.at, z->name.at, message);
}

static void emit_size(const struct family *f, const struct size *z)
{
    bool rope = strcmp(f->position.at, "rope") == 0;
    char upper[2 * MAX_TEXT + 64];
    printf("\n/* %s/%s */\n", f->name.at, z->name.at);
    for (size_t i = 0; i < N_INTS; i++) {
        struct str id;
        identifier(int_keys[i], &id);
        printf("#define APR_%s_%s_%s %" PRIu64 "\n", f->id.at, z->id.at, id.at, z->ints[i]);
    }
    if (rope)
        guard(f, z, "ROPE_THETA_MILLI", z->theta_milli, NULL,
              "ALG-007 Su (2024) RoPE: rope_theta must be positive and finite");
    snprintf(upper, sizeof upper, "APR_%s_%s_NORM_EPS_PICO < %" PRIu64, f->id.at, z->id.at,
             (uint64_t)EPS_SCALE);
    guard(f, z, "NORM_EPS_PICO", z->eps_pico, upper, "ALG-009: the norm epsilon must be above 0 and below 1");
    for (size_t i = 0; i < sizeof proofs / sizeof proofs[0]; i++)
        if ((rope || !proofs[i].rope_only) && (z->ints[KV] != 1 || !proofs[i].if_grouped))
            prove(f, z, proofs[i].rule, proofs[i].condition, proofs[i].citation);
    n_sizes_all++;
}

static void emit_tables(const struct family *f)
{
    printf("\nstatic const struct apr_contract_tensor apr_tensors_%s[] = {\n", f->id.at);
    for (size_t i = 0; i < f->n_rows; i++) {
        const struct row *r = &f->rows[i];
        const char *s[] = {r->role.at, r->hf.at, r->gguf.at, r->shape.at, r->sizes.at};
        fputs("    {", stdout);
        strings(s, 5);
        printf("%s, %s},\n", r->critical ? "true" : "false", r->unless_tied ? "true" : "false");
    }
    printf("};\nstatic const struct apr_contract_size apr_sizes_%s[] = {\n", f->id.at);
    for (size_t i = 0; i < f->n_sizes; i++) {
        const struct size *z = &f->sizes[i];
        const char *s[] = {f->name.at, z->name.at, z->parameters.at};
        const char *t[] = {z->category.at, z->attention.at, z->activation.at, z->norm.at, z->mlp.at};
        fputs("    {", stdout);
        strings(s, 3);
        for (size_t k = 0; k <= MAX_POS; k++) printf("%" PRIu64 ", ", z->ints[k]);
        printf("%s, %s, ", z->theta.at[0] ? z->theta.at : "0", z->eps.at);
        for (size_t k = N_MELS; k < N_INTS; k++) printf("%" PRIu64 ", ", z->ints[k]);
        strings(t, 5);
        printf("%s, %s},\n", z->has_bias ? "true" : "false", z->tied ? "true" : "false");
    }
    puts("};");
}

static void emit_family_row(const struct family *f)
{
    const char *id[] = {f->name.at,
                        f->display_name.at,
                        f->vendor.at,
                        f->hf_pattern.at,
                        f->architectures.at,
                        f->defaults.attention.at,
                        f->defaults.activation.at,
                        f->defaults.norm.at,
                        f->defaults.mlp.at,
                        f->position.at};
    const char *chat[] = {f->chat_format.at, f->bos.at, f->eos.at, f->special.at[0] ? f->special.at + 1 : "",
                          f->quantizations.at};
    fputs("    {", stdout);
    strings(id, 10);
    printf("%s, %s, ", f->defaults.has_bias ? "true" : "false", f->defaults.tied ? "true" : "false");
    strings(chat, 5);
    printf("apr_sizes_%s, %zu, apr_tensors_%s, %zu},\n", f->id.at, f->n_sizes, f->id.at, f->n_rows);
}

static void read_family(const char *path, struct family *f)
{
    yaml_parser_t parser;
    FILE *in = fopen(path, "rb");
    file_now = path;
    if (!in) fail_line(0, "cannot be opened");
    yaml_parser_initialize(&parser);
    yaml_parser_set_input_file(&parser, in);
    if (!yaml_parser_load(&parser, &doc)) fail_line((long)parser.problem_mark.line + 1, "%s", parser.problem);
    if (!yaml_document_get_root_node(&doc)) fail_line(1, "empty");
    memset(visited, 0, sizeof visited);
    f->file = path;
    get_family(f, node(1)); /* libyaml numbers nodes from 1, the root first */
    yaml_document_delete(&doc);
    if (!yaml_parser_load(&parser, &doc) || yaml_document_get_root_node(&doc))
        fail_line((long)parser.mark.line + 1, "expected one document");
    yaml_document_delete(&doc);
    yaml_parser_delete(&parser);
    fclose(in);
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
        read_family(argv[i + 1], &families[i]);
        for (size_t k = 0; k < i; k++)
            if (strcmp(families[k].id.at, families[i].id.at) == 0)
                fail_line(1, "family \"%s\" stands twice", families[i].name.at);
    }
    puts("/* Generated by gen-contracts from lib/contracts. */");
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < families[i].n_sizes; k++) emit_size(&families[i], &families[i].sizes[k]);
    for (size_t i = 0; i < n; i++) emit_tables(&families[i]);
    puts("\nstatic const struct apr_contract_family apr_contract_families[] = {");
    for (size_t i = 0; i < n; i++) emit_family_row(&families[i]);
    printf("};\n#define APR_CONTRACT_N_PROOFS %u\n#define APR_CONTRACT_N_SIZES %u\n", n_proofs, n_sizes_all);
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}

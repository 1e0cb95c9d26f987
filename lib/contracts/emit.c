/* What gen-contracts writes: numbers, proofs, tables. See gen.h. */
#include "gen.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static unsigned n_proofs, n_sizes_all;

const char *const gen_int_keys[N_INTS] = {
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
void gen_identifier(const char *s, struct str *out)
{
    size_t i = 0;
    for (; s[i]; i++) out->at[i] = (char)(isalnum((unsigned char)s[i]) ? toupper((unsigned char)s[i]) : '_');
    out->at[i] = '\0';
}

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
        gen_identifier(gen_int_keys[i], &id);
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

void gen_emit(const struct family *families, size_t n)
{
    puts("/* Generated by gen-contracts from lib/contracts. */");
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < families[i].n_sizes; k++) emit_size(&families[i], &families[i].sizes[k]);
    for (size_t i = 0; i < n; i++) emit_tables(&families[i]);
    puts("\nstatic const struct apr_contract_family apr_contract_families[] = {");
    for (size_t i = 0; i < n; i++) emit_family_row(&families[i]);
    printf("};\n#define APR_CONTRACT_N_PROOFS %u\n#define APR_CONTRACT_N_SIZES %u\n", n_proofs, n_sizes_all);
}

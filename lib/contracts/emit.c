/* What gen-contracts writes: numbers, proofs, tables. See gen.h. */
#include "gen.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static unsigned n_proofs, n_proofs_first, n_sizes_all;

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
    "n_experts",
    "n_experts_used",
    "expert_dim",
    "shared_expert_dim",
    "n_dense_layers",
    "kv_lora_rank",
    "q_lora_rank",
    "qk_nope_dim",
    "qk_rope_dim",
    "v_head_dim",
    "sliding_window",
};

/* These relate numbers that a checkpoint may also give freely (head_dim stands in the config). */
const char *const gen_excusable[] = {"ALG-001", "ALG-003a", "ALG-003b", NULL};

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

static void condition_of(const struct family *f, const struct size *z, const char *condition)
{
    for (const char *s = condition; *s; s++) {
        if (*s == '$')
            printf("APR_%s_%s_", f->id.at, z->id.at);
        else
            putchar(*s);
    }
}

/* One proof. $ in the condition stands for the prefix of the size. */
static void prove(const struct family *f, const struct size *z, const char *rule, const char *condition,
                  const char *citation)
{
    fputs("_Static_assert(", stdout);
    condition_of(f, z, condition);
    printf(", \"%s %s/%s: %s\");\n", rule, f->name.at, z->name.at, citation);
    n_proofs++;
    n_proofs_first += !f->extension;
}

/* What a size must have for a proof to be about it. GROUPED: heads share a KV head by more than one. */
enum part { ALWAYS, ROPE, GROUPED, MOE, SHARED, MLA, LOCAL };

static bool has_part(const struct family *f, const struct size *z, enum part part)
{
    const bool has[] = {[ALWAYS] = true,
                        [ROPE] = strcmp(f->position.at, "rope") == 0,
                        [GROUPED] = z->ints[KV] != 1,
                        [MOE] = z->ints[EXPERTS] != 0,
                        [SHARED] = z->ints[SHARED_DIM] != 0,
                        [MLA] = z->ints[KV_RANK] != 0,
                        [LOCAL] = z->ints[WINDOW] != 0};
    return has[part];
}

static const struct proof {
    const char *rule, *condition, *citation;
    enum part part;
    const char *instead; /* of this rule, where an exception stands; NULL: always */
} proofs[] = {
    {"ALG-005", "$HIDDEN_DIM > 0", "non-degeneracy (definition): hidden_dim must be positive", ALWAYS, NULL},
    {"ALG-005", "$NUM_LAYERS > 0", "non-degeneracy (definition): num_layers must be positive", ALWAYS, NULL},
    {"ALG-005", "$NUM_HEADS > 0", "non-degeneracy (definition): num_heads must be positive", ALWAYS, NULL},
    {"ALG-005", "$VOCAB_SIZE > 0", "non-degeneracy (definition): vocab_size must be positive", ALWAYS, NULL},
    {"ALG-005", "$NUM_KV_HEADS > 0", "non-degeneracy (definition): num_kv_heads must be positive", ALWAYS,
     NULL},
    {"ALG-008", "$NUM_KV_HEADS <= $NUM_HEADS", "Ainslie (2023) GQA: num_kv_heads must be <= num_heads",
     ALWAYS, NULL},
    {"ALG-001", "$HIDDEN_DIM % $NUM_HEADS == 0", "Vaswani (2017): hidden_dim must be divisible by num_heads",
     ALWAYS, NULL},
    {"ALG-001b", "$HEAD_DIM > 0", "non-degeneracy (definition): a head_dim that is given must be positive",
     ALWAYS, "ALG-001"},
    {"ALG-002", "$NUM_HEADS % $NUM_KV_HEADS == 0",
     "Ainslie (2023) GQA: num_heads must be divisible by num_kv_heads", GROUPED, NULL},
    {"ALG-003a", "$HEAD_DIM >= $HIDDEN_DIM / $NUM_HEADS",
     "Vaswani (2017): head_dim must be >= hidden_dim / num_heads", ALWAYS, NULL},
    {"ALG-003b", "$HEAD_DIM <= 2 * ($HIDDEN_DIM / $NUM_HEADS)",
     "Gemma Team (2024), the widest known: head_dim must be <= 2 * (hidden_dim / num_heads)", ALWAYS, NULL},
    {"ALG-003c", "2 * $HEAD_DIM >= $HIDDEN_DIM / $NUM_HEADS",
     "Gemma Team (2025), the narrowest known: a head_dim that is given must be at least half of hidden_dim / "
     "num_heads",
     ALWAYS, "ALG-003a"},
    {"ALG-003d", "$HEAD_DIM <= 8 * ($HIDDEN_DIM / $NUM_HEADS)",
     "DeepSeek-AI (2024), the widest known: a head_dim that is given must be <= 8 * (hidden_dim / num_heads)",
     ALWAYS, "ALG-003b"},
    {"ALG-004", "$INTERMEDIATE_DIM > $HIDDEN_DIM",
     "Shazeer (2020) FFN expansion: intermediate_dim must exceed hidden_dim", ALWAYS, NULL},
    {"ALG-007a", "$HEAD_DIM % 2 == 0", "Su (2024) RoPE: head_dim must be even for cos/sin pairs", ROPE, NULL},
    {"ALG-007b", "$MAX_POSITION_EMBEDDINGS > 0", "Su (2024) RoPE: max_position_embeddings must be positive",
     ROPE, NULL},
    {"ALG-010", "$N_EXPERTS > 1", "Shazeer (2017) mixture of experts: n_experts must exceed 1", MOE, NULL},
    {"ALG-010", "$EXPERT_DIM > 0", "Shazeer (2017) mixture of experts: expert_dim must be positive", MOE,
     NULL},
    {"ALG-011", "$N_EXPERTS_USED > 0", "Shazeer (2017) mixture of experts: a token must take an expert", MOE,
     NULL},
    {"ALG-011", "$N_EXPERTS_USED <= $N_EXPERTS",
     "Shazeer (2017) mixture of experts: n_experts_used must be <= n_experts", MOE, NULL},
    {"ALG-012", "$N_DENSE_LAYERS < $NUM_LAYERS",
     "DeepSeek-AI (2024) DeepSeekMoE: a layer with experts must follow the dense ones", MOE, NULL},
    {"ALG-012", "$SHARED_EXPERT_DIM % $EXPERT_DIM == 0",
     "Dai (2024) DeepSeekMoE: shared experts are as wide as a whole number of routed ones", SHARED, NULL},
    {"ALG-013", "$HEAD_DIM == $QK_NOPE_DIM + $QK_ROPE_DIM",
     "DeepSeek-AI (2024) MLA: head_dim must be qk_nope_dim + qk_rope_dim", MLA, NULL},
    {"ALG-013", "$QK_ROPE_DIM > 0 && $QK_ROPE_DIM % 2 == 0",
     "DeepSeek-AI (2024) MLA: qk_rope_dim must be positive and even", MLA, NULL},
    {"ALG-013", "$V_HEAD_DIM > 0", "DeepSeek-AI (2024) MLA: v_head_dim must be positive", MLA, NULL},
    {"ALG-013", "$KV_LORA_RANK < $NUM_HEADS * ($QK_NOPE_DIM + $V_HEAD_DIM)",
     "DeepSeek-AI (2024) MLA: kv_lora_rank must be below what it stands for", MLA, NULL},
    {"ALG-013", "$Q_LORA_RANK < $NUM_HEADS * $HEAD_DIM",
     "DeepSeek-AI (2024) MLA: q_lora_rank must be below what it stands for", MLA, NULL},
    {"ALG-014", "$SLIDING_WINDOW <= $MAX_POSITION_EMBEDDINGS",
     "Beltagy (2020) Longformer: sliding_window must be <= max_position_embeddings", LOCAL, NULL},
};

/* The exception of a size from a rule, or NULL. */
static const struct excused *excused(const struct family *f, const struct size *z, const char *rule)
{
    size_t n = strlen(z->name.at);
    for (size_t i = 0; i < f->n_excused; i++) {
        if (strcmp(f->excused[i].rule.at, rule) != 0) continue;
        for (const char *s = f->excused[i].sizes.at; *s;
             s += s[strcspn(s, ",")] ? strcspn(s, ",") + 1 : strcspn(s, ","))
            if (strcspn(s, ",") == n && strncmp(s, z->name.at, n) == 0) return &f->excused[i];
    }
    return NULL;
}

/* The rule is not proved; that it does not hold is, so that no exception outlives its reason. */
static void excuse(const struct family *f, const struct size *z, const struct proof *p,
                   const struct excused *x)
{
    printf("/* %s %s/%s: excused: %s */\n#if ", p->rule, f->name.at, z->name.at, x->cite.at);
    condition_of(f, z, p->condition);
    printf("\n#error \"%s/%s: exceptions: %s holds; the exception is not needed\"\n#endif\n", f->name.at,
           z->name.at, p->rule);
}

static void prove_all(const struct family *f, const struct size *z)
{
    for (size_t i = 0; i < sizeof proofs / sizeof proofs[0]; i++) {
        const struct proof *p = &proofs[i];
        const struct excused *x = excused(f, z, p->rule);
        if (!has_part(f, z, p->part) || (p->instead && !excused(f, z, p->instead))) continue;
        if (x)
            excuse(f, z, p, x);
        else
            prove(f, z, p->rule, p->condition, p->citation);
    }
}

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
    prove_all(f, z);
    n_sizes_all++;
}

static void emit_tables(const struct family *f)
{
    printf("\nstatic const struct apr_contract_tensor apr_tensors_%s[] = {\n", f->id.at);
    for (size_t i = 0; i < f->n_rows; i++) {
        const struct row *r = &f->rows[i];
        const char *s[] = {r->role.at, r->hf.at, r->gguf.at, r->shape.at, r->sizes.at, r->layers.at};
        fputs("    {", stdout);
        strings(s, 6);
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
    printf("apr_sizes_%s, %zu, apr_tensors_%s, %zu, %s},\n", f->id.at, f->n_sizes, f->id.at, f->n_rows,
           f->extension ? "true" : "false");
}

void gen_emit(const struct family *families, size_t n)
{
    puts("/* Generated by gen-contracts from lib/contracts. */");
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < families[i].n_sizes; k++) emit_size(&families[i], &families[i].sizes[k]);
    for (size_t i = 0; i < n; i++) emit_tables(&families[i]);
    puts("\nstatic const struct apr_contract_family apr_contract_families[] = {");
    for (size_t i = 0; i < n; i++) emit_family_row(&families[i]);
    printf("};\n#define APR_CONTRACT_N_PROOFS %u\n#define APR_CONTRACT_N_PROOFS_FIRST %u\n#define "
           "APR_CONTRACT_N_SIZES %u\n",
           n_proofs, n_proofs_first, n_sizes_all);
}

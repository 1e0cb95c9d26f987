/* The tensor-to-type rule of llama-quantize, as tables. */
#include "mix.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "arena.h"

#define ALWAYS(t)                                                                                            \
    {                                                                                                        \
        APR_MIX_ALWAYS, t, t                                                                                 \
    }
#define WHEN(w, t, else_)                                                                                    \
    {                                                                                                        \
        w, t, else_                                                                                          \
    }

static const struct apr_recipe recipes[] = {
    {.name = "f32", .aliases = "fp32", .type = APR_F32, .file_type = 0, .is_float = true},
    {.name = "f16", .aliases = "fp16 half", .type = APR_F16, .file_type = 1, .is_float = true},
    {.name = "bf16", .aliases = "", .type = APR_BF16, .file_type = 32, .is_float = true},
    {.name = "q8_0", .aliases = "q8", .type = APR_Q8_0, .file_type = 7},
    {.name = "q4_0",
     .aliases = "",
     .type = APR_Q4_0,
     .file_type = 2,
     .ffn_down = WHEN(APR_MIX_GUARD, APR_Q4_1, APR_Q4_0)},
    {.name = "q4_1", .aliases = "", .type = APR_Q4_1, .file_type = 3},
    {.name = "q5_0",
     .aliases = "",
     .type = APR_Q5_0,
     .file_type = 8,
     .ffn_down = WHEN(APR_MIX_GUARD, APR_Q5_1, APR_Q5_0)},
    {.name = "q5_1", .aliases = "", .type = APR_Q5_1, .file_type = 9},
    {.name = "q2_k",
     .aliases = "",
     .type = APR_Q2_K,
     .file_type = 10,
     .attn_v = WHEN(APR_MIX_GQA4, APR_Q4_K, APR_Q3_K),
     .ffn_down = ALWAYS(APR_Q3_K),
     .attn_out = ALWAYS(APR_Q3_K),
     .attn_out_q5_of_8 = true},
    {.name = "q2_k_s",
     .aliases = "",
     .wants_imatrix = true,
     .type = APR_Q2_K,
     .file_type = 21,
     .attn_v = WHEN(APR_MIX_GQA4, APR_Q4_K, APR_Q2_K),
     .ffn_down = WHEN(APR_MIX_EIGHTH, APR_Q4_K, APR_Q2_K)},
    {.name = "q3_k_s", .aliases = "", .type = APR_Q3_K, .file_type = 11, .attn_out_q5_of_8 = true},
    {.name = "q3_k_m",
     .aliases = "q3_k",
     .type = APR_Q3_K,
     .file_type = 12,
     .attn_v = WHEN(APR_MIX_FIRST2, APR_Q5_K, APR_Q4_K),
     .ffn_down = WHEN(APR_MIX_SIXTEENTH, APR_Q5_K, APR_Q4_K),
     .attn_out = ALWAYS(APR_Q4_K),
     .attn_out_q5_of_8 = true},
    {.name = "q3_k_l",
     .aliases = "",
     .type = APR_Q3_K,
     .file_type = 13,
     .attn_v = ALWAYS(APR_Q5_K),
     .ffn_down = ALWAYS(APR_Q5_K),
     .attn_out = ALWAYS(APR_Q5_K)},
    {.name = "q4_k_s",
     .aliases = "",
     .type = APR_Q4_K,
     .file_type = 14,
     .attn_v = WHEN(APR_MIX_FIRST4, APR_Q5_K, APR_Q4_K),
     .ffn_down = WHEN(APR_MIX_EIGHTH, APR_Q5_K, APR_Q4_K),
     .attn_out_q5_of_8 = true},
    {.name = "q4_k_m",
     .aliases = "q4_k",
     .type = APR_Q4_K,
     .file_type = 15,
     .attn_v = WHEN(APR_MIX_MORE_BITS, APR_Q6_K, APR_Q4_K),
     .ffn_down = WHEN(APR_MIX_MORE_BITS, APR_Q6_K, APR_Q4_K),
     .attn_out_q5_of_8 = true},
    {.name = "q5_k_s", .aliases = "", .type = APR_Q5_K, .file_type = 16},
    {.name = "q5_k_m",
     .aliases = "q5_k",
     .type = APR_Q5_K,
     .file_type = 17,
     .attn_v = WHEN(APR_MIX_MORE_BITS, APR_Q6_K, APR_Q5_K),
     .ffn_down = WHEN(APR_MIX_MORE_BITS, APR_Q6_K, APR_Q5_K)},
    {.name = "q6_k", .aliases = "", .type = APR_Q6_K, .file_type = 18},
    {.name = "iq4_nl",
     .aliases = "",
     .type = APR_IQ4_NL,
     .file_type = 25,
     .attn_v = WHEN(APR_MIX_GQA4, APR_Q5_K, APR_IQ4_NL),
     .ffn_down = WHEN(APR_MIX_UNGUIDED, APR_Q5_K, APR_IQ4_NL),
     .attn_out_q5_of_8 = true},
    {.name = "iq4_xs",
     .aliases = "",
     .type = APR_IQ4_XS,
     .file_type = 30,
     .attn_v = WHEN(APR_MIX_GQA4, APR_Q5_K, APR_IQ4_XS),
     .ffn_down = WHEN(APR_MIX_UNGUIDED, APR_Q5_K, APR_IQ4_XS),
     .attn_out_q5_of_8 = true},
    {.name = "int4",
     .aliases = "apr_q4",
     .type = APR_NATIVE_Q4,
     .file_type = APR_NO_FILE_TYPE,
     .is_native = true},
    {.name = "int8",
     .aliases = "apr_q8",
     .type = APR_NATIVE_Q8,
     .file_type = APR_NO_FILE_TYPE,
     .is_native = true},
};

/* What becomes of a type whose block does not divide the columns. */
static const struct {
    enum apr_type from, to;
} fallbacks[] = {{APR_Q2_K, APR_Q4_0}, {APR_Q3_K, APR_Q4_0}, {APR_Q4_K, APR_Q5_0},
                 {APR_Q5_K, APR_Q5_1}, {APR_Q6_K, APR_Q8_0}, {APR_IQ4_XS, APR_IQ4_NL}};

/* Architectures whose model of so many layers counts as "70B": attention values get more bits. */
static const struct {
    const char *gguf_arch;
    uint32_t n_layers;
    bool needs_gqa;
} large[] = {{"llama", 80, true},
             {"qwen2", 80, false},
             {"deci", 80, false},
             {"olmo", 80, false},
             {"jais2", 68, false}};

/* First match wins; a part that begins with "=" must be the whole name. */
enum class { OUTPUT, EMBED, ATTN_V, ATTN_K, ATTN_OUT, FFN_DOWN, OTHER };
static const struct {
    const char *part;
    enum class class;
} classes[] = {
    {"=output.weight", OUTPUT},  {"=token_embd.weight", EMBED}, {"=per_layer_token_embd.weight", EMBED},
    {"attn_qkv.weight", ATTN_V}, {"attn_kv_b.weight", ATTN_V},  {"attn_v.weight", ATTN_V},
    {"attn_k.weight", ATTN_K},   {"attn_q.weight", OTHER},      {"attn_output.weight", ATTN_OUT},
    {"ffn_up", OTHER},           {"ffn_gate", OTHER},           {"ffn_down", FFN_DOWN}};

/* Matrices that keep their type: routers, positions, small or sensitive ones. */
static const char *const kept[] = {"_norm.weight",
                                   "ffn_gate_inp.weight",
                                   "ffn_gate_tid2eid.weight",
                                   "altup",
                                   "laurel",
                                   "per_layer_model_proj",
                                   "=position_embd.weight",
                                   "=token_types.weight",
                                   "ssm_conv1d",
                                   "enc.conv",
                                   "shortconv.conv.weight",
                                   "indexer.k_proj.weight",
                                   "indexer.q_proj.weight",
                                   "time_mix_first.weight",
                                   "time_mix_w0.weight",
                                   "time_mix_w1.weight",
                                   "time_mix_w2.weight",
                                   "time_mix_v0.weight",
                                   "time_mix_v1.weight",
                                   "time_mix_v2.weight",
                                   "time_mix_a0.weight",
                                   "time_mix_a1.weight",
                                   "time_mix_a2.weight",
                                   "time_mix_g1.weight",
                                   "time_mix_g2.weight",
                                   "time_mix_decay_w1.weight",
                                   "time_mix_decay_w2.weight",
                                   "time_mix_lerp_fused.weight",
                                   "attn_rel_b.weight",
                                   ".position_embd",
                                   "sam.pos_embd",
                                   "sam.neck.",
                                   "sam.net_",
                                   ".rel_pos",
                                   ".patch_embd",
                                   ".patch_merger",
                                   "a.rvq.codebook",
                                   "mm.a.code_embd"};

/* What the converter widens to F32 although it is a matrix. */
static const char *const always_f32[] = {
    "_norm.weight",         "ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight",
    "position_embd.weight", "token_types.weight",  "ssm_conv1d.weight"};

#define N_OF(a) (sizeof(a) / sizeof(a)[0])

static bool matches(const char *name, const char *part)
{
    return part[0] == '=' ? strcmp(name, part + 1) == 0 : strstr(name, part) != NULL;
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), n_end = strlen(end);
    return n >= n_end && strcmp(s + n - n_end, end) == 0;
}

static enum class class_of(const char *name) {
    for (size_t i = 0; i < N_OF(classes); i++){if (matches(name, classes[i].part)) return classes[i].class;}
return OTHER;
}

/* "blk.12.x" -> 12; -1 outside the layers. */
static int layer_of(const char *name)
{
    if (strncmp(name, "blk.", 4) != 0 || name[4] < '0' || name[4] > '9') return -1;
    long layer = strtol(name + 4, NULL, 10);
    return layer > INT_MAX ? INT_MAX : (int)layer;
}

/* Letters without case and without underscores; *a ends at a space or NUL. */
static bool same_word(const char *a, const char *b)
{
    for (;; a++, b++) {
        while (*a == '_') a++;
        while (*b == '_') b++;
        if (*a == '\0' || *a == ' ') return *b == '\0';
        if (strncasecmp(a, b, 1) != 0) return false;
    }
}

const struct apr_recipe *apr_recipe_at(size_t i)
{
    return i < N_OF(recipes) ? &recipes[i] : NULL;
}

const struct apr_recipe *apr_recipe_named(const char *name)
{
    if (name[0] == '\0') return NULL;
    for (size_t i = 0; i < N_OF(recipes); i++) {
        if (same_word(recipes[i].name, name)) return &recipes[i];
        for (const char *a = recipes[i].aliases; a && *a; a = strchr(a, ' ')) {
            a += *a == ' ';
            if (same_word(a, name)) return &recipes[i];
        }
    }
    return NULL;
}

int apr_mix_order(const char *a, const char *b)
{
    int layer_a = layer_of(a), layer_b = layer_of(b);
    if (layer_a != layer_b) return layer_a < layer_b ? -1 : 1;
    return strcmp(a, b);
}

bool apr_mix_eligible(const char *gguf_name, uint32_t n_dims)
{
    if (n_dims < 2 || !ends_with(gguf_name, "weight")) return false;
    for (size_t i = 0; i < N_OF(kept); i++) {
        if (matches(gguf_name, kept[i])) return false;
    }
    return true;
}

enum apr_type apr_mix_base_type(const char *gguf_name, uint32_t n_dims, enum apr_type src)
{
    if (n_dims <= 1 || !ends_with(gguf_name, ".weight")) return APR_F32;
    for (size_t i = 0; i < N_OF(always_f32); i++) {
        if (ends_with(gguf_name, always_f32[i])) return APR_F32;
    }
    return src;
}

static bool holds(enum apr_mix_when when, uint64_t i, uint64_t n, const struct apr_mix_model *m)
{
    switch (when) {
    case APR_MIX_NEVER:
        return false;
    case APR_MIX_ALWAYS:
        return true;
    case APR_MIX_GQA4:
        return m->n_heads_kv > 0 && m->n_heads / m->n_heads_kv >= 4;
    case APR_MIX_FIRST2:
        return i < 2;
    case APR_MIX_FIRST4:
        return i < 4;
    case APR_MIX_EIGHTH:
        return i < n / 8;
    case APR_MIX_SIXTEENTH:
        return i < n / 16;
    case APR_MIX_MORE_BITS:
        return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
    case APR_MIX_GUARD:
        return m->has_imatrix && i < n / 8;
    case APR_MIX_UNGUIDED:
        return !m->has_imatrix && i < n / 8;
    }
    return false;
}

static enum apr_type ruled(const struct apr_mix_rule *rule, enum apr_type type, uint64_t i, uint64_t n,
                           const struct apr_mix_model *m)
{
    if (rule->when == APR_MIX_NEVER) return type;
    return holds(rule->when, i, n, m) ? rule->then : rule->otherwise;
}

static bool is_large(const struct apr_mix_model *m)
{
    for (size_t i = 0; i < N_OF(large); i++) {
        if (strcmp(large[i].gguf_arch, m->gguf_arch) == 0 && large[i].n_layers == m->n_layers) {
            return !large[i].needs_gqa || m->n_heads != m->n_heads_kv;
        }
    }
    return false;
}

static enum apr_type attn_v_type(const struct apr_recipe *r, const struct apr_mix_model *m, uint64_t i,
                                 uint64_t n)
{
    if (m->n_experts == 8) return APR_Q8_0;
    enum apr_type type = ruled(&r->attn_v, r->type, i, n, m);
    return is_large(m) && (type == APR_Q3_K || type == APR_Q4_K) ? APR_Q5_K : type;
}

static enum apr_type output_type(const struct apr_recipe *r, uint64_t n_cols)
{
    if (r->type == APR_Q8_0 || n_cols % apr_quant_of(r->type)->block_elems != 0) return APR_Q8_0;
    return APR_Q6_K;
}

/* The tensors of one class in llama-quantize's order; a tensor's place is its running number. */
struct rank {
    const char *name;
    struct apr_mix_tensor *tensor;
};
struct ranks {
    struct rank *at; /* arena */
    size_t n;
};

static int by_order(const void *a, const void *b)
{
    const struct rank *ra = a, *rb = b;
    return apr_mix_order(ra->name, rb->name);
}

static enum apr_code ranks_make(struct ranks *ranks, struct apr_arena *arena, enum class class,
                                struct apr_mix_tensor *t, size_t n, struct apr_err *e)
{
    *ranks = (struct ranks){0};
    TRY(apr_arena_try(arena, &ranks->at, n, sizeof *ranks->at, "order of tensors", e));
    for (size_t i = 0; i < n; i++) {
        if (class_of(t[i].gguf_name) == class) ranks->at[ranks->n++] = (struct rank){t[i].gguf_name, &t[i]};
    }
    if (ranks->n > 1) qsort(ranks->at, ranks->n, sizeof *ranks->at, by_order);
    return APR_OK;
}

static enum apr_code set_ffn_down(const struct apr_recipe *r, const struct apr_mix_model *m,
                                  const struct ranks *ranks, struct apr_err *e)
{
    /* Only tensors that quantization touches are counted. */
    uint64_t i_down = 0;
    for (size_t k = 0; k < ranks->n; k++) {
        struct apr_mix_tensor *t = ranks->at[k].tensor;
        if (!apr_mix_eligible(t->gguf_name, t->n_dims) || t->overruled) continue;
        uint64_t i = i_down++;
        if (m->n_experts > 1) {
            int layer = layer_of(t->gguf_name);
            if (layer < 0 || (uint32_t)layer >= m->n_layers) {
                char name[128];
                return apr_fail(e, APR_EFORMAT, "tensor %s: no layer below %" PRIu32 " in the name",
                                apr_escape(name, sizeof name, t->gguf_name, strlen(t->gguf_name)),
                                m->n_layers);
            }
            i = (uint64_t)layer;
        }
        t->wanted = ruled(&r->ffn_down, r->type, i, m->n_layers, m);
    }
    return APR_OK;
}

static void set_attn_v(const struct apr_recipe *r, const struct apr_mix_model *m, const struct ranks *ranks)
{
    /* The total counts every tensor of the class, the running number only those that quantization touches. */
    uint64_t i_value = 0;
    for (size_t k = 0; k < ranks->n; k++) {
        struct apr_mix_tensor *t = ranks->at[k].tensor;
        if (apr_mix_eligible(t->gguf_name, t->n_dims) && !t->overruled)
            t->wanted = attn_v_type(r, m, i_value++, ranks->n);
    }
}

/* The rules that look at one tensor only. */
static enum apr_type single_rule(const struct apr_recipe *r, const struct apr_mix_model *m, enum class class,
                                 bool tied, const struct apr_mix_tensor *t)
{
    if (class == OUTPUT || (class == EMBED && tied)) {
        if (m->overrides && m->overrides->has_output_type) return m->overrides->output_type;
        return output_type(r, t->n_cols);
    }
    if (class == ATTN_K && m->n_experts == 8) return APR_Q8_0;
    if (class != ATTN_OUT) return t->wanted;
    if (m->n_experts == 8) return r->attn_out_q5_of_8 ? APR_Q5_K : r->type;
    return ruled(&r->attn_out, r->type, 0, 0, m);
}

static enum apr_code apply_rules(const struct apr_recipe *r, const struct apr_mix_model *m,
                                 struct apr_mix_tensor *t, size_t n, struct apr_arena *arena,
                                 struct apr_err *e)
{
    bool tied = true;
    for (size_t i = 0; i < n; i++) {
        if (class_of(t[i].gguf_name) == OUTPUT) tied = false;
    }
    for (size_t i = 0; i < n; i++) {
        if (!t[i].overruled) t[i].wanted = single_rule(r, m, class_of(t[i].gguf_name), tied, &t[i]);
    }
    struct ranks ranks;
    TRY(ranks_make(&ranks, arena, ATTN_V, t, n, e));
    set_attn_v(r, m, &ranks);
    TRY(ranks_make(&ranks, arena, FFN_DOWN, t, n, e));
    return set_ffn_down(r, m, &ranks, e);
}

enum apr_type apr_mix_fallback(enum apr_type type, uint64_t n_cols)
{
    for (size_t i = 0; i < N_OF(fallbacks); i++) {
        if (fallbacks[i].from == type) type = fallbacks[i].to;
    }
    return n_cols % apr_quant_of(type)->block_elems == 0 ? type : APR_F16;
}

/* Sets overruled, and wanted with it. */
static enum apr_code overrule(const struct apr_recipe *r, const struct apr_mix_overrides *o,
                              struct apr_mix_tensor *t, struct apr_err *e)
{
    enum class class = class_of(t->gguf_name);
    const struct apr_mix_pick *pick = NULL;
    if (class == OUTPUT && o->leave_output) {
        t->wanted = t->src;
        t->overruled = true;
        return APR_OK;
    }
    bool is_embed = class == EMBED && o->has_embed_type, is_output = class == OUTPUT && o->has_output_type;
    if (is_embed || is_output) {
        t->wanted = is_embed ? o->embed_type : o->output_type;
        t->overruled = true;
        if (t->n_cols % apr_quant_of(t->wanted)->block_elems == 0) return APR_OK;
        return apr_fail(e, APR_EUSAGE, "%s %s: %s has %" PRIu64 " columns; expected a multiple of %" PRIu32,
                        is_embed ? "--embedding-type" : "--output-type", apr_type_name(t->wanted),
                        t->gguf_name, t->n_cols, apr_quant_of(t->wanted)->block_elems);
    }
    if (r->is_float || r->is_native) return APR_OK;
    TRY(apr_mix_pick_find(o, t->gguf_name, &pick, e));
    t->overruled = pick != NULL;
    if (pick) t->wanted = pick->type;
    return APR_OK;
}

/* Settles type and fallback for what is wanted. */
static void settle(const struct apr_recipe *r, struct apr_mix_tensor *t)
{
    if (!apr_mix_eligible(t->gguf_name, t->n_dims)) t->wanted = t->src;
    t->type = t->wanted;
    t->fallback = false;
    if (r->is_float || r->is_native || t->wanted == t->src) return;
    if (t->n_cols % apr_quant_of(t->wanted)->block_elems == 0) return;
    t->type = apr_mix_fallback(t->wanted, t->n_cols);
    t->fallback = true;
}

enum apr_code apr_mix_apply(const struct apr_recipe *r, const struct apr_mix_model *m,
                            struct apr_mix_tensor *t, size_t n, struct apr_err *e)
{
    for (size_t i = 0; i < n; i++) {
        t[i].wanted = r->type;
        t[i].overruled = false;
        if (m->overrides && apr_mix_eligible(t[i].gguf_name, t[i].n_dims))
            TRY(overrule(r, m->overrides, &t[i], e));
    }
    if (!r->is_float && !r->is_native && !m->pure) {
        struct apr_arena arena;
        apr_arena_init(&arena);
        enum apr_code code = apply_rules(r, m, t, n, &arena, e);
        apr_arena_free(&arena);
        if (code != APR_OK) return code;
    }
    for (size_t i = 0; i < n; i++) settle(r, &t[i]);
    return APR_OK;
}

/* The rules: what a model's structure and data must satisfy, each with its id. No rule reads a file. */
#include "contract.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "ckd.h"

static const struct apr_rule rules[] = {
    {"F-FAMILY-001", "the model's family has a contract"},
    {"F-FAMILY-002", "architectures and model_type name the same family"},
    {"F-TENSOR-001", "every tensor of the family is present"},
    {"F-TENSOR-002", "every tensor present belongs to the family"},
    {"F-TENSOR-003", "every tensor has a type that can be computed with"},
    {"F-VOCAB-001", "the vocabulary has as many tokens as the embedding has rows"},
    {"F-VOCAB-002", "begin and end tokens lie inside the vocabulary"},
    {"F-LAYOUT-CONTRACT-001", "a matrix is stored [out, in], row-major"},
    {"F-LAYOUT-CONTRACT-002", "lm_head is [vocab, hidden] (critical)"},
    {"F-LAYOUT-CONTRACT-003", "a vector has the length of what it scales or shifts"},
    {"F-LAYOUT-CONTRACT-004", "a tensor's bytes equal rows times blocks per row times block size"},
    {"F-DATA-QUALITY-001", "not all zeros; at most 50 % zeros in an embedding, 80 % in a matrix"},
    {"F-DATA-QUALITY-002", "no NaN and no infinite value"},
    {"F-DATA-QUALITY-003", "L2 norm >= 1e-6, values differ, mean within 100"},
    {"F-DATA-QUALITY-004", "embedding rows at 10, 50 and 90 % of the vocabulary are not zero"},
    {"ALG-001", "hidden_dim is divisible by num_heads, unless head_dim is given (Vaswani 2017)"},
    {"ALG-002", "num_heads is divisible by num_kv_heads (Ainslie 2023)"},
    {"ALG-003", "head_dim is once or twice hidden_dim / num_heads (Vaswani 2017), if given half to 8 times"},
    {"ALG-004", "intermediate_dim exceeds hidden_dim (Shazeer 2020)"},
    {"ALG-005", "no dimension is zero"},
    {"ALG-007", "head_dim is even, positions and theta are positive (Su 2024)"},
    {"ALG-008", "num_kv_heads <= num_heads (Ainslie 2023)"},
    {"ALG-009", "0 < norm epsilon < 1"},
    {"ALG-010", "there are experts, and they have a width (Shazeer 2017)"},
    {"ALG-011", "a token takes at least one expert and at most all (Shazeer 2017)"},
    {"ALG-012", "a layer with experts follows the dense ones (DeepSeek-AI 2024)"},
    {"ALG-013", "latent attention: head_dim is its two parts, none of them zero (DeepSeek-AI 2024)"},
};

const struct apr_rule *apr_contract_rule_at(size_t i)
{
    return i < sizeof rules / sizeof rules[0] ? &rules[i] : NULL;
}

/* ---- configuration --------------------------------------------------------------------------------- */

static void check_positive(const struct apr_config *c, struct apr_verdict *v)
{
    const struct {
        const char *name;
        uint32_t value;
    } dims[] = {{"hidden_dim", c->n_hidden},     {"num_layers", c->n_layers},     {"num_heads", c->n_heads},
                {"vocab_size", c->n_vocab},      {"num_kv_heads", c->n_heads_kv}, {"head_dim", c->head_dim},
                {"intermediate_dim", c->n_inter}};
    for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++)
        if (dims[i].value == 0)
            apr_verdict_add(v, "ALG-005", NULL, true, "%s is 0; expected a positive number", dims[i].name);
}

/* Heads and widths. A head_dim that config.json gives is bound to hidden_dim / num_heads as loosely as in the
 * published models that do so: emit.c, ALG-003c and ALG-003d. */
static void check_heads(const struct apr_config *c, struct apr_verdict *v)
{
    const uint64_t per_head = c->n_hidden / c->n_heads;
    const bool given = c->head_dim_given || c->mla.kv_rank != 0;
    const uint64_t least = given ? per_head / 2 : per_head, most = (given ? 8 : 2) * per_head;
    if (c->n_heads_kv > c->n_heads)
        apr_verdict_add(v, "ALG-008", NULL, true,
                        "num_kv_heads is %" PRIu32 "; expected at most num_heads, %" PRIu32, c->n_heads_kv,
                        c->n_heads);
    if (!given && c->n_hidden % c->n_heads != 0)
        apr_verdict_add(v, "ALG-001", NULL, false,
                        "hidden_dim %" PRIu32 " is not divisible by num_heads %" PRIu32, c->n_hidden,
                        c->n_heads);
    if (c->n_heads % c->n_heads_kv != 0)
        apr_verdict_add(v, "ALG-002", NULL, true,
                        "num_heads %" PRIu32 " is not divisible by num_kv_heads %" PRIu32, c->n_heads,
                        c->n_heads_kv);
    if (c->head_dim < least || c->head_dim > most)
        apr_verdict_add(v, "ALG-003", NULL, false,
                        "head_dim is %" PRIu32 "; expected from %" PRIu64 " to %" PRIu64, c->head_dim, least,
                        most);
}

static void check_experts(const struct apr_config *c, struct apr_verdict *v)
{
    const struct apr_moe *m = &c->moe;
    uint32_t n_dense = 0;
    if (m->n_experts == 0) return;
    for (uint32_t i = 0; i < c->n_layers && i < APR_MAX_LAYERS; i++) n_dense += apr_layer_bit(m->dense, i);
    if (m->n_inter == 0)
        apr_verdict_add(v, "ALG-010", NULL, true, "expert_dim is 0; expected a positive number");
    if (m->n_used == 0 || m->n_used > m->n_experts)
        apr_verdict_add(v, "ALG-011", NULL, true,
                        "n_experts_used is %" PRIu32 "; expected from 1 to n_experts, %" PRIu32, m->n_used,
                        m->n_experts);
    if (n_dense >= c->n_layers)
        apr_verdict_add(v, "ALG-012", NULL, false,
                        "all %" PRIu32 " layers are dense; expected one with experts", c->n_layers);
}

static void check_latent(const struct apr_config *c, struct apr_verdict *v)
{
    const struct apr_mla *a = &c->mla;
    if (a->kv_rank == 0) return;
    if (a->n_value == 0 || a->n_nope == 0 || a->n_rope == 0 || a->n_rope % 2 != 0)
        apr_verdict_add(v, "ALG-013", NULL, true,
                        "qk_nope_dim %" PRIu32 ", qk_rope_dim %" PRIu32 ", v_head_dim %" PRIu32
                        "; expected positive numbers, the second even",
                        a->n_nope, a->n_rope, a->n_value);
    if ((uint64_t)a->n_nope + a->n_rope != c->head_dim)
        apr_verdict_add(v, "ALG-013", NULL, true,
                        "head_dim is %" PRIu32 "; expected qk_nope_dim + qk_rope_dim, %" PRIu64, c->head_dim,
                        (uint64_t)a->n_nope + a->n_rope);
}

/* Where every layer has experts, intermediate_dim is the width of none. */
static bool has_dense(const struct apr_config *c)
{
    for (uint32_t i = 0; i < c->n_layers && i < APR_MAX_LAYERS; i++)
        if (apr_layer_bit(c->moe.dense, i)) return true;
    return c->moe.n_experts == 0;
}

/* The same rules that the proofs hold for the listed sizes, for a config that no list knows. */
static void check_config(const struct apr_config *c, struct apr_verdict *v)
{
    uint64_t n_unsafe = v->n_unsafe;
    const bool rope = c->rope_theta != 0 || c->n_positions == 0; /* learned positions have no theta */
    check_positive(c, v);
    if (v->n_unsafe != n_unsafe) return; /* divisors below */
    check_heads(c, v);
    check_experts(c, v);
    check_latent(c, v);
    if (has_dense(c) && c->n_inter <= c->n_hidden)
        apr_verdict_add(v, "ALG-004", NULL, false,
                        "intermediate_dim is %" PRIu32 "; expected more than hidden_dim, %" PRIu32,
                        c->n_inter, c->n_hidden);
    if (rope && c->head_dim % 2 != 0)
        apr_verdict_add(v, "ALG-007", NULL, true, "head_dim is %" PRIu32 "; expected an even number",
                        c->head_dim);
    if (c->n_ctx_train == 0 || (rope && !(isfinite(c->rope_theta) && c->rope_theta > 0)))
        apr_verdict_add(v, "ALG-007", NULL, false,
                        "positions %" PRIu32 ", theta %g; expected both positive and finite", c->n_ctx_train,
                        c->rope_theta);
    if (!(isfinite(c->norm_eps) && c->norm_eps > 0 && c->norm_eps < 1))
        apr_verdict_add(v, "ALG-009", NULL, false, "norm epsilon is %g; expected above 0 and below 1",
                        c->norm_eps);
}

static void check_vocab(const struct apr_model *m, struct apr_verdict *v)
{
    const struct apr_vocab *vocab = &m->vocab;
    const struct {
        const char *name;
        int64_t id;
    } ids[] = {{"begin", vocab->bos_id}, {"end", vocab->eos_id}};
    if (vocab->kind == APR_VOCAB_NONE) return;
    if (vocab->n_toks != m->config.n_vocab)
        apr_verdict_add(v, "F-VOCAB-001", NULL, vocab->n_toks > m->config.n_vocab,
                        "%" PRIu32 " tokens; expected one per embedding row, %" PRIu32, vocab->n_toks,
                        m->config.n_vocab);
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++)
        if (ids[i].id != APR_ID_NONE && (ids[i].id < 0 || ids[i].id >= vocab->n_toks))
            apr_verdict_add(v, "F-VOCAB-002", NULL, true,
                            "%s token is %" PRId64 "; expected an id below %" PRIu32, ids[i].name, ids[i].id,
                            vocab->n_toks);
}

/* ---- tensors ---------------------------------------------------------------------------------------- */

static size_t rule_dims(const struct apr_tensor_rule *r)
{
    size_t n = 0;
    while (n < 3 && r->dims[n] != APR_DIM_NONE) n++;
    return n;
}

static void check_shape(const struct apr_model *m, const struct apr_tensor *t,
                        const struct apr_tensor_rule *r, struct apr_verdict *v)
{
    struct apr_tensor want = {.n_dims = (uint32_t)rule_dims(r)};
    char found[128], expected[128];
    bool same = t->n_dims == want.n_dims, swapped;
    for (uint32_t i = 0; i < want.n_dims; i++) {
        want.dims[i] = apr_family_dim(&m->config, r->dims[i]);
        same = same && t->dims[i] == want.dims[i];
    }
    if (same) return;
    swapped = want.n_dims == 2 && t->n_dims == 2 && t->dims[0] == want.dims[1] && t->dims[1] == want.dims[0];
    apr_verdict_add(v,
                    want.n_dims == 1              ? "F-LAYOUT-CONTRACT-003"
                    : r->role == APR_ROLE_LM_HEAD ? "F-LAYOUT-CONTRACT-002"
                                                  : "F-LAYOUT-CONTRACT-001",
                    t->name, true, "%s layout violation%s: found %s, expected %s%s",
                    r->role == APR_ROLE_EMBED ? "embedding"
                    : want.n_dims == 1        ? "vector"
                                              : "weight",
                    r->role == APR_ROLE_LM_HEAD ? " (critical)" : "",
                    apr_tensor_shape(t, found, sizeof found),
                    apr_tensor_shape(&want, expected, sizeof expected),
                    swapped ? ": transposed dimensions detected" : "");
}

/* F-LAYOUT-CONTRACT-004, and a type whose values are known. */
static void check_bytes(const struct apr_tensor *t, struct apr_verdict *v)
{
    const struct apr_quant *q = apr_quant_of(t->type);
    struct apr_err e;
    uint64_t n_bytes;
    if (!q || !q->to_f32)
        apr_verdict_add(v, "F-TENSOR-003", t->name, true, "values of type %s cannot be computed",
                        apr_type_name(t->type));
    if (apr_tensor_bytes_packed(t->type, t->packing, t->n_dims, t->dims, &n_bytes, &e) != APR_OK)
        apr_verdict_add(v, "F-LAYOUT-CONTRACT-004", t->name, true, "%s", e.text);
    else if (n_bytes != t->n_bytes)
        apr_verdict_add(v, "F-LAYOUT-CONTRACT-004", t->name, true,
                        "found %" PRIu64 " bytes, expected %" PRIu64, t->n_bytes, n_bytes);
}

/* Of a stack that the checkpoint has in parts, but not in all: the first that is missing. */
static const char *missing_name(const struct apr_model *m, const struct apr_tensor_rule *r, uint32_t layer,
                                const char *name, struct apr_arena *a)
{
    const struct apr_tensor_form *form = apr_family_form(m->family, r->role);
    const uint32_t n = form && form->part ? m->config.moe.n_experts : 0;
    uint32_t n_found = 0, first = n;
    char part[512];
    for (uint32_t i = 0; i < n; i++) {
        if (apr_model_find(m, apr_family_part_name(form->part, layer, i, part, sizeof part)))
            n_found++;
        else if (first == n)
            first = i;
    }
    if (n_found && first < n) name = apr_family_part_name(form->part, layer, first, part, sizeof part);
    return apr_arena_strdup(a, name);
}

static void check_present(const struct apr_model *m, struct apr_verdict *v)
{
    char name[512];
    for (size_t i = 0; i < m->family->n_rules; i++) {
        const struct apr_tensor_rule *r = &m->family->rules[i];
        uint32_t n = apr_family_n_layers(r, &m->config);
        for (uint32_t layer = 0; layer < n; layer++)
            if (apr_family_requires(r, &m->config, layer) &&
                !apr_model_find(m, apr_family_name(r->hf, layer, name, sizeof name)))
                apr_verdict_add(v, "F-TENSOR-001", missing_name(m, r, layer, name, v->arena), true,
                                "missing; family %s requires it", m->family->name);
    }
}

static void check_named(const struct apr_model *m, const struct apr_tensor *t, struct apr_verdict *v)
{
    uint32_t layer;
    const struct apr_tensor_rule *r = apr_family_rule_hf(m->family, t->name, &layer);
    if (!r)
        apr_verdict_add(v, "F-TENSOR-002", t->name, false, "unexpected; family %s has no such tensor",
                        m->family->name);
    else if (layer != UINT32_MAX && layer >= apr_family_n_layers(r, &m->config))
        apr_verdict_add(v, "F-TENSOR-002", t->name, false, "unexpected; the model has %" PRIu32 " layers",
                        apr_family_n_layers(r, &m->config));
    else if (!apr_family_allows(r, &m->config, layer))
        apr_verdict_add(v, "F-TENSOR-002", t->name, false, "unexpected; this model of family %s has none",
                        m->family->name);
    else
        check_shape(m, t, r, v);
}

/* The tensors of several families differ in nothing but what is computed with them (gemma, llama, mistral).
 */
static void check_family(const struct apr_model *m, struct apr_verdict *v)
{
    const struct apr_family *other = apr_family_conflict(m->hf_config, m->family);
    if (other)
        apr_verdict_add(v, "F-FAMILY-002", NULL, false,
                        "config.json: architectures names family %s, model_type family %s", m->family->name,
                        other->name);
}

void apr_contract_structure(const struct apr_model *m, struct apr_verdict *v)
{
    if (!m->family) {
        struct apr_buf known;
        struct apr_err e;
        apr_buf_init(&known, 4096);
        for (size_t i = 0; apr_family_at(i); i++)
            if (apr_buf_printf(&known, &e, "%s%s", i ? ", " : "", apr_family_at(i)->name) != APR_OK) break;
        apr_verdict_add(v, "F-FAMILY-001", NULL, true, "found family \"%s\", expected one of: %s",
                        m->arch ? m->arch : "(none named)", known.data ? (const char *)known.data : "");
        apr_buf_free(&known);
    } else {
        check_family(m, v);
        check_config(&m->config, v);
        check_vocab(m, v);
        check_present(m, v);
    }
    for (uint64_t i = 0; i < m->n_tensors; i++) {
        if (m->family) check_named(m, &m->tensors[i], v);
        check_bytes(&m->tensors[i], v);
    }
}

/* ---- data ------------------------------------------------------------------------------------------- */

#define MIN_L2         1e-6
#define MIN_RANGE      1e-10
#define MAX_MEAN       100.0
#define MAX_PCT_EMBED  50.0
#define MAX_PCT_WEIGHT 80.0

enum class { EMBED, MATRIX, NORM, BIAS };

static bool has(const char *name, const char *const *parts, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strstr(name, parts[i])) return true;
    return false;
}

/* By name, as the published gate tells them apart, so that it holds for files without a family too. */
static enum class class_of(const struct apr_tensor *t) {
    static const char *const embeds[] = {"embed", "wte", "wpe", "embd"}, *const norms[] = {"norm", "ln_"};
    const char *end = strrchr(t->name, '.');
    if (end && strcmp(end, ".bias") == 0) return BIAS;
    if (has(t->name, norms, 2) || t->n_dims < 2) return NORM;
    return has(t->name, embeds, 4) ? EMBED : MATRIX;
}

/* A bias may be zero throughout, and large (Qwen2's k biases reach hundreds): only NaN and Inf are faults. */
void apr_contract_tensor(const struct apr_model *m, const struct apr_tensor *t, const struct apr_stats *s,
                         struct apr_verdict *v)
{
    enum class class = class_of(t);
    const uint64_t n_finite = s->n - s->n_nan - s->n_inf;
    const double limit = class == EMBED ? MAX_PCT_EMBED : MAX_PCT_WEIGHT;
    const double pct = s->n ? 100.0 * (double)s->n_zero / (double)s->n : 100.0;
    (void)m;
    v->n_tensors_checked++;
    if (s->n_nan)
        apr_verdict_add(v, "F-DATA-QUALITY-002", t->name, false,
                        "%" PRIu64 " NaN of %" PRIu64 " values; expected none", s->n_nan, s->n);
    if (s->n_inf)
        apr_verdict_add(v, "F-DATA-QUALITY-002", t->name, false,
                        "%" PRIu64 " infinite of %" PRIu64 " values; expected none", s->n_inf, s->n);
    if (class == BIAS) return;
    if (s->n_zero == s->n)
        apr_verdict_add(v, "F-DATA-QUALITY-001", t->name, false, "all %" PRIu64 " values are zero", s->n);
    else if (class != NORM && pct > limit)
        apr_verdict_add(v, "F-DATA-QUALITY-001", t->name, false, "%.1f %% zeros; expected at most %.0f %%",
                        pct, limit);
    if (s->n_zero == s->n || n_finite == 0) return; /* said above */
    if (sqrt(s->sum_sq) < MIN_L2)
        apr_verdict_add(v, "F-DATA-QUALITY-003", t->name, false, "L2 norm is %.3g; expected at least %g",
                        sqrt(s->sum_sq), MIN_L2);
    if (class == NORM) return;
    if ((double)s->max - (double)s->min < MIN_RANGE)
        apr_verdict_add(v, "F-DATA-QUALITY-003", t->name, false, "all values are %g; expected them to differ",
                        (double)s->min);
    if (fabs(s->sum / (double)n_finite) > MAX_MEAN)
        apr_verdict_add(v, "F-DATA-QUALITY-003", t->name, false,
                        "mean is %g; expected at most %g in magnitude", s->sum / (double)n_finite, MAX_MEAN);
}

/* Twice what is asked for, since bounds are rounded too. A mean is no larger than the largest value. */
bool apr_contract_surely(const struct apr_tensor *t, const struct apr_bounds *b)
{
    enum class class = class_of(t);
    const double limit = class == EMBED ? MAX_PCT_EMBED : MAX_PCT_WEIGHT;
    return b->abs_most < INFINITY &&
           (class == BIAS ||
            (b->abs_most < MAX_MEAN / 2 && b->l2_least > 2 * MIN_L2 && b->range_least > 2 * MIN_RANGE &&
             b->n > 0 && 100.0 * (double)b->n_zero_most / (double)b->n <= limit));
}

void apr_contract_embed_row(const struct apr_tensor *t, uint64_t i_row, const float *row, size_t n,
                            struct apr_verdict *v)
{
    double sum_sq = 0;
    for (size_t i = 0; i < n; i++) sum_sq += (double)row[i] * (double)row[i];
    if (sqrt(sum_sq) < MIN_L2)
        apr_verdict_add(v, "F-DATA-QUALITY-004", t->name, false,
                        "row %" PRIu64 ": L2 norm is %.3g; expected at least %g", i_row, sqrt(sum_sq),
                        MIN_L2);
}

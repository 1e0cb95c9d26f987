/* Comparison of configs. See differ.h. */
#include "differ.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#define CLOSE 1e-6

enum kind { U32, BOOL, REAL, BITS };
struct field {
    const char *name;
    size_t off;
    enum kind kind;
};
#define FIELD(member_, kind_)                                                                                \
    {                                                                                                        \
        .name = #member_, .off = offsetof(struct apr_config, member_), .kind = (kind_)                       \
    }
static const struct field fields[] = {
    FIELD(n_layers, U32),        FIELD(n_hidden, U32),           FIELD(n_heads, U32),
    FIELD(n_heads_kv, U32),      FIELD(head_dim, U32),           FIELD(n_inter, U32),
    FIELD(n_vocab, U32),         FIELD(n_ctx_train, U32),        FIELD(norm_eps, REAL),
    FIELD(tied, BOOL),           FIELD(qkv_bias, BOOL),          FIELD(o_bias, BOOL),
    FIELD(mlp_bias, BOOL),       FIELD(head_bias, BOOL),         FIELD(is_parallel, BOOL),
    FIELD(is_gated, BOOL),       FIELD(n_positions, U32),        FIELD(embed_scale, REAL),
    FIELD(residual_scale, REAL), FIELD(attn_scale, REAL),        FIELD(logit_scale, REAL),
    FIELD(attn_softcap, REAL),   FIELD(logit_softcap, REAL),     FIELD(window, U32),
    FIELD(local, BITS),          FIELD(moe.n_experts, U32),      FIELD(moe.n_used, U32),
    FIELD(moe.n_inter, U32),     FIELD(moe.n_inter_shared, U32), FIELD(moe.shared_gate, BOOL),
    FIELD(moe.norm_topk, BOOL),  FIELD(moe.sigmoid, BOOL),       FIELD(moe.scale, REAL),
    FIELD(moe.dense, BITS),      FIELD(mla.q_rank, U32),         FIELD(mla.kv_rank, U32),
    FIELD(mla.n_nope, U32),      FIELD(mla.n_rope, U32),         FIELD(mla.n_value, U32),
    FIELD(is_encoder, BOOL),
};

static bool is_close(double a, double b)
{
    return fabs(a - b) <= CLOSE * fmax(fabs(a), fabs(b));
}

static bool is_same(const struct apr_config *a, const struct apr_config *b, const struct field *f)
{
    const char *x = (const char *)a + f->off, *y = (const char *)b + f->off;
    switch (f->kind) {
    case U32:
        return *(const uint32_t *)(const void *)x == *(const uint32_t *)(const void *)y;
    case BOOL:
        return *(const bool *)(const void *)x == *(const bool *)(const void *)y;
    case REAL:
        return is_close(*(const double *)(const void *)x, *(const double *)(const void *)y);
    case BITS:
        return memcmp(x, y, sizeof a->local) == 0;
    }
    return false;
}
_Static_assert(sizeof(((struct apr_config *)0)->local) == sizeof(((struct apr_moe *)0)->dense),
               "one size of bits");

/* What multiplies cos and sin (yarn: Peng et al. 2023; longrope: Ding et al. 2024). */
static double attn_factor(const struct apr_rope *r)
{
    const double log_factor = r->factor > 1 ? log(r->factor) : 0;
    if (r->attn_factor > 0) return r->attn_factor;
    if (r->scaling == APR_ROPE_LONG) return r->factor > 1 ? sqrt(1 + log_factor / log(r->n_ctx_orig)) : 1;
    if (r->scaling != APR_ROPE_YARN) return 1;
    if (r->mscale > 0 && r->mscale_all_dim > 0)
        return (0.1 * r->mscale * log_factor + 1) / (0.1 * r->mscale_all_dim * log_factor + 1);
    return 0.1 * log_factor + 1;
}

static const char *rope_differs(const struct apr_rope *a, const struct apr_rope *b)
{
    if (!is_close(a->theta, b->theta)) return "rope.theta";
    if (a->n_dims != b->n_dims) return "rope.n_dims";
    if (a->scaling != b->scaling) return "rope.scaling";
    if (a->scaling == APR_ROPE_PLAIN) return NULL;
    if (!is_close(a->factor, b->factor)) return "rope.factor";
    if (a->scaling != APR_ROPE_LINEAR && a->n_ctx_orig != b->n_ctx_orig) return "rope.n_ctx_orig";
    if (!is_close(attn_factor(a), attn_factor(b))) return "rope.attn_factor";
    if (a->scaling == APR_ROPE_YARN &&
        !(is_close(a->beta_fast, b->beta_fast) && is_close(a->beta_slow, b->beta_slow)))
        return "rope.beta_fast";
    if (a->scaling == APR_ROPE_YARN && a->truncate != b->truncate) return "rope.truncate";
    if (a->scaling == APR_ROPE_LLAMA3 && !(is_close(a->low_freq_factor, b->low_freq_factor) &&
                                           is_close(a->high_freq_factor, b->high_freq_factor)))
        return "rope.low_freq_factor";
    return NULL;
}

/* One group is no choice. */
static uint32_t n_groups(const struct apr_moe *m, uint32_t n)
{
    return m->n_groups > 1 ? n : 0;
}

const char *apr_config_differs(const struct apr_config *a, const struct apr_config *b)
{
    const char *what;
    if (a->norm != b->norm) return "norm";
    if (a->activation != b->activation) return "activation";
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        if (!is_same(a, b, &fields[i])) return fields[i].name;
    if (n_groups(&a->moe, a->moe.n_groups) != n_groups(&b->moe, b->moe.n_groups) ||
        n_groups(&a->moe, a->moe.n_groups_used) != n_groups(&b->moe, b->moe.n_groups_used))
        return "moe.n_groups";
    what = rope_differs(&a->rope, &b->rope);
    if (what) return what;
    return rope_differs(&a->rope_local, &b->rope_local) ? "rope_local" : NULL;
}

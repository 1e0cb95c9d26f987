/* Numbers that follow from a model's dimensions, with the formulas beside them. */
#include "oracle.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "kern/kern.h"

#define MIB       (1024.0 * 1024.0)
#define PI        3.14159265358979323846
#define KV_BYTES  2.0  /* F16 cache */
#define CTX_SHOWN 4096 /* context for which the cache is shown */

static bool gated(const struct apr_contract_size *z)
{
    return strcmp(z->mlp, "gelu_mlp") != 0; /* swiglu, gated_mlp: gate, up, down */
}

/* Sum over the template's tensors, so that biases and norms are counted where they are. */
static uint64_t by_template(const struct apr_contract_family *f, const struct apr_contract_size *z)
{
    uint64_t n = 0;
    for (size_t i = 0; i < f->n_tensors; i++) {
        const struct apr_contract_tensor *t = &f->tensors[i];
        uint64_t dims[4], n_elems = 1;
        if (!apr_contract_has(z, t)) continue;
        size_t n_dims = apr_contract_shape(z, t, dims);
        for (size_t k = 0; k < n_dims; k++) n_elems *= dims[k];
        n += n_elems * (strstr(t->hf, "{n}") ? z->num_layers : 1);
    }
    return n;
}

/* The same over the family's rules, for sizes that no contract lists. */
static uint64_t by_rules(const struct apr_family *f, const struct apr_config *c)
{
    uint64_t n = 0;
    for (size_t i = 0; i < f->n_rules; i++) {
        const struct apr_tensor_rule *r = &f->rules[i];
        uint64_t n_elems = 1;
        if (r->need == APR_OPTIONAL || (r->need == APR_UNLESS_TIED && c->tied)) continue;
        for (size_t k = 0; k < 3 && r->dims[k] != APR_DIM_NONE; k++) n_elems *= apr_family_dim(c, r->dims[k]);
        n += n_elems * (strstr(r->hf, "{n}") ? c->n_layers : 1);
    }
    return n;
}

uint64_t oracle_n_params(const struct subject *s, const struct apr_contract_size *z)
{
    const struct apr_family *f = s->found_family ? apr_family_named(s->found_family) : NULL;
    if (z->size) return by_template(s->family, z);
    return f ? by_rules(f, &s->found) : 0;
}

void oracle_stats(const struct subject *s, const struct apr_contract_size *z, struct apr_out *o)
{
    const double h = (double)z->hidden_dim, hd = (double)z->head_dim;
    const double heads = (double)z->num_heads, kv = (double)z->num_kv_heads,
                 inter = (double)z->intermediate_dim;
    const uint64_t n_params = oracle_n_params(s, z);
    const uint64_t kv_token = 2 * z->num_layers * z->num_kv_heads * z->head_dim * (uint64_t)KV_BYTES;
    apr_out_obj(o, "stats");
    if (kv > 0) apr_out_f64(o, "gqa_ratio", heads / kv); /* query heads that share a KV head */
    if (heads > 0) apr_out_f64(o, "kv_cache_reduction", 1 - kv / heads);
    apr_out_u64(o, "head_dim", z->head_dim);
    if (n_params) {
        apr_out_u64(o, "model_params", n_params);
        apr_out_f64(o, "model_size_f16_mib", 2.0 * (double)n_params / MIB);
        apr_out_f64(o, "model_size_q4_mib",
                    0.5625 * (double)n_params / MIB); /* Q4_K: 144 bytes for 256 values */
    }
    apr_out_u64(o, "kv_cache_per_token_bytes", kv_token);
    apr_out_f64(o, "kv_cache_4k_mib", (double)kv_token * CTX_SHOWN / MIB);
    apr_out_str(o, "ffn_type", z->mlp);
    if (h > 0) apr_out_f64(o, "ffn_expansion_ratio", inter / h);
    if (z->rope_theta > 0) apr_out_f64(o, "rope_max_wavelength", 2 * PI * z->rope_theta);
    /* one token: projections q, k, v, then the output; a product and a sum each */
    apr_out_f64(o, "attention_flops_per_layer", 2 * h * (heads + 2 * kv) * hd + 2 * heads * hd * h);
    apr_out_f64(o, "ffn_flops_per_layer", 2 * h * inter * (gated(z) ? 3 : 2));
    if (n_params)
        apr_out_f64(o, "memory_required_q4_4k_mib",
                    (0.5625 * (double)n_params + (double)kv_token * CTX_SHOWN) / MIB);
    apr_out_end(o);
}

void oracle_explain(const struct subject *s, const struct apr_contract_size *z, struct apr_out *o)
{
    char text[512];
    apr_out_obj(o, "explanation");
    if (z->num_kv_heads && z->num_kv_heads < z->num_heads)
        (void)snprintf(text, sizeof text,
                       "Grouped-query attention (Ainslie et al. 2023): %" PRIu64 " query heads share %" PRIu64
                       " key-value heads, so the cache is %.4g times smaller than with one each.",
                       z->num_heads, z->num_kv_heads, (double)z->num_heads / (double)z->num_kv_heads);
    else
        (void)snprintf(text, sizeof text,
                       "Multi-head attention (Vaswani et al. 2017): each of %" PRIu64
                       " query heads has its own keys and values.",
                       z->num_heads);
    apr_out_str(o, "attention", text);
    if (z->rope_theta > 0)
        (void)snprintf(text, sizeof text,
                       "Rotary positions (Su et al. 2024): pairs of the head's %" PRIu64
                       " dimensions turn by position / theta^(2i/d), theta = %g; head_dim must be even.",
                       z->head_dim, z->rope_theta);
    else
        (void)snprintf(text, sizeof text,
                       "Absolute positions: a learnt or fixed vector is added for each position.");
    apr_out_str(o, "positions", text);
    (void)snprintf(
        text, sizeof text,
        gated(z) ? "Gated feed-forward, %s (Shazeer 2020): down(act(gate(x)) * up(x)), %s, width %" PRIu64 "."
                 : "Feed-forward, %s (Vaswani et al. 2017): down(act(up(x))), %s, width %" PRIu64 ".",
        z->mlp, z->activation, z->intermediate_dim);
    apr_out_str(o, "feed_forward", text);
    apr_out_str(
        o, "norm",
        strcmp(z->norm, "rmsnorm") == 0
            ? "RMSNorm (Zhang and Sennrich 2019): x / sqrt(mean(x^2) + eps) * w, before each half of a layer."
            : "LayerNorm (Ba et al. 2016): (x - mean) / sqrt(variance + eps) * w + b.");
    apr_out_str(o, "chat", s->family->chat_format);
    apr_out_end(o);
}

/* Which storage types this build computes with on this CPU, and what they cost. */
void oracle_kernels(const struct subject *s, const struct apr_contract_size *z, struct apr_out *o)
{
    const struct apr_kern *kern;
    const struct apr_quant *q;
    struct apr_err e;
    const uint64_t n_params = oracle_n_params(s, z);
    if (apr_kern_pick(&kern, &e) != APR_OK) kern = &apr_kern_scalar;
    apr_out_obj(o, "kernel_compatibility");
    apr_out_str(o, "kernel_table", kern->name);
    apr_out_str(o, "attention_kernel", z->num_kv_heads < z->num_heads ? "grouped-query" : "multi-head");
    apr_out_bool(o, "family_runs_here", apr_family_named(s->family->name) != NULL);
    apr_out_arr(o, "types");
    for (size_t i = 0; (q = apr_quant_at(i)); i++) {
        const struct apr_matmul *mm = &kern->matmul[q->type];
        const double bytes = (double)q->block_bytes / q->block_elems;
        if (q->type >= APR_N_TYPES || !mm->fast || z->hidden_dim % q->block_elems != 0) continue;
        apr_out_obj(o, NULL);
        apr_out_str(o, "type", q->name);
        apr_out_f64(o, "bits_per_weight", 8 * bytes);
        apr_out_f64(o, "model_mib", bytes * (double)n_params / MIB);
        apr_out_str(o, "activations",
                    mm->act == APR_ACT_F32     ? "f32"
                    : mm->act == APR_ACT_Q8_32 ? "int8 per 32"
                                               : "int8 per 256");
        apr_out_end(o);
    }
    apr_out_end(o);
    apr_out_end(o);
}

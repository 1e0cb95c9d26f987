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
        size_t n_dims = apr_contract_shape(z, t, dims);
        for (size_t k = 0; k < n_dims; k++) n_elems *= dims[k];
        n += n_elems * apr_contract_n_of(z, t);
    }
    return n;
}

/* The same over the family's rules, for sizes that no contract lists. */
static uint64_t by_rules(const struct apr_family *f, const struct apr_config *c)
{
    uint64_t n = 0;
    for (size_t i = 0; i < f->n_rules; i++) {
        const struct apr_tensor_rule *r = &f->rules[i];
        const uint32_t n_layers = apr_family_n_layers(r, c);
        uint64_t n_elems = 1, n_there = 0;
        for (size_t k = 0; k < 3 && r->dims[k] != APR_DIM_NONE; k++) n_elems *= apr_family_dim(c, r->dims[k]);
        for (uint32_t layer = 0; layer < n_layers; layer++) n_there += apr_family_requires(r, c, layer);
        n += n_elems * n_there;
    }
    return n;
}

uint64_t oracle_n_params(const struct subject *s, const struct apr_contract_size *z)
{
    const struct apr_family *f = s->found_family ? apr_family_named(s->found_family) : NULL;
    if (z->size) return by_template(s->family, z);
    return f ? by_rules(f, &s->found) : 0;
}

/* Values that the cache keeps for one token of one layer. Latent attention needs the latent vector and the
 * turned part of k alone (DeepSeek-AI 2024, table 1). */
static uint64_t cached_elems(const struct apr_contract_size *z)
{
    return z->kv_lora_rank ? z->kv_lora_rank + z->qk_rope_dim : 2 * z->num_kv_heads * z->head_dim;
}

/* One token through the projections of one layer's attention; a product and a sum each. */
static double attention_flops(const struct apr_contract_size *z)
{
    const double h = (double)z->hidden_dim, q = (double)z->num_heads * (double)z->head_dim;
    const double kv = (double)z->num_kv_heads * (double)z->head_dim;
    const double rank = (double)z->kv_lora_rank, q_rank = (double)z->q_lora_rank;
    if (!z->kv_lora_rank) return 2 * h * (q + 2 * kv) + 2 * q * h;
    return 2 * (q_rank > 0 ? h * q_rank + q_rank * q : h * q) + 2 * h * (rank + (double)z->qk_rope_dim) +
           2 * rank * (double)z->num_heads * (double)(z->qk_nope_dim + z->v_head_dim) +
           2 * (double)z->num_heads * (double)z->v_head_dim * h;
}

/* The same for a feed-forward block: with experts the router, the experts taken, and the shared ones. */
static double ffn_flops(const struct apr_contract_size *z)
{
    const double h = (double)z->hidden_dim, n_mats = gated(z) ? 3 : 2;
    if (!z->n_experts) return 2 * h * (double)z->intermediate_dim * n_mats;
    return 2 * h * (double)z->n_experts +
           2 * h * (double)(z->n_experts_used * z->expert_dim + z->shared_expert_dim) * n_mats;
}

/* Parameters that a token meets: all but the experts that it does not take. */
static uint64_t n_active(const struct apr_contract_size *z, uint64_t n_params)
{
    uint64_t n_layers = z->num_layers - z->n_dense_layers, n_mats = gated(z) ? 3 : 2;
    uint64_t n_idle = n_layers * (z->n_experts - z->n_experts_used) * n_mats * z->hidden_dim * z->expert_dim;
    return n_params > n_idle ? n_params - n_idle : 0;
}

void oracle_stats(const struct subject *s, const struct apr_contract_size *z, struct apr_out *o)
{
    const double h = (double)z->hidden_dim;
    const double heads = (double)z->num_heads, kv = (double)z->num_kv_heads;
    const uint64_t inter = z->n_experts ? z->expert_dim : z->intermediate_dim;
    const uint64_t n_params = oracle_n_params(s, z);
    const uint64_t kv_token = z->num_layers * cached_elems(z) * (uint64_t)KV_BYTES;
    apr_out_obj(o, "stats");
    if (kv > 0) apr_out_f64(o, "gqa_ratio", heads / kv); /* query heads that share a KV head */
    if (heads > 0)
        apr_out_f64(o, "kv_cache_reduction", 1 - (double)cached_elems(z) / (2 * heads * (double)z->head_dim));
    apr_out_u64(o, "head_dim", z->head_dim);
    if (n_params) {
        apr_out_u64(o, "model_params", n_params);
        if (z->n_experts) apr_out_u64(o, "active_params", n_active(z, n_params));
        apr_out_f64(o, "model_size_f16_mib", 2.0 * (double)n_params / MIB);
        apr_out_f64(o, "model_size_q4_mib",
                    0.5625 * (double)n_params / MIB); /* Q4_K: 144 bytes for 256 values */
    }
    apr_out_u64(o, "kv_cache_per_token_bytes", kv_token);
    apr_out_f64(o, "kv_cache_4k_mib", (double)kv_token * CTX_SHOWN / MIB);
    apr_out_str(o, "ffn_type", z->mlp);
    if (h > 0) apr_out_f64(o, "ffn_expansion_ratio", (double)inter / h);
    if (z->rope_theta > 0) apr_out_f64(o, "rope_max_wavelength", 2 * PI * z->rope_theta);
    apr_out_f64(o, "attention_flops_per_layer", attention_flops(z));
    apr_out_f64(o, "ffn_flops_per_layer", ffn_flops(z));
    if (n_params)
        apr_out_f64(o, "memory_required_q4_4k_mib",
                    (0.5625 * (double)n_params + (double)kv_token * CTX_SHOWN) / MIB);
    apr_out_end(o);
}

static void explain_attention(const struct apr_contract_size *z, char *text, size_t n_text)
{
    if (z->kv_lora_rank)
        (void)snprintf(text, n_text,
                       "Multi-head latent attention (DeepSeek-AI 2024): keys and values of %" PRIu64
                       " heads are rebuilt from one vector of %" PRIu64 ", and %" PRIu64
                       " turned dimensions that all share.",
                       z->num_heads, z->kv_lora_rank, z->qk_rope_dim);
    else if (z->num_kv_heads && z->num_kv_heads < z->num_heads)
        (void)snprintf(text, n_text,
                       "Grouped-query attention (Ainslie et al. 2023): %" PRIu64 " query heads share %" PRIu64
                       " key-value heads, so the cache is %.4g times smaller than with one each.",
                       z->num_heads, z->num_kv_heads, (double)z->num_heads / (double)z->num_kv_heads);
    else
        (void)snprintf(text, n_text,
                       "Multi-head attention (Vaswani et al. 2017): each of %" PRIu64
                       " query heads has its own keys and values.",
                       z->num_heads);
}

static void explain_feed_forward(const struct apr_contract_size *z, char *text, size_t n_text)
{
    if (z->n_experts)
        (void)snprintf(text, n_text,
                       "Mixture of experts (Shazeer et al. 2017): each token takes %" PRIu64 " of %" PRIu64
                       " experts of width %" PRIu64 ", %s, %s; shared experts: width %" PRIu64 ".",
                       z->n_experts_used, z->n_experts, z->expert_dim, z->mlp, z->activation,
                       z->shared_expert_dim);
    else
        (void)snprintf(
            text, n_text,
            gated(z) ? "Gated feed-forward, %s (Shazeer 2020): down(act(gate(x)) * up(x)), %s, width %" PRIu64
                       "."
                     : "Feed-forward, %s (Vaswani et al. 2017): down(act(up(x))), %s, width %" PRIu64 ".",
            z->mlp, z->activation, z->intermediate_dim);
}

void oracle_explain(const struct subject *s, const struct apr_contract_size *z, struct apr_out *o)
{
    char text[512];
    apr_out_obj(o, "explanation");
    explain_attention(z, text, sizeof text);
    apr_out_str(o, "attention", text);
    if (z->rope_theta > 0)
        (void)snprintf(text, sizeof text,
                       "Rotary positions (Su et al. 2024): pairs of the head's %" PRIu64
                       " dimensions turn by position / theta^(2i/d), theta = %g; head_dim must be even.",
                       z->kv_lora_rank ? z->qk_rope_dim : z->head_dim, z->rope_theta);
    else
        (void)snprintf(text, sizeof text,
                       "Absolute positions: a learnt or fixed vector is added for each position.");
    apr_out_str(o, "positions", text);
    explain_feed_forward(z, text, sizeof text);
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
    static const char *const acts[] = {[APR_ACT_F32] = "f32",
                                       [APR_ACT_Q8_32] = "int8 per 32",
                                       [APR_ACT_Q8_256] = "int8 per 256",
                                       [APR_ACT_SPLIT] = "bf16"};
    if (apr_kern_pick(&kern, &e) != APR_OK) kern = &apr_kern_scalar;
    apr_out_obj(o, "kernel_compatibility");
    apr_out_str(o, "kernel_table", kern->name);
    apr_out_str(o, "attention_kernel",
                z->kv_lora_rank                  ? "latent"
                : z->num_kv_heads < z->num_heads ? "grouped-query"
                                                 : "multi-head");
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
        apr_out_str(o, "activations", acts[mm->act]);
        apr_out_end(o);
    }
    apr_out_end(o);
    apr_out_end(o);
}

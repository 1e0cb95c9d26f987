/* The contracts as tables. The sole includer of build/gen/contracts.h: every build proves it. */
#include "contract.h"

#include <math.h>
#include <string.h>

#include "contracts.h"

#define N_FAMILIES (sizeof apr_contract_families / sizeof apr_contract_families[0])

const struct apr_contract_family *apr_contract_family_at(size_t i)
{
    return i < N_FAMILIES ? &apr_contract_families[i] : NULL;
}

const struct apr_contract_family *apr_contract_family_named(const char *name)
{
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (strcmp(apr_contract_families[i].name, name) == 0) return &apr_contract_families[i];
    return NULL;
}

const struct apr_contract_size *apr_contract_size_named(const struct apr_contract_family *f, const char *size)
{
    for (size_t i = 0; i < f->n_sizes; i++)
        if (strcmp(f->sizes[i].size, size) == 0) return &f->sizes[i];
    return NULL;
}

unsigned apr_contract_n_proofs_first(void)
{
    return APR_CONTRACT_N_PROOFS_FIRST;
}

unsigned apr_contract_n_proofs(void)
{
    return APR_CONTRACT_N_PROOFS;
}

/* GGUF stores reals as f32: 1e-6 comes back as 9.99999997e-7. */
static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-6 * fabs(b);
}

static bool same_parts(const struct apr_contract_size *z, const struct apr_config *c)
{
    const struct apr_moe *moe = &c->moe;
    const struct apr_mla *mla = &c->mla;
    if (z->n_experts != moe->n_experts || z->kv_lora_rank != mla->kv_rank) return false;
    if (z->n_experts && (z->n_experts_used != moe->n_used || z->expert_dim != moe->n_inter ||
                         z->shared_expert_dim != moe->n_inter_shared))
        return false;
    return !z->kv_lora_rank || (z->q_lora_rank == mla->q_rank && z->qk_nope_dim == mla->n_nope &&
                                z->qk_rope_dim == mla->n_rope && z->v_head_dim == mla->n_value);
}

/* The context length and theta are set per checkpoint (Qwen2.5-Coder-7B: 32768 in config.json, 131072 in the
 * contract), so they do not tell a size; every dimension does. */
const struct apr_contract_size *apr_contract_size_of(const char *family, const struct apr_config *c)
{
    const struct apr_contract_family *f = apr_contract_family_named(family);
    for (size_t i = 0; f && i < f->n_sizes; i++) {
        const struct apr_contract_size *z = &f->sizes[i];
        if (z->hidden_dim == c->n_hidden && z->num_layers == c->n_layers && z->num_heads == c->n_heads &&
            z->num_kv_heads == c->n_heads_kv && z->intermediate_dim == c->n_inter &&
            z->vocab_size == c->n_vocab && z->head_dim == c->head_dim && near(c->norm_eps, z->norm_eps) &&
            same_parts(z, c))
            return z;
    }
    return NULL;
}

/* Is the item of length n in the comma-separated list? */
static bool listed(const char *list, const char *item)
{
    size_t n = strlen(item);
    while (*list) {
        size_t n_item = strcspn(list, ",");
        if (n_item == n && strncmp(list, item, n) == 0) return true;
        list += n_item + (list[n_item] == ',');
    }
    return false;
}

bool apr_contract_has(const struct apr_contract_size *z, const struct apr_contract_tensor *t)
{
    if (t->unless_tied && z->tied_embeddings) return false;
    return t->sizes[0] == '\0' || listed(t->sizes, z->size);
}

/* One dimension of a shape; the generator has refused unknown names. */
static uint64_t dim(const struct apr_contract_size *z, const char *name, size_t n)
{
    const uint64_t q = z->num_heads * z->head_dim, kv = z->num_kv_heads * z->head_dim;
    const struct {
        const char *name;
        uint64_t v;
    } dims[] = {
        {"vocab_size", z->vocab_size},
        {"hidden_dim", z->hidden_dim},
        {"q_dim", q},
        {"kv_dim", kv},
        {"qkv_dim", q + 2 * kv},
        {"head_dim", z->head_dim},
        {"intermediate_dim", z->intermediate_dim},
        {"gate_up_dim", 2 * z->intermediate_dim},
        {"max_position_embeddings", z->max_position_embeddings},
        {"n_mels", z->n_mels},
        {"max_source_positions", z->max_source_positions},
        {"max_target_positions", z->max_target_positions},
        {"n_experts", z->n_experts},
        {"expert_dim", z->expert_dim},
        {"shared_expert_dim", z->shared_expert_dim},
        {"kv_lora_rank", z->kv_lora_rank},
        {"q_lora_rank", z->q_lora_rank},
        {"kv_a_dim", z->kv_lora_rank + z->qk_rope_dim},
        {"kv_b_dim", z->num_heads * (z->qk_nope_dim + z->v_head_dim)},
        {"v_dim", z->num_heads * z->v_head_dim},
    };
    uint64_t v = 0;
    for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++)
        if (strlen(dims[i].name) == n && strncmp(dims[i].name, name, n) == 0) return dims[i].v;
    for (size_t i = 0; i < n; i++) v = v * 10 + (uint64_t)(name[i] - '0');
    return v;
}

size_t apr_contract_shape(const struct apr_contract_size *z, const struct apr_contract_tensor *t,
                          uint64_t dims[4])
{
    const char *s = t->shape;
    size_t n_dims = 0;
    while (*s && n_dims < 4) {
        size_t n = strcspn(s, ",");
        dims[n_dims++] = dim(z, s, n);
        s += n + (s[n] == ',');
    }
    return n_dims;
}

uint64_t apr_contract_n_of(const struct apr_contract_size *z, const struct apr_contract_tensor *t)
{
    const uint64_t n_dense = z->n_experts ? z->n_dense_layers : z->num_layers;
    if (!apr_contract_has(z, t)) return 0;
    if (!strstr(t->hf, "{n}")) return 1;
    if (t->layers[0] == '\0') return z->num_layers;
    return strcmp(t->layers, "dense") == 0 ? n_dense : z->num_layers - n_dense;
}

uint64_t apr_contract_n_tensors(const struct apr_contract_family *f, const struct apr_contract_size *z)
{
    uint64_t n = 0;
    for (size_t i = 0; i < f->n_tensors; i++) n += apr_contract_n_of(z, &f->tensors[i]);
    return n;
}

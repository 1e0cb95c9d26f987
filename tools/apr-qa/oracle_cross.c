/* The contract against a source: numbers field by field, tensors name by name. */
#include "oracle.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum status { MATCH, APPROXIMATE, MISMATCH, CONTRACT_ONLY, N_STATUS };
static const char *const status_names[N_STATUS] = {"MATCH", "APPROXIMATE", "MISMATCH", "CONTRACT_ONLY"};

#define MAX_FIELDS 24
struct field {
    const char *name;
    char contract[64], found[64];
    enum status status;
};
struct fields {
    struct field at[MAX_FIELDS];
    size_t n;
};

static void add_text(struct fields *l, const char *name, const char *contract, const char *found)
{
    struct field *f = &l->at[l->n++];
    f->name = name;
    (void)snprintf(f->contract, sizeof f->contract, "%s", contract);
    (void)snprintf(f->found, sizeof f->found, "%.60s", found ? found : "");
    f->status = !found ? CONTRACT_ONLY : strcmp(contract, found) == 0 ? MATCH : MISMATCH;
}

static void add_u64(struct fields *l, const char *name, uint64_t contract, uint64_t found)
{
    char a[32], b[32];
    (void)snprintf(a, sizeof a, "%" PRIu64, contract);
    (void)snprintf(b, sizeof b, "%" PRIu64, found);
    add_text(l, name, a, found || contract == 0 ? b : NULL);
}

/* slack: equal; 1 %: approximate, where loose. */
static void add_f64(struct fields *l, const char *name, double contract, double found, double slack,
                    bool loose)
{
    char a[32], b[32];
    double diff = fabs(contract - found);
    if (contract == 0) return; /* the family has no such number */
    (void)snprintf(a, sizeof a, "%.9g", contract);
    (void)snprintf(b, sizeof b, "%.9g", found);
    add_text(l, name, a, found != 0 ? b : NULL);
    if (found == 0) return;
    l->at[l->n - 1].status = diff <= slack                           ? MATCH
                             : loose && diff < 0.01 * fabs(contract) ? APPROXIMATE
                                                                     : MISMATCH;
}

/* The contract's context length is the family's most; a checkpoint may promise less. */
static void add_context(struct fields *l, uint64_t contract, uint64_t found)
{
    add_u64(l, "max_position_embeddings", contract, found);
    if (found == 0 || found >= contract) return;
    (void)snprintf(l->at[l->n - 1].contract, sizeof l->at[0].contract, "<= %" PRIu64, contract);
    l->at[l->n - 1].status = MATCH;
}

/* Experts and latent attention, where the contract or the source has them. */
static void compare_parts(const struct apr_contract_size *z, const struct apr_config *c, struct fields *l)
{
    const struct apr_moe *e = &c->moe;
    const struct apr_mla *a = &c->mla;
    if (z->n_experts || e->n_experts) {
        add_u64(l, "n_experts", z->n_experts, e->n_experts);
        add_u64(l, "n_experts_used", z->n_experts_used, e->n_used);
        add_u64(l, "expert_dim", z->expert_dim, e->n_inter);
        add_u64(l, "shared_expert_dim", z->shared_expert_dim, e->n_inter_shared);
    }
    if (z->kv_lora_rank || a->kv_rank) {
        add_u64(l, "kv_lora_rank", z->kv_lora_rank, a->kv_rank);
        add_u64(l, "q_lora_rank", z->q_lora_rank, a->q_rank);
        add_u64(l, "qk_nope_dim", z->qk_nope_dim, a->n_nope);
        add_u64(l, "qk_rope_dim", z->qk_rope_dim, a->n_rope);
        add_u64(l, "v_head_dim", z->v_head_dim, a->n_value);
    }
}

static void compare(const struct subject *s, struct fields *l)
{
    const struct apr_contract_size *z = s->size;
    const struct apr_config *c = &s->found;
    const char *found_family = s->found_family;
    if (!found_family)
        found_family = s->found_arch; /* a family without a file here: its architectures decide */
    if (subject_fits(s)) found_family = s->family->name;
    add_text(l, "family", s->family->name, found_family);
    add_u64(l, "hidden_dim", z->hidden_dim, c->n_hidden);
    add_u64(l, "num_layers", z->num_layers, c->n_layers);
    add_u64(l, "num_heads", z->num_heads, c->n_heads);
    add_u64(l, "num_kv_heads", z->num_kv_heads, c->n_heads_kv);
    add_u64(l, "intermediate_dim", z->intermediate_dim, c->n_inter);
    add_u64(l, "vocab_size", z->vocab_size, c->n_vocab);
    add_u64(l, "head_dim", z->head_dim, c->head_dim);
    add_context(l, z->max_position_embeddings, c->n_ctx_train);
    add_f64(l, "rope_theta", z->rope_theta, c->rope_theta, 1.0, true);
    add_f64(l, "norm_eps", z->norm_eps, c->norm_eps, 1e-12, false);
    add_text(l, "tied_embeddings", z->tied_embeddings ? "true" : "false", c->tied ? "true" : "false");
    compare_parts(z, c, l);
}

static void show_field(const struct field *f, struct apr_out *o)
{
    apr_out_obj(o, NULL);
    apr_out_str(o, "field", f->name);
    apr_out_str(o, "contract", f->contract);
    apr_out_str(o, "found", f->status == CONTRACT_ONLY ? "-" : f->found);
    apr_out_str(o, "status", status_names[f->status]);
    apr_out_end(o);
}

static void show_some(const struct fields *l, const char *key, enum status a, enum status b,
                      struct apr_out *o)
{
    apr_out_arr(o, key);
    for (size_t i = 0; i < l->n; i++)
        if (l->at[i].status == a || l->at[i].status == b) show_field(&l->at[i], o);
    apr_out_end(o);
}

/* Keys of config.json that the contract says nothing about. */
static void show_hf_only(const json_t *config, struct apr_out *o)
{
    static const char *const known[] = {"hidden_size",
                                        "num_hidden_layers",
                                        "num_attention_heads",
                                        "num_key_value_heads",
                                        "intermediate_size",
                                        "vocab_size",
                                        "head_dim",
                                        "max_position_embeddings",
                                        "rope_theta",
                                        "rms_norm_eps",
                                        "rope_parameters",
                                        "layer_norm_eps",
                                        "tie_word_embeddings",
                                        "architectures",
                                        "model_type",
                                        "d_model",
                                        "encoder_layers",
                                        "encoder_attention_heads",
                                        "encoder_ffn_dim",
                                        "n_embd",
                                        "n_layer",
                                        "n_head",
                                        "n_inner",
                                        "n_positions",
                                        "layer_norm_epsilon",
                                        "norm_epsilon",
                                        "num_experts",
                                        "num_local_experts",
                                        "n_routed_experts",
                                        "n_shared_experts",
                                        "num_experts_per_tok",
                                        "moe_intermediate_size",
                                        "shared_expert_intermediate_size",
                                        "first_k_dense_replace",
                                        "kv_lora_rank",
                                        "q_lora_rank",
                                        "qk_nope_head_dim",
                                        "qk_rope_head_dim",
                                        "v_head_dim",
                                        "sliding_window",
                                        "hidden_act"};
    const char *key;
    json_t *v;
    apr_out_arr(o, "hf_only");
    json_object_foreach((json_t *)config, key, v)
    {
        bool found = false;
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
            found = found || strcmp(known[i], key) == 0;
        if (!found) apr_out_str(o, NULL, key);
    }
    apr_out_end(o);
}

unsigned oracle_cross(const struct subject *s, bool json, struct apr_out *o)
{
    struct fields l = {.n = 0};
    unsigned n = 0;
    compare(s, &l);
    for (size_t i = 0; i < l.n; i++) n += l.at[i].status == MISMATCH;
    apr_out_obj(o, "cross_validation");
    if (json) {
        show_some(&l, "matches", MATCH, APPROXIMATE, o);
        show_some(&l, "mismatches", MISMATCH, MISMATCH, o);
        show_some(&l, "contract_only", CONTRACT_ONLY, CONTRACT_ONLY, o);
        show_hf_only(s->config, o);
    } else {
        apr_out_arr(o, "fields");
        for (size_t i = 0; i < l.n; i++) show_field(&l.at[i], o);
        apr_out_end(o);
    }
    apr_out_end(o);
    return n;
}

static void show_names(const struct apr_verdict *v, const char *rule, const char *key, struct apr_out *o)
{
    apr_out_arr(o, key);
    for (size_t i = 0; i < v->n; i++)
        if (strcmp(v->at[i].rule, rule) == 0 && v->at[i].tensor) apr_out_str(o, NULL, v->at[i].tensor);
    apr_out_end(o);
}

void oracle_compliance(const struct subject *s, struct apr_verdict *v, struct apr_out *o)
{
    uint64_t n_expected = subject_n_tensors(s);
    apr_contract_structure(s->model, v);
    apr_out_obj(o, "compliance");
    apr_out_bool(o, "is_compliant", v->n == 0);
    apr_out_u64(o, "tensor_count", s->model->n_tensors);
    if (n_expected) apr_out_bool(o, "tensor_count_match", n_expected == s->model->n_tensors);
    show_names(v, "F-TENSOR-001", "missing_tensors", o);
    show_names(v, "F-TENSOR-002", "unexpected_tensors", o);
    apr_out_arr(o, "violations");
    for (size_t i = 0; i < v->n; i++) {
        apr_out_obj(o, NULL);
        apr_out_str(o, "rule", v->at[i].rule);
        apr_out_str(o, "tensor", v->at[i].tensor);
        apr_out_str(o, "text", v->at[i].text);
        apr_out_end(o);
    }
    apr_out_end(o);
    apr_out_end(o);
}

/* The contract's template, one row per role; a source's tensors are counted against each row. */
void oracle_tensors(const struct subject *s, struct apr_out *o)
{
    const struct apr_contract_size *z = subject_numbers(s);
    apr_out_arr(o, "tensors");
    for (size_t i = 0; i < s->family->n_tensors; i++) {
        const struct apr_contract_tensor *t = &s->family->tensors[i];
        uint64_t dims[4], n_present = 0;
        uint32_t n_layers = z && strstr(t->hf, "{n}") ? (uint32_t)z->num_layers : 1;
        uint64_t n_of = z ? apr_contract_n_of(z, t) : 1;
        const struct apr_tensor *first = NULL;
        char name[512];
        if (n_of == 0) continue;
        for (uint32_t layer = 0; s->model && layer < n_layers; layer++) {
            const struct apr_tensor *found =
                apr_model_find(s->model, apr_family_name(t->hf, layer, name, sizeof name));
            n_present += found != NULL;
            if (!first) first = found;
        }
        apr_out_obj(o, NULL);
        apr_out_str(o, "role", t->role);
        apr_out_str(o, "name", t->hf);
        apr_out_u64(o, "count", n_of);
        if (s->model) apr_out_u64(o, "present", n_present);
        if (s->model) apr_out_str(o, "dtype", first ? apr_type_name(first->type) : "-");
        apr_out_arr(o, "shape");
        for (size_t k = 0, n = z ? apr_contract_shape(z, t, dims) : 0; k < n; k++)
            apr_out_u64(o, NULL, dims[k]);
        apr_out_end(o);
        apr_out_str(o, "note", t->critical ? "critical" : "");
        apr_out_end(o);
    }
    apr_out_end(o);
}

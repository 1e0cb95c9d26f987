/* The table of families, and what can be asked of any row. */
#include "table.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct apr_family *const families[] = {
    &apr_family_qwen2,        &apr_family_qwen3,     &apr_family_qwen2_moe, &apr_family_qwen3_moe,
    &apr_family_llama,        &apr_family_mistral,   &apr_family_mixtral,   &apr_family_gemma,
    &apr_family_gemma2,       &apr_family_gemma3,    &apr_family_phi,       &apr_family_phi3,
    &apr_family_deepseek_moe, &apr_family_deepseek2, &apr_family_gpt2,      &apr_family_granite,
    &apr_family_starcoder2,   &apr_family_stablelm,  &apr_family_bert,      &apr_family_whisper,
};
#define N_FAMILIES (sizeof families / sizeof families[0])

#define LAYER     "{n}"
#define EXPERT    "{e}"
#define N_LAYER   (sizeof LAYER - 1)
#define MAX_LAYER 99999u
_Static_assert(sizeof LAYER == sizeof EXPERT, "placeholders of one length");

const struct apr_family *apr_family_at(size_t i)
{
    return i < N_FAMILIES ? families[i] : NULL;
}

const struct apr_family *apr_family_named(const char *name)
{
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (strcmp(families[i]->name, name) == 0) return families[i];
    return NULL;
}

const struct apr_family *apr_family_of_gguf(const char *arch)
{
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (strcmp(families[i]->gguf_arch, arch) == 0) return families[i];
    return NULL;
}

const struct apr_family *apr_family_of_kvs(const struct apr_kvs *kvs)
{
    const struct apr_kv *arch = apr_kvs_find(kvs, "general.architecture");
    const struct apr_family *plain = NULL;
    for (size_t i = 0; i < N_FAMILIES && arch && arch->type == APR_KV_STR; i++) {
        const struct apr_family *f = families[i];
        if (!f->from_gguf || strcmp(f->gguf_arch, arch->v.s.p) != 0) continue;
        if (f->claims && f->claims(kvs)) return f;
        if (!f->claims && !plain) plain = f;
    }
    return plain;
}

static bool listed(const char *const *list, const char *s)
{
    for (; *list; list++)
        if (strcmp(*list, s) == 0) return true;
    return false;
}

/* model_type counts only where architectures is absent: Qwen2ForSequenceClassification is also "qwen2". */
const struct apr_family *apr_family_of_hf(const json_t *config)
{
    const json_t *list = json_object_get(config, "architectures");
    const char *arch = json_string_value(json_array_get(list, 0));
    const char *type = json_string_value(json_object_get(config, "model_type"));
    for (size_t i = 0; i < N_FAMILIES; i++) {
        if (arch ? listed(families[i]->hf_architectures, arch)
                 : type && listed(families[i]->hf_model_types, type))
            return families[i];
    }
    return NULL;
}

const struct apr_family *apr_family_conflict(const json_t *config, const struct apr_family *f)
{
    const char *type = json_string_value(json_object_get(config, "model_type"));
    if (!type || !f || listed(f->hf_model_types, type)) return NULL;
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (listed(families[i]->hf_model_types, type)) return families[i];
    return NULL;
}

/* Decimal without leading zeros, up to MAX_LAYER. NULL when there is none. */
static const char *scan_number(const char *s, uint32_t *number)
{
    const char *begin = s;
    uint32_t v = 0;
    for (; *s >= '0' && *s <= '9'; s++) {
        v = v * 10 + (uint32_t)(*s - '0');
        if (v > MAX_LAYER) return NULL;
    }
    if (s == begin || (*begin == '0' && s != begin + 1)) return NULL;
    *number = v;
    return s;
}

/* Up to two numbers, in the order layer, expert. */
bool apr_family_matches(const char *tmpl, const char *name, uint32_t *layer, uint32_t *expert)
{
    *layer = *expert = UINT32_MAX;
    while (*tmpl) {
        uint32_t *number = strncmp(tmpl, LAYER, N_LAYER) == 0    ? layer
                           : strncmp(tmpl, EXPERT, N_LAYER) == 0 ? expert
                                                                 : NULL;
        if (number) {
            name = scan_number(name, number);
            if (!name) return false;
            tmpl += N_LAYER;
        } else if (*tmpl++ != *name++) {
            return false;
        }
    }
    return *name == '\0';
}

static bool matches(const char *tmpl, const char *name, uint32_t *layer)
{
    uint32_t expert;
    return apr_family_matches(tmpl, name, layer, &expert);
}

const struct apr_tensor_rule *apr_family_rule_hf(const struct apr_family *f, const char *name,
                                                 uint32_t *layer)
{
    for (size_t i = 0; i < f->n_rules; i++)
        if (matches(f->rules[i].hf, name, layer)) return &f->rules[i];
    return NULL;
}

const struct apr_tensor_rule *apr_family_rule_gguf(const struct apr_family *f, const char *name,
                                                   uint32_t *layer)
{
    for (size_t i = 0; i < f->n_rules; i++)
        if (f->rules[i].gguf && matches(f->rules[i].gguf, name, layer)) return &f->rules[i];
    return NULL;
}

const char *apr_family_part_name(const char *tmpl, uint32_t layer, uint32_t expert, char *out, size_t n_out)
{
    size_t n = 0;
    while (*tmpl && n + 1 < n_out) {
        const bool is_layer = strncmp(tmpl, LAYER, N_LAYER) == 0;
        if (is_layer || strncmp(tmpl, EXPERT, N_LAYER) == 0) {
            int k = snprintf(out + n, n_out - n, "%" PRIu32, is_layer ? layer : expert);
            n += k > 0 ? (size_t)k : 0;
            tmpl += N_LAYER;
        } else {
            out[n++] = *tmpl++;
        }
    }
    out[n < n_out ? n : n_out - 1] = '\0';
    return out;
}

const char *apr_family_name(const char *tmpl, uint32_t layer, char *out, size_t n_out)
{
    return apr_family_part_name(tmpl, layer, 0, out, n_out);
}

bool apr_family_drops(const struct apr_family *f, const char *name)
{
    static const char *const common[] = {"model.layers.{n}.self_attn.rotary_emb.inv_freq",
                                         "model.rotary_emb.inv_freq", NULL};
    uint32_t layer;
    for (size_t i = 0; common[i]; i++)
        if (matches(common[i], name, &layer)) return true;
    for (size_t i = 0; f->dropped && f->dropped[i]; i++)
        if (matches(f->dropped[i], name, &layer)) return true;
    return false;
}

const struct apr_tensor_form *apr_family_form(const struct apr_family *f, enum apr_role role)
{
    for (size_t i = 0; i < f->n_forms; i++)
        if (f->forms[i].role == role) return &f->forms[i];
    return NULL;
}

uint64_t apr_family_dim(const struct apr_config *c, enum apr_dim d)
{
    const uint64_t n_q = (uint64_t)c->n_heads * c->head_dim, n_kv = (uint64_t)c->n_heads_kv * c->head_dim;
    const struct apr_mla *mla = &c->mla;
    const uint64_t dims[APR_N_DIMS] = {
        [APR_DIM_VOCAB] = c->n_vocab,
        [APR_DIM_HIDDEN] = c->n_hidden,
        [APR_DIM_Q] = n_q,
        [APR_DIM_KV] = n_kv,
        [APR_DIM_INTER] = c->n_inter,
        [APR_DIM_QKV] = n_q + 2 * n_kv,
        [APR_DIM_GATE_UP] = 2 * (uint64_t)c->n_inter,
        [APR_DIM_HEAD] = c->head_dim,
        [APR_DIM_HEADS] = c->n_heads,
        [APR_DIM_POSITIONS] = c->n_positions,
        [APR_DIM_ROPE_PAIRS] = c->rope.n_dims / 2,
        [APR_DIM_ONE] = 1,
        [APR_DIM_EXPERTS] = c->moe.n_experts,
        [APR_DIM_INTER_EXPERT] = c->moe.n_inter,
        [APR_DIM_INTER_SHARED] = c->moe.n_inter_shared,
        [APR_DIM_Q_RANK] = mla->q_rank,
        [APR_DIM_KV_RANK] = mla->kv_rank,
        [APR_DIM_KV_A] = (uint64_t)mla->kv_rank + mla->n_rope,
        [APR_DIM_KV_B] = c->n_heads * ((uint64_t)mla->n_nope + mla->n_value),
        [APR_DIM_NOPE] = mla->n_nope,
        [APR_DIM_VALUE] = mla->n_value,
        [APR_DIM_TYPES] = c->n_types,
        [APR_DIM_LABELS] = c->n_labels,
        [APR_DIM_MELS] = c->n_mels,
        [APR_DIM_AUDIO] = c->n_ctx_audio,
        [APR_DIM_INTER_ENC] = c->n_inter_enc,
        [APR_DIM_CONV] = 3,
        [APR_DIM_O_IN] = mla->kv_rank ? (uint64_t)c->n_heads * mla->n_value : n_q,
    };
    return (unsigned)d < APR_N_DIMS ? dims[d] : 0;
}

/* ---- needs -------------------------------------------------------------------------------------------- */

static bool is_moe(const struct apr_config *c, uint32_t layer)
{
    return c->moe.n_experts && layer < APR_MAX_LAYERS && !apr_layer_bit(c->moe.dense, layer);
}

uint32_t apr_family_n_layers(const struct apr_tensor_rule *r, const struct apr_config *c)
{
    if (!strstr(r->hf, LAYER)) return 1;
    return r->need == APR_IN_ENCODER ? c->n_layers_enc : c->n_layers;
}

bool apr_family_requires(const struct apr_tensor_rule *r, const struct apr_config *c, uint32_t layer)
{
    const bool has_experts = is_moe(c, layer), has_mla = c->mla.kv_rank != 0;
    const bool needs[APR_N_NEEDS] = {
        [APR_REQUIRED] = true,
        [APR_OPTIONAL] = false,
        [APR_UNLESS_TIED] = !c->tied,
        [APR_IF_QKV_BIAS] = c->qkv_bias,
        [APR_IF_O_BIAS] = c->o_bias,
        [APR_IF_MLP_BIAS] = c->mlp_bias,
        [APR_IF_HEAD_BIAS] = c->head_bias,
        [APR_IF_DENSE] = !has_experts,
        [APR_IF_MOE] = has_experts,
        [APR_IF_SHARED] = has_experts && c->moe.n_inter_shared,
        [APR_IF_SHARED_GATE] = has_experts && c->moe.n_inter_shared && c->moe.shared_gate,
        [APR_IF_Q_RANK] = c->mla.q_rank != 0,
        [APR_UNLESS_Q_RANK] = c->mla.q_rank == 0,
        [APR_IF_KV_B] = has_mla && !c->mla.is_split,
        [APR_IF_KV_SPLIT] = has_mla && c->mla.is_split,
        [APR_IF_MLM_HEAD] = c->has_mlm_head,
        [APR_IN_ENCODER] = true,
    };
    return needs[r->need];
}

bool apr_family_allows(const struct apr_tensor_rule *r, const struct apr_config *c, uint32_t layer)
{
    return r->need == APR_OPTIONAL || r->need == APR_UNLESS_TIED || r->need == APR_IF_MLM_HEAD ||
           apr_family_requires(r, c, layer);
}

uint64_t apr_family_n_tensors(const struct apr_family *f, const struct apr_config *c)
{
    uint64_t n = 0;
    for (size_t i = 0; i < f->n_rules; i++) {
        uint32_t n_layers = apr_family_n_layers(&f->rules[i], c);
        for (uint32_t layer = 0; layer < n_layers; layer++) n += apr_family_requires(&f->rules[i], c, layer);
    }
    return n;
}

/* Family, hyper-parameters and end tokens from a model's documents. See derive.h. */
#include "derive.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../json.h"
#include "../log.h"
#include "sentence.h"

#define MAX_VOCAB (1u << 22)

static const char *file_of(const struct apr_model *m)
{
    return m->n_files ? apr_src_name(m->files[0].src) : m->path;
}

/* ---- config ------------------------------------------------------------------------------------------- */

static const char *hf_arch(const json_t *config)
{
    const char *name = json_string_value(json_array_get(json_object_get(config, "architectures"), 0));
    return name ? name : json_string_value(json_object_get(config, "model_type"));
}

uint32_t apr_derive_n_vocab(const json_t *hf_config)
{
    const json_t *v = json_object_get(hf_config, "vocab_size");
    if (!v) v = json_object_get(json_object_get(hf_config, "text_config"), "vocab_size");
    if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > MAX_VOCAB) return 0;
    return (uint32_t)json_integer_value(v);
}

static enum apr_code config_from_hf(struct apr_model *m, struct apr_err *e)
{
    const char *arch = hf_arch(m->hf_config);
    m->arch = arch ? apr_arena_strdup(&m->arena, arch) : NULL;
    m->family = apr_family_of_hf(m->hf_config);
    if (!m->family) return APR_OK;
    enum apr_code code = m->family->from_hf(m->family, m->hf_config, &m->config, "config.json", e);
    const struct apr_family *other = apr_family_conflict(m->hf_config, m->family);
    if (code == APR_OK || !other) return code; /* a conflict alone is the contract's business */
    return apr_fail(e, APR_ECONTRACT,
                    "config.json: F-FAMILY-002: architectures names family %s, model_type family %s",
                    m->family->name, other->name);
}

/* Rows of the embedding, else the vocabulary: GGUF and old .apr files have no other number. */
static uint32_t n_vocab_of(const struct apr_model *m)
{
    const struct apr_tensor *t = apr_model_role(m, APR_ROLE_EMBED, 0);
    uint64_t n = t ? apr_tensor_rows(t) : m->vocab.n_toks;
    return n <= MAX_VOCAB ? (uint32_t)n : 0;
}

/* 32-bit floats, told in the decimal that was meant: 1e-6 and not 9.99999997e-07, as config.json has it. */
static double shortest(double v)
{
    char text[32];
    for (int n_digits = 1; n_digits <= 9; n_digits++) {
        (void)snprintf(text, sizeof text, "%.*g", n_digits, v);
        if ((double)strtof(text, NULL) == v) return strtod(text, NULL);
    }
    return v;
}

/* GGUF's keys are silent about these. */
static void told_by_tensors(struct apr_model *m)
{
    struct apr_config *c = &m->config;
    c->tied = !apr_model_role(m, APR_ROLE_LM_HEAD, 0);
    c->qkv_bias = apr_model_role(m, APR_ROLE_Q_BIAS, 0) != NULL;
    c->o_bias = apr_model_role(m, APR_ROLE_O_BIAS, 0) != NULL;
    c->mlp_bias = apr_model_role(m, APR_ROLE_DOWN_BIAS, 0) != NULL;
    if (apr_model_role(m, APR_ROLE_ROPE_LONG, 0)) c->rope.scaling = APR_ROPE_LONG;
    for (uint32_t i = 0; i < APR_MAX_LAYERS; i++)
        if (apr_model_role(m, APR_ROLE_UP, i)) c->moe.dense[i / 64] |= (uint64_t)1 << (i % 64);
}

static enum apr_code config_from_gguf(struct apr_model *m, struct apr_err *e)
{
    const char *arch = NULL;
    TRY(apr_kv_get_str(&m->kvs, "general.architecture", &arch, file_of(m), e));
    m->arch = arch;
    m->family = apr_family_of_kvs(&m->kvs);
    if (!m->family || m->vocab_only) return APR_OK;
    m->config = (struct apr_config){.n_vocab = n_vocab_of(m)};
    if (m->vocab.n_toks > m->config.n_vocab)
        return apr_fail(e, APR_EFORMAT, "%s: %" PRIu32 " tokens, the embedding has %" PRIu32 " rows",
                        file_of(m), m->vocab.n_toks, m->config.n_vocab);
    told_by_tensors(m);
    TRY(m->family->from_gguf(m->family, &m->kvs, &m->config, file_of(m), e));
    return APR_OK;
}

/* Flat keys of .apr metadata and the names that the original's reader also took for them. */
static const struct {
    const char *hf;
    const char *apr[5];
} aliases[] = {
    {"hidden_size", {"hidden_size", "hidden_dim", "d_model", "n_embd"}},
    {"num_hidden_layers", {"num_layers", "n_layers", "num_hidden_layers", "n_layer"}},
    {"num_attention_heads", {"num_heads", "n_heads", "num_attention_heads", "n_head"}},
    {"num_key_value_heads", {"num_kv_heads", "n_kv_heads", "num_key_value_heads"}},
    {"vocab_size", {"vocab_size", "n_vocab"}},
    {"intermediate_size", {"intermediate_size", "ffn_dim", "intermediate_dim", "n_inner"}},
    {"max_position_embeddings", {"max_position_embeddings", "max_seq_len", "context_length", "n_ctx"}},
    {"rms_norm_eps", {"rms_norm_eps", "layer_norm_eps", "norm_eps"}},
    {"rope_theta", {"rope_theta"}},
    {"head_dim", {"head_dim"}},
};

static const json_t *flat_value(const json_t *meta, size_t i_alias)
{
    for (size_t i = 0; i < 5 && aliases[i_alias].apr[i]; i++) {
        const json_t *v = json_object_get(meta, aliases[i_alias].apr[i]);
        if (v && !json_is_null(v)) return v;
    }
    return NULL;
}

/* A config.json made of flat keys, read by the same function as a real one. */
static json_t *flat_config(const struct apr_model *m)
{
    json_t *config = json_object();
    const json_t *hidden = flat_value(m->apr_meta, 0);
    for (size_t i = 0; i < sizeof aliases / sizeof aliases[0]; i++) {
        const json_t *v = flat_value(m->apr_meta, i);
        if (v) json_object_set_new(config, aliases[i].hf, json_deep_copy(v));
    }
    if (!json_object_get(config, "vocab_size") && n_vocab_of(m))
        json_object_set_new(config, "vocab_size", json_integer(n_vocab_of(m)));
    if (!json_object_get(config, "intermediate_size") && json_is_integer(hidden) &&
        json_integer_value(hidden) < (1 << 28))
        json_object_set_new(config, "intermediate_size", json_integer(4 * json_integer_value(hidden)));
    json_object_set_new(config, "tie_word_embeddings", json_boolean(!apr_model_role(m, APR_ROLE_LM_HEAD, 0)));
    return config;
}

static enum apr_code config_from_flat(struct apr_model *m, struct apr_err *e)
{
    static const char *const keys[] = {"architecture", "model.architecture", "model_type"};
    enum apr_code code;
    json_t *config;
    m->family = NULL;
    for (size_t i = 0; i < 3 && !m->family; i++) {
        const char *arch = json_string_value(json_object_get(m->apr_meta, keys[i]));
        if (!arch || !*arch) continue;
        if (!m->arch) m->arch = apr_arena_strdup(&m->arena, arch);
        m->family = apr_family_named(arch);
        for (size_t k = 0; !m->family && apr_family_at(k); k++) /* "Qwen2": the Debug name of an enum */
            if (apr_family_at(k)->model_type_apr && strcmp(apr_family_at(k)->model_type_apr, arch) == 0)
                m->family = apr_family_at(k);
    }
    if (!m->family) return APR_OK;
    config = flat_config(m);
    code = m->family->from_hf(m->family, config, &m->config, file_of(m), e);
    json_decref(config);
    if (apr_model_role(m, APR_ROLE_Q_BIAS, 0)) m->config.qkv_bias = true;
    if (code == APR_EFORMAT &&
        m->is_look) { /* flat keys cannot tell every family; looking is still allowed */
        m->unsupported = apr_arena_strdup(&m->arena, e->text);
        m->family = NULL;
        return APR_OK;
    }
    return code;
}

static enum apr_code derive_config(struct apr_model *m, struct apr_err *e)
{
    if (m->hf_config) return config_from_hf(m, e);
    if (m->has_kvs) return config_from_gguf(m, e);
    if (m->apr_meta) return config_from_flat(m, e);
    return APR_OK;
}

enum apr_code apr_derive_config(struct apr_model *m, struct apr_err *e)
{
    enum apr_code code = derive_config(m, e);
    if (code == APR_OK) code = apr_sentence_derive(m, e);
    if (code != APR_ELOAD || !m->is_look) return code;
    m->unsupported = apr_arena_strdup(&m->arena, e->text);
    m->family = NULL;
    return APR_OK;
}

/* ---- generation --------------------------------------------------------------------------------------- */

static void add_eos(struct apr_model *m, int64_t id)
{
    struct apr_generation *g = &m->generation;
    if (id == APR_ID_NONE) return;
    if (id < 0 || id > INT32_MAX || (m->vocab.n_toks && id >= m->vocab.n_toks)) {
        apr_warn("end token %" PRId64 " lies outside the vocabulary of %" PRIu32 " tokens; ignored", id,
                 m->vocab.n_toks);
        return;
    }
    for (uint32_t i = 0; i < g->n_eos; i++)
        if (g->eos_ids[i] == id) return;
    if (g->n_eos < APR_MAX_EOS) g->eos_ids[g->n_eos++] = id;
}

/* An integer, a list of integers, null or absent. */
static enum apr_code eos_of_json(struct apr_model *m, const json_t *doc, const char *file, struct apr_err *e)
{
    const json_t *v = json_object_get(doc, "eos_token_id");
    if (!v || json_is_null(v)) return APR_OK;
    if (json_is_integer(v)) {
        add_eos(m, json_integer_value(v));
        return APR_OK;
    }
    for (size_t i = 0; i < json_array_size(v); i++) {
        if (!json_is_integer(json_array_get(v, i)))
            return apr_fail(e, APR_EFORMAT, "%s: $.eos_token_id[%zu]: expected an integer", file, i);
        add_eos(m, json_integer_value(json_array_get(v, i)));
    }
    if (!json_is_array(v))
        return apr_fail(e, APR_EFORMAT, "%s: $.eos_token_id: expected an integer or a list", file);
    return APR_OK;
}

static enum apr_code get_f64(const json_t *doc, const char *key, double *v, bool *has, struct apr_err *e)
{
    const json_t *at = json_object_get(doc, key);
    *has = at && !json_is_null(at);
    return apr_json_f64(doc, key, v, "generation_config.json", e);
}

static enum apr_code generation_from_hf(struct apr_model *m, struct apr_err *e)
{
    struct apr_generation *g = &m->generation;
    const json_t *doc = m->hf_generation, *top_k = json_object_get(doc, "top_k");
    TRY(apr_json_bool(doc, "do_sample", &g->do_sample, "generation_config.json", e));
    TRY(get_f64(doc, "temperature", &g->temperature, &g->has_temperature, e));
    TRY(get_f64(doc, "top_p", &g->top_p, &g->has_top_p, e));
    TRY(get_f64(doc, "min_p", &g->min_p, &g->has_min_p, e));
    TRY(get_f64(doc, "repetition_penalty", &g->repetition_penalty, &g->has_repetition_penalty, e));
    if (top_k && !json_is_null(top_k)) {
        if (!json_is_integer(top_k))
            return apr_fail(e, APR_EFORMAT, "generation_config.json: $.top_k: expected an integer");
        g->has_top_k = true;
        g->top_k = json_integer_value(top_k);
    }
    return eos_of_json(m, doc, "generation_config.json", e);
}

static enum apr_code get_kv(const struct apr_model *m, const char *key, double *v, bool *has,
                            struct apr_err *e)
{
    *has = apr_kvs_find(&m->kvs, key) != NULL;
    TRY(apr_kv_get_f64(&m->kvs, key, v, file_of(m), e));
    *v = shortest(*v);
    return APR_OK;
}

static enum apr_code generation_from_gguf(struct apr_model *m, struct apr_err *e)
{
    struct apr_generation *g = &m->generation;
    const struct apr_kv *top_k = apr_kvs_find(&m->kvs, "general.sampling.top_k");
    TRY(get_kv(m, "general.sampling.temp", &g->temperature, &g->has_temperature, e));
    TRY(get_kv(m, "general.sampling.top_p", &g->top_p, &g->has_top_p, e));
    TRY(get_kv(m, "general.sampling.min_p", &g->min_p, &g->has_min_p, e));
    TRY(get_kv(m, "general.sampling.penalty_repeat", &g->repetition_penalty, &g->has_repetition_penalty, e));
    if (top_k && top_k->type == APR_KV_I32) {
        g->has_top_k = true;
        g->top_k = top_k->v.i;
    }
    g->do_sample = g->has_temperature;
    return APR_OK;
}

/* A GGUF names one end token; the others are known by their text. Source: llama.cpp's list of
 * end-of-generation tokens. Only tokens that are not plain text count. */
static void eos_by_text(struct apr_model *m)
{
    static const char *const texts[] = {"<|im_end|>", "<|endoftext|>",   "<|eot_id|>",
                                        "<|eom_id|>", "<|end|>",         "<end_of_turn>",
                                        "</s>",       "<|end_of_text|>", "<EOT>"};
    const struct apr_vocab *v = &m->vocab;
    for (uint32_t id = 0; id < v->n_toks; id++) {
        if (v->types && v->types[id] != APR_TOK_CONTROL && v->types[id] != APR_TOK_USER) continue;
        for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
            if (strlen(texts[i]) == v->toks[id].n_bytes &&
                memcmp(texts[i], v->toks[id].p, v->toks[id].n_bytes) == 0)
                add_eos(m, id);
    }
}

enum apr_code apr_derive_generation(struct apr_model *m, struct apr_err *e)
{
    memset(&m->generation, 0, sizeof m->generation);
    if (m->hf_generation) TRY(generation_from_hf(m, e));
    if (m->hf_config) TRY(eos_of_json(m, m->hf_config, "config.json", e));
    if (!m->hf_generation && m->has_kvs) TRY(generation_from_gguf(m, e));
    add_eos(m, m->vocab.eos_id);
    add_eos(m, m->vocab.eot_id);
    if (!m->hf_config) eos_by_text(m);
    return APR_OK;
}

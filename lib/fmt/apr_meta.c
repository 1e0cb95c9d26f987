/* Builds the metadata object of an .apr file. See apr_meta.h and the format document, 7. */
#include "apr_meta.h"

#include <inttypes.h>
#include <string.h>

#include "../templates.h"
#include "apr_vocab_keys.h"

#define FORMAT_VERSION 1 /* of the object "apr" */

static void put(json_t *obj, const char *key, json_t *v)
{
    json_object_set_new(obj, key, v);
}

static void put_str(json_t *obj, const char *key, const char *v)
{
    if (v && *v) put(obj, key, json_string(v));
}

static void put_uint(json_t *obj, const char *key, uint64_t v)
{
    if (v) put(obj, key, json_integer((json_int_t)v));
}

/* ---- flat keys ---------------------------------------------------------------------------------------- */

static uint64_t n_params(const struct apr_model *m)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < m->n_tensors; i++) n += apr_tensor_elems(&m->tensors[i]);
    return n;
}

static void put_config(const struct apr_model *m, json_t *meta)
{
    const struct apr_config *c = &m->config;
    if (!m->family) return;
    put_str(meta, "architecture", m->family->name);
    if (!c->n_hidden) return; /* a vocabulary alone */
    put_uint(meta, "hidden_size", c->n_hidden);
    put_uint(meta, "num_layers", c->n_layers);
    put_uint(meta, "num_heads", c->n_heads);
    put_uint(meta, "num_kv_heads", c->n_heads_kv);
    put_uint(meta, "vocab_size", c->n_vocab);
    put_uint(meta, "intermediate_size", c->n_inter);
    put_uint(meta, "max_position_embeddings", c->n_ctx_train);
    put(meta, "rope_theta", json_real(c->rope_theta));
    put(meta, "rope_type", json_integer(c->rope_pairs ? 0 : m->family->rope_type));
    put(meta, "rms_norm_eps", json_real(c->norm_eps));
    put_uint(meta, "head_dim", c->head_dim);
    if (c->tied) put(meta, "tied_embeddings", json_true());
}

static const struct apr_str *token(const struct apr_vocab *v, int64_t id)
{
    return id >= 0 && id < v->n_toks ? &v->toks[id] : NULL;
}

static void put_token(json_t *obj, const char *key, const struct apr_str *t)
{
    json_t *text = t ? json_stringn(t->p, t->n_bytes) : NULL;
    if (text) put(obj, key, text);
}

static const struct apr_str *control_named(const struct apr_vocab *v, const char *text)
{
    for (uint32_t i = 0; i < v->n_toks; i++)
        if (v->types && v->types[i] == APR_TOK_CONTROL && v->toks[i].n_bytes == strlen(text) &&
            memcmp(v->toks[i].p, text, v->toks[i].n_bytes) == 0)
            return &v->toks[i];
    return NULL;
}

static void put_special_tokens(const struct apr_vocab *v, json_t *meta)
{
    json_t *obj = json_object();
    put_token(obj, "bos_token", token(v, v->bos_id));
    put_token(obj, "eos_token", token(v, v->eos_id));
    put_token(obj, "unk_token", token(v, v->unk_id));
    put_token(obj, "pad_token", token(v, v->pad_id));
    put_token(obj, "im_start_token", control_named(v, "<|im_start|>"));
    put_token(obj, "im_end_token", control_named(v, "<|im_end|>"));
    if (json_object_size(obj))
        put(meta, "special_tokens", obj);
    else
        json_decref(obj);
}

/* Names that the original gives to the formats of a chat; what else there is, the template says. */
static const char *chat_format(const char *template)
{
    if (!template) return NULL;
    if (strstr(template, "<|im_start|>")) return "chatml";
    if (strstr(template, "[INST]")) return strstr(template, "<<SYS>>") ? "llama2" : "mistral";
    return "custom";
}

static void put_tokenizer_keys(const struct apr_model *m, json_t *meta)
{
    const struct apr_vocab *v = &m->vocab;
    if (v->kind == APR_VOCAB_NONE) return;
    put(meta, "tokenizer.vocab_size", json_integer(v->n_toks));
    put_str(meta, "tokenizer.model", apr_vocab_kind_gguf(v->kind));
    put_str(meta, "tokenizer.model_type", apr_vocab_kind_hf(v->kind));
    put_str(meta, "tokenizer.pre_type", v->pre);
    if (m->family) put_str(meta, "tokenizer.architecture", m->family->name);
    if (v->bos_id != APR_ID_NONE) put(meta, "tokenizer.bos_token_id", json_integer(v->bos_id));
    if (v->eos_id != APR_ID_NONE) put(meta, "tokenizer.eos_token_id", json_integer(v->eos_id));
    if (v->pad_id != APR_ID_NONE) put(meta, "tokenizer.padding_token_id", json_integer(v->pad_id));
    if (v->add_bos >= 0) put(meta, "tokenizer.add_bos_token", json_boolean(v->add_bos));
}

static const char *license_of(const struct apr_model *m)
{
    const json_t *v = json_object_get(m->hf_card, "license");
    const char *text = json_string_value(v ? v : json_array_get(v, 0));
    if (!text && m->has_kvs) {
        const struct apr_kv *kv = apr_kvs_find(&m->kvs, "general.license");
        if (kv && kv->type == APR_KV_STR) text = kv->v.s.p;
    }
    return text;
}

static void put_flat(const struct apr_model *m, json_t *meta)
{
    put(meta, "model_type", json_string(m->family ? m->family->model_type_apr : m->arch ? m->arch : ""));
    put_str(meta, "name", m->name);
    put_str(meta, "license", license_of(m));
    if (m->has_kvs) put_str(meta, "original_format", "gguf");
    put(meta, "param_count", json_integer((json_int_t)n_params(m)));
    put_config(m, meta);
    put_str(meta, "chat_template", m->vocab.chat_template);
    put_str(meta, "chat_format", chat_format(m->vocab.chat_template));
    put_special_tokens(&m->vocab, meta);
    if (m->st_metadata && json_object_size(m->st_metadata))
        put(meta, "source_metadata", json_deep_copy(m->st_metadata));
    put_tokenizer_keys(m, meta);
}

/* ---- the object "apr" --------------------------------------------------------------------------------- */

static void put_documents(const struct apr_model *m, json_t *apr)
{
    json_t *hf = json_object();
    if (m->hf_config) put(hf, "config", json_deep_copy(m->hf_config));
    if (m->hf_generation) put(hf, "generation_config", json_deep_copy(m->hf_generation));
    if (m->hf_tok_config) put(hf, "tokenizer_config", json_deep_copy(m->hf_tok_config));
    if (m->hf_card) put(hf, "card", json_deep_copy(m->hf_card));
    if (m->hf_prefix) put(hf, "prefix", json_string(m->hf_prefix));
    if (m->hf_sentence) put(hf, "sentence_transformers", json_deep_copy(m->hf_sentence));
    if (json_object_size(hf))
        put(apr, "hf", hf);
    else
        json_decref(hf);
}

/* Everything of struct apr_vocab that the flat keys and the long arrays do not hold. */
static json_t *vocab_object(const struct apr_vocab *v)
{
    json_t *t = json_object(), *ids = json_object(), *order = json_array();
    put_str(t, "kind", apr_vocab_kind_name(v->kind));
    put_str(t, "pre", v->pre);
    put_str(t, "class", v->hf_class);
    for (size_t i = 0; apr_vocab_id_at(i); i++) {
        int64_t id = *apr_vocab_id(v, i);
        if (id != APR_ID_NONE) put(ids, apr_vocab_id_at(i), json_integer(id));
    }
    put(t, "ids", ids);
    for (uint32_t i = 0; i < v->n_special_order; i++)
        json_array_append_new(order, json_string(v->special_order[i]));
    put(t, "order", order);
    for (size_t i = 0; apr_vocab_flag_at(i); i++) {
        int8_t on = *apr_vocab_flag(v, i);
        if (on >= 0) put(t, apr_vocab_flag_at(i), json_boolean(on));
    }
    if (v->hf) put(t, "hf", json_deep_copy(v->hf));
    return t;
}

/* Keys of the source's metadata that are not known here stay, behind the known ones. */
static void keep_unknown(json_t *to, const json_t *from)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)from, key, v)
    {
        bool is_writers = strcmp(key, "total_size") == 0 || strcmp(key, "tensor_shapes") == 0 ||
                          strcmp(key, "sharding") == 0;
        if (!is_writers && !json_is_null(v) && !json_object_get(to, key)) put(to, key, json_deep_copy(v));
    }
}

enum apr_code apr_meta_build(const struct apr_model *m, json_t **meta, struct apr_err *e)
{
    json_t *root = json_object(), *apr = json_object();
    if (!root || !apr) {
        json_decref(root);
        json_decref(apr);
        return apr_fail(e, APR_ELOAD, "%s: no memory for the metadata", m->path);
    }
    put_flat(m, root);
    put(apr, "version", json_integer(FORMAT_VERSION));
    if (m->config.form == APR_FORM_GGUF) put_str(apr, "form", "gguf");
    put_documents(m, apr);
    if (m->vocab.kind != APR_VOCAB_NONE) put(apr, "tokenizer", vocab_object(&m->vocab));
    if (m->vocab.n_templates) put(apr, "chat_templates", apr_templates_to_json(&m->vocab));
    if (m->has_kvs) put(apr, "gguf", apr_meta_kvs_pack(&m->kvs));
    if (m->apr_meta) {
        keep_unknown(apr, json_object_get(m->apr_meta, "apr"));
        keep_unknown(root, m->apr_meta);
        json_object_del(root, "apr");
    }
    put(root, "apr", apr);
    *meta = root;
    return APR_OK;
}

/* Restores documents, vocabulary and keys from the metadata of an .apr file. See apr_meta.h. */
#include "apr_meta.h"

#include <inttypes.h>
#include <string.h>

#include "../json.h"
#include "../log.h"
#include "../templates.h"
#include "apr_vocab_keys.h"
#include "gguf.h"

static const char *text_of(struct apr_model *m, const json_t *v)
{
    return json_is_string(v) ? apr_arena_strndup(&m->arena, json_string_value(v), json_string_length(v))
                             : NULL;
}

static enum apr_code take_object(const json_t *obj, const char *key, json_t **out, const char *file,
                                 struct apr_err *e)
{
    json_t *v = json_object_get(obj, key);
    if (!v || json_is_null(v)) return APR_OK;
    if (!json_is_object(v))
        return apr_fail(e, APR_EFORMAT, "%s: metadata: %s: expected an object", file, key);
    *out = json_incref(v);
    return APR_OK;
}

static enum apr_code read_documents(struct apr_model *m, const json_t *apr, const char *file,
                                    struct apr_err *e)
{
    const json_t *hf = json_object_get(apr, "hf");
    TRY(take_object(hf, "config", &m->hf_config, file, e));
    TRY(take_object(hf, "generation_config", &m->hf_generation, file, e));
    TRY(take_object(hf, "tokenizer_config", &m->hf_tok_config, file, e));
    TRY(take_object(hf, "card", &m->hf_card, file, e));
    m->hf_prefix = text_of(m, json_object_get(hf, "prefix"));
    TRY(take_object(hf, "sentence_transformers", &m->hf_sentence, file, e));
    return take_object(m->apr_meta, "source_metadata", &m->st_metadata, file, e);
}

/* ---- vocabulary --------------------------------------------------------------------------------------- */

static int64_t checked_id(const struct apr_model *m, const json_t *v, const char *name, const char *file)
{
    if (!json_is_integer(v)) return APR_ID_NONE;
    if (json_integer_value(v) >= 0 && json_integer_value(v) < m->vocab.n_toks) return json_integer_value(v);
    apr_warn("%s: metadata: %s id %" JSON_INTEGER_FORMAT " lies outside the vocabulary; ignored", file, name,
             json_integer_value(v));
    return APR_ID_NONE;
}

static enum apr_code read_own_vocab(struct apr_model *m, const json_t *t, const char *file, struct apr_err *e)
{
    struct apr_vocab *v = &m->vocab;
    const json_t *order = json_object_get(t, "order"), *ids = json_object_get(t, "ids");
    v->kind = apr_vocab_kind_named(json_string_value(json_object_get(t, "kind")));
    v->pre = text_of(m, json_object_get(t, "pre"));
    v->hf_class = text_of(m, json_object_get(t, "class"));
    for (size_t i = 0; apr_vocab_id_at(i); i++)
        *apr_vocab_id(v, i) =
            checked_id(m, json_object_get(ids, apr_vocab_id_at(i)), apr_vocab_id_at(i), file);
    for (size_t i = 0; i < json_array_size(order) && v->n_special_order < 8; i++)
        for (size_t k = 0; apr_vocab_id_at(k); k++) {
            const char *name = json_string_value(json_array_get(order, i));
            if (name && strcmp(name, apr_vocab_id_at(k)) == 0)
                v->special_order[v->n_special_order++] = apr_vocab_id_at(k);
        }
    for (size_t i = 0; apr_vocab_flag_at(i); i++) {
        const json_t *on = json_object_get(t, apr_vocab_flag_at(i));
        if (json_is_boolean(on)) *apr_vocab_flag(v, i) = json_is_true(on);
    }
    return take_object(t, "hf", &v->hf, file, e);
}

static const json_t *first_of(const json_t *meta, const char *a, const char *b)
{
    const json_t *v = json_object_get(meta, a);
    return v && !json_is_null(v) ? v : json_object_get(meta, b);
}

/* Files of the original: what is missing follows from the vocabulary itself. */
static void read_flat_vocab(struct apr_model *m, const char *file)
{
    struct apr_vocab *v = &m->vocab;
    const json_t *meta = m->apr_meta;
    const json_t *add_bos = json_object_get(meta, "tokenizer.add_bos_token");
    v->kind = apr_vocab_kind_named(json_string_value(json_object_get(meta, "tokenizer.model")));
    if (v->kind == APR_VOCAB_NONE)
        v->kind = apr_vocab_kind_named(json_string_value(json_object_get(meta, "tokenizer.model_type")));
    if (v->n_merges) v->kind = APR_VOCAB_BPE;
    if (v->kind == APR_VOCAB_NONE && v->scores) v->kind = APR_VOCAB_SPM;
    v->pre = text_of(m, json_object_get(meta, "tokenizer.pre_type"));
    if (!v->pre && v->kind == APR_VOCAB_BPE && m->family) v->pre = m->family->gguf_arch;
    v->bos_id = checked_id(m, json_object_get(meta, "tokenizer.bos_token_id"), "bos", file);
    v->eos_id = checked_id(m, json_object_get(meta, "tokenizer.eos_token_id"), "eos", file);
    v->pad_id = checked_id(m, json_object_get(meta, "tokenizer.padding_token_id"), "pad", file);
    if (json_is_boolean(add_bos)) v->add_bos = json_is_true(add_bos);
}

/* A token in angle brackets with bars ("<|im_end|>", also "<|" in the wide form) is a control token. */
static bool looks_special(const struct apr_str *t)
{
    return t->n_bytes >= 5 && memcmp(t->p, "<|", 2) == 0 && memcmp(t->p + t->n_bytes - 2, "|>", 2) == 0;
}

static enum apr_code fill_types(struct apr_model *m, struct apr_err *e)
{
    struct apr_vocab *v = &m->vocab;
    if (v->types) {
        for (uint32_t i = 0; i < v->n_toks; i++)
            if (v->types[i] < APR_TOK_NORMAL || v->types[i] > APR_TOK_BYTE) v->types[i] = APR_TOK_NORMAL;
        return APR_OK;
    }
    TRY(apr_arena_try(&m->arena, &v->types, v->n_toks, sizeof *v->types, "token types", e));
    for (uint32_t i = 0; i < v->n_toks; i++)
        v->types[i] = looks_special(&v->toks[i]) ? APR_TOK_CONTROL : APR_TOK_NORMAL;
    return APR_OK;
}

static enum apr_code read_vocab(struct apr_model *m, const json_t *apr, const char *file, struct apr_err *e)
{
    const json_t *own = json_object_get(apr, "tokenizer");
    TRY(apr_templates_from_json(&m->vocab, &m->arena, json_object_get(apr, "chat_templates"), file, e));
    m->vocab.chat_template = text_of(m, first_of(m->apr_meta, "chat_template", "tokenizer.chat_template"));
    if (!m->vocab.n_toks) return APR_OK;
    TRY(fill_types(m, e));
    if (json_is_object(own)) return read_own_vocab(m, own, file, e);
    read_flat_vocab(m, file);
    return APR_OK;
}

/* The family is needed before the config is derived: the pre-tokenizer of the original's files follows from
 * it. */
static void guess_family(struct apr_model *m)
{
    const char *arch = json_string_value(json_object_get(m->apr_meta, "architecture"));
    if (arch) m->family = apr_family_named(arch);
}

enum apr_code apr_meta_read(struct apr_model *m, const char *file, struct apr_err *e)
{
    const json_t *apr = json_object_get(m->apr_meta, "apr"), *packed = json_object_get(apr, "gguf");
    TRY(read_documents(m, apr, file, e));
    guess_family(m);
    TRY(read_vocab(m, apr, file, e));
    if (packed) {
        TRY(apr_meta_kvs_unpack(packed, &m->kvs, file, e));
        m->has_kvs = true;
        TRY(apr_gguf_charsmap(m, file, e));
    }
    return APR_OK;
}

#include "gguf_keys.h"

#include <string.h>

#include "authorship.h"
#include "buf.h"
#include "json.h"
#include "metadata.h"
#include "templates.h"

#define QUANTIZATION_VERSION 2 /* of GGML's block formats */

/* GGUF's spelling of each special token. */
static const struct {
    const char *what, *key;
    size_t off; /* in struct apr_vocab */
} specials[] = {
    {"bos", "tokenizer.ggml.bos_token_id", offsetof(struct apr_vocab, bos_id)},
    {"eos", "tokenizer.ggml.eos_token_id", offsetof(struct apr_vocab, eos_id)},
    {"unk", "tokenizer.ggml.unknown_token_id", offsetof(struct apr_vocab, unk_id)},
    {"sep", "tokenizer.ggml.seperator_token_id", offsetof(struct apr_vocab, sep_id)}, /* sic */
    {"pad", "tokenizer.ggml.padding_token_id", offsetof(struct apr_vocab, pad_id)},
    {"mask", "tokenizer.ggml.mask_token_id", offsetof(struct apr_vocab, mask_id)},
    {"eot", "tokenizer.ggml.eot_token_id", offsetof(struct apr_vocab, eot_id)},
};

static const char *const kind_names[] = {
    [APR_VOCAB_BPE] = "gpt2", [APR_VOCAB_SPM] = "llama", [APR_VOCAB_WPM] = "bert", [APR_VOCAB_UGM] = "t5"};

static void special_keys(const struct apr_vocab *v, struct apr_kvs *kvs)
{
    for (uint32_t i = 0; i < v->n_special_order; i++)
        for (size_t k = 0; k < sizeof specials / sizeof *specials; k++) {
            if (strcmp(specials[k].what, v->special_order[i]) != 0) continue;
            int64_t id = *(const int64_t *)(const void *)((const char *)v + specials[k].off);
            if (id != APR_ID_NONE) apr_kvs_u32(kvs, specials[k].key, (uint32_t)id);
        }
}

static void token_arrays(const struct apr_vocab *v, struct apr_kvs *kvs)
{
    apr_kvs_array(kvs, "tokenizer.ggml.tokens", APR_KV_STR, v->n_toks, v->toks);
    if (v->scores) apr_kvs_array(kvs, "tokenizer.ggml.scores", APR_KV_F32, v->n_toks, v->scores);
    if (v->types) apr_kvs_array(kvs, "tokenizer.ggml.token_type", APR_KV_I32, v->n_toks, v->types);
    if (v->n_merges > 0) apr_kvs_array(kvs, "tokenizer.ggml.merges", APR_KV_STR, v->n_merges, v->merges);
}

static enum apr_code tokenizer_keys(const struct apr_model *m, struct apr_kvs *kvs, struct apr_err *e)
{
    const struct apr_vocab *v = &m->vocab;
    if (v->kind == APR_VOCAB_NONE || v->n_toks == 0)
        return apr_fail(e, APR_ECONTRACT, "%s: no tokenizer found; GGUF needs one (F-CONTRACT-008)", m->path);
    if (v->kind == APR_VOCAB_BPE && !v->pre)
        return apr_fail(e, APR_ECONTRACT,
                        "%s: tokenizer.json: $.pre_tokenizer: no known GGUF name for this pattern", m->path);
    apr_kvs_str(kvs, "tokenizer.ggml.model", kind_names[v->kind]);
    apr_kvs_str(kvs, "tokenizer.ggml.pre", v->pre ? v->pre : "default");
    token_arrays(v, kvs);
    special_keys(v, kvs);
    if (v->add_bos >= 0) apr_kvs_bool(kvs, "tokenizer.ggml.add_bos_token", v->add_bos == 1);
    if (v->add_eos >= 0) apr_kvs_bool(kvs, "tokenizer.ggml.add_eos_token", v->add_eos == 1);
    if (v->add_sep >= 0) apr_kvs_bool(kvs, "tokenizer.ggml.add_sep_token", v->add_sep == 1);
    apr_templates_to_kvs(v, kvs);
    return APR_OK;
}

static uint64_t count_params(const struct apr_plan *plan)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < plan->n_tensors; i++) n += apr_tensor_elems(plan->tensors[i].src);
    return n;
}

static enum apr_code from_documents(const struct apr_model *m, const struct apr_plan *plan,
                                    uint32_t file_type, struct apr_kvs *kvs, struct apr_err *e)
{
    if (!m->family->to_gguf)
        return apr_fail(e, APR_ELOAD, "%s: family %s cannot be written as GGUF", m->path, m->family->name);
    apr_kvs_str(kvs, "general.architecture", m->family->gguf_arch);
    apr_kvs_str(kvs, "general.type", "model");
    authorship_keys(m, count_params(plan), kvs);
    m->family->to_gguf(&m->config, m->hf_config, file_type, kvs);
    apr_kvs_u32(kvs, "general.quantization_version", QUANTIZATION_VERSION);
    return tokenizer_keys(m, kvs, e);
}

static bool has_prefix(const struct apr_kv *kv, const char *prefix)
{
    return strncmp(kv->key.p, prefix, strlen(prefix)) == 0;
}

/* The arrays of the tokenizer follow its name and pre-tokenizer, wherever those stand. */
static void copy_keys(const struct apr_model *m, struct apr_kvs *kvs)
{
    const char *after =
        apr_kvs_find(&m->kvs, "tokenizer.ggml.pre") ? "tokenizer.ggml.pre" : "tokenizer.ggml.model";
    for (size_t i = 0; i < m->kvs.n; i++) {
        const struct apr_kv *kv = &m->kvs.at[i];
        if (has_prefix(kv, "apr.") || has_prefix(kv, "split.")) continue;
        apr_kvs_add(kvs, kv);
        if (strcmp(kv->key.p, after) == 0) token_arrays(&m->vocab, kvs);
    }
}

enum apr_code gguf_keys(const struct apr_model *m, const struct apr_plan *plan, uint32_t file_type,
                        const json_t *own, const char *own_path, const json_t *provenance,
                        struct apr_kvs *kvs, struct apr_err *e)
{
    if (m->has_kvs && !m->hf_config) {
        copy_keys(m, kvs);
        apr_kvs_u32(kvs, "general.file_type", file_type);
        apr_kvs_u32(kvs, "general.quantization_version", QUANTIZATION_VERSION);
    } else {
        TRY(from_documents(m, plan, file_type, kvs, e));
    }
    if (own) TRY(metadata_apply(own, own_path, kvs, e));
    if (!provenance) return APR_OK;
    struct apr_buf b;
    apr_buf_init(&b, APR_MAX_META_BYTES);
    enum apr_code code = apr_json_dump(provenance, true, &b, e);
    if (code == APR_OK) apr_kvs_str(kvs, "apr.provenance", (const char *)b.data);
    apr_buf_free(&b);
    return code;
}

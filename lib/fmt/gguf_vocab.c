/* The vocabulary of a GGUF. See gguf.h. Keys: the GGUF specification, "tokenizer". */
#include "gguf.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "../log.h"
#include "../templates.h"

static const struct {
    const char *model;
    enum apr_vocab_kind kind;
} kinds[] = {{"gpt2", APR_VOCAB_BPE},
             {"llama", APR_VOCAB_SPM},
             {"gemma4", APR_VOCAB_SPM},
             {"bert", APR_VOCAB_WPM},
             {"t5", APR_VOCAB_UGM}};

/* "seperator" is the key's spelling. */
static const struct {
    const char *key, *name;
    size_t off;
} ids[] = {
    {"tokenizer.ggml.bos_token_id", "bos", offsetof(struct apr_vocab, bos_id)},
    {"tokenizer.ggml.eos_token_id", "eos", offsetof(struct apr_vocab, eos_id)},
    {"tokenizer.ggml.unknown_token_id", "unk", offsetof(struct apr_vocab, unk_id)},
    {"tokenizer.ggml.seperator_token_id", "sep", offsetof(struct apr_vocab, sep_id)},
    {"tokenizer.ggml.padding_token_id", "pad", offsetof(struct apr_vocab, pad_id)},
    {"tokenizer.ggml.cls_token_id", "cls", offsetof(struct apr_vocab, cls_id)},
    {"tokenizer.ggml.mask_token_id", "mask", offsetof(struct apr_vocab, mask_id)},
    {"tokenizer.ggml.eot_token_id", "eot", offsetof(struct apr_vocab, eot_id)},
};
static const struct {
    const char *key;
    size_t off;
} flags[] = {
    {"tokenizer.ggml.add_bos_token", offsetof(struct apr_vocab, add_bos)},
    {"tokenizer.ggml.add_eos_token", offsetof(struct apr_vocab, add_eos)},
    {"tokenizer.ggml.add_sep_token", offsetof(struct apr_vocab, add_sep)},
    {"tokenizer.ggml.add_space_prefix", offsetof(struct apr_vocab, add_space_prefix)},
    {"tokenizer.ggml.remove_extra_whitespaces", offsetof(struct apr_vocab, remove_extra_spaces)},
    {"tokenizer.ggml.normalizer.lowercase", offsetof(struct apr_vocab, lowercase)},
    {"tokenizer.ggml.normalizer.strip_accents", offsetof(struct apr_vocab, strip_accents)},
};

static enum apr_code check_array(const struct apr_kv *a, const char *key, enum apr_kv_type type, uint64_t n,
                                 const char *file, struct apr_err *e)
{
    if (a->type != APR_KV_ARRAY) return APR_OK;
    if (a->elem_type != type)
        return apr_fail(e, APR_EFORMAT, "%s: key %s: an array of %s, expected %s", file, key,
                        apr_kv_type_name(a->elem_type), apr_kv_type_name(type));
    if (n != UINT64_MAX && a->v.a.n != n)
        return apr_fail(e, APR_EFORMAT,
                        "%s: key %s: %" PRIu64 " elements, expected %" PRIu64 " as there are tokens", file,
                        key, a->v.a.n, n);
    return APR_OK;
}

static enum apr_code read_arrays(struct apr_model *m, const struct apr_gguf_arrays *a, const char *file,
                                 struct apr_err *e)
{
    struct apr_vocab *v = &m->vocab;
    uint64_t n = a->tokens.v.a.n;
    TRY(check_array(&a->tokens, "tokenizer.ggml.tokens", APR_KV_STR, UINT64_MAX, file, e));
    if (n > INT32_MAX)
        return apr_fail(e, APR_ELOAD, "%s: key tokenizer.ggml.tokens: %" PRIu64 " tokens", file, n);
    TRY(check_array(&a->types, "tokenizer.ggml.token_type", APR_KV_I32, n, file, e));
    TRY(check_array(&a->scores, "tokenizer.ggml.scores", APR_KV_F32, n, file, e));
    TRY(check_array(&a->merges, "tokenizer.ggml.merges", APR_KV_STR, UINT64_MAX, file, e));
    v->n_toks = (uint32_t)n;
    v->toks = (struct apr_str *)(uintptr_t)a->tokens.v.a.items;
    if (a->scores.type == APR_KV_ARRAY) v->scores = (float *)(uintptr_t)a->scores.v.a.items;
    if (a->merges.type == APR_KV_ARRAY) {
        v->merges = (struct apr_str *)(uintptr_t)a->merges.v.a.items;
        v->n_merges = a->merges.v.a.n;
    }
    TRY(apr_arena_try(&m->arena, &v->types, v->n_toks, sizeof *v->types, "token types", e));
    for (uint32_t i = 0; i < v->n_toks; i++) {
        int32_t type = APR_TOK_NORMAL;
        if (a->types.type == APR_KV_ARRAY)
            memcpy(&type, (const int32_t *)a->types.v.a.items + i, sizeof type);
        v->types[i] = type >= APR_TOK_NORMAL && type <= APR_TOK_BYTE ? type : APR_TOK_NORMAL;
    }
    return APR_OK;
}

static void note_order(struct apr_vocab *v, const char *name)
{
    if (v->n_special_order < sizeof v->special_order / sizeof v->special_order[0])
        v->special_order[v->n_special_order++] = name;
}

/* Special ids in the order in which the file has them. */
static enum apr_code read_ids(struct apr_model *m, const char *file, struct apr_err *e)
{
    struct apr_vocab *v = &m->vocab;
    for (size_t k = 0; k < m->kvs.n; k++) {
        for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
            uint64_t id = 0;
            if (strcmp(m->kvs.at[k].key.p, ids[i].key) != 0) continue;
            TRY(apr_kv_get_u64(&m->kvs, ids[i].key, 0, UINT32_MAX, &id, file, e));
            if (id >= v->n_toks) {
                if (id != UINT32_MAX)
                    apr_warn("%s: key %s: token %" PRIu64 " of %" PRIu32 "; ignored", file, ids[i].key, id,
                             v->n_toks);
                continue;
            }
            *(int64_t *)(void *)((char *)v + ids[i].off) = (int64_t)id;
            note_order(v, ids[i].name);
        }
    }
    return APR_OK;
}

enum apr_code apr_gguf_charsmap(struct apr_model *m, const char *file, struct apr_err *e)
{
    static const char key[] = "tokenizer.ggml.precompiled_charsmap";
    const struct apr_kv *kv = apr_kvs_find(&m->kvs, key);
    if (!kv) return APR_OK;
    if (kv->type != APR_KV_ARRAY || (kv->elem_type != APR_KV_U8 && kv->elem_type != APR_KV_I8))
        return apr_fail(e, APR_EFORMAT, "%s: key %s: expected an array of u8", file, key);
    m->vocab.charsmap = kv->v.a.items;
    m->vocab.n_charsmap_bytes = (size_t)kv->v.a.n;
    return APR_OK;
}

enum apr_code apr_gguf_vocab(struct apr_model *m, const struct apr_gguf_arrays *a, const char *file,
                             struct apr_err *e)
{
    struct apr_vocab *v = &m->vocab;
    const char *model = NULL;
    TRY(apr_templates_from_kvs(v, &m->arena, &m->kvs, file, e));
    TRY(apr_kv_get_str(&m->kvs, "tokenizer.ggml.model", &model, file, e));
    TRY(apr_kv_get_str(&m->kvs, "tokenizer.ggml.pre", &v->pre, file, e));
    if (a->tokens.type != APR_KV_ARRAY) return APR_OK;
    TRY(read_arrays(m, a, file, e));
    for (size_t i = 0; model && i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(kinds[i].model, model) == 0) v->kind = kinds[i].kind;
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        bool on = false;
        TRY(apr_kv_get_bool(&m->kvs, flags[i].key, &on, file, e));
        if (apr_kvs_find(&m->kvs, flags[i].key)) *((int8_t *)v + flags[i].off) = on;
    }
    TRY(apr_gguf_charsmap(m, file, e));
    return read_ids(m, file, e);
}

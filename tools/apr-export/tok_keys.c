#include "tok_keys.h"

#include <string.h>

#include "templates.h"
#include "tok/charsmap.h"
#include "tok/pretok.h"

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
    {"cls", "tokenizer.ggml.cls_token_id", offsetof(struct apr_vocab, cls_id)},
    {"mask", "tokenizer.ggml.mask_token_id", offsetof(struct apr_vocab, mask_id)},
    {"eot", "tokenizer.ggml.eot_token_id", offsetof(struct apr_vocab, eot_id)},
};

static const char *const kind_names[] = {
    [APR_VOCAB_BPE] = "gpt2", [APR_VOCAB_SPM] = "llama", [APR_VOCAB_WPM] = "bert", [APR_VOCAB_UGM] = "t5"};

static const struct apr_gguf_tok no_rules;

static void special_keys(const struct apr_vocab *v, struct apr_kvs *kvs)
{
    for (uint32_t i = 0; i < v->n_special_order; i++)
        for (size_t k = 0; k < sizeof specials / sizeof *specials; k++) {
            if (strcmp(specials[k].what, v->special_order[i]) != 0) continue;
            int64_t id = *(const int64_t *)(const void *)((const char *)v + specials[k].off);
            if (id != APR_ID_NONE) apr_kvs_u32(kvs, specials[k].key, (uint32_t)id);
        }
}

static void flag_keys(const struct apr_vocab *v, struct apr_kvs *kvs)
{
    if (v->add_bos >= 0) apr_kvs_bool(kvs, "tokenizer.ggml.add_bos_token", v->add_bos == 1);
    if (v->add_eos >= 0) apr_kvs_bool(kvs, "tokenizer.ggml.add_eos_token", v->add_eos == 1);
    if (v->add_sep >= 0) apr_kvs_bool(kvs, "tokenizer.ggml.add_sep_token", v->add_sep == 1);
}

/* ---- arrays ---- */

/* WordPiece's texts as GGUF has them: U+2581 begins a word, a continuation stands without its mark. */
static struct apr_str *phantom(const struct apr_vocab *v, struct apr_arena *arena)
{
    const char *prefix =
        json_string_value(json_object_get(json_object_get(v->hf, "model"), "continuing_subword_prefix"));
    if (!prefix) prefix = "##";
    size_t n_prefix = strlen(prefix);
    struct apr_str *toks = apr_arena_get(arena, v->n_toks * sizeof *toks);
    for (uint32_t i = 0; i < v->n_toks; i++) {
        struct apr_str s = v->toks[i];
        toks[i] = s;
        if (v->types && v->types[i] == APR_TOK_CONTROL) continue;
        if (n_prefix > 0 && s.n_bytes >= n_prefix && memcmp(s.p, prefix, n_prefix) == 0) {
            toks[i] = (struct apr_str){s.p + n_prefix, s.n_bytes - n_prefix};
            continue;
        }
        char *text = apr_arena_get(arena, s.n_bytes + APR_BAR_BYTES + 1);
        memcpy(text, APR_BAR, APR_BAR_BYTES + 1);
        memcpy(text + APR_BAR_BYTES, s.p, s.n_bytes);
        toks[i] = (struct apr_str){text, s.n_bytes + APR_BAR_BYTES};
    }
    return toks;
}

void tok_arrays(const struct apr_vocab *v, struct apr_kvs *kvs)
{
    const struct apr_str *toks = v->kind == APR_VOCAB_WPM && v->hf ? phantom(v, kvs->arena) : v->toks;
    /* A vocabulary that is told by merges needs them; one with scores is told by these. */
    bool merges = v->n_merges > 0 && (v->kind == APR_VOCAB_BPE || !v->hf);
    apr_kvs_array(kvs, "tokenizer.ggml.tokens", APR_KV_STR, v->n_toks, toks);
    if (v->scores) apr_kvs_array(kvs, "tokenizer.ggml.scores", APR_KV_F32, v->n_toks, v->scores);
    if (v->types) apr_kvs_array(kvs, "tokenizer.ggml.token_type", APR_KV_I32, v->n_toks, v->types);
    if (merges) apr_kvs_array(kvs, "tokenizer.ggml.merges", APR_KV_STR, v->n_merges, v->merges);
}

/* What phi3's converter does: every token that tokenizer.json adds counts as added, the model's own too. */
static void added_scores(struct apr_vocab *v, struct apr_arena *arena)
{
    size_t i;
    const json_t *tok;
    if (!v->scores || !v->types) return;
    float *scores = apr_arena_get(arena, v->n_toks * sizeof *scores);
    int32_t *types = apr_arena_get(arena, v->n_toks * sizeof *types);
    memcpy(scores, v->scores, v->n_toks * sizeof *scores);
    memcpy(types, v->types, v->n_toks * sizeof *types);
    json_array_foreach(json_object_get(v->hf, "added_tokens"), i, tok)
    {
        json_int_t id = json_integer_value(json_object_get(tok, "id"));
        if (id < 0 || id >= (json_int_t)v->n_toks) continue;
        scores[id] = -1000.0f;
        types[id] = json_is_true(json_object_get(tok, "special")) ? APR_TOK_CONTROL : APR_TOK_USER;
    }
    v->scores = scores;
    v->types = types;
}

/* ---- what the documents say ---- */

/* The first object of this type in a list within lists. */
static const json_t *find(const json_t *j, const char *list, const char *type, int depth)
{
    const char *s = json_string_value(json_object_get(j, "type"));
    if (s && strcmp(s, type) == 0) return j;
    size_t i;
    const json_t *item, *found = NULL;
    json_array_foreach(json_object_get(j, list), i, item)
    {
        if (!found && depth < 4) found = find(item, list, type, depth + 1);
    }
    return found;
}

static const json_t *normalizer(const struct apr_vocab *v, const char *type)
{
    return find(json_object_get(v->hf, "normalizer"), "normalizers", type, 0);
}

static void normalizer_keys(const struct apr_vocab *v, struct apr_kvs *kvs)
{
    const json_t *bert = normalizer(v, "BertNormalizer");
    const json_t *lower = json_object_get(bert, "lowercase"),
                 *accents = json_object_get(bert, "strip_accents");
    int lowercase = json_is_boolean(lower) ? json_is_true(lower) : v->lowercase;
    int strip = json_is_boolean(accents) ? json_is_true(accents) : v->strip_accents;
    if (normalizer(v, "Lowercase")) lowercase = 1;
    if (normalizer(v, "StripAccents")) strip = 1;
    if (lowercase >= 0) apr_kvs_bool(kvs, "tokenizer.ggml.normalizer.lowercase", lowercase == 1);
    if (strip >= 0) apr_kvs_bool(kvs, "tokenizer.ggml.normalizer.strip_accents", strip == 1);
}

/* SentencePiece's settings, as tokenizer.json has them in its parts. */
static enum apr_code unigram_keys(const struct apr_vocab *v, uint64_t n_types, struct apr_kvs *kvs,
                                  struct apr_err *e)
{
    const json_t *pre = json_object_get(v->hf, "pre_tokenizer");
    const json_t *meta = find(pre, "pretokenizers", "Metaspace", 0);
    const char *scheme = json_string_value(json_object_get(meta, "prepend_scheme"));
    bool prefix =
        scheme ? strcmp(scheme, "never") != 0 : !json_is_false(json_object_get(meta, "add_prefix_space"));
    bool remove = find(pre, "pretokenizers", "WhitespaceSplit", 0) != NULL;
    const json_t *map = json_object_get(normalizer(v, "Precompiled"), "precompiled_charsmap");
    const json_t *runs = json_object_get(json_object_get(normalizer(v, "Replace"), "pattern"), "Regex");
    if (json_is_string(runs) && strcmp(json_string_value(runs), " {2,}") == 0) remove = true;
    apr_kvs_bool(kvs, "tokenizer.ggml.add_space_prefix", prefix);
    if (n_types > 0) apr_kvs_u32(kvs, "tokenizer.ggml.token_type_count", (uint32_t)n_types);
    apr_kvs_bool(kvs, "tokenizer.ggml.remove_extra_whitespaces", remove);
    if (!json_is_string(map) || json_string_length(map) == 0) return APR_OK;
    uint8_t *bytes;
    size_t n;
    TRY(apr_base64_get(json_string_value(map), json_string_length(map), kvs->arena, &bytes, &n, e));
    apr_kvs_array(kvs, "tokenizer.ggml.precompiled_charsmap", APR_KV_U8, n, bytes);
    return APR_OK;
}

static uint64_t n_token_types(const struct apr_model *m)
{
    const json_t *n = json_object_get(m->hf_config, "type_vocab_size");
    return json_is_integer(n) && json_integer_value(n) > 0 ? (uint64_t)json_integer_value(n) : 1;
}

static enum apr_code check(const struct apr_model *m, struct apr_err *e)
{
    const struct apr_vocab *v = &m->vocab;
    if (v->kind == APR_VOCAB_NONE || v->n_toks == 0)
        return apr_fail(e, APR_ECONTRACT, "%s: no tokenizer found; GGUF needs one (F-CONTRACT-008)", m->path);
    if (v->kind == APR_VOCAB_BPE && !v->pre)
        return apr_fail(
            e, APR_ECONTRACT,
            "%s: tokenizer.json: $.pre_tokenizer: no known GGUF name for this pattern; name one by --pre",
            m->path);
    return APR_OK;
}

enum apr_code tok_keys(const struct apr_model *m, struct apr_kvs *kvs, struct apr_err *e)
{
    TRY(check(m, e));
    struct apr_vocab v = m->vocab;
    const struct apr_gguf_tok *rules = m->family->gguf_tok ? m->family->gguf_tok : &no_rules;
    uint64_t n_types = rules->type_count ? n_token_types(m) : 0;
    const json_t *prefix = json_object_get(m->hf_tok_config, "add_prefix_space");
    if (rules->added_scores) added_scores(&v, kvs->arena);
    if (rules->prefix_space && json_is_boolean(prefix))
        apr_kvs_bool(kvs, "tokenizer.ggml.add_space_prefix", json_is_true(prefix));
    if (n_types > 0 && v.kind != APR_VOCAB_UGM)
        apr_kvs_u32(kvs, "tokenizer.ggml.token_type_count", (uint32_t)n_types);
    apr_kvs_str(kvs, "tokenizer.ggml.model", kind_names[v.kind]);
    apr_kvs_str(kvs, "tokenizer.ggml.pre", v.pre ? v.pre : "default");
    tok_arrays(&v, kvs);
    if (v.kind == APR_VOCAB_UGM) TRY(unigram_keys(&v, n_types, kvs, e));
    special_keys(&v, kvs);
    flag_keys(&v, kvs);
    apr_templates_to_kvs(&v, kvs);
    normalizer_keys(&v, kvs);
    if (rules->eot_id > 0 && rules->eot_id < (int64_t)v.n_toks)
        apr_kvs_u32(kvs, "tokenizer.ggml.eot_token_id", (uint32_t)rules->eot_id);
    if (rules->no_space_prefix) apr_kvs_bool(kvs, "tokenizer.ggml.add_space_prefix", false);
    return APR_OK;
}

/* Folders of the time before tokenizer.json: vocab.json, merges.txt, and a class name that says the rest. */
#include <stdlib.h>
#include <string.h>

#include "hf.h"
#include "pre.h"

#define MAX_VOCAB_BYTES ((size_t)64 << 20)

static const struct {
    const char *hf_class; /* without "Fast" */
    const char *pre;
} classes[] = {
    {"GPT2Tokenizer", "gpt-2"},
    {"CodeGenTokenizer", "gpt-2"},
    {"Qwen2Tokenizer", "qwen2"},
};

static const struct apr_pre_row *row_of_class(const json_t *config)
{
    const char *s = json_string_value(json_object_get(config, "tokenizer_class"));
    for (size_t i = 0; s && i < sizeof classes / sizeof *classes; i++) {
        size_t n = strlen(classes[i].hf_class);
        if (strncmp(s, classes[i].hf_class, n) == 0 && (s[n] == '\0' || strcmp(s + n, "Fast") == 0))
            return apr_pre_named(classes[i].pre);
    }
    return NULL;
}

/* tokenizer_config.json: "added_tokens_decoder": {"ID": {"content": ..., "special": ...}}. */
static json_t *added_tokens(const json_t *config, const json_t *added)
{
    json_t *list = json_array();
    const char *key;
    json_t *v;
    json_object_foreach(json_object_get(config, "added_tokens_decoder"), key, v)
    {
        char *stop;
        long long id = strtoll(key, &stop, 10);
        json_t *row = *key && !*stop ? json_copy(v) : NULL;
        if (!row || json_object_set_new(row, "id", json_integer(id)) || json_array_append_new(list, row)) {
            json_decref(list);
            return NULL;
        }
    }
    if (json_array_size(list) > 0) return list;
    /* added_tokens.json: {"content": id} */
    json_object_foreach((json_t *)(uintptr_t)added, key, v)
    {
        json_t *row =
            json_pack("{s:s, s:O, s:b, s:b}", "content", key, "id", v, "special", 0, "normalized", 0);
        if (!row || json_array_append_new(list, row)) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

/* What tokenizer.json would say. */
static json_t *document(const struct apr_pre_row *row, json_t *added)
{
    json_t *steps = json_array();
    int failed = steps == NULL;
    for (size_t i = 0; i < apr_pre_n_steps(row); i++) {
        json_t *step = json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex",
                                 row->steps[i].pattern, "behavior", "Isolated", "invert", 0);
        failed |= json_array_append_new(steps, step);
    }
    failed |= json_array_append_new(
        steps, json_pack("{s:s, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "use_regex", 0));
    json_t *norm = row->nfc ? json_pack("{s:s}", "type", "NFC") : json_null();
    json_t *doc = json_pack("{s:o, s:o, s:{s:s, s:o}, s:{s:s}, s:{s:s, s:{}, s:[]}}", "added_tokens", added,
                            "normalizer", norm, "pre_tokenizer", "type", "Sequence", "pretokenizers", steps,
                            "decoder", "type", "ByteLevel", "model", "type", "BPE", "vocab", "merges");
    if (!failed) return doc;
    json_decref(doc);
    return NULL;
}

static enum apr_code read_both(struct apr_hf_job *j, const struct apr_buf *vocab,
                               const struct apr_buf *merges)
{
    const char *file = apr_arena_printf(j->arena, "%s/vocab.json", j->dir);
    TRY(apr_hf_scan_vocab((const char *)vocab->data, vocab->n_bytes, file, j->arena, &j->parts, j->e));
    file = apr_arena_printf(j->arena, "%s/merges.txt", j->dir);
    TRY(apr_hf_scan_merges_txt((const char *)merges->data, merges->n_bytes, file, j->arena, &j->parts, j->e));
    j->v->kind = APR_VOCAB_BPE;
    const struct apr_pre_row *row = row_of_class(j->config);
    if (!row) return APR_OK; /* the vocabulary is complete; running it asks for --pre */
    json_t *added_json;
    TRY(apr_hf_json(j, "added_tokens.json", &added_json));
    json_t *added = added_tokens(j->config, added_json);
    json_decref(added_json);
    if (added) j->v->hf = document(row, added);
    if (j->v->hf) return APR_OK;
    return apr_fail(j->e, APR_EFORMAT, "%s: $.added_tokens_decoder of tokenizer_config.json is not usable",
                    j->dir);
}

enum apr_code apr_hf_old(struct apr_hf_job *j)
{
    struct apr_buf vocab, merges;
    bool has_vocab = false, has_merges = false;
    j->file = apr_arena_printf(j->arena, "%s/vocab.json", j->dir);
    apr_buf_init(&vocab, MAX_VOCAB_BYTES);
    apr_buf_init(&merges, MAX_VOCAB_BYTES);
    enum apr_code code = apr_hf_text(j, "vocab.json", &vocab, &has_vocab);
    if (code == APR_OK) code = apr_hf_text(j, "merges.txt", &merges, &has_merges);
    if (code == APR_OK && has_vocab && has_merges) code = read_both(j, &vocab, &merges);
    apr_buf_free(&vocab);
    apr_buf_free(&merges);
    return code;
}

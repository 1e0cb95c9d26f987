/* Folders of the time before tokenizer.json: vocab.json, merges.txt, and a class name that says the rest; or
 * BERT's vocab.txt. */
#include <string.h>

#include "hf.h"
#include "pre.h"
#include "utf8.h"

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
        int64_t id = apr_hf_id_of_key(key);
        json_t *row = id >= 0 ? json_copy(v) : NULL;
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

/* ---- vocab.txt ---- */

/* One token a line; the ids are the lines. */
static enum apr_code read_lines(struct apr_hf_job *j, const struct apr_buf *text)
{
    const char *p = (const char *)text->data;
    size_t n = text->n_bytes, n_lines = 1;
    char *copy;
    if (n == 0) return apr_fail(j->e, APR_EFORMAT, "%s: no tokens in it", j->file);
    for (size_t i = 0; i < n; i++) n_lines += p[i] == '\n';
    TRY(apr_arena_try(j->arena, &copy, n + 1, 1, "vocabulary", j->e));
    TRY(apr_arena_try(j->arena, &j->parts.toks, n_lines, sizeof *j->parts.toks, "vocabulary", j->e));
    memcpy(copy, p, n);
    for (size_t i = 0; i < n;) {
        const char *stop = memchr(copy + i, '\n', n - i);
        size_t end = stop ? (size_t)(stop - copy) : n, next = end + 1;
        if (end > i && copy[end - 1] == '\r') end--;
        bool bad = end == i || memchr(copy + i, '\0', end - i) ||
                   apr_utf8_valid((const uint8_t *)copy + i, end - i) != end - i;
        if (bad)
            return apr_fail(j->e, APR_EFORMAT, "%s: line %zu is no token", j->file,
                            (size_t)j->parts.n_toks + 1);
        copy[end] = '\0';
        j->parts.toks[j->parts.n_toks] =
            (struct apr_hf_tok){{copy + i, end - i}, (int64_t)j->parts.n_toks, 0};
        j->parts.n_toks++;
        i = next;
    }
    return APR_OK;
}

static json_t *bracketed(const struct apr_hf_parts *parts)
{
    static const char *const names[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
    json_t *list = json_array();
    for (uint64_t i = 0; i < parts->n_toks; i++)
        for (size_t k = 0; k < sizeof names / sizeof *names; k++)
            if (strcmp(parts->toks[i].text.p, names[k]) == 0)
                json_array_append_new(list, json_pack("{s:I, s:s, s:b, s:b}", "id", (json_int_t)i, "content",
                                                      names[k], "special", 1, "normalized", 0));
    return list;
}

static int64_t id_of(const json_t *added, const char *text)
{
    size_t i;
    const json_t *row;
    json_array_foreach(added, i, row) if (strcmp(json_string_value(json_object_get(row, "content")), text) ==
                                          0) return json_integer_value(json_object_get(row, "id"));
    return -1;
}

static bool setting(const json_t *config, const char *key, bool absent)
{
    const json_t *v = json_object_get(config, key);
    return json_is_boolean(v) ? json_is_true(v) : absent;
}

static enum apr_code describe_words(struct apr_hf_job *j)
{
    json_t *added = bracketed(&j->parts);
    int64_t cls = id_of(added, "[CLS]"), sep = id_of(added, "[SEP]");
    if (cls < 0 || sep < 0 || id_of(added, "[UNK]") < 0) {
        json_decref(added);
        return apr_fail(j->e, APR_ELOAD, "%s: no [CLS], [SEP] and [UNK]: not a vocabulary of BERT", j->file);
    }
    json_t *norm = json_pack("{s:s, s:b, s:b, s:b}", "type", "BertNormalizer", "clean_text", 1,
                             "handle_chinese_chars", setting(j->config, "tokenize_chinese_chars", true),
                             "lowercase", setting(j->config, "do_lower_case", true));
    json_t *accents = json_object_get(j->config, "strip_accents");
    if (json_is_boolean(accents)) json_object_set(norm, "strip_accents", accents);
    json_t *post = json_pack("{s:s, s:[s, I], s:[s, I]}", "type", "BertProcessing", "sep", "[SEP]",
                             (json_int_t)sep, "cls", "[CLS]", (json_int_t)cls);
    j->v->hf = json_pack("{s:o, s:o, s:{s:s}, s:o, s:{s:s, s:s, s:b}, s:{s:s, s:s, s:s, s:i}}",
                         "added_tokens", added, "normalizer", norm, "pre_tokenizer", "type",
                         "BertPreTokenizer", "post_processor", post, "decoder", "type", "WordPiece", "prefix",
                         "##", "cleanup", 1, "model", "type", "WordPiece", "unk_token", "[UNK]",
                         "continuing_subword_prefix", "##", "max_input_chars_per_word", 100);
    j->v->kind = APR_VOCAB_WPM;
    return j->v->hf ? APR_OK : apr_fail(j->e, APR_ELOAD, "%s: out of memory", j->dir);
}

enum apr_code apr_hf_words(struct apr_hf_job *j)
{
    struct apr_buf text;
    bool found;
    j->file = apr_arena_printf(j->arena, "%s/vocab.txt", j->dir);
    apr_buf_init(&text, MAX_VOCAB_BYTES);
    enum apr_code code = apr_hf_text(j, "vocab.txt", &text, &found);
    if (code == APR_OK && found) code = read_lines(j, &text);
    if (code == APR_OK && found) code = describe_words(j);
    apr_buf_free(&text);
    return code;
}

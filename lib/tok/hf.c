/* A Hugging Face folder's tokenizer files -> struct apr_vocab. See apr_tok_read_hf in tok.h.
 *
 * Token types are decided as llama.cpp's converter decides them, so that an export has the same bytes.
 */
#include "hf.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "../io.h"
#include "../json.h"
#include "norm.h"
#include "pieces.h"
#include "pre.h"

#define MAX_TOKENIZER_BYTES ((size_t)256 << 20)
#define MAX_CONFIG_BYTES    ((size_t)16 << 20)

enum apr_code apr_hf_text(struct apr_hf_job *j, const char *name, struct apr_buf *out, bool *found)
{
    const char *path = apr_arena_printf(j->arena, "%s/%s", j->dir, name);
    enum apr_code code = apr_read_file(path, out->max_bytes, out, j->e);
    *found = code == APR_OK;
    return code == APR_ENOTFOUND ? APR_OK : code;
}

enum apr_code apr_hf_json(struct apr_hf_job *j, const char *name, json_t **out)
{
    const char *path = apr_arena_printf(j->arena, "%s/%s", j->dir, name);
    *out = NULL;
    enum apr_code code = apr_json_load(path, MAX_CONFIG_BYTES, out, j->e);
    if (code == APR_ENOTFOUND) return APR_OK;
    if (code != APR_OK || json_is_object(*out)) return code;
    json_decref(*out);
    *out = NULL;
    return apr_fail(j->e, APR_EFORMAT, "%s: expected an object", path);
}

/* ---- types ---- */

static bool has_ends(const char *s, size_t n, const char *head, const char *tail)
{
    size_t n_head = strlen(head), n_tail = strlen(tail);
    return n >= n_head && n >= n_tail && memcmp(s, head, n_head) == 0 &&
           memcmp(s + n - n_tail, tail, n_tail) == 0;
}

/* Publishers leave "special" unset on tokens that are control tokens all the same. */
bool apr_hf_looks_special(const char *s, size_t n)
{
    static const char *const names[] = {"<pad>", "<mask>", "<2mass>", "[@BOS@]"};
    static const char *const ends[][2] = {{"<|", "|>"}, {"<\xef\xbd\x9c", "\xef\xbd\x9c>"}, {"<unused", ">"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (n == strlen(names[i]) && memcmp(s, names[i], n) == 0) return true;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (has_ends(s, n, ends[i][0], ends[i][1])) return true;
    return false;
}

static bool config_says_special(const json_t *config, int64_t id)
{
    char key[24];
    snprintf(key, sizeof key, "%" PRId64, id);
    const json_t *row = json_object_get(json_object_get(config, "added_tokens_decoder"), key);
    return json_is_true(json_object_get(row, "special"));
}

/* User-defined tokens stand with real blanks in GGUF. */
static struct apr_str with_blanks(struct apr_arena *arena, const char *s, size_t n)
{
    static const char bar[] = "\xe2\x96\x81"; /* U+2581 */
    char *out = apr_arena_get(arena, n + 1);
    size_t n_out = 0;
    for (size_t i = 0; i < n;) {
        bool hit = n - i >= 3 && memcmp(s + i, bar, 3) == 0;
        out[n_out++] = hit ? ' ' : s[i];
        i += hit ? 3 : 1;
    }
    return (struct apr_str){out, n_out};
}

static enum apr_code put_added(struct apr_hf_job *j, const json_t *tok, size_t i)
{
    struct apr_vocab *v = j->v;
    const json_t *content = json_object_get(tok, "content");
    int64_t id = json_integer_value(json_object_get(tok, "id"));
    const char *text = json_string_value(content);
    size_t n = json_string_length(content);
    if (n == 0) return apr_fail(j->e, APR_EFORMAT, "%s: $.added_tokens[%zu]: empty content", j->file, i);
    const struct apr_str old = v->toks[id];
    if (v->types[id] == APR_TOK_NORMAL && (old.n_bytes != n || memcmp(old.p, text, n) != 0)) {
        char shown[80];
        return apr_fail(j->e, APR_EFORMAT,
                        "%s: $.added_tokens[%zu]: id %" PRId64 " is the token \"%s\" of the vocabulary",
                        j->file, i, id, apr_escape(shown, sizeof shown, old.p, old.n_bytes));
    }
    bool special = json_is_true(json_object_get(tok, "special")) || config_says_special(j->config, id);
    v->types[id] = special || apr_hf_looks_special(text, n) ? APR_TOK_CONTROL : APR_TOK_USER;
    v->toks[id] = v->types[id] == APR_TOK_USER ? with_blanks(j->arena, text, n)
                                               : (struct apr_str){apr_arena_strndup(j->arena, text, n), n};
    return APR_OK;
}

/* ---- rows ---- */

static enum apr_code check_id(struct apr_hf_job *j, const char *where, size_t i, int64_t id, uint64_t n_max,
                              uint64_t *n_rows)
{
    if (id >= 0 && (uint64_t)id >= n_max && j->n_vocab > 0) /* the embedding has no row for it */
        return apr_fail(j->e, APR_ECONTRACT,
                        "%s: F-VOCAB-001: %s[%zu]: id %" PRId64 ", expected 0..%" PRIu64
                        " by config.json's vocab_size",
                        j->file, where, i, id, n_max - 1);
    if (id < 0 || (uint64_t)id >= n_max)
        return apr_fail(j->e, APR_EFORMAT, "%s: %s[%zu]: id %" PRId64 ", expected 0..%" PRIu64, j->file,
                        where, i, id, n_max - 1);
    if ((uint64_t)id >= *n_rows) *n_rows = (uint64_t)id + 1;
    return APR_OK;
}

/* Rows of the vocabulary: what the embedding has, else what the highest id needs. Memory stays in proportion
 * to the file: ids may have gaps, but not many times the number of tokens. */
static enum apr_code count_rows(struct apr_hf_job *j, const json_t *added, uint64_t *n_rows)
{
    uint64_t n_max = 4 * (j->parts.n_toks + json_array_size(added)) + (1u << 20);
    if (j->n_vocab > n_max)
        return apr_fail(j->e, APR_EFORMAT, "%s: %" PRIu64 " tokens for a vocabulary of %" PRIu32, j->file,
                        j->parts.n_toks, j->n_vocab);
    if (j->n_vocab > 0) n_max = j->n_vocab;
    *n_rows = j->n_vocab;
    for (uint64_t i = 0; i < j->parts.n_toks; i++)
        TRY(check_id(j, "$.model.vocab", i, j->parts.toks[i].id, n_max, n_rows));
    size_t i;
    const json_t *tok;
    json_array_foreach(added, i, tok)
    {
        const json_t *id = json_object_get(tok, "id");
        if (!json_is_integer(id))
            return apr_fail(j->e, APR_EFORMAT, "%s: $.added_tokens[%zu]: no id", j->file, i);
        TRY(check_id(j, "$.added_tokens", i, json_integer_value(id), n_max, n_rows));
    }
    return APR_OK;
}

static enum apr_code fill_rows(struct apr_hf_job *j, const json_t *added)
{
    struct apr_vocab *v = j->v;
    bool bytes = json_is_true(json_object_get(json_object_get(v->hf, "model"), "byte_fallback"));
    for (uint64_t i = 0; i < j->parts.n_toks; i++) {
        const struct apr_hf_tok *tok = &j->parts.toks[i];
        if (v->types[tok->id] != 0)
            return apr_fail(j->e, APR_EFORMAT, "%s: $.model.vocab[%" PRIu64 "]: id %" PRId64 " stands twice",
                            j->file, i, tok->id);
        v->types[tok->id] = bytes && apr_piece_byte(tok->text) >= 0 ? APR_TOK_BYTE : APR_TOK_NORMAL;
        v->toks[tok->id] = tok->text;
        if (v->kind == APR_VOCAB_UGM) v->scores[tok->id] = (float)tok->score;
    }
    size_t i;
    const json_t *tok;
    json_array_foreach(added, i, tok) TRY(put_added(j, tok, i));
    for (uint32_t id = 0; id < v->n_toks; id++) {
        if (v->types[id] != 0) continue;
        v->types[id] = APR_TOK_UNUSED;
        const char *text = apr_arena_printf(j->arena, "[PAD%" PRIu32 "]", id);
        v->toks[id] = (struct apr_str){text, strlen(text)};
    }
    return APR_OK;
}

static enum apr_code make_rows(struct apr_hf_job *j)
{
    struct apr_vocab *v = j->v;
    const json_t *added = json_object_get(v->hf, "added_tokens");
    uint64_t n_rows;
    TRY(count_rows(j, added, &n_rows));
    v->n_toks = (uint32_t)n_rows;
    TRY(apr_arena_try(j->arena, &v->toks, n_rows, sizeof *v->toks, "vocabulary", j->e));
    TRY(apr_arena_try(j->arena, &v->types, n_rows, sizeof *v->types, "vocabulary", j->e));
    if (v->kind == APR_VOCAB_SPM || v->kind == APR_VOCAB_UGM) {
        TRY(apr_arena_try(j->arena, &v->scores, n_rows, sizeof *v->scores, "scores", j->e));
        for (uint64_t i = 0; i < n_rows; i++) v->scores[i] = APR_HF_NO_SCORE;
    }
    v->merges = j->parts.merges;
    v->n_merges = j->parts.n_merges;
    return fill_rows(j, added);
}

/* ---- kind and pre-tokenizer ---- */

static bool has_type(const json_t *j, const char *type, int depth)
{
    const char *s = json_string_value(json_object_get(j, "type"));
    if (s && strcmp(s, type) == 0) return true;
    static const char *const lists[] = {"pretokenizers", "decoders"};
    for (size_t k = 0; k < sizeof lists / sizeof *lists && depth < 4; k++) {
        size_t i;
        const json_t *item;
        json_array_foreach(json_object_get(j, lists[k]), i,
                           item) if (has_type(item, type, depth + 1)) return true;
    }
    return false;
}

static enum apr_code name_kind(struct apr_hf_job *j)
{
    static const struct {
        const char *type;
        enum apr_vocab_kind kind;
    } kinds[] = {{"BPE", APR_VOCAB_BPE}, {"WordPiece", APR_VOCAB_WPM}, {"Unigram", APR_VOCAB_UGM}};
    const json_t *model = json_object_get(j->v->hf, "model");
    const char *type = json_string_value(json_object_get(model, "type"));
    if (!type)
        type = json_object_get(model, "merges") ? "BPE" : "WordPiece"; /* files before tokenizers 0.10 */
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].type, type) == 0) j->v->kind = kinds[i].kind;
    char shown[80];
    if (j->v->kind == APR_VOCAB_NONE)
        return apr_fail(j->e, APR_ELOAD, "%s: $.model.type: \"%s\" is not supported", j->file,
                        apr_escape(shown, sizeof shown, type, strlen(type)));
    bool bytes = has_type(json_object_get(j->v->hf, "pre_tokenizer"), "ByteLevel", 0) ||
                 has_type(json_object_get(j->v->hf, "decoder"), "ByteLevel", 0);
    if (j->v->kind == APR_VOCAB_BPE && !bytes) j->v->kind = APR_VOCAB_SPM;
    return APR_OK;
}

/* GGUF's name, from the definition itself. NULL where the table has no such definition. */
static void name_pre(struct apr_hf_job *j)
{
    struct apr_vocab *v = j->v;
    struct apr_err ignored;
    struct apr_norm norm;
    struct apr_pre_step steps[APR_PRE_MAX_STEPS];
    size_t n_steps;
    /* Readers look at the name for byte-level BPE alone. */
    if (v->kind == APR_VOCAB_SPM || v->kind == APR_VOCAB_UGM) v->pre = "default";
    if (v->kind == APR_VOCAB_WPM) v->pre = "bert-bge";
    if (v->kind != APR_VOCAB_BPE) return;
    if (apr_norm_read(json_object_get(v->hf, "normalizer"), j->arena, &norm, j->file, &ignored) != APR_OK)
        return;
    if (norm.n_steps > 1 || (norm.n_steps == 1 && norm.steps[0].op != APR_NORM_NFC)) return;
    if (apr_pre_read(json_object_get(v->hf, "pre_tokenizer"), j->arena, steps, &n_steps, j->file, &ignored) !=
        APR_OK)
        return;
    bool ignore = json_is_true(json_object_get(json_object_get(v->hf, "model"), "ignore_merges"));
    const struct apr_pre_row *row = apr_pre_find(steps, n_steps, ignore, v->add_bos == 1);
    if (row) v->pre = apr_arena_strndup(j->arena, row->names, strcspn(row->names, " "));
}

/* ---- files ---- */

int64_t apr_hf_id_of_key(const char *key)
{
    char *stop;
    int64_t id = strtoll(key, &stop, 10);
    return *key >= '0' && *key <= '9' && *stop == '\0' ? id : -1;
}

/* Tokens that only tokenizer_config.json knows, behind all others: transformers adds them when it loads. */
static enum apr_code append_config_tokens(struct apr_hf_job *j)
{
    json_t *added = json_object_get(j->v->hf, "added_tokens"), *row;
    int64_t last = -1;
    size_t i;
    const char *key;
    for (uint64_t k = 0; k < j->parts.n_toks; k++)
        if (j->parts.toks[k].id > last) last = j->parts.toks[k].id;
    json_array_foreach(added, i, row)
    {
        int64_t id = json_integer_value(json_object_get(row, "id"));
        if (id > last) last = id;
    }
    json_object_foreach(json_object_get(j->config, "added_tokens_decoder"), key, row)
    {
        int64_t id = apr_hf_id_of_key(key);
        bool fits = j->n_vocab == 0 || id < (int64_t)j->n_vocab;
        if (id <= last || !fits || json_string_length(json_object_get(row, "content")) == 0) continue;
        json_t *copy = json_copy(row);
        if (!copy || json_object_set_new(copy, "id", json_integer(id)) != 0 ||
            json_array_append_new(added, copy) != 0)
            return apr_fail(j->e, APR_EFORMAT, "%s: $.added_tokens is not a list", j->file);
    }
    return APR_OK;
}

static enum apr_code read_new(struct apr_hf_job *j, const struct apr_buf *text)
{
    const char *p = (const char *)text->data;
    TRY(apr_hf_scan(p, text->n_bytes, j->file, j->arena, &j->parts, j->e));
    TRY(apr_json_parse((const char *)j->parts.rest.data, j->parts.rest.n_bytes, j->file, &j->v->hf, j->e));
    if (!json_is_object(json_object_get(j->v->hf, "model")))
        return apr_fail(j->e, APR_EFORMAT, "%s: no $.model", j->file);
    TRY(append_config_tokens(j));
    return name_kind(j);
}

static enum apr_code read_files(struct apr_hf_job *j)
{
    struct apr_buf text;
    bool found;
    TRY(apr_hf_json(j, "tokenizer_config.json", &j->config));
    j->file = apr_arena_printf(j->arena, "%s/tokenizer.json", j->dir);
    apr_buf_init(&text, MAX_TOKENIZER_BYTES);
    enum apr_code code = apr_hf_text(j, "tokenizer.json", &text, &found);
    if (code == APR_OK && found) code = read_new(j, &text);
    if (code == APR_OK && !found) code = apr_hf_old(j);
    if (code == APR_OK && j->v->kind == APR_VOCAB_NONE) code = apr_hf_sp_alone(j);
    if (code == APR_OK && j->v->kind == APR_VOCAB_NONE) code = apr_hf_words(j);
    apr_buf_free(&text);
    TRY(code);
    if (j->v->kind != APR_VOCAB_NONE) TRY(make_rows(j));
    if (j->v->scores) TRY(apr_hf_sp_rows(j));
    const char *hf_class = json_string_value(json_object_get(j->config, "tokenizer_class"));
    if (hf_class) j->v->hf_class = apr_arena_strdup(j->arena, hf_class);
    TRY(apr_hf_special(j));
    TRY(apr_hf_template(j));
    if (!j->v->pre) name_pre(j);
    return APR_OK;
}

enum apr_code apr_tok_read_hf(const char *dir, uint32_t n_vocab, const json_t *hf_config,
                              struct apr_arena *arena, struct apr_vocab *v, json_t **tok_config,
                              struct apr_err *e)
{
    struct apr_hf_job j = {
        .dir = dir, .arena = arena, .v = v, .hf_config = hf_config, .n_vocab = n_vocab, .e = e};
    apr_buf_init(&j.parts.rest, MAX_TOKENIZER_BYTES);
    *tok_config = NULL;
    *v = (struct apr_vocab){.bos_id = APR_ID_NONE,
                            .eos_id = APR_ID_NONE,
                            .unk_id = APR_ID_NONE,
                            .sep_id = APR_ID_NONE,
                            .pad_id = APR_ID_NONE,
                            .cls_id = APR_ID_NONE,
                            .mask_id = APR_ID_NONE,
                            .eot_id = APR_ID_NONE,
                            .add_bos = -1,
                            .add_eos = -1,
                            .add_sep = -1,
                            .add_space_prefix = -1,
                            .remove_extra_spaces = -1,
                            .lowercase = -1,
                            .strip_accents = -1};
    enum apr_code code = read_files(&j);
    apr_buf_free(&j.parts.rest);
    if (code == APR_OK) {
        *tok_config = j.config;
        return APR_OK;
    }
    json_decref(j.config);
    json_decref(v->hf);
    v->hf = NULL;
    return code;
}

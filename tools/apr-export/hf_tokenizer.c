/* tokenizer.json: the carried one with vocabulary and merges put back, or one rebuilt from GGUF's keys. */
#include <inttypes.h>
#include <string.h>

#include "hf_docs.h"
#include "hf_rebuild.h"
#include "json.h"
#include "tok/pretok.h"
#include "tok/sp_merges.h"

/* ---- text --------------------------------------------------------------------------------------------- */

/* Tokens that the list of added ones alone holds stand behind the vocabulary: from *n on there are only such,
 * and rows of the embedding without a token. */
static enum apr_code mark_added(const struct apr_vocab *v, const json_t *hf, uint8_t *is_added, uint32_t *n,
                                struct apr_err *e)
{
    const json_t *added = json_object_get(hf, "added_tokens");
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *id = json_object_get(json_array_get(added, i), "id");
        if (!json_is_integer(id) || json_integer_value(id) < 0)
            return apr_fail(e, APR_EFORMAT, "tokenizer: added_tokens[%zu]: no id", i);
        if (json_integer_value(id) < v->n_toks) is_added[json_integer_value(id)] = 1;
    }
    for (uint32_t i = 0; i < v->n_toks; i++) {
        char pad[32];
        (void)snprintf(pad, sizeof pad, "[PAD%" PRIu32 "]", i);
        bool is_hole = v->types && v->types[i] == APR_TOK_UNUSED && strcmp(v->toks[i].p, pad) == 0;
        if (is_hole) is_added[i] = 2;
        if (!is_added[i]) *n = i + 1;
    }
    return APR_OK;
}

/* A token's text as tokenizer.json has it: GGUF marks other parts of words, and writes blanks as blanks. */
static enum apr_code put_token(const struct apr_vocab *v, uint32_t i, struct apr_buf *b, struct apr_err *e)
{
    struct apr_str s = v->toks[i];
    int32_t type = v->types ? v->types[i] : APR_TOK_NORMAL;
    bool phantom = v->kind == APR_VOCAB_WPM && !v->hf && type != APR_TOK_CONTROL;
    bool bars = type == APR_TOK_USER && v->kind != APR_VOCAB_BPE && memchr(s.p, ' ', s.n_bytes);
    if (!phantom && !bars) return apr_json_put_str(b, s.p, s.n_bytes, e);
    struct apr_buf text;
    enum apr_code code = APR_OK;
    apr_buf_init(&text, SIZE_MAX);
    bool begins = s.n_bytes >= APR_BAR_BYTES && memcmp(s.p, APR_BAR, APR_BAR_BYTES) == 0;
    if (phantom && !begins) code = apr_buf_append(&text, "##", 2, e);
    for (size_t k = phantom && begins ? APR_BAR_BYTES : 0; k < s.n_bytes && code == APR_OK; k++)
        code = bars && s.p[k] == ' ' ? apr_buf_append(&text, APR_BAR, APR_BAR_BYTES, e)
                                     : apr_buf_append(&text, s.p + k, 1, e);
    if (code == APR_OK) code = apr_json_put_str(b, (const char *)text.data, text.n_bytes, e);
    apr_buf_free(&text);
    return code;
}

static enum apr_code put_vocab(const struct apr_vocab *v, const uint8_t *is_added, uint32_t n, bool unigram,
                               struct apr_buf *b, struct apr_err *e)
{
    bool first = true;
    TRY(apr_buf_printf(b, e, ",\"vocab\":%c", unigram ? '[' : '{'));
    for (uint32_t i = 0; i < n; i++) {
        if (is_added[i] == 2 && !unigram) continue; /* there the ids are the places in the list */
        if (!first) TRY(apr_buf_append(b, ",", 1, e));
        first = false;
        if (unigram) TRY(apr_buf_append(b, "[", 1, e));
        TRY(put_token(v, i, b, e));
        if (!unigram) {
            TRY(apr_buf_printf(b, e, ":%" PRIu32, i));
            continue;
        }
        TRY(apr_buf_append(b, ",", 1, e));
        TRY(apr_json_put_f64(b, v->scores ? (double)v->scores[i] : 0, e));
        TRY(apr_buf_append(b, "]", 1, e));
    }
    return apr_buf_append(b, unigram ? "]" : "}", 1, e);
}

/* As pairs: the one spelling that every text of a token allows. Scores stand for merges where there are none.
 */
static enum apr_code put_merges(const struct apr_vocab *v, struct apr_arena *a, struct apr_buf *b,
                                struct apr_err *e)
{
    uint64_t n = v->n_merges;
    struct apr_str *merges = v->merges;
    if (n == 0 && v->kind == APR_VOCAB_SPM && v->scores) TRY(apr_sp_merges(v, a, &merges, &n, e));
    TRY(apr_buf_printf(b, e, ",\"merges\":["));
    for (uint64_t i = 0; i < n; i++) {
        const struct apr_str *s = &merges[i];
        const char *space = memchr(s->p, ' ', s->n_bytes);
        if (!space)
            return apr_fail(e, APR_EFORMAT, "tokenizer: merge %" PRIu64 " has no space between its parts", i);
        size_t n_left = (size_t)(space - s->p);
        TRY(apr_buf_append(b, i ? ",[" : "[", i ? 2 : 1, e));
        TRY(apr_json_put_str(b, s->p, n_left, e));
        TRY(apr_buf_append(b, ",", 1, e));
        TRY(apr_json_put_str(b, space + 1, s->n_bytes - n_left - 1, e));
        TRY(apr_buf_append(b, "]", 1, e));
    }
    return apr_buf_append(b, "]", 1, e);
}

static enum apr_code put_model(const struct apr_vocab *v, const json_t *hf, struct apr_buf *b,
                               struct apr_err *e)
{
    const json_t *model = json_object_get(hf, "model");
    const char *type = json_string_value(json_object_get(model, "type"));
    bool unigram = type && strcmp(type, "Unigram") == 0;
    bool merges = v->n_merges > 0 || (type && strcmp(type, "BPE") == 0);
    uint32_t n = 0;
    struct apr_arena a;
    uint8_t *is_added;
    if (!json_is_object(model)) return apr_fail(e, APR_EFORMAT, "tokenizer: no model");
    json_t *rest = json_copy((json_t *)(uintptr_t)model);
    json_object_del(rest, "vocab"); /* what stands in their place when they were taken out */
    json_object_del(rest, "merges");
    if (!type) json_object_set_new(rest, "type", json_string(merges ? "BPE" : "WordPiece"));
    enum apr_code dumped = apr_json_dump(rest, false, b, e);
    json_decref(rest);
    TRY(dumped);
    b->n_bytes--; /* the object goes on */
    apr_arena_init(&a);
    enum apr_code code = apr_arena_try(&a, &is_added, (size_t)v->n_toks + 1, 1, "the vocabulary", e);
    if (code == APR_OK) code = mark_added(v, hf, is_added, &n, e);
    if (code == APR_OK) code = put_vocab(v, is_added, n, unigram, b, e);
    if (code == APR_OK && merges) code = put_merges(v, &a, b, e);
    apr_arena_free(&a);
    TRY(code);
    return apr_buf_append(b, "}", 1, e);
}

static enum apr_code put_all(const struct apr_vocab *v, const json_t *hf, struct apr_buf *b,
                             struct apr_err *e)
{
    const char *key;
    json_t *value;
    TRY(apr_buf_append(b, "{", 1, e));
    json_object_foreach((json_t *)(uintptr_t)hf, key, value)
    {
        if (b->n_bytes > 1) TRY(apr_buf_append(b, ",", 1, e));
        TRY(apr_json_put_str(b, key, strlen(key), e));
        TRY(apr_buf_append(b, ":", 1, e));
        if (strcmp(key, "model") == 0)
            TRY(put_model(v, hf, b, e));
        else
            TRY(apr_json_dump(value, false, b, e));
    }
    return apr_buf_append(b, "}", 1, e);
}

enum apr_code hf_tokenizer_text(const struct apr_model *m, struct apr_buf *out, bool *known,
                                struct apr_err *e)
{
    json_t *hf = m->vocab.hf ? json_incref(m->vocab.hf) : hf_rebuild(m);
    struct apr_buf compact;
    *known = hf != NULL;
    if (!hf) return APR_OK;
    apr_buf_init(&compact, SIZE_MAX / 2);
    enum apr_code code = put_all(&m->vocab, hf, &compact, e);
    if (code == APR_OK) code = hf_docs_pretty((const char *)compact.data, compact.n_bytes, out, e);
    apr_buf_free(&compact);
    json_decref(hf);
    return code;
}

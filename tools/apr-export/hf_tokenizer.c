/* tokenizer.json: the carried one with vocabulary and merges put back, or one rebuilt from GGUF's keys. */
#include <inttypes.h>
#include <string.h>

#include "hf_docs.h"
#include "json.h"
#include "log.h"
#include "tok/pre.h"

/* ---- rebuilt from GGUF -------------------------------------------------------------------------------- */

static json_t *byte_level(bool is_decoder)
{
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", is_decoder,
                     "trim_offsets", is_decoder, "use_regex", is_decoder);
}

static json_t *pre_tokenizer(const struct apr_pre_row *row)
{
    static const char *const hows[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext",
                                       "Contiguous"};
    json_t *steps = json_array();
    for (size_t i = 0; i < apr_pre_n_steps(row); i++) {
        const struct apr_pre_step *s = &row->steps[i];
        json_array_append_new(steps, json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern",
                                               s->literal ? "String" : "Regex", s->pattern, "behavior",
                                               hows[s->how], "invert", s->invert));
    }
    json_array_append_new(steps, byte_level(false));
    return json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", steps);
}

static json_t *added_tokens(const struct apr_vocab *v)
{
    json_t *added = json_array();
    for (uint32_t i = 0; i < v->n_toks; i++) {
        int32_t type = v->types ? v->types[i] : APR_TOK_NORMAL;
        if (type != APR_TOK_CONTROL && type != APR_TOK_USER) continue;
        json_t *t = json_pack("{s:I, s:s%, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)i, "content",
                              v->toks[i].p, v->toks[i].n_bytes, "single_word", 0, "lstrip", 0, "rstrip", 0,
                              "normalized", 0, "special", type == APR_TOK_CONTROL);
        if (t) json_array_append_new(added, t);
    }
    return added;
}

/* What a post-processor of one leading token looks like. */
static json_t *post_processor(const struct apr_vocab *v)
{
    if (v->add_bos != 1 || v->bos_id < 0 || v->bos_id >= v->n_toks) return byte_level(false);
    const struct apr_str *bos = &v->toks[v->bos_id];
    json_t *first = json_pack("{s:{s:s%, s:i}}", "SpecialToken", "id", bos->p, bos->n_bytes, "type_id", 0);
    json_t *special = json_pack("{s:s%, s:[I], s:[s%]}", "id", bos->p, bos->n_bytes, "ids",
                                (json_int_t)v->bos_id, "tokens", bos->p, bos->n_bytes);
    json_t *specials = json_object();
    json_object_set_new(specials, bos->p, special);
    return json_pack("{s:s, s:[O, {s:{s:s, s:i}}], s:[o, {s:{s:s, s:i}}, {s:{s:s, s:i}}], s:o}", "type",
                     "TemplateProcessing", "single", first, "Sequence", "id", "A", "type_id", 0, "pair",
                     first, "Sequence", "id", "A", "type_id", 0, "Sequence", "id", "B", "type_id", 1,
                     "special_tokens", specials);
}

static json_t *rebuild(const struct apr_model *m)
{
    const struct apr_vocab *v = &m->vocab;
    const struct apr_pre_row *row = v->pre ? apr_pre_named(v->pre) : NULL;
    if (v->kind != APR_VOCAB_BPE || !row) {
        apr_warn("tokenizer.json: cannot be rebuilt from what the source tells about its tokenizer (%s); the "
                 "folder has none",
                 v->kind != APR_VOCAB_BPE ? "no byte-level BPE" : "unknown pre-tokenizer");
        return NULL;
    }
    apr_note("tokenizer.json: rebuilt for pre-tokenizer %s; stripping of spaces around added tokens is not "
             "known",
             v->pre);
    json_t *model = json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b}", "type", "BPE", "dropout",
                              "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
                              "byte_fallback", 0, "ignore_merges", row->ignore_merges);
    json_t *normalizer = row->nfc ? json_pack("{s:s}", "type", "NFC") : json_null();
    return json_pack("{s:s, s:n, s:n, s:o, s:o, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation",
                     "padding", "added_tokens", added_tokens(v), "normalizer", normalizer, "pre_tokenizer",
                     pre_tokenizer(row), "post_processor", post_processor(v), "decoder", byte_level(true),
                     "model", model);
}

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

static enum apr_code put_vocab(const struct apr_vocab *v, const uint8_t *is_added, uint32_t n, bool unigram,
                               struct apr_buf *b, struct apr_err *e)
{
    bool first = true;
    TRY(apr_buf_printf(b, e, ",\"vocab\":%c", unigram ? '[' : '{'));
    for (uint32_t i = 0; i < n; i++) {
        if (is_added[i] == 2) continue;
        if (!first) TRY(apr_buf_append(b, ",", 1, e));
        first = false;
        if (unigram) TRY(apr_buf_append(b, "[", 1, e));
        TRY(apr_json_put_str(b, v->toks[i].p, v->toks[i].n_bytes, e));
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

/* As pairs: the one spelling that every text of a token allows. */
static enum apr_code put_merges(const struct apr_vocab *v, struct apr_buf *b, struct apr_err *e)
{
    TRY(apr_buf_printf(b, e, ",\"merges\":["));
    for (uint64_t i = 0; i < v->n_merges; i++) {
        const struct apr_str *s = &v->merges[i];
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
    if (code == APR_OK && merges) code = put_merges(v, b, e);
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
    json_t *hf = m->vocab.hf ? json_incref(m->vocab.hf) : rebuild(m);
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

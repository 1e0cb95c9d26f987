/* Added tokens and the ids around a text: from tokenizer.json where there is one, else from the vocabulary.
 */
#include <inttypes.h>
#include <string.h>

#include "kind.h"

static bool flag(const json_t *j, const char *key, bool absent)
{
    const json_t *v = json_object_get(j, key);
    return json_is_boolean(v) ? json_is_true(v) : absent;
}

static bool is_special(const struct apr_vocab *v, int64_t id)
{
    return v->types && (v->types[id] == APR_TOK_CONTROL || v->types[id] == APR_TOK_UNKNOWN);
}

/* Tokens with "normalized" are sought in the normalized text, by their own normalized form. */
static enum apr_code normalized_text(struct apr_tok *t, struct apr_str *text, struct apr_err *e)
{
    struct apr_norm_work w;
    apr_norm_work_init(&w);
    enum apr_code code = apr_norm_run(&t->norm, &w, (const uint8_t *)text->p, text->n_bytes, e);
    if (code == APR_OK) *text = (struct apr_str){apr_arena_strndup(&t->arena, (const char *)w.p, w.n), w.n};
    apr_norm_work_free(&w);
    return code;
}

static enum apr_code read_one(struct apr_tok *t, const json_t *j, size_t i, struct apr_added_tok *out,
                              bool *normalized, struct apr_err *e)
{
    const char *text = json_string_value(json_object_get(j, "content"));
    const json_t *id = json_object_get(j, "id");
    if (!text || !json_is_integer(id))
        return apr_fail(e, APR_EFORMAT, "%s: $.added_tokens[%zu]: expected id and content", t->file, i);
    int64_t k = json_integer_value(id);
    if (k < 0 || k >= (int64_t)t->v->n_toks)
        return apr_fail(e, APR_EFORMAT, "%s: $.added_tokens[%zu]: id %" PRId64 ", expected 0..%" PRIu32,
                        t->file, i, k, t->v->n_toks - 1);
    if (!*text) return apr_fail(e, APR_EFORMAT, "%s: $.added_tokens[%zu]: empty content", t->file, i);
    bool special = flag(j, "special", false);
    *normalized = flag(j, "normalized", !special);
    *out = (struct apr_added_tok){
        .text = {text, strlen(text)},
        .id = (int32_t)k,
        .special = special || is_special(t->v, k),
        .lstrip = flag(j, "lstrip", false),
        .rstrip = flag(j, "rstrip", false),
        .single_word = flag(j, "single_word", false),
    };
    return *normalized ? normalized_text(t, &out->text, e) : APR_OK;
}

static enum apr_code from_json(struct apr_tok *t, const json_t *list, struct apr_err *e)
{
    size_t n = json_array_size(list), n_raw = 0, n_norm = 0;
    struct apr_added_tok *raw, *norm;
    TRY(apr_arena_try(&t->arena, &raw, n, sizeof *raw, "added tokens", e));
    TRY(apr_arena_try(&t->arena, &norm, n, sizeof *norm, "added tokens", e));
    for (size_t i = 0; i < n; i++) {
        bool normalized;
        struct apr_added_tok tok;
        TRY(read_one(t, json_array_get(list, i), i, &tok, &normalized, e));
        if (normalized)
            norm[n_norm++] = tok;
        else
            raw[n_raw++] = tok;
    }
    TRY(apr_added_open(&t->added_norm, norm, (uint32_t)n_norm, &t->arena, t->file, e));
    return apr_added_open(&t->added, raw, (uint32_t)n_raw, &t->arena, t->file, e);
}

static bool is_added(const struct apr_vocab *v, uint32_t i)
{
    return (is_special(v, i) || v->types[i] == APR_TOK_USER) && v->toks[i].n_bytes > 0;
}

enum apr_code apr_tok_read_added(struct apr_tok *t, struct apr_err *e)
{
    const struct apr_vocab *v = t->v;
    if (v->hf) return from_json(t, json_object_get(v->hf, "added_tokens"), e);
    uint32_t n = 0;
    for (uint32_t i = 0; v->types && i < v->n_toks; i++) n += is_added(v, i);
    struct apr_added_tok *toks;
    TRY(apr_arena_try(&t->arena, &toks, n, sizeof *toks, "added tokens", e));
    n = 0;
    for (uint32_t i = 0; v->types && i < v->n_toks; i++)
        if (is_added(v, i))
            toks[n++] =
                (struct apr_added_tok){.text = v->toks[i], .id = (int32_t)i, .special = is_special(v, i)};
    return apr_added_open(&t->added, toks, n, &t->arena, t->file, e);
}

static enum apr_code push(struct apr_tok *t, int32_t **at, uint32_t *n, int64_t id, struct apr_err *e)
{
    if (id < 0 || id >= (int64_t)t->v->n_toks)
        return apr_fail(e, APR_EFORMAT, "%s: post-processor: id %" PRId64 ", expected 0..%" PRIu32, t->file,
                        id, t->v->n_toks - 1);
    int32_t *grown;
    TRY(apr_arena_try(&t->arena, &grown, (size_t)*n + 1, sizeof *grown, "special ids", e));
    for (uint32_t i = 0; i < *n; i++) grown[i] = (*at)[i];
    grown[(*n)++] = (int32_t)id;
    *at = grown;
    return APR_OK;
}

enum { MAX_AROUND = 64 };

/* "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}], ids by name in special_tokens. */
static enum apr_code read_template(struct apr_tok *t, const json_t *j, struct apr_err *e)
{
    bool after = false;
    size_t i;
    const json_t *item;
    json_array_foreach(json_object_get(j, "single"), i, item)
    {
        if (json_object_get(item, "Sequence")) after = true;
        const char *name = json_string_value(json_object_get(json_object_get(item, "SpecialToken"), "id"));
        if (!name) continue;
        const json_t *ids =
            json_object_get(json_object_get(json_object_get(j, "special_tokens"), name), "ids");
        if (i > MAX_AROUND || json_array_size(ids) == 0 || json_array_size(ids) > MAX_AROUND)
            return apr_fail(e, APR_EFORMAT, "%s: $.post_processor: no usable ids for a special token",
                            t->file);
        for (size_t k = 0; k < json_array_size(ids); k++) {
            int64_t id =
                json_is_integer(json_array_get(ids, k)) ? json_integer_value(json_array_get(ids, k)) : -1;
            if (after) TRY(push(t, &t->last, &t->n_last, id, e));
            if (!after) TRY(push(t, &t->first, &t->n_first, id, e));
        }
    }
    return APR_OK;
}

/* RobertaProcessing and BertProcessing: "cls": [text, id], "sep": [text, id]. */
static enum apr_code read_cls_sep(struct apr_tok *t, const json_t *j, struct apr_err *e)
{
    const json_t *cls = json_array_get(json_object_get(j, "cls"), 1),
                 *sep = json_array_get(json_object_get(j, "sep"), 1);
    TRY(push(t, &t->first, &t->n_first, json_is_integer(cls) ? json_integer_value(cls) : -1, e));
    return push(t, &t->last, &t->n_last, json_is_integer(sep) ? json_integer_value(sep) : -1, e);
}

static enum apr_code read_processor(struct apr_tok *t, const json_t *j, int depth, bool *found,
                                    struct apr_err *e)
{
    const char *type = json_string_value(json_object_get(j, "type"));
    if (!type || strcmp(type, "ByteLevel") == 0) return APR_OK; /* ByteLevel moves offsets only */
    if (strcmp(type, "Sequence") == 0 && depth < 4) {
        size_t i;
        const json_t *item;
        json_array_foreach(json_object_get(j, "processors"), i, item)
            TRY(read_processor(t, item, depth + 1, found, e));
        return APR_OK;
    }
    *found = true;
    if (strcmp(type, "TemplateProcessing") == 0) return read_template(t, j, e);
    if (strcmp(type, "RobertaProcessing") == 0 || strcmp(type, "BertProcessing") == 0)
        return read_cls_sep(t, j, e);
    char shown[80];
    return apr_fail(e, APR_ELOAD, "%s: $.post_processor: \"%s\" is not supported", t->file,
                    apr_escape(shown, sizeof shown, type, strlen(type)));
}

int32_t apr_tok_unk_id(const struct apr_vocab *v)
{
    if (v->unk_id >= 0 && v->unk_id < (int64_t)v->n_toks) return (int32_t)v->unk_id;
    for (uint32_t i = 0; v->types && i < v->n_toks; i++)
        if (v->types[i] == APR_TOK_UNKNOWN) return (int32_t)i;
    return -1;
}

static int64_t first_given(const struct apr_tok *t, int64_t a, int64_t b, const char *text)
{
    return a >= 0 ? a : b >= 0 ? b : apr_tok_find(t, text, strlen(text));
}

enum apr_code apr_tok_read_cls_sep(struct apr_tok *t, struct apr_err *e)
{
    const struct apr_vocab *v = t->v;
    int64_t cls = first_given(t, v->cls_id, v->bos_id, "[CLS]");
    int64_t sep = first_given(t, v->sep_id, v->eos_id, "[SEP]");
    if (cls >= 0 && v->add_bos != 0) TRY(push(t, &t->first, &t->n_first, cls, e));
    if (sep >= 0 && v->add_eos != 0) TRY(push(t, &t->last, &t->n_last, sep, e));
    return APR_OK;
}

enum apr_code apr_tok_read_around(struct apr_tok *t, bool add_bos, bool add_eos, struct apr_err *e)
{
    const struct apr_vocab *v = t->v;
    bool found = false;
    if (v->hf) TRY(read_processor(t, json_object_get(v->hf, "post_processor"), 0, &found, e));
    if (found) return APR_OK;
    if (v->add_bos >= 0) add_bos = v->add_bos == 1;
    if (v->add_eos >= 0) add_eos = v->add_eos == 1;
    if (add_bos && v->bos_id >= 0) TRY(push(t, &t->first, &t->n_first, v->bos_id, e));
    if (add_eos && v->eos_id >= 0) TRY(push(t, &t->last, &t->n_last, v->eos_id, e));
    return APR_OK;
}

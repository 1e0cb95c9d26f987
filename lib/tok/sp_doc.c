/* See sp_doc.h. */
#include "sp_doc.h"

#include "../vocab.h"
#include "charsmap.h"
#include "pretok.h"

static json_t *added_tokens(const struct apr_sp_model *sp)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < sp->n_pieces; i++) {
        int32_t type = sp->types[i];
        if (type != APR_TOK_UNKNOWN && type != APR_TOK_CONTROL && type != APR_TOK_USER) continue;
        json_array_append_new(list, json_pack("{s:I, s:s%, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)i,
                                              "content", sp->pieces[i].p, sp->pieces[i].n_bytes,
                                              "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0,
                                              "special", type != APR_TOK_USER));
    }
    return list;
}

static json_t *replace(const char *kind, const char *from, const char *to)
{
    return json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", kind, from, "content", to);
}

static json_t *normalizer(const struct apr_sp_model *sp, struct apr_arena *arena)
{
    json_t *list = json_array();
    if (sp->n_charsmap_bytes > 0) {
        const char *map = apr_base64_put(sp->charsmap, sp->n_charsmap_bytes, arena);
        json_array_append_new(list,
                              json_pack("{s:s, s:s}", "type", "Precompiled", "precompiled_charsmap", map));
    }
    if (sp->remove_extra_spaces) {
        json_array_append_new(
            list, json_pack("{s:s, s:b, s:b}", "type", "Strip", "strip_left", 1, "strip_right", 1));
        json_array_append_new(list, replace("Regex", " {2,}", " "));
    }
    if (sp->type == APR_SP_BPE && sp->dummy_prefix)
        json_array_append_new(list, json_pack("{s:s, s:s}", "type", "Prepend", "prepend", APR_BAR));
    if (sp->type == APR_SP_BPE) json_array_append_new(list, replace("String", " ", APR_BAR));
    if (json_array_size(list) > 0) return json_pack("{s:s, s:o}", "type", "Sequence", "normalizers", list);
    json_decref(list);
    return json_null();
}

static json_t *metaspace(const struct apr_sp_model *sp)
{
    return json_pack("{s:s, s:s, s:s, s:b}", "type", "Metaspace", "replacement", APR_BAR, "prepend_scheme",
                     sp->dummy_prefix ? "always" : "never", "split", sp->split_by_space);
}

static json_t *decoder(const struct apr_sp_model *sp)
{
    if (sp->type == APR_SP_UNIGRAM) return metaspace(sp);
    json_t *list = json_pack("[o, {s:s}, {s:s}]", replace("String", APR_BAR, " "), "type", "ByteFallback",
                             "type", "Fuse");
    if (sp->dummy_prefix)
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip", "content", " ", "start", 1, "stop", 0));
    return json_pack("{s:s, s:o}", "type", "Sequence", "decoders", list);
}

static json_t *model(const struct apr_sp_model *sp)
{
    if (sp->type == APR_SP_UNIGRAM) {
        json_t *m = json_pack("{s:s, s:b}", "type", "Unigram", "byte_fallback", sp->byte_fallback);
        json_object_set_new(m, "unk_id", sp->unk_id < 0 ? json_null() : json_integer(sp->unk_id));
        return m;
    }
    json_t *m = json_pack("{s:s, s:n, s:n, s:n, s:b, s:b, s:b}", "type", "BPE", "dropout",
                          "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 1, "byte_fallback",
                          sp->byte_fallback, "ignore_merges", 0);
    json_object_set_new(m, "unk_token", sp->unk_id < 0 ? json_null() : json_string(sp->pieces[sp->unk_id].p));
    return m;
}

/* An item of a template: the token, or else the text itself. */
static json_t *item(const char *token, const char *text, int type)
{
    return json_pack("{s:{s:s, s:i}}", token ? "SpecialToken" : "Sequence", "id", token ? token : text,
                     "type_id", type);
}

static void put_special(json_t *specials, const char *token, int64_t id)
{
    if (!token) return;
    json_object_set_new(
        specials, token,
        json_pack("{s:s, s:[I], s:[s]}", "id", token, "ids", (json_int_t)id, "tokens", token));
}

json_t *apr_template_processor(const char *first, int64_t first_id, const char *last, int64_t last_id)
{
    if (!first && !last) return json_null();
    json_t *single = json_array(), *pair = json_array(), *specials = json_object();
    for (int k = 0; k < 2; k++) {
        json_t *to[] = {pair, k == 0 ? single : NULL};
        for (int i = 0; i < 2; i++) {
            if (first) json_array_append_new(to[i], item(first, NULL, k));
            json_array_append_new(to[i], item(NULL, k ? "B" : "A", k));
            if (last) json_array_append_new(to[i], item(last, NULL, k));
        }
    }
    put_special(specials, first, first_id);
    put_special(specials, last, last_id);
    return json_pack("{s:s, s:o, s:o, s:o}", "type", "TemplateProcessing", "single", single, "pair", pair,
                     "special_tokens", specials);
}

json_t *apr_sp_document(const struct apr_sp_model *sp, struct apr_arena *arena)
{
    /* A model of the T5 kind ends a text with its end token; the others are told by tokenizer_config.json. */
    const char *eos = sp->type == APR_SP_UNIGRAM && sp->eos_id >= 0 ? sp->pieces[sp->eos_id].p : NULL;
    json_t *pre = sp->type == APR_SP_UNIGRAM ? metaspace(sp) : json_null();
    return json_pack("{s:s, s:n, s:n, s:o, s:o, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation",
                     "padding", "added_tokens", added_tokens(sp), "normalizer", normalizer(sp, arena),
                     "pre_tokenizer", pre, "post_processor", apr_template_processor(NULL, 0, eos, sp->eos_id),
                     "decoder", decoder(sp), "model", model(sp));
}

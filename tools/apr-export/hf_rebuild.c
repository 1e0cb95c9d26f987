#include "hf_rebuild.h"

#include <string.h>

#include "log.h"
#include "tok/pre.h"
#include "tok/sp_doc.h"

/* ---- parts ---- */

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

/* Text of a token, NULL where the id names none. */
static const char *text_of(const struct apr_vocab *v, int64_t id)
{
    return id >= 0 && id < (int64_t)v->n_toks ? v->toks[id].p : NULL;
}

/* The tokens that readers of a GGUF put around a text. */
static json_t *post_processor(const struct apr_vocab *v, bool add_bos, bool add_eos)
{
    if (v->add_bos >= 0) add_bos = v->add_bos == 1;
    if (v->add_eos >= 0) add_eos = v->add_eos == 1;
    return apr_template_processor(add_bos ? text_of(v, v->bos_id) : NULL, v->bos_id,
                                  add_eos ? text_of(v, v->eos_id) : NULL, v->eos_id);
}

/* ---- kinds ---- */

static json_t *byte_level_bpe(const struct apr_model *m)
{
    const struct apr_vocab *v = &m->vocab;
    const struct apr_pre_row *row = v->pre ? apr_pre_named(v->pre) : NULL;
    if (!row) {
        apr_warn("tokenizer.json: cannot be rebuilt, the pre-tokenizer %s is unknown; the folder has none",
                 v->pre ? v->pre : "is not named and");
        return NULL;
    }
    json_t *model = json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b}", "type", "BPE", "dropout",
                              "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
                              "byte_fallback", 0, "ignore_merges", row->ignore_merges);
    json_t *normalizer = row->nfc ? json_pack("{s:s}", "type", "NFC") : json_null();
    json_t *post = post_processor(v, row->add_bos, false);
    if (json_is_null(post)) post = byte_level(false);
    return json_pack("{s:s, s:n, s:n, s:o, s:o, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation",
                     "padding", "added_tokens", added_tokens(v), "normalizer", normalizer, "pre_tokenizer",
                     pre_tokenizer(row), "post_processor", post, "decoder", byte_level(true), "model", model);
}

static json_t *sentence_piece(const struct apr_model *m)
{
    const struct apr_vocab *v = &m->vocab;
    bool bpe = v->kind == APR_VOCAB_SPM;
    struct apr_arena arena;
    struct apr_sp_model sp = {.n_pieces = v->n_toks,
                              .pieces = v->toks,
                              .types = v->types,
                              .scores = v->scores,
                              .type = bpe ? APR_SP_BPE : APR_SP_UNIGRAM,
                              .split_by_space = true,
                              .unk_id = v->unk_id,
                              .eos_id = -1,
                              .charsmap = v->charsmap,
                              .n_charsmap_bytes = bpe ? 0 : v->n_charsmap_bytes,
                              .dummy_prefix = v->add_space_prefix != 0,
                              .remove_extra_spaces = !bpe && v->remove_extra_spaces == 1,
                              .escape_spaces = true};
    for (uint32_t i = v->n_toks; i-- > 0;) {
        sp.byte_fallback |= v->types[i] == APR_TOK_BYTE;
        if (v->unk_id < 0 && v->types[i] == APR_TOK_UNKNOWN) sp.unk_id = i;
    }
    apr_arena_init(&arena);
    json_t *doc = apr_sp_document(&sp, &arena);
    apr_arena_free(&arena);
    json_object_set_new(doc, "post_processor", post_processor(v, bpe, !bpe));
    return doc;
}

static json_t *word_piece(const struct apr_model *m)
{
    const struct apr_vocab *v = &m->vocab;
    int64_t ids[2] = {v->cls_id >= 0 ? v->cls_id : v->bos_id, v->sep_id >= 0 ? v->sep_id : v->eos_id};
    static const char *const names[] = {"[CLS]", "[SEP]"};
    const char *unk = text_of(v, v->unk_id);
    for (uint32_t i = 0; i < v->n_toks; i++)
        for (int k = 0; k < 2; k++)
            if (ids[k] < 0 && v->toks[i].n_bytes == 5 && memcmp(v->toks[i].p, names[k], 5) == 0) ids[k] = i;
    json_t *norm = json_pack("{s:s, s:b, s:b, s:b}", "type", "BertNormalizer", "clean_text", 1,
                             "handle_chinese_chars", 1, "lowercase", v->lowercase != 0);
    json_object_set_new(norm, "strip_accents",
                        v->strip_accents < 0 ? json_null() : json_boolean(v->strip_accents == 1));
    json_t *model = json_pack("{s:s, s:s, s:s, s:i}", "type", "WordPiece", "unk_token", unk ? unk : "[UNK]",
                              "continuing_subword_prefix", "##", "max_input_chars_per_word", 100);
    return json_pack("{s:s, s:n, s:n, s:o, s:o, s:{s:s}, s:o, s:{s:s, s:s, s:b}, s:o}", "version", "1.0",
                     "truncation", "padding", "added_tokens", added_tokens(v), "normalizer", norm,
                     "pre_tokenizer", "type", "BertPreTokenizer", "post_processor",
                     apr_template_processor(text_of(v, ids[0]), ids[0], text_of(v, ids[1]), ids[1]),
                     "decoder", "type", "WordPiece", "prefix", "##", "cleanup", 1, "model", model);
}

static const struct {
    enum apr_vocab_kind kind;
    json_t *(*rebuild)(const struct apr_model *m);
} kinds[] = {
    {APR_VOCAB_BPE, byte_level_bpe},
    {APR_VOCAB_SPM, sentence_piece},
    {APR_VOCAB_UGM, sentence_piece},
    {APR_VOCAB_WPM, word_piece},
};

json_t *hf_rebuild(const struct apr_model *m)
{
    json_t *hf = NULL;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (kinds[i].kind == m->vocab.kind) hf = kinds[i].rebuild(m);
    if (hf) apr_note("tokenizer.json: rebuilt; stripping of spaces around added tokens is not known");
    return hf;
}

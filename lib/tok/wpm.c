/* WordPiece (BERT): a word is the longest token that begins it, then the longest that continue it; a word
 * that cannot be written so is the unknown token.
 *
 * tokenizer.json marks continuations by a prefix ("##ing"); a GGUF marks beginnings by U+2581. Both become
 * two tries here.
 */
#include <string.h>

#include "kind.h"
#include "pieces.h"
#include "pre.h"
#include "utf8.h"

struct wpm {
    struct apr_trie begin, inner; /* text without its mark -> id */
    int32_t unk_id;               /* -1: none */
    size_t n_max_chars;           /* longer words are unknown */
};

enum { MAX_CHARS = 100 }; /* of BERT's models; a GGUF does not say */

/* ---- opening ---- */

static bool cut(struct apr_str *s, const char *mark)
{
    size_t n = strlen(mark);
    if (n == 0 || s->n_bytes <= n || memcmp(s->p, mark, n) != 0) return false;
    *s = (struct apr_str){s->p + n, s->n_bytes - n};
    return true;
}

/* mark: of beginnings, or else of continuations. */
static enum apr_code open_tries(struct apr_tok *t, struct wpm *m, const char *mark, bool begins,
                                struct apr_err *e)
{
    const struct apr_vocab *v = t->v;
    enum apr_code code = APR_OK;
    apr_trie_init(&m->begin);
    apr_trie_init(&m->inner);
    for (uint32_t i = 0; i < v->n_toks && code == APR_OK; i++) {
        struct apr_str s = v->toks[i];
        int32_t had;
        if (!apr_tok_is_word(v, i) || s.n_bytes == 0) continue;
        bool marked = cut(&s, mark);
        code = apr_trie_put(marked == begins ? &m->begin : &m->inner, s, (int32_t)i, &had, t->file, e);
    }
    if (code == APR_OK) code = apr_trie_seal(&m->begin, &t->arena, e);
    if (code == APR_OK) return apr_trie_seal(&m->inner, &t->arena, e);
    apr_trie_drop(&m->begin);
    apr_trie_drop(&m->inner);
    return code;
}

static enum apr_code open_json(struct apr_tok *t, struct wpm *m, struct apr_err *e)
{
    const json_t *hf = t->v->hf, *model = json_object_get(hf, "model");
    const json_t *max = json_object_get(model, "max_input_chars_per_word");
    const char *unk = json_string_value(json_object_get(model, "unk_token"));
    const char *prefix = json_string_value(json_object_get(model, "continuing_subword_prefix"));
    struct apr_pre_step steps[APR_PRE_MAX_STEPS];
    size_t n_steps;
    TRY(apr_norm_read(json_object_get(hf, "normalizer"), &t->arena, &t->norm, t->file, e));
    TRY(apr_pre_read(json_object_get(hf, "pre_tokenizer"), &t->arena, steps, &n_steps, t->file, e));
    TRY(apr_pretok_open(&t->pre, steps, n_steps, t->file, e));
    m->unk_id = (int32_t)apr_tok_find(t, unk ? unk : "[UNK]", strlen(unk ? unk : "[UNK]"));
    if (json_is_integer(max) && json_integer_value(max) > 0) m->n_max_chars = (size_t)json_integer_value(max);
    TRY(apr_pieces_open(t, json_object_get(hf, "decoder"), e));
    TRY(open_tries(t, m, prefix ? prefix : "##", false, e));
    return apr_tok_read_around(t, false, false, e);
}

/* BERT's normalizer and pre-tokenizer; lowercase and the accents as the keys say, or as most models do. */
static enum apr_code open_gguf(struct apr_tok *t, struct wpm *m, struct apr_err *e)
{
    const struct apr_vocab *v = t->v;
    json_t *norm = json_pack("{s:s, s:b, s:b, s:b}", "type", "BertNormalizer", "clean_text", 1,
                             "handle_chinese_chars", 1, "lowercase", v->lowercase != 0);
    if (v->strip_accents >= 0) json_object_set_new(norm, "strip_accents", json_boolean(v->strip_accents));
    json_t *pre = json_pack("{s:s}", "type", "BertPreTokenizer");
    struct apr_pre_step steps[APR_PRE_MAX_STEPS];
    size_t n_steps = 0;
    enum apr_code code = apr_norm_read(norm, &t->arena, &t->norm, t->file, e);
    if (code == APR_OK) code = apr_pre_read(pre, &t->arena, steps, &n_steps, t->file, e);
    if (code == APR_OK) code = apr_pretok_open(&t->pre, steps, n_steps, t->file, e);
    json_decref(norm);
    json_decref(pre);
    TRY(code);
    m->unk_id = apr_tok_unk_id(v);
    if (m->unk_id < 0) m->unk_id = (int32_t)apr_tok_find(t, "[UNK]", 5);
    TRY(apr_pieces_open_gguf(t, e));
    TRY(open_tries(t, m, APR_BAR, true, e));
    return apr_tok_read_cls_sep(t, e);
}

static enum apr_code wpm_open(struct apr_tok *t, struct apr_err *e)
{
    struct wpm *m;
    TRY(apr_arena_try(&t->arena, &m, 1, sizeof *m, "tokenizer", e));
    m->n_max_chars = MAX_CHARS;
    t->model = m;
    return t->v->hf ? open_json(t, m, e) : open_gguf(t, m, e);
}

/* ---- encoding ---- */

/* The longest text of the trie that p begins with: its bytes and id. */
static size_t longest(const struct apr_trie *t, const uint8_t *p, size_t n, int32_t *id)
{
    size_t found = 0;
    uint32_t node = APR_TRIE_ROOT;
    for (size_t i = 0; i < n && (node = apr_trie_step(t, node, p[i])) != 0; i++)
        if (t->values[node] >= 0 && (i + 1 == n || (p[i + 1] & 0xc0) != 0x80)) {
            *id = t->values[node];
            found = i + 1;
        }
    return found;
}

static bool too_long(const struct wpm *m, const uint8_t *p, size_t n)
{
    size_t n_chars = 0;
    for (size_t i = 0; i < n && n > m->n_max_chars; i++) n_chars += (p[i] & 0xc0) != 0x80;
    return n_chars > m->n_max_chars;
}

static enum apr_code encode_word(const struct wpm *m, const uint8_t *p, size_t n, struct apr_ids *ids,
                                 struct apr_err *e)
{
    size_t n_before = ids->n;
    bool whole = !too_long(m, p, n);
    for (size_t i = 0; whole && i < n;) {
        int32_t id = -1;
        size_t k = longest(i == 0 ? &m->begin : &m->inner, p + i, n - i, &id);
        whole = k > 0;
        if (whole) TRY(apr_ids_push(ids, id, e));
        i += k;
    }
    if (whole) return APR_OK;
    ids->n = n_before;
    return m->unk_id < 0 ? APR_OK : apr_ids_push(ids, m->unk_id, e);
}

static enum apr_code wpm_encode(const struct apr_tok *t, struct apr_tok_work *w, const uint8_t *p, size_t n,
                                struct apr_ids *ids, struct apr_err *e)
{
    const struct wpm *m = t->model;
    TRY(apr_pretok_run(&t->pre, &w->pre, p, n, e));
    for (size_t i = 0; i < w->pre.n; i++) {
        const uint8_t *word = w->pre.text + w->pre.at[i].off;
        size_t n_word = w->pre.at[i].n_bytes, n_before = ids->n;
        struct apr_memo_slot *slot;
        if (apr_memo_find(&w->memo, word, n_word, &slot)) {
            TRY(apr_ids_push_all(ids, slot->ids, slot->n, e));
            continue;
        }
        TRY(encode_word(m, word, n_word, ids, e));
        if (slot) apr_memo_put(slot, ids->at + n_before, ids->n - n_before);
    }
    return APR_OK;
}

const struct apr_tok_kind apr_tok_wpm = {
    .id = APR_VOCAB_WPM, .name = "WordPiece", .open = wpm_open, .encode = wpm_encode};

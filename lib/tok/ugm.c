/* Unigram (T5, XLM-R): of all ways to write a word in tokens, the one whose scores have the highest sum
 * (Kudo 2018, arXiv:1804.10959: Viterbi over a trie of the pieces).
 *
 * A character without a piece of its own costs 10 more than the worst piece and is the unknown token, one for
 * a run of them, or the bytes of the run where every byte has a token.
 */
#include <string.h>

#include "kind.h"
#include "pieces.h"
#include "pre.h"
#include "utf8.h"

#define UNK_PENALTY 10.0

struct ugm {
    struct apr_trie trie; /* text -> id */
    double *scores;       /* [n_toks] */
    double unk_score;
    int32_t byte_id[256]; /* -1: no such token */
    int32_t unk_id;       /* -1: none */
};

/* ---- opening ---- */

static enum apr_code open_trie(struct apr_tok *t, struct ugm *m, struct apr_err *e)
{
    const struct apr_vocab *v = t->v;
    double least = 0;
    apr_trie_init(&m->trie);
    for (uint32_t i = 0; i < v->n_toks; i++) {
        int32_t had;
        bool unused = v->types && v->types[i] == APR_TOK_UNUSED && v->scores[i] > -10000.0f;
        if ((!apr_tok_is_word(v, i) && !unused) || v->toks[i].n_bytes == 0) continue;
        TRY(apr_trie_put(&m->trie, v->toks[i], (int32_t)i, &had, t->file, e));
        bool user = v->types && v->types[i] == APR_TOK_USER;
        m->scores[i] = user && !v->hf ? 0.0 : (double)v->scores[i]; /* user-defined pieces win */
        if (!user && m->scores[i] < least) least = m->scores[i];
    }
    m->unk_score = least - UNK_PENALTY;
    return apr_trie_seal(&m->trie, &t->arena, e);
}

static enum apr_code open_json(struct apr_tok *t, struct ugm *m, struct apr_err *e)
{
    const json_t *hf = t->v->hf, *model = json_object_get(hf, "model"),
                 *unk = json_object_get(model, "unk_id");
    struct apr_pre_step steps[APR_PRE_MAX_STEPS];
    size_t n_steps;
    TRY(apr_norm_read(json_object_get(hf, "normalizer"), &t->arena, &t->norm, t->file, e));
    TRY(apr_pre_read(json_object_get(hf, "pre_tokenizer"), &t->arena, steps, &n_steps, t->file, e));
    TRY(apr_pretok_open(&t->pre, steps, n_steps, t->file, e));
    if (json_is_integer(unk) && json_integer_value(unk) >= 0 && json_integer_value(unk) < t->v->n_toks)
        m->unk_id = (int32_t)json_integer_value(unk);
    if (json_is_true(json_object_get(model, "byte_fallback"))) apr_pieces_bytes(t, m->byte_id);
    TRY(apr_pieces_open(t, json_object_get(hf, "decoder"), e));
    return apr_tok_read_around(t, false, false, e);
}

/* Does a blank begin every piece that has one? Then words can be looked at one by one. */
static bool splits_at_blanks(const struct apr_vocab *v)
{
    for (uint32_t i = 0; i < v->n_toks; i++)
        if (apr_tok_is_word(v, i) && v->toks[i].n_bytes > 1 &&
            memmem(v->toks[i].p + 1, v->toks[i].n_bytes - 1, APR_BAR, APR_BAR_BYTES))
            return false;
    return true;
}

/* SentencePiece's normalization, as the keys of a GGUF tell it. */
static enum apr_code open_gguf(struct apr_tok *t, struct ugm *m, struct apr_err *e)
{
    const struct apr_vocab *v = t->v;
    struct apr_norm *norm = &t->norm;
    bool prefix = v->add_space_prefix != 0;
    if (v->n_charsmap_bytes > 0) {
        struct apr_charsmap *map = apr_arena_get(&t->arena, sizeof *map);
        TRY(apr_charsmap_open(map, v->charsmap, v->n_charsmap_bytes, &t->arena, t->file, e));
        if (map->n_units > 0)
            norm->steps[norm->n_steps++] =
                (struct apr_norm_step){.op = APR_NORM_CHARSMAP, .longest = true, .map = map};
    }
    if (v->remove_extra_spaces == 1) {
        norm->steps[norm->n_steps++] =
            (struct apr_norm_step){.op = APR_NORM_STRIP, .left = true, .right = true};
        norm->steps[norm->n_steps++] = (struct apr_norm_step){.op = APR_NORM_REPLACE_RUNS, .b = {" ", 1}};
    }
    if (prefix) norm->steps[norm->n_steps++] = (struct apr_norm_step){.op = APR_NORM_PREPEND, .a = {" ", 1}};
    struct apr_pre_step step = {.metaspace = APR_META_NEVER};
    if (splits_at_blanks(v)) {
        step.pattern = APR_BAR;
        step.literal = true;
        step.how = APR_SPLIT_WITH_NEXT;
    }
    TRY(apr_pretok_open(&t->pre, &step, 1, t->file, e));
    m->unk_id = apr_tok_unk_id(v);
    apr_pieces_bytes(t, m->byte_id);
    TRY(apr_pieces_open_gguf(t, e));
    return apr_tok_read_around(t, false, true, e);
}

static enum apr_code ugm_open(struct apr_tok *t, struct apr_err *e)
{
    struct ugm *m;
    if (!t->v->scores) return apr_fail(e, APR_EFORMAT, "%s: no scores of the tokens", t->file);
    TRY(apr_arena_try(&t->arena, &m, 1, sizeof *m, "tokenizer", e));
    TRY(apr_arena_try(&t->arena, &m->scores, t->v->n_toks, sizeof *m->scores, "tokenizer", e));
    m->unk_id = -1;
    for (int i = 0; i < 256; i++) m->byte_id[i] = -1;
    t->model = m;
    TRY(open_trie(t, m, e));
    return t->v->hf ? open_json(t, m, e) : open_gguf(t, m, e);
}

/* ---- encoding ---- */

struct node { /* the best way to write the word up to here */
    double score;
    uint32_t from; /* where its last token begins; NO_WAY: not reached */
    int32_t id;    /* -1: unknown */
};

#define NO_WAY UINT32_MAX

static void reach(struct node *to, double score, size_t from, int32_t id)
{
    if (to->from == NO_WAY || score > to->score) *to = (struct node){score, (uint32_t)from, id};
}

static void find_ways(const struct ugm *m, const uint8_t *p, size_t n, struct node *at)
{
    for (size_t i = 0; i < n;) {
        uint32_t cp, node = APR_TRIE_ROOT;
        size_t n_char = (size_t)apr_utf8_get(p + i, n - i, &cp);
        bool has_single = false;
        for (size_t k = i; k < n && (node = apr_trie_step(&m->trie, node, p[k++])) != 0;) {
            int32_t id = m->trie.values[node];
            if (id < 0) continue;
            reach(&at[k], at[i].score + m->scores[id], i, id);
            has_single |= k - i == n_char;
        }
        if (!has_single) reach(&at[i + n_char], at[i].score + m->unk_score, i, -1);
        i += n_char;
    }
}

static enum apr_code put_unknown(const struct ugm *m, const uint8_t *p, size_t n, struct apr_ids *ids,
                                 struct apr_err *e)
{
    for (size_t i = 0; i < n; i++)
        if (m->byte_id[p[i]] < 0) return m->unk_id < 0 ? APR_OK : apr_ids_push(ids, m->unk_id, e);
    for (size_t i = 0; i < n; i++) TRY(apr_ids_push(ids, m->byte_id[p[i]], e));
    return APR_OK;
}

/* Turns the chain of predecessors around: from becomes the end of the token that begins here. */
static void turn(struct node *at, size_t n)
{
    uint32_t end = (uint32_t)n, next = (uint32_t)n;
    int32_t id = -2;
    for (;;) {
        struct node here = at[end];
        at[end].from = next;
        at[end].id = id;
        if (end == 0) return;
        next = end;
        id = here.id;
        end = here.from;
    }
}

static enum apr_code encode_word(const struct ugm *m, struct apr_tok_work *w, const uint8_t *p, size_t n,
                                 struct apr_ids *ids, struct apr_err *e)
{
    uint8_t *room;
    w->links.n_bytes = 0;
    TRY(apr_buf_reserve(&w->links, (n + 1) * sizeof(struct node), &room, e));
    struct node *at = (struct node *)(void *)room;
    for (size_t i = 0; i <= n; i++) at[i] = (struct node){0, NO_WAY, -1};
    at[0].from = 0;
    find_ways(m, p, n, at);
    turn(at, n);
    for (size_t i = 0; i < n;) {
        size_t end = at[i].from;
        if (at[i].id >= 0) {
            TRY(apr_ids_push(ids, at[i].id, e));
            i = end;
            continue;
        }
        while (end < n && at[end].id < 0) end = at[end].from;
        TRY(put_unknown(m, p + i, end - i, ids, e));
        i = end;
    }
    return APR_OK;
}

static enum apr_code ugm_encode(const struct apr_tok *t, struct apr_tok_work *w, const uint8_t *p, size_t n,
                                struct apr_ids *ids, struct apr_err *e)
{
    const struct ugm *m = t->model;
    TRY(apr_pretok_run(&t->pre, &w->pre, p, n, e));
    for (size_t i = 0; i < w->pre.n; i++) {
        const uint8_t *word = w->pre.text + w->pre.at[i].off;
        size_t n_word = w->pre.at[i].n_bytes, n_before = ids->n;
        struct apr_memo_slot *slot;
        if (apr_memo_find(&w->memo, word, n_word, &slot)) {
            TRY(apr_ids_push_all(ids, slot->ids, slot->n, e));
            continue;
        }
        TRY(encode_word(m, w, word, n_word, ids, e));
        if (slot) apr_memo_put(slot, ids->at + n_before, ids->n - n_before);
    }
    return APR_OK;
}

const struct apr_tok_kind apr_tok_ugm = {
    .id = APR_VOCAB_UGM, .name = "Unigram", .open = ugm_open, .encode = ugm_encode};

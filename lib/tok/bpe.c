/* Byte-level BPE (GPT-2, Qwen2, Llama 3, ...).
 *
 * A word's bytes are its first symbols; merges.c does the rest.
 */
#include <inttypes.h>
#include <string.h>

#include "bytes.h"
#include "kind.h"
#include "merges.h"
#include "pre.h"

struct bpe {
    struct apr_merges merges;
    int32_t byte_id[256]; /* -1: the vocabulary lacks the byte */
    int32_t unk_id;       /* -1: such bytes vanish, as in tokenizers */
    bool fuse_unk;
    bool ignore_merges;
    struct apr_lookup by_bytes; /* ignore_merges: raw bytes -> id */
};

/* ---- opening ---- */

/* The bytes of every token, for output and for ignore_merges. */
static enum apr_code open_raw(struct apr_tok *t, struct apr_err *e)
{
    const struct apr_vocab *v = t->v;
    size_t n_total = 0;
    for (uint32_t i = 0; i < v->n_toks; i++) n_total += v->toks[i].n_bytes;
    uint8_t *at;
    TRY(apr_arena_try(&t->arena, &at, n_total, 1, "token bytes", e));
    TRY(apr_arena_try(&t->arena, &t->raw, v->n_toks, sizeof *t->raw, "token bytes", e));
    for (uint32_t i = 0; i < v->n_toks; i++) {
        bool model = !v->types || v->types[i] == APR_TOK_NORMAL || v->types[i] == APR_TOK_BYTE;
        size_t n = model ? apr_bytes_of_text(v->toks[i].p, v->toks[i].n_bytes, at) : 0;
        t->raw[i] = n > 0 ? (struct apr_str){(const char *)at, n} : v->toks[i];
        at += n;
    }
    return APR_OK;
}

static enum apr_code open_by_bytes(struct apr_tok *t, struct bpe *b, struct apr_err *e)
{
    const struct apr_vocab *v = t->v;
    if (!b->ignore_merges) return APR_OK;
    TRY(apr_lookup_init(&b->by_bytes, t->raw, v->n_toks, &t->arena, e));
    for (uint32_t i = 0; i < v->n_toks; i++) {
        bool model = !v->types || v->types[i] == APR_TOK_NORMAL || v->types[i] == APR_TOK_BYTE;
        if (model && t->raw[i].n_bytes > 0) apr_lookup_put(&b->by_bytes, (int32_t)i);
    }
    return APR_OK;
}

static void open_bytes(const struct apr_tok *t, struct bpe *b)
{
    for (int i = 0; i < 256; i++) {
        char text[4];
        uint8_t byte = (uint8_t)i;
        size_t n = apr_text_of_bytes(&byte, 1, text);
        b->byte_id[i] = apr_lookup_get(&t->by_text, text, n);
    }
}

/* The model object of tokenizer.json. */
static enum apr_code open_options(const struct apr_tok *t, struct bpe *b, struct apr_err *e)
{
    const json_t *model = json_object_get(t->v->hf, "model");
    TRY(apr_bpe_options(t, model, e));
    b->ignore_merges = json_is_true(json_object_get(model, "ignore_merges"));
    b->fuse_unk = json_is_true(json_object_get(model, "fuse_unk"));
    const char *unk = json_string_value(json_object_get(model, "unk_token"));
    if (unk) b->unk_id = (int32_t)apr_tok_find(t, unk, strlen(unk));
    return APR_OK;
}

static enum apr_code no_pre(const struct apr_tok *t, struct apr_err *e)
{
    char shown[80];
    const char *pre = t->v->pre;
    if (!pre)
        return apr_fail(e, APR_ELOAD, "%s: no pre-tokenizer is named (tokenizer.ggml.pre); name one by --pre",
                        t->file);
    return apr_fail(e, APR_ELOAD, "%s: unknown pre-tokenizer \"%s\"; name one by --pre", t->file,
                    apr_escape(shown, sizeof shown, pre, strlen(pre)));
}

static enum apr_code open_row(struct apr_tok *t, struct bpe *b, bool *add_bos, struct apr_err *e)
{
    const struct apr_pre_row *row = t->v->pre ? apr_pre_named(t->v->pre) : NULL;
    if (!row) return no_pre(t, e);
    struct apr_pre_step steps[APR_PRE_MAX_STEPS];
    memcpy(steps, row->steps, sizeof steps);
    for (size_t i = 0; i < APR_PRE_MAX_STEPS; i++) steps[i].trusted = true;
    if (row->nfc) t->norm = (struct apr_norm){.steps = {{.op = APR_NORM_NFC}}, .n_steps = 1};
    b->ignore_merges = row->ignore_merges;
    *add_bos = row->add_bos;
    return apr_pretok_open(&t->pre, steps, apr_pre_n_steps(row), t->file, e);
}

static enum apr_code open_json(struct apr_tok *t, struct bpe *b, struct apr_err *e)
{
    const json_t *hf = t->v->hf;
    TRY(apr_norm_read(json_object_get(hf, "normalizer"), &t->arena, &t->norm, t->file, e));
    struct apr_pre_step steps[APR_PRE_MAX_STEPS];
    size_t n_steps;
    TRY(apr_pre_read(json_object_get(hf, "pre_tokenizer"), &t->arena, steps, &n_steps, t->file, e));
    TRY(apr_pretok_open(&t->pre, steps, n_steps, t->file, e));
    return open_options(t, b, e);
}

static enum apr_code bpe_open(struct apr_tok *t, struct apr_err *e)
{
    struct bpe *b;
    TRY(apr_arena_try(&t->arena, &b, 1, sizeof *b, "tokenizer", e));
    b->unk_id = -1;
    t->model = b;
    bool add_bos = false;
    if (t->v->hf)
        TRY(open_json(t, b, e));
    else
        TRY(open_row(t, b, &add_bos, e));
    TRY(apr_merges_open(&b->merges, t, e));
    open_bytes(t, b);
    TRY(open_raw(t, e));
    TRY(open_by_bytes(t, b, e));
    return apr_tok_read_around(t, add_bos, false, e);
}

/* ---- encoding ---- */

/* First symbols of a word. Unknown bytes become unk_id, one for a run with fuse_unk, or vanish. */
static size_t first_symbols(const struct bpe *b, const uint8_t *p, size_t n, int32_t *syms)
{
    size_t n_syms = 0;
    bool in_unk = false;
    for (size_t i = 0; i < n; i++) {
        int32_t id = b->byte_id[p[i]];
        bool unk = id < 0;
        if (unk) id = b->unk_id;
        if (id >= 0 && !(unk && in_unk && b->fuse_unk)) syms[n_syms++] = id;
        in_unk = unk;
    }
    return n_syms;
}

static enum apr_code encode_word(const struct bpe *b, struct apr_tok_work *w, const uint8_t *p, size_t n,
                                 struct apr_ids *ids, struct apr_err *e)
{
    uint8_t *room;
    w->syms.n_bytes = 0;
    TRY(apr_buf_reserve(&w->syms, n * sizeof(int32_t), &room, e));
    int32_t *syms = (int32_t *)(void *)room;
    return apr_merges_run(&b->merges, w, syms, first_symbols(b, p, n, syms), ids, e);
}

static enum apr_code bpe_encode(const struct apr_tok *t, struct apr_tok_work *w, const uint8_t *p, size_t n,
                                struct apr_ids *ids, struct apr_err *e)
{
    const struct bpe *b = t->model;
    TRY(apr_pretok_run(&t->pre, &w->pre, p, n, e));
    for (size_t i = 0; i < w->pre.n; i++) {
        const uint8_t *word = w->pre.text + w->pre.at[i].off;
        size_t n_word = w->pre.at[i].n_bytes, n_before = ids->n;
        struct apr_memo_slot *slot;
        if (apr_memo_find(&w->memo, word, n_word, &slot)) {
            TRY(apr_ids_push_all(ids, slot->ids, slot->n, e));
            continue;
        }
        int32_t whole = b->ignore_merges ? apr_lookup_get(&b->by_bytes, (const char *)word, n_word) : -1;
        if (whole >= 0)
            TRY(apr_ids_push(ids, whole, e));
        else
            TRY(encode_word(b, w, word, n_word, ids, e));
        if (slot) apr_memo_put(slot, ids->at + n_before, ids->n - n_before);
    }
    return APR_OK;
}

const struct apr_tok_kind apr_tok_bpe = {
    .id = APR_VOCAB_BPE, .name = "byte-level BPE", .open = bpe_open, .encode = bpe_encode};

/* SentencePiece BPE (Llama 2, Mistral, Gemma, Phi-3): characters merge, blanks stand as U+2581, what has no
 * token is written in byte tokens <0xNN>.
 *
 * tokenizer.json has merges with ranks; a GGUF and tokenizer.model have scores: there the neighbours whose
 * joined text is the token of highest score merge first, the leftmost among equals.
 */
#include <string.h>

#include "heap.h"
#include "kind.h"
#include "merges.h"
#include "pieces.h"
#include "pre.h"
#include "utf8.h"

struct spm {
    struct apr_merges merges; /* pairs NULL: by scores */
    int32_t byte_id[256];     /* -1: no such token */
    int32_t unk_id;           /* -1: none */
    bool fuse_unk;
};

/* ---- opening ---- */

static enum apr_code open_model(struct apr_tok *t, struct spm *m, struct apr_err *e)
{
    bool says_merges = json_object_get(json_object_get(t->v->hf, "model"), "merges") != NULL;
    return t->v->n_merges > 0 || says_merges ? apr_merges_open(&m->merges, t, e) : APR_OK;
}

static enum apr_code open_json(struct apr_tok *t, struct spm *m, struct apr_err *e)
{
    const json_t *hf = t->v->hf, *model = json_object_get(hf, "model");
    struct apr_pre_step steps[APR_PRE_MAX_STEPS];
    size_t n_steps;
    TRY(apr_norm_read(json_object_get(hf, "normalizer"), &t->arena, &t->norm, t->file, e));
    TRY(apr_pre_read(json_object_get(hf, "pre_tokenizer"), &t->arena, steps, &n_steps, t->file, e));
    TRY(apr_pretok_open(&t->pre, steps, n_steps, t->file, e));
    TRY(apr_bpe_options(t, model, e));
    const char *unk = json_string_value(json_object_get(model, "unk_token"));
    if (unk) m->unk_id = (int32_t)apr_tok_find(t, unk, strlen(unk));
    m->fuse_unk = json_is_true(json_object_get(model, "fuse_unk"));
    if (json_is_true(json_object_get(model, "byte_fallback"))) apr_pieces_bytes(t, m->byte_id);
    TRY(apr_pieces_open(t, json_object_get(hf, "decoder"), e));
    return open_model(t, m, e);
}

static enum apr_code open_gguf(struct apr_tok *t, struct spm *m, struct apr_err *e)
{
    const struct apr_vocab *v = t->v;
    if (!v->scores && v->n_merges == 0)
        return apr_fail(e, APR_EFORMAT, "%s: neither scores nor merges of the tokens", t->file);
    if (v->add_space_prefix != 0)
        t->norm.steps[t->norm.n_steps++] =
            (struct apr_norm_step){.op = APR_NORM_PREPEND, .a = {APR_BAR, APR_BAR_BYTES}};
    t->norm.steps[t->norm.n_steps++] =
        (struct apr_norm_step){.op = APR_NORM_REPLACE, .a = {" ", 1}, .b = {APR_BAR, APR_BAR_BYTES}};
    if (v->unk_id >= 0 && v->unk_id < (int64_t)v->n_toks) m->unk_id = (int32_t)v->unk_id;
    apr_pieces_bytes(t, m->byte_id);
    TRY(apr_pieces_open_gguf(t, e));
    return open_model(t, m, e);
}

static enum apr_code spm_open(struct apr_tok *t, struct apr_err *e)
{
    struct spm *m;
    TRY(apr_arena_try(&t->arena, &m, 1, sizeof *m, "tokenizer", e));
    m->unk_id = -1;
    for (int i = 0; i < 256; i++) m->byte_id[i] = -1;
    t->model = m;
    TRY(t->v->hf ? open_json(t, m, e) : open_gguf(t, m, e));
    return apr_tok_read_around(t, true, false, e);
}

/* ---- encoding ---- */

static enum apr_code put_sym(const struct spm *m, struct apr_buf *syms, int32_t id, bool *in_unk,
                             struct apr_err *e)
{
    bool unk = id < 0;
    bool fused = unk && *in_unk && m->fuse_unk;
    *in_unk = unk;
    if (unk) id = m->unk_id;
    return id < 0 || fused ? APR_OK : apr_buf_append(syms, &id, sizeof id, e);
}

/* A text that is no token: its bytes, when each has a token, else the unknown token. */
static enum apr_code put_bytes(const struct spm *m, struct apr_buf *syms, const uint8_t *p, size_t n,
                               bool *in_unk, struct apr_err *e)
{
    for (size_t i = 0; i < n; i++)
        if (m->byte_id[p[i]] < 0) return put_sym(m, syms, -1, in_unk, e);
    for (size_t i = 0; i < n; i++) TRY(put_sym(m, syms, m->byte_id[p[i]], in_unk, e));
    return APR_OK;
}

static enum apr_code put_text(const struct apr_tok *t, struct apr_buf *syms, const uint8_t *p, size_t n,
                              bool *in_unk, struct apr_err *e)
{
    int32_t id = apr_lookup_get(&t->by_text, (const char *)p, n);
    if (id >= 0 && !apr_tok_is_word(t->v, (uint32_t)id)) id = -1;
    return id >= 0 ? put_sym(t->model, syms, id, in_unk, e) : put_bytes(t->model, syms, p, n, in_unk, e);
}

static enum apr_code encode_ranks(const struct apr_tok *t, struct apr_tok_work *w, const uint8_t *p, size_t n,
                                  struct apr_ids *ids, struct apr_err *e)
{
    const struct spm *m = t->model;
    bool in_unk = false;
    w->syms.n_bytes = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        size_t k = (size_t)apr_utf8_get(p + i, n - i, &cp);
        TRY(put_text(t, &w->syms, p + i, k, &in_unk, e));
        i += k;
    }
    return apr_merges_run(&m->merges, w, (int32_t *)(void *)w->syms.data, w->syms.n_bytes / sizeof(int32_t),
                          ids, e);
}

struct piece {
    uint32_t off, n_bytes; /* 0: merged away */
    uint32_t prev, next;
};

#define NO_PIECE UINT32_MAX

/* Floats in the order of their values as unsigned numbers, the highest first. */
static uint32_t by_score(float score)
{
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    return ~(bits >> 31 ? ~bits : bits | 0x80000000u);
}

static enum apr_code consider(const struct apr_tok *t, const uint8_t *p, const struct piece *at, uint32_t i,
                              struct apr_buf *heap, struct apr_err *e)
{
    uint32_t next = i == NO_PIECE ? NO_PIECE : at[i].next;
    if (next == NO_PIECE) return APR_OK;
    uint32_t n = at[i].n_bytes + at[next].n_bytes; /* neighbours: their texts touch */
    int32_t id = apr_lookup_get(&t->by_text, (const char *)p + at[i].off, n);
    if (id < 0 || !apr_tok_is_word(t->v, (uint32_t)id)) return APR_OK;
    return apr_heap_push(heap, (struct apr_candidate){(uint64_t)by_score(t->v->scores[id]) << 32 | i, n}, e);
}

static enum apr_code merge_all(const struct apr_tok *t, const uint8_t *p, struct piece *at,
                               struct apr_buf *heap, struct apr_err *e)
{
    while (heap->n_bytes > 0) {
        struct apr_candidate c = apr_heap_pop(heap);
        uint32_t i = (uint32_t)c.key, next = at[i].next;
        /* Stale when either side has merged since. */
        if (at[i].n_bytes == 0 || next == NO_PIECE || (uint64_t)at[i].n_bytes + at[next].n_bytes != c.what)
            continue;
        at[i].n_bytes += at[next].n_bytes;
        at[i].next = at[next].next;
        at[next].n_bytes = 0;
        if (at[i].next != NO_PIECE) at[at[i].next].prev = i;
        TRY(consider(t, p, at, at[i].prev, heap, e));
        TRY(consider(t, p, at, i, heap, e));
    }
    return APR_OK;
}

static enum apr_code encode_scores(const struct apr_tok *t, struct apr_tok_work *w, const uint8_t *p,
                                   size_t n, struct apr_ids *ids, struct apr_err *e)
{
    bool in_unk = false;
    uint32_t n_pieces = 0;
    w->links.n_bytes = w->heap.n_bytes = w->syms.n_bytes = 0;
    for (size_t i = 0; i < n; n_pieces++) {
        uint32_t cp;
        uint32_t k = (uint32_t)apr_utf8_get(p + i, n - i, &cp);
        struct piece x = {(uint32_t)i, k, n_pieces ? n_pieces - 1 : NO_PIECE,
                          i + k < n ? n_pieces + 1 : NO_PIECE};
        TRY(apr_buf_append(&w->links, &x, sizeof x, e));
        i += k;
    }
    struct piece *at = (struct piece *)(void *)w->links.data;
    for (uint32_t i = 0; i < n_pieces; i++) TRY(consider(t, p, at, i, &w->heap, e));
    TRY(merge_all(t, p, at, &w->heap, e));
    for (uint32_t i = 0; i < n_pieces; i++)
        if (at[i].n_bytes > 0) TRY(put_text(t, &w->syms, p + at[i].off, at[i].n_bytes, &in_unk, e));
    const int32_t *syms = (const int32_t *)(const void *)w->syms.data;
    for (size_t i = 0; i < w->syms.n_bytes / sizeof *syms; i++) TRY(apr_ids_push(ids, syms[i], e));
    return APR_OK;
}

static enum apr_code spm_encode(const struct apr_tok *t, struct apr_tok_work *w, const uint8_t *p, size_t n,
                                struct apr_ids *ids, struct apr_err *e)
{
    const struct spm *m = t->model;
    TRY(apr_pretok_run(&t->pre, &w->pre, p, n, e));
    for (size_t i = 0; i < w->pre.n; i++) {
        const uint8_t *word = w->pre.text + w->pre.at[i].off;
        size_t n_word = w->pre.at[i].n_bytes;
        TRY(m->merges.pairs ? encode_ranks(t, w, word, n_word, ids, e)
                            : encode_scores(t, w, word, n_word, ids, e));
    }
    return APR_OK;
}

const struct apr_tok_kind apr_tok_spm = {
    .id = APR_VOCAB_SPM, .name = "SentencePiece BPE", .open = spm_open, .encode = spm_encode};

/* See tok.h: opening, encoding. What all kinds share. */
#include "tok.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "kind.h"
#include "utf8.h"

#define MAX_TEXT_BYTES ((size_t)1 << 30)

static bool is_model_token(const struct apr_vocab *v, uint32_t i)
{
    return !v->types || v->types[i] == APR_TOK_NORMAL || v->types[i] == APR_TOK_BYTE;
}

static bool is_padding(const struct apr_vocab *v, uint32_t i)
{
    char text[32];
    if (!v->types || v->types[i] != APR_TOK_UNUSED) return false;
    int n = snprintf(text, sizeof text, "[PAD%" PRIu32 "]", i);
    return v->toks[i].n_bytes == (size_t)n && memcmp(v->toks[i].p, text, (size_t)n) == 0;
}

/* Tokens of the model first, so that a merge finds them and not an added token of the same text. */
static enum apr_code fill_lookup(struct apr_tok *t, struct apr_err *e)
{
    const struct apr_vocab *v = t->v;
    TRY(apr_lookup_init(&t->by_text, v->toks, v->n_toks, &t->arena, e));
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < v->n_toks; i++) {
            if (v->toks[i].n_bytes == 0) continue;
            if (is_model_token(v, i) != (pass == 0) || is_padding(v, i)) continue;
            int32_t other = apr_lookup_put(&t->by_text, (int32_t)i);
            if (other < 0 || !v->hf || pass == 1)
                continue; /* GGUF files may repeat a text: the first counts */
            char shown[80];
            return apr_fail(e, APR_EFORMAT, "%s: tokens %" PRId32 " and %" PRIu32 " are both \"%s\"", t->file,
                            other, i, apr_escape(shown, sizeof shown, v->toks[i].p, v->toks[i].n_bytes));
        }
    }
    return APR_OK;
}

static enum apr_code open_in(struct apr_tok *t, struct apr_err *e)
{
    const struct apr_vocab *v = t->v;
    if (v->kind == APR_VOCAB_NONE || v->n_toks == 0)
        return apr_fail(e, APR_ELOAD, "%s: no tokenizer in it", t->file);
    t->kind = apr_tok_kind_of(v->kind);
    if (!t->kind)
        return apr_fail(e, APR_ELOAD, "%s: %s tokenizers cannot be run", t->file, apr_tok_kind_name(v->kind));
    if (v->n_toks > INT32_MAX) return apr_fail(e, APR_EFORMAT, "%s: %" PRIu32 " tokens", t->file, v->n_toks);
    TRY(fill_lookup(t, e));
    TRY(t->kind->open(t, e));
    return apr_tok_read_added(t, e);
}

enum apr_code apr_tok_open(struct apr_tok **out, const struct apr_vocab *v, const char *file,
                           struct apr_err *e)
{
    struct apr_arena arena;
    apr_arena_init(&arena);
    struct apr_tok *t = apr_arena_get(&arena, sizeof *t);
    t->v = v;
    t->file = apr_arena_strdup(&arena, file);
    t->arena = arena;
    enum apr_code code = open_in(t, e);
    if (code != APR_OK) {
        apr_tok_close(t);
        t = NULL;
    }
    *out = t;
    return code;
}

void apr_tok_close(struct apr_tok *t)
{
    if (!t) return;
    apr_pretok_close(&t->pre);
    apr_norm_close(&t->norm);
    struct apr_arena arena = t->arena; /* it holds t */
    apr_arena_free(&arena);
}

uint32_t apr_tok_n(const struct apr_tok *t)
{
    return t->v->n_toks;
}

int64_t apr_tok_find(const struct apr_tok *t, const char *text, size_t n_bytes)
{
    int32_t id = n_bytes > 0 ? apr_lookup_get(&t->by_text, text, n_bytes) : -1;
    return id < 0 ? APR_ID_NONE : id;
}

struct job { /* one apr_tok_encode */
    const struct apr_tok *t;
    struct apr_tok_work w;
    const uint8_t *text; /* all of it */
    bool with_special;
    bool at_start; /* what is normalized now begins the text */
    struct apr_ids *ids;
    struct apr_err *e;
};

/* Added tokens become ids, the text between them goes on to f. */
static enum apr_code between(struct job *j, const struct apr_added *added, const uint8_t *p, size_t n,
                             enum apr_code (*f)(struct job *j, const uint8_t *p, size_t n))
{
    size_t done = 0, at = 0;
    struct apr_added_hit hit;
    while (apr_added_next(added, p, n, done, &at, j->with_special, &hit)) {
        if (hit.start > done) TRY(f(j, p + done, hit.start - done));
        TRY(apr_ids_push(j->ids, hit.tok->id, j->e));
        done = hit.end;
    }
    return done < n ? f(j, p + done, n - done) : APR_OK;
}

static enum apr_code run_model(struct job *j, const uint8_t *p, size_t n)
{
    j->w.pre.at_start = j->at_start && p == j->w.norm.p;
    return j->t->kind->encode(j->t, &j->w, p, n, j->ids, j->e);
}

static enum apr_code normalize(struct job *j, const uint8_t *p, size_t n)
{
    j->at_start = p == j->text;
    TRY(apr_norm_run(&j->t->norm, &j->w.norm, p, n, j->e));
    return between(j, &j->t->added_norm, j->w.norm.p, j->w.norm.n, run_model);
}

static enum apr_code encode(struct job *j, const uint8_t *p, size_t n)
{
    if (apr_utf8_valid(p, n) != n) {
        TRY(apr_utf8_repair(p, n, &j->w.repaired, j->e));
        p = j->w.repaired.data;
        n = j->w.repaired.n_bytes;
    }
    j->text = p;
    return between(j, &j->t->added, p, n, normalize);
}

static enum apr_code push_all(struct apr_ids *ids, const int32_t *at, uint32_t n, struct apr_err *e)
{
    for (uint32_t i = 0; i < n; i++) TRY(apr_ids_push(ids, at[i], e));
    return APR_OK;
}

enum apr_code apr_tok_encode(const struct apr_tok *t, const char *text, size_t n_bytes, unsigned flags,
                             struct apr_ids *ids, struct apr_err *e)
{
    if (n_bytes > MAX_TEXT_BYTES)
        return apr_fail(e, APR_EFORMAT, "text of %zu bytes; at most %zu can be tokenized at once", n_bytes,
                        MAX_TEXT_BYTES);
    struct job j = {.t = t, .with_special = flags & APR_TOK_PARSE_SPECIAL, .ids = ids, .e = e};
    size_t n_before = ids->n;
    apr_buf_init(&j.w.repaired, 3 * MAX_TEXT_BYTES);
    apr_buf_init(&j.w.syms, SIZE_MAX);
    apr_buf_init(&j.w.links, SIZE_MAX);
    apr_buf_init(&j.w.heap, SIZE_MAX);
    apr_norm_work_init(&j.w.norm);
    enum apr_code code = apr_pretok_work_init(&j.w.pre, n_bytes, e);
    if (code == APR_OK) code = apr_memo_init(&j.w.memo, n_bytes, e);
    if (code == APR_OK && flags & APR_TOK_ADD_SPECIAL) code = push_all(ids, t->first, t->n_first, e);
    if (code == APR_OK && n_bytes > 0) code = encode(&j, (const uint8_t *)text, n_bytes);
    if (code == APR_OK && flags & APR_TOK_ADD_SPECIAL) code = push_all(ids, t->last, t->n_last, e);
    apr_pretok_work_free(&j.w.pre);
    apr_memo_free(&j.w.memo);
    apr_norm_work_free(&j.w.norm);
    apr_buf_free(&j.w.repaired);
    apr_buf_free(&j.w.syms);
    apr_buf_free(&j.w.links);
    apr_buf_free(&j.w.heap);
    if (code != APR_OK) ids->n = n_before;
    return code;
}

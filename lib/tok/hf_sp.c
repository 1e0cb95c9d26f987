/* SentencePiece models in a Hugging Face folder: alone, or beside tokenizer.json, which then has no scores.
 *
 * A model alone becomes what transformers makes of it: a tokenizer.json. Its merges are not written out; the
 * scores say the same.
 */
#include <inttypes.h>
#include <string.h>

#include "hf.h"
#include "lookup.h"
#include "pretok.h"
#include "sp_doc.h"

static enum apr_code load(struct apr_hf_job *j, struct apr_sp_model *sp, bool *found)
{
    static const char *const names[] = {"tokenizer.model", "spiece.model"};
    enum apr_code code = APR_OK;
    *found = false;
    for (size_t i = 0; i < sizeof names / sizeof *names && code == APR_OK && !*found; i++) {
        struct apr_buf text;
        apr_buf_init(&text, APR_SP_MAX_BYTES);
        code = apr_hf_text(j, names[i], &text, found);
        if (code == APR_OK && *found)
            code = apr_sp_read(sp, text.data, text.n_bytes, j->arena,
                               apr_arena_printf(j->arena, "%s/%s", j->dir, names[i]), j->e);
        apr_buf_free(&text);
    }
    return code;
}

/* ---- alone ---- */

static enum apr_code check(const struct apr_hf_job *j, const struct apr_sp_model *sp)
{
    bool known = sp->type == APR_SP_BPE || sp->type == APR_SP_UNIGRAM;
    if (known && sp->escape_spaces && !sp->space_as_suffix) return APR_OK;
    return apr_fail(j->e, APR_ELOAD, "%s: a SentencePiece model %s is not supported", j->dir,
                    !known ? "of words or characters" : "that writes blanks in another way");
}

enum apr_code apr_hf_sp_alone(struct apr_hf_job *j)
{
    struct apr_sp_model sp;
    bool found;
    TRY(load(j, &sp, &found));
    if (!found) return APR_OK;
    TRY(check(j, &sp));
    j->file = apr_arena_printf(j->arena, "%s/tokenizer.model", j->dir);
    TRY(apr_arena_try(j->arena, &j->parts.toks, sp.n_pieces, sizeof *j->parts.toks, "pieces", j->e));
    j->parts.n_toks = sp.n_pieces;
    for (uint32_t i = 0; i < sp.n_pieces; i++)
        j->parts.toks[i] = (struct apr_hf_tok){sp.pieces[i], i, (double)sp.scores[i]};
    j->v->kind = sp.type == APR_SP_BPE ? APR_VOCAB_SPM : APR_VOCAB_UGM;
    j->v->hf = apr_sp_document(&sp, j->arena);
    return j->v->hf ? APR_OK : apr_fail(j->e, APR_ELOAD, "%s: out of memory", j->dir);
}

/* ---- rows ---- */

/* Is it the piece, or how a user-defined one stands in a row: with real blanks? */
static bool same_text(struct apr_str row, struct apr_str piece)
{
    size_t i = 0, k = 0;
    while (i < row.n_bytes && k < piece.n_bytes) {
        bool bar = piece.n_bytes - k >= APR_BAR_BYTES && memcmp(piece.p + k, APR_BAR, APR_BAR_BYTES) == 0;
        if (bar && row.p[i] == ' ') {
            i++;
            k += APR_BAR_BYTES;
            continue;
        }
        if (row.p[i++] != piece.p[k++]) return false;
    }
    return i == row.n_bytes && k == piece.n_bytes;
}

static void take_pieces(struct apr_vocab *v, const struct apr_sp_model *sp)
{
    for (uint32_t i = 0; i < sp->n_pieces && i < v->n_toks; i++) {
        if (v->types[i] == APR_TOK_UNUSED || !same_text(v->toks[i], sp->pieces[i])) continue;
        bool added = v->types[i] == APR_TOK_CONTROL || v->types[i] == APR_TOK_USER;
        if (sp->types[i] != APR_TOK_NORMAL || !added) v->types[i] = sp->types[i];
        v->scores[i] = sp->scores[i];
    }
}

static void set_added(struct apr_vocab *v, json_int_t id, bool control)
{
    if (id < 0 || id >= (json_int_t)v->n_toks || v->types[id] == APR_TOK_UNUSED) return;
    v->types[id] = control ? APR_TOK_CONTROL : APR_TOK_USER;
    v->scores[id] = APR_HF_ADDED_SCORE;
}

/* What the folder's files add to the model: llama.cpp's converter reads them in this order. */
static enum apr_code take_added(struct apr_hf_job *j)
{
    json_t *added, *row;
    const char *key;
    TRY(apr_hf_json(j, "added_tokens.json", &added));
    json_object_foreach(added, key, row) if (json_is_integer(row))
        set_added(j->v, json_integer_value(row), false);
    json_decref(added);
    json_object_foreach(json_object_get(j->config, "added_tokens_decoder"), key, row)
    {
        const json_t *text = json_object_get(row, "content");
        int64_t id = apr_hf_id_of_key(key);
        bool control = json_is_true(json_object_get(row, "special")) ||
                       apr_hf_looks_special(json_string_value(text), json_string_length(text));
        if (json_is_string(text)) set_added(j->v, id, control);
    }
    return APR_OK;
}

/* The product of the first merge has the highest score, as SentencePiece numbers them; what no merge makes
 * comes behind. */
static enum apr_code take_merges(struct apr_hf_job *j)
{
    struct apr_vocab *v = j->v;
    struct apr_lookup by_text;
    struct apr_buf joined;
    enum apr_code code = APR_OK;
    TRY(apr_lookup_init(&by_text, v->toks, v->n_toks, j->arena, j->e));
    for (uint32_t i = 0; i < v->n_toks; i++) {
        v->scores[i] = v->types[i] == APR_TOK_NORMAL ? 0.0f - (float)v->n_merges
                       : v->types[i] == APR_TOK_BYTE ? 0.0f
                                                     : APR_HF_ADDED_SCORE;
        if (v->types[i] == APR_TOK_NORMAL && v->toks[i].n_bytes > 0) apr_lookup_put(&by_text, (int32_t)i);
    }
    apr_buf_init(&joined, SIZE_MAX);
    for (uint64_t i = v->n_merges; i-- > 0 && code == APR_OK;) {
        const struct apr_str *m = &v->merges[i];
        const char *space = m->n_bytes > 1 ? memchr(m->p + 1, ' ', m->n_bytes - 1) : NULL;
        if (!space) continue;
        joined.n_bytes = 0;
        code = apr_buf_append(&joined, m->p, (size_t)(space - m->p), j->e);
        if (code == APR_OK)
            code = apr_buf_append(&joined, space + 1, m->n_bytes - (size_t)(space - m->p) - 1, j->e);
        int32_t id =
            code == APR_OK ? apr_lookup_get(&by_text, (const char *)joined.data, joined.n_bytes) : -1;
        if (id >= 0) v->scores[id] = 0.0f - (float)i;
    }
    apr_buf_free(&joined);
    return code;
}

enum apr_code apr_hf_sp_rows(struct apr_hf_job *j)
{
    struct apr_vocab *v = j->v;
    struct apr_sp_model sp;
    bool found;
    TRY(load(j, &sp, &found));
    if (!found && v->kind == APR_VOCAB_SPM) TRY(take_merges(j));
    if (found) take_pieces(v, &sp);
    TRY(take_added(j));
    for (uint32_t i = 0; i < v->n_toks; i++) {
        if (v->types[i] == APR_TOK_UNUSED && v->scores[i] >= 0) v->scores[i] = APR_HF_NO_SCORE;
        if (v->types[i] != APR_TOK_UNUSED && v->scores[i] <= APR_HF_NO_SCORE)
            v->scores[i] = APR_HF_ADDED_SCORE;
    }
    return APR_OK;
}

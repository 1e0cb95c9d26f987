/* Ids back to text: see apr_tok_piece and apr_tok_decode in tok.h. */
#include <inttypes.h>

#include "kind.h"
#include "utf8.h"

static enum apr_code check_id(const struct apr_tok *t, int32_t id, struct apr_err *e)
{
    if (id >= 0 && (uint32_t)id < t->v->n_toks) return APR_OK;
    return apr_fail(e, APR_EFORMAT, "%s: token id %" PRId32 " is outside the vocabulary (0..%" PRIu32 ")",
                    t->file, id, t->v->n_toks - 1);
}

static bool is_hidden(const struct apr_vocab *v, int32_t id, bool with_special)
{
    if (with_special || !v->types) return false;
    return v->types[id] == APR_TOK_CONTROL || v->types[id] == APR_TOK_UNKNOWN;
}

enum apr_code apr_tok_piece(const struct apr_tok *t, int32_t id, bool with_special, struct apr_buf *out,
                            struct apr_err *e)
{
    TRY(check_id(t, id, e));
    if (is_hidden(t->v, id, with_special)) return APR_OK;
    return apr_buf_append(out, t->raw[id].p, t->raw[id].n_bytes, e);
}

/* The bytes of a run of byte tokens from off on: as they are, or one U+FFFD each. */
static enum apr_code end_bytes(const struct apr_tok *t, struct apr_buf *out, size_t off, struct apr_err *e)
{
    size_t n = out->n_bytes - off;
    if (!t->whole_bytes || n == 0 || apr_utf8_valid(out->data + off, n) == n) return APR_OK;
    out->n_bytes = off;
    for (size_t i = 0; i < n; i++) TRY(apr_buf_append(out, APR_UTF8_REPLACEMENT, 3, e));
    return APR_OK;
}

static enum apr_code put_pieces(const struct apr_tok *t, const int32_t *ids, size_t n, bool with_special,
                                struct apr_buf *out, struct apr_err *e)
{
    const struct apr_vocab *v = t->v;
    size_t off_bytes = SIZE_MAX;
    bool first = true;
    for (size_t i = 0; i < n; i++) {
        TRY(check_id(t, ids[i], e));
        if (is_hidden(v, ids[i], with_special)) continue;
        bool byte = v->types && v->types[ids[i]] == APR_TOK_BYTE;
        if (byte && off_bytes == SIZE_MAX) off_bytes = out->n_bytes;
        if (!byte && off_bytes != SIZE_MAX) {
            TRY(end_bytes(t, out, off_bytes, e));
            off_bytes = SIZE_MAX;
        }
        const struct apr_str *s = first && t->raw_first ? &t->raw_first[ids[i]] : &t->raw[ids[i]];
        TRY(apr_buf_append(out, s->p, s->n_bytes, e));
        first = false;
    }
    return off_bytes != SIZE_MAX ? end_bytes(t, out, off_bytes, e) : APR_OK;
}

enum apr_code apr_tok_decode(const struct apr_tok *t, const int32_t *ids, size_t n, bool with_special,
                             struct apr_buf *out, struct apr_err *e)
{
    struct apr_buf bytes;
    apr_buf_init(&bytes, out->max_bytes);
    enum apr_code code = put_pieces(t, ids, n, with_special, &bytes, e);
    size_t n_drop = 0;
    while (n_drop < t->n_drops_blank && n_drop < bytes.n_bytes && bytes.data[n_drop] == ' ') n_drop++;
    if (code == APR_OK && bytes.n_bytes > n_drop)
        code = apr_utf8_repair(bytes.data + n_drop, bytes.n_bytes - n_drop, out, e);
    apr_buf_free(&bytes);
    return code;
}

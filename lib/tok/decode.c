/* Ids back to text: see apr_tok_piece and apr_tok_decode in tok.h. */
#include <inttypes.h>

#include "kind.h"
#include "utf8.h"

enum apr_code apr_tok_piece(const struct apr_tok *t, int32_t id, bool with_special, struct apr_buf *out,
                            struct apr_err *e)
{
    const struct apr_vocab *v = t->v;
    if (id < 0 || (uint32_t)id >= v->n_toks)
        return apr_fail(e, APR_EFORMAT, "%s: token id %" PRId32 " is outside the vocabulary (0..%" PRIu32 ")",
                        t->file, id, v->n_toks - 1);
    if (!with_special && v->types && v->types[id] == APR_TOK_CONTROL) return APR_OK;
    return apr_buf_append(out, t->raw[id].p, t->raw[id].n_bytes, e);
}

enum apr_code apr_tok_decode(const struct apr_tok *t, const int32_t *ids, size_t n, bool with_special,
                             struct apr_buf *out, struct apr_err *e)
{
    struct apr_buf bytes;
    apr_buf_init(&bytes, out->max_bytes);
    enum apr_code code = APR_OK;
    for (size_t i = 0; i < n && code == APR_OK; i++) code = apr_tok_piece(t, ids[i], with_special, &bytes, e);
    size_t n_drop = t->drops_blank && bytes.n_bytes > 0 && bytes.data[0] == ' ';
    if (code == APR_OK && bytes.n_bytes > 0)
        code = apr_utf8_repair(bytes.data + n_drop, bytes.n_bytes - n_drop, out, e);
    apr_buf_free(&bytes);
    return code;
}

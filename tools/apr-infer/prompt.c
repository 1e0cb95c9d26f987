/* Reading prompts. */
#include "prompt.h"

#include <string.h>

#include "io.h"

static enum apr_code read_stdin(const struct apr_prompt_from *from, struct apr_buf *b, struct apr_err *e)
{
    if (from->model && !strcmp(from->model, "-"))
        return apr_fail(e, APR_EUSAGE, "model and prompt cannot both come from standard input");
    struct apr_src *src;
    TRY(apr_src_open(&src, "-", e));
    enum apr_code code = APR_OK;
    for (size_t n_got = 1; code == APR_OK && n_got;) {
        uint8_t *at;
        code = apr_buf_reserve(b, 65536, &at, e);
        if (code == APR_OK) code = apr_src_read_some(src, at, 65536, &n_got, e);
        if (code == APR_OK) apr_buf_commit(b, n_got);
    }
    apr_src_close(src);
    return code;
}

enum apr_code apr_prompt_read(const struct apr_prompt_from *from, struct apr_buf *b, struct apr_err *e)
{
    int n_given = (from->operand != NULL) + (from->text != NULL) + (from->file != NULL);
    if (n_given == 0)
        return apr_fail(e, APR_EUSAGE,
                        "no prompt: give PROMPT, --prompt TEXT, a file, or - for standard input");
    if (n_given > 1) return apr_fail(e, APR_EUSAGE, "more than one prompt was given");
    if (from->text) return apr_buf_append(b, from->text, strlen(from->text), e);
    const char *file = from->file ? from->file : from->operand;
    if (!strcmp(file, "-")) return read_stdin(from, b, e);
    if (from->file) return apr_read_file(from->file, APR_MAX_PROMPT_BYTES, b, e);
    return apr_buf_append(b, from->operand, strlen(from->operand), e);
}

enum apr_code apr_prompt_encode(const struct apr_tok *tok, const struct apr_vocab *v, const char *text,
                                size_t n_bytes, struct apr_ids *ids, struct apr_err *e)
{
    TRY(apr_tok_encode(tok, text, n_bytes, APR_TOK_PARSE_SPECIAL | APR_TOK_ADD_SPECIAL, ids, e));
    if (ids->n >= 2 && v->bos_id >= 0 && ids->at[0] == v->bos_id && ids->at[1] == v->bos_id) {
        memmove(ids->at, ids->at + 1, (ids->n - 1) * sizeof *ids->at);
        ids->n--;
    }
    return APR_OK;
}

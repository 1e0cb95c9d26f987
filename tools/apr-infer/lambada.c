/* Last words of passages. */
#include "lambada.h"

#include <inttypes.h>
#include <string.h>

#include "json.h"

#define MAX_LINE_BYTES ((size_t)1 << 20)

struct passage {
    struct apr_ids ids; /* owned: context and target */
    size_t n_context;   /* tokens */
};

struct judge {
    const struct apr_session *s;
    const struct passage *p;
    double nll;
    bool is_right;
};

/* Logits after tokens i_tok ..: those after the context's last token and beyond predict the target. */
static enum apr_code take_rows(void *ctx, size_t i_tok, size_t n_rows, const float *logits, struct apr_err *e)
{
    struct judge *j = ctx;
    size_t n_vocab = j->s->model->config.n_vocab;
    (void)e;
    for (size_t r = 0; r < n_rows; r++, logits += n_vocab) {
        size_t i_next = i_tok + r + 1, i_max;
        if (i_next < j->p->n_context || i_next >= j->p->ids.n) continue;
        j->nll += apr_nll_of(j->s->kern, logits, n_vocab, j->p->ids.at[i_next]);
        (void)j->s->kern->max(logits, n_vocab, &i_max);
        if (i_max != (size_t)j->p->ids.at[i_next]) j->is_right = false;
    }
    return APR_OK;
}

/* Tokens of the whole passage; those of the context alone tell where the target begins. */
static enum apr_code passage_tokens(struct passage *p, const struct apr_tok *tok, const char *text,
                                    struct apr_err *e)
{
    const char *end = text + strlen(text);
    while (end > text && end[-1] == ' ') end--;
    const char *space = memrchr(text, ' ', (size_t)(end - text));
    if (!space || space == text)
        return apr_fail(e, APR_EFORMAT, "a last word after a context is expected, found \"%.40s\"", text);
    TRY(apr_tok_encode(tok, text, (size_t)(space - text), APR_TOK_ADD_SPECIAL, &p->ids, e));
    p->n_context = p->ids.n;
    p->ids.n = 0;
    TRY(apr_tok_encode(tok, text, (size_t)(end - text), APR_TOK_ADD_SPECIAL, &p->ids, e));
    if (!p->n_context || p->n_context >= p->ids.n)
        return apr_fail(e, APR_EFORMAT, "the last word has no tokens of its own in \"%.40s\"", text);
    return APR_OK;
}

static enum apr_code one_text(struct apr_lambada *l, struct apr_session *s, const char *text,
                              struct apr_err *e)
{
    struct passage p = {0};
    struct judge j = {.s = s, .p = &p, .is_right = true};
    enum apr_code code = passage_tokens(&p, s->tok, text, e);
    if (code == APR_OK) code = apr_session_fits(s, p.ids.n, 0, e);
    if (code == APR_OK) {
        apr_cache_truncate(&s->cache, 0);
        code = apr_forward_all_logits(&s->fwd, &s->cache, p.ids.at, p.ids.n, take_rows, &j, e);
    }
    if (code == APR_OK) {
        l->passages.sum += j.nll;
        l->passages.sum_sq += j.nll * j.nll;
        l->passages.n++;
        l->n_right += j.is_right;
        l->n_target_toks += p.ids.n - p.n_context;
        l->n_toks += p.ids.n;
    }
    apr_ids_free(&p.ids);
    return code;
}

static enum apr_code one_line(struct apr_lambada *l, struct apr_session *s, const char *line, size_t n_bytes,
                              const char *file, struct apr_err *e)
{
    json_t *doc = NULL;
    const char *text = NULL;
    if (n_bytes > MAX_LINE_BYTES) return apr_fail(e, APR_EFORMAT, "the line has %zu bytes", n_bytes);
    TRY(apr_json_parse(line, n_bytes, file, &doc, e));
    if (json_is_object(doc)) text = json_string_value(json_object_get(doc, "text"));
    enum apr_code code;
    if (text)
        code = one_text(l, s, text, e);
    else
        code = apr_fail(e, APR_EFORMAT, "expected an object with a string \"text\"");
    json_decref(doc);
    return code;
}

enum apr_code apr_lambada_run(struct apr_lambada *l, struct apr_session *s, const char *text, size_t n_bytes,
                              const char *file, uint64_t n_most, struct apr_err *e)
{
    const struct apr_tok *tok;
    int64_t ns_start = apr_now_ns();
    TRY(apr_session_tok(s, &tok, e));
    uint64_t i_line = 1;
    for (const char *p = text, *end = text + n_bytes; p < end && (!n_most || l->passages.n < n_most);
         i_line++) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        size_t n = stop ? (size_t)(stop - p) : (size_t)(end - p);
        if (n && strspn(p, " \t\r") < n) {
            enum apr_code code = one_line(l, s, p, n, file, e);
            if (code != APR_OK) {
                apr_err_prefix(e, "%s: line %" PRIu64, file, i_line);
                return code;
            }
        }
        p += n + 1;
    }
    l->compute_s = (double)(apr_now_ns() - ns_start) * 1e-9;
    return l->passages.n ? APR_OK : apr_fail(e, APR_EFORMAT, "%s: no passages", file);
}

/* Lines of results: written, and read again to resume. */
#include "batch_result.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "hash.h"

#define ID_PREFIX "batch_req_"

/* ---- parts -------------------------------------------------------------------------------------------- */

static enum apr_code put_text(struct apr_buf *b, const char *key, const void *p, size_t n, struct apr_err *e)
{
    TRY(apr_buf_printf(b, e, "\"%s\":", key));
    return apr_json_put_str(b, p ? p : "", n, e);
}

static enum apr_code put_id(struct apr_buf *b, const char *key, const json_t *id, struct apr_err *e)
{
    if (json_is_string(id)) return put_text(b, key, json_string_value(id), json_string_length(id), e);
    if (id) return apr_buf_printf(b, e, "\"%s\":%" JSON_INTEGER_FORMAT, key, json_integer_value(id));
    return apr_buf_printf(b, e, "\"%s\":null", key);
}

static enum apr_code put_usage(const struct apr_result *a, struct apr_buf *b, struct apr_err *e)
{
    size_t n_prompt = a->seat->ids.n, n_reply = a->seat->reply.ids.n;
    return apr_buf_printf(b, e,
                          "\"usage\":{\"prompt_tokens\":%zu,\"completion_tokens\":%zu,\"total_tokens\":%zu}",
                          n_prompt, n_reply, n_prompt + n_reply);
}

static enum apr_code put_seconds(struct apr_buf *b, const char *key, double s, struct apr_err *e)
{
    TRY(apr_buf_printf(b, e, "\"%s\":", key));
    return apr_json_put_f64(b, s, e);
}

static enum apr_code put_times(const struct apr_result *a, struct apr_buf *b, struct apr_err *e)
{
    if (!a->with_times) return APR_OK;
    TRY(apr_buf_printf(b, e, ",\"timings\":{"));
    TRY(put_seconds(b, "prompt_s", a->seat->reply.prompt_s, e));
    TRY(apr_buf_append(b, ",", 1, e));
    TRY(put_seconds(b, "decode_s", a->seat->reply.decode_s, e));
    return apr_buf_append(b, "}", 1, e);
}

/* ---- log-probabilities -------------------------------------------------------------------------------- */

static enum apr_code piece_of(const struct apr_result *a, int32_t id, struct apr_buf *piece,
                              struct apr_err *e)
{
    piece->n_bytes = 0;
    return a->tok ? apr_tok_piece(a->tok, id, true, piece, e) : APR_OK;
}

/* {"token", "id", "logprob", "bytes"}, without the last brace. */
static enum apr_code put_logprob(const struct apr_result *a, const struct apr_logprob *p, struct apr_buf *b,
                                 struct apr_buf *piece, struct apr_err *e)
{
    TRY(piece_of(a, p->id, piece, e));
    TRY(apr_buf_append(b, "{", 1, e));
    TRY(put_text(b, "token", piece->data, piece->n_bytes, e));
    if (a->request->form == APR_FORM_OWN) TRY(apr_buf_printf(b, e, ",\"id\":%" PRId32, p->id));
    TRY(apr_buf_append(b, ",", 1, e));
    TRY(put_seconds(b, "logprob", p->v, e));
    if (a->request->form == APR_FORM_OWN) return APR_OK;
    TRY(apr_buf_append(b, ",\"bytes\":[", 10, e));
    for (size_t i = 0; i < piece->n_bytes; i++)
        TRY(apr_buf_printf(b, e, "%s%u", i ? "," : "", piece->data[i]));
    return apr_buf_append(b, "]", 1, e);
}

/* [{token..., "top_logprobs": [...]}, ...] */
static enum apr_code put_logprob_list(const struct apr_result *a, struct apr_buf *b, struct apr_buf *piece,
                                      struct apr_err *e)
{
    const struct apr_logprobs *l = &a->seat->logprobs;
    TRY(apr_buf_append(b, "[", 1, e));
    for (size_t i = 0; i < l->n_toks; i++) {
        const struct apr_logprob *row = apr_logprobs_at(l, i);
        if (i) TRY(apr_buf_append(b, ",", 1, e));
        TRY(put_logprob(a, row, b, piece, e));
        TRY(apr_buf_append(b, ",\"top_logprobs\":[", 17, e));
        for (size_t k = 1; k <= l->n_top && row[k].id >= 0; k++) {
            if (k > 1) TRY(apr_buf_append(b, ",", 1, e));
            TRY(put_logprob(a, &row[k], b, piece, e));
            TRY(apr_buf_append(b, "}", 1, e));
        }
        TRY(apr_buf_append(b, "]}", 2, e));
    }
    return apr_buf_append(b, "]", 1, e);
}

/* {text: logprob}; of two tokens with the same text the second is named by its id, as vLLM has it. */
static enum apr_code put_logprob_object(const struct apr_result *a, const struct apr_logprob *top, size_t n,
                                        struct apr_buf *b, struct apr_buf *piece, struct apr_err *e)
{
    TRY(apr_buf_append(b, "{", 1, e));
    size_t off_object = b->n_bytes;
    for (size_t k = 0; k < n && top[k].id >= 0; k++) {
        TRY(piece_of(a, top[k].id, piece, e));
        if (k) TRY(apr_buf_append(b, ",", 1, e));
        size_t off_key = b->n_bytes;
        TRY(apr_json_put_str(b, piece->data ? (const char *)piece->data : "", piece->n_bytes, e));
        TRY(apr_buf_append(b, ":", 1, e));
        if (memmem(b->data + off_object, off_key - off_object, b->data + off_key, b->n_bytes - off_key)) {
            b->n_bytes = off_key;
            TRY(apr_buf_printf(b, e, "\"token_id:%" PRId32 "\":", top[k].id));
        }
        TRY(apr_json_put_f64(b, top[k].v, e));
    }
    return apr_buf_append(b, "}", 1, e);
}

/* The completions API of old: {"tokens", "token_logprobs", "top_logprobs": [{text: logprob}]}. */
static enum apr_code put_logprob_columns(const struct apr_result *a, struct apr_buf *b, struct apr_buf *piece,
                                         struct apr_err *e)
{
    const struct apr_logprobs *l = &a->seat->logprobs;
    TRY(apr_buf_append(b, "{\"tokens\":[", 11, e));
    for (size_t i = 0; i < l->n_toks; i++) {
        TRY(piece_of(a, apr_logprobs_at(l, i)->id, piece, e));
        if (i) TRY(apr_buf_append(b, ",", 1, e));
        TRY(apr_json_put_str(b, piece->data ? (const char *)piece->data : "", piece->n_bytes, e));
    }
    TRY(apr_buf_append(b, "],\"token_logprobs\":[", 20, e));
    for (size_t i = 0; i < l->n_toks; i++) {
        if (i) TRY(apr_buf_append(b, ",", 1, e));
        TRY(apr_json_put_f64(b, apr_logprobs_at(l, i)->v, e));
    }
    TRY(apr_buf_append(b, "],\"top_logprobs\":[", 18, e));
    for (size_t i = 0; i < l->n_toks; i++) {
        if (i) TRY(apr_buf_append(b, ",", 1, e));
        TRY(put_logprob_object(a, apr_logprobs_at(l, i) + 1, l->n_top, b, piece, e));
    }
    return apr_buf_append(b, "]}", 2, e);
}

static enum apr_code put_logprobs(const struct apr_result *a, struct apr_buf *b, struct apr_err *e)
{
    struct apr_buf piece;
    enum apr_code code;
    if (!a->seat->has_logprobs)
        return a->request->form == APR_FORM_OWN ? APR_OK : apr_buf_printf(b, e, "\"logprobs\":null,");
    apr_buf_init(&piece, 1 << 20);
    code = apr_buf_printf(b, e,
                          a->request->form == APR_FORM_CHAT ? "\"logprobs\":{\"content\":" : "\"logprobs\":");
    if (code == APR_OK)
        code = a->request->form == APR_FORM_COMPLETION ? put_logprob_columns(a, b, &piece, e)
                                                       : put_logprob_list(a, b, &piece, e);
    if (code == APR_OK) code = apr_buf_printf(b, e, a->request->form == APR_FORM_CHAT ? "}," : ",");
    apr_buf_free(&piece);
    return code;
}

/* ---- lines -------------------------------------------------------------------------------------------- */

static enum apr_code put_own(const struct apr_result *a, struct apr_buf *b, struct apr_err *e)
{
    TRY(apr_buf_printf(b, e, "{\"index\":%" PRIu64 ",", a->i_line));
    if (a->request->id) {
        TRY(put_id(b, "id", a->request->id, e));
        TRY(apr_buf_append(b, ",", 1, e));
    }
    if (a->code != APR_OK) {
        TRY(apr_buf_printf(b, e, "\"error\":{\"code\":%d,", (int)a->code));
        TRY(put_text(b, "message", a->err->text, strlen(a->err->text), e));
        return apr_buf_append(b, "}}\n", 3, e);
    }
    const struct apr_reply *r = &a->seat->reply;
    TRY(put_text(b, "text", r->text.data, r->text.n_bytes, e));
    if (a->with_tokens) {
        TRY(apr_buf_append(b, ",\"tokens\":[", 11, e));
        for (size_t i = 0; i < r->ids.n; i++)
            TRY(apr_buf_printf(b, e, "%s%" PRId32, i ? "," : "", r->ids.at[i]));
        TRY(apr_buf_append(b, "]", 1, e));
    }
    TRY(apr_buf_printf(b, e, ",\"finish_reason\":\"%s\",", r->finish));
    TRY(put_logprobs(a, b, e));
    TRY(put_usage(a, b, e));
    TRY(put_times(a, b, e));
    return apr_buf_append(b, "}\n", 2, e);
}

/* The body of an answer: chat.completion, text_completion. */
static enum apr_code put_body(const struct apr_result *a, struct apr_buf *b, struct apr_err *e)
{
    const struct apr_reply *r = &a->seat->reply;
    bool is_chat = a->request->form == APR_FORM_CHAT;
    const char *model = a->request->model ? a->request->model : a->model;
    TRY(apr_buf_printf(b, e, "{\"id\":\"%s-%" PRIu64 "\",\"object\":\"%s\",\"created\":%" PRId64 ",",
                       is_chat ? "chatcmpl" : "cmpl", a->i_line,
                       is_chat ? "chat.completion" : "text_completion",
                       a->with_times ? (int64_t)time(NULL) : 0));
    TRY(put_text(b, "model", model, strlen(model), e));
    TRY(apr_buf_printf(b, e, ",\"choices\":[{\"index\":0,%s",
                       is_chat ? "\"message\":{\"role\":\"assistant\"," : ""));
    TRY(put_text(b, is_chat ? "content" : "text", r->text.data, r->text.n_bytes, e));
    TRY(apr_buf_printf(b, e, "%s,", is_chat ? "}" : ""));
    TRY(put_logprobs(a, b, e));
    TRY(apr_buf_printf(b, e, "\"finish_reason\":\"%s\"}],", r->finish));
    TRY(put_usage(a, b, e));
    TRY(put_times(a, b, e));
    return apr_buf_append(b, "}", 1, e);
}

static enum apr_code put_openai(const struct apr_result *a, struct apr_buf *b, struct apr_err *e)
{
    bool is_ours = a->code != APR_OK && a->code != APR_EUSAGE && a->code != APR_EFORMAT;
    int status = a->code == APR_OK ? 200 : is_ours ? 500 : 400;
    TRY(apr_buf_printf(b, e, "{\"id\":\"" ID_PREFIX "%" PRIu64 "\",", a->i_line));
    TRY(put_id(b, "custom_id", a->request->id, e));
    TRY(apr_buf_printf(b, e, ",\"response\":{\"status_code\":%d,\"request_id\":\"req_%" PRIu64 "\",\"body\":",
                       status, a->i_line));
    if (a->code == APR_OK) {
        TRY(put_body(a, b, e));
    } else {
        TRY(apr_buf_printf(b, e, "{\"error\":{"));
        TRY(put_text(b, "message", a->err->text, strlen(a->err->text), e));
        TRY(apr_buf_printf(b, e, ",\"type\":\"%s\",\"param\":null,\"code\":%d}}",
                           is_ours ? "server_error" : "invalid_request_error", (int)a->code));
    }
    return apr_buf_printf(b, e, "},\"error\":null}\n");
}

enum apr_code apr_result_put(const struct apr_result *a, struct apr_buf *b, struct apr_err *e)
{
    return a->request->form == APR_FORM_OWN ? put_own(a, b, e) : put_openai(a, b, e);
}

/* ---- reading ------------------------------------------------------------------------------------------ */

uint64_t apr_request_id_hash(const json_t *id)
{
    json_int_t v = json_integer_value(id);
    if (!id || json_is_null(id)) return 0;
    uint64_t hash = json_is_string(id) ? apr_hash_key(json_string_value(id), json_string_length(id))
                                       : ~apr_hash_key(&v, sizeof v);
    return hash ? hash : 1;
}

static bool read_own(const json_t *line, struct apr_result_key *key)
{
    const json_t *index = json_object_get(line, "index");
    if (!json_is_integer(index) || json_integer_value(index) < 0) return false;
    *key = (struct apr_result_key){(uint64_t)json_integer_value(index),
                                   apr_request_id_hash(json_object_get(line, "id")),
                                   json_object_get(line, "error") != NULL};
    return key->failed || json_is_string(json_object_get(line, "text"));
}

static bool read_openai(const json_t *line, struct apr_result_key *key)
{
    const char *id = json_string_value(json_object_get(line, "id"));
    const json_t *status = json_object_get(json_object_get(line, "response"), "status_code");
    const size_t n_prefix = sizeof ID_PREFIX - 1;
    char *end = NULL;
    if (!id || !json_is_integer(status)) return false;
    if (strncmp(id, ID_PREFIX, n_prefix) != 0 || !isdigit((unsigned char)id[n_prefix])) return false;
    key->i_line = strtoull(id + n_prefix, &end, 10);
    if (*end) return false;
    key->id_hash = apr_request_id_hash(json_object_get(line, "custom_id"));
    key->failed = json_integer_value(status) != 200;
    return true;
}

bool apr_result_read(const char *text, size_t n_bytes, struct apr_result_key *key)
{
    struct apr_err e;
    json_t *line;
    *key = (struct apr_result_key){0};
    if (apr_json_parse(text, n_bytes, "results", &line, &e) != APR_OK) return false;
    bool is_result = json_object_get(line, "response") ? read_openai(line, key) : read_own(line, key);
    json_decref(line);
    return is_result;
}

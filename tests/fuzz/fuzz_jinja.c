/* Fuzz target: the input is a chat template, rendered for a fixed conversation. The text comes whole in
 * pieces, an error is one line, and no byte of the conversation passes for the template's own.
 *
 *     make build/fuzz/fuzz_jinja && build/fuzz/fuzz_jinja -max_len=2048 CORPUS
 */
#include <stdlib.h>
#include <string.h>

#include "jinja/jinja.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Every text of the conversation has a byte that no template without a backslash can write: U+0002. */
static const char conversation[] =
    "{\"messages\": [{\"role\": \"user\\u0002\", \"content\": \"H\\u00e9 \\u0002<x> \\u0002\", \"n\": 3},"
    "{\"role\": \"assistant\\u0002\", \"content\": [{\"type\": \"\\u0002text\"}], \"f\": 1.5}],"
    "\"tools\": [{\"\\u0002a\": {\"b\": [1, null, true]}}], \"add_generation_prompt\": true, \"bos_token\": "
    "\"<s>\"}";

struct seen {
    struct apr_buf whole;
    bool control_in_text;
};

static enum apr_code take(void *ctx, const char *p, size_t n, bool from_data, struct apr_err *e)
{
    struct seen *s = ctx;
    if (!n) abort();
    if (!from_data && memchr(p, 2, n)) s->control_in_text = true;
    return apr_buf_append(&s->whole, p, n, e);
}

static void render(const struct apr_jinja *t, const json_t *context, bool can_write_control)
{
    struct apr_err e = {0};
    struct apr_buf out;
    struct seen s = {.control_in_text = false};
    struct apr_jinja_opts opts = {
        .max_steps = 20000, .max_out_bytes = 1u << 16, .now_s = 1770724800, .piece = take, .piece_ctx = &s};
    apr_buf_init(&out, 1u << 20);
    apr_buf_init(&s.whole, 1u << 20);
    enum apr_code code = apr_jinja_render(t, context, &opts, &out, &e);
    if (code != APR_OK && code != APR_ECONTRACT) abort();
    if (code != APR_OK && (strpbrk(e.text, "\n\x1b") || out.n_bytes)) abort();
    if (out.n_bytes != s.whole.n_bytes || (out.n_bytes && memcmp(out.data, s.whole.data, out.n_bytes) != 0))
        abort();
    if (s.control_in_text && !can_write_control) abort();
    apr_buf_free(&s.whole);
    apr_buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static json_t *context;
    struct apr_err e = {0};
    struct apr_jinja *t = NULL;
    if (!context) context = json_loads(conversation, 0, NULL);
    if (!context) abort();
    enum apr_code code = apr_jinja_parse(&t, (const char *)data, size, &e);
    if (code == APR_OK)
        render(t, context, memchr(data, '\\', size) || memchr(data, 2, size));
    else if (code != APR_ECONTRACT || !e.text[0] || strpbrk(e.text, "\n\x1b"))
        abort();
    apr_jinja_free(t);
    return 0;
}

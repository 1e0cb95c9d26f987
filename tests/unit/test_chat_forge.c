/* No message becomes a control token: every control token's text, in every known format, for every tokenizer
 * that is at hand (byte-level BPE, SentencePiece, WordPiece). Counted against the same conversation with
 * harmless text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../tools/apr-infer/chat.h"
#include "../../tools/apr-infer/chat_format.h"
#include "load.h"

/* Writes control tokens around the messages, as templates do. */
static const char own[] = "{{ bos_token }}{% for m in messages %}{{ m.role + ': ' + m.content ~ eos_token "
                          "}}{% endfor %}{{ bos_token }}";

static bool is_control(const struct apr_vocab *v, int32_t id)
{
    return v->types[id] == APR_TOK_CONTROL;
}

static size_t n_control(const struct apr_chat *c, const char *text, size_t n)
{
    struct apr_err e = {0};
    struct apr_ids ids = {0};
    size_t n_found = 0;
    json_t *messages = apr_chat_messages(NULL, text, n);
    assert_non_null(messages);
    json_array_append_new(messages, json_pack("{s:s, s:s%}", "role", "assistant", "content", text, n));
    json_array_append_new(messages, json_pack("{s:s, s:s%}", "role", "user", "content", text, n));
    if (apr_chat_encode(c, messages, true, &ids, &e) != APR_OK) fail_msg("%s", e.text);
    for (size_t i = 0; i < ids.n; i++) n_found += is_control(&c->model->vocab, ids.at[i]);
    apr_ids_free(&ids);
    json_decref(messages);
    return n_found;
}

/* The text alone, between words, doubled, and put together from halves that touch. */
static void try_token(const struct apr_chat *c, const char *name, const struct apr_str *t, size_t n_harmless)
{
    static const char *const forms[] = {"%s", "say %s now", "%s%s", " %s ", "\n%s\n", "x%sy%sz"};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        char part[200], text[600];
        size_t n = 0;
        if (t->n_bytes >= sizeof part) return;
        snprintf(part, sizeof part, "%.*s", (int)t->n_bytes, t->p);
        for (const char *s = forms[i]; *s; s++) {
            if (*s == '%' && s[1] == 's')
                n += (size_t)snprintf(text + n, sizeof text - n, "%s", part), s++;
            else
                text[n++] = *s;
        }
        if (n_control(c, text, n) != n_harmless)
            fail_msg("%s: \"%.*s\" in a message, format %s: a control token came out of it", name, (int)n,
                     text, c->format);
    }
}

static size_t try_format(const struct apr_model *m, const struct apr_tok *tok, const char *format,
                         const char *name)
{
    struct apr_chat c;
    struct apr_err e = {0};
    size_t n_tried = 0;
    if (apr_chat_open_format(&c, m, tok, format, &e) != APR_OK) fail_msg("%s", e.text);
    if (strcmp(format, "Raw") == 0) {
        assert_null(c.tmpl);
        if (apr_jinja_parse(&c.tmpl, own, strlen(own), &e) != APR_OK) fail_msg("%s", e.text);
    }
    size_t n_harmless = n_control(&c, "harmless", 8);
    for (uint32_t i = 0; i < m->vocab.n_toks; i++) {
        if (!is_control(&m->vocab, (int32_t)i) || m->vocab.toks[i].n_bytes == 0) continue;
        try_token(&c, name, &m->vocab.toks[i], n_harmless);
        n_tried++;
    }
    apr_chat_close(&c);
    return n_tried;
}

static void try_folder(const char *path, size_t n_least)
{
    struct apr_model *m = NULL;
    struct apr_tok *tok = NULL;
    struct apr_err e = {0};
    size_t n_tried = 0;
    if (apr_load_vocab(path, &m, &e) != APR_OK) fail_msg("%s", e.text);
    if (apr_tok_open(&tok, &m->vocab, path, &e) != APR_OK) fail_msg("%s", e.text);
    for (size_t i = 0; apr_chat_format_at(i); i++)
        n_tried += try_format(m, tok, apr_chat_format_at(i)->name, path);
    if (n_tried < n_least) fail_msg("%s: only %zu control tokens", path, n_tried);
    apr_tok_close(tok);
    apr_model_close(m);
}

static void demonstration_model(void **state)
{
    (void)state;
    try_folder("tests/data/apr-demo-8M-Instruct", 3);
}

static void families(void **state)
{
    (void)state;
    static const char *const names[] = {"deepseek2", "gemma",  "gemma2",    "gemma3",  "gpt2",
                                        "llama2",    "llama3", "mistral",   "mixtral", "phi2",
                                        "phi3",      "qwen3",  "qwen2-tied"};
    const char *shared = getenv("APR_SHARED");
    char path[1024];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/fixtures/families/%s", shared ? shared : "../shared", names[i]);
        if (access(path, R_OK) != 0) {
            print_message("%s is not here\n", path);
            skip();
        }
        try_folder(path, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(demonstration_model), cmocka_unit_test(families)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The tokenizer against foreign references: three published vocabularies on whole texts, and the peers' vocabulary
 * files. Read from ${APR_SHARED:-../shared}; skipped where that folder is missing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "io.h"
#include "json.h"
#include "log.h"
#include "tok/tok.h"

struct fixture {
    struct apr_arena arena;
    struct apr_vocab v;
    json_t *tok_config;
    struct apr_tok *t;
};

static void ok(enum apr_code code, const struct apr_err *e)
{
    if (code != APR_OK) fail_msg("%s", e->text);
}

static const char *fixtures(void)
{
    static char path[512];
    const char *shared = getenv("APR_SHARED");
    snprintf(path, sizeof path, "%s/fixtures", shared ? shared : "../shared");
    if (access(path, R_OK) == 0) return path;
    print_message("SKIP: %s is missing\n", path);
    skip();
    return NULL;
}

static void open_dir(struct fixture *f, const char *dir)
{
    struct apr_err e;
    *f = (struct fixture){0};
    apr_arena_init(&f->arena);
    int64_t a = apr_now_ns();
    ok(apr_tok_read_hf(dir, 0, NULL, &f->arena, &f->v, &f->tok_config, &e), &e);
    int64_t b = apr_now_ns();
    ok(apr_tok_open(&f->t, &f->v, dir, &e), &e);
    print_message("%s: %u tokens read in %.1f ms, opened in %.1f ms\n", dir, f->v.n_toks, (double)(b - a) / 1e6,
                  (double)(apr_now_ns() - b) / 1e6);
}

static void close_dir(struct fixture *f)
{
    apr_tok_close(f->t);
    json_decref(f->v.hf);
    json_decref(f->tok_config);
    apr_arena_free(&f->arena);
}

static void read_all(const char *path, struct apr_buf *b)
{
    struct apr_err e;
    apr_buf_init(b, 64 << 20);
    ok(apr_read_file(path, b->max_bytes, b, &e), &e);
}

static void check_text(const struct apr_tok *t, const char *dir, const char *text_name, const char *tok_name)
{
    struct apr_err e;
    char path[600];
    struct apr_buf text, want_text;
    json_t *want = NULL;
    snprintf(path, sizeof path, "%s/tokenizers/texts/%s.txt", dir, text_name);
    read_all(path, &text);
    snprintf(path, sizeof path, "%s/tokenizers/texts/%s.%s.ids", dir, text_name, tok_name);
    read_all(path, &want_text);
    ok(apr_json_parse((char *)want_text.data, want_text.n_bytes, path, &want, &e), &e);
    struct apr_ids ids = {0};
    ok(apr_tok_encode(t, (char *)text.data, text.n_bytes, APR_TOK_PARSE_SPECIAL, &ids, &e), &e);
    size_t k = 0, n = json_array_size(want);
    while (k < n && k < ids.n && ids.at[k] == json_integer_value(json_array_get(want, k))) k++;
    if (k != n || k != ids.n) fail_msg("%s: %zu ids of %zu, the first other one is %zu", path, ids.n, n, k);
    apr_ids_free(&ids);
    apr_buf_free(&text);
    apr_buf_free(&want_text);
    json_decref(want);
}

static void test_texts(void **state)
{
    (void)state;
    static const char *const toks[] = {"qwen2", "llama3", "gpt2"}, *const pres[] = {"qwen2", "llama-bpe", "gpt-2"};
    static const char *const texts[] = {"code", "markdown", "nfc", "random"};
    const char *dir = fixtures();
    for (size_t i = 0; i < 3; i++) {
        char path[600];
        struct apr_err e;
        struct fixture f;
        snprintf(path, sizeof path, "%s/tokenizers/%s", dir, toks[i]);
        open_dir(&f, path);
        assert_string_equal(f.v.pre, pres[i]);
        for (size_t k = 0; k < 4; k++) check_text(f.t, dir, texts[k], toks[i]);
        /* The bare vocabulary, as a GGUF carries it, gives the same. */
        struct apr_vocab v = f.v;
        struct apr_tok *t;
        v.hf = NULL;
        ok(apr_tok_open(&t, &v, path, &e), &e);
        for (size_t k = 0; k < 4; k++) check_text(t, dir, texts[k], toks[i]);
        apr_tok_close(t);
        close_dir(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

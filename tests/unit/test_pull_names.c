/* The parts of apr-pull that judge what a server or a caller says: names, sources, selections, headers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../../tools/apr-pull/http_parts.h"
#include "../../tools/apr-pull/names.h"
#include "../../tools/apr-pull/select.h"
#include "../../tools/apr-pull/source.h"

static struct apr_arena arena;

static int setup(void **state)
{
    (void)state;
    apr_arena_init(&arena);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    apr_arena_free(&arena);
    return 0;
}

static void test_paths(void **state)
{
    static const char *const good[] = {"a", "a/b.c", "..a", "a..b", ".gitattributes", "\xc3\xa9"};
    static const char *const bad[] = {"",    ".",    "..",   "/a",   "a/",    "a//b",     "a/../b",
                                      "a/.", "../a", "a\\b", "a\nb", "a\x7f", "\x1b]0;x", "a\xc2\x9b"};
    char text[NAME_MAX_PATH + 2];
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) assert_true(name_is_path(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) assert_false(name_is_path(bad[i]));
    memset(text, 'a', 255);
    text[255] = '\0';
    assert_true(name_is_path(text));
    memset(text, 'a', 256);
    text[256] = '\0';
    assert_false(name_is_path(text));
}

static void test_repos_and_etags(void **state)
{
    static const char *const good[] = {"gpt2", "org/name", "a-b.c_d/E"};
    static const char *const bad[] = {"",      "a/b/c", "../x", "a/..",   "a--b/c",
                                      "a/b c", "-a/b",  ".a/b", "a/b%2e", "a/"};
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) assert_true(name_is_repo(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) assert_false(name_is_repo(bad[i]));
    assert_string_equal(name_of_etag(&arena, "W/\"abc\""), "abc");
    assert_string_equal(name_of_etag(&arena, "abc-1"), "abc-1");
    assert_null(name_of_etag(&arena, "\"../../x\""));
    assert_null(name_of_etag(&arena, "\"..\""));
    assert_null(name_of_etag(&arena, ""));
    assert_string_equal(name_encode(&arena, "refs/pr/1 %", false), "refs%2Fpr%2F1%20%25");
    assert_string_equal(name_encode(&arena, "a b/c?", true), "a%20b/c%3F");
}

static void parse(const char *operand, const char *repo, const char *revision, const char *file)
{
    struct source s;
    struct apr_err e;
    assert_int_equal(source_parse(&s, operand, NULL, &arena, &e), APR_OK);
    assert_int_equal(s.kind, SOURCE_HUB);
    assert_string_equal(s.repo, repo);
    assert_string_equal(s.revision, revision);
    if (file)
        assert_string_equal(s.file, file);
    else
        assert_null(s.file);
}

static void test_sources(void **state)
{
    struct source s;
    struct apr_err e;
    (void)state;
    parse("hf://org/name", "org/name", "main", NULL);
    parse("hf://org/name/", "org/name", "main", NULL);
    parse("org/name@v1", "org/name", "v1", NULL);
    parse("hf://org/name@v1/a/b.gguf", "org/name", "v1", "a/b.gguf");
    parse("hf://org/name/a@b.gguf", "org/name", "main", "a@b.gguf");
    parse("hf://org/name@refs/pr/7/x.json", "org/name", "refs/pr/7", "x.json");
    parse("hf://org/name@feature%2Fx/y", "org/name", "feature/x", "y");
    parse("hf://gpt2@main", "gpt2", "main", NULL);
    parse("https://huggingface.co/org/name", "org/name", "main", NULL);
    parse("https://huggingface.co/org/name/blob/main/a/b.gguf", "org/name", "main", "a/b.gguf");
    parse("https://hf.co/org/name/tree/v2", "org/name", "v2", NULL);
    assert_int_equal(source_parse(&s, "https://example.com/org/name", NULL, &arena, &e), APR_OK);
    assert_int_equal(s.kind, SOURCE_URL);
    assert_int_equal(source_parse(&s, "hf://org/name@a", "b", &arena, &e), APR_EUSAGE);
    assert_int_equal(source_parse(&s, "hf://", NULL, &arena, &e), APR_EUSAGE);
    assert_int_equal(source_parse(&s, "hf://a/b/../c", NULL, &arena, &e), APR_EUSAGE);
    assert_int_equal(source_parse(&s, "file://etc/x", NULL, &arena, &e), APR_EUSAGE);
    assert_int_equal(source_parse(&s, "", NULL, &arena, &e), APR_EUSAGE);
}

/* The wanted names of a listing, with spaces between. */
static const char *chosen(const char *const *names, size_t n, enum apr_code want)
{
    struct select s;
    struct apr_err e;
    const char *text = "";
    select_init(&s, names, n, &arena);
    assert_int_equal(select_default(&s, "org/name", &e), want);
    for (size_t i = 0; i < n; i++)
        if (s.wanted[i]) text = apr_arena_printf(&arena, "%s%s%s", text, *text ? " " : "", names[i]);
    return text;
}

#define CHOSEN(...)                                                                                          \
    chosen((const char *const[]){__VA_ARGS__}, sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *), APR_OK)

static void test_selection(void **state)
{
    static const char *const pickled[] = {"pytorch_model.bin", "config.json"};
    (void)state;
    assert_string_equal(CHOSEN("config.json", "model.safetensors", "m-q4_k_m.gguf", "x.py"),
                        "config.json model.safetensors");
    assert_string_equal(CHOSEN("additional_chat_templates/rag.jinja", "additional_chat_templates/x.py",
                               "sub/additional_chat_templates/y.jinja", "chat_template.jinja",
                               "model.safetensors"),
                        "additional_chat_templates/rag.jinja chat_template.jinja model.safetensors");
    assert_string_equal(CHOSEN("b.safetensors", "a.safetensors", "sub/z.safetensors"), "a.safetensors");
    assert_string_equal(CHOSEN("model.safetensors.index.json", "model-1.safetensors"),
                        "model.safetensors.index.json");
    assert_string_equal(CHOSEN("m-f16.gguf", "m-Q8_0.gguf", "m-Q4_0.gguf", "LICENSE"), "m-Q4_0.gguf LICENSE");
    assert_string_equal(CHOSEN("m-f16.gguf", "m-Q4_K_S.gguf", "m-Q4_0.gguf"), "m-Q4_K_S.gguf");
    assert_string_equal(CHOSEN("mmproj-q4_k_m.gguf", "z.gguf", "y.gguf"), "y.gguf");
    assert_string_equal(CHOSEN("q8_0-00002-of-00002.gguf", "q8_0-00001-of-00002.gguf", "q8_0-x.gguf"),
                        "q8_0-00002-of-00002.gguf q8_0-00001-of-00002.gguf");
    chosen(pickled, 2, APR_ENOTFOUND);
}

static void header(const char *line, struct http_answer *a, char *location, size_t n)
{
    http_parse_header(line, strlen(line), a, location, n);
}

static void test_headers(void **state)
{
    struct http_answer a;
    char location[64] = "";
    (void)state;
    http_answer_clear(&a);
    header("HTTP/1.1 206 Partial Content\r\n", &a, location, sizeof location);
    header("ETag: \"x\"\r\n", &a, location, sizeof location);
    header("Content-Range: bytes 5-9/10\r\n", &a, location, sizeof location);
    header("content-length: 5\r\n", &a, location, sizeof location);
    header("X-Linked-Size: +5\r\n", &a, location, sizeof location);
    header("Retry-After: 99999999999999999999999\r\n", &a, location, sizeof location);
    header("Location: http://h/x\ty\r\n", &a, location, sizeof location);
    assert_int_equal(a.status, 206);
    assert_string_equal(a.etag, "\"x\"");
    assert_true(a.off_range == 5 && a.n_range_total == 10 && a.n_length == 5);
    assert_true(a.n_linked == HTTP_UNKNOWN);
    assert_true(a.retry_after_s == HTTP_UNKNOWN);
    assert_string_equal(location, "");
    header("HTTP/2 200\r\n", &a, location, sizeof location);
    assert_true(a.status == 200 && a.n_length == HTTP_UNKNOWN && a.etag[0] == '\0');
}

static void test_redirects(void **state)
{
    struct apr_err e;
    char next[HTTP_MAX_URL];
    bool same;
    (void)state;
    assert_int_equal(http_url_follow("https://h/a/b", "../c", next, sizeof next, &same, "x", &e), APR_OK);
    assert_true(same);
    assert_string_equal(next, "https://h/c");
    assert_int_equal(http_url_follow("https://h/a", "https://h:443/c", next, sizeof next, &same, "x", &e),
                     APR_OK);
    assert_true(same);
    assert_int_equal(http_url_follow("http://h/a", "https://h/c", next, sizeof next, &same, "x", &e), APR_OK);
    assert_false(same); /* another port, another scheme: the token stays behind */
    assert_int_equal(http_url_follow("https://h/a", "//evil.h/c", next, sizeof next, &same, "x", &e), APR_OK);
    assert_false(same);
    assert_int_equal(http_url_follow("https://h/a", "https://h.evil/c", next, sizeof next, &same, "x", &e),
                     APR_OK);
    assert_false(same);
    assert_int_equal(http_url_follow("https://h/a", "http://h/c", next, sizeof next, &same, "x", &e),
                     APR_ENET);
    assert_int_equal(http_url_follow("http://h/a", "file:///etc/x", next, sizeof next, &same, "x", &e),
                     APR_ENET);
    assert_int_equal(http_url_follow("http://h/a", "", next, sizeof next, &same, "x", &e), APR_ENET);
    http_url_shown("https://user:pass@h/x?sig=secret#f", NULL, next, sizeof next);
    assert_string_equal(next, "https://h/x");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths),   cmocka_unit_test(test_repos_and_etags),
        cmocka_unit_test(test_sources), cmocka_unit_test(test_selection),
        cmocka_unit_test(test_headers), cmocka_unit_test(test_redirects),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

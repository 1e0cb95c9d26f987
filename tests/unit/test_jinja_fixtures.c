/* Published chat templates, rendered for the contexts of ../shared/fixtures/templates and compared with what
 * Jinja2 made of them. Skipped where that folder is missing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "jinja/jinja.h"
#include "json.h"

static int64_t seconds_of(const char *iso)
{
    struct tm tm = {0};
    assert_non_null(strptime(iso, "%Y-%m-%dT%H:%M:%S", &tm));
    return (int64_t)timegm(&tm);
}

/* 1 when the case renders, or fails, as it should. */
static int check_case(const struct apr_jinja *t, const json_t *c, int64_t now_s, const char *file)
{
    const char *name = json_string_value(json_object_get(c, "name"));
    const char *expect = json_string_value(json_object_get(c, "expect"));
    const char *error = json_string_value(json_object_get(c, "error"));
    const char *kind = json_string_value(json_object_get(c, "error_kind"));
    struct apr_jinja_opts opts = {.now_s = now_s};
    struct apr_err e = {0};
    struct apr_buf out;
    apr_buf_init(&out, 64u << 20);
    enum apr_code code = apr_jinja_render(t, json_object_get(c, "context"), &opts, &out, &e);
    int ok;
    if (expect)
        ok = code == APR_OK && out.n_bytes == strlen(expect) &&
             memcmp(out.n_bytes ? (const char *)out.data : "", expect, out.n_bytes) == 0;
    else if (strcmp(kind, "raised") == 0)
        ok = code == APR_ECONTRACT && strcmp(e.text, error) == 0;
    else
        ok = code == APR_ECONTRACT && strncmp(e.text, "template: line ", 15) == 0;
    const char *found = out.data ? (const char *)out.data : "";
    size_t i = 0;
    while (expect && expect[i] && expect[i] == found[i]) i++;
    if (!ok)
        print_error("%s: %s: status %d %s; differs at byte %zu: expected \"%.60s\", found \"%.60s\"\n", file,
                    name, code, e.text, i, expect ? expect + i : error, found + i);
    apr_buf_free(&out);
    return ok;
}

static void check_file(const char *path, size_t *n_cases, size_t *n_good)
{
    json_error_t je;
    json_t *j = json_load_file(path, 0, &je);
    assert_non_null(j);
    const char *text = json_string_value(json_object_get(j, "template"));
    struct apr_jinja *t = NULL;
    struct apr_err e = {0};
    if (apr_jinja_parse(&t, text, strlen(text), &e) != APR_OK) fail_msg("%s: %s", path, e.text);
    int64_t now_s = seconds_of(json_string_value(json_object_get(j, "now")));
    const json_t *cases = json_object_get(j, "cases");
    for (size_t i = 0; i < json_array_size(cases); i++) {
        ++*n_cases;
        *n_good += (size_t)check_case(t, json_array_get(cases, i), now_s, path);
    }
    apr_jinja_free(t);
    json_decref(j);
}

static void published_templates(void **state)
{
    const char *shared = getenv("APR_SHARED");
    char pattern[4096];
    size_t n_cases = 0, n_good = 0;
    glob_t found;
    (void)state;
    snprintf(pattern, sizeof pattern, "%s/fixtures/templates/*.json", shared ? shared : "../shared");
    if (glob(pattern, 0, NULL, &found) != 0) {
        print_message("SKIP: no %s\n", pattern);
        skip();
    }
    for (size_t i = 0; i < found.gl_pathc; i++) check_file(found.gl_pathv[i], &n_cases, &n_good);
    print_message("%zu templates, %zu of %zu cases\n", found.gl_pathc, n_good, n_cases);
    globfree(&found);
    assert_int_equal(n_good, n_cases);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(published_templates)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* JSON: limits, positions, round trips; reports: text and JSON say the same; key-values. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "json.h"
#include "kv.h"
#include "out.h"

static enum apr_code parse(const char *text, json_t **out, struct apr_err *e)
{
    return apr_json_parse(text, strlen(text), "f.json", out, e);
}

static void refuses(const char *text, const char *message)
{
    json_t *v;
    struct apr_err e = {0};
    assert_int_equal(parse(text, &v, &e), APR_EFORMAT);
    assert_null(v);
    if (!strstr(e.text, message)) fail_msg("%s: \"%s\" lacks \"%s\"", text, e.text, message);
}

static void bad_json_is_refused_with_its_place(void **state)
{
    (void)state;
    refuses("", "f.json: line 1 column 0");
    refuses("{\"a\": 1,\n \"b\": }", "f.json: line 2 column");
    refuses("{\"a\": 1, \"a\": 2}", "duplicate");
    refuses("{} {}", "end of file expected");
    refuses("\"a\\u0000b\"", "line 1");
    refuses("[NaN]", "line 1");
    refuses("[1e999]", "overflow");
    refuses("[01]", "line 1");
    refuses("\"\xff\"", "decode byte");
    refuses("{\"a\"", "line 1");
    refuses("[1,]", "line 1");
    json_t *v;
    struct apr_err e;
    assert_int_equal(apr_json_parse("[1]\0", 4, "f.json", &v, &e), APR_EFORMAT);
}

static void depth_has_a_limit(void **state)
{
    (void)state;
    char text[400] = "";
    json_t *v;
    struct apr_err e;
    for (int depth = 63; depth <= 65; depth++) {
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        text[2 * depth] = '\0';
        assert_int_equal(parse(text, &v, &e) == APR_OK, depth <= APR_JSON_MAX_DEPTH);
        json_decref(v);
    }
    assert_non_null(strstr(e.text, "f.json: line 1 column 65: JSON nested deeper than 64"));
    char *deep = malloc(1000000); /* recursion would end the stack */
    assert_non_null(deep);
    memset(deep, '[', 1000000);
    assert_int_equal(apr_json_parse(deep, 1000000, "f.json", &v, &e), APR_EFORMAT);
    free(deep);
    assert_int_equal(
        parse("\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[[[\"", &v,
              &e),
        APR_OK);
    json_decref(v);
}

static void dumps_to(const char *text, bool sorted, const char *expected)
{
    json_t *v;
    struct apr_err e = {0};
    struct apr_buf b;
    apr_buf_init(&b, 1 << 20);
    if (parse(text, &v, &e) != APR_OK) fail_msg("%s: %s", text, e.text);
    assert_int_equal(apr_json_dump(v, sorted, &b, &e), APR_OK);
    assert_string_equal((char *)b.data, expected);
    json_decref(v);
    apr_buf_free(&b);
}

static void dump_is_compact_and_exact(void **state)
{
    (void)state;
    dumps_to("{\"b\": 1, \"a\": [true, false, null, \"x\\n\\u00e9\\\"\"]}", false,
             "{\"b\":1,\"a\":[true,false,null,\"x\\n\xc3\xa9\\\"\"]}");
    dumps_to("{\"b\": 1, \"a\": 2}", true, "{\"a\":2,\"b\":1}");
    dumps_to("[1e-06, 0.1, 1.0, 3e100, -0.0, 0.30000000000000004]", false,
             "[1e-06,0.1,1.0,3e+100,-0.0,0.30000000000000004]");
    dumps_to("[9223372036854775807, -9223372036854775808]", false,
             "[9223372036854775807,-9223372036854775808]");
    dumps_to("{}", false, "{}");
    dumps_to("\"\\u0001\\u007f\\b\\f\\r\\t\"", false, "\"\\u0001\\u007f\\b\\f\\r\\t\"");
}

static void integers_beyond_int64_become_reals(void **state)
{
    (void)state;
    dumps_to("{\"model_max_length\": 1000000000000000019884624838656, \"n\": 7}", false,
             "{\"model_max_length\":1e+30,\"n\":7}");
    dumps_to("[-9223372036854775809, 9223372036854775808]", false,
             "[-9.223372036854776e+18,9.223372036854776e+18]");
    dumps_to("[\"1000000000000000019884624838656\", 1.00000000000000000000000, 1e0000000000000000000001]",
             false, "[\"1000000000000000019884624838656\",1.0,10.0]");
}

static void getters_check_type_and_range(void **state)
{
    (void)state;
    json_t *v;
    struct apr_err e = {0};
    uint64_t u = 99;
    double f = 99;
    bool b = true;
    const char *s = "old";
    assert_int_equal(
        parse("{\"u\": 5, \"neg\": -1, \"f\": 1.5, \"b\": false, \"s\": \"x\", \"none\": null}", &v, &e),
        APR_OK);
    assert_int_equal(apr_json_u64(v, "u", 1, 10, &u, "f", &e), APR_OK);
    assert_int_equal(u, 5);
    assert_int_equal(
        apr_json_u64(v, "absent", 1, 10, &u, "f", &e) | apr_json_u64(v, "none", 1, 10, &u, "f", &e), APR_OK);
    assert_int_equal(u, 5);
    assert_int_equal(apr_json_u64(v, "u", 6, 10, &u, "f", &e), APR_EFORMAT);
    assert_string_equal(e.text, "f: $.u: expected an integer from 6 to 10, found 5");
    assert_int_equal(apr_json_u64(v, "neg", 0, UINT64_MAX, &u, "f", &e), APR_EFORMAT);
    assert_string_equal(e.text, "f: $.neg: expected an integer >= 0, found -1");
    assert_int_equal(apr_json_u64(v, "f", 0, 9, &u, "f", &e), APR_EFORMAT);
    assert_int_equal(apr_json_f64(v, "u", &f, "f", &e), APR_OK);
    assert_true(f == 5.0);
    assert_int_equal(apr_json_f64(v, "s", &f, "f", &e), APR_EFORMAT);
    assert_int_equal(apr_json_bool(v, "b", &b, "f", &e), APR_OK);
    assert_false(b);
    assert_int_equal(apr_json_bool(v, "u", &b, "f", &e), APR_EFORMAT);
    assert_int_equal(apr_json_str(v, "s", &s, "f", &e), APR_OK);
    assert_string_equal(s, "x");
    assert_int_equal(apr_json_str(v, "b", &s, "f", &e), APR_EFORMAT);
    assert_string_equal(e.text, "f: $.b: expected a string, found false");
    json_decref(v);
}

/* The same report by both back ends. */
static void report(bool json, char *text, size_t n_text)
{
    struct apr_err e;
    FILE *f = fmemopen(text, n_text, "w");
    assert_non_null(f);
    struct apr_out *o = apr_out_open(f, json, "apr.test/1");
    apr_out_str(o, "name", "a\x1b[1m\xff");
    apr_out_str(o, "nothing", NULL);
    apr_out_u64(o, "big", UINT64_MAX);
    apr_out_i64(o, "small", INT64_MIN);
    apr_out_f64(o, "third", 1.0 / 3);
    apr_out_f64(o, "nan", (double)NAN);
    apr_out_bool(o, "yes", true);
    apr_out_bytes(o, "size_bytes", 3 << 20);
    apr_out_obj(o, "inner");
    apr_out_arr(o, "shape");
    apr_out_u64(o, NULL, 4);
    apr_out_u64(o, NULL, 2);
    apr_out_end(o);
    apr_out_end(o);
    apr_out_arr(o, "rows");
    for (uint64_t i = 8; i < 12; i += 2) {
        apr_out_obj(o, NULL);
        apr_out_str(o, "name", i == 8 ? "long name" : "b");
        apr_out_u64(o, "n", i);
        apr_out_end(o);
    }
    apr_out_end(o);
    apr_out_arr(o, "empty");
    apr_out_end(o);
    apr_out_text(o, "verdict %d", 1);
    assert_int_equal(apr_out_close(o, &e), APR_OK);
    fclose(f);
}

static void report_text(void **state)
{
    (void)state;
    char text[1000] = "";
    report(false, text, sizeof text);
    assert_string_equal(text,
                        "name: a\\x1b[1m\\xff\nbig: 18446744073709551615\nsmall: -9223372036854775808\n"
                        "third: 0.333333\nnan: nan\nyes: yes\nsize_bytes: 3.0 MiB\ninner:\n  shape: [4, 2]\n"
                        "rows:\n  name        n\n  long name   8\n  b          10\nempty: []\nverdict 1\n");
}

static void report_json(void **state)
{
    (void)state;
    char text[1000] = "";
    report(true, text, sizeof text);
    assert_string_equal(
        text, "{\"schema\":\"apr.test/1\",\"name\":\"a\\u001b[1m\xef\xbf\xbd\",\"nothing\":null,"
              "\"big\":18446744073709551615,\"small\":-9223372036854775808,\"third\":0.3333333333333333,"
              "\"nan\":null,\"yes\":true,\"size_bytes\":3145728,\"inner\":{\"shape\":[4,2]},\"rows\":["
              "{\"name\":\"long name\",\"n\":8},{\"name\":\"b\",\"n\":10}],\"empty\":[]}\n");
}

static void key_values_keep_order_and_types(void **state)
{
    (void)state;
    struct apr_arena a;
    struct apr_kvs kvs;
    struct apr_err e;
    char key[32];
    uint64_t u = 7;
    double f = 7;
    const char *s = NULL;
    apr_arena_init(&a);
    apr_kvs_init(&kvs, &a);
    assert_null(apr_kvs_find(&kvs, "x"));
    for (uint32_t i = 0; i < 1000; i++) {
        snprintf(key, sizeof key, "key.%u", i);
        apr_kvs_u32(&kvs, key, i);
    }
    apr_kvs_str(&kvs, "key.500", "text"); /* keeps its place */
    apr_kvs_str(&kvs, "empty", "");
    assert_int_equal(kvs.n, 1000);
    assert_string_equal(kvs.at[500].key.p, "key.500");
    assert_string_equal(kvs.at[500].v.s.p, "text");
    assert_int_equal(apr_kv_get_u64(&kvs, "key.999", 0, 999, &u, "f", &e), APR_OK);
    assert_int_equal(u, 999);
    assert_int_equal(apr_kv_get_u64(&kvs, "key.999", 0, 998, &u, "f", &e), APR_EFORMAT);
    assert_string_equal(e.text, "f: key key.999: found 999, expected 0 to 998");
    assert_int_equal(apr_kv_get_u64(&kvs, "absent", 0, 1, &u, "f", &e), APR_OK);
    assert_int_equal(u, 999);
    apr_kvs_i32(&kvs, "neg", -3);
    assert_int_equal(apr_kv_get_u64(&kvs, "neg", 0, UINT64_MAX, &u, "f", &e), APR_EFORMAT);
    apr_kvs_f32(&kvs, "f", 0.1f);
    assert_int_equal(apr_kv_get_f64(&kvs, "f", &f, "f", &e), APR_OK);
    assert_true(f == (double)0.1f);
    apr_kvs_f32(&kvs, "inf", INFINITY);
    assert_int_equal(apr_kv_get_f64(&kvs, "inf", &f, "f", &e), APR_EFORMAT);
    assert_int_equal(apr_kv_get_str(&kvs, "f", &s, "f", &e), APR_EFORMAT);
    assert_string_equal(e.text, "f: key f: found type f32, expected a string");
    apr_arena_free(&a);
}

static void key_values_copy_arrays(void **state)
{
    (void)state;
    struct apr_arena a;
    struct apr_kvs kvs;
    int32_t numbers[] = {1, -2, 3};
    char word[] = "word";
    struct apr_str words[] = {{word, 4}, {word, 2}};
    apr_arena_init(&a);
    apr_kvs_init(&kvs, &a);
    apr_kvs_array(&kvs, "numbers", APR_KV_I32, 3, numbers);
    apr_kvs_array(&kvs, "words", APR_KV_STR, 2, words);
    numbers[1] = 0;
    memset(word, 'x', 4);
    const int32_t *n = apr_kvs_find(&kvs, "numbers")->v.a.items;
    const struct apr_str *w = apr_kvs_find(&kvs, "words")->v.a.items;
    assert_int_equal(n[1], -2);
    assert_string_equal(w[0].p, "word");
    assert_int_equal(w[1].n_bytes, 2);
    assert_string_equal(w[1].p, "wo");
    apr_arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_json_is_refused_with_its_place),
        cmocka_unit_test(depth_has_a_limit),
        cmocka_unit_test(dump_is_compact_and_exact),
        cmocka_unit_test(integers_beyond_int64_become_reals),
        cmocka_unit_test(getters_check_type_and_range),
        cmocka_unit_test(report_text),
        cmocka_unit_test(report_json),
        cmocka_unit_test(key_values_keep_order_and_types),
        cmocka_unit_test(key_values_copy_arrays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* .apr as it is written here: byte layout, metadata there and back, the text scanner. Files of the original:
 * test_fmt_apr.c. */
#include "tiny.h"

#include "fmt/apr.h"
#include "fmt/apr_text.h"
#include "hash.h"
#include "log.h"

/* ---- ours --------------------------------------------------------------------------------------------- */

static void layout(void **state)
{
    struct apr_buf b;
    struct apr_model *m;
    (void)state;
    tiny_apr(&b);
    assert_memory_equal(b.data, "APR\0\2\0\0\4\3\0\0\0\100\0\0\0\0\0\0\0",
                        20); /* flags 0x0400, 3 tensors, metadata at 64 */
    assert_int_equal(b.data[64], '{');
    OK(tiny_open(b.data, b.n_bytes, false, &m, &tiny_err));
    assert_int_equal(m->header.off_data % 64, 0);
    for (int i = 0; i < 3; i++) assert_int_equal(m->tensors[i].off_file % 64, 0);
    assert_non_null(m->trailer);
    assert_int_equal(json_integer_value(json_object_get(m->apr_meta, "total_size")), m->header.n_data_bytes);
    assert_int_equal(json_object_size(json_object_get(m->apr_meta, "tensor_shapes")), 3);
    assert_memory_equal(b.data + b.n_bytes - 8, "APRT", 4);
    apr_model_close(m);
    apr_buf_free(&b);
}

static void same_str(const struct apr_str *a, const struct apr_str *b)
{
    assert_int_equal(a->n_bytes, b->n_bytes);
    assert_memory_equal(a->p, b->p, a->n_bytes);
}

static void vocabulary_there_and_back(void **state)
{
    struct apr_buf b;
    struct apr_model *m;
    struct apr_vocab v;
    (void)state;
    tiny_vocab(&v);
    tiny_apr(&b);
    for (int as_pipe = 0; as_pipe < 2; as_pipe++) {
        OK(tiny_open(b.data, b.n_bytes, as_pipe, &m, &tiny_err));
        assert_int_equal(m->vocab.n_toks, v.n_toks);
        for (uint32_t i = 0; i < v.n_toks; i++) same_str(&m->vocab.toks[i], &v.toks[i]);
        for (uint64_t i = 0; i < v.n_merges; i++) same_str(&m->vocab.merges[i], &v.merges[i]);
        assert_memory_equal(m->vocab.types, v.types, sizeof tiny_types);
        assert_int_equal(m->vocab.kind, v.kind);
        assert_string_equal(m->vocab.pre, v.pre);
        assert_string_equal(m->vocab.chat_template, v.chat_template);
        assert_int_equal(m->vocab.eos_id, 5);
        assert_int_equal(m->vocab.bos_id, APR_ID_NONE);
        assert_int_equal(m->vocab.add_bos, 0);
        assert_int_equal(m->vocab.add_eos, -1);
        assert_int_equal(m->vocab.n_special_order, 1);
        assert_string_equal(m->vocab.special_order[0], "eos");
        apr_model_close(m);
    }
    apr_buf_free(&b);
}

static json_t *meta_of(const char *path, struct apr_model **m)
{
    json_t *meta;
    OK(apr_load_model(path, APR_LOAD_STREAM, m, &tiny_err));
    OK(apr_meta_build(*m, &meta, &tiny_err));
    return meta;
}

/* The demonstration model: metadata built from the .apr equals metadata built from the folder; numbers of the
 * flat keys are the folder's. */
static void metadata_of_a_folder(void **state)
{
    struct apr_model *m, *again;
    json_t *meta = meta_of("tests/data/apr-demo-8M-Instruct", &m), *meta_again;
    struct tiny_plan t;
    struct apr_buf b;
    (void)state;
    assert_int_equal(json_integer_value(json_object_get(meta, "hidden_size")), 256);
    assert_string_equal(json_string_value(json_object_get(meta, "model_type")), "Qwen2");
    assert_string_equal(json_string_value(json_object_get(meta, "license")), "mit");
    tiny_plan(&t, apr_fmt_named("apr"), false);
    t.p.meta = meta;
    t.p.vocab = &m->vocab;
    tiny_write(apr_fmt_named("apr"), &t.p, NULL, &b);
    OK(tiny_open(b.data, b.n_bytes, false, &again, &tiny_err));
    OK(apr_meta_build(again, &meta_again, &tiny_err));
    json_object_set(meta_again, "param_count", json_object_get(meta, "param_count")); /* other tensors here */
    if (!json_equal(meta, meta_again))
        fail_msg("from the folder %s\nfrom the .apr %s", json_dumps(meta, JSON_COMPACT),
                 json_dumps(meta_again, JSON_COMPACT));
    assert_true(json_equal(m->vocab.hf, again->vocab.hf));
    assert_int_equal(again->vocab.n_toks, m->vocab.n_toks);
    assert_memory_equal(&again->generation, &m->generation, sizeof m->generation);
    json_decref(meta);
    json_decref(meta_again);
    apr_model_close(m);
    apr_model_close(again);
    apr_buf_free(&b);
}

/* ---- the scanner -------------------------------------------------------------------------------------- */

static enum apr_code cut(const char *text, struct apr_text *out, struct apr_arena *a, struct apr_err *e)
{
    char *copy = apr_arena_strdup(a, text);
    return apr_text_cut(copy, strlen(text), 64, "test", a, out, e);
}

static const char numbers[] = "{\"tokenizer.token_type\":[ 1 , -2,2147483647 ],"
                              "\"tokenizer.scores\":[0,-1.5,1e3,-0.0,12345678901234567890,1.5E-3]}";

static void scanner(void **state)
{
    static const char *const good[] = {
        "{}",        " { } ",
        "{\"a\":1}", "{\"a\":{\"b\":[1,\"]}\\\"\"]},\"tokenizer.merges\":null}",
        numbers,     "{\"tokenizer.vocabulary\":[\"\\u0000\\/\\b\"]}",
    };
    static const char *const bad[] = {
        "",
        "[]",
        "{",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{\"a\":1 \"b\":2}",
        "{a:1}",
        "{}x",
        "{\"tokenizer.vocabulary\":[\"a\",]}",
        "{\"tokenizer.vocabulary\":[\"a\"",
        "{\"tokenizer.vocabulary\":[\"a]}",
        "{\"tokenizer.vocabulary\":[1]}",
        "{\"tokenizer.vocabulary\":\"a\"}",
        "{\"tokenizer.vocabulary\":[\"\\ud800\"]}",
        "{\"tokenizer.vocabulary\":[\"\\udc00\"]}",
        "{\"tokenizer.vocabulary\":[\"\\ud800\\u0041\"]}",
        "{\"tokenizer.vocabulary\":[\"\\x\"]}",
        "{\"tokenizer.vocabulary\":[\"\\u00g0\"]}",
        "{\"tokenizer.vocabulary\":[\"\n\"]}",
        "{\"tokenizer.vocabulary\":[\"\xff\"]}",
        "{\"tokenizer.vocabulary\":[\"\xed\xa0\x80\"]}",
        "{\"a\\u0000b\":1}",
        "{\"tokenizer.token_type\":[2147483648]}",
        "{\"tokenizer.token_type\":[1.0]}",
        "{\"tokenizer.token_type\":[-]}",
        "{\"tokenizer.scores\":[1e999]}",
        "{\"tokenizer.scores\":[-]}",
        "{\"tokenizer.scores\":[--1]}",
        "{\"tokenizer.scores\":[1.2.3]}",
        "{\"tokenizer.scores\":[]x}",
        "{\"a\":{\"b\":1,\"b\":2}}",
        "{\"a\":nan}",
        "{\"a\":\"\\",
    };
    struct apr_arena a;
    struct apr_text out;
    struct apr_err e;
    (void)state;
    apr_arena_init(&a);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        if (cut(good[i], &out, &a, &e) != APR_OK) fail_msg("%s: %s", good[i], e.text);
        json_decref(out.root);
    }
    assert_int_equal(out.toks[0].n_bytes, 3);
    assert_memory_equal(out.toks[0].p, "\0/\b", 3);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (cut(bad[i], &out, &a, &e) != APR_EFORMAT) fail_msg("%s: accepted", bad[i]);
        assert_null(out.root);
    }
    OK(cut(numbers, &out, &a, &tiny_err));
    assert_int_equal(out.types[1], -2);
    assert_true(out.scores[1] == -1.5F && out.scores[2] == 1000.0F &&
                out.scores[4] == 12345678901234567890.0F);
    json_decref(out.root);
    apr_arena_free(&a);
}

/* Scores of SentencePiece models come back bit for bit. */
static void scores_there_and_back(void **state)
{
    struct apr_vocab v;
    struct apr_buf b;
    struct apr_arena a;
    struct apr_text out;
    float scores[6] = {0.1F, -1e-7F, 3.4028235e38F, -12345.678F, 1.17549435e-38F, 16777217.0F};
    (void)state;
    tiny_vocab(&v);
    v.scores = scores;
    apr_arena_init(&a);
    apr_buf_init(&b, 1 << 16);
    OK(apr_text_put(&v, &b, &tiny_err));
    b.data[0] = '{'; /* instead of the comma */
    tiny_put(&b, "}", 1);
    OK(apr_text_cut((char *)b.data, b.n_bytes, 0, "test", &a, &out, &tiny_err));
    assert_memory_equal(out.scores, scores, sizeof scores);
    json_decref(out.root);
    apr_buf_free(&b);
    apr_arena_free(&a);
}

int main(void)
{
    apr_log_set(APR_LOG_QUIET, "test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layout),
        cmocka_unit_test(vocabulary_there_and_back),
        cmocka_unit_test(metadata_of_a_folder),
        cmocka_unit_test(scanner),
        cmocka_unit_test(scores_there_and_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

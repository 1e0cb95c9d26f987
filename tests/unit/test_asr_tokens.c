/* The tokens of a speech model, as its vocabulary and generation_config.json give them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "../../tools/apr-infer/asr_text.h"
#include "json.h"

static const char *const texts[] = {"a",
                                    "b",
                                    "<|endoftext|>",
                                    "<|startoftranscript|>",
                                    "<|en|>",
                                    "<|de|>",
                                    "<|yue|>",
                                    "<|translate|>",
                                    "<|transcribe|>",
                                    "<|startoflm|>",
                                    "<|startofprev|>",
                                    "<|nospeech|>",
                                    "<|notimestamps|>",
                                    "<|0.00|>",
                                    "<|0.02|>"};
#define N_TEXTS (sizeof texts / sizeof texts[0])

static enum apr_code read_tokens(const char *generation, struct apr_asr_tokens *t, struct apr_arena *a,
                                 struct apr_err *e)
{
    struct apr_model *m = apr_model_new("test");
    struct apr_str toks[N_TEXTS];
    int32_t types[N_TEXTS];
    for (size_t i = 0; i < N_TEXTS; i++) {
        toks[i] = (struct apr_str){texts[i], strlen(texts[i])};
        types[i] = i < 2 ? APR_TOK_NORMAL : APR_TOK_CONTROL;
    }
    m->vocab.n_toks = m->config.n_vocab = N_TEXTS;
    m->vocab.toks = toks;
    m->vocab.types = types;
    if (generation)
        assert_int_equal(apr_json_parse(generation, strlen(generation), "g", &m->hf_generation, e), APR_OK);
    enum apr_code code = apr_asr_tokens_read(t, m, a, e);
    apr_model_close(m);
    return code;
}

static void test_tokens(void **state)
{
    (void)state;
    static const struct {
        const char *generation, *says;
    } bad[] = {
        {"{\"decoder_start_token_id\":15}", "decoder_start_token_id"},
        {"{\"suppress_tokens\":[1,-1]}", "suppress_tokens"},
        {"{\"suppress_tokens\":7}", "suppress_tokens"},
        {"{\"lang_to_id\":{\"<|en|>\":99}}", "lang_to_id"},
        {"{\"forced_decoder_ids\":[[1]]}", "forced_decoder_ids"},
        {"{\"no_timestamps_token_id\":\"x\"}", "no_timestamps_token_id"},
    };
    struct apr_arena a;
    struct apr_asr_tokens t;
    struct apr_err e = {0};
    apr_arena_init(&a);
    assert_int_equal(read_tokens(NULL, &t, &a, &e), APR_OK);
    assert_int_equal(t.start, 3);
    assert_int_equal(t.end, 2);
    assert_int_equal(t.n_langs, 3);
    assert_int_equal(apr_asr_lang(&t, "yue")->id, 6);
    assert_null(apr_asr_lang(&t, "fr"));
    assert_int_equal(t.transcribe, 8);
    assert_int_equal(t.no_speech, 11);
    assert_int_equal(t.time0, 13);
    assert_null(t.lang);
    assert_int_equal(read_tokens("{\"is_multilingual\":false,\"max_initial_timestamp_index\":1,"
                                 "\"suppress_tokens\":[0],\"begin_suppress_tokens\":[1,2]}",
                                 &t, &a, &e),
                     APR_OK);
    assert_int_equal(t.n_langs, 0);
    assert_int_equal(t.transcribe, -1);
    assert_int_equal(t.max_first, 1);
    assert_int_equal(t.n_never, 1);
    assert_int_equal(t.not_first[1], 2);
    assert_int_equal(read_tokens("{\"lang_to_id\":{\"<|de|>\":5},\"task_to_id\":{\"translate\":7},"
                                 "\"forced_decoder_ids\":[[1,5],[2,7]]}",
                                 &t, &a, &e),
                     APR_OK);
    assert_int_equal(t.n_langs, 1);
    assert_string_equal(t.lang->code, "de");
    assert_true(t.is_translator);
    assert_int_equal(read_tokens("{\"forced_decoder_ids\":[[1,null],[2,8]]}", &t, &a, &e), APR_OK);
    assert_null(t.lang);
    assert_false(t.is_translator);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(read_tokens(bad[i].generation, &t, &a, &e), APR_EFORMAT);
        if (!strstr(e.text, bad[i].says)) fail_msg("\"%s\" does not say %s", e.text, bad[i].says);
    }
    apr_arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_tokens)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

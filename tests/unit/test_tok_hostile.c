/* Hostile vocabularies: every fault is one line and the right code, nothing crashes, hangs or takes memory
 * that the file does not justify. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "log.h"
#include "tok_json.h"

#define BYTE_LEVEL "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false}"
#define VOCAB      "\"a\":0,\"b\":1,\"c\":2,\"ab\":3"
/* A whole file: added tokens, pre-tokenizer, vocabulary, merges. */
#define DOC(added, pre, vocab, merges)                                                                       \
    "{\"added_tokens\":[" added "]," pre                                                                     \
    ",\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\","                                     \
    "\"vocab\":{" vocab "},\"merges\":[" merges "]}}"
#define SPLIT(regex)                                                                                         \
    "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex "\"},\"behavior\":\"Isolated\"}"
#define ADDED(id, content) "{\"id\":" id ",\"content\":\"" content "\"}"

static const struct {
    const char *doc;
    enum apr_code code;
    const char *text; /* of the message */
} cases[] = {
    {DOC("", BYTE_LEVEL, VOCAB, "\"a b\""), APR_OK, ""},
    {DOC("", BYTE_LEVEL, VOCAB, "[\"a\",\"b\"]"), APR_OK, ""},
    /* vocabulary */
    {DOC("", BYTE_LEVEL, "\"a\":0,\"a\":1", ""), APR_EFORMAT, "are both \"a\""},
    {DOC("", BYTE_LEVEL, "\"a\":0,\"b\":0", ""), APR_EFORMAT, "stands twice"},
    {DOC("", BYTE_LEVEL, "\"a\":-1", ""), APR_EFORMAT, "id -1"},
    {DOC("", BYTE_LEVEL, "\"a\":2147483647", ""), APR_EFORMAT, "2147483647"},
    {DOC("", BYTE_LEVEL, "\"a\":99999999999999999999", ""), APR_EFORMAT, "range"},
    {DOC("", BYTE_LEVEL, "\"a\":1.5", ""), APR_EFORMAT, "integer"},
    {DOC("", BYTE_LEVEL, "\"a\":\"b\"", ""), APR_EFORMAT, "integer"},
    {DOC("", BYTE_LEVEL, "\"a\"", ""), APR_EFORMAT, "expected :"},
    {DOC("", BYTE_LEVEL, "\"\\ud800\":0", ""), APR_EFORMAT, "escape"},
    {DOC("", BYTE_LEVEL, "\"\\u0000\":0", ""), APR_EFORMAT, "escape"},
    {DOC("", BYTE_LEVEL, "\"\xff\":0", ""), APR_EFORMAT, "UTF-8"},
    {DOC("", BYTE_LEVEL, "", ""), APR_ELOAD, "no tokenizer"},
    /* merges */
    {DOC("", BYTE_LEVEL, VOCAB, "\"a x\""), APR_EFORMAT, "merge 0"},
    {DOC("", BYTE_LEVEL, VOCAB, "\"a b\",\"ab\""), APR_EFORMAT, "two parts"},
    {DOC("", BYTE_LEVEL, VOCAB, "\"a c\""), APR_EFORMAT, "product"},
    {DOC("", BYTE_LEVEL, VOCAB, "\"a \""), APR_EFORMAT, "merge 0"},
    {DOC("", BYTE_LEVEL, VOCAB, "\" a\""), APR_EFORMAT, "merge 0"},
    {DOC("", BYTE_LEVEL, VOCAB, "\"\""), APR_EFORMAT, "merge 0"},
    {DOC("", BYTE_LEVEL, VOCAB, "7"), APR_EFORMAT, "expected"},
    {DOC("", BYTE_LEVEL, VOCAB, "[\"a\"]"), APR_EFORMAT, "expected"},
    {DOC("", BYTE_LEVEL, VOCAB, "[\"a\",\"b\",\"c\"]"), APR_EFORMAT, "expected"},
    {DOC("", BYTE_LEVEL, VOCAB, "[\"\",\"a\"]"), APR_EFORMAT, "merge 0"},
    /* added tokens */
    {DOC(ADDED("4", ""), BYTE_LEVEL, VOCAB, ""), APR_EFORMAT, "empty"},
    {DOC(ADDED("-1", "x"), BYTE_LEVEL, VOCAB, ""), APR_EFORMAT, "id -1"},
    {DOC(ADDED("2147483647", "x"), BYTE_LEVEL, VOCAB, ""), APR_EFORMAT, "2147483647"},
    {DOC(ADDED("\"4\"", "x"), BYTE_LEVEL, VOCAB, ""), APR_EFORMAT, "no id"},
    {DOC(ADDED("1", "x"), BYTE_LEVEL, VOCAB, ""), APR_EFORMAT, "id 1 is the token \"b\""},
    {DOC(ADDED("1", "b"), BYTE_LEVEL, VOCAB, ""), APR_OK, ""},
    {DOC("7", BYTE_LEVEL, VOCAB, ""), APR_EFORMAT, "no id"},
    {DOC(ADDED("4", "x"), BYTE_LEVEL, VOCAB, ""), APR_OK, ""},
    /* patterns */
    {DOC("", SPLIT("(["), VOCAB, ""), APR_ELOAD, "split pattern"},
    {DOC("", SPLIT("(?:(?:a{1,1000}){1,1000}){1,1000}"), VOCAB, ""), APR_ELOAD, "split pattern"},
    {DOC("", SPLIT(""), VOCAB, ""), APR_EFORMAT, "split pattern"},
    {DOC("", SPLIT("[a&&b]"), VOCAB, ""), APR_ELOAD, "not supported"},
    {DOC("", SPLIT("[\\\\p{L}&&[^\\\\p{Han}]]"), VOCAB, ""), APR_ELOAD, "not supported"},
    {DOC("", SPLIT("\\\\"), VOCAB, ""), APR_EFORMAT, "backslash"},
    {DOC("", SPLIT("\\\\C"), VOCAB, ""), APR_ELOAD, "split pattern"},
    {DOC("", "\"pre_tokenizer\":{\"type\":\"Magic\"}", VOCAB, ""), APR_ELOAD, "Magic"},
    {DOC("", "\"normalizer\":{\"type\":\"Magic\"}," BYTE_LEVEL, VOCAB, ""), APR_ELOAD, "Magic"},
    {DOC("",
         "\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"x\",99],\"sep\":[\"x\",0]}," BYTE_LEVEL,
         VOCAB, ""),
     APR_EFORMAT, "id 99"},
    /* documents */
    {"", APR_EFORMAT, "expected {"},
    {"[]", APR_EFORMAT, "expected {"},
    {"{}", APR_EFORMAT, "no $.model"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{", APR_EFORMAT, "ends inside"},
    {"{\"model\":{\"type\":\"Magic\"}}", APR_ELOAD, "Magic"},
    {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"vocab\":{\"b\":0}}}", APR_EFORMAT, "duplicate"},
};

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct apr_err e = {0};
        struct tok_json j;
        enum apr_code code = tok_json_open(&j, cases[i].doc, strlen(cases[i].doc), &e);
        if (code != cases[i].code || (code != APR_OK && !strstr(e.text, cases[i].text)) ||
            strchr(e.text, '\n'))
            fail_msg("case %zu: %s: code %d: %s", i, cases[i].doc, (int)code, e.text);
        tok_json_close(&j);
    }
}

static void test_deep(void **state)
{
    (void)state;
    enum { N = 100000 };
    static char doc[N + 64];
    for (int kind = 0; kind < 2; kind++) {
        size_t n = (size_t)snprintf(doc, sizeof doc, "%s", kind ? "{\"model\":{\"vocab\":" : "{\"x\":");
        memset(doc + n, '[', N);
        struct apr_err e;
        struct tok_json j;
        assert_int_equal(tok_json_open(&j, doc, n + N, &e), APR_EFORMAT);
        tok_json_close(&j);
    }
    /* 20 000 groups */
    size_t n = (size_t)snprintf(
        doc, sizeof doc, "%s",
        "{\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"");
    memset(doc + n, '(', 20000);
    memset(doc + n + 20000, ')', 20000);
    n += 40000;
    n += (size_t)snprintf(doc + n, sizeof doc - n,
                          "\"}},\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{"
                          "\"a\":0},\"merges\":[]}}");
    struct apr_err e;
    struct tok_json j;
    assert_int_equal(tok_json_open(&j, doc, n, &e), APR_EFORMAT);
    assert_non_null(strstr(e.text, "split pattern of 40000 bytes"));
    tok_json_close(&j);
}

/* Patterns that explode: an error in bounded time. */
static void test_bombs(void **state)
{
    (void)state;
    static const char *const docs[] = {
        DOC("", SPLIT("(a+)+$"), VOCAB, ""),
        DOC("", SPLIT("(?:a|a)*[b-d]"), VOCAB, ""),
        DOC("", SPLIT("(?:a*)*(?:a*)*(?:a*)*[b-d]"), VOCAB, ""),
        DOC("", SPLIT("(?:.*.*.*.*.*)[xyz]"), VOCAB, ""),
    };
    char text[4001];
    memset(text, 'a', 4000);
    text[4000] = '!';
    for (size_t i = 0; i < sizeof docs / sizeof *docs; i++) {
        struct apr_err e;
        struct tok_json j;
        struct apr_ids ids = {0};
        assert_int_equal(tok_json_open(&j, docs[i], strlen(docs[i]), &e), APR_OK);
        assert_int_equal(apr_tok_encode(j.t, text, sizeof text, 0, &ids, &e), APR_EFORMAT);
        assert_non_null(strstr(e.text, "too many steps"));
        assert_int_equal(ids.n, 0);
        apr_ids_free(&ids);
        tok_json_close(&j);
    }
}

/* An unknown but harmless pattern is run. */
static void test_unknown_pattern(void **state)
{
    (void)state;
    static const char doc[] = DOC("", SPLIT("a|b"), VOCAB, "\"a b\"");
    struct apr_err e;
    struct tok_json j;
    struct apr_ids ids = {0};
    assert_int_equal(tok_json_open(&j, doc, sizeof doc - 1, &e), APR_OK);
    assert_null(j.v.pre);
    assert_int_equal(apr_tok_encode(j.t, "abc", 3, 0, &ids, &e), APR_OK);
    assert_int_equal(ids.n, 3);
    apr_ids_free(&ids);
    tok_json_close(&j);
}

static void poke(const struct tok_json *j)
{
    static const char text[] = "ab <x> cab \xc3\xa9\xcc\x81\xff<x>";
    struct apr_err e;
    struct apr_ids ids = {0};
    struct apr_buf out;
    apr_buf_init(&out, 1 << 20);
    if (apr_tok_encode(j->t, text, sizeof text - 1, APR_TOK_PARSE_SPECIAL | APR_TOK_ADD_SPECIAL, &ids, &e) ==
        APR_OK) {
        for (size_t i = 0; i < ids.n; i++)
            assert_true(ids.at[i] >= 0 && (uint32_t)ids.at[i] < apr_tok_n(j->t));
        assert_int_equal(apr_tok_decode(j->t, ids.at, ids.n, true, &out, &e), APR_OK);
    }
    apr_buf_free(&out);
    apr_ids_free(&ids);
}

static const char whole[] =
    "{\"added_tokens\":[{\"id\":5,\"content\":\"<x>\",\"special\":true,\"lstrip\":true,\"rstrip\":true,"
    "\"single_word\":true,\"normalized\":true}],\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{"
    "\"type\":"
    "\"NFC\"},{\"type\":\"Lowercase\"}]},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{"
    "\"type\":\"Split\","
    "\"pattern\":{\"Regex\":\"\\\\p{N}| "
    "?\\\\w+\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\","
    "\"add_prefix_space\":true,\"use_regex\":true}]},\"post_processor\":{\"type\":\"TemplateProcessing\","
    "\"single\":[{"
    "\"SpecialToken\":{\"id\":\"<x>\"}},{\"Sequence\":{\"id\":\"A\"}}],\"pair\":[],\"special_tokens\":{\"<x>"
    "\":{\"ids\":"
    "[5]}}},\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"unk_token\":\"c\",\"ignore_"
    "merges\":true,"
    "\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"\\u0120\":3,\"ab\":4},\"merges\":[[\"a\",\"b\"]]}}";

static void test_truncated(void **state)
{
    (void)state;
    char dir[] = "/tmp/apr-tok-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    size_t n = sizeof whole - 1;
    for (size_t k = 0; k <= n; k++) {
        struct apr_err e = {0};
        struct tok_json j;
        assert_int_equal(tok_json_write(dir, whole, k), 0);
        enum apr_code code = tok_json_open_in(&j, dir, 0, &e);
        if (k < n)
            assert_int_equal(code, APR_EFORMAT);
        else
            assert_int_equal(code, APR_OK);
        tok_json_close(&j);
    }
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0);
}

static void test_flipped(void **state)
{
    (void)state;
    char dir[] = "/tmp/apr-tok-XXXXXX", path[64], copy[sizeof whole];
    assert_non_null(mkdtemp(dir));
    int n_open = 0;
    for (size_t i = 0; i < sizeof whole - 1; i++) {
        for (int k = 0; k < 2; k++) {
            int bit = (int)(i + 3 * (size_t)k) % 8;
            struct apr_err e = {0};
            struct tok_json j;
            memcpy(copy, whole, sizeof whole);
            copy[i] = (char)(copy[i] ^ 1 << bit);
            assert_int_equal(tok_json_write(dir, copy, sizeof whole - 1), 0);
            enum apr_code code = tok_json_open_in(&j, dir, 6, &e);
            if (code == APR_OK) {
                poke(&j);
                n_open++;
            } else {
                assert_true(code == APR_EFORMAT || code == APR_ELOAD);
                assert_true(e.text[0] != '\0' && !strchr(e.text, '\n'));
            }
            tok_json_close(&j);
        }
    }
    print_message("%d of %zu flips still open\n", n_open, 2 * (sizeof whole - 1));
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0);
}

/* config.json's vocabulary size is not to be believed without tokens to justify it. */
static void test_huge_vocabulary(void **state)
{
    (void)state;
    char dir[] = "/tmp/apr-tok-XXXXXX", path[64];
    struct apr_err e;
    struct tok_json j;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(tok_json_write(dir, whole, sizeof whole - 1), 0);
    assert_int_equal(tok_json_open_in(&j, dir, UINT32_MAX, &e), APR_EFORMAT);
    tok_json_close(&j);
    assert_int_equal(tok_json_open_in(&j, dir, 5, &e), APR_ECONTRACT); /* <x> is 5 */
    assert_non_null(strstr(e.text, "id 5, expected 0..4"));
    tok_json_close(&j);
    assert_int_equal(tok_json_open_in(&j, dir, 4096, &e), APR_OK);
    assert_int_equal(apr_tok_n(j.t), 4096);
    poke(&j);
    tok_json_close(&j);
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0);
}

/* A vocabulary as a GGUF may bring it. */
static void test_gguf_vocabulary(void **state)
{
    (void)state;
    struct apr_str toks[] = {{"a", 1}, {"b", 1}, {"ab", 2}, {"", 0}, {"<c>", 3}, {"a", 1}};
    int32_t types[] = {1, 1, 1, 3, 3, 1};
    struct apr_str merges[] = {{"a b", 3}};
    struct apr_vocab v = {.kind = APR_VOCAB_BPE,
                          .n_toks = 6,
                          .toks = toks,
                          .types = types,
                          .merges = merges,
                          .n_merges = 1,
                          .pre = "gpt-2",
                          .bos_id = 4,
                          .eos_id = APR_ID_NONE,
                          .add_bos = 1,
                          .add_eos = -1};
    struct apr_err e;
    struct apr_tok *t;
    struct apr_ids ids = {0};
    assert_int_equal(apr_tok_open(&t, &v, "x.gguf", &e), APR_OK);
    assert_int_equal(apr_tok_encode(t, "ab<c>a", 6, APR_TOK_PARSE_SPECIAL | APR_TOK_ADD_SPECIAL, &ids, &e),
                     APR_OK);
    static const int32_t want[] = {4, 2, 4, 0};
    assert_int_equal(ids.n, 4);
    assert_memory_equal(ids.at, want, sizeof want);
    apr_tok_close(t);
    apr_ids_free(&ids);
    v.bos_id = 6;
    assert_int_equal(apr_tok_open(&t, &v, "x.gguf", &e), APR_EFORMAT);
    v.bos_id = APR_ID_NONE;
    merges[0] = (struct apr_str){"b a", 3};
    assert_int_equal(apr_tok_open(&t, &v, "x.gguf", &e), APR_EFORMAT);
    v.n_toks = 0;
    assert_int_equal(apr_tok_open(&t, &v, "x.gguf", &e), APR_ELOAD);
    v.kind = APR_VOCAB_NONE;
    assert_int_equal(apr_tok_open(&t, &v, "x.gguf", &e), APR_ELOAD);
}

/* SentencePiece: byte tokens are exactly two hex digits; scores may be anything. */
static void test_spm_vocabulary(void **state)
{
    (void)state;
    struct apr_str toks[] = {{"<unk>", 5}, {"<0x41>", 6}, {"<0x-1>", 6}, {"<0xZZ>", 6},      {"<0x1FF>", 7},
                             {"x", 1},     {"xx", 2},     {"xxx", 3},    {"\xe2\x96\x81", 3}};
    int32_t types[] = {2, 6, 6, 6, 6, 1, 1, 1, 1};
    float scores[] = {0, 0, 0, 0, 0, 0, -1, (float)NAN, -(float)INFINITY};
    struct apr_vocab v = {.kind = APR_VOCAB_SPM,
                          .n_toks = 9,
                          .toks = toks,
                          .types = types,
                          .scores = scores,
                          .bos_id = APR_ID_NONE,
                          .eos_id = APR_ID_NONE,
                          .add_bos = -1,
                          .add_eos = -1,
                          .add_space_prefix = -1};
    struct apr_err e;
    struct apr_tok *t;
    struct apr_ids ids = {0};
    v.unk_id = 0;
    assert_int_equal(apr_tok_open(&t, &v, "x.gguf", &e), APR_OK);
    assert_int_equal(apr_tok_encode(t, "AxxB", 4, 0, &ids, &e), APR_OK);
    static const int32_t want[] = {8, 1, 6, 0};
    assert_int_equal(ids.n, 4);
    assert_memory_equal(ids.at, want, sizeof want);
    struct apr_buf out;
    apr_buf_init(&out, 1 << 10);
    assert_int_equal(apr_tok_decode(t, ids.at, ids.n, false, &out, &e), APR_OK);
    assert_string_equal((char *)out.data, "Axx");
    apr_buf_free(&out);
    apr_ids_free(&ids);
    apr_tok_close(t);
    v.scores = NULL;
    assert_int_equal(apr_tok_open(&t, &v, "x.gguf", &e), APR_EFORMAT);
    assert_non_null(strstr(e.text, "scores"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),           cmocka_unit_test(test_deep),
        cmocka_unit_test(test_bombs),           cmocka_unit_test(test_unknown_pattern),
        cmocka_unit_test(test_truncated),       cmocka_unit_test(test_flipped),
        cmocka_unit_test(test_huge_vocabulary), cmocka_unit_test(test_gguf_vocabulary),
        cmocka_unit_test(test_spm_vocabulary),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

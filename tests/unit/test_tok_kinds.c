/* SentencePiece, Unigram and WordPiece: references made by transformers in tests/data/tokenizers, small
 * vocabularies whose results follow from the definitions, and files that are broken in every place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "io.h"
#include "json.h"
#include "log.h"
#include "tok/norm.h"
#include "tok/sp_merges.h"
#include "tok/sp_model.h"
#include "tok_json.h"

#define DATA "tests/data/tokenizers/"

enum { N_MERGES = 167 }; /* of the tokenizer.json that transformers made of spm.model */

static void ok(enum apr_code code, const struct apr_err *e)
{
    if (code != APR_OK) fail_msg("%s", e->text);
}

static void read_all(const char *path, struct apr_buf *b)
{
    struct apr_err e;
    apr_buf_init(b, 16 << 20);
    ok(apr_read_file(path, b->max_bytes, b, &e), &e);
}

/* A folder with one file. */
static enum apr_code open_file(struct tok_json *j, const char *name, const void *text, size_t n,
                               struct apr_err *e)
{
    char dir[] = "/tmp/apr-tok-XXXXXX", path[64];
    if (!mkdtemp(dir) || tok_file_write(dir, name, text, n) != 0) abort();
    enum apr_code code = tok_json_open_in(j, dir, 0, e);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    unlink(path);
    rmdir(dir);
    return code;
}

static void expect(const struct apr_tok *t, const char *text, unsigned flags, const char *want)
{
    struct apr_err e;
    struct apr_ids ids = {0};
    char got[400] = "";
    ok(apr_tok_encode(t, text, strlen(text), flags, &ids, &e), &e);
    for (size_t i = 0; i < ids.n; i++) {
        size_t n = strlen(got);
        snprintf(got + n, sizeof got - n, i ? " %d" : "%d", ids.at[i]);
    }
    if (strcmp(got, want) != 0) fail_msg("\"%s\": %s, expected %s", text, got, want);
    apr_ids_free(&ids);
}

static void expect_text(const struct apr_tok *t, const int32_t *ids, size_t n, bool with_special,
                        const char *want)
{
    struct apr_err e;
    struct apr_buf out;
    apr_buf_init(&out, 1 << 20);
    ok(apr_tok_decode(t, ids, n, with_special, &out, &e), &e);
    assert_string_equal(out.n_bytes ? (char *)out.data : "", want);
    apr_buf_free(&out);
}

static void check_golden(const struct apr_tok *t, const char *path)
{
    struct apr_err e;
    json_t *golden;
    ok(apr_json_load(path, 1 << 20, &golden, &e), &e);
    size_t i;
    const json_t *probe;
    json_array_foreach(golden, i, probe)
    {
        const json_t *want = json_object_get(probe, "ids");
        struct apr_ids ids = {0};
        const json_t *text = json_object_get(probe, "text");
        ok(apr_tok_encode(t, json_string_value(text), json_string_length(text),
                          APR_TOK_PARSE_SPECIAL | APR_TOK_ADD_SPECIAL, &ids, &e),
           &e);
        assert_int_equal(ids.n, json_array_size(want));
        for (size_t k = 0; k < ids.n; k++)
            assert_int_equal(ids.at[k], json_integer_value(json_array_get(want, k)));
        expect_text(t, ids.at, ids.n, true, json_string_value(json_object_get(probe, "decoded")));
        apr_ids_free(&ids);
    }
    assert_int_equal(i, 9);
    json_decref(golden);
}

/* tokenizer.model alone is what transformers makes of it; the merges that its scores imply give the same. */
static void test_model_file(void **state)
{
    (void)state;
    struct apr_err e;
    struct tok_json j;
    struct apr_buf b;
    read_all(DATA "spm.model", &b);
    ok(open_file(&j, "tokenizer.model", b.data, b.n_bytes, &e), &e);
    assert_int_equal(j.v.kind, APR_VOCAB_SPM);
    assert_int_equal(j.v.n_toks, 500);
    assert_int_equal(j.v.types[0], APR_TOK_UNKNOWN);
    assert_int_equal(j.v.types[3], APR_TOK_BYTE);
    j.v.bos_id = 1;
    apr_tok_close(j.t);
    ok(apr_tok_open(&j.t, &j.v, "tokenizer.model", &e), &e);
    check_golden(j.t, DATA "spm.json");
    apr_tok_close(j.t);
    ok(apr_sp_merges(&j.v, &j.arena, &j.v.merges, &j.v.n_merges, &e), &e);
    assert_int_equal(j.v.n_merges, N_MERGES);
    ok(apr_tok_open(&j.t, &j.v, "tokenizer.model", &e), &e);
    check_golden(j.t, DATA "spm.json");
    tok_json_close(&j);
    apr_buf_free(&b);
}

static void test_broken_model_file(void **state)
{
    (void)state;
    struct apr_buf b;
    read_all(DATA "spm.model", &b);
    size_t n_failed = 0;
    for (size_t n = 0; n < b.n_bytes; n += 1 + n / 64) { /* cut off */
        struct apr_err e = {0};
        struct tok_json j;
        enum apr_code code = open_file(&j, "tokenizer.model", b.data, n, &e);
        if (code != APR_OK && (code != APR_EFORMAT || !strstr(e.text, "tokenizer.model")))
            fail_msg("%zu: %s", n, e.text);
        n_failed += code != APR_OK;
        tok_json_close(&j);
    }
    assert_true(n_failed > 20);
    for (size_t i = 0; i < b.n_bytes * 8; i += 1 + i / 40) { /* a bit turned over */
        struct apr_err e = {0};
        struct tok_json j;
        b.data[i / 8] ^= (uint8_t)(1u << i % 8);
        enum apr_code code = open_file(&j, "tokenizer.model", b.data, b.n_bytes, &e);
        b.data[i / 8] ^= (uint8_t)(1u << i % 8);
        if (code != APR_OK && code != APR_EFORMAT && code != APR_ELOAD)
            fail_msg("bit %zu: %d %s", i, code, e.text);
        if (code == APR_OK) {
            struct apr_ids ids = {0};
            ok(apr_tok_encode(j.t, "Hello, world!", 13, 0, &ids, &e), &e);
            apr_ids_free(&ids);
        }
        tok_json_close(&j);
    }
    apr_buf_free(&b);
}

/* Fields in the wire format: tag, length, bytes. */
static void test_model_fields(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        const char *fault;
    } rows[] = {
        {"", 0, "no pieces"},
        {"\x0a\x00", 2, "has no text"},
        {"\x0a\x03\x0a\x01\xff", 5, "is not UTF-8"},
        {"\x0a\x05\x0a\x01x\x18\x07", 7, "type 7, expected 1 to 6"},
        {"\x0a\x08\x0a\x01x\x15\x00\x00\x80\x7f", 10, "no finite number"},
        {"\x0a\x05\x0a\x01x\x10\x00", 7, "score has wire type 0"},
        {"\x0a\xff\xff\xff\xff\x0f\x0a\x01x", 9, "needs"},
        {"\x0a\x03\x0a\x01x\x12\x02\x18\x09", 9, "model type 9"},
        {"\x0a\x03\x0a\x01x\x0b", 6, "wire type 3"},
        {"\x0a\x03\x0a\x01x\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80", 16, "more than 64 bits"},
        {"\x0a\x03\x0a\x01x", 5, "bos_id 1 of 1 pieces"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct apr_err e = {0};
        struct apr_arena arena;
        struct apr_sp_model sp;
        apr_arena_init(&arena);
        assert_int_equal(apr_sp_read(&sp, (const uint8_t *)rows[i].bytes, rows[i].n, &arena, "x.model", &e),
                         APR_EFORMAT);
        if (!strstr(e.text, rows[i].fault)) fail_msg("row %zu: %s", i, e.text);
        apr_arena_free(&arena);
    }
}

static void test_bert(void **state)
{
    (void)state;
    struct apr_err e;
    struct tok_json j;
    struct apr_buf b;
    read_all(DATA "bert.json", &b);
    ok(open_file(&j, "tokenizer.json", b.data, b.n_bytes, &e), &e);
    assert_int_equal(j.v.kind, APR_VOCAB_WPM);
    check_golden(j.t, DATA "bert-golden.json");
    tok_json_close(&j);
    apr_buf_free(&b);
}

static void open_text(struct tok_json *j, const char *text)
{
    struct apr_err e;
    ok(tok_json_open(j, text, strlen(text), &e), &e);
}

static void test_word_piece(void **state)
{
    (void)state;
    struct tok_json j;
    open_text(
        &j,
        "{\"added_tokens\":[{\"id\":0,\"content\":\"[UNK]\",\"special\":true}],\"normalizer\":{\"type\":"
        "\"BertNormalizer\"},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},\"decoder\":{\"type\":"
        "\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true},\"model\":{\"type\":\"WordPiece\",\"unk_token\":"
        "\"[UNK]\",\"continuing_subword_prefix\":\"##\",\"max_input_chars_per_word\":5,\"vocab\":{\"[UNK]\":"
        "0,"
        "\"a\":1,\"ab\":2,\"##c\":3,\"##cd\":4,\"d\":5,\".\":6,\"\xe4\xb8\x80\":7}}}");
    expect(j.t, "abcd", 0, "2 4");
    expect(j.t, "ABC\xc3\x80", 0, "0"); /* a continuation without a piece spoils the word */
    expect(j.t, "abc abc.d", 0, "2 3 2 3 6 5");
    expect(j.t, "abcccc", 0, "0"); /* six characters */
    expect(j.t, "abccc", 0, "2 3 3 3");
    expect(j.t, "\xc3\x81\xcc\x81", 0, "1"); /* accents go */
    expect(j.t,
           "a\xe4\xb8\x80"
           "d",
           0, "1 7 5");
    expect(j.t, "[UNK]", 0, "0 0 0"); /* three words, none of them known */
    expect(j.t, "[UNK]", APR_TOK_PARSE_SPECIAL, "0");
    static const int32_t ids[] = {2, 3, 6, 5, 0};
    expect_text(j.t, ids, 5, true, "abc. d [UNK]");
    expect_text(j.t, ids + 1, 1, true, "##c");
    expect_text(j.t, ids, 5, false, "abc. d");
    tok_json_close(&j);
}

#define UNIGRAM(bytes, norm)                                                                                 \
    "{\"added_tokens\":[{\"id\":0,\"content\":\"<unk>\",\"special\":true}],\"normalizer\":" norm             \
    ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\",\"prepend_scheme\":"        \
    "\"always\"},"                                                                                           \
    "\"decoder\":{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\",\"prepend_scheme\":\"always\"},"   \
    "\"model\":{"                                                                                            \
    "\"type\":\"Unigram\",\"unk_id\":0,\"byte_fallback\":" bytes                                             \
    ",\"vocab\":[[\"<unk>\",0],[\"\xe2\x96\x81\",-2],["                                                      \
    "\"a\",-3],[\"b\",-3],[\"ab\",-5.5],[\"\xe2\x96\x81"                                                     \
    "a\",-4],[\"<0xC3>\",0],[\"<0xA9>\",0],[\"aab\",-20]]}}"

static void test_unigram(void **state)
{
    (void)state;
    struct tok_json j;
    open_text(&j, UNIGRAM("false", "null"));
    expect(j.t, "ab", 0, "5 3");    /* -7 beats -2 -5.5 and -8 */
    expect(j.t, "bab", 0, "1 3 4"); /* -10.5 beats -11 */
    expect(j.t, "aab", 0, "5 4");
    expect(j.t, "a\xc3\xa9xb", 0, "5 0 3"); /* one unknown token for a run */
    expect(j.t, "a  a", 0, "5 1 5");
    expect(j.t, "<unk>", 0, "1 0");
    static const int32_t ids[] = {5, 3, 1, 4};
    expect_text(j.t, ids, 4, true, "ab ab");
    tok_json_close(&j);
    open_text(&j,
              UNIGRAM("true",
                      "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Strip\"},{\"type\":\"Replace\","
                      "\"pattern\":{\"Regex\":\" {2,}\"},\"content\":\" \"}]}"));
    expect(j.t, " a\xc3\xa9   b ", 0, "5 6 7 1 3"); /* both bytes have a token */
    expect(j.t, "ax", 0, "5 0");                    /* x has none */
    tok_json_close(&j);
}

/* Processor time of n times the same letter. */
static int64_t ns_of_letters(const struct apr_tok *t, const char *text, size_t n)
{
    struct apr_err e;
    struct apr_ids ids = {0};
    struct timespec begin, end;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begin);
    ok(apr_tok_encode(t, text, n, 0, &ids, &e), &e);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
    assert_int_equal(ids.n, n);
    apr_ids_free(&ids);
    return (end.tv_sec - begin.tv_sec) * INT64_C(1000000000) + end.tv_nsec - begin.tv_nsec;
}

/* A file may not make the search square: the pieces are the prefixes of one long run. Sixteen times the text
 * is not 256 times the work, whatever this machine is. */
static void test_linear(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    struct tok_json j;
    open_text(&j, UNIGRAM("false", "null"));
    char *text = apr_arena_get(&j.arena, N);
    memset(text, 'a', N);
    int64_t few = ns_of_letters(j.t, text, N / 16), again = ns_of_letters(j.t, text, N / 16);
    assert_true(ns_of_letters(j.t, text, N) < 100 * (again < few ? again : few));
    tok_json_close(&j);
}

#define SPM(pre, norm, decoder)                                                                              \
    "{\"added_tokens\":[{\"id\":0,\"content\":\"<s>\",\"special\":true,\"normalized\":false}],"              \
    "\"normalizer\":" norm ",\"pre_tokenizer\":" pre ",\"decoder\":" decoder                                 \
    ",\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":"                                         \
    "{\"<s>\":0,\"\xe2\x96\x81\":1,\"a\":2,\"\xe2\x96\x81"                                                   \
    "a\":3,\"<0xC3>\":4,\"<0xA9>\":5},\"merges\":["                                                          \
    "\"\xe2\x96\x81 a\"]}}"
#define METASPACE(scheme)                                                                                    \
    "{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\",\"prepend_scheme\":\"" scheme                  \
    "\",\"split\":false}"
#define DECODER                                                                                              \
    "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"\xe2\x96\x81\"},"  \
    "\"content\":"                                                                                           \
    "\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" "             \
    "\",\"start\":1,"                                                                                        \
    "\"stop\":0}]}"

/* Where a blank is put in front: always, at the start of the text, never. */
static void test_prefix(void **state)
{
    (void)state;
    struct tok_json j;
    static const char text[] = "a<s>a<s> a";
    open_text(&j, SPM(METASPACE("always"), "null", DECODER));
    expect(j.t, text, APR_TOK_PARSE_SPECIAL, "3 0 3 0 3");
    tok_json_close(&j);
    open_text(&j, SPM(METASPACE("first"), "null", DECODER));
    expect(j.t, text, APR_TOK_PARSE_SPECIAL, "3 0 2 0 3");
    expect(j.t, "<s>a", APR_TOK_PARSE_SPECIAL, "0 2");
    tok_json_close(&j);
    open_text(&j, SPM(METASPACE("never"), "null", DECODER));
    expect(j.t, text, APR_TOK_PARSE_SPECIAL, "2 0 2 0 3");
    tok_json_close(&j);
    open_text(&j, SPM("null", "{\"type\":\"Prepend\",\"prepend\":\"\xe2\x96\x81\"}", DECODER));
    expect(j.t, "a", 0, "3");
    expect(j.t, "", 0, "");
    expect(j.t, "\xc3\xa9", 0, "1 4 5");
    static const int32_t ids[] = {3, 4, 5, 4, 2, 5, 4};
    expect_text(j.t, ids, 3, true, "a\xc3\xa9");
    /* A run of bytes that is no text is U+FFFD for each; the next run stands for itself. */
    expect_text(j.t, ids, 5, true,
                "a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
                "a");
    tok_json_close(&j);
}

/* Streaming gives whole characters only, also of byte tokens. */
static void test_streaming(void **state)
{
    (void)state;
    struct tok_json j;
    struct apr_err e;
    open_text(&j, SPM("null", "null", DECODER));
    struct apr_utf8_gate gate = {0};
    struct apr_buf piece, out;
    apr_buf_init(&piece, 100);
    apr_buf_init(&out, 100);
    ok(apr_tok_piece(j.t, 4, true, &piece, &e), &e);
    ok(apr_utf8_pass(&gate, piece.data, piece.n_bytes, false, &out, &e), &e);
    assert_int_equal(out.n_bytes, 0);
    piece.n_bytes = 0;
    ok(apr_tok_piece(j.t, 5, true, &piece, &e), &e);
    ok(apr_utf8_pass(&gate, piece.data, piece.n_bytes, false, &out, &e), &e);
    assert_string_equal((char *)out.data, "\xc3\xa9");
    apr_buf_free(&piece);
    apr_buf_free(&out);
    tok_json_close(&j);
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {SPM("null", "null", "{\"type\":\"CTC\"}"), "$.decoder: CTC"},
        {SPM("null", "null", "{\"type\":\"Strip\",\"content\":\"x\",\"start\":1}"), "$.decoder: Strip"},
        {SPM("{\"type\":\"UnicodeScripts\"}", "null", "null"), "$.pre_tokenizer: \"UnicodeScripts\""},
        {SPM(METASPACE("sometimes"), "null", "null"), "prepend_scheme"},
        {SPM("null", "{\"type\":\"ByteLevel\"}", "null"), "$.normalizer: \"ByteLevel\""},
        {SPM("null", "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"!\"}", "null"), "no base64"},
        {SPM("null", "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"BAAAAA==\"}", "null"),
         "cannot fit"},
        {SPM("null", "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"BAAAAAAAAABh\"}", "null"),
         "has no end"},
        {SPM("null", "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(\"},\"content\":\"\"}", "null"), "("},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct apr_err e = {0};
        struct tok_json j;
        enum apr_code code = tok_json_open(&j, rows[i][0], strlen(rows[i][0]), &e);
        if (code == APR_OK || !strstr(e.text, rows[i][1])) fail_msg("row %zu: %d \"%s\"", i, code, e.text);
        tok_json_close(&j);
    }
}

static void expect_norm(const char *json, const char *in, const char *want)
{
    struct apr_err e;
    struct apr_arena arena;
    struct apr_norm norm;
    struct apr_norm_work w;
    json_t *j;
    apr_arena_init(&arena);
    apr_norm_work_init(&w);
    ok(apr_json_parse(json, strlen(json), "x", &j, &e), &e);
    ok(apr_norm_read(j, &arena, &norm, "x", &e), &e);
    ok(apr_norm_run(&norm, &w, (const uint8_t *)in, strlen(in), &e), &e);
    if (w.n != strlen(want) || memcmp(w.p, want, w.n) != 0)
        fail_msg("%s: \"%.*s\"", json, (int)w.n, (const char *)w.p);
    apr_norm_close(&norm);
    apr_norm_work_free(&w);
    apr_arena_free(&arena);
    json_decref(j);
}

static void test_normalizers(void **state)
{
    (void)state;
    expect_norm("{\"type\":\"Strip\",\"strip_left\":false}", " a\xe3\x80\x80 ", " a");
    expect_norm("{\"type\":\"StripAccents\"}", "e\xcc\x81x", "ex");
    expect_norm("{\"type\":\"Lowercase\"}", "A\xc3\x80\xc4\xb0", "a\xc3\xa0i\xcc\x87");
    expect_norm("{\"type\":\"Nmt\"}",
                "a\tb\x01\xe2\x80\x8b"
                "c",
                "a b c");
    expect_norm("{\"type\":\"BertNormalizer\",\"lowercase\":false}", "\xc3\x89\t\xe4\xb8\x80\x02",
                "\xc3\x89  \xe4\xb8\x80 ");
    expect_norm("{\"type\":\"BertNormalizer\"}", "\xc3\x89", "e");
    expect_norm("{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"[0-9]+\"},\"content\":\"#\"}", "a12b3",
                "a#b#");
    expect_norm("{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" {2,}\"},\"content\":\" \"}", "a   b c  ",
                "a b c ");
    expect_norm("{\"type\":\"Precompiled\",\"precompiled_charsmap\":null}", "x", "x");
}

int main(void)
{
    apr_log_set(APR_LOG_QUIET, "test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model_file),   cmocka_unit_test(test_broken_model_file),
        cmocka_unit_test(test_model_fields), cmocka_unit_test(test_bert),
        cmocka_unit_test(test_word_piece),   cmocka_unit_test(test_unigram),
        cmocka_unit_test(test_linear),       cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_streaming),    cmocka_unit_test(test_refused),
        cmocka_unit_test(test_normalizers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

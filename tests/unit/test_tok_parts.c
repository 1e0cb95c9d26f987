/* The parts of tok/ one by one: normal forms, splitting, added tokens, what a post-processor adds. Expected
 * values are those of Hugging Face tokenizers' documented behaviour and of the Unicode standard. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tok/bytes.h"
#include "tok/norm.h"
#include "tok/pre.h"
#include "tok_json.h"

static void ok(enum apr_code code, const struct apr_err *e)
{
    if (code != APR_OK) fail_msg("%s", e->text);
}

static void test_alphabet(void **state)
{
    (void)state;
    bool seen[324] = {false};
    for (int b = 0; b < 256; b++) {
        uint32_t cp = apr_byte_cp((uint8_t)b);
        assert_true(cp < 324 && cp > 32 && !seen[cp]);
        seen[cp] = true;
        assert_int_equal(apr_cp_byte(cp), b);
    }
    assert_int_equal(apr_byte_cp(' '), 0x120);
    assert_int_equal(apr_byte_cp('\n'), 0x10a);
    assert_int_equal(apr_byte_cp(0xad), 0x143);
    assert_int_equal(apr_byte_cp(0x7f), 0x121);
    assert_int_equal(apr_cp_byte(' '), -1);
    assert_int_equal(apr_cp_byte(0x144), -1);
}

static void check_norm(enum apr_norm_op op, const char *in, const char *want)
{
    struct apr_err e;
    struct apr_norm norm = {.steps = {{.op = op}}, .n_steps = 1};
    struct apr_norm_work w;
    apr_norm_work_init(&w);
    ok(apr_norm_run(&norm, &w, (const uint8_t *)in, strlen(in), &e), &e);
    if (w.n != strlen(want) || memcmp(w.p, want, w.n) != 0)
        fail_msg("%s: %.*s", in, (int)w.n, (const char *)w.p);
    apr_norm_work_free(&w);
}

static void test_normal_forms(void **state)
{
    (void)state;
    check_norm(APR_NORM_NFC, "plain", "plain");
    check_norm(APR_NORM_NFC, "e\xcc\x81", "\xc3\xa9");
    check_norm(APR_NORM_NFC, "\xe2\x84\xa6", "\xce\xa9");                             /* OHM SIGN -> OMEGA */
    check_norm(APR_NORM_NFC, "\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8", "\xea\xb0\x81"); /* Hangul jamo */
    check_norm(APR_NORM_NFC, "\xe0\xa5\x98", "\xe0\xa4\x95\xe0\xa4\xbc"); /* excluded from composition */
    check_norm(APR_NORM_NFC, "\xef\xac\x81", "\xef\xac\x81");             /* ligature stays */
    check_norm(APR_NORM_NFKC, "\xef\xac\x81", "fi");
    check_norm(APR_NORM_NFD, "\xc3\xa9", "e\xcc\x81");
    check_norm(APR_NORM_NFKD, "\xef\xbc\xa1", "A");
    /* q + dot above + dot below: the marks change places, nothing composes */
    check_norm(APR_NORM_NFC, "q\xcc\x87\xcc\xa3", "q\xcc\xa3\xcc\x87");
    check_norm(APR_NORM_LOWER, "A\xc3\x89\xc4\xb0", "a\xc3\xa9i\xcc\x87");
}

/* A run of marks longer than what the insertion sort takes is ordered alike. */
static void test_long_run_of_marks(void **state)
{
    (void)state;
    char in[2 + 4 * 40], want[2 + 4 * 40];
    size_t n = 1;
    in[0] = want[0] = 'q';
    for (size_t i = 0; i < 40; i++, n += 4) memcpy(in + n, "\xcc\x81\xcc\xa3", 4); /* classes 230, 220 */
    in[n] = '\0';
    for (size_t i = 0; i < 40; i++) {
        memcpy(want + 1 + 2 * i, "\xcc\xa3", 2);
        memcpy(want + 1 + 80 + 2 * i, "\xcc\x81", 2);
    }
    want[n] = '\0';
    check_norm(APR_NORM_NFD, in, want);
}

/* Parts joined by "|". */
static void check_split(const char *pre_json, const char *text, const char *want)
{
    struct apr_err e;
    struct apr_arena arena;
    struct apr_pre_step steps[APR_PRE_MAX_STEPS];
    struct apr_pretok pt;
    struct apr_pretok_work w;
    size_t n_steps;
    char got[512] = "";
    json_t *j = json_loads(pre_json, 0, NULL);
    assert_non_null(j);
    apr_arena_init(&arena);
    ok(apr_pre_read(j, &arena, steps, &n_steps, "t", &e), &e);
    ok(apr_pretok_open(&pt, steps, n_steps, "t", &e), &e);
    ok(apr_pretok_work_init(&w, strlen(text), &e), &e);
    ok(apr_pretok_run(&pt, &w, (const uint8_t *)text, strlen(text), &e), &e);
    for (size_t i = 0; i < w.n; i++) {
        size_t n = strlen(got);
        snprintf(got + n, sizeof got - n, "%s%.*s", i ? "|" : "", (int)w.at[i].n_bytes,
                 (const char *)w.text + w.at[i].off);
    }
    assert_string_equal(got, want);
    apr_pretok_work_free(&w);
    apr_pretok_close(&pt);
    json_decref(j);
    apr_arena_free(&arena);
}

#define SPLIT(pattern, behavior, invert)                                                                     \
    "{\"type\":\"Split\",\"pattern\":{" pattern "},\"behavior\":\"" behavior "\",\"invert\":" invert "}"
#define DASH "\"String\":\"-\""

static void test_behaviors(void **state)
{
    (void)state;
    /* the example of tokenizers' documentation of SplitDelimiterBehavior */
    check_split(SPLIT(DASH, "Removed", "false"), "the-final--countdown", "the|final|countdown");
    check_split(SPLIT(DASH, "Isolated", "false"), "the-final--countdown", "the|-|final|-|-|countdown");
    check_split(SPLIT(DASH, "MergedWithPrevious", "false"), "the-final--countdown",
                "the-|final-|-|countdown");
    check_split(SPLIT(DASH, "MergedWithNext", "false"), "the-final--countdown", "the|-final|-|-countdown");
    check_split(SPLIT(DASH, "Contiguous", "false"), "the-final--countdown", "the|-|final|--|countdown");
    check_split(SPLIT("\"Regex\":\"[a-z]+\"", "Removed", "true"), "the-final--countdown",
                "the|final|countdown");
    check_split(SPLIT("\"Regex\":\"(?=(?:\\\\d{3})+(?!\\\\d))\"", "Isolated", "false"), "1234567",
                "1|234|567");
}

static void test_pre_tokenizers(void **state)
{
    (void)state;
    check_split("{\"type\":\"ByteLevel\",\"add_prefix_space\":false}", "I've  3 dogs!", "I|'ve| | 3| dogs|!");
    check_split("{\"type\":\"ByteLevel\",\"add_prefix_space\":true}", "dog", " dog");
    check_split("{\"type\":\"ByteLevel\",\"add_prefix_space\":true}", " dog", " dog");
    check_split("{\"type\":\"Digits\",\"individual_digits\":true}", "a12", "a|1|2");
    check_split("{\"type\":\"Digits\",\"individual_digits\":false}", "a12", "a|12");
    check_split("{\"type\":\"Punctuation\"}", "a,b..", "a|,|b|.|.");
    check_split("{\"type\":\"Whitespace\"}", "ab c,d  e", "ab|c|,|d|e");
    check_split("{\"type\":\"WhitespaceSplit\"}", "ab c,d  e", "ab|c,d|e");
    check_split("{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"WhitespaceSplit\"},"
                "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":false}]}",
                "ab c", " ab| c");
    /* U+180E is no white space, U+0085 and U+00A0 are */
    check_split(SPLIT("\"Regex\":\"\\\\s\"", "Isolated", "false"),
                "a\xe1\xa0\x8e"
                "b\xc2\x85"
                "c\xc2\xa0",
                "a\xe1\xa0\x8e"
                "b|\xc2\x85|c|\xc2\xa0");
    /* \w has marks */
    check_split(SPLIT("\"Regex\":\"\\\\w+\"", "Isolated", "false"), "q\xcc\xa3!", "q\xcc\xa3|!");
    check_split(SPLIT("\"Regex\":\"[^\\\\s\\\\w]\"", "Isolated", "false"), "a-b", "a|-|b");
}

/* Every row of the table compiles, splits without loss, and is found by its own steps and names. */
static void test_table(void **state)
{
    (void)state;
    static const char text[] =
        "I'm 12345 na\xc3\xafve; \xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e  \n\n\tx=y**2 \xf0\x9f\x99\x82 don'T ";
    for (size_t i = 0; apr_pre_at(i); i++) {
        const struct apr_pre_row *row = apr_pre_at(i);
        struct apr_err e;
        struct apr_pretok pt;
        struct apr_pretok_work w;
        size_t n_steps = apr_pre_n_steps(row), done = 0;
        ok(apr_pretok_open(&pt, row->steps, n_steps, row->names, &e), &e);
        ok(apr_pretok_work_init(&w, sizeof text, &e), &e);
        ok(apr_pretok_run(&pt, &w, (const uint8_t *)text, sizeof text - 1, &e), &e);
        for (size_t k = 0; k < w.n; k++, done += w.at[k - 1].n_bytes) assert_int_equal(w.at[k].off, done);
        assert_int_equal(done, sizeof text - 1);
        const struct apr_pre_row *found = apr_pre_find(row->steps, n_steps, row->ignore_merges, row->add_bos);
        assert_non_null(found);
        assert_int_equal(apr_pre_n_steps(found), n_steps);
        for (size_t k = 0; k < n_steps; k++)
            assert_string_equal(found->steps[k].pattern, row->steps[k].pattern);
        char names[512], *save = NULL;
        snprintf(names, sizeof names, "%s", row->names);
        for (char *name = strtok_r(names, " ", &save); name; name = strtok_r(NULL, " ", &save))
            assert_ptr_equal(apr_pre_named(name), row);
        apr_pretok_work_free(&w);
        apr_pretok_close(&pt);
    }
    assert_null(apr_pre_named(""));
    assert_null(apr_pre_named("qwen"));
    assert_null(apr_pre_named("qwen2 qwen2"));
    assert_null(apr_pre_named("gpt-2 phi-2"));
}

/* ---- whole tokenizers ---- */

static void check_ids(const char *doc, const char *text, unsigned flags, const char *want)
{
    struct apr_err e;
    struct tok_json j;
    struct apr_ids ids = {0};
    char got[256] = "";
    ok(tok_json_open(&j, doc, strlen(doc), &e), &e);
    ok(apr_tok_encode(j.t, text, strlen(text), flags, &ids, &e), &e);
    for (size_t i = 0; i < ids.n; i++) {
        size_t n = strlen(got);
        snprintf(got + n, sizeof got - n, i ? " %d" : "%d", ids.at[i]);
    }
    if (strcmp(got, want) != 0) fail_msg("\"%s\": %s, expected %s", text, got, want);
    apr_ids_free(&ids);
    tok_json_close(&j);
}

#define TOK(id, content, flags) "{\"id\":" #id ",\"content\":\"" content "\",\"special\":true" flags "}"
#define DOC(added, more)                                                                                     \
    "{\"added_tokens\":[" added "]," more "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":"  \
    "false},\"decoder\":{\"type\":\"ByteLevel\"},"                                                           \
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"\\u0120\":2,\"ab\":3,\"<\":4,\">\":5,"         \
    "\"\\u00c3\":6,"                                                                                         \
    "\"\\u00a9\":7},\"merges\":[\"a b\"]}}"

static void test_added(void **state)
{
    (void)state;
    const unsigned parse = APR_TOK_PARSE_SPECIAL;
    check_ids(DOC(TOK(8, "<a>", ""), ""), "a<a>b", parse, "0 8 1");
    check_ids(DOC(TOK(8, "<a>", ""), ""), "a<a>b", 0, "0 4 0 5 1");
    /* leftmost, then longest */
    check_ids(DOC(TOK(8, "ab", "") "," TOK(9, "bab", "") "," TOK(10, "aba", ""), ""), "ababab", parse,
              "10 9");
    check_ids(DOC(TOK(8, "<a", "") "," TOK(9, "<a><b>", ""), ""), "<a><a", parse, "8 5 8");
    /* white space goes with the token */
    check_ids(DOC(TOK(8, "<a>", ",\"lstrip\":true"), ""), "b  <a> b", parse, "1 8 2 1");
    check_ids(DOC(TOK(8, "<a>", ",\"rstrip\":true"), ""), "b <a>  b", parse, "1 2 8 1");
    check_ids(DOC(TOK(8, "<a>", ",\"lstrip\":true,\"rstrip\":true"), ""), " <a> <a> ", parse, "8 8");
    check_ids(DOC(TOK(8, "b", ",\"single_word\":true"), ""), "ab b b", parse, "3 2 8 2 8");
    /* sought before normalization, or after it */
    check_ids(DOC(TOK(8, "B", ""), "\"normalizer\":{\"type\":\"Lowercase\"},"), "ABb", parse, "0 8 1");
    check_ids(DOC(TOK(8, "B", ",\"normalized\":true"), "\"normalizer\":{\"type\":\"Lowercase\"},"), "ABb",
              parse, "0 8 8");
    check_ids(DOC(TOK(8, "e\\u0301", ""), "\"normalizer\":{\"type\":\"NFC\"},"), "e\xcc\x81\xc3\xa9", parse,
              "8 6 7");
}

#define TEMPLATE(single)                                                                                     \
    "\"post_processor\":{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"},{\"type\":"          \
    "\"TemplateProcessing\","                                                                                \
    "\"single\":[" single                                                                                    \
    "],\"pair\":[],\"special_tokens\":{\"<a>\":{\"id\":\"<a>\",\"ids\":[8],\"tokens\":[\"<a>\"]},"           \
    "\"<b>\":{\"id\":\"<b>\",\"ids\":[9,8],\"tokens\":[]}}}]},"
#define SEQUENCE   "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}"
#define SPECIAL(x) "{\"SpecialToken\":{\"id\":\"" x "\",\"type_id\":0}}"

static void test_around(void **state)
{
    (void)state;
    const unsigned add = APR_TOK_ADD_SPECIAL;
    check_ids(DOC(TOK(8, "<a>", "") "," TOK(9, "<b>", ""), TEMPLATE(SPECIAL("<a>") "," SEQUENCE)), "b", add,
              "8 1");
    check_ids(DOC(TOK(8, "<a>", "") "," TOK(9, "<b>", ""), TEMPLATE(SPECIAL("<a>") "," SEQUENCE)), "b", 0,
              "1");
    check_ids(DOC(TOK(8, "<a>", "") "," TOK(9, "<b>", ""), TEMPLATE(SEQUENCE "," SPECIAL("<b>"))), "b", add,
              "1 9 8");
    check_ids(DOC(TOK(8, "<a>", "") "," TOK(9, "<b>", ""),
                  TEMPLATE(SPECIAL("<b>") "," SEQUENCE "," SPECIAL("<a>"))),
              "", add, "9 8 8");
    check_ids(
        DOC(TOK(8, "<a>", ""),
            "\"post_processor\":{\"type\":\"RobertaProcessing\",\"cls\":[\"<a>\",8],\"sep\":[\"<\",4]},"),
        "b", add, "8 1 4");
    check_ids(DOC("", ""), "b", add, "1");
}

static void test_model_options(void **state)
{
    (void)state;
#define MODEL(options)                                                                                       \
    "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"decoder\":{\"type\":"          \
    "\"ByteLevel\"},"                                                                                        \
    "\"model\":{\"type\":\"BPE\"," options                                                                   \
    "\"vocab\":{\"a\":0,\"b\":1,\"?\":2,\"aba\":3,\"ab\":4},\"merges\":[\"a b\"]}}"
    check_ids(MODEL(""), "aba", 0, "4 0");
    check_ids(MODEL("\"ignore_merges\":true,"), "aba", 0, "3");
    check_ids(MODEL(""), "axxb", 0,
              "4"); /* bytes that the vocabulary lacks vanish before the merges, as in tokenizers */
    check_ids(MODEL("\"unk_token\":\"?\","), "axxb", 0, "0 2 2 1");
    check_ids(MODEL("\"unk_token\":\"?\",\"fuse_unk\":true,"), "axxb", 0, "0 2 1");
    struct apr_err e;
    struct tok_json j;
    static const char dropout[] = MODEL("\"dropout\":0.1,");
    assert_int_equal(tok_json_open(&j, dropout, sizeof dropout - 1, &e), APR_ELOAD);
    assert_non_null(strstr(e.text, "dropout"));
    tok_json_close(&j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alphabet),
        cmocka_unit_test(test_normal_forms),
        cmocka_unit_test(test_long_run_of_marks),
        cmocka_unit_test(test_behaviors),
        cmocka_unit_test(test_pre_tokenizers),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_added),
        cmocka_unit_test(test_around),
        cmocka_unit_test(test_model_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

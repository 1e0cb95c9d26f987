/* The tokenizer on the demonstration model: every reference text, both ways, from tokenizer.json and from
 * vocab.json + merges.txt. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "io.h"
#include "json.h"
#include "tok/tok.h"

#define DEMO   "tests/data/apr-demo-8M-Instruct"
#define GOLDEN "tests/data/apr-demo-golden/tokenizer.json"

struct fixture {
    struct apr_arena arena;
    struct apr_vocab v;
    json_t *tok_config, *config;
    struct apr_tok *t;
};

static void ok(enum apr_code code, const struct apr_err *e)
{
    if (code != APR_OK) fail_msg("%s", e->text);
}

static void open_dir(struct fixture *f, const char *dir, uint32_t n_vocab)
{
    struct apr_err e;
    char path[512];
    *f = (struct fixture){0};
    snprintf(path, sizeof path, "%s/config.json", dir);
    apr_arena_init(&f->arena);
    if (apr_json_load(path, 1 << 20, &f->config, &e) == APR_ENOTFOUND) f->config = NULL;
    ok(apr_tok_read_hf(dir, n_vocab, f->config, &f->arena, &f->v, &f->tok_config, &e), &e);
    ok(apr_tok_open(&f->t, &f->v, dir, &e), &e);
}

static void close_dir(struct fixture *f)
{
    apr_tok_close(f->t);
    json_decref(f->v.hf);
    json_decref(f->tok_config);
    json_decref(f->config);
    apr_arena_free(&f->arena);
}

static void check_entry(const struct apr_tok *t, size_t i, const json_t *entry)
{
    struct apr_err e;
    const json_t *text = json_object_get(entry, "text"), *want = json_object_get(entry, "ids");
    const json_t *decoded = json_object_get(entry, "decoded");
    struct apr_ids ids = {0};
    ok(apr_tok_encode(t, json_string_value(text), json_string_length(text), APR_TOK_PARSE_SPECIAL, &ids, &e),
       &e);
    bool same = ids.n == json_array_size(want);
    for (size_t k = 0; same && k < ids.n; k++)
        same = ids.at[k] == json_integer_value(json_array_get(want, k));
    if (!same) fail_msg("entry %zu: other ids", i);
    struct apr_buf out;
    apr_buf_init(&out, 1 << 20);
    ok(apr_tok_decode(t, ids.at, ids.n, true, &out, &e), &e);
    if (out.n_bytes != json_string_length(decoded) ||
        (out.n_bytes && memcmp(out.data, json_string_value(decoded), out.n_bytes) != 0))
        fail_msg("entry %zu: other text: %s", i, (const char *)out.data);
    apr_buf_free(&out);
    apr_ids_free(&ids);
}

static void check_golden(const struct apr_tok *t)
{
    struct apr_err e;
    json_t *golden = NULL;
    struct apr_buf b;
    apr_buf_init(&b, 1 << 20);
    ok(apr_read_file(GOLDEN, 1 << 20, &b, &e), &e);
    golden = json_loadb((const char *)b.data, b.n_bytes, JSON_ALLOW_NUL, NULL);
    assert_int_equal(json_array_size(golden), 25);
    for (size_t i = 0; i < json_array_size(golden); i++) check_entry(t, i, json_array_get(golden, i));
    json_decref(golden);
    apr_buf_free(&b);
}

static void test_golden(void **state)
{
    (void)state;
    struct fixture f;
    open_dir(&f, DEMO, 4096);
    check_golden(f.t);
    close_dir(&f);
}

static void test_vocabulary(void **state)
{
    (void)state;
    struct fixture f;
    open_dir(&f, DEMO, 4096);
    const struct apr_vocab *v = &f.v;
    assert_int_equal(v->kind, APR_VOCAB_BPE);
    assert_int_equal(v->n_toks, 4096);
    assert_int_equal(v->n_merges, 3744);
    assert_string_equal(v->pre, "qwen2");
    assert_string_equal(v->hf_class, "Qwen2Tokenizer");
    assert_memory_equal(v->toks[4095].p, "[PAD4095]", 9);
    assert_int_equal(v->types[4095], APR_TOK_UNUSED);
    assert_int_equal(v->types[0], APR_TOK_NORMAL);
    assert_int_equal(v->types[4002], APR_TOK_CONTROL);
    assert_int_equal(v->types[4014], APR_TOK_USER);    /* <tool_call> */
    assert_int_equal(v->types[4016], APR_TOK_CONTROL); /* <|fim_prefix|>: not special, but looks so */
    assert_int_equal(v->eos_id, 4002);
    assert_int_equal(v->pad_id, 4000);
    assert_int_equal(v->bos_id, 4000);
    assert_int_equal(v->unk_id, APR_ID_NONE);
    assert_int_equal(v->n_special_order, 3);
    assert_string_equal(v->special_order[0], "eos");
    assert_string_equal(v->special_order[1], "pad");
    assert_string_equal(v->special_order[2], "bos");
    assert_int_equal(v->add_bos, 0);
    assert_int_equal(v->add_eos, -1);
    assert_memory_equal(v->chat_template, "{%- if tools %}", 15);
    assert_null(json_object_get(f.tok_config, "chat_template"));
    assert_int_equal(json_object_size(json_object_get(json_object_get(v->hf, "model"), "vocab")), 0);
    assert_int_equal(apr_tok_find(f.t, "<|im_end|>", 10), 4002);
    assert_int_equal(apr_tok_find(f.t, "[PAD4095]", 9), APR_ID_NONE);
    close_dir(&f);
}

static void copy_file(const char *dir, const char *name)
{
    char path[256];
    struct apr_err e;
    struct apr_buf b;
    apr_buf_init(&b, 1 << 24);
    snprintf(path, sizeof path, DEMO "/%s", name);
    ok(apr_read_file(path, 1 << 24, &b, &e), &e);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0 && write(fd, b.data, b.n_bytes) == (ssize_t)b.n_bytes && close(fd) == 0);
    apr_buf_free(&b);
}

/* vocab.json and merges.txt give the same tokenizer. */
static void test_old_files(void **state)
{
    (void)state;
    char dir[] = "/tmp/apr-tok-XXXXXX", path[256];
    static const char *const names[] = {"vocab.json", "merges.txt", "tokenizer_config.json"};
    assert_non_null(mkdtemp(dir));
    for (size_t i = 0; i < 3; i++) copy_file(dir, names[i]);
    struct fixture f, g;
    open_dir(&f, dir, 4096);
    open_dir(&g, DEMO, 4096);
    check_golden(f.t);
    assert_string_equal(f.v.pre, "qwen2");
    assert_int_equal(f.v.n_merges, g.v.n_merges);
    for (uint32_t i = 0; i < 4096; i++) {
        assert_int_equal(f.v.types[i], g.v.types[i]);
        assert_int_equal(f.v.toks[i].n_bytes, g.v.toks[i].n_bytes);
        assert_memory_equal(f.v.toks[i].p, g.v.toks[i].p, f.v.toks[i].n_bytes);
    }
    close_dir(&f);
    close_dir(&g);
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(rmdir(dir), 0);
}

/* As a GGUF gives it: no tokenizer.json, the name of the pre-tokenizer decides. */
static void test_without_json(void **state)
{
    (void)state;
    struct apr_err e;
    struct fixture f;
    open_dir(&f, DEMO, 4096);
    struct apr_vocab v = f.v;
    v.hf = NULL;
    struct apr_tok *t;
    ok(apr_tok_open(&t, &v, "demo.gguf", &e), &e);
    check_golden(t);
    apr_tok_close(t);
    v.pre = "no-such-pre";
    assert_int_equal(apr_tok_open(&t, &v, "demo.gguf", &e), APR_ELOAD);
    assert_non_null(strstr(e.text, "no-such-pre"));
    assert_non_null(strstr(e.text, "--pre"));
    v.pre = NULL;
    assert_int_equal(apr_tok_open(&t, &v, "demo.gguf", &e), APR_ELOAD);
    assert_non_null(strstr(e.text, "--pre"));
    v.kind = APR_VOCAB_UGM;
    assert_int_equal(apr_tok_open(&t, &v, "demo.gguf", &e), APR_EFORMAT);
    assert_non_null(strstr(e.text, "scores"));
    close_dir(&f);
}

static void expect_ids(const struct apr_tok *t, const char *text, unsigned flags, size_t n,
                       const int32_t *want)
{
    struct apr_err e;
    struct apr_ids ids = {0};
    ok(apr_tok_encode(t, text, strlen(text), flags, &ids, &e), &e);
    assert_int_equal(ids.n, n);
    assert_memory_equal(ids.at, want, n * sizeof *want);
    apr_ids_free(&ids);
}

static void write_file(const char *dir, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && close(fd) == 0);
}

static const char small_tokenizer[] =
    "{\"added_tokens\":[{\"id\":2,\"content\":\"<s>\",\"special\":true}],\"decoder\":{\"type\":\"ByteLevel\"}"
    ","
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},"
    "{\"Sequence\":{\"id\":\"A\"}}],\"pair\":[],\"special_tokens\":{\"<s>\":{\"ids\":[2]}}},"
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}}";
static const char small_config[] =
    "{\"bos_token\":{\"content\":\"<s>\"},\"eos_token\":\"<end>\",\"chat_template\":[{\"name\":\"tools\","
    "\"template\":"
    "\"T\"},{\"name\":\"default\",\"template\":\"D\"}],\"added_tokens_decoder\":{\"2\":{\"content\":\"<s>\"},"
    "\"5\":{\"content\":\"<end>\",\"special\":true},\"1\":{\"content\":\"<never>\"}}}";

/* What tokenizer_config.json and the template file beside it add to tokenizer.json. */
static void test_config(void **state)
{
    (void)state;
    char dir[] = "/tmp/apr-tok-XXXXXX", path[256];
    struct fixture f;
    assert_non_null(mkdtemp(dir));
    write_file(dir, "tokenizer.json", small_tokenizer);
    write_file(dir, "chat_template.jinja", "from the file\n");
    open_dir(&f, dir, 0); /* no tokenizer_config.json */
    assert_int_equal(f.v.bos_id, APR_ID_NONE);
    assert_int_equal(f.v.add_bos, 1);
    assert_string_equal(f.v.chat_template, "from the file\n");
    expect_ids(f.t, "a", APR_TOK_ADD_SPECIAL, 2, (int32_t[]){2, 0});
    close_dir(&f);
    write_file(dir, "tokenizer_config.json", small_config);
    open_dir(&f, dir, 0);
    assert_int_equal(f.v.n_toks, 6);
    assert_int_equal(f.v.bos_id, 2);
    assert_int_equal(f.v.eos_id, 5);
    assert_int_equal(f.v.types[5], APR_TOK_CONTROL);
    assert_memory_equal(f.v.toks[3].p, "[PAD3]", 6);
    assert_memory_equal(f.v.toks[1].p, "b", 1);
    assert_string_equal(f.v.chat_template, "D");
    assert_null(json_object_get(f.tok_config, "chat_template")); /* the vocabulary has them all */
    assert_int_equal(f.v.n_templates, 1);
    expect_ids(f.t, "a<end>", APR_TOK_PARSE_SPECIAL, 2, (int32_t[]){0, 5});
    close_dir(&f);
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"};
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(rmdir(dir), 0);
}

static void test_special(void **state)
{
    (void)state;
    struct apr_err e;
    struct fixture f;
    open_dir(&f, DEMO, 4096);
    expect_ids(f.t, "<|im_end|>", APR_TOK_PARSE_SPECIAL, 1, (int32_t[]){4002});
    struct apr_ids ids = {0};
    ok(apr_tok_encode(f.t, "<|im_end|><tool_call>", 21, 0, &ids, &e), &e);
    assert_true(ids.n > 2);
    for (size_t i = 0; i + 1 < ids.n; i++) assert_true(ids.at[i] < 4000);
    assert_int_equal(ids.at[ids.n - 1], 4014); /* not special: always a token */
    ids.n = 0;
    struct apr_buf b;
    apr_buf_init(&b, 1 << 16);
    ok(apr_tok_piece(f.t, 4002, false, &b, &e), &e);
    assert_int_equal(b.n_bytes, 0);
    ok(apr_tok_piece(f.t, 4002, true, &b, &e), &e);
    assert_string_equal((char *)b.data, "<|im_end|>");
    assert_int_equal(apr_tok_piece(f.t, 4096, true, &b, &e), APR_EFORMAT);
    assert_int_equal(apr_tok_piece(f.t, -1, true, &b, &e), APR_EFORMAT);
    apr_buf_free(&b);
    apr_ids_free(&ids);
    close_dir(&f);
}

/* Any bytes: what comes back is the text with ill-formed parts replaced (NFC leaves these bytes alone). */
static void test_any_bytes(void **state)
{
    (void)state;
    struct apr_err e;
    struct fixture f;
    open_dir(&f, DEMO, 4096);
    static const struct {
        const char *in;
        size_t n_in;
        const char *out;
    } cases[] = {
        {"a\xff"
         "b",
         3,
         "a\xef\xbf\xbd"
         "b"},
        {"\xe2\x82", 2, "\xef\xbf\xbd"},
        {"\xf0\x9f\x98x", 4, "\xef\xbf\xbdx"},
        {"\xc0\x80", 2, "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xed\xa0\x80", 3, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct apr_ids ids = {0};
        struct apr_buf b;
        apr_buf_init(&b, 1 << 16);
        ok(apr_tok_encode(f.t, cases[i].in, cases[i].n_in, 0, &ids, &e), &e);
        ok(apr_tok_decode(f.t, ids.at, ids.n, true, &b, &e), &e);
        assert_string_equal((char *)b.data, cases[i].out);
        apr_buf_free(&b);
        apr_ids_free(&ids);
    }
    static const char nul[] = "a\0b";
    struct apr_ids ids = {0};
    struct apr_buf b;
    apr_buf_init(&b, 1 << 16);
    ok(apr_tok_encode(f.t, nul, 3, 0, &ids, &e), &e);
    ok(apr_tok_decode(f.t, ids.at, ids.n, true, &b, &e), &e);
    assert_int_equal(b.n_bytes, 3);
    assert_memory_equal(b.data, nul, 3);
    apr_buf_free(&b);
    apr_ids_free(&ids);
    close_dir(&f);
}

/* Fed in every way to cut it in two, the gate shows what a repair of the whole shows. */
static void test_gate(void **state)
{
    (void)state;
    static const char text[] = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xff\xe2\x82z\xf0\x9f\xc3\xa9\xe2";
    static const char want[] =
        "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xef\xbf\xbd\xef\xbf\xbdz\xef\xbf\xbd\xc3\xa9\xef\xbf\xbd";
    size_t n = sizeof text - 1;
    struct apr_err e;
    for (size_t a = 0; a <= n; a++) {
        for (size_t b = a; b <= n; b++) {
            struct apr_utf8_gate g = {0};
            struct apr_buf out;
            apr_buf_init(&out, 1 << 10);
            ok(apr_utf8_pass(&g, text, a, false, &out, &e), &e);
            ok(apr_utf8_pass(&g, text + a, b - a, false, &out, &e), &e);
            ok(apr_utf8_pass(&g, text + b, n - b, true, &out, &e), &e);
            assert_string_equal((char *)out.data, want);
            apr_buf_free(&out);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),    cmocka_unit_test(test_vocabulary),
        cmocka_unit_test(test_old_files), cmocka_unit_test(test_special),
        cmocka_unit_test(test_any_bytes), cmocka_unit_test(test_without_json),
        cmocka_unit_test(test_gate),      cmocka_unit_test(test_config),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

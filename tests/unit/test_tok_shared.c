/* The tokenizer against foreign references: three published vocabularies on whole texts, and the peers'
 * vocabulary files. Read from ${APR_SHARED:-../shared}; skipped where that folder is missing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "io.h"
#include "json.h"
#include "load.h"
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
    print_message("%s: %u tokens read in %.1f ms, opened in %.1f ms\n", dir, f->v.n_toks,
                  (double)(b - a) / 1e6, (double)(apr_now_ns() - b) / 1e6);
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
    static const char *const toks[] = {"qwen2", "llama3", "gpt2"}, *const pres[] = {"qwen2", "llama-bpe",
                                                                                    "gpt-2"};
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

/* FILE.inp: texts between separators; FILE.out: a line of ids for each. */
static void check_vocab(const char *dir, const char *name)
{
    static const char separator[] = "\n__ggml_vocab_test__\n";
    struct apr_err e;
    struct apr_model *m;
    struct apr_tok *t;
    struct apr_buf in, out;
    char path[600];
    snprintf(path, sizeof path, "%s/vocab/ggml-vocab-%s.gguf.inp", dir, name);
    read_all(path, &in);
    snprintf(path, sizeof path, "%s/vocab/ggml-vocab-%s.gguf.out", dir, name);
    read_all(path, &out);
    snprintf(path, sizeof path, "%s/vocab/ggml-vocab-%s.gguf", dir, name);
    ok(apr_load_vocab(path, &m, &e), &e);
    ok(apr_tok_open(&t, &m->vocab, path, &e), &e);
    const char *line = (const char *)out.data, *text = (const char *)in.data, *end = text + in.n_bytes;
    int n_texts = 0;
    for (bool more = true; more; n_texts++) {
        const char *stop = strstr(text, separator);
        more = stop != NULL;
        struct apr_ids ids = {0};
        ok(apr_tok_encode(t, text, (size_t)((more ? stop : end) - text), 0, &ids, &e), &e);
        for (size_t i = 0; i < ids.n; i++) {
            char *rest;
            long want = strtol(line, &rest, 10);
            if (rest == line || want != ids.at[i])
                fail_msg("%s: text %d: id %zu is %d", name, n_texts, i, ids.at[i]);
            line = rest;
        }
        line += strspn(line, " ");
        if (*line != '\n' && *line != '\0') fail_msg("%s: text %d: fewer ids than expected", name, n_texts);
        line += *line == '\n';
        apr_ids_free(&ids);
        if (more) text = stop + sizeof separator - 1;
    }
    print_message("%s: %d texts\n", name, n_texts);
    assert_true(n_texts > 40);
    apr_tok_close(t);
    apr_model_close(m);
    apr_buf_free(&in);
    apr_buf_free(&out);
}

static void test_vocabs(void **state)
{
    (void)state;
    const char *dir = fixtures();
    static const char *const names[] = {"qwen2",     "llama-bpe", "gpt-2",   "deepseek-coder",
                                        "llama-spm", "phi-3",     "bert-bge"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) check_vocab(dir, names[i]);
}

static void same_strings(const char *what, uint64_t n, const struct apr_str *a, const struct apr_str *b)
{
    for (uint64_t i = 0; i < n; i++)
        if (a[i].n_bytes != b[i].n_bytes || (a[i].n_bytes && memcmp(a[i].p, b[i].p, a[i].n_bytes) != 0))
            fail_msg("%s %zu: \"%.*s\", the converter has \"%.*s\"", what, (size_t)i, (int)a[i].n_bytes,
                     a[i].p, (int)b[i].n_bytes, b[i].p);
}

/* What the peer's converter made of the same files: tokens, types, merges, special ids in order. */
static void check_converted(const char *dir, const char *model, const char *gguf)
{
    struct apr_err e;
    struct apr_arena arena;
    struct apr_vocab v;
    struct apr_model *m;
    json_t *config = NULL, *tok_config = NULL;
    char path[600];
    apr_arena_init(&arena);
    snprintf(path, sizeof path, "%s/gguf/%s.gguf", dir, gguf);
    ok(apr_load_vocab(path, &m, &e), &e);
    snprintf(path, sizeof path, "%s/%s/config.json", dir, model);
    ok(apr_json_load(path, 1 << 20, &config, &e), &e);
    snprintf(path, sizeof path, "%s/%s", dir, model);
    ok(apr_tok_read_hf(path, m->vocab.n_toks, config, &arena, &v, &tok_config, &e), &e);
    const struct apr_vocab *w = &m->vocab;
    print_message("%s\n", gguf);
    assert_int_equal(v.kind, w->kind);
    assert_string_equal(v.pre, w->pre);
    assert_int_equal(v.n_toks, w->n_toks);
    same_strings("token", v.n_toks, v.toks, w->toks);
    for (uint32_t i = 0; i < v.n_toks; i++) assert_int_equal(v.types[i], w->types[i]);
    assert_int_equal(v.n_merges, w->n_merges);
    same_strings("merge", v.n_merges, v.merges, w->merges);
    assert_int_equal(v.n_special_order, w->n_special_order);
    for (uint32_t i = 0; i < v.n_special_order; i++)
        assert_string_equal(v.special_order[i], w->special_order[i]);
    assert_int_equal(v.bos_id, w->bos_id);
    assert_int_equal(v.eos_id, w->eos_id);
    assert_int_equal(v.pad_id, w->pad_id);
    assert_int_equal(v.unk_id, w->unk_id);
    /* phi-2's converter adds a false of its own. */
    if (v.add_bos != -1 || w->add_bos != 0) assert_int_equal(v.add_bos, w->add_bos);
    assert_int_equal(v.add_eos, w->add_eos);
    assert_int_equal(v.add_sep, w->add_sep);
    assert_int_equal(v.chat_template != NULL, w->chat_template != NULL);
    if (v.chat_template) assert_string_equal(v.chat_template, w->chat_template);
    json_decref(v.hf);
    json_decref(config);
    json_decref(tok_config);
    apr_model_close(m);
    apr_arena_free(&arena);
}

static void test_converted(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"models/apr-demo-8M-Instruct", "demo-bf16"},
        {"families/llama3", "llama3-bf16"},
        {"families/gpt2", "gpt2-bf16"},
        {"families/qwen3", "qwen3-bf16"},
        {"families/qwen2-tied", "qwen2-tied-bf16"},
        {"families/deepseek2", "deepseek2-bf16"},
        {"families/phi2", "phi2-bf16"},
    };
    const char *dir = fixtures();
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) check_converted(dir, pairs[i][0], pairs[i][1]);
}

static void check_probe(const struct apr_tok *t, const char *what, const json_t *probe)
{
    struct apr_err e;
    const json_t *text = json_object_get(probe, "text"), *want = json_object_get(probe, "ids");
    const json_t *decoded = json_object_get(probe, "decoded");
    struct apr_ids ids = {0};
    struct apr_buf out;
    apr_buf_init(&out, 1 << 20);
    ok(apr_tok_encode(t, json_string_value(text), json_string_length(text),
                      APR_TOK_PARSE_SPECIAL | APR_TOK_ADD_SPECIAL, &ids, &e),
       &e);
    bool same = ids.n == json_array_size(want);
    for (size_t k = 0; same && k < ids.n; k++)
        same = ids.at[k] == json_integer_value(json_array_get(want, k));
    if (!same) fail_msg("%s: \"%s\": other ids", what, json_string_value(text));
    ok(apr_tok_decode(t, ids.at, ids.n, true, &out, &e), &e);
    assert_string_equal(out.n_bytes ? (char *)out.data : "", json_string_value(decoded));
    apr_buf_free(&out);
    apr_ids_free(&ids);
}

/* golden.json of a family, from its folder and from the GGUF that the peer's converter made of it: what the
 * tokenizer adds by itself is in the ids. */
static void check_family(const char *dir, const char *family)
{
    struct apr_err e;
    char path[600];
    struct fixture f;
    struct apr_model *m;
    struct apr_tok *t;
    json_t *golden;
    snprintf(path, sizeof path, "%s/families/%s", dir, family);
    open_dir(&f, path);
    snprintf(path, sizeof path, "%s/families/%s/golden.json", dir, family);
    ok(apr_json_load(path, 1 << 20, &golden, &e), &e);
    snprintf(path, sizeof path, "%s/gguf/%s-bf16.gguf", dir, family);
    ok(apr_load_vocab(path, &m, &e), &e);
    ok(apr_tok_open(&t, &m->vocab, path, &e), &e);
    size_t i;
    const json_t *probe;
    json_array_foreach(json_object_get(golden, "tokens"), i, probe)
    {
        check_probe(f.t, family, probe);
        /* Gemma's converter says that no blank goes in front, unlike these tokenizers. */
        if (m->vocab.add_space_prefix != 0) check_probe(t, path, probe);
    }
    assert_true(i > 3);
    json_decref(golden);
    apr_tok_close(t);
    apr_model_close(m);
    close_dir(&f);
}

static void test_families(void **state)
{
    (void)state;
    static const char *const names[] = {"llama3", "gpt2",   "qwen3",   "qwen2-tied", "deepseek2",
                                        "phi2",   "llama2", "mistral", "mixtral",    "gemma",
                                        "gemma2", "gemma3", "phi3",    "bert"};
    const char *dir = fixtures();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) check_family(dir, names[i]);
}

/* A word of a million bytes takes time in proportion: a square would take hours, which the test's runner
 * ends. */
static void test_long_words(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    char path[600];
    struct apr_err e;
    struct fixture f;
    snprintf(path, sizeof path, "%s/tokenizers/qwen2", fixtures());
    open_dir(&f, path);
    char *text = apr_arena_get(&f.arena, N);
    static const char *const names[] = {"one letter", "one blank", "line ends",
                                        "letters",    "any bytes", "marks"};
    for (int kind = 0; kind < 6; kind++) {
        uint32_t x = 1;
        for (int i = 0; i < N; i++) {
            x = x * 1664525 + 1013904223;
            text[i] = kind == 0   ? 'a'
                      : kind == 1 ? ' '
                      : kind == 2 ? '\n'
                      : kind == 3 ? (char)('a' + (x >> 24) % 26)
                                  : (char)(x >> 24);
            /* U+0301 and U+0323 in turn: a million marks on one letter, all out of order */
            if (kind == 5) text[i] = "\xcc\x81\xcc\xa3"[i % 4];
        }
        struct apr_ids ids = {0};
        ok(apr_tok_encode(f.t, text, N, APR_TOK_PARSE_SPECIAL, &ids, &e), &e);
        print_message("1 MiB of %s: %zu tokens\n", names[kind], ids.n);
        assert_in_range(ids.n, 1, N);
        apr_ids_free(&ids);
    }
    close_dir(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),    cmocka_unit_test(test_vocabs),     cmocka_unit_test(test_converted),
        cmocka_unit_test(test_families), cmocka_unit_test(test_long_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

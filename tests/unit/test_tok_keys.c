/* The tokenizer's keys of a GGUF against those that llama.cpp's converter wrote for the same folder: names,
 * order, types, values, arrays. From the folder, and from the .apr metadata made of it. Skipped where the
 * fixtures are missing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../tools/apr-export/tok_keys.h"
#include "load.h"
#include "log.h"

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

static bool is_tokenizers(const struct apr_kv *kv)
{
    return strncmp(kv->key.p, "tokenizer.", 10) == 0;
}

/* The arrays are not among the keys of a GGUF that was read. */
static bool is_array(const struct apr_kv *kv)
{
    static const char *const names[] = {"tokenizer.ggml.tokens", "tokenizer.ggml.scores",
                                        "tokenizer.ggml.token_type", "tokenizer.ggml.merges"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(kv->key.p, names[i]) == 0) return true;
    return false;
}

static void same_value(const char *what, const struct apr_kv *a, const struct apr_kv *b)
{
    if (strcmp(a->key.p, b->key.p) != 0)
        fail_msg("%s: key %s, the converter has %s", what, a->key.p, b->key.p);
    if (a->type != b->type)
        fail_msg("%s: %s: type %d, the converter has %d", what, a->key.p, a->type, b->type);
    bool same = a->type == APR_KV_STR    ? strcmp(a->v.s.p, b->v.s.p) == 0
                : a->type == APR_KV_BOOL ? a->v.b == b->v.b
                                         : a->v.u == b->v.u;
    if (!same) fail_msg("%s: %s differs", what, a->key.p);
}

/* config.json's ids that lie outside the vocabulary name nothing: they are left out here, not there (gpt2).
 */
static bool names_nothing(const struct apr_kv *kv, uint32_t n_toks)
{
    const char *end = strstr(kv->key.p, "_token_id");
    return end && end[9] == '\0' && kv->v.u >= n_toks;
}

static const struct apr_kv *next(const struct apr_kvs *kvs, size_t *i, uint32_t n_toks)
{
    for (; *i < kvs->n; ++*i) {
        const struct apr_kv *kv = &kvs->at[*i];
        if (is_tokenizers(kv) && !is_array(kv) && !names_nothing(kv, n_toks)) return &kvs->at[(*i)++];
    }
    return NULL;
}

static void same_keys(const char *what, const struct apr_kvs *ours, const struct apr_kvs *theirs,
                      uint32_t n_toks)
{
    size_t i = 0, k = 0;
    for (;;) {
        const struct apr_kv *a = next(ours, &i, n_toks), *b = next(theirs, &k, n_toks);
        /* phi-2's converter writes a false of its own among the keys of the architecture. */
        if (b && i <= 1 && strcmp(b->key.p, "tokenizer.ggml.add_bos_token") == 0)
            b = next(theirs, &k, n_toks);
        if (!a && !b) return;
        if (!a || !b) fail_msg("%s: %s stands only %s", what, a ? a->key.p : b->key.p, a ? "here" : "there");
        same_value(what, a, b);
    }
}

static void same_numbers(const char *what, const struct apr_kv *kv, const void *want, size_t n)
{
    bool wanted = want != NULL;
    if (wanted != (kv != NULL)) fail_msg("%s: there is %s array", what, kv ? "an" : "no");
    if (!kv) return;
    assert_int_equal(kv->v.a.n, n);
    for (size_t i = 0; i < n; i++)
        if (memcmp((const uint32_t *)kv->v.a.items + i, (const uint32_t *)want + i, 4) != 0)
            fail_msg("%s: element %zu differs", what, i);
}

static void same_texts(const char *what, const struct apr_kv *kv, const struct apr_str *want, uint64_t n)
{
    if (n == 0 && !kv) return;
    assert_non_null(kv);
    assert_int_equal(kv->v.a.n, n);
    const struct apr_str *at = kv->v.a.items;
    for (uint64_t i = 0; i < n; i++)
        if (at[i].n_bytes != want[i].n_bytes || memcmp(at[i].p, want[i].p, want[i].n_bytes) != 0)
            fail_msg("%s: \"%.*s\", the converter has \"%.*s\"", what, (int)at[i].n_bytes, at[i].p,
                     (int)want[i].n_bytes, want[i].p);
}

static void same_tokenizer(const char *path, const struct apr_model *converted)
{
    struct apr_err e;
    struct apr_model *m;
    struct apr_arena arena;
    struct apr_kvs kvs;
    const struct apr_vocab *v = &converted->vocab;
    apr_arena_init(&arena);
    apr_kvs_init(&kvs, &arena);
    ok(apr_load_model(path, APR_LOAD_STREAM, &m, &e), &e);
    ok(tok_keys(m, &kvs, &e), &e);
    same_keys(path, &kvs, &converted->kvs, v->n_toks);
    same_texts(path, apr_kvs_find(&kvs, "tokenizer.ggml.tokens"), v->toks, v->n_toks);
    same_texts(path, apr_kvs_find(&kvs, "tokenizer.ggml.merges"), v->merges, v->n_merges);
    same_numbers(path, apr_kvs_find(&kvs, "tokenizer.ggml.scores"), v->scores, v->n_toks);
    same_numbers(path, apr_kvs_find(&kvs, "tokenizer.ggml.token_type"), v->types, v->n_toks);
    apr_model_close(m);
    apr_arena_free(&arena);
}

static void test_keys(void **state)
{
    (void)state;
    static const char *const names[] = {"llama2",    "mistral", "mixtral",    "gemma", "gemma2",
                                        "gemma3",    "phi3",    "llama3",     "gpt2",  "phi2",
                                        "deepseek2", "qwen3",   "qwen2-tied", "bert"};
    const char *dir = fixtures();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct apr_err e;
        struct apr_model *converted;
        char path[600];
        snprintf(path, sizeof path, "%s/gguf/%s-bf16.gguf", dir, names[i]);
        ok(apr_load_vocab(path, &converted, &e), &e);
        snprintf(path, sizeof path, "%s/families/%s", dir, names[i]);
        same_tokenizer(path, converted);
        apr_model_close(converted);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_keys)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

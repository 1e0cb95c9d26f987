/* GGUF: classes of malformed files that broke other readers, the vocabulary, v2. What is written:
 * test_fmt_gguf_write.c. */
#include <time.h>

#include "tiny.h"

#include <math.h>

#include "log.h"

/* ---- pieces of a file --------------------------------------------------------------------------------- */

static void str(struct apr_buf *b, const char *s)
{
    tiny_uint(b, strlen(s), 8);
    tiny_put(b, s, strlen(s));
}

static void head(struct apr_buf *b, uint32_t version, uint64_t n_tensors, uint64_t n_kv)
{
    apr_buf_init(b, 64u << 20);
    tiny_put(b, "GGUF", 4);
    tiny_uint(b, version, 4);
    tiny_uint(b, n_tensors, 8);
    tiny_uint(b, n_kv, 8);
}

static void kv_u32(struct apr_buf *b, const char *key, uint64_t v)
{
    str(b, key);
    tiny_uint(b, APR_KV_U32, 4);
    tiny_uint(b, v, 4);
}

static void kv_str(struct apr_buf *b, const char *key, const char *v)
{
    str(b, key);
    tiny_uint(b, APR_KV_STR, 4);
    str(b, v);
}

static void kv_array(struct apr_buf *b, const char *key, uint32_t type, uint64_t n)
{
    str(b, key);
    tiny_uint(b, APR_KV_ARRAY, 4);
    tiny_uint(b, type, 4);
    tiny_uint(b, n, 8);
}

static void info(struct apr_buf *b, const char *name, uint32_t n_dims, const uint64_t *ne, uint32_t type,
                 uint64_t off)
{
    str(b, name);
    tiny_uint(b, n_dims, 4);
    for (uint32_t i = 0; i < n_dims && i < 8; i++) tiny_uint(b, ne[i], 8);
    tiny_uint(b, type, 4);
    tiny_uint(b, off, 8);
}

static void data(struct apr_buf *b, size_t n)
{
    while (b->n_bytes % 32) tiny_put(b, "", 1);
    for (size_t i = 0; i < n; i++) tiny_put(b, "x", 1);
}

/* Opens as a file and as a pipe; both must say the same. */
static enum apr_code load(struct apr_buf *b, struct apr_model **m, struct apr_err *e)
{
    enum apr_code as_file, as_pipe = tiny_open(b->data, b->n_bytes, true, m, e);
    if (as_pipe == APR_OK) {
        as_pipe = apr_model_end(*m, e);
        apr_model_close(*m);
    }
    as_file = tiny_open(b->data, b->n_bytes, false, m, e);
    if (as_file != as_pipe) fail_msg("as a file %d, as a pipe %d: %s", as_file, as_pipe, e->text);
    apr_buf_free(b);
    return as_file;
}

static void refused(struct apr_buf *b, enum apr_code code, const char *says)
{
    struct apr_model *m;
    struct apr_err e;
    enum apr_code found = load(b, &m, &e);
    if (found != code)
        fail_msg("status %d, expected %d (%s): %s", found, code, says, found ? e.text : "accepted");
    if (!strstr(e.text, says)) fail_msg("expected \"%s\" in: %s", says, e.text);
}

static struct apr_model *accepted(struct apr_buf *b)
{
    struct apr_model *m;
    struct apr_err e;
    enum apr_code code = load(b, &m, &e);
    if (code != APR_OK) fail_msg("status %d: %s", code, e.text);
    return m;
}

/* ---- header ------------------------------------------------------------------------------------------- */

static void versions(void **state)
{
    struct apr_buf b;
    (void)state;
    for (uint32_t v = 2; v <= 3; v++) {
        head(&b, v, 0, 0);
        struct apr_model *m = accepted(&b);
        assert_int_equal(m->header.version, v);
        assert_true(m->vocab_only);
        apr_model_close(m);
    }
    head(&b, 0, 0, 0);
    refused(&b, APR_ELOAD, "version 0");
    head(&b, 1, 0, 0);
    refused(&b, APR_ELOAD, "version 1");
    head(&b, 4, 0, 0);
    refused(&b, APR_ELOAD, "version 4");
    head(&b, 3u << 24, 0, 0);
    refused(&b, APR_ELOAD, "big-endian");
    head(&b, UINT32_MAX, 0, 0);
    refused(&b, APR_ELOAD, "version 4294967295");
}

static void counts(void **state)
{
    static const uint64_t huge[] = {1000000, 1u << 21, UINT64_MAX / 48 + 1, (uint64_t)1 << 63, UINT64_MAX};
    struct apr_buf b;
    (void)state;
    for (size_t i = 0; i < sizeof huge / sizeof huge[0]; i++) {
        head(&b, 3, 0, huge[i]);
        refused(&b, APR_EFORMAT, "");
        head(&b, 3, huge[i], 0);
        refused(&b, APR_EFORMAT, "");
    }
    head(&b, 3, 0, 2);
    kv_u32(&b, "a", 1);
    refused(&b, APR_EFORMAT, "");
}

/* ---- keys --------------------------------------------------------------------------------------------- */

static void keys(void **state)
{
    static const uint64_t lengths[] = {UINT64_MAX, (uint64_t)1 << 63, (uint64_t)1 << 40, 70000, 9};
    struct apr_buf b;
    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        head(&b, 3, 0, 1); /* the length of a key */
        tiny_uint(&b, lengths[i], 8);
        tiny_put(&b, "12345678", 8);
        refused(&b, APR_EFORMAT, "");
        head(&b, 3, 0, 1); /* the length of a string */
        str(&b, "a");
        tiny_uint(&b, APR_KV_STR, 4);
        tiny_uint(&b, lengths[i], 8);
        tiny_put(&b, "12345678", 8);
        refused(&b, APR_EFORMAT, "");
    }
    head(&b, 3, 0, 2);
    kv_u32(&b, "same", 1);
    kv_u32(&b, "same", 2);
    refused(&b, APR_EFORMAT, "twice");
    head(&b, 3, 0, 1);
    kv_u32(&b, "", 1);
    refused(&b, APR_EFORMAT, "empty");
    head(&b, 3, 0, 1);
    tiny_uint(&b, 3, 8);
    tiny_put(&b, "a\0b", 3);
    tiny_uint(&b, APR_KV_U32, 4);
    tiny_uint(&b, 1, 4);
    refused(&b, APR_EFORMAT, "NUL");
    for (uint32_t type = 13; type != 0; type = type == 13         ? 255
                                               : type == 255      ? 1u << 31
                                               : type == 1u << 31 ? UINT32_MAX
                                                                  : 0) {
        head(&b, 3, 0, 1);
        str(&b, "a");
        tiny_uint(&b, type, 4);
        tiny_uint(&b, 0, 8);
        refused(&b, APR_EFORMAT, "value type");
    }
    head(&b, 3, 0, 1);
    str(&b, "a");
    tiny_uint(&b, APR_KV_BOOL, 4);
    tiny_uint(&b, 2, 1);
    refused(&b, APR_EFORMAT, "bool");
}

static void arrays(void **state)
{
    static const struct {
        uint32_t type;
        uint64_t n;
    } wraps[] = {{APR_KV_U64, ((uint64_t)1 << 61) + 1},
                 {APR_KV_U32, ((uint64_t)1 << 62) + 1},
                 {APR_KV_STR, (uint64_t)1 << 60},
                 {APR_KV_STR, (uint64_t)1 << 32},
                 {APR_KV_STR, 1u << 28},
                 {APR_KV_U8, UINT64_MAX},
                 {APR_KV_ARRAY, 1},
                 {13, 1},
                 {UINT32_MAX, 1}};
    struct apr_buf b;
    (void)state;
    for (size_t i = 0; i < sizeof wraps / sizeof wraps[0]; i++) {
        head(&b, 3, 0, 1);
        kv_array(&b, "a", wraps[i].type, wraps[i].n);
        for (int k = 0; k < 64; k++) tiny_uint(&b, 0, 1);
        refused(&b, APR_EFORMAT, "a");
    }
}

static void alignment(void **state)
{
    static const uint32_t bad[] = {0, 3, 13, 1u << 31, 1u << 17};
    struct apr_buf b;
    struct apr_model *m;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        head(&b, 3, 0, 1);
        kv_u32(&b, "general.alignment", bad[i]);
        refused(&b, APR_EFORMAT, "general.alignment");
    }
    head(&b, 3, 0, 1);
    kv_str(&b, "general.alignment", "32");
    refused(&b, APR_EFORMAT, "general.alignment");
    head(&b, 3, 2, 1);
    kv_u32(&b, "general.alignment", 64);
    info(&b, "a", 1, (uint64_t[]){1}, APR_F32, 0);
    info(&b, "b", 1, (uint64_t[]){1}, APR_F32, 64);
    while (b.n_bytes % 64) tiny_put(&b, "", 1);
    for (int i = 0; i < 68; i++) tiny_put(&b, "x", 1);
    m = accepted(&b);
    assert_int_equal(m->tensors[1].off_file - m->tensors[0].off_file, 64);
    apr_model_close(m);
}

static int64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* Processor time of opening a file of n keys. */
static int64_t ns_of_keys(size_t n)
{
    struct apr_buf b;
    struct apr_model *m;
    char key[32];
    head(&b, 3, 0, n);
    for (size_t i = 0; i < n; i++) {
        (void)snprintf(key, sizeof key, "k%zu", i);
        kv_u32(&b, key, 1);
    }
    int64_t begin = cpu_ns();
    OK(tiny_open(b.data, b.n_bytes, false, &m, &tiny_err));
    int64_t ns = cpu_ns() - begin;
    assert_int_equal(m->kvs.n, n);
    apr_model_close(m);
    apr_buf_free(&b);
    return ns;
}

/* 1.3 MB hold 60 000 keys. Sixteen times as many are not 256 times the work, whatever this machine is. */
static void many_keys(void **state)
{
    (void)state;
    int64_t few = ns_of_keys(3750), again = ns_of_keys(3750);
    assert_true(ns_of_keys(60000) < 100 * (again < few ? again : few));
}

/* ---- tensors ------------------------------------------------------------------------------------------ */

static void dimensions(void **state)
{
    static const struct {
        uint32_t n_dims, type;
        uint64_t ne[4];
        const char *says;
    } cases[] = {
        {5, APR_F32, {1, 1, 1, 1}, "dimensions"},
        {UINT32_MAX, APR_F32, {1, 1, 1, 1}, "dimensions"},
        {1, APR_F32, {UINT64_MAX}, "overflow"},
        {1, APR_F32, {(uint64_t)1 << 63}, "overflow"},
        {2, APR_F32, {(uint64_t)1 << 32, (uint64_t)1 << 32}, "overflow"},
        {3, APR_F32, {1u << 30, 1u << 30, 16}, "overflow"},
        {3, APR_F32, {0, (uint64_t)1 << 32, (uint64_t)1 << 32}, "overflow"},
        {1, APR_F32, {((uint64_t)1 << 62) + 1}, "overflow"},
        {1, APR_F64, {((uint64_t)1 << 61) + 2}, "overflow"},
        {1, APR_F32, {(uint64_t)1 << 38}, ""},
        {1, APR_Q4_K, {128}, "multiple"},
        {1, APR_Q4_K, {257}, "multiple"},
        {1, 4, {32}, "type 4"},
        {1, 5, {32}, "type 5"},
        {1, 31, {32}, "type 31"},
        {1, 36, {32}, "type 36"},
        {1, 63, {32}, "type 63"},
        {1, 128, {32}, "type 128"},
        {1, 130, {32}, "type 130"},
        {1, UINT32_MAX, {32}, "type 4294967295"},
    };
    struct apr_buf b;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct apr_model *m;
        struct apr_err e;
        head(&b, 3, 1, 0);
        info(&b, "a", cases[i].n_dims, cases[i].ne, cases[i].type, 0);
        data(&b, 64);
        enum apr_code code = tiny_open(b.data, b.n_bytes, false, &m, &e);
        if (code != APR_EFORMAT || !strstr(e.text, cases[i].says))
            fail_msg("case %zu: %d %s", i, code, e.text);
        apr_buf_free(&b);
    }
}

static void offsets(void **state)
{
    static const uint64_t bad[] = {1, 32, 96, (uint64_t)-64, (uint64_t)1 << 63, UINT64_MAX};
    struct apr_buf b;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) { /* 64 is right */
        head(&b, 3, 2, 0);
        info(&b, "a", 1, (uint64_t[]){16}, APR_F32, 0);
        info(&b, "b", 1, (uint64_t[]){16}, APR_F32, bad[i]);
        data(&b, 128);
        refused(&b, APR_EFORMAT, "offset");
    }
    head(&b, 3, 2, 0);
    info(&b, "a", 1, (uint64_t[]){INT64_MAX - 64}, APR_I8, 0);
    info(&b, "b", 1, (uint64_t[]){INT64_MAX - 64}, APR_I8, INT64_MAX - 63);
    data(&b, 128);
    refused(&b, APR_EFORMAT, "");
}

static void names(void **state)
{
    static const char long_name[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    struct apr_buf b;
    struct apr_model *m;
    struct apr_err e;
    (void)state;
    head(&b, 3, 2, 0);
    info(&b, "a", 1, (uint64_t[]){8}, APR_F32, 0);
    info(&b, "a", 1, (uint64_t[]){8}, APR_F32, 32);
    data(&b, 64);
    refused(&b, APR_EFORMAT, "two tensors");
    head(&b, 3, 1, 0);
    info(&b, "", 1, (uint64_t[]){8}, APR_F32, 0);
    data(&b, 32);
    refused(&b, APR_EFORMAT, "empty");
    head(&b, 3, 1, 0);
    info(&b, long_name, 1, (uint64_t[]){8}, APR_F32, 0);
    data(&b, 32);
    refused(&b, APR_EFORMAT, "65 bytes");
    head(&b, 3, 1, 0); /* shown escaped, never raw */
    info(&b, "\x1b]0;x\n../a", 1, (uint64_t[]){8}, APR_F32, 7);
    data(&b, 32);
    assert_int_equal(tiny_open(b.data, b.n_bytes, false, &m, &e), APR_EFORMAT);
    assert_null(strpbrk(e.text, "\x1b\n"));
    apr_buf_free(&b);
}

static void shapes_are_reversed(void **state)
{
    struct apr_buf b;
    (void)state;
    head(&b, 3, 1, 0);
    info(&b, "a", 3, (uint64_t[]){4, 2, 1}, APR_F32, 0); /* ne[0] = 4 columns */
    data(&b, 32);
    struct apr_model *m = accepted(&b);
    assert_int_equal(m->tensors[0].n_dims, 3);
    assert_int_equal(apr_tensor_cols(&m->tensors[0]), 4);
    assert_int_equal(m->tensors[0].dims[0], 1);
    assert_int_equal(m->tensors[0].dims[1], 2);
    apr_model_close(m);
}

/* ---- vocabulary --------------------------------------------------------------------------------------- */

static void tokens(struct apr_buf *b, uint64_t n)
{
    kv_array(b, "tokenizer.ggml.tokens", APR_KV_STR, n);
    for (uint64_t i = 0; i < n; i++) str(b, i == 1 ? "</s>" : "t");
}

static void vocabularies(void **state)
{
    struct apr_buf b;
    struct apr_model *m;
    (void)state;
    head(&b, 3, 0, 1);
    kv_array(&b, "tokenizer.ggml.tokens", APR_KV_U32, 1);
    tiny_uint(&b, 0, 4);
    refused(&b, APR_EFORMAT, "tokens");
    head(&b, 3, 0, 2);
    tokens(&b, 3);
    kv_array(&b, "tokenizer.ggml.token_type", APR_KV_U8, 3);
    tiny_uint(&b, 0, 3);
    refused(&b, APR_EFORMAT, "token_type");
    head(&b, 3, 0, 2);
    tokens(&b, 3);
    kv_array(&b, "tokenizer.ggml.token_type", APR_KV_I32, 2);
    tiny_uint(&b, 0, 8);
    refused(&b, APR_EFORMAT, "token_type");
    head(&b, 3, 0, 2);
    tokens(&b, 3);
    kv_array(&b, "tokenizer.ggml.scores", APR_KV_F32, 2);
    tiny_uint(&b, 0, 8);
    refused(&b, APR_EFORMAT, "scores");
    head(&b, 3, 0, 2);
    tokens(&b, 3);
    kv_u32(&b, "tokenizer.ggml.tokens", 3);
    refused(&b, APR_EFORMAT, "twice");
    head(&b, 3, 0, 5);
    tokens(&b, 3);
    kv_array(&b, "tokenizer.ggml.token_type", APR_KV_I32, 3);
    for (int i = 0; i < 3; i++) tiny_uint(&b, 3, 4);
    kv_str(&b, "tokenizer.ggml.model", "llama");
    kv_u32(&b, "tokenizer.ggml.eos_token_id", 3); /* one too many: ignored */
    kv_u32(&b, "tokenizer.ggml.bos_token_id", 2);
    m = accepted(&b);
    assert_int_equal(m->vocab.kind, APR_VOCAB_SPM);
    assert_int_equal(m->vocab.eos_id, APR_ID_NONE);
    assert_int_equal(m->vocab.bos_id, 2);
    assert_int_equal(m->generation.n_eos, 1); /* by its text */
    assert_int_equal(m->generation.eos_ids[0], 1);
    apr_model_close(m);
}

static void key_types(void **state)
{
    struct apr_buf b;
    (void)state;
    head(&b, 3, 0, 1);
    kv_u32(&b, "general.architecture", 1);
    refused(&b, APR_EFORMAT, "general.architecture");
    head(&b, 3, 0, 1);
    str(&b, "split.count");
    tiny_uint(&b, APR_KV_U16, 4);
    tiny_uint(&b, 3, 2);
    refused(&b, APR_EFORMAT, "split");
}

int main(void)
{
    apr_log_set(APR_LOG_QUIET, "test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(versions),     cmocka_unit_test(counts),    cmocka_unit_test(keys),
        cmocka_unit_test(arrays),       cmocka_unit_test(alignment), cmocka_unit_test(many_keys),
        cmocka_unit_test(dimensions),   cmocka_unit_test(offsets),   cmocka_unit_test(names),
        cmocka_unit_test(vocabularies), cmocka_unit_test(key_types), cmocka_unit_test(shapes_are_reversed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

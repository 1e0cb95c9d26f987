/* .apr: files as the original wrote them. What is written here: test_fmt_apr_ours.c. */
#include "tiny.h"

#include <lz4.h>
#include <zstd.h>

#include "fmt/apr.h"
#include "fmt/apr_text.h"
#include "hash.h"
#include "log.h"

/* ---- files of the original ---------------------------------------------------------------------------- */

struct entry {
    const char *name;
    uint8_t id;
    uint32_t n_dims;
    uint64_t dims[3], off, n_bytes;
};

struct old_file {
    const char *meta;
    const struct entry *entries;
    uint32_t n_entries;
    uint16_t flags;
    bool no_footer, is_cut_short; /* is_cut_short: without the padding of the last tensor, too */
};

static void pad64(struct apr_buf *b)
{
    while (b->n_bytes % 64) tiny_put(b, "", 1);
}

static void set_uint(struct apr_buf *b, size_t at, uint64_t v, size_t n)
{
    for (size_t i = 0; i < n; i++) b->data[at + i] = (uint8_t)(v >> 8 * i);
}

static void seal_header(struct apr_buf *b)
{
    uint32_t crc = apr_crc32(0, b->data, 40);
    crc = apr_crc32(crc, b->data + 44, 20);
    set_uint(b, 40, crc, 4);
}

static void old_file(struct apr_buf *b, const struct old_file *f)
{
    uint64_t off_index, off_data, end = 0, least = 0;
    apr_buf_init(b, 1 << 20);
    tiny_put(b, "APR\0\2\0", 6);
    for (int i = 6; i < 64; i++) tiny_put(b, "", 1);
    tiny_put(b, f->meta, strlen(f->meta));
    pad64(b);
    off_index = b->n_bytes;
    for (uint32_t i = 0; i < f->n_entries; i++) {
        const struct entry *t = &f->entries[i];
        tiny_uint(b, strlen(t->name), 2);
        tiny_put(b, t->name, strlen(t->name));
        tiny_uint(b, t->id, 1);
        tiny_uint(b, t->n_dims, 1);
        for (uint32_t k = 0; k < t->n_dims; k++) tiny_uint(b, t->dims[k], 8);
        tiny_uint(b, t->off, 8);
        tiny_uint(b, t->n_bytes, 8);
        if (t->off + t->n_bytes > least) least = t->off + t->n_bytes;
    }
    pad64(b);
    off_data = b->n_bytes;
    end = f->is_cut_short ? least : apr_align64(least);
    for (uint64_t i = 0; i < end; i++) tiny_put(b, "", 1);
    set_uint(b, 6, f->flags, 2);
    set_uint(b, 8, f->n_entries, 4);
    set_uint(b, 12, 64, 8);
    set_uint(b, 20, strlen(f->meta), 4);
    set_uint(b, 24, off_index, 8);
    set_uint(b, 32, off_data, 8);
    seal_header(b);
    if (!f->no_footer) tiny_uint(b, apr_crc32(0, b->data, b->n_bytes), 4);
}

static enum apr_code load_old(const struct old_file *f, bool as_pipe, struct apr_model **m, struct apr_err *e)
{
    struct apr_buf b;
    old_file(&b, f);
    enum apr_code code = tiny_open(b.data, b.n_bytes, as_pipe, m, e);
    apr_buf_free(&b);
    return code;
}

/* Ids 2 to 9 mean two things; the size tells which. Rows of Q4_K may be padded, or blocks run across rows. */
static void dtypes(void **state)
{
    static const struct {
        struct entry t;
        int type; /* -1: refused */
        enum apr_packing packing;
    } cases[] = {
        {{"t", 0, 1, {32}, 0, 128}, APR_F32, APR_ROWS},
        {{"t", 1, 1, {32}, 0, 64}, APR_F16, APR_ROWS},
        {{"t", 2, 1, {32}, 0, 64}, APR_BF16, APR_ROWS},
        {{"t", 2, 1, {32}, 0, 18}, APR_Q4_0, APR_ROWS},
        {{"t", 3, 1, {32}, 0, 256}, APR_F64, APR_ROWS},
        {{"t", 3, 1, {32}, 0, 20}, APR_Q4_1, APR_ROWS},
        {{"t", 4, 1, {32}, 0, 128}, APR_I32, APR_ROWS},
        {{"t", 5, 1, {32}, 0, 256}, APR_I64, APR_ROWS},
        {{"t", 6, 1, {32}, 0, 32}, APR_I8, APR_ROWS},
        {{"t", 6, 1, {32}, 0, 22}, APR_Q5_0, APR_ROWS},
        {{"t", 7, 1, {32}, 0, 32}, APR_U8, APR_ROWS},
        {{"t", 7, 1, {32}, 0, 24}, APR_Q5_1, APR_ROWS},
        {{"t", 8, 1, {33}, 0, 36}, APR_NATIVE_Q4, APR_ROWS},
        {{"t", 8, 1, {32}, 0, 34}, APR_Q8_0, APR_ROWS},
        {{"t", 9, 1, {33}, 0, 37}, APR_NATIVE_Q8, APR_ROWS},
        {{"t", 9, 1, {64}, 0, 72}, APR_Q8_1, APR_ROWS},
        {{"t", 12, 2, {2, 256}, 0, 288}, APR_Q4_K, APR_ROWS},
        {{"t", 12, 2, {4, 300}, 0, 4 * 288}, APR_Q4_K, APR_ROWS_PADDED},
        {{"t", 12, 2, {4, 300}, 0, 5 * 144}, APR_Q4_K, APR_FLAT},
        {{"t", 14, 2, {4, 300}, 0, 4 * 420}, APR_Q6_K, APR_ROWS_PADDED},
        {{"t", 30, 1, {32}, 0, 64}, APR_BF16, APR_ROWS},
        {{"t", 128, 1, {32}, 0, 18}, APR_NATIVE_Q4, APR_ROWS},
        {{"t", 129, 1, {32}, 0, 36}, APR_NATIVE_Q8, APR_ROWS},
        {{"t", 0, 1, {32}, 0, 127}, -1, APR_ROWS},
        {{"t", 2, 1, {32}, 0, 63}, -1, APR_ROWS},
        {{"t", 10, 1, {32}, 0, 83}, -1, APR_ROWS},
        {{"t", 99, 1, {32}, 0, 32}, -1, APR_ROWS},
        {{"t", 130, 1, {32}, 0, 32}, -1, APR_ROWS},
        {{"t", 0, 3, {1u << 31, 1u << 31, 1u << 31}, 0, 0}, -1, APR_ROWS},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct old_file f = {.meta = "{}", .entries = &cases[i].t, .n_entries = 1, .flags = 0x0400};
        struct apr_model *m;
        struct apr_err e;
        enum apr_code code = load_old(&f, false, &m, &e);
        if (cases[i].type < 0) {
            if (code != APR_EFORMAT) fail_msg("case %zu: status %d", i, code);
            continue;
        }
        if (code != APR_OK) fail_msg("case %zu: %s", i, e.text);
        assert_int_equal(m->tensors[0].type, cases[i].type);
        assert_int_equal(m->tensors[0].packing, cases[i].packing);
        assert_int_equal(m->tensors[0].n_bytes, cases[i].t.n_bytes);
        apr_model_close(m);
    }
}

static const struct entry two[] = {{"a", 0, 1, {4}, 64, 16},
                                   {"b", 0, 1, {4}, 0, 16}}; /* data against index order */

#define OLD_META                                                                                             \
    "{\"model_type\":\"Qwen2\",\"name\":null,\"architecture\":\"qwen2\",\"hidden_dim\":64,\"num_layers\":"   \
    "null,"                                                                                                  \
    "\"n_layers\":2,\"num_heads\":4,\"num_kv_heads\":2,\"vocab_size\":3,\"chat_template\":null,\"rope_"      \
    "theta\":1e6,"                                                                                           \
    "\"chat_template\":\"T\",\"tokenizer.vocabulary\":[\"a\",\"\\u00e9\\ud83d\\ude00\",\"<|im_end|>\"],"     \
    "\"tokenizer.merges\":[],\"tokenizer.eos_token_id\":2,\"tokenizer.model\":\"gpt2\"}"

/* Null keys, a key twice (the last counts), aliases, data out of index order. */
static void as_the_original_wrote(void **state)
{
    struct old_file f = {.meta = OLD_META, .entries = two, .n_entries = 2, .flags = 0x0400};
    struct apr_model *m;
    (void)state;
    OK(load_old(&f, false, &m, &tiny_err));
    assert_string_equal(m->vocab.chat_template, "T");
    assert_string_equal(m->family->name, "qwen2");
    assert_int_equal(m->config.n_hidden, 64);
    assert_int_equal(m->config.n_layers, 2);
    assert_int_equal(m->config.n_inter, 256); /* 4 x hidden where nothing is said */
    assert_true(m->config.tied);              /* no lm_head among the tensors */
    assert_int_equal(m->vocab.n_toks, 3);
    assert_string_equal(m->vocab.toks[1].p, "\xc3\xa9\xf0\x9f\x98\x80");
    assert_int_equal(m->vocab.types[2], APR_TOK_CONTROL);
    assert_int_equal(m->vocab.kind, APR_VOCAB_BPE);
    assert_string_equal(m->vocab.pre, "qwen2");
    assert_int_equal(m->generation.eos_ids[0], 2);
    assert_string_equal(m->tensors[0].name, "a");
    assert_true(m->tensors[0].off_file == m->tensors[1].off_file + 64);
    assert_true(m->header.has_footer);
    OK(m->fmt->verify(m, &tiny_err));
    apr_model_close(m);
    OK(load_old(&f, true, &m, &tiny_err)); /* a stream is in data order */
    assert_string_equal(m->tensors[0].name, "b");
    OK(apr_model_end(m, &tiny_err));
    apr_model_close(m);
}

static void missing_footer(void **state)
{
    struct old_file f = {.meta = "{}", .entries = two, .n_entries = 2, .flags = 0x0400, .no_footer = true};
    struct apr_model *m;
    struct apr_err e;
    (void)state;
    OK(load_old(&f, false, &m, &tiny_err));
    assert_false(m->header.has_footer);
    apr_model_close(m);
    f.is_cut_short = true;
    OK(load_old(&f, false, &m, &tiny_err));
    apr_model_close(m);
    OK(load_old(&f, true, &m, &tiny_err)); /* a stream must end properly */
    assert_int_equal(apr_model_end(m, &e), APR_EFORMAT);
    apr_model_close(m);
    f.meta = "{\"apr\":{}}"; /* ours: then it was cut */
    assert_int_equal(load_old(&f, false, &m, &e), APR_EFORMAT);
}

static void header_rules(void **state)
{
    static const struct {
        size_t at;
        uint64_t v;
        size_t n;
        enum apr_code code;
        const char *says;
    } cases[] = {
        {3, '2', 1, APR_OK, ""},
        {3, '1', 1, APR_ELOAD, "version 1"},
        {3, 'N', 1, APR_ELOAD, "version 1"},
        {4, 3, 1, APR_ELOAD, "version 3"},
        {6, 0, 2, APR_OK, ""}, /* no layout bit: row-major */
        {6, 0x0c00, 2, APR_EFORMAT, "column-major"},
        {6, 0x0404, 2, APR_EUNAVAIL, "encrypted"},
        {6, 0x0408, 2, APR_OK, ""}, /* signed: read */
        {6, 0x0401, 2, APR_OK, ""}, /* the bit alone: the original compresses nothing */
        {8, 3, 4, APR_EFORMAT, ""},
        {8, UINT32_MAX, 4, APR_EFORMAT, "tensors"},
        {12, 128, 8, APR_EFORMAT, "metadata at"},
        {20, 1, 4, APR_EFORMAT, ""},
        {20, UINT32_MAX, 4, APR_ELOAD, "metadata"},
        {24, 64, 8, APR_EFORMAT, "index at"},
        {24, UINT64_MAX - 63, 8, APR_EFORMAT, "index at"},
        {32, 0, 8, APR_EFORMAT, "data at"},
        {32, 1u << 20, 8, APR_EFORMAT, ""},
        {32, UINT64_MAX - 63, 8, APR_EFORMAT, "data at"},
        {50, 1, 1, APR_EFORMAT, "reserved"},
    };
    struct old_file f = {.meta = "{}", .entries = two, .n_entries = 2, .flags = 0x0400, .no_footer = true};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct apr_buf b;
        struct apr_model *m;
        struct apr_err e = {0};
        old_file(&b, &f);
        set_uint(&b, cases[i].at, cases[i].v, cases[i].n);
        seal_header(&b);
        enum apr_code code = tiny_open(b.data, b.n_bytes, false, &m, &e);
        if (code == APR_OK) apr_model_close(m);
        if (code != cases[i].code || !strstr(e.text, cases[i].says))
            fail_msg("case %zu: %d %s", i, code, e.text);
        code = tiny_open(b.data, b.n_bytes, true, &m, &e);
        if (code == APR_OK) apr_model_close(m);
        assert_int_equal(code, cases[i].code);
        apr_buf_free(&b);
    }
}

/* The flag says zstd and the first byte could be; what follows is none. (What is: test_pack.c and
 * routes.bats.) */
static void compressed(void **state)
{
    struct old_file f = {.meta = "{}", .entries = two, .n_entries = 2, .flags = 0x0402};
    struct apr_buf b;
    struct apr_model *m;
    struct apr_err e;
    (void)state;
    old_file(&b, &f);
    b.data[64] = 0x28; /* a zstd frame's first byte */
    assert_int_equal(tiny_open(b.data, b.n_bytes, false, &m, &e), APR_EFORMAT);
    assert_non_null(strstr(e.text, "compress"));
    apr_buf_free(&b);
}

/* What the original's reader takes: one zstd frame, or a length and one raw LZ4 block. */
static void single_blobs(void **state)
{
    static const uint16_t kinds[] = {0x0401, 0x0402};
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        struct old_file f = {.meta = "{}", .entries = two, .n_entries = 2, .flags = kinds[k]};
        uint8_t packed[4096];
        struct apr_buf b;
        struct apr_model *m;
        struct apr_err e;
        old_file(&b, &f);
        size_t n = b.n_bytes - 64, n_packed;
        memcpy(packed, b.data, 64);
        if (kinds[k] & 2) {
            n_packed = ZSTD_compress(packed + 64, sizeof packed - 64, b.data + 64, n, 3);
            assert_false(ZSTD_isError(n_packed));
        } else {
            for (unsigned i = 0; i < 4; i++) packed[64 + i] = (uint8_t)(n >> 8 * i);
            n_packed = 4 + (size_t)LZ4_compress_default((const char *)b.data + 64, (char *)packed + 68,
                                                        (int)n, (int)sizeof packed - 68);
        }
        for (int as_pipe = 0; as_pipe < 2; as_pipe++) {
            uint8_t last;
            assert_int_equal(tiny_open(packed, 64 + n_packed, as_pipe, &m, &e), APR_OK);
            const struct apr_tensor *t = &m->tensors[m->n_tensors - 1];
            assert_int_equal(apr_model_read(m, t, t->n_bytes - 1, &last, 1, &e), APR_OK);
            assert_int_equal(last, b.data[t->off_file + t->n_bytes - 1]);
            assert_int_equal(apr_model_end(m, &e), APR_OK);
            apr_model_close(m);
            assert_int_not_equal(tiny_open(packed, 64 + n_packed / 2, as_pipe, &m, &e), APR_OK);
        }
        apr_buf_free(&b);
    }
}

static void index_rules(void **state)
{
    static const struct {
        struct entry t[2];
        const char *says;
    } cases[] = {
        {{{"b", 0, 1, {4}, 0, 16}, {"a", 0, 1, {4}, 64, 16}}, "sorted"},
        {{{"a", 0, 1, {4}, 0, 16}, {"a", 0, 1, {4}, 64, 16}}, "two tensors"},
        {{{"a", 0, 1, {4}, 0, 16}, {"b", 0, 1, {4}, 0, 16}}, "expected"},    /* overlap */
        {{{"a", 0, 1, {4}, 0, 16}, {"b", 0, 1, {4}, 128, 16}}, "expected"},  /* gap */
        {{{"a", 0, 1, {4}, 64, 16}, {"b", 0, 1, {4}, 128, 16}}, "expected"}, /* first not at 0 */
        {{{"a", 0, 1, {4}, 0, 16}, {"b", 0, 1, {4}, 16, 16}}, "multiple of 64"},
        {{{"", 0, 1, {4}, 0, 16}, {"b", 0, 1, {4}, 64, 16}}, "name"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct old_file f = {.meta = "{}", .entries = cases[i].t, .n_entries = 2, .flags = 0x0400};
        struct apr_model *m;
        struct apr_err e;
        enum apr_code code = load_old(&f, false, &m, &e);
        if (code != APR_EFORMAT || !strstr(e.text, cases[i].says))
            fail_msg("case %zu: %d %s", i, code, e.text);
    }
}

int main(void)
{
    apr_log_set(APR_LOG_QUIET, "test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dtypes),         cmocka_unit_test(as_the_original_wrote),
        cmocka_unit_test(missing_footer), cmocka_unit_test(header_rules),
        cmocka_unit_test(compressed),     cmocka_unit_test(single_blobs),
        cmocka_unit_test(index_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

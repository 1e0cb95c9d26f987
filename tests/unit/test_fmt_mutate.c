/* Every truncation and every flipped header bit of a tiny file of each format, as a file and as a pipe: never
 * a crash, never a size that the file does not back, always one line and status 4, 5 or 6. An .apr file must
 * notice every flipped bit of the whole file once it is read to its end. */
#include "tiny.h"

#include "log.h"

static void make(const char *format, struct apr_buf *b)
{
    if (strcmp(format, "st") == 0)
        tiny_st(b);
    else if (strcmp(format, "apr") == 0)
        tiny_apr(b);
    else
        tiny_gguf(b);
}

/* What was accepted must lie in the file, and be readable to its end. */
static enum apr_code use(struct apr_model *m, size_t n_file, struct apr_err *e)
{
    uint8_t byte;
    enum apr_code code = APR_OK;
    for (uint64_t i = 0; i < m->n_tensors; i++) {
        const struct apr_tensor *t = &m->tensors[i];
        uint64_t n;
        assert_int_equal(apr_tensor_bytes_packed(t->type, t->packing, t->n_dims, t->dims, &n, e), APR_OK);
        assert_int_equal(n, t->n_bytes);
        assert_true(m->is_stream || (t->off_file <= n_file && t->n_bytes <= n_file - t->off_file));
        assert_true(strlen(t->name) > 0 && strlen(t->name) <= APR_MAX_NAME_BYTES);
        for (uint64_t k = 0; k < t->n_bytes && code == APR_OK; k++) {
            code = apr_model_read(m, t, k, &byte, 1, e);
            if (t->data) assert_int_equal(t->data[k], byte);
        }
        if (code != APR_OK) return code;
    }
    assert_true(m->vocab.n_toks <= n_file && m->vocab.n_merges <= n_file);
    for (uint32_t i = 0; i < m->vocab.n_toks; i++) assert_true(m->vocab.toks[i].n_bytes <= n_file);
    if (!m->is_stream && m->fmt->verify) return m->fmt->verify(m, e);
    return apr_model_end(m, e);
}

static void check_refusal(enum apr_code code, const struct apr_err *e)
{
    if (code < APR_EFORMAT || code > APR_ELOAD) fail_msg("status %d: %s", code, e->text);
    assert_int_equal(code, e->code);
    assert_true(strlen(e->text) > 10);
    for (const char *p = e->text; *p; p++) assert_true((unsigned char)*p >= 0x20 && *p != 0x7f);
}

/* Opens, uses, closes. */
static enum apr_code attempt(const struct apr_buf *b, size_t n, bool as_pipe)
{
    struct apr_err e;
    struct apr_model *m;
    enum apr_code code = tiny_open(b->data, n, as_pipe, &m, &e);
    if (code == APR_OK) {
        code = use(m, n, &e);
        apr_model_close(m);
    }
    if (code != APR_OK) check_refusal(code, &e);
    return code;
}

/* The file's own padding at the end of GGUF data may be missing. */
static bool may_be_shorter(const char *format, const struct apr_buf *b, size_t n)
{
    return strcmp(format, "gguf") == 0 && n + 32 > b->n_bytes;
}

static void truncations(void **state)
{
    static const char *const formats[] = {"st", "apr", "gguf"};
    (void)state;
    for (size_t f = 0; f < 3; f++) {
        struct apr_buf b;
        make(formats[f], &b);
        for (int as_pipe = 0; as_pipe < 2; as_pipe++) {
            assert_int_equal(attempt(&b, b.n_bytes, as_pipe), APR_OK);
            for (size_t n = 0; n < b.n_bytes; n++)
                if (attempt(&b, n, as_pipe) == APR_OK && !may_be_shorter(formats[f], &b, n))
                    fail_msg("%s: accepted when cut to %zu of %zu bytes", formats[f], n, b.n_bytes);
        }
        apr_buf_free(&b);
    }
}

static void one_byte_more(void **state)
{
    static const char *const formats[] = {"st", "apr", "gguf"};
    (void)state;
    for (size_t f = 0; f < 3; f++) {
        struct apr_buf b;
        make(formats[f], &b);
        tiny_put(&b, "x", 1);
        assert_int_equal(attempt(&b, b.n_bytes, false), APR_EFORMAT);
        assert_int_equal(attempt(&b, b.n_bytes, true), APR_EFORMAT);
        apr_buf_free(&b);
    }
}

static size_t header_bytes(const struct apr_buf *b)
{
    struct apr_model *m;
    OK(tiny_open(b->data, b->n_bytes, false, &m, &tiny_err));
    size_t n = (size_t)m->header.off_data;
    apr_model_close(m);
    return n;
}

static void flips(const char *format)
{
    struct apr_buf b;
    make(format, &b);
    size_t n_head = header_bytes(&b), n = strcmp(format, "apr") == 0 ? b.n_bytes : n_head, n_refused = 0;
    for (size_t i = 0; i < n; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            b.data[i] ^= (uint8_t)(1u << bit);
            enum apr_code as_file = attempt(&b, b.n_bytes, false), as_pipe = attempt(&b, b.n_bytes, true);
            n_refused += as_file != APR_OK;
            if (strcmp(format, "apr") == 0 && (as_file == APR_OK || as_pipe == APR_OK))
                fail_msg("apr: bit %u of byte %zu flipped, not noticed", bit, i);
            if ((as_file == APR_OK) != (as_pipe == APR_OK))
                fail_msg("%s: bit %u of byte %zu flipped: file and pipe disagree", format, bit, i);
            b.data[i] ^= (uint8_t)(1u << bit);
        }
    }
    assert_true(n_refused > n); /* most of a header matters */
    apr_buf_free(&b);
}

static void flips_st(void **state)
{
    (void)state;
    flips("st");
}

static void flips_apr(void **state)
{
    (void)state;
    flips("apr");
}

static void flips_gguf(void **state)
{
    (void)state;
    flips("gguf");
}

/* Every byte of a header replaced by 0x00 and by 0xff: lengths and counts at their extremes. */
static void extremes(void **state)
{
    static const char *const formats[] = {"st", "apr", "gguf"};
    (void)state;
    for (size_t f = 0; f < 3; f++) {
        struct apr_buf b;
        make(formats[f], &b);
        size_t n = header_bytes(&b);
        for (size_t i = 0; i < n; i++) {
            uint8_t keep[8];
            size_t n_keep = n - i < sizeof keep ? n - i : sizeof keep;
            memcpy(keep, b.data + i, n_keep);
            for (int fill = 0; fill < 256; fill += 255)
                for (size_t k = 1; k <= n_keep; k *= 2) {
                    memset(b.data + i, fill, k);
                    (void)attempt(&b, b.n_bytes, false);
                    (void)attempt(&b, b.n_bytes, true);
                    memcpy(b.data + i, keep, n_keep);
                }
        }
        apr_buf_free(&b);
    }
}

int main(void)
{
    apr_log_set(APR_LOG_QUIET, "test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(truncations), cmocka_unit_test(one_byte_more), cmocka_unit_test(flips_st),
        cmocka_unit_test(flips_apr),   cmocka_unit_test(flips_gguf),    cmocka_unit_test(extremes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

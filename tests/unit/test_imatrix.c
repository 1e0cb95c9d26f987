/* Importance matrices: both forms give the same values, damaged files are refused, weights reach the blocks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "imatrix.h"

static struct apr_buf b;

static void put(const void *p, size_t n)
{
    struct apr_err e;
    assert_int_equal(apr_buf_append(&b, p, n, &e), APR_OK);
}

static void put_u32(uint32_t v)
{
    put(&v, sizeof v);
}

static void put_u64(uint64_t v)
{
    put(&v, sizeof v);
}

static void put_f32(float v)
{
    put(&v, sizeof v);
}

static void put_text(const char *s) /* GGUF */
{
    put_u64(strlen(s));
    put(s, strlen(s));
}

static void put_info(const char *name, uint64_t n_cols, uint64_t n_rows, uint32_t type, uint64_t off)
{
    put_text(name);
    put_u32(2);
    put_u64(n_cols);
    put_u64(n_rows);
    put_u32(type);
    put_u64(off);
}

static void pad(void)
{
    while (b.n_bytes % 32 != 0) put("", 1);
}

/* Two entries: w of 4 columns, counted 3 times; x of two experts with 2 columns, one never reached. */
static void make_gguf(bool with_keys, uint32_t type, float first)
{
    b.n_bytes = 0;
    put("GGUF", 4);
    put_u32(3);
    put_u64(4);
    put_u64(with_keys ? 4 : 1);
    put_text("general.type");
    put_u32(8);
    put_text("imatrix");
    if (with_keys) {
        put_text("imatrix.datasets");
        put_u32(9);
        put_u32(8);
        put_u64(1);
        put_text("a text");
        put_text("imatrix.chunk_count");
        put_u32(4);
        put_u32(7);
        put_text("imatrix.chunk_size");
        put_u32(4);
        put_u32(512);
    }
    put_info("w.in_sum2", 4, 1, type, 0);
    put_info("w.counts", 1, 1, 0, 32);
    put_info("x.in_sum2", 2, 2, 0, 64);
    put_info("x.counts", 1, 2, 0, 96);
    pad();
    const float w[4] = {first, 6, 9, 0};
    for (int i = 0; i < 4; i++) put_f32(w[i]);
    pad();
    put_f32(3);
    pad();
    for (int i = 0; i < 4; i++) put_f32((float)i);
    pad();
    put_f32(2);
    put_f32(0);
    pad();
}

static void put_dat_entry(const char *name, uint32_t n_calls, const float *values, uint32_t n)
{
    put_u32((uint32_t)strlen(name));
    put(name, strlen(name));
    put_u32(n_calls);
    put_u32(n);
    put(values, n * sizeof *values);
}

static void make_dat(void)
{
    static const float w[4] = {3, 6, 9, 0}, x[4] = {0, 0.5F, 1, 1};
    b.n_bytes = 0;
    put_u32(2);
    put_dat_entry("x", 0, x, 4);
    put_dat_entry("w", 3, w, 4);
    put_u32(7);
    put_u32(6);
    put("a text", 6);
}

static enum apr_code open_bytes(struct apr_imatrix **im, size_t n_bytes, struct apr_err *e)
{
    char path[] = "/tmp/imatrix-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, b.data, n_bytes), (ssize_t)n_bytes);
    assert_int_equal(close(fd), 0);
    enum apr_code code = apr_imatrix_open(im, path, e);
    unlink(path);
    return code;
}

static void expect_values(void)
{
    struct apr_imatrix *im;
    struct apr_err e = {0};
    static const float w[4] = {1, 2, 3, 0}, x[4] = {0, 0.5F, 1, 1};
    enum apr_code code = open_bytes(&im, b.n_bytes, &e);
    if (code != APR_OK) fail_msg("%s", e.text);
    assert_int_equal(im->n_entries, 2);
    assert_int_equal(im->n_chunks, 7);
    assert_string_equal(im->dataset, "a text");
    const struct apr_imatrix_entry *entry = apr_imatrix_find(im, "w");
    assert_non_null(entry);
    assert_int_equal(entry->n_values, 4);
    assert_memory_equal(entry->values, w, sizeof w);
    entry = apr_imatrix_find(im, "x");
    assert_non_null(entry);
    assert_int_equal(entry->n_values, 4);
    assert_memory_equal(entry->values, x, sizeof x);
    assert_null(apr_imatrix_find(im, "y"));
    apr_imatrix_close(im);
}

static void both_forms(void **state)
{
    (void)state;
    make_gguf(true, 0, 3);
    expect_values();
    make_dat();
    expect_values();
}

static void expect_refused(size_t n_bytes, const char *part)
{
    struct apr_imatrix *im;
    struct apr_err e = {0};
    enum apr_code code = open_bytes(&im, n_bytes, &e);
    assert_int_equal(code, APR_EFORMAT);
    assert_null(im);
    if (!strstr(e.text, part)) fail_msg("\"%s\" not in: %s", part, e.text);
}

static void refused(void **state)
{
    (void)state;
    make_gguf(false, 0, 3);
    expect_refused(b.n_bytes, "imatrix.chunk_count");
    make_gguf(true, 26, 3); /* sums as I32 */
    expect_refused(b.n_bytes, "expected F32");
    make_gguf(true, 0, -1);
    expect_refused(b.n_bytes, "expected a finite number");
    make_gguf(true, 0, __builtin_nanf(""));
    expect_refused(b.n_bytes, "expected a finite number");
    make_gguf(true, 0, __builtin_inff());
    expect_refused(b.n_bytes, "expected a finite number");
    make_dat();
    b.data[4 + 4] = 'w'; /* both entries have one name */
    expect_refused(b.n_bytes, "occurs twice");
    make_dat();
    put("", 1);
    expect_refused(b.n_bytes, "after the end");
    make_dat();
    memset(b.data, 0, 4);
    expect_refused(b.n_bytes, "number of entries");
}

/* Every cut and every byte set to 0xff: refused or read, never more; memory stays with the file's size. */
static void damage(void **state)
{
    (void)state;
    for (int form = 0; form < 2; form++) {
        make_gguf(true, 0, 3);
        if (form == 1) make_dat();
        size_t n_bytes = b.n_bytes;
        struct apr_imatrix *im;
        struct apr_err e;
        for (size_t n = 0; n < n_bytes; n++) {
            enum apr_code code = open_bytes(&im, n, &e);
            bool whole = form == 1 && n == n_bytes - 14; /* without the optional end */
            bool padding = form == 0 && n >= n_bytes - 24;
            assert_int_equal(code == APR_OK, whole || padding);
            if (code == APR_OK) apr_imatrix_close(im);
        }
        for (size_t i = 0; i < n_bytes; i++) {
            uint8_t keep = b.data[i];
            b.data[i] = 0xff;
            if (open_bytes(&im, n_bytes, &e) == APR_OK) {
                assert_true(im->arena.n_bytes < 1 << 16);
                apr_imatrix_close(im);
            }
            b.data[i] = keep;
        }
    }
}

static int init(void **state)
{
    (void)state;
    apr_buf_init(&b, 1 << 16);
    return 0;
}

static int done(void **state)
{
    (void)state;
    apr_buf_free(&b);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(both_forms), cmocka_unit_test(refused),
                                       cmocka_unit_test(damage)};
    return cmocka_run_group_tests(tests, init, done);
}

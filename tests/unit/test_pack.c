/* Compressed streams: every size and kind comes back, in sequence and from any place; damage never gives
 * other bytes than those that went in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <lz4.h>
#include <lz4frame.h>
#include <zstd.h>

#include "buf.h"
#include "pack.h"

/* The top bit of the first block's size is the one that no checksum of an LZ4 frame covers; an .apr has its
 * index and its footer for that. */
#define LZ4_PLAIN_BIT_AT 10
#define MAX_BYTES        (2 * APR_PACK_BLOCK_BYTES + 12345)

static uint8_t *data; /* compressible in part */

static int make_data(void **state)
{
    uint32_t x = 1;
    (void)state;
    data = malloc(MAX_BYTES);
    if (!data) return -1;
    for (size_t i = 0; i < MAX_BYTES; i++) {
        x = x * 1664525u + 1013904223u;
        data[i] = i / 4096 % 3 == 0 ? (uint8_t)(x >> 24) : (uint8_t)(i / 100);
    }
    return 0;
}

static int free_data(void **state)
{
    (void)state;
    free(data);
    return 0;
}

static void put(void *ctx, const void *p, size_t n)
{
    struct apr_err e;
    assert_int_equal(apr_buf_append(ctx, p, n, &e), APR_OK);
}

static void pack(enum apr_pack kind, unsigned n_threads, size_t n, size_t n_step, struct apr_buf *out)
{
    struct apr_err e;
    struct apr_pool *pool = apr_pool_open(n_threads);
    struct apr_packer *p = apr_packer_open(kind, pool, put, out);
    for (size_t at = 0; at < n; at += n_step)
        assert_int_equal(apr_packer_add(p, data + at, n - at < n_step ? n - at : n_step, &e), APR_OK);
    assert_int_equal(apr_packer_end(p, &e), APR_OK);
    apr_packer_close(p);
    apr_pool_close(pool);
}

struct input {
    const uint8_t *p;
    size_t n, at, n_step;
};

static enum apr_code get(void *ctx, void *dst, size_t n, size_t *n_got, struct apr_err *e)
{
    struct input *in = ctx;
    (void)e;
    *n_got = in->n - in->at < n ? in->n - in->at : n;
    if (in->n_step && *n_got > in->n_step) *n_got = in->n_step;
    memcpy(dst, in->p + in->at, *n_got);
    in->at += *n_got;
    return APR_OK;
}

static enum apr_code at(void *ctx, uint64_t off, void *dst, size_t n, struct apr_err *e)
{
    const struct input *in = ctx;
    (void)e;
    assert_true(off <= in->n && n <= in->n - off);
    memcpy(dst, in->p + off, n);
    return APR_OK;
}

/* Everything in sequence: APR_OK and the n bytes of data, or an error and a beginning of data. */
static enum apr_code unpack(enum apr_pack kind, const uint8_t *p, size_t n_packed, size_t n, size_t n_step)
{
    struct input in = {.p = p, .n = n_packed, .n_step = n_step};
    struct apr_unpacker *u = apr_unpacker_open(kind, "test", get, &in);
    struct apr_err e;
    uint8_t *back = malloc(n + 1);
    size_t done = 0, n_got = 1;
    enum apr_code code = APR_OK;
    assert_non_null(back);
    while (code == APR_OK && n_got) {
        code = apr_unpacker_read(u, back + done, n + 1 - done < 70001 ? n + 1 - done : 70001, &n_got, &e);
        if (code == APR_OK) done += n_got;
        if (done > n) break;
    }
    assert_true(done <= n);
    assert_memory_equal(back, data, done);
    if (code == APR_OK) assert_int_equal(done, n);
    free(back);
    apr_unpacker_close(u);
    return code;
}

/* The range from off on, in one read; the rest in steps. */
static enum apr_code read_at(enum apr_pack kind, const uint8_t *p, size_t n_packed, size_t n, size_t off,
                             size_t n_read)
{
    struct input in = {.p = p, .n = n_packed};
    struct apr_pack_in from = {.kind = kind, .file = "test", .n_bytes = n_packed, .at = at, .ctx = &in};
    struct apr_packed *z;
    struct apr_err e;
    uint8_t *back = malloc(n_read + 1);
    assert_non_null(back);
    enum apr_code code = apr_packed_open(&z, &from, &e);
    if (code == APR_OK) {
        code = apr_packed_bound(z, n, &e);
        if (code == APR_OK) code = apr_packed_read(z, off, back, n_read, "a range", &e);
        if (code == APR_OK) assert_memory_equal(back, data + off, n_read);
        apr_packed_close(z);
    }
    free(back);
    return code;
}

static const enum apr_pack kinds[] = {APR_PACK_LZ4, APR_PACK_ZSTD};

static void round_trips(void **state)
{
    static const size_t sizes[] = {
        0, 1, 65536, APR_PACK_BLOCK_BYTES - 1, APR_PACK_BLOCK_BYTES, APR_PACK_BLOCK_BYTES + 1, MAX_BYTES};
    (void)state;
    for (size_t k = 0; k < 2; k++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            struct apr_buf one, two;
            size_t n = sizes[i];
            apr_buf_init(&one, SIZE_MAX / 2);
            apr_buf_init(&two, SIZE_MAX / 2);
            pack(kinds[k], 1, n, 1000003, &one);
            pack(kinds[k], 3, n, 77777, &two);
            assert_int_equal(one.n_bytes, two.n_bytes);
            assert_memory_equal(one.data, two.data, one.n_bytes);
            assert_int_equal(unpack(kinds[k], one.data, one.n_bytes, n, 0), APR_OK);
            if (n < 70000) assert_int_equal(unpack(kinds[k], one.data, one.n_bytes, n, 1), APR_OK);
            assert_int_equal(read_at(kinds[k], one.data, one.n_bytes, n, 0, n), APR_OK);
            if (n > 10) {
                assert_int_equal(read_at(kinds[k], one.data, one.n_bytes, n, n / 3, n / 2), APR_OK);
                assert_int_equal(read_at(kinds[k], one.data, one.n_bytes, n, n - 1, 1), APR_OK);
                assert_int_equal(read_at(kinds[k], one.data, one.n_bytes, n, n - 1, 2), APR_EFORMAT);
                assert_int_equal(read_at(kinds[k], one.data, one.n_bytes, n - 1, 0, 1), APR_EFORMAT);
            }
            apr_buf_free(&one);
            apr_buf_free(&two);
        }
}

static void level_19(void **state)
{
    struct apr_buf b;
    (void)state;
    apr_buf_init(&b, SIZE_MAX / 2);
    pack(APR_PACK_ZSTD_MAX, 2, 300000, 300000, &b);
    assert_int_equal(unpack(APR_PACK_ZSTD, b.data, b.n_bytes, 300000, 0), APR_OK);
    apr_buf_free(&b);
}

/* A u32 and one raw block; a zstd frame that does not tell its size; a linked LZ4 frame. */
static void foreign_forms(void **state)
{
    const size_t n = 3000000;
    size_t cap = ZSTD_compressBound(n) + 64;
    uint8_t *p = malloc(cap);
    (void)state;
    assert_non_null(p);
    for (unsigned i = 0; i < 4; i++) p[i] = (uint8_t)(n >> 8 * i);
    int n_lz4 = LZ4_compress_default((const char *)data, (char *)p + 4, (int)n, (int)cap - 4);
    assert_true(n_lz4 > 0);
    size_t n_blob = (size_t)n_lz4 + 4;
    assert_int_equal(unpack(APR_PACK_LZ4, p, n_blob, n, 0), APR_OK);
    assert_int_equal(read_at(APR_PACK_LZ4, p, n_blob, n, 5, n - 9), APR_OK);
    assert_int_equal(unpack(APR_PACK_LZ4, p, n_blob - 1, n, 0), APR_EFORMAT);
    p[3] = 0x70; /* 1.9 GB from 1 MB: more than LZ4 can reach */
    assert_int_equal(unpack(APR_PACK_LZ4, p, n_blob, n, 0), APR_EFORMAT);
    p[3] = 0xff;
    assert_int_equal(unpack(APR_PACK_LZ4, p, n_blob, n, 0), APR_ELOAD);

    ZSTD_CCtx *c = ZSTD_createCCtx();
    ZSTD_inBuffer in = {data, n, 0};
    ZSTD_outBuffer out = {p, cap, 0};
    ZSTD_CCtx_setParameter(c, ZSTD_c_contentSizeFlag, 0);
    assert_int_equal(ZSTD_compressStream2(c, &out, &in, ZSTD_e_end), 0);
    ZSTD_freeCCtx(c);
    assert_int_equal(unpack(APR_PACK_ZSTD, p, out.pos, n, 1000), APR_OK);
    assert_int_equal(read_at(APR_PACK_ZSTD, p, out.pos, n, 100, n - 100), APR_OK);
    assert_int_equal(read_at(APR_PACK_ZSTD, p, out.pos, n - 1, 0, 1), APR_EFORMAT);

    LZ4F_preferences_t how = {.frameInfo = {.blockMode = LZ4F_blockLinked, .contentChecksumFlag = 1}};
    size_t n_frame = LZ4F_compressFrame(p, cap, data, n, &how);
    assert_false(LZ4F_isError(n_frame));
    assert_int_equal(unpack(APR_PACK_LZ4, p, n_frame, n, 0), APR_OK);
    assert_int_equal(read_at(APR_PACK_LZ4, p, n_frame, n, 1234567, 1000000), APR_OK);
    free(p);
}

/* Whatever byte is turned: an error, or exactly the right content. */
static void damage(void **state)
{
    const size_t n = 50000;
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        struct apr_buf b;
        apr_buf_init(&b, SIZE_MAX / 2);
        pack(kinds[k], 1, n, n, &b);
        for (size_t i = 0; i < b.n_bytes; i += i < 64 || i + 64 > b.n_bytes ? 1 : 97) {
            static const uint8_t masks[] = {0x01, 0x80, 0xff};
            for (size_t j = 0; j < 3; j++) {
                if (kinds[k] == APR_PACK_LZ4 && i == LZ4_PLAIN_BIT_AT && (masks[j] & 0x80)) continue;
                b.data[i] ^= masks[j];
                (void)unpack(kinds[k], b.data, b.n_bytes, n, 0);
                (void)read_at(kinds[k], b.data, b.n_bytes, n, 0, n);
                b.data[i] ^= masks[j];
            }
        }
        for (size_t cut = 1; cut < b.n_bytes; cut += cut < 64 || cut + 64 > b.n_bytes ? 1 : 97) {
            enum apr_code code = read_at(kinds[k], b.data, cut, n, 0, n);
            assert_true(code == APR_EFORMAT || kinds[k] == APR_PACK_ZSTD);
            (void)unpack(kinds[k], b.data, cut, n, 0);
        }
        apr_buf_free(&b);
    }
}

/* Seek tables that claim what is not there. */
static void hostile_tables(void **state)
{
    static const uint32_t rows[][2] = {{0, 1},       {1, 0},  {0xffffffff, 1}, {100, 0xffffffff},
                                       {100, 50000}, {101, 9}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint8_t file[100 + 8 + 8 + 9] = {0};
        const uint32_t words[] = {0x184D2A5E, 17, rows[i][0], rows[i][1], 1};
        for (size_t w = 0; w < 5; w++)
            for (unsigned s = 0; s < 4; s++) file[100 + 4 * w + s] = (uint8_t)(words[w] >> 8 * s);
        const uint8_t magic[] = {0xB1, 0xEA, 0x92, 0x8F};
        memcpy(file + sizeof file - 4, magic, 4);
        assert_int_equal(read_at(APR_PACK_ZSTD, file, sizeof file, 50000, 0, 9), APR_EFORMAT);
    }
}

/* Bytes without any pattern, which nothing can shrink: the bound holds, and LZ4 reaches it. */
static void bound(void **state)
{
    static const size_t sizes[] = {0, 1, 100, APR_PACK_BLOCK_BYTES, MAX_BYTES};
    uint64_t x = 88172645463325252U;
    uint8_t *saved = malloc(MAX_BYTES);
    (void)state;
    assert_non_null(saved);
    memcpy(saved, data, MAX_BYTES);
    for (size_t i = 0; i < MAX_BYTES; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        data[i] = (uint8_t)(x >> 32);
    }
    for (size_t k = 0; k < 2; k++) {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            struct apr_buf out;
            apr_buf_init(&out, 4 * MAX_BYTES);
            pack(kinds[k], 2, sizes[i], 70001, &out);
            assert_in_range(out.n_bytes, sizes[i], apr_pack_bound(kinds[k], sizes[i]));
            assert_true(apr_pack_bound(kinds[k], sizes[i]) <= out.n_bytes + sizes[i] / 128 + 256);
            apr_buf_free(&out);
        }
    }
    assert_int_equal(apr_pack_bound(APR_PACK_NONE, 77), 77);
    memcpy(data, saved, MAX_BYTES);
    free(saved);
}

static void names(void **state)
{
    enum apr_pack kind;
    (void)state;
    assert_true(apr_pack_named("ZSTD-max", &kind));
    assert_int_equal(kind, APR_PACK_ZSTD_MAX);
    assert_false(apr_pack_named("gzip", &kind));
    assert_false(apr_pack_named("", &kind));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trips), cmocka_unit_test(level_19),       cmocka_unit_test(foreign_forms),
        cmocka_unit_test(damage),      cmocka_unit_test(hostile_tables), cmocka_unit_test(bound),
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, make_data, free_data);
}

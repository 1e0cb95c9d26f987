/* The ground floor: checked arithmetic, errors, arena, buffer, cursor, hashes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "arena.h"
#include "buf.h"
#include "ckd.h"
#include "err.h"
#include "hash.h"
#include "rd.h"

static void ckd_tells_overflow(void **state)
{
    (void)state;
    uint64_t u;
    size_t z;
    int64_t i;
    assert_false(ckd_add(&u, UINT64_MAX - 1, 1ULL));
    assert_int_equal(u, UINT64_MAX);
    assert_true(ckd_add(&u, UINT64_MAX, 1ULL));
    assert_true(ckd_sub(&u, 1ULL, 2ULL));
    assert_true(ckd_mul(&z, SIZE_MAX / 2 + 1, (size_t)2));
    assert_false(ckd_mul(&z, SIZE_MAX / 2, (size_t)2));
    assert_true(ckd_mul(&i, INT64_MAX, (int64_t)-2));
    uint32_t small;
    assert_true(ckd_add(&small, 1ULL << 32, 0ULL)); /* fits the operands, not the result */
}

static void messages_are_one_safe_line(void **state)
{
    (void)state;
    struct apr_err e;
    int rc = (int)apr_fail(&e, APR_EFORMAT, "a%cb\n\x1b[31m\xff\xe2\x80\xae%s", 1, "\xc3\xa9");
    assert_int_equal(rc, APR_EFORMAT);
    assert_string_equal(e.text, "a\\x01b\\x0a\\x1b[31m\\xff\\u{202e}\xc3\xa9");
    apr_err_prefix(&e, "%s", "file");
    assert_int_equal(e.code, APR_EFORMAT);
    assert_string_equal(e.text, "file: a\\x01b\\x0a\\x1b[31m\\xff\\u{202e}\xc3\xa9");
    char *long_text = malloc(10000);
    assert_non_null(long_text);
    memset(long_text, 'x', 9999);
    long_text[9999] = '\0';
    apr_err_set(&e, APR_EIO, "%s", long_text);
    assert_int_equal(strlen(e.text), sizeof e.text - 1);
    assert_string_equal(e.text + sizeof e.text - 4, "...");
    free(long_text);
}

static void escape_cuts_between_characters(void **state)
{
    (void)state;
    char out[9];
    assert_string_equal(apr_escape(out, sizeof out, "12345678", 8), "12345678");
    assert_string_equal(apr_escape(out, sizeof out, "123456789", 9), "12345...");
    assert_string_equal(apr_escape(out, sizeof out, "1234\xc3\xa9\xc3\xa9\xc3\xa9", 10), "1234...");
    assert_string_equal(apr_escape(out, sizeof out, "", 0), "");
    for (unsigned long n = 1; n <= sizeof out; n++) {
        apr_escape(out, n, "\n\n\n\n\n", 5);
        assert_true(strlen(out) < n);
    }
}

static void every_code_has_a_meaning(void **state)
{
    (void)state;
    for (int code = APR_OK; code <= APR_ENET; code++)
        assert_true(strcmp(apr_code_meaning((enum apr_code)code), "unknown status") != 0);
    assert_string_equal(apr_code_meaning((enum apr_code)11), "unknown status");
}

static void arena_is_aligned_zeroed_and_apart(void **state)
{
    (void)state;
    struct apr_arena a;
    uint8_t *at[200];
    apr_arena_init(&a);
    for (size_t i = 0; i < 200; i++) {
        size_t n = i * i % 9000;
        at[i] = apr_arena_get(&a, n);
        assert_int_equal((uintptr_t)at[i] % 64, 0);
        for (size_t j = 0; j < n; j++) assert_int_equal(at[i][j], 0);
        memset(at[i], (int)i, n);
    }
    for (size_t i = 0; i < 200; i++)
        for (size_t j = 0; j < i * i % 9000; j++) assert_int_equal(at[i][j], (uint8_t)i);
    apr_arena_free(&a);
    assert_null(a.head);
}

static void arena_refuses_what_it_cannot_hold(void **state)
{
    (void)state;
    struct apr_arena a;
    struct apr_err e;
    void *p = &a;
    apr_arena_init(&a);
    assert_int_equal(apr_arena_try(&a, &p, SIZE_MAX / 4, 8, "tensors", &e), APR_ELOAD);
    assert_null(p);
    assert_non_null(strstr(e.text, "tensors"));
    assert_int_equal(apr_arena_try(&a, &p, SIZE_MAX - 10, 1, "tensors", &e), APR_ELOAD);
    assert_int_equal(apr_arena_try(&a, &p, 10, 10, "tensors", &e), APR_OK);
    assert_non_null(p);
    assert_string_equal(apr_arena_strndup(&a, "abcdef", 3), "abc");
    assert_string_equal(apr_arena_printf(&a, "%d-%s", 7, "x"), "7-x");
    apr_arena_free(&a);
}

static void buffer_grows_to_its_ceiling(void **state)
{
    (void)state;
    struct apr_buf b;
    struct apr_err e;
    uint8_t *at;
    apr_buf_init(&b, 1000);
    for (int i = 0; i < 100; i++) assert_int_equal(apr_buf_append(&b, "0123456789", 10, &e), APR_OK);
    assert_int_equal(b.n_bytes, 1000);
    assert_int_equal(b.data[1000], 0);
    assert_int_equal(apr_buf_append(&b, "x", 1, &e), APR_EFORMAT);
    assert_int_equal(apr_buf_reserve(&b, SIZE_MAX, &at, &e), APR_EFORMAT);
    assert_int_equal(b.n_bytes, 1000);
    apr_buf_drop_front(&b, 995);
    assert_string_equal((char *)b.data, "56789");
    assert_int_equal(apr_buf_printf(&b, &e, "%05d", 42), APR_OK);
    assert_string_equal((char *)b.data, "5678900042");
    apr_buf_drop_front(&b, 5000);
    assert_int_equal(b.n_bytes, 0);
    apr_buf_free(&b);
    assert_null(b.data);
}

static void cursor_reads_little_endian(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xff};
    struct apr_rd rd;
    struct apr_err e;
    uint8_t a;
    uint16_t b;
    uint32_t c;
    uint64_t d;
    apr_rd_mem(&rd, bytes, sizeof bytes - 0, 100, "f");
    assert_int_equal(
        apr_rd_u8(&rd, &a, "a", &e) | apr_rd_u16(&rd, &b, "b", &e) | apr_rd_u32(&rd, &c, "c", &e), APR_OK);
    assert_int_equal(a, 1);
    assert_int_equal(b, 0x0302);
    assert_int_equal(c, 0x07060504);
    assert_int_equal(apr_rd_off(&rd), 107);
    assert_int_equal(apr_rd_u64(&rd, &d, "d", &e), APR_OK);
    assert_true(d == 0xff0e0d0c0b0a0908u);
    assert_int_equal(apr_rd_left(&rd), 0);
    assert_int_equal(apr_rd_u8(&rd, &a, "the end", &e), APR_EFORMAT);
    assert_string_equal(e.text, "f: byte 115: the end needs 1 bytes, 0 are left");
}

static void cursor_never_leaves_its_bytes(void **state)
{
    (void)state;
    struct apr_err e;
    const uint8_t *p;
    for (size_t n = 0; n < 16; n++) {
        uint8_t *bytes = malloc(n + 1); /* exact end for the sanitizer when n bytes are given at +1 */
        assert_non_null(bytes);
        memset(bytes, 0, n + 1);
        struct apr_rd rd;
        uint64_t v;
        apr_rd_mem(&rd, bytes + 1, n, 0, "f");
        assert_int_equal(apr_rd_u64(&rd, &v, "v", &e) == APR_OK, n >= 8);
        assert_int_equal(apr_rd_off(&rd), n >= 8 ? 8 : 0);
        assert_int_equal(apr_rd_bytes(&rd, UINT64_MAX, &p, "v", &e), APR_EFORMAT);
        assert_int_equal(apr_rd_bytes(&rd, UINT64_MAX - 4, &p, "v", &e), APR_EFORMAT);
        assert_int_equal(apr_rd_room(&rd, UINT64_MAX, UINT64_MAX, "v", &e), APR_EFORMAT);
        assert_int_equal(apr_rd_room(&rd, apr_rd_left(&rd), 1, "v", &e), APR_OK);
        assert_int_equal(apr_rd_room(&rd, apr_rd_left(&rd) + 1, 1, "v", &e), APR_EFORMAT);
        assert_int_equal(apr_rd_zeros(&rd, apr_rd_left(&rd), "v", &e), APR_OK);
        free(bytes);
    }
}

static void cursor_names_the_byte_that_is_not_zero(void **state)
{
    (void)state;
    uint8_t bytes[32] = {0};
    struct apr_rd rd;
    struct apr_err e;
    bytes[17] = 0xab;
    apr_rd_mem(&rd, bytes, sizeof bytes, 1000, "f");
    assert_int_equal(apr_rd_zeros(&rd, 32, "padding", &e), APR_EFORMAT);
    assert_string_equal(e.text, "f: byte 1017: padding: found 0xab, expected zero");
}

/* Vectors: FIPS 180-2 appendix B.1; the check value of CRC-32/ISO-HDLC; xxHash's XXH3_64bits of nothing. */
static void hashes_give_published_values(void **state)
{
    (void)state;
    struct apr_sha256 *h;
    struct apr_err e;
    char hex[APR_SHA256_HEX];
    assert_int_equal(apr_sha256_begin(&h, &e), APR_OK);
    apr_sha256_add(h, "a", 1);
    apr_sha256_add(h, "bc", 2);
    apr_sha256_end(h, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_int_equal(apr_crc32(0, "123456789", 9), 0xcbf43926);
    assert_int_equal(apr_crc32(apr_crc32(0, "1234", 4), "56789", 5), 0xcbf43926);
    assert_true(apr_xxh3_64("", 0) == 0x2d06800538d394c2u);
    struct apr_xxh3 *x = apr_xxh3_begin();
    apr_xxh3_add(x, "12345", 5);
    apr_xxh3_add(x, "6789", 4);
    assert_true(apr_xxh3_end(x) == apr_xxh3_64("123456789", 9));
    assert_true(apr_hash_key("k", 1) == apr_hash_key("k", 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ckd_tells_overflow),
        cmocka_unit_test(messages_are_one_safe_line),
        cmocka_unit_test(escape_cuts_between_characters),
        cmocka_unit_test(every_code_has_a_meaning),
        cmocka_unit_test(arena_is_aligned_zeroed_and_apart),
        cmocka_unit_test(arena_refuses_what_it_cannot_hold),
        cmocka_unit_test(buffer_grows_to_its_ceiling),
        cmocka_unit_test(cursor_reads_little_endian),
        cmocka_unit_test(cursor_never_leaves_its_bytes),
        cmocka_unit_test(cursor_names_the_byte_that_is_not_zero),
        cmocka_unit_test(hashes_give_published_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The paged cache: pages do not overlap, growth keeps what is there, the limit is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "../../tools/apr-infer/cache.h"

static const struct apr_config cfg = {.n_layers = 3, .n_heads_kv = 2, .head_dim = 10};

static void fill_and_compare(bool is_f32)
{
    struct apr_blocks b;
    struct apr_cache c;
    struct apr_err e = {0};
    assert_int_equal(apr_blocks_init(&b, &cfg, apr_cache_plain(is_f32), 100, &e), APR_OK);
    assert_int_equal(apr_cache_init(&c, &b, 100, &e), APR_OK);
    size_t n_bytes = 16 * 10 * (is_f32 ? 4u : 2u);
    assert_int_equal(16 * b.row_bytes[APR_CACHE_K], n_bytes);
    assert_int_equal(16 * b.row_bytes[APR_CACHE_V], n_bytes);
    uint8_t tag = 1;
    for (size_t n_pos = 1; n_pos <= 100; n_pos += 33)
        assert_int_equal(apr_cache_reserve(&c, n_pos, &e), APR_OK);
    assert_int_equal(c.n_blocks, 7);
    for (int pass = 0; pass < 2; pass++, tag = 1) /* write every page, then find every byte again */
        for (size_t i = 0; i < c.n_blocks; i++)
            for (uint32_t l = 0; l < 3; l++)
                for (uint32_t h = 0; h < 2; h++)
                    for (int part = 0; part < 2; part++, tag++) {
                        uint8_t *page = apr_cache_page(&c, (enum apr_cache_part)part, l, h, i);
                        if (pass == 0) memset(page, tag, n_bytes);
                        for (size_t k = 0; k < n_bytes; k++) assert_int_equal(page[k], tag);
                    }
    apr_cache_free(&c);
    apr_blocks_free(&b);
}

static void pages_are_apart(void **state)
{
    (void)state;
    fill_and_compare(false);
    fill_and_compare(true);
}

static void limits(void **state)
{
    (void)state;
    struct apr_blocks b;
    struct apr_cache c;
    struct apr_err e = {0};
    assert_int_equal(apr_blocks_init(&b, &cfg, apr_cache_plain(false), 17, &e), APR_OK);
    assert_int_equal(apr_cache_init(&c, &b, 17, &e), APR_OK);
    assert_int_equal(apr_cache_reserve(&c, 17, &e), APR_OK);
    assert_int_equal(c.n_blocks, 2);
    assert_int_equal(apr_cache_reserve(&c, 18, &e), APR_EUSAGE);
    assert_string_equal(e.text, "18 tokens do not fit the context of 17");
    c.n_pos = 17;
    apr_cache_truncate(&c, 20);
    assert_int_equal(c.n_pos, 17);
    apr_cache_truncate(&c, 3);
    assert_int_equal(c.n_pos, 3);
    assert_int_equal(c.n_blocks, 1);
    apr_cache_free(&c);
    apr_blocks_free(&b);

    const struct apr_page_type *q8 = apr_page_type_named("q8_0"), *f16 = apr_page_type_named("f16");
    assert_int_equal(apr_blocks_init(&b, &cfg, (struct apr_cache_types){{f16, q8}}, 17, &e), APR_EUSAGE);
    assert_string_equal(
        e.text, "a cache of type q8_0 stores blocks of 32 values; values of this model have 10 a head");
    apr_blocks_free(&b);

    struct apr_config huge = {.n_layers = UINT32_MAX, .n_heads_kv = UINT32_MAX, .head_dim = UINT32_MAX};
    assert_int_equal(apr_blocks_init(&b, &huge, apr_cache_plain(true), 16, &e), APR_ELOAD);
    apr_blocks_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pages_are_apart), cmocka_unit_test(limits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

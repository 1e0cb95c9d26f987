/* The paged cache: pages do not overlap, growth keeps what is there, limits are refused, blocks are shared
 * until they are written, windows let theirs go. */
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

/* ---- sharing ------------------------------------------------------------------------------------------ */

static struct apr_cache opened(struct apr_blocks *b, size_t n_max)
{
    struct apr_cache c;
    struct apr_err e = {0};
    assert_int_equal(apr_cache_init(&c, b, n_max, &e), APR_OK);
    return c;
}

/* n more positions, each marked with tag in every layer. */
static void grow(struct apr_cache *c, size_t n, uint8_t tag)
{
    struct apr_err e = {0};
    assert_int_equal(apr_cache_reserve(c, c->n_pos + n, &e), APR_OK);
    for (; n; n--, c->n_pos++)
        for (uint32_t l = 0; l < c->blocks->n_layers; l++) {
            uint8_t *page = apr_cache_page(c, APR_CACHE_K, l, 0, c->n_pos / APR_PAGE_POS);
            page[c->n_pos % APR_PAGE_POS * c->blocks->row_bytes[APR_CACHE_K]] = tag;
        }
}

static uint8_t tag_at(const struct apr_cache *c, uint32_t i_layer, size_t pos)
{
    const uint8_t *page = apr_cache_page(c, APR_CACHE_K, i_layer, 0, pos / APR_PAGE_POS);
    return page[pos % APR_PAGE_POS * c->blocks->row_bytes[APR_CACHE_K]];
}

static void forks_share_until_they_write(void **state)
{
    (void)state;
    struct apr_blocks b;
    struct apr_err e = {0};
    assert_int_equal(apr_blocks_init(&b, &cfg, apr_cache_plain(false), 96, &e), APR_OK);
    struct apr_cache one = opened(&b, 96), two = opened(&b, 96), three = opened(&b, 40);
    const struct apr_block_group *g = &b.groups[APR_CACHE_GLOBAL];
    grow(&one, 40, 1);
    assert_int_equal(g->n_used, 3);
    assert_int_equal(apr_cache_fork(&three, &one, 41, &e), APR_EUSAGE);
    assert_int_equal(apr_cache_fork(&two, &one, 36, &e), APR_OK);
    assert_int_equal(apr_cache_fork(&three, &two, 16, &e), APR_OK);
    assert_int_equal(g->n_used, 3);
    assert_int_equal(g->n_shared, 3);
    assert_int_equal(b.n_copied, 0);
    grow(&three, 1, 3); /* a fresh block: nothing to copy */
    assert_int_equal(b.n_copied, 0);
    grow(&two, 2, 2); /* inside the third block, which is copied */
    assert_int_equal(b.n_copied, 1);
    assert_int_equal(g->n_used, 5);
    assert_int_equal(g->n_shared, 2);
    for (size_t pos = 0; pos < 40; pos++) assert_int_equal(tag_at(&one, 2, pos), 1);
    for (size_t pos = 0; pos < 38; pos++) assert_int_equal(tag_at(&two, 1, pos), pos < 36 ? 1 : 2);
    assert_int_equal(tag_at(&three, 0, 15), 1);
    assert_int_equal(tag_at(&three, 0, 16), 3);
    grow(&one, 1, 4); /* it is the only holder now */
    assert_int_equal(b.n_copied, 1);
    apr_cache_free(&one);
    assert_int_equal(g->n_used, 4);
    assert_int_equal(g->n_shared, 1);
    assert_int_equal(tag_at(&two, 0, 20), 1);
    apr_cache_truncate(&two, 16);
    assert_int_equal(g->n_used, 2);
    apr_cache_truncate(&two, 0);
    apr_cache_free(&three);
    assert_int_equal(g->n_used, 0);
    assert_int_equal(g->n_shared, 0);
    assert_int_equal(g->n_made, 5);
    apr_cache_free(&two);
    apr_blocks_free(&b);
}

/* The pool is bounded, and what it refuses is told. */
static void pool_is_bounded(void **state)
{
    (void)state;
    struct apr_blocks b;
    struct apr_err e = {0};
    assert_int_equal(apr_blocks_init(&b, &cfg, apr_cache_plain(false), 33, &e), APR_OK);
    struct apr_cache one = opened(&b, 96), two = opened(&b, 96);
    assert_int_equal(apr_blocks_left(&b), 48);
    grow(&one, 17, 1);
    assert_int_equal(apr_blocks_left(&b), 16);
    grow(&two, 16, 2);
    assert_int_equal(apr_cache_reserve(&two, 17, &e), APR_ELOAD);
    assert_string_equal(e.text, "the key-value cache is full: its 3 blocks of 16 positions are in use");
    assert_int_equal(two.n_pos, 16);
    assert_int_equal(two.n_blocks, 1);
    apr_blocks_allow(&b, 16);
    grow(&two, 1, 2);
    apr_cache_free(&one);
    apr_cache_free(&two);
    apr_blocks_free(&b);
}

/* ---- windows ------------------------------------------------------------------------------------------ */

static const struct apr_config mixed = {.n_layers = 3,
                                        .n_heads_kv = 1,
                                        .head_dim = 8,
                                        .window = 100,
                                        .local = {1u << 0 | 1u << 2}}; /* layer 1 sees everything */
#define MOST_LOCAL(n_step) ((100 + APR_CACHE_SLACK + (n_step)) / APR_PAGE_POS + 3)

/* Layers that see a window keep a bounded number of blocks, whatever the length and the step. */
static void windows_are_bounded(void **state)
{
    (void)state;
    static const size_t steps[] = {1, 7, 16, 100, 512};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        struct apr_blocks b;
        struct apr_err e = {0};
        assert_int_equal(apr_blocks_init(&b, &mixed, apr_cache_plain(false), 20000, &e), APR_OK);
        struct apr_cache c = opened(&b, 20000);
        const struct apr_block_group *local = &b.groups[APR_CACHE_LOCAL];
        while (c.n_pos < 10000) {
            size_t n_before = c.n_pos;
            grow(&c, steps[i], (uint8_t)(n_before / 100));
            assert_true(local->n_used <= MOST_LOCAL(steps[i]));
            /* all that the step and one 64 tokens earlier see */
            size_t first = n_before > 99 + APR_CACHE_SLACK ? n_before - 99 - APR_CACHE_SLACK : 0;
            assert_true(c.first_block[APR_CACHE_LOCAL] * APR_PAGE_POS <= first);
        }
        assert_int_equal(b.groups[APR_CACHE_GLOBAL].n_used, (c.n_pos + 15) / 16);
        assert_true(local->n_made <= MOST_LOCAL(steps[i]));
        assert_true(apr_cache_bytes(&c, c.n_pos) <= apr_blocks_bytes(&b));
        apr_cache_free(&c);
        apr_blocks_free(&b);
    }
}

/* What local layers need is there after a truncation by the slack; further back the cache says it is lost. */
static void truncations_behind_the_window(void **state)
{
    (void)state;
    struct apr_blocks b;
    struct apr_err e = {0};
    assert_int_equal(apr_blocks_init(&b, &mixed, apr_cache_plain(false), 4096, &e), APR_OK);
    struct apr_cache c = opened(&b, 1024), fork = opened(&b, 1024);
    for (size_t i = 0; i < 600; i++) {
        c.ids[i] = (int32_t)i;
        grow(&c, 1, (uint8_t)i);
    }
    apr_cache_truncate(&c, c.n_pos - APR_CACHE_SLACK);
    assert_false(c.is_lost);
    for (size_t pos = c.n_pos - 99; pos < c.n_pos; pos++) assert_int_equal(tag_at(&c, 2, pos), (uint8_t)pos);
    assert_int_equal(apr_cache_fork(&fork, &c, 300, &e), APR_OK); /* the past of a window cannot be shared */
    assert_true(fork.is_lost);
    assert_int_equal(fork.n_pos, 300);
    assert_int_equal(fork.ids[299], 299);
    apr_cache_truncate(&fork, 0);
    assert_false(fork.is_lost);
    assert_int_equal(apr_cache_fork(&fork, &c, 536, &e), APR_OK);
    assert_false(fork.is_lost);
    for (size_t pos = 437; pos < 536; pos++) assert_int_equal(tag_at(&fork, 0, pos), (uint8_t)pos);
    apr_cache_truncate(&c, 200);
    assert_true(c.is_lost);
    assert_int_equal(c.n_pos, 200);
    assert_int_equal(c.n_blocks, 0);
    apr_cache_free(&fork);
    for (size_t g = 0; g < APR_CACHE_GROUPS; g++) assert_int_equal(b.groups[g].n_used, 0);
    apr_cache_free(&c);
    apr_blocks_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_are_apart),
        cmocka_unit_test(limits),
        cmocka_unit_test(forks_share_until_they_write),
        cmocka_unit_test(pool_is_bounded),
        cmocka_unit_test(windows_are_bounded),
        cmocka_unit_test(truncations_behind_the_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

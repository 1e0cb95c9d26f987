/* The breaker's states, the waits between retries, the bulkhead: with a clock of our own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../tools/apr-infer/guard.h"

#define S INT64_C(1000000000)

static void breaker_opens_at_the_fifth(void **state)
{
    struct apr_breaker b = {0};
    (void)state;
    for (int i = 0; i < 4; i++) {
        assert_true(apr_breaker_allows(&b, i));
        apr_breaker_note(&b, false, i);
    }
    assert_true(apr_breaker_allows(&b, 4));
    apr_breaker_note(&b, true, 4); /* not in a row */
    for (int i = 0; i < 4; i++) apr_breaker_note(&b, false, 5);
    assert_true(apr_breaker_allows(&b, 6));
    apr_breaker_note(&b, false, 7 * S);
    assert_false(apr_breaker_allows(&b, 7 * S));
    assert_int_equal(apr_breaker_wait_ns(&b, 8 * S), 29 * S);
    assert_false(apr_breaker_allows(&b, 37 * S - 1));
    assert_true(apr_breaker_allows(&b, 37 * S));
    assert_int_equal(b.state, APR_BREAKER_HALF_OPEN);
}

static void breaker_closes_at_the_second(void **state)
{
    struct apr_breaker b = {0};
    (void)state;
    for (int i = 0; i < 5; i++) apr_breaker_note(&b, false, 0);
    assert_true(apr_breaker_allows(&b, 30 * S));
    apr_breaker_note(&b, true, 30 * S);
    assert_int_equal(b.state, APR_BREAKER_HALF_OPEN);
    apr_breaker_note(&b, true, 31 * S);
    assert_int_equal(b.state, APR_BREAKER_CLOSED);
    assert_int_equal(apr_breaker_wait_ns(&b, 31 * S), 0);
    for (int i = 0; i < 4; i++) apr_breaker_note(&b, false, 32 * S);
    assert_true(apr_breaker_allows(&b, 32 * S)); /* it counts from nothing again */
}

static void breaker_opens_again_at_once(void **state)
{
    struct apr_breaker b = {0};
    (void)state;
    for (int i = 0; i < 5; i++) apr_breaker_note(&b, false, 0);
    assert_true(apr_breaker_allows(&b, 30 * S));
    apr_breaker_note(&b, true, 30 * S);
    apr_breaker_note(&b, false, 31 * S);
    assert_false(apr_breaker_allows(&b, 60 * S));
    assert_true(apr_breaker_allows(&b, 61 * S));
    apr_breaker_note(&b, true, 61 * S); /* the success before the failure does not count */
    assert_int_equal(b.state, APR_BREAKER_HALF_OPEN);
}

static void waits_double_up_to_a_limit(void **state)
{
    uint64_t random = 88172645463325252u;
    int64_t least = INT64_MAX, most = 0;
    (void)state;
    for (unsigned i = 0; i < 40; i++) {
        int64_t ns = apr_backoff_ns(i, &random), mean = i < 9 ? APR_BACKOFF_NS << i : APR_BACKOFF_MAX_NS;
        assert_true(ns >= mean / 10 * 9 && ns <= mean / 10 * 11 && ns <= APR_BACKOFF_MAX_NS);
    }
    for (int i = 0; i < 1000; i++) {
        int64_t ns = apr_backoff_ns(0, &random);
        least = ns < least ? ns : least;
        most = ns > most ? ns : most;
    }
    assert_true(least < APR_BACKOFF_NS * 92 / 100 && most > APR_BACKOFF_NS * 108 / 100);
}

static void bulkhead_refuses_at_once(void **state)
{
    struct apr_bulkhead h = {.n_places = 2};
    (void)state;
    assert_true(apr_bulkhead_take(&h));
    assert_true(apr_bulkhead_take(&h));
    assert_false(apr_bulkhead_take(&h));
    apr_bulkhead_give(&h);
    assert_true(apr_bulkhead_take(&h));
    assert_false(apr_bulkhead_take(&h));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(breaker_opens_at_the_fifth),  cmocka_unit_test(breaker_closes_at_the_second),
        cmocka_unit_test(breaker_opens_again_at_once), cmocka_unit_test(waits_double_up_to_a_limit),
        cmocka_unit_test(bulkhead_refuses_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

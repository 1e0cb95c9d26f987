/* Summaries of measurements against hand-computed values; lists and ranges of options. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "../../tools/apr-infer/ranges.h"
#include "../../tools/apr-infer/series.h"

static void near(double x, double want)
{
    assert_true(fabs(x - want) <= 1e-12 * (1 + fabs(want)));
}

static void test_summary(void **state)
{
    double at[] = {4, 1, 3, 2, 10};
    (void)state;
    struct apr_summary s = apr_summary_of(at, 5);
    assert_int_equal(s.n, 5);
    near(s.mean, 4);
    near(s.sd, sqrt(12.5));
    near(s.cv_pct, 100 * sqrt(12.5) / 4);
    near(s.min, 1);
    near(s.p50, 3);
    near(s.p95, 4 + 0.8 * 6);
    near(s.p99, 4 + 0.96 * 6);
    near(s.max, 10);
}

static void test_summary_of_few(void **state)
{
    double one[] = {7}, two[] = {2, 1};
    (void)state;
    struct apr_summary s = apr_summary_of(one, 0);
    near(s.mean, 0);
    s = apr_summary_of(one, 1);
    near(s.p50, 7);
    near(s.p99, 7);
    near(s.sd, 0);
    s = apr_summary_of(two, 2);
    near(s.p50, 1.5);
    near(s.sd, sqrt(0.5));
}

static void test_ranges(void **state)
{
    static const struct {
        const char *text;
        size_t n;
        uint64_t at[8];
    } rows[] = {
        {"512", 1, {512}},
        {"128,512", 2, {128, 512}},
        {"64-256+64", 4, {64, 128, 192, 256}},
        {"1-16*2", 5, {1, 2, 4, 8, 16}},
        {"3-5", 3, {3, 4, 5}},
        {"1-10*3,7", 4, {1, 3, 9, 7}},
        {"0", 1, {0}},
        {"5-5", 1, {5}},
        {"2-9+4", 2, {2, 6}},
    };
    struct apr_err e;
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct apr_ranges r = {0};
        assert_int_equal(apr_ranges_parse("-p", rows[i].text, 0, 1000, &r, &e), APR_OK);
        assert_int_equal(r.n, rows[i].n);
        assert_memory_equal(r.at, rows[i].at, r.n * sizeof *r.at);
    }
}

static void test_ranges_refused(void **state)
{
    static const char *const bad[] = {"",
                                      "a",
                                      "1,",
                                      ",1",
                                      "1-",
                                      "5-4",
                                      "1-4+0",
                                      "1-4*1",
                                      "0-4*2",
                                      "1-4+",
                                      "1-4/2",
                                      "1001",
                                      "1-1001",
                                      " 1",
                                      "-1",
                                      "1.5",
                                      "0-1000",
                                      "1 2",
                                      "18446744073709551616"};
    struct apr_err e;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct apr_ranges r = {0};
        assert_int_equal(apr_ranges_parse("-p", bad[i], 0, 1000, &r, &e), APR_EUSAGE);
        assert_non_null(strstr(e.text, "-p"));
    }
    struct apr_ranges r = {0}; /* ends at the largest number */
    assert_int_equal(
        apr_ranges_parse("-p", "18446744073709551614-18446744073709551615", 0, UINT64_MAX, &r, &e), APR_OK);
    assert_int_equal(r.n, 2);
    assert_int_equal(
        apr_ranges_parse("-p", "9223372036854775809-18446744073709551615*2", 0, UINT64_MAX, &r, &e), APR_OK);
    assert_int_equal(r.n, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_summary),
        cmocka_unit_test(test_summary_of_few),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_ranges_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

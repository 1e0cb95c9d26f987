/* What the tests of kernels use of cmocka, for architectures that it is not installed for (make cross):
 * output is TAP, a failed assertion ends the program with status 1.
 *
 *     aarch64-linux-gnu-gcc -Itests/cross ...
 */
#ifndef APR_TEST_CROSS_CMOCKA_H
#define APR_TEST_CROSS_CMOCKA_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*fn)(void **state);
};

#define cmocka_unit_test(f)                                                                                  \
    {                                                                                                        \
#f, f                                                                                                \
    }
#define print_message(...) printf("# " __VA_ARGS__)
#define cross_fail(...)                                                                                      \
    do {                                                                                                     \
        printf("# %s:%d: ", __FILE__, __LINE__);                                                             \
        printf(__VA_ARGS__);                                                                                 \
        printf("\nnot ok\n");                                                                                \
        exit(1);                                                                                             \
    } while (0)
#define skip()                                                                                               \
    do {                                                                                                     \
        printf("# skipped\n");                                                                               \
        return;                                                                                              \
    } while (0)
#define fail_msg(...) cross_fail(__VA_ARGS__)
#define assert_true(c)                                                                                       \
    do {                                                                                                     \
        if (!(c)) cross_fail("%s", #c);                                                                      \
    } while (0)
#define assert_false(c)        assert_true(!(c))
#define assert_null(p)         assert_true((p) == NULL)
#define assert_non_null(p)     assert_true((p) != NULL)
#define assert_ptr_equal(a, b) assert_true((const void *)(a) == (const void *)(b))
#define assert_int_equal(a, b)                                                                               \
    do {                                                                                                     \
        long long cross_a = (long long)(a), cross_b = (long long)(b);                                        \
        if (cross_a != cross_b) cross_fail("%s = %lld, %s = %lld", #a, cross_a, #b, cross_b);                \
    } while (0)
#define assert_int_not_equal(a, b)       assert_true((long long)(a) != (long long)(b))
#define assert_in_range(v, low, high)    assert_true((v) >= (low) && (v) <= (high))
#define assert_memory_equal(a, b, n)     assert_true(memcmp((a), (b), (n)) == 0)
#define assert_string_equal(a, b)        assert_true(strcmp((a), (b)) == 0)
#define cmocka_run_group_tests(t, up, d) cross_run((t), sizeof(t) / sizeof *(t), (up))

static inline int cross_run(const struct CMUnitTest *tests, size_t n, int (*setup)(void **))
{
    void *state = NULL;
    const char *only = getenv("CROSS_ONLY"); /* one test by name: the others are for bounded time left out */
    if (setup && setup(&state) != 0) return 1;
    printf("1..%zu\n", n);
    for (size_t i = 0; i < n; i++) {
        if (!only || strcmp(only, tests[i].name) == 0) tests[i].fn(&state);
        printf("ok %zu %s%s\n", i + 1, tests[i].name,
               !only || strcmp(only, tests[i].name) == 0 ? "" : " # SKIP by CROSS_ONLY");
        (void)fflush(stdout);
    }
    return 0;
}

#endif

/* Stop strings: what may leave, what is held back, where the text ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "../../tools/apr-infer/reply.h"

static const char *list[] = {"END", "ab\nab\nc", "", "é"};
static const struct apr_strs stops = {.at = list, .n = sizeof list / sizeof *list};

static void holds_back_what_could_become_a_stop(void **state)
{
    (void)state;
    static const struct {
        const char *held;
        bool last;
        size_t n_free;
        bool stopped;
    } rows[] = {
        {"hello", false, 5, false},
        {"hello E", false, 6, false},
        {"hello EN", false, 6, false},
        {"hello EN", true, 8, false}, /* nothing follows: it cannot become one */
        {"hello END of it", false, 6, true},
        {"hello END", true, 6, true},
        {"EEN", false, 1, false},
        {"ab\nab\n", false, 0, false},
        {"ab\nab\nab\nab\n", false, 6, false}, /* the longest end that is a beginning */
        {"ab\nab\nab\nc", false, 3, true},
        {"x END ab\nab\nc", false, 2, true}, /* the first of two */
        {"caf\xc3", false, 3, false},
        {"caf\xc3\xa9!", false, 3, true},
        {"", false, 0, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bool stopped = true;
        size_t n = apr_stop_scan(&stops, rows[i].held, strlen(rows[i].held), rows[i].last, &stopped);
        if (n != rows[i].n_free || stopped != rows[i].stopped)
            fail_msg("row %zu: %zu free, stopped %d", i, n, stopped);
    }
    bool stopped = true;
    assert_int_equal(apr_stop_scan(NULL, "END", 3, false, &stopped), 3);
    assert_false(stopped);
}

/* Any way of cutting a text into pieces lets the same bytes out. */
static void pieces_do_not_matter(void **state)
{
    (void)state;
    static const char text[] = "aab\nab\nab\nEEEN ENENDtail";
    const size_t n_want = strlen("aab\nab\nab\nEEEN EN");
    for (size_t step = 1; step < sizeof text; step++) {
        char held[64], out[64];
        size_t n_held = 0, n_out = 0;
        bool stopped = false;
        for (size_t i = 0; i < sizeof text - 1 && !stopped; i += step) {
            size_t n_new = sizeof text - 1 - i < step ? sizeof text - 1 - i : step;
            memcpy(held + n_held, text + i, n_new);
            n_held += n_new;
            size_t n = apr_stop_scan(&stops, held, n_held, false, &stopped);
            memcpy(out + n_out, held, n);
            n_out += n;
            n_held -= n;
            memmove(held, held + n, n_held);
        }
        assert_true(stopped);
        assert_int_equal(n_out, n_want);
        assert_memory_equal(out, text, n_want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(holds_back_what_could_become_a_stop),
                                       cmocka_unit_test(pieces_do_not_matter)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

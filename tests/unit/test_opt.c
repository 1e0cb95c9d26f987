/* Options of every kind, sizes, lists of integers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "opt.h"

struct args {
    bool flag;
    const char *text;
    uint64_t count;
    int64_t offset;
    double factor;
    struct apr_strs many;
};

static const struct apr_opt opts[] = {
    APR_OPT(struct args, flag, "flag", 'f', NULL, "a flag"),
    APR_OPT(struct args, text, "text", 't', "TEXT", "a text"),
    APR_OPT(struct args, count, "count", 'c', "N", "a count"),
    APR_OPT(struct args, offset, "offset", 0, "N", "an offset"),
    APR_OPT(struct args, factor, "factor", 'q', "X", "a factor; hides the global -q"),
    APR_OPT(struct args, many, "many", 'm', "X", "repeatable"),
};
#define N_OPTS    (sizeof opts / sizeof *opts)
#define MAX_WORDS 32

struct result {
    struct args args;
    struct apr_globals g;
    struct apr_strs operands;
    struct apr_err e;
    enum apr_code rc;
    struct apr_arena arena;
};

/* line: words with single spaces. */
static void parse(struct result *r, const char *line)
{
    static char copy[400];
    char *argv[MAX_WORDS + 1] = {0};
    int argc = 0;
    apr_arena_free(&r->arena);
    *r = (struct result){.args = {.text = "default", .count = 5}};
    snprintf(copy, sizeof copy, "verb %s", line);
    for (char *p = copy; p && argc < MAX_WORDS; argc++) {
        argv[argc] = p;
        p = strchr(p, ' ');
        if (p) *p++ = '\0';
    }
    r->rc = apr_opt_parse(opts, N_OPTS, &r->args, &r->g, &r->operands, &r->arena, argc, argv, &r->e);
}

static void every_kind_is_stored(void **state)
{
    (void)state;
    struct result r = {0};
    parse(&r, "a --flag -t word --count=7 b --offset -3 --factor 1e-3 -m x -m y --many=z --json - -- --flag");
    assert_int_equal(r.rc, APR_OK);
    assert_true(r.args.flag && r.g.json && !r.g.quiet);
    assert_string_equal(r.args.text, "word");
    assert_int_equal(r.args.count, 7);
    assert_int_equal(r.args.offset, -3);
    assert_true(r.args.factor == 1e-3);
    assert_int_equal(r.args.many.n, 3);
    assert_string_equal(r.args.many.at[0], "x");
    assert_string_equal(r.args.many.at[2], "z");
    assert_int_equal(r.operands.n, 4);
    assert_string_equal(r.operands.at[0], "a");
    assert_string_equal(r.operands.at[2], "-");
    assert_string_equal(r.operands.at[3], "--flag");
    parse(&r, "-fc9 x");
    assert_int_equal(r.rc, APR_OK);
    assert_true(r.args.flag && r.args.count == 9);
    assert_string_equal(r.args.text, "default");
    parse(&r, "-q 2 -v --quiet"); /* the verb's own -q */
    assert_true(r.rc == APR_OK && r.args.factor == 2.0 && r.g.verbose && r.g.quiet);
    apr_arena_free(&r.arena);
}

static void bad_words_are_usage_errors(void **state)
{
    static const struct {
        const char *line, *message;
    } cases[] = {
        {"--bogus", "unrecognized option \"--bogus\""},
        {"--bogus=1", "unrecognized option \"--bogus\""},
        {"-Z", "unrecognized option \"-Z\""},
        {"-fZ", "unrecognized option \"-Z\""},
        {"--count", "option --count needs a value: N"},
        {"-c", "option --count needs a value: N"},
        {"--flag=1", "option --flag takes no value"},
        {"--f", "ambiguous option \"--f\""},
        {"--count x", "--count: expected a whole number >= 0, found \"x\""},
        {"--count -1", "--count"},
        {"--count 1x", "--count"},
        {"--count=", "--count"},
        {"--count +1", "--count"},
        {"--count 18446744073709551616", "--count"},
        {"--offset 9223372036854775808", "--offset"},
        {"--offset --1", "--offset"},
        {"--factor nan", "--factor: expected a number, found \"nan\""},
        {"--factor inf", "--factor"},
        {"--factor 1e999", "--factor"},
        {"--factor 1.5x", "--factor"},
    };
    (void)state;
    struct result r = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        parse(&r, cases[i].line);
        if (r.rc != APR_EUSAGE || !strstr(r.e.text, cases[i].message))
            fail_msg("%s: %d %s", cases[i].line, (int)r.rc, r.e.text);
    }
    apr_arena_free(&r.arena);
}

static const struct apr_opt twice[] = {APR_OPT(struct args, flag, "a", 0, NULL, "x"),
                                       APR_OPT(struct args, flag, "a", 0, NULL, "x")};
static const struct apr_opt shorts[] = {APR_OPT(struct args, flag, "a", 'x', NULL, "x"),
                                        APR_OPT(struct args, flag, "b", 'x', NULL, "x")};
static const struct apr_opt helpless[] = {APR_OPT(struct args, flag, "a", 0, NULL, "")};
static const struct apr_opt global[] = {APR_OPT(struct args, flag, "json", 0, NULL, "x")};
static const struct apr_opt valued[] = {APR_OPT(struct args, flag, "a", 0, "N", "x")};
static const struct apr_opt unnamed[] = {APR_OPT(struct args, text, "a", 0, NULL, "x")};

static void broken_tables_are_refused(void **state)
{
    static const struct {
        const struct apr_opt *opts;
        size_t n;
    } tables[] = {{twice, 2}, {shorts, 2}, {helpless, 1}, {global, 1}, {valued, 1}, {unnamed, 1}};
    (void)state;
    char verb[] = "verb", *argv[] = {verb, NULL};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        struct result r = {0};
        r.rc =
            apr_opt_parse(tables[i].opts, tables[i].n, &r.args, &r.g, &r.operands, &r.arena, 1, argv, &r.e);
        if (r.rc != APR_EUSAGE || !strstr(r.e.text, "option table")) fail_msg("table %zu passes", i);
        apr_arena_free(&r.arena);
    }
}

static void sizes(void **state)
{
    static const struct {
        const char *text;
        uint64_t n_bytes;
    } good[] = {{"0", 0},           {"8", 8},           {"8k", 8192},
                {"1.5M", 1572864},  {"2G", 2ULL << 30}, {"2GiB", 2ULL << 30},
                {"1T", 1ULL << 40}, {"64MB", 64 << 20}};
    static const char *const bad[] = {"",    "k",   "-1",       "1x", "1kk", "0x10", "1e",
                                      "inf", "nan", "8388608T", " 1", "1 k", "1i"};
    (void)state;
    struct apr_err e;
    uint64_t n;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        if (apr_parse_size(good[i].text, &n, &e) != APR_OK || n != good[i].n_bytes)
            fail_msg("%s", good[i].text);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (apr_parse_size(bad[i], &n, &e) != APR_EUSAGE) fail_msg("\"%s\" passes", bad[i]);
}

static void integer_lists(void **state)
{
    static const char *const bad[] = {"",     ",", "1,", ",1", "1,,2",
                                      "1 ,2", "x", "11", "-3", "99999999999999999999"};
    (void)state;
    struct apr_err e;
    int64_t *at;
    size_t n;
    assert_int_equal(apr_parse_ints("1,-2,10", -2, 10, &at, &n, &e), APR_OK);
    assert_int_equal(n, 3);
    assert_int_equal(at[1], -2);
    assert_int_equal(at[2], 10);
    apr_ints_free(at);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (apr_parse_ints(bad[i], -2, 10, &at, &n, &e) != APR_EUSAGE) fail_msg("\"%s\" passes", bad[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_is_stored),
        cmocka_unit_test(bad_words_are_usage_errors),
        cmocka_unit_test(broken_tables_are_refused),
        cmocka_unit_test(sizes),
        cmocka_unit_test(integer_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* GBNF: what it accepts and refuses, masks against brute force, budgets, and hostile grammars. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "grammar/matcher.h"

static struct apr_grammar *parse(const char *text)
{
    struct apr_err e = {0};
    struct apr_grammar *g;
    if (apr_grammar_parse(&g, text, strlen(text), APR_GRAMMAR_GBNF, "g", &e) != APR_OK)
        fail_msg("%s: %s", text, e.text);
    return g;
}

static bool fits(const struct apr_grammar *g, const char *text, size_t n_bytes)
{
    struct apr_err e = {0};
    struct apr_matcher *m;
    assert_int_equal(apr_matcher_open(&m, g, NULL, &e), APR_OK);
    bool yes = apr_matcher_bytes(m, text, n_bytes) && apr_matcher_accepts(m);
    apr_matcher_close(m);
    return yes;
}

static void texts(void **state)
{
    static const struct {
        const char *grammar, *text;
        bool fits;
    } rows[] = {
        {"root ::= \"a\" \"b\"", "ab", true},
        {"root ::= \"a\" \"b\"", "a", false},
        {"root ::= \"a\" | \"b\" | ", "", true},
        {"root ::= (\"a\" | \"b\")+ \"c\"?", "abbac", true},
        {"root ::= (\"a\" | \"b\")+ \"c\"?", "c", false},
        {"root ::= [a-c]{2,3}", "abc", true},
        {"root ::= [a-c]{2,3}", "a", false},
        {"root ::= [a-c]{2,3}", "abca", false},
        {"root ::= [a-c]{2}", "ab", true},
        {"root ::= [a-c]{,2}", "", true},
        {"root ::= [a-c]{,2}", "abc", false},
        {"root ::= [a-c]{2,}", "abcabc", true},
        {"root ::= [^a-c\\]]*", "xyz", true},
        {"root ::= [^a-c\\]]*", "x]", false},
        {"root ::= [-+] [a\\-c]", "+-", true},
        {"root ::= .", "\xf0\x9f\x98\x80", true},
        {"root ::= .", "\xf0\x9f\x98", false},
        {"root ::= .", "\xc0\xaf", false},
        {"root ::= .", "\xed\xa0\x80", false}, /* a surrogate */
        {"root ::= [\xc3\xa0-\xc3\xbf]", "\xc3\xa9", true},
        {"root ::= [\xc3\xa0-\xc3\xbf]", "\xc3\x9f", false},
        {"root ::= [\\u0800-\\U0010FFFF]", "\xe0\xa0\x80", true},
        {"root ::= [\\u0800-\\U0010FFFF]", "\xdf\xbf", false},
        {"root ::= [\\u0800-\\U0010FFFF]", "\xf4\x8f\xbf\xbf", true},
        {"root ::= \"\\x41\\u00e9\\n\\\"\\\\\"", "A\xc3\xa9\n\"\\", true},
        {"# comment\nroot ::= # here too\n  a |\n  \"x\"\na ::= \"y\" # end", "y", true},
        {"root ::= a\n  | \"x\"\na ::= (\n \"y\"\n \"z\"\n)", "yz", true},
        {"root ::= \"(\" root \")\" | \"\"", "((()))", true},
        {"root ::= \"(\" root \")\" | \"\"", "((())", false},
        {"root ::= ws \"a\" ws\nws ::= \" \" ws | \"\"", "   a  ", true},
        {"root ::= (\"\")* \"a\"", "a", true},
        {"root ::= (\"a\"?)* \"b\"", "aab", true},
        {"root ::= \"a\"{0} \"b\"", "b", true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct apr_grammar *g = parse(rows[i].grammar);
        if (fits(g, rows[i].text, strlen(rows[i].text)) != rows[i].fits)
            fail_msg("%s: \"%s\"", rows[i].grammar, rows[i].text);
        apr_grammar_free(g);
    }
}

static void faults(void **state)
{
    static const struct {
        const char *grammar, *says;
    } rows[] = {
        {"", "no rule is named \"root\""},
        {"a ::= \"x\"", "no rule is named \"root\""},
        {"root ::= b", "line 1: rule \"b\" is not defined"},
        {"root ::= \"a\"\nroot ::= \"b\"", "line 2: rule \"root\" is defined twice"},
        {"root ::= root \"a\" | \"b\"", "left-recursive"},
        {"root ::= a \"x\" | \"y\"\na ::= b\nb ::= \"\" root", "left-recursive"},
        {"root ::= \"x\"? root \"a\" | \"b\"", "left-recursive"},
        {"root ::= \"a\" root", "no text of finite length"},
        {"root ::= \"a", "line 1: expected a character"},
        {"root ::= [b-a]", "backwards"},
        {"root ::= []", "matches nothing"},
        {"root ::= [a", "expected a character"},
        {"root ::= (\"a\"", "expected \")\""},
        {"root ::= \"a\")", "expected the end of the rule"},
        {"root ::= \"\\q\"", "an escape"},
        {"root ::= \"\\xg0\"", "hexadecimal"},
        {"root ::= \"\\ud800\"", "no character"},
        {"root ::= \"a\"{3,2}", "backwards"},
        {"root ::= \"a\"{9999999}", "repetitions"},
        {"root ::= (((\"a\"{1000}){1000}){1000})", "more than"},
        {"root = \"a\"", "expected \"::=\""},
        {"root ::= <think>", "tokens in grammars"},
        {"root ::= \"\xff\"", "valid UTF-8"},
        {"root ::= a\na ::= b b\nb ::= c{1000} c{1000}\nc ::= d{1000}\nd ::= e{1000}\ne ::= f{1000}\nf ::= "
         "\"x\"{1000}",
         "no text of finite length"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct apr_err e = {0};
        struct apr_grammar *g;
        enum apr_code code =
            apr_grammar_parse(&g, rows[i].grammar, strlen(rows[i].grammar), APR_GRAMMAR_GBNF, "g", &e);
        if (code != APR_EFORMAT || !strstr(e.text, rows[i].says))
            fail_msg("%s: status %d: %s", rows[i].grammar, (int)code, code == APR_OK ? "" : e.text);
    }
}

/* A vocabulary with all bytes, whole and broken characters, and words. */
#define N_WORDS 14u
static struct apr_trie *vocabulary(uint8_t *bytes, uint32_t *off, size_t *n)
{
    static const char *const words[N_WORDS] = {"ab",    "abc",      "a(",           "))",   "((",
                                               "x)",    "\xe6\x97", "\xa5",         "\xe6", "",
                                               "\"a\"", "a,b",      "\xc3\xa9\xc3", "ab"};
    struct apr_err e = {0};
    struct apr_trie *t;
    uint32_t at = 0;
    for (*n = 0; *n < 256; (*n)++) {
        off[*n] = at;
        bytes[at++] = (uint8_t)*n;
    }
    for (size_t i = 0; i < N_WORDS; i++) {
        off[(*n)++] = at;
        memcpy(bytes + at, words[i], strlen(words[i]));
        at += (uint32_t)strlen(words[i]);
    }
    off[*n] = at;
    assert_int_equal(apr_trie_build(&t, bytes, off, *n, &e), APR_OK);
    return t;
}

static const char *const grammars[] = {
    "root ::= [a-c]* (\"(\" root \")\")? [x-z,]*",
    "root ::= \"\\\"\" [^\"\\\\]{0,5} \"\\\"\" | .{1,3}",
    "root ::= item (\",\" item)*\nitem ::= \"a\" | \"ab\" | \"abc\" | [^a-z,]+",
    "root ::= \"(\" root \")\" root | \"\"",
};

static bool fresh_allows(const struct apr_grammar *g, const char *text, size_t n_text, const uint8_t *token,
                         size_t n_token, size_t n_left)
{
    struct apr_matcher *m;
    struct apr_err e = {0};
    assert_int_equal(apr_matcher_open(&m, g, NULL, &e), APR_OK);
    bool yes = n_token && apr_matcher_bytes(m, text, n_text) && apr_matcher_bytes(m, token, n_token) &&
               apr_matcher_least_bytes(m) <= n_left - 1;
    apr_matcher_close(m);
    return yes;
}

/* Random walks: at every step the mask is what a fresh matcher says of a token (of one in 48: making matchers
 * takes time), and the budget is kept. */
static void masks(void **state)
{
    uint8_t bytes[1024];
    uint32_t off[512];
    uint64_t bits[8], seed = 7;
    size_t n, n_steps = 0;
    struct apr_trie *t = vocabulary(bytes, off, &n);
    (void)state;
    for (size_t i = 0; i < 16; i++) {
        struct apr_err e = {0};
        struct apr_grammar *g = parse(grammars[i % 4]);
        struct apr_matcher *m;
        char text[256];
        size_t n_text = 0, n_left = 24;
        assert_int_equal(apr_matcher_open(&m, g, t, &e), APR_OK);
        while (n_left && !apr_matcher_is_over(m)) {
            size_t n_set = apr_matcher_mask(m, n_left, bits), n_seen = 0, pick = SIZE_MAX;
            for (size_t id = 0; id < n; id++) {
                bool yes = bits[id / 64] >> (id % 64) & 1;
                seed = seed * 6364136223846793005u + 1442695040888963407u;
                assert_int_equal(yes, apr_matcher_allows(m, (int32_t)id, n_left));
                if (yes && (seed >> 33) % ++n_seen == 0) pick = id;
                if ((seed >> 40) % 48 == 0 &&
                    yes != fresh_allows(g, text, n_text, bytes + off[id], off[id + 1] - off[id], n_left))
                    fail_msg("%s: token %zu", grammars[i % 4], id);
            }
            assert_int_equal(n_set, n_seen);
            if (pick == SIZE_MAX) break;
            assert_int_equal(apr_matcher_take(m, (int32_t)pick, &e), APR_OK);
            memcpy(text + n_text, bytes + off[pick], off[pick + 1] - off[pick]);
            n_text += off[pick + 1] - off[pick];
            n_left--;
            n_steps++;
        }
        assert_true(apr_matcher_accepts(m));
        assert_int_equal(apr_matcher_take(m, 256 + 9, &e), APR_EINFER); /* a token without bytes */
        apr_matcher_close(m);
        apr_grammar_free(g);
    }
    assert_true(n_steps > 60);
    apr_trie_free(t);
}

/* A budget that no text fits: the shortest way. */
static void too_small_a_budget(void **state)
{
    uint8_t bytes[1024];
    uint32_t off[512];
    uint64_t bits[8];
    size_t n;
    struct apr_err e = {0};
    struct apr_matcher *m;
    struct apr_trie *t = vocabulary(bytes, off, &n);
    struct apr_grammar *g = parse("root ::= \"abcabc\" | \"b\" [a-z]{9}");
    (void)state;
    assert_int_equal(apr_matcher_open(&m, g, t, &e), APR_OK);
    assert_int_equal(apr_matcher_mask(m, 3, bits), 1); /* "abc": the token that comes nearest */
    assert_true(bits[(256 + 1) / 64] >> ((256 + 1) % 64) & 1);
    assert_int_equal(apr_grammar_least_bytes(g), 6);
    apr_matcher_close(m);
    apr_grammar_free(g);
    apr_trie_free(t);
}

/* Grammars made to explode: they take well below a second (an explosion would not end within the time that
 * the test's runner gives), and still only texts that fit. */
static void hostile(void **state)
{
    static const char *const rows[] = {
        "root ::= \"a\" root \"b\" | \"a\" root \"c\" | \"\"",
        "root ::= a* b*\na ::= [a-z]? [a-y]? [a-x]? \"a\"\nb ::= a | a a | a a a",
        "root ::= x{0,200} x{0,200} x{0,200} \"b\"\nx ::= \"a\" | \"aa\" | \"aaa\"",
        "root ::= ((((\"a\"*)*)*)* | (\"a\"? \"a\"?)*)* \"b\"",
    };
    char text[400];
    struct apr_err e = {0};
    (void)state;
    memset(text, 'a', sizeof text);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct apr_grammar *g = parse(rows[i]);
        struct apr_matcher *m;
        assert_int_equal(apr_matcher_open(&m, g, NULL, &e), APR_OK);
        for (size_t k = 0; k < 150; k++)
            if (!apr_matcher_bytes(m, text, 1)) fail_msg("%s: byte %zu", rows[i], k);
        apr_matcher_close(m);
        apr_grammar_free(g);
    }
}

/* More text than the tables hold states for: they are tidied, and nothing is forgotten. */
static void a_long_text(void **state)
{
    struct apr_grammar *g = parse("root ::= \"[\" (root (\",\" root)*)? \"]\" | [0-9]{1,900}");
    struct apr_err e = {0};
    struct apr_matcher *m;
    (void)state;
    assert_int_equal(apr_matcher_open(&m, g, NULL, &e), APR_OK);
    for (int i = 0; i < 40; i++) assert_true(apr_matcher_bytes(m, "[", 1));
    for (int i = 0; i < 200; i++) {
        for (int k = 0; k < 800; k++) assert_true(apr_matcher_bytes(m, "7", 1));
        assert_true(apr_matcher_bytes(m, i % 5 ? "," : ",[", i % 5 ? 1 : 2));
    }
    assert_true(apr_matcher_bytes(m, "1", 1));
    for (int i = 0; i < 80; i++) assert_true(apr_matcher_bytes(m, "]", 1));
    assert_true(apr_matcher_is_over(m));
    assert_false(apr_matcher_bytes(m, "]", 1));
    apr_matcher_close(m);
    apr_grammar_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts),   cmocka_unit_test(faults),
        cmocka_unit_test(masks),   cmocka_unit_test(too_small_a_budget),
        cmocka_unit_test(hostile), cmocka_unit_test(a_long_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The template language: every feature against what Jinja2 answers (tests/data/jinja-cases.json, one line a
 * case), and what Jinja2 has not: limits, origin of every byte, errors of one line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <time.h>

#include "jinja/jinja.h"
#include "json.h"

/* Renders text for context; out is initialised here and freed by the caller. */
static enum apr_code render(const char *text, const json_t *context, const struct apr_jinja_opts *opts,
                            struct apr_buf *out, struct apr_err *e)
{
    struct apr_jinja *t = NULL;
    apr_buf_init(out, 64u << 20);
    enum apr_code code = apr_jinja_parse(&t, text, strlen(text), e);
    if (code == APR_OK) code = apr_jinja_render(t, context, opts, out, e);
    apr_jinja_free(t);
    return code;
}

static void cases_of_jinja2(void **state)
{
    (void)state;
    struct apr_err e = {0};
    json_t *doc = NULL;
    assert_int_equal(apr_json_load("tests/data/jinja-cases.json", 1u << 20, &doc, &e), APR_OK);
    const json_t *cases = json_object_get(doc, "cases");
    assert_true(json_array_size(cases) > 700);
    size_t n_bad = 0;
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i);
        const char *text = json_string_value(json_object_get(c, "template"));
        const char *expect = json_string_value(json_object_get(c, "expect"));
        struct apr_buf out;
        enum apr_code code = render(text, json_object_get(doc, "context"), NULL, &out, &e);
        const char *found = out.n_bytes ? (const char *)out.data : "";
        bool ok = expect
                      ? code == APR_OK && out.n_bytes == strlen(expect) && !memcmp(found, expect, out.n_bytes)
                      : code == APR_ECONTRACT;
        if (!ok)
            print_error("%s\n  expected %s\n  found %d %s %s\n", text, expect, code, found,
                        code ? e.text : "");
        n_bad += !ok;
        apr_buf_free(&out);
    }
    json_decref(doc);
    assert_int_equal(n_bad, 0);
}

/* text * n between before and after; the caller frees the buffer. */
static const char *repeated(struct apr_buf *b, const char *before, const char *text, size_t n,
                            const char *after)
{
    struct apr_err e;
    apr_buf_init(b, 4u << 20);
    assert_int_equal(apr_buf_append(b, before, strlen(before), &e), APR_OK);
    for (size_t i = 0; i < n; i++) assert_int_equal(apr_buf_append(b, text, strlen(text), &e), APR_OK);
    assert_int_equal(apr_buf_append(b, after, strlen(after), &e), APR_OK);
    return (const char *)b->data;
}

static void expect_refused(const char *text, const char *why)
{
    struct apr_err e = {0};
    struct apr_buf out;
    json_t *context = json_pack("{s:[i,i]}", "l", 1, 2);
    clock_t start = clock();
    enum apr_code code = render(text, context, NULL, &out, &e);
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    if (code != APR_ECONTRACT || !strstr(e.text, why) || strchr(e.text, '\n') || seconds > 5)
        fail_msg("%.60s: status %d \"%s\" after %.2f s, expected \"%s\"", text, code, e.text, seconds, why);
    assert_int_equal(out.n_bytes, 0);
    apr_buf_free(&out);
    json_decref(context);
}

static void hostile_sizes(void **state)
{
    (void)state;
    expect_refused("{{ 'x' * 10**10 }}", "longer than");
    expect_refused("{{ ['x'] * 10**10 }}", "too long");
    expect_refused("{{ 10 ** 10000 }}", "64 bits");
    expect_refused("{{ range(10**9) }}", "range too big");
    expect_refused("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "steps");
    expect_refused("{% for i in range(99999) %}{% set x = 'x' * 100000 %}{% endfor %}", "steps");
    expect_refused(
        "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "longer than");
    expect_refused(
        "{% set ns = namespace(s=l) %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "steps");
    expect_refused(
        "{% set ns = namespace(s=l) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}"
        "{{ ns.s }}",
        "steps");
    expect_refused("{{ '%1000000d' % 5 }}", "width");
    expect_refused("{{ 'x'|center(10**12) }}", "longer than");
    expect_refused("{{ 'a'|indent(10**12, true) }}", "longer than");
    expect_refused("{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}", "longer than");
    expect_refused("{{ strftime_now('%1000000d') }}", "too long");
    expect_refused("{{ l|batch(10**15, 0)|list }}", "steps");
    expect_refused("{{ l|slice(10**15)|list }}", "steps");
}

static void hostile_nesting(void **state)
{
    static const struct {
        const char *before, *text, *after, *why;
    } rows[] = {
        {"", "{% if true %}", "", "nested too deeply"},
        {"", "{% for x in l %}", "", "nested too deeply"},
        {"{{ ", "(", "", "nested too deeply"},
        {"{{ ", "[", "", "nested too deeply"},
        {"{{ ", "{1:", "", "nested too deeply"},
        {"{{ ", "-", "1 }}", "nested too deeply"},
        {"{{ ", "not ", "1 }}", "nested too deeply"},
        {"{{ x", ".a", " }}", "nested too deeply"},
        {"{{ x", "|upper", " }}", "nested too deeply"},
        {"{{ x", "[0]", " }}", "nested too deeply"},
        {"{{ x", "()", " }}", "nested too deeply"},
        {"{{ 1", "+1", " }}", "nested too deeply"},
        {"{{ 1", " and 1", " }}", "nested too deeply"},
        {"{{ 1", " if 1 else 1", " }}", "nested too deeply"},
        {"{{ 1", " < 1", " }}", "too many comparisons"},
        {"{% macro m() %}", "{% macro m() %}", "", "nested too deeply"},
        {"{% filter upper", "|upper", " %}{% endfilter %}", "nested too deeply"},
        {"", "{%", "", "nested too deeply"},
        {"", "{#", "", "missing end of comment"},
        {"", "{% raw %}", "", "missing end of raw"},
        {"{{ '", "\\", "", "not closed"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct apr_buf text;
        expect_refused(repeated(&text, rows[i].before, rows[i].text, 20000, rows[i].after), rows[i].why);
        apr_buf_free(&text);
    }
    expect_refused("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nested too deeply");
    expect_refused("{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}", "nested too deeply");
    expect_refused("{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}", "nested too deeply");
    expect_refused("{% set ns = namespace() %}{% set ns.a = [ns] %}{{ ns.a == ns.a[0].a }}{{ ns }}",
                   "nested too deeply");
    expect_refused(
        "{% set ns = namespace(x=[]) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}{% endfor %}"
        "{{ ns.x|tojson }}",
        "nested too deeply");
}

/* Long but flat: nothing here is refused. */
static void flat_is_fine(void **state)
{
    static const struct {
        const char *before, *text;
        size_t n;
        const char *after;
    } rows[] = {
        {"{% if false %}", "{% elif false %}", 20000, "{% endif %}"},
        {"{{ [", "1,", 20000, "]|length }}"},
        {"{{ '' ", "~ 'x'", 20000, "}}"},
        {"", "{{ 1 }}{% set x = 1 %}text", 20000, ""},
        {"{% set ns = namespace(s='') %}", "{% set ns.s = ns.s + 'some text of a message' %}", 10000, ""},
    };
    (void)state;
    json_t *context = json_object();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct apr_err e = {0};
        struct apr_buf out, text;
        const char *t = repeated(&text, rows[i].before, rows[i].text, rows[i].n, rows[i].after);
        enum apr_code code = render(t, context, NULL, &out, &e);
        if (code != APR_OK) fail_msg("%.40s: %s", t, e.text);
        apr_buf_free(&out);
        apr_buf_free(&text);
    }
    json_decref(context);
}

static enum apr_code mark_piece(void *ctx, const char *p, size_t n, bool from_data, struct apr_err *e)
{
    struct apr_buf *b = ctx;
    TRY(apr_buf_append(b, from_data ? "<" : "", from_data, e));
    TRY(apr_buf_append(b, p, n, e));
    return apr_buf_append(b, from_data ? ">" : "", from_data, e);
}

/* Bytes of the context between < and >. */
static void origin_of_bytes(void **state)
{
    static const struct {
        const char *text, *expect;
    } rows[] = {
        {"[im]{{ m.role }}\n{{ m.content }}[end]", "[im]<user>\n<Hi there>[end]"},
        {"{{ '[im]' + m.role + '\n' + m.content + '[end]' }}", "[im]<user>\n<Hi there>[end]"},
        {"{{ bos_token + m.role }}", "[bos]<user>"},
        {"{{ bos_token ~ m.role|upper ~ '!' }}", "[bos]<USER>!"},
        {"{{ ('a' ~ m.role ~ 'b')[1:4] }}{{ ('a' ~ m.role ~ 'b')[::-1] }}", "<use>b<resu>a"},
        {"{{ ('a' ~ m.role ~ 'b').replace('s', '-') }}", "a<u>-<er>b"},
        {"{{ 'xsx'.replace('s', m.role) }}", "x<user>x"},
        {"{{ m.content.split(' ')|join('|') }}", "<Hi>|<there>"},
        {"{{ '[' ~ m.content|trim ~ ']' }}", "[<Hi there>]"},
        {"{{ m|tojson }}", "<{\"role\": \"user\", \"content\": \"Hi there\", \"n\": 5}>"},
        {"{{ {'a': 1}|tojson }}", "{\"a\": 1}"},
        {"{{ [m.role] }}{{ ['a'] }}", "['<user>']['a']"},
        {"{{ m.n }}{{ m.n + 1 }}{{ 3 }}", "<56>3"},
        {"{{ '%s-%s' % (m.role, 'x') }}{{ '{}'.format(m.role) }}", "<user>-x<user>"},
        {"{% set x %}a{{ m.role }}b{% endset %}{{ x }}", "a<user>b"},
        {"{% macro q(x) %}[{{ x }}]{% endmacro %}{{ q(m.role) }}", "[<user>]"},
        {"{% filter upper %}a{{ m.role }}{% endfilter %}", "A<USER>"},
        {"{% for k, v in m.items() %}{{ k }};{% endfor %}", "<role>;<content>;<n>;"},
        {"{{ m.content|indent(2, true) }}", "  <Hi there>"},
        {"{{ 'user' if m.role == 'user' else 'x' }}", "user"},
        {"{% for c in m.role %}{{ c }}.{% endfor %}", "<u>.<s>.<e>.<r>."},
        {"{{ m.role * 2 }}{{ 'a' * m.n }}", "<useruser>aaaaa"},
        {"{{ 'ab'.join(m.role) }}", "<u>ab<s>ab<e>ab<r>"},
    };
    (void)state;
    json_t *context = json_pack("{s:s, s:{s:s, s:s, s:i}}", "bos_token", "[bos]", "m", "role", "user",
                                "content", "Hi there", "n", 5);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct apr_err e = {0};
        struct apr_buf out, marked;
        apr_buf_init(&marked, 1u << 16);
        struct apr_jinja_opts opts = {.piece = mark_piece, .piece_ctx = &marked};
        enum apr_code code = render(rows[i].text, context, &opts, &out, &e);
        if (code != APR_OK) fail_msg("%s: %s", rows[i].text, e.text);
        if (strcmp((const char *)marked.data, rows[i].expect) != 0)
            fail_msg("%s: expected %s, found %s", rows[i].text, rows[i].expect, (const char *)marked.data);
        apr_buf_free(&marked);
        apr_buf_free(&out);
    }
    json_decref(context);
}

/* A string that grows in a loop keeps its marks, and older values of it keep their text. */
static void growing_strings(void **state)
{
    struct apr_err e = {0};
    struct apr_buf out, marked;
    (void)state;
    apr_buf_init(&marked, 1u << 20);
    struct apr_jinja_opts opts = {.piece = mark_piece, .piece_ctx = &marked};
    json_t *context = json_pack("{s:s}", "x", "D");
    const char *text = "{% set ns = namespace(s='') %}"
                       "{% for i in range(300) %}{% set ns.s = ns.s + 'ab' + x %}{% endfor %}"
                       "{% set a = ns.s %}{% set b = a + '1' %}{% set c = a + '2' %}"
                       "{{ b[-4:] }} {{ c[-4:] }} {{ a|length }} {{ a == 'abD' * 300 }}";
    assert_int_equal(render(text, context, &opts, &out, &e), APR_OK);
    assert_string_equal((const char *)marked.data, "ab<D>1 ab<D>2 900 True");
    apr_buf_free(&marked);
    apr_buf_free(&out);
    json_decref(context);
}

static void one_line_errors(void **state)
{
    static const struct {
        const char *text, *expect;
    } rows[] = {
        {"a\n{{ b.c }}", "template: line 2: 'b' is undefined"},
        {"a\nb\n{% if x %}", "template: line 3: the template ends inside a block, expected 'elif'"},
        {"{{ m.zz.y }}", "template: line 1: 'dict object' has no attribute 'zz'"},
        {"{{ l[9].y }}", "template: line 1: list object has no element 9"},
        {"{{ 'a' + l }}", "template: line 1: can only concatenate str (not \"list\") to str"},
        {"{{ l.append(1) }}", "template: line 1: access to attribute 'append' of 'list' is unsafe"},
        {"\n\n{{ raise_exception('Roles must alternate') }}", "Roles must alternate"},
        {"{{ 1 | nothing }}", "template: line 1: no filter named 'nothing'"},
        {"{% include 'x' %}", "template: line 1: a chat template cannot read other templates"},
        {"{% endif %}", "template: line 1: unknown tag 'endif'"},
        {"{{ 'abc }}", "template: line 1: a string is not closed"},
        {"\xff", "template: line 1: not valid UTF-8"},
        {"{{ 1 \n ) }}", "template: line 2: unexpected ')'"},
    };
    (void)state;
    json_t *context = json_pack("{s:{}, s:[]}", "m", "l");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct apr_err e = {0};
        struct apr_buf out;
        assert_int_equal(render(rows[i].text, context, NULL, &out, &e), APR_ECONTRACT);
        assert_string_equal(e.text, rows[i].expect);
        apr_buf_free(&out);
    }
    json_decref(context);
}

static void limits_can_be_set(void **state)
{
    struct apr_err e = {0};
    struct apr_buf out;
    (void)state;
    json_t *context = json_object();
    const char *loop = "{% for i in range(1000) %}x{% endfor %}";
    struct apr_jinja_opts few_steps = {.max_steps = 500}, short_text = {.max_out_bytes = 999},
                          enough = {.max_out_bytes = 1000};
    assert_int_equal(render(loop, context, &few_steps, &out, &e), APR_ECONTRACT);
    assert_string_equal(e.text, "template: line 1: the template takes too many steps");
    assert_int_equal(render(loop, context, &short_text, &out, &e), APR_ECONTRACT);
    assert_string_equal(e.text, "template: line 1: text longer than 999 bytes");
    assert_int_equal(render(loop, context, &enough, &out, &e), APR_OK);
    assert_int_equal(out.n_bytes, 1000);
    apr_buf_free(&out);
    struct apr_jinja_opts now = {.now_s = 1770724800};
    assert_int_equal(render("{{ strftime_now('%d %b %Y %H:%M') }}", context, &now, &out, &e), APR_OK);
    assert_string_equal((const char *)out.data, "10 Feb 2026 12:00");
    apr_buf_free(&out);
    json_decref(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cases_of_jinja2), cmocka_unit_test(hostile_sizes),
        cmocka_unit_test(hostile_nesting), cmocka_unit_test(flat_is_fine),
        cmocka_unit_test(origin_of_bytes), cmocka_unit_test(growing_strings),
        cmocka_unit_test(one_line_errors), cmocka_unit_test(limits_can_be_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

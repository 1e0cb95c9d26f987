/* JSON schemas as grammars: 500 random ones with random logits over the demonstration model's vocabulary,
 * judged by a checker in Python that shares nothing with the compiler; and what is refused, with which path.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../tools/apr-infer/sampler/sampler.h"
#include "json.h"
#include "load.h"

#define N_SCHEMAS   500
#define N_MAX_TOKS  400u
#define MODEL       "tests/data/apr-demo-8M-Instruct"
#define MAX_TEXT    (1u << 20)
#define MAX_COMMAND 512

static char dir[] = "/tmp/apr-schemas-XXXXXX";
static struct apr_model *model;
static struct apr_tok *tok;

/* Runs a command, shows what it says, and returns its status. */
static int shell(const char *command)
{
    char line[1024];
    FILE *p = popen(command, "r"); /* NOLINT(cert-env33-c): a test's own command */
    if (!p) return -1;
    while (fgets(line, sizeof line, p)) print_message("%s", line);
    return pclose(p);
}

static int setup(void **state)
{
    struct apr_err e = {0};
    (void)state;
    if (!mkdtemp(dir)) return -1;
    if (apr_load_model(MODEL, APR_LOAD_RANDOM, &model, &e) != APR_OK) return -1;
    return apr_tok_open(&tok, &model->vocab, MODEL, &e) == APR_OK ? 0 : -1;
}

static int teardown(void **state)
{
    char command[MAX_COMMAND];
    (void)state;
    apr_tok_close(tok);
    apr_model_close(model);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return shell(command);
}

static uint64_t seed_of_noise;
static float noise(void)
{
    seed_of_noise = seed_of_noise * 6364136223846793005u + 1442695040888963407u;
    return (float)(seed_of_noise >> 40) / (float)(1 << 24);
}

/* One text; every logit is random at every step. False when the budget was too small for any text. */
static bool generate(const struct apr_grammar *g, uint64_t seed, struct apr_buf *text)
{
    struct apr_err e = {0};
    struct apr_arena arena;
    struct apr_limit limit;
    struct apr_sampler s;
    struct apr_sample_opts o;
    size_t n_vocab = model->config.n_vocab;
    const struct apr_sampler_site site = {
        .n_vocab = n_vocab, .n_ctx = 512, .kern = &apr_kern_scalar, .tok = tok};
    apr_arena_init(&arena);
    apr_sample_defaults(&o);
    o.temperature = seed % 4 ? 1 : 0;
    o.top_k = seed % 3 ? 0 : 40;
    o.seed = seed;
    seed_of_noise = seed;
    float *logits = apr_arena_get(&arena, n_vocab * sizeof *logits);
    assert_int_equal(apr_sampler_init(&s, &o, &site, &arena, &e), APR_OK);
    assert_int_equal(apr_limit_open(&limit, g, tok, &model->vocab, n_vocab, &model->generation, &arena, &e),
                     APR_OK);
    s.limit = &limit;
    bool done = false;
    for (size_t n = 0; n < N_MAX_TOKS && !done; n++) {
        int32_t id = -1;
        for (size_t i = 0; i < n_vocab; i++) logits[i] = 6 * noise();
        limit.n_left = N_MAX_TOKS - n;
        if (apr_sampler_next(&s, logits, &id, &e) != APR_OK) fail_msg("%s", e.text);
        for (uint32_t i = 0; i < model->generation.n_eos; i++) done |= model->generation.eos_ids[i] == id;
        assert_int_equal(apr_tok_piece(tok, id, false, text, &e), APR_OK);
        done |= apr_matcher_is_over(limit.matcher);
    }
    done |= apr_matcher_accepts(limit.matcher);
    apr_limit_close(&limit);
    apr_arena_free(&arena);
    return done;
}

static void one(FILE *out, const char *line, size_t n, uint64_t seed)
{
    struct apr_err e = {0};
    struct apr_grammar *g;
    struct apr_buf text, quoted;
    apr_buf_init(&text, MAX_TEXT);
    apr_buf_init(&quoted, 8 * MAX_TEXT);
    if (apr_grammar_parse(&g, line, n, APR_GRAMMAR_SCHEMA, "schema", &e) != APR_OK)
        fail_msg("%s: %.*s", e.text, (int)n, line);
    if (!generate(g, seed, &text)) fail_msg("no end: %.*s\n%s", (int)n, line, (const char *)text.data);
    assert_int_equal(apr_json_put_str(&quoted, (const char *)text.data, text.n_bytes, &e), APR_OK);
    fprintf(out, "%s\n", (const char *)quoted.data);
    apr_buf_free(&quoted);
    apr_buf_free(&text);
    apr_grammar_free(g);
}

static void random_schemas(void **state)
{
    char command[MAX_COMMAND], path[MAX_COMMAND], *line = NULL;
    size_t cap = 0;
    ssize_t n;
    (void)state;
    if (shell("python3 -c '' 2>/dev/null") != 0) skip();
    const char *seed = getenv("APR_SCHEMA_SEED");
    snprintf(command, sizeof command, "python3 tests/tools/schemas.py make %d %s >%s/schemas", N_SCHEMAS,
             seed ? seed : "1", dir);
    assert_int_equal(shell(command), 0);
    snprintf(path, sizeof path, "%s/schemas", dir);
    FILE *in = fopen(path, "r");
    snprintf(path, sizeof path, "%s/texts", dir);
    FILE *out = fopen(path, "w");
    assert_true(in && out);
    for (uint64_t i = 0; (n = getline(&line, &cap, in)) > 0; i++) one(out, line, (size_t)n, i);
    free(line);
    assert_int_equal(fclose(in) | fclose(out), 0);
    snprintf(command, sizeof command, "python3 tests/tools/schemas.py check %s/schemas %s/texts", dir, dir);
    assert_int_equal(shell(command), 0);
}

static void what_is_refused(void **state)
{
    static const struct {
        const char *schema, *says;
        enum apr_code code;
    } rows[] = {
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"not\":{}}}}", "$.properties.a: keyword \"not\"",
         APR_EUSAGE},
        {"{\"items\":[{\"type\":\"string\",\"format\":\"email\"}]}",
         "$.prefixItems[0].format: format \"email\"", APR_EUSAGE},
        {"{\"uniqueItems\":true}", "uniqueItems", APR_EUSAGE},
        {"{\"type\":\"number\",\"multipleOf\":0.5}", "multipleOf", APR_EUSAGE},
        {"{\"pattern\":\"(?=a)\"}", "$.pattern: a look-around", APR_EUSAGE},
        {"{\"pattern\":\"a\\\\b\"}", "this escape", APR_EUSAGE},
        {"{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"number\"}]}", "$.oneOf: branches 0 and 1",
         APR_EUSAGE},
        {"{\"$ref\":\"http://x/y\"}", "$ref", APR_EUSAGE},
        {"{\"requried\":[\"a\"]}", "requried", APR_EUSAGE},
        {"{\"enum\":[\"a\"],\"minLength\":2}", "minLength beside enum", APR_EUSAGE},
        {"{\"required\":5}", "required must be a list of strings", APR_EFORMAT},
        {"{\"type\":\"text\"}", "type \"text\" is unknown", APR_EFORMAT},
        {"{\"$ref\":\"#/nowhere\"}", "leads nowhere", APR_EFORMAT},
        {"{\"$ref\":\"#\"}", "left-recursive", APR_EFORMAT},
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}",
         "no text of finite", APR_EFORMAT},
        {"{\"allOf\":[{\"$ref\":\"#\"}]}", "without end", APR_EUSAGE},
        {"{\"minimum\":2,\"maximum\":1}", "between the bounds", APR_EFORMAT},
        {"{\"minItems\":3,\"maxItems\":2}", "minItems 3", APR_EFORMAT},
        {"{\"allOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]}", "exclude each other", APR_EFORMAT},
        {"{\"type\":\"object\",\"additionalProperties\":false,\"required\":[\"a\"]}", "required",
         APR_EFORMAT},
        {"false", "nothing can be valid", APR_EFORMAT},
        {"[]", "a schema is an object", APR_EFORMAT},
        {"{", "line 1", APR_EFORMAT},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct apr_err e = {0};
        struct apr_grammar *g;
        enum apr_code code =
            apr_grammar_parse(&g, rows[i].schema, strlen(rows[i].schema), APR_GRAMMAR_SCHEMA, "f", &e);
        if (code != rows[i].code || !strstr(e.text, rows[i].says))
            fail_msg("%s: status %d: %s", rows[i].schema, (int)code, code == APR_OK ? "" : e.text);
        apr_grammar_free(g);
    }
}

/* Texts that must fit, and texts that must not. */
static void accepted_texts(void **state)
{
    static const struct {
        const char *schema, *text;
        bool fits;
    } rows[] = {
        {"{}", "{\"a\": [1, -2.5e3, null, true, \"\\u00e9\"]}", true},
        {"{}", "{\"a\":1,}", false},
        {"{}", "01", false},
        {"{}", "\"\\u0000\"", false},
        {"{}", "\"\\ud800\"", false},
        {"{\"type\":\"integer\",\"minimum\":-3,\"maximum\":120}", "-3", true},
        {"{\"type\":\"integer\",\"minimum\":-3,\"maximum\":120}", "-4", false},
        {"{\"type\":\"integer\",\"minimum\":-3,\"maximum\":120}", "120", true},
        {"{\"type\":\"integer\",\"minimum\":-3,\"maximum\":120}", "121", false},
        {"{\"type\":\"integer\",\"minimum\":-3,\"maximum\":120}", "99", true},
        {"{\"type\":\"integer\",\"minimum\":-3,\"maximum\":120}", "-0", false},
        {"{\"type\":\"number\",\"minimum\":0,\"maximum\":1}", "0.125", true},
        {"{\"type\":\"number\",\"minimum\":0,\"maximum\":1}", "1.0", true},
        {"{\"type\":\"number\",\"minimum\":0,\"maximum\":1}", "1.001", false},
        {"{\"type\":\"number\",\"exclusiveMinimum\":0.1}", "0.100", false},
        {"{\"type\":\"number\",\"exclusiveMinimum\":0.1}", "0.101", true},
        {"{\"type\":\"number\",\"exclusiveMinimum\":-1.5,\"maximum\":-0.5}", "-1.499", true},
        {"{\"type\":\"number\",\"exclusiveMinimum\":-1.5,\"maximum\":-0.5}", "-1.500", false},
        {"{\"type\":\"number\",\"exclusiveMinimum\":-1.5,\"maximum\":-0.5}", "-0.4", false},
        {"{\"properties\":{\"a\":{},\"b\":{}},\"additionalProperties\":{\"type\":\"null\"}}",
         "{\"b\":1, \"ab\":null}", true},
        {"{\"properties\":{\"a\":{},\"b\":{}},\"additionalProperties\":{\"type\":\"null\"}}",
         "{\"ab\":null,\"b\":1}", false},
        {"{\"properties\":{\"ab\":{}},\"additionalProperties\":{\"type\":\"null\"}}",
         "{\"a\":null,\"abc\":null}", true},
        {"{\"properties\":{\"ab\":{\"type\":\"integer\"}},\"additionalProperties\":{\"type\":\"null\"}}",
         "{\"ab\":null}", false},
        {"{\"prefixItems\":[{\"type\":\"integer\"}],\"items\":{\"type\":\"null\"}}", "[7, null, null]", true},
        {"{\"prefixItems\":[{\"type\":\"integer\"}],\"items\":{\"type\":\"null\"}}", "[]", true},
        {"{\"prefixItems\":[{\"type\":\"integer\"}],\"items\":{\"type\":\"null\"}}", "[null]", false},
        {"{\"enum\":[\"red\",\"green\",null,{\"a\":1}]}", "{\"a\":1}", true},
        {"{\"type\":\"string\",\"enum\":[\"red\",null]}", "null", false},
        {"{\"pattern\":\"^a\\\"b$\"}", "\"a\\\"b\"", true},
        {"{\"pattern\":\"^a\\\"b$\"}", "\"a\"b\"", false},
        {"{\"pattern\":\"b\"}", "\"abc\"", true},
        {"{\"pattern\":\"b\"}", "\"ac\"", false},
        {"{\"format\":\"date\"}", "\"2024-02-29\"", false},
        {"{\"format\":\"date\"}", "\"2024-02-28\"", true},
        {"{\"maxLength\":2}", "\"\xe6\x97\xa5\\n\"", true},
        {"{\"maxLength\":2}", "\"abc\"", false},
        {"{\"allOf\":[{\"properties\":{\"a\":{\"minimum\":3}}},{\"properties\":{\"a\":{\"type\":\"integer\"}}"
         ",\"required\":[\"a\"]}]}",
         "{\"a\":3}", true},
        {"{\"allOf\":[{\"properties\":{\"a\":{\"minimum\":3}}},{\"properties\":{\"a\":{\"type\":\"integer\"}}"
         ",\"required\":[\"a\"]}]}",
         "{\"a\":2}", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct apr_err e = {0};
        struct apr_grammar *g;
        struct apr_matcher *m;
        if (apr_grammar_parse(&g, rows[i].schema, strlen(rows[i].schema), APR_GRAMMAR_SCHEMA, "f", &e) !=
            APR_OK)
            fail_msg("%s: %s", rows[i].schema, e.text);
        assert_int_equal(apr_matcher_open(&m, g, NULL, &e), APR_OK);
        bool fits = apr_matcher_bytes(m, rows[i].text, strlen(rows[i].text)) && apr_matcher_accepts(m);
        if (fits != rows[i].fits)
            fail_msg("%s: %s: %s", rows[i].schema, rows[i].text, fits ? "fits" : "does not fit");
        apr_matcher_close(m);
        apr_grammar_free(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepted_texts),
        cmocka_unit_test(what_is_refused),
        cmocka_unit_test(random_schemas),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

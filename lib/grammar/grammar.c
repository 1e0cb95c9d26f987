/* From text to a compiled grammar. */
#include "grammar.h"

#include <string.h>

#include "../io.h"
#include "../json.h"
#include "automaton.h"
#include "gbnf.h"
#include "schema.h"

#define GBNF_DEPTH   4096u
#define SCHEMA_DEPTH 160u /* about 64 levels of objects and arrays: what apr's own reader of JSON takes */

static enum apr_code build_schema(struct apr_rules *r, const char *text, size_t n_bytes, const char *file,
                                  uint32_t *root, struct apr_err *e)
{
    json_t *schema;
    TRY(apr_json_parse(text, n_bytes, file, &schema, e));
    enum apr_code code = apr_schema_rules(r, schema, file, root, e);
    json_decref(schema);
    return code;
}

enum apr_code apr_grammar_parse(struct apr_grammar **out, const char *text, size_t n_bytes,
                                enum apr_grammar_form form, const char *file, struct apr_err *e)
{
    struct apr_arena scratch;
    struct apr_rules r = {.arena = &scratch};
    uint32_t root = 0;
    struct apr_grammar *g = apr_heap_get(sizeof *g);
    *g = (struct apr_grammar){.a.max_depth = form == APR_GRAMMAR_GBNF ? GBNF_DEPTH : SCHEMA_DEPTH};
    *out = NULL;
    apr_arena_init(&g->arena);
    apr_arena_init(&scratch);
    enum apr_code code = form == APR_GRAMMAR_GBNF ? apr_gbnf_parse(&r, text, n_bytes, file, &root, e)
                                                  : build_schema(&r, text, n_bytes, file, &root, e);
    if (code == APR_OK) code = apr_automaton_build(&g->a, &r, root, &g->arena, file, e);
    apr_arena_free(&scratch);
    if (code == APR_OK)
        *out = g;
    else
        apr_grammar_free(g);
    return code;
}

enum apr_code apr_grammar_load(struct apr_grammar **out, const char *path, enum apr_grammar_form form,
                               struct apr_err *e)
{
    struct apr_buf b;
    *out = NULL;
    apr_buf_init(&b, APR_GRAMMAR_MAX_BYTES);
    enum apr_code code = apr_read_file(path, APR_GRAMMAR_MAX_BYTES, &b, e);
    if (code == APR_OK)
        code = apr_grammar_parse(out, b.data ? (const char *)b.data : "", b.n_bytes, form, path, e);
    apr_buf_free(&b);
    return code;
}

void apr_grammar_free(struct apr_grammar *g)
{
    if (!g) return;
    apr_arena_free(&g->arena);
    apr_heap_free(g);
}

uint32_t apr_grammar_least_bytes(const struct apr_grammar *g)
{
    return g->a.least[g->a.root];
}

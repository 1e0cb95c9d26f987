/* Strict reads of YAML: every fault ends the program with file:line. See gen.h. */
#include "gen.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NODES 4096

static yaml_parser_t parser;
static yaml_document_t doc;
static FILE *in;
static const char *file_now;
static bool visited[MAX_NODES];

__attribute__((noreturn, format(printf, 2, 3))) void gen_fail_line(long line, const char *format, ...)
{
    va_list ap;
    fprintf(stderr, "%s:%ld: ", file_now, line);
    va_start(ap, format);
    vfprintf(stderr, format, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}

const yaml_node_t *gen_node(int i)
{
    const yaml_node_t *n = yaml_document_get_node(&doc, i);
    if (i >= MAX_NODES) fail(n, "more than %d YAML nodes", MAX_NODES);
    if (visited[i]) fail(n, "aliases are not allowed");
    visited[i] = true;
    if (n->type == YAML_SCALAR_NODE ? strcmp((const char *)n->tag, YAML_STR_TAG) != 0
                                    : strcmp((const char *)n->tag, YAML_MAP_TAG) != 0 &&
                                          strcmp((const char *)n->tag, YAML_SEQ_TAG) != 0)
        fail(n, "tags are not allowed: found %s", (const char *)n->tag);
    return n;
}

const char *gen_scalar(const yaml_node_t *n, const char *what)
{
    if (n->type != YAML_SCALAR_NODE) fail(n, "%s: expected a scalar", what);
    return (const char *)n->data.scalar.value;
}

static bool plain(const yaml_node_t *n)
{
    return n->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

void gen_str(const yaml_node_t *n, const char *what, struct str *out)
{
    const char *s = gen_scalar(n, what);
    if (strlen(s) != n->data.scalar.length || strlen(s) >= sizeof out->at)
        fail(n, "%s: text too long, or with a NUL", what);
    snprintf(out->at, sizeof out->at, "%s", s);
}

void gen_word(const yaml_node_t *n, const char *what, struct str *out)
{
    gen_str(n, what, out);
    if (out->at[0] == '\0') fail(n, "%s: expected a text that is not empty", what);
}

void gen_u64(const yaml_node_t *n, const char *what, uint64_t *out)
{
    const char *s = gen_scalar(n, what);
    size_t n_digits = strspn(s, "0123456789");
    if (!plain(n) || n_digits == 0 || n_digits > 15 || s[n_digits] != '\0' || (s[0] == '0' && n_digits > 1))
        fail(n, "%s: expected a whole number, found \"%s\"", what, s);
    *out = strtoull(s, NULL, 10);
}

void gen_bool(const yaml_node_t *n, const char *what, bool *out)
{
    const char *s = gen_scalar(n, what);
    if (!plain(n) || (strcmp(s, "true") != 0 && strcmp(s, "false") != 0))
        fail(n, "%s: expected true or false, found \"%s\"", what, s);
    *out = s[0] == 't';
}

/* v * scale, which must be whole; rule cites where the bound comes from. */
void gen_scaled(const yaml_node_t *n, const char *what, uint64_t scale, const char *rule, uint64_t *out,
                struct str *text)
{
    const char *s = gen_scalar(n, what);
    char *end;
    double v = strtod(s, &end), scaled = v * (double)scale;
    if (!plain(n) || *s == '\0' || *end != '\0' || isspace((unsigned char)*s))
        fail(n, "%s: expected a number, found \"%s\"", what, s);
    if (!isfinite(v) || scaled < 0 || scaled > 9e18) fail(n, "%s; found %s: %s", rule, what, s);
    *out = (uint64_t)(scaled + 0.5);
    if (fabs(scaled - (double)*out) > 1e-6 * scaled)
        fail(n, "%s: %s is no multiple of 1/%" PRIu64, what, s, scale);
    gen_str(n, what, text);
}

/* A sequence of scalars joined with commas. */
void gen_list(const yaml_node_t *n, const char *what, struct str *out)
{
    size_t len = 0;
    if (n->type != YAML_SEQUENCE_NODE) fail(n, "%s: expected a list", what);
    for (const yaml_node_item_t *i = n->data.sequence.items.start; i < n->data.sequence.items.top; i++) {
        struct str s = {""};
        gen_word(gen_node(*i), what, &s);
        if (strchr(s.at, ',') || len + strlen(s.at) + 2 > sizeof out->at)
            fail(n, "%s: a comma, or too long", what);
        len += (size_t)snprintf(out->at + len, sizeof out->at - len, "%s%s", len ? "," : "", s.at);
    }
    if (len == 0) fail(n, "%s: expected at least one", what);
}

/* ---- mappings --------------------------------------------------------------------------------------- */

/* Values of a mapping by the position of their key in keys ("?name": may be absent). */
void gen_map(const yaml_node_t *n, const char *what, const char *const *keys, const yaml_node_t **values)
{
    if (n->type != YAML_MAPPING_NODE) fail(n, "%s: expected a mapping", what);
    for (size_t k = 0; keys[k]; k++) values[k] = NULL;
    for (const yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top; p++) {
        const yaml_node_t *kn = gen_node(p->key);
        const char *key = gen_scalar(kn, what);
        size_t k = 0;
        while (keys[k] && strcmp(keys[k] + (keys[k][0] == '?'), key) != 0) k++;
        if (!keys[k]) fail(kn, "%s: unknown key \"%s\"", what, key);
        if (values[k]) fail(kn, "%s: key \"%s\" stands twice", what, key);
        values[k] = gen_node(p->value);
    }
    for (size_t k = 0; keys[k]; k++)
        if (!values[k] && keys[k][0] != '?') fail(n, "%s: key \"%s\" is missing", what, keys[k]);
}

void gen_one_of(const yaml_node_t *n, const char *what, const char *const *choices, struct str *out)
{
    gen_word(n, what, out);
    for (size_t i = 0; choices[i]; i++)
        if (strcmp(choices[i], out->at) == 0) return;
    fail(n, "%s: unknown value \"%s\"", what, out->at);
}

const yaml_node_t *gen_open(const char *path)
{
    file_now = path;
    in = fopen(path, "rb");
    if (!in) gen_fail_line(0, "cannot be opened");
    yaml_parser_initialize(&parser);
    yaml_parser_set_input_file(&parser, in);
    if (!yaml_parser_load(&parser, &doc))
        gen_fail_line((long)parser.problem_mark.line + 1, "%s", parser.problem);
    if (!yaml_document_get_root_node(&doc)) gen_fail_line(1, "empty");
    memset(visited, 0, sizeof visited);
    return gen_node(1); /* libyaml numbers nodes from 1, the root first */
}

void gen_close(void)
{
    yaml_document_delete(&doc);
    if (!yaml_parser_load(&parser, &doc) || yaml_document_get_root_node(&doc))
        gen_fail_line((long)parser.mark.line + 1, "expected one document");
    yaml_document_delete(&doc);
    yaml_parser_delete(&parser);
    fclose(in);
}

/* Grammars that constrain generated text, compiled to an automaton over bytes.
 *
 * GBNF is llama.cpp's notation of grammars: rules "name ::= alternatives", groups, character classes,
 * repetition ? * + {m} {m,} {m,n}, escapes \xHH \uHHHH \UHHHHHHHH, comments; the text must match "root".
 * Left recursion is refused. JSON Schema: see schema.h.
 *
 * A compiled grammar is read-only; threads and matchers may share it.
 *
 *     struct apr_grammar *g; TRY(apr_grammar_load(&g, path, APR_GRAMMAR_GBNF, e)); ... apr_grammar_free(g);
 */
#ifndef APR_GRAMMAR_H
#define APR_GRAMMAR_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../err.h"

#define APR_GRAMMAR_MAX_BYTES (1u << 20) /* of a file */
#define APR_GRAMMAR_MAX_NODES (1u << 20) /* of the automaton */
#define APR_GRAMMAR_INFINITE  UINT32_MAX /* no text at all, or none shorter than this */

enum apr_grammar_form { APR_GRAMMAR_GBNF, APR_GRAMMAR_SCHEMA };

struct apr_grammar;

/* Syntax: APR_EFORMAT with file and line, or JSON path. What a schema asks for and this cannot promise:
 * APR_EUSAGE with the path. file names the text in messages. */
APR_MUST_USE enum apr_code apr_grammar_parse(struct apr_grammar **out, const char *text, size_t n_bytes,
                                             enum apr_grammar_form form, const char *file, struct apr_err *e);
/* From a file. */
APR_MUST_USE enum apr_code apr_grammar_load(struct apr_grammar **out, const char *path,
                                            enum apr_grammar_form form, struct apr_err *e);
void apr_grammar_free(struct apr_grammar *g); /* NULL is fine */
/* Bytes of the shortest text. */
uint32_t apr_grammar_least_bytes(const struct apr_grammar *g);

#endif

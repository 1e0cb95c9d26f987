/* What a tool prints about itself: help, manual page, completion words, version. All from the same tables.
 *
 *     apr_help_verb(stdout, tool, verb);
 */
#ifndef APR_HELP_H
#define APR_HELP_H

#include <stdio.h>

#include "tool.h"

struct apr_verb_row { /* of bin/verbs */
    const char *verb, *tool, *gate, *summary;
};
const struct apr_verb_row *apr_verb_row_of(const char *verb); /* NULL: not in the table */

void apr_help_verb(FILE *to, const struct apr_tool *tool, const struct apr_verb *v);
void apr_help_tool(FILE *to, const struct apr_tool *tool);
void apr_help_version(FILE *to, const struct apr_tool *tool);
void apr_help_options(FILE *to,
                      const struct apr_verb *v); /* one word a line, "=" behind those that take a value */
void apr_help_man(FILE *to, const struct apr_verb *v); /* roff */

#endif

/* main() of every tool: find the verb, parse, run it, print the error once, check stdout, pick the exit
 * status.
 *
 * argv[1] is the verb when it is in the tool's table, else the tool's first verb runs (and argv[1] is its
 * operand). Summary and gate of a verb come from bin/verbs (compiled in as build/gen/verbs.h), so that they
 * stand once.
 *
 *     int main(int argc, char **argv) { return apr_tool_main(&tool, argc, argv); }
 */
#ifndef APR_TOOL_H
#define APR_TOOL_H

#include "arena.h"
#include "kern/kern.h"
#include "log.h"
#include "opt.h"
#include "out.h"
#include "pool.h"
#include "version.h"

struct apr_ctx {
    const struct apr_globals *g;
    const struct apr_strs *operands;
    struct apr_arena *arena; /* freed after the verb */
    const char *verb;
    const char *tool;
    bool gated; /* bin/verbs says so, and --skip-contract was not given */
};

struct apr_verb {
    const char *name;
    const char *operands; /* "[FORMAT] [INPUT]" for usage */
    size_t n_operands_min, n_operands_max;
    const struct apr_opt *opts;
    size_t n_opts;
    size_t args_bytes;        /* of the args struct, zeroed before init */
    void (*init)(void *args); /* defaults; may be NULL */
    enum apr_code (*run)(void *args, struct apr_ctx *ctx, struct apr_err *e);
    const char *details; /* paragraphs for --help and the manual: what it reads, writes, examples */
};

struct apr_tool {
    const char *name; /* "apr-import" */
    const struct apr_verb *const *verbs;
    size_t n_verbs;
};

int apr_tool_main(const struct apr_tool *tool, int argc, char **argv);

#endif

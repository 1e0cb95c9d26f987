/* Option tables over getopt_long: the same rows parse, help, complete and make the manual.
 *
 * Options may stand anywhere, "--" ends them, "-" is an operand. Values land in the verb's args struct by
 * offset; the type comes from the field. Rows are checked at start-up (duplicate names, missing help).
 *
 *     struct import_args { const char *quantize; bool force; uint64_t n_threads; struct apr_operands in; };
 *     static const struct apr_opt opts[] = {
 *         APR_OPT(struct import_args, quantize, "quantize", 'q', "TYPE", "store matrices as TYPE"),
 *         APR_OPT(struct import_args, force, "force", 'f', NULL, "replace an existing output"),
 *     };
 */
#ifndef APR_OPT_H
#define APR_OPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "err.h"

enum apr_opt_kind { APR_OPT_BOOL, APR_OPT_STR, APR_OPT_U64, APR_OPT_I64, APR_OPT_F64, APR_OPT_LIST };

/* A repeatable string option: field type struct apr_strs. Also holds the operands. */
struct apr_strs {
    const char **at; /* borrowed: in the arena given to apr_opt_parse; the strings are argv's */
    size_t n;
};

struct apr_opt {
    const char *name;  /* long name without dashes */
    char short_name;   /* or 0 */
    const char *value; /* "TYPE", NULL for a flag */
    const char *help;  /* one line, no final stop */
    enum apr_opt_kind kind;
    size_t off; /* of the field in the args struct */
};

#define APR_OPT(type_, field_, name_, short_, value_, help_)                                                   \
    {                                                                                                          \
        .name = (name_), .short_name = (short_), .value = (value_), .help = (help_),                         \
        .kind = _Generic(((type_ *)0)->field_,                                                               \
            bool: APR_OPT_BOOL,                                                                              \
            const char *: APR_OPT_STR,                                                                       \
            uint64_t: APR_OPT_U64,                                                                           \
            int64_t: APR_OPT_I64,                                                                            \
            double: APR_OPT_F64,                                                                             \
            struct apr_strs: APR_OPT_LIST),                                                                  \
        .off = offsetof(type_, field_) \
    }

/* Options that every verb has (tool.c adds them): --json --quiet --verbose --offline --skip-contract --help
 * --version. */
struct apr_globals {
    bool json, quiet, verbose, offline, skip_contract, help, version;
};

const struct apr_opt *apr_opt_globals(size_t *n);
/* The short name of a global option beside a verb's rows: 0 when a row of the verb has taken it. */
char apr_opt_short(const struct apr_opt *opts, size_t n_opts, const struct apr_opt *global);

/* argv[0] is the verb. args was filled with defaults by the verb's init. Unknown option, bad number, missing
 * value: APR_EUSAGE with one line. An unambiguous beginning of a long name will do. */
APR_MUST_USE enum apr_code apr_opt_parse(const struct apr_opt *opts, size_t n_opts, void *args,
                                         struct apr_globals *g, struct apr_strs *operands,
                                         struct apr_arena *arena, int argc, char **argv, struct apr_err *e);

/* "8", "8k", "1.5M", "2G", "2GiB": powers of 1024, for sizes in options. */
APR_MUST_USE enum apr_code apr_parse_size(const char *s, uint64_t *n_bytes, struct apr_err *e);
/* "1,2,3". *at is owned by the caller (free with apr_ints_free). */
APR_MUST_USE enum apr_code apr_parse_ints(const char *s, int64_t min, int64_t max, int64_t **at, size_t *n,
                                          struct apr_err *e);
void apr_ints_free(int64_t *at);

#endif

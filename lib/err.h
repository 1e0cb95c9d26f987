/* The only error type.
 *
 * A fallible function returns enum apr_code and takes struct apr_err * last. The code is also the
 * exit status of the program (design: exit status). The text names file, byte offset or tensor, rule
 * id, what was found and what was expected; tool.c prints it, once.
 *
 *     if (n > left) return apr_fail(e, APR_EFORMAT, "%s: byte %" PRIu64 ": ...", file, pos);
 *     TRY(apr_rd_u32(&rd, &n_dims, "n_dims", e));
 */
#ifndef APR_ERR_H
#define APR_ERR_H

#include <stdarg.h>

#define APR_MUST_USE          __attribute__((warn_unused_result))
#define APR_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

enum apr_code {
    APR_OK = 0,        /* success, or the answer is yes */
    APR_ENO = 1,       /* the answer is no: a diff, a threshold, a failed gate */
    APR_EUSAGE = 2,    /* usage */
    APR_ENOTFOUND = 3, /* input not found */
    APR_EFORMAT = 4,   /* malformed or truncated input */
    APR_ECONTRACT = 5, /* contract or validation refused the model */
    APR_ELOAD = 6,     /* model cannot be loaded: unsupported, too large for memory */
    APR_EIO = 7,       /* read, write, disk full */
    APR_EINFER = 8,    /* inference failed: NaN logits, backend error */
    APR_EUNAVAIL = 9,  /* feature not built in, or hardware absent */
    APR_ENET = 10,     /* network */
};

struct apr_err {
    enum apr_code code;
    char text[1024]; /* one line, control characters escaped, no program name, no newline */
};

void apr_err_set(struct apr_err *e, enum apr_code code, const char *format, ...) APR_PRINTF(3, 4);
/* Puts "prefix: " in front of the text; used where a caller knows the file and the callee did not. */
void apr_err_prefix(struct apr_err *e, const char *format, ...) APR_PRINTF(2, 3);

/* A macro whose value is the constant code, so that callers' paths stay visible to the compiler. */
#define apr_fail(e, code_, ...) (apr_err_set((e), (code_), __VA_ARGS__), (code_))

#define TRY(call)                                                                                            \
    do {                                                                                                     \
        enum apr_code try_code_ = (call);                                                                    \
        if (try_code_ != APR_OK) return try_code_;                                                           \
    } while (0)

/* The row of the exit-status table: "malformed or truncated input". Never NULL for a code above. */
const char *apr_code_meaning(enum apr_code code);

/* Copies s to out with bytes < 0x20, 0x7f, invalid UTF-8, C1 and bidirectional controls written as
 * \xNN or \u{NNNN}, cut with "..." at n_out. Names from files reach a terminal only through this. */
const char *apr_escape(char *out, unsigned long n_out, const char *s, unsigned long n_s);

#endif

/* Files of lines: read one at a time and never far ahead; and written so that every line is whole.
 *
 * A journal is a file that grows by lines and may be left at any moment: what is there is valid, apart from a
 * last line that the kernel itself was stopped in. A signal that ends the program waits until the line is
 * out.
 *
 *     struct apr_lines *in; TRY(apr_lines_open(&in, path, 64 << 20, e));
 *     do TRY(apr_lines_next(in, true, &line, e)); while (line.state == APR_LINE_WHOLE);  apr_lines_close(in);
 *     struct apr_journal *j; TRY(apr_journal_open(&j, path, APR_JOURNAL_NEW, e));
 *     TRY(apr_journal_put(j, "{}\n", 3, e)); TRY(apr_journal_close(j, e));
 */
#ifndef APR_IO_LINES_H
#define APR_IO_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

enum apr_line_state {
    APR_LINE_WHOLE,    /* p, n_bytes: without the newline */
    APR_LINE_TOO_LONG, /* was skipped */
    APR_LINE_CUT,      /* the file ends inside it: p, n_bytes */
    APR_LINE_LATER,    /* nothing has arrived yet; only without wait */
    APR_LINE_NONE      /* the file is at its end */
};

struct apr_line {
    enum apr_line_state state;
    const char *p; /* borrowed until the next call */
    size_t n_bytes;
    uint64_t i_line; /* from 0 */
    uint64_t off;    /* of its first byte */
};

struct apr_lines;

/* path "-" is standard input. max_bytes: of a line. */
APR_MUST_USE enum apr_code apr_lines_open(struct apr_lines **out, const char *path, size_t max_bytes,
                                          struct apr_err *e);
void apr_lines_close(struct apr_lines *l); /* NULL is fine */
const char *apr_lines_name(const struct apr_lines *l);
/* wait: blocks until a line is there. */
APR_MUST_USE enum apr_code apr_lines_next(struct apr_lines *l, bool wait, struct apr_line *line,
                                          struct apr_err *e);
uint64_t apr_lines_done(const struct apr_lines *l);  /* bytes handed out */
uint64_t apr_lines_total(const struct apr_lines *l); /* UINT64_MAX: not known */

enum apr_journal_how {
    APR_JOURNAL_NEW,     /* an existing file is refused */
    APR_JOURNAL_REPLACE, /* an existing file is emptied */
    APR_JOURNAL_RESUME   /* an existing file is kept: apr_journal_cut says how much of it */
};
struct apr_journal;

/* path "-" is standard output. A file that another journal is writing is refused. */
APR_MUST_USE enum apr_code apr_journal_open(struct apr_journal **out, const char *path,
                                            enum apr_journal_how how, struct apr_err *e);
/* Lines are added behind the first n_bytes, which stay. */
APR_MUST_USE enum apr_code apr_journal_cut(struct apr_journal *j, uint64_t n_bytes, struct apr_err *e);
/* p ends with a newline. */
APR_MUST_USE enum apr_code apr_journal_put(struct apr_journal *j, const char *p, size_t n_bytes,
                                           struct apr_err *e);
/* Waits for the disk. Frees j in either case; NULL is fine. */
APR_MUST_USE enum apr_code apr_journal_close(struct apr_journal *j, struct apr_err *e);
/* SIGINT, SIGTERM and SIGHUP wait in this thread, and in threads that it starts meanwhile for ever: workers
 * started so leave them to the thread that writes. */
void apr_signals_hold(bool hold);

#endif

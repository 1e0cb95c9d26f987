/* Notes and progress on stderr; the level is the one mutable global of the library.
 *
 * Notes are single lines. Progress bars appear only when stderr is a terminal.
 */
#ifndef APR_LOG_H
#define APR_LOG_H

#include <stdint.h>

#include "err.h"

enum apr_log_level { APR_LOG_QUIET = 0, APR_LOG_NORMAL = 1, APR_LOG_VERBOSE = 2 };

void apr_log_set(enum apr_log_level level, const char *program);
enum apr_log_level apr_log_get(void);
void apr_note(const char *format, ...) APR_PRINTF(1, 2);    /* normal and verbose */
void apr_verbose(const char *format, ...) APR_PRINTF(1, 2); /* verbose only */
void apr_warn(const char *format, ...) APR_PRINTF(1, 2);    /* "warning: ..." unless quiet */

struct apr_progress {
    const char *label;
    uint64_t n_total; /* bytes or tokens; 0 = unknown */
    uint64_t n_done;
    const char *unit; /* "B" prints MB/s; else the word */
    int64_t ns_start, ns_drawn;
    int drawn;
};
void apr_progress_begin(struct apr_progress *p, const char *label, uint64_t n_total, const char *unit);
void apr_progress_add(struct apr_progress *p, uint64_t n);
void apr_progress_end(struct apr_progress *p); /* clears the line */
int64_t apr_now_ns(void);                      /* monotonic */

#endif

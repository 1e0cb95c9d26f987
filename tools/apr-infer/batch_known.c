/* What a file of results answers already. */
#include <inttypes.h>
#include <stdlib.h>

#include "batch.h"

#define MAX_RESULT_BYTES (1u << 30)

static int by_line(const void *a_, const void *b_)
{
    const struct apr_result_key *a = a_, *b = b_;
    return (a->i_line > b->i_line) - (a->i_line < b->i_line);
}

static enum apr_code read_all(struct apr_batch *b, struct apr_lines *l, uint64_t *n_whole_bytes,
                              struct apr_err *e)
{
    struct apr_line line;
    struct apr_result_key key;
    for (;;) {
        TRY(apr_lines_next(l, true, &line, e));
        if (line.state == APR_LINE_NONE || line.state == APR_LINE_CUT) {
            *n_whole_bytes = line.off;
            return APR_OK;
        }
        if (line.state == APR_LINE_TOO_LONG || !apr_result_read(line.p, line.n_bytes, &key))
            return apr_fail(e, APR_EFORMAT, "%s: line %" PRIu64 ": is no result of apr batch",
                            apr_lines_name(l), line.i_line + 1);
        TRY(apr_buf_append(&b->known, &key, sizeof key, e));
        b->n_failed += key.failed;
    }
}

enum apr_code apr_batch_known(struct apr_batch *b, const char *path, uint64_t *n_whole_bytes,
                              struct apr_err *e)
{
    struct apr_lines *l;
    apr_buf_init(&b->known, SIZE_MAX / 2);
    TRY(apr_lines_open(&l, path, MAX_RESULT_BYTES, e));
    enum apr_code code = read_all(b, l, n_whole_bytes, e);
    apr_lines_close(l);
    if (code != APR_OK) return code;
    struct apr_result_key *keys = (void *)b->known.data;
    size_t n = b->known.n_bytes / sizeof *keys;
    if (n) qsort(keys, n, sizeof *keys, by_line);
    for (size_t i = 1; i < n; i++)
        if (keys[i].i_line == keys[i - 1].i_line)
            return apr_fail(e, APR_EFORMAT, "%s: request %" PRIu64 " is answered twice", path,
                            keys[i].i_line + 1);
    b->n_known_left = b->n_before = b->n_answered = n;
    return APR_OK;
}

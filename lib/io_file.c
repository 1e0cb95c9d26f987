/* A whole small file at once. */
#include <inttypes.h>

#include "io.h"

#define STEP_BYTES ((size_t)1 << 16)

enum apr_code apr_read_file(const char *path, size_t max_bytes, struct apr_buf *b, struct apr_err *e)
{
    struct apr_src *s;
    TRY(apr_src_open(&s, path, e));
    enum apr_code rc = APR_OK;
    size_t n_got = 1;
    if (apr_src_seekable(s) && apr_src_size(s) > max_bytes)
        rc = apr_fail(e, APR_EFORMAT, "%s: %" PRIu64 " bytes where %zu is the limit", apr_src_name(s),
                      apr_src_size(s), max_bytes);
    while (rc == APR_OK && n_got) {
        uint8_t *at;
        size_t n_room = max_bytes - b->n_bytes, n_want = n_room < STEP_BYTES ? n_room : STEP_BYTES;
        uint8_t probe;
        if (n_want == 0) { /* full: only the end may follow */
            rc = apr_src_read_some(s, &probe, 1, &n_got, e);
            if (rc == APR_OK && n_got)
                rc = apr_fail(e, APR_EFORMAT, "%s: more than %zu bytes", apr_src_name(s), max_bytes);
            continue;
        }
        rc = apr_buf_reserve(b, n_want, &at, e);
        if (rc == APR_OK) rc = apr_src_read_some(s, at, n_want, &n_got, e);
        if (rc == APR_OK) apr_buf_commit(b, n_got);
    }
    apr_src_close(s);
    return rc;
}

/* Doubling growth up to the ceiling. */
#include "buf.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckd.h"

#define MIN_CAP_BYTES ((size_t)256)

void apr_buf_init(struct apr_buf *b, size_t max_bytes)
{
    *b = (struct apr_buf){.max_bytes = max_bytes};
}

void apr_buf_free(struct apr_buf *b)
{
    free(b->data);
    apr_buf_init(b, b->max_bytes);
}

enum apr_code apr_buf_reserve(struct apr_buf *b, size_t n, uint8_t **at, struct apr_err *e)
{
    if (b->n_bytes > b->max_bytes || n > b->max_bytes - b->n_bytes)
        return apr_fail(e, APR_EFORMAT, "more than %zu bytes where that is the limit", b->max_bytes);
    size_t n_need;
    if (ckd_add(&n_need, b->n_bytes, n) || ckd_add(&n_need, n_need, (size_t)1))
        return apr_fail(e, APR_ELOAD, "cannot allocate %zu bytes", n);
    if (n_need > b->cap_bytes) {
        size_t n_cap = b->cap_bytes < MIN_CAP_BYTES ? MIN_CAP_BYTES : b->cap_bytes;
        while (n_cap < n_need)
            if (ckd_mul(&n_cap, n_cap, (size_t)2)) n_cap = n_need;
        uint8_t *p = realloc(b->data, n_cap);
        if (!p) return apr_fail(e, APR_ELOAD, "cannot allocate %zu bytes", n_cap);
        b->data = p;
        b->cap_bytes = n_cap;
        b->data[b->n_bytes] = 0;
    }
    *at = b->data + b->n_bytes;
    return APR_OK;
}

void apr_buf_commit(struct apr_buf *b, size_t n)
{
    b->n_bytes += n;
    if (b->data) b->data[b->n_bytes] = 0;
}

enum apr_code apr_buf_append(struct apr_buf *b, const void *p, size_t n, struct apr_err *e)
{
    uint8_t *at;
    TRY(apr_buf_reserve(b, n, &at, e));
    if (n) memcpy(at, p, n);
    apr_buf_commit(b, n);
    return APR_OK;
}

enum apr_code apr_buf_printf(struct apr_buf *b, struct apr_err *e, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    uint8_t *at;
    enum apr_code rc;
    if (n < 0)
        rc = apr_fail(e, APR_EFORMAT, "text that cannot be formatted");
    else
        rc = apr_buf_reserve(b, (size_t)n, &at, e);
    if (rc == APR_OK) {
        vsnprintf((char *)at, (size_t)n + 1, format, again);
        apr_buf_commit(b, (size_t)n);
    }
    va_end(again);
    return rc;
}

void apr_buf_drop_front(struct apr_buf *b, size_t n)
{
    if (n > b->n_bytes) n = b->n_bytes;
    if (n == 0) return;
    memmove(b->data, b->data + n, b->n_bytes - n);
    b->n_bytes -= n;
    b->data[b->n_bytes] = 0;
}

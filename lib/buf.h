/* Growable bytes with a ceiling. With arena.c the only caller of malloc and free.
 *
 *     struct apr_buf b; apr_buf_init(&b, 16 << 20);
 *     TRY(apr_buf_append(&b, p, n, e)); ... apr_buf_free(&b);
 */
#ifndef APR_BUF_H
#define APR_BUF_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"

struct apr_buf {
    uint8_t *data; /* owned; NULL while empty; always followed by a NUL that is not counted */
    size_t n_bytes;
    size_t cap_bytes;
    size_t max_bytes;
};

void apr_buf_init(struct apr_buf *b, size_t max_bytes);
void apr_buf_free(struct apr_buf *b);
APR_MUST_USE enum apr_code apr_buf_append(struct apr_buf *b, const void *p, size_t n, struct apr_err *e);
/* Room for n more bytes at the returned place; call apr_buf_commit afterwards with what was used. */
APR_MUST_USE enum apr_code apr_buf_reserve(struct apr_buf *b, size_t n, uint8_t **at, struct apr_err *e);
void apr_buf_commit(struct apr_buf *b, size_t n);
APR_MUST_USE enum apr_code apr_buf_printf(struct apr_buf *b, struct apr_err *e, const char *format, ...)
    APR_PRINTF(3, 4);
void apr_buf_drop_front(struct apr_buf *b, size_t n);

#endif

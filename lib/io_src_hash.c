/* The SHA-256 of a source, taken of what is read anyway. */
#include "io_src.h"

#define GAP_BYTES ((uint64_t)16 << 20) /* left out by the reader, and still read for the hash */

void apr_src_sha_stop(struct apr_src *s)
{
    if (s->sha) apr_sha256_end(s->sha, NULL);
    s->sha = NULL;
}

/* Bytes between the last hashed one and off, which nobody else reads. A source that cannot be read for this
 * is an error: without its hash the output would be another one. */
static enum apr_code sha_gap(struct apr_src *s, uint64_t off, struct apr_err *e)
{
    uint8_t piece[APR_SRC_BUF_BYTES / 4];
    if (s->sha && s->n_hashed < off && (!s->seekable || (off - s->n_hashed > GAP_BYTES && !s->sha_patient)))
        apr_src_sha_stop(s);
    while (s->sha && s->n_hashed < off) {
        size_t n = off - s->n_hashed < sizeof piece ? (size_t)(off - s->n_hashed) : sizeof piece;
        TRY(apr_src_pread_fd(s, s->n_hashed, piece, n, "bytes to hash", e));
        apr_sha256_add(s->sha, piece, n);
        s->n_hashed += n;
    }
    return APR_OK;
}

enum apr_code apr_src_sha_feed(struct apr_src *s, uint64_t off, const void *p, size_t n, struct apr_err *e)
{
    if (!s->sha || off + n <= s->n_hashed) return APR_OK;
    TRY(sha_gap(s, off, e));
    if (!s->sha) return APR_OK;
    size_t n_known = (size_t)(s->n_hashed - off);
    apr_sha256_add(s->sha, (const uint8_t *)p + n_known, n - n_known);
    s->n_hashed = off + n;
    return APR_OK;
}

enum apr_code apr_src_sha_begin(struct apr_src *s, struct apr_err *e)
{
    apr_src_sha_stop(s);
    s->n_hashed = 0;
    return apr_sha256_begin(&s->sha, e);
}

void apr_src_sha_patient(struct apr_src *s)
{
    s->sha_patient = true;
}

void apr_src_sha_defer(struct apr_src *s, bool on)
{
    s->sha_defers = on;
}

void apr_src_sha_add(struct apr_src *s, uint64_t off, const void *p, size_t n)
{
    if (s->sha_defers && s->seekable && !s->packed && s->sha_code == APR_OK)
        s->sha_code = apr_src_sha_feed(s, off, p, n, &s->sha_why);
}

enum apr_code apr_src_sha_end(struct apr_src *s, char hex[APR_SHA256_HEX], bool *whole, struct apr_err *e)
{
    *whole = false;
    if (s->sha_code != APR_OK) {
        *e = s->sha_why;
        return s->sha_code;
    }
    if (s->seekable)
        TRY(sha_gap(s, s->n_bytes, e));
    else /* looked at, and not consumed */
        TRY(apr_src_sha_feed(s, s->pos, s->buf + s->i_buf, s->n_buf - s->i_buf, e));
    *whole = s->sha && (s->seekable ? s->n_hashed == s->n_bytes : s->at_end);
    if (*whole) apr_sha256_end(s->sha, hex);
    if (*whole) s->sha = NULL;
    apr_src_sha_stop(s);
    return APR_OK;
}

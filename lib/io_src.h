/* The inside of a source, for the io_src*.c files alone: reading, its hash, its copy in a temporary file.
 *
 *     TRY(apr_src_sha_feed(s, off, p, n, e));
 */
#ifndef APR_IO_SRC_H
#define APR_IO_SRC_H

#include "arena.h"
#include "hash.h"
#include "io.h"

#define APR_SRC_BUF_BYTES ((size_t)65536) /* what apr_src_peek may ask for */

struct apr_src {
    struct apr_arena arena; /* owns this struct, name and buf */
    int fd;
    bool seekable, at_end, with_crc;
    const char *name; /* escaped */
    uint64_t n_bytes; /* UINT64_MAX: unknown */
    uint64_t pos;     /* consumed */
    uint8_t *buf;     /* [APR_SRC_BUF_BYTES], made when it is first needed */
    size_t i_buf, n_buf;
    void *map;
    size_t n_map_bytes;
    uint32_t crc;
    struct apr_sha256 *sha; /* owned; NULL: not hashed, or not any more */
    uint64_t n_hashed;
    enum apr_code sha_code; /* sticky; of an add */
    struct apr_err sha_why;
    bool sha_defers, sha_patient; /* patient: what is left out is read for the hash, however much */
    /* A compressed rest of the file: */
    enum apr_pack pack;
    uint64_t off_pack;         /* where it begins, in file and content */
    struct apr_unpacker *u;    /* owned; for reading in sequence */
    struct apr_packed *packed; /* owned; seekable sources */
    const uint8_t *ahead;      /* read from the descriptor, not taken by u yet */
    size_t n_ahead;
};

/* APR_EIO with errno's text. */
APR_MUST_USE enum apr_code apr_src_read_error(const struct apr_src *s, uint64_t off, struct apr_err *e);
/* n stored bytes from off; what: for messages. */
APR_MUST_USE enum apr_code apr_src_pread_fd(const struct apr_src *s, uint64_t off, void *dst, size_t n,
                                            const char *what, struct apr_err *e);
/* Bytes that were read at off go into the hash, if there is one; those before them that nobody read, first.
 */
APR_MUST_USE enum apr_code apr_src_sha_feed(struct apr_src *s, uint64_t off, const void *p, size_t n,
                                            struct apr_err *e);
void apr_src_sha_stop(struct apr_src *s);

#endif

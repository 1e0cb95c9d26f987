/* Compressed streams of independent blocks: written on all threads, read in sequence or at any place.
 *
 * zstd: one frame for each 4 MiB, with content size and checksum, then a skippable frame with the table of
 * sizes (the seekable format of zstd's contrib folder). LZ4: one frame of independent 4 MiB blocks, each with
 * its checksum (LZ4 frame format 1.6). The bytes depend on the data alone, not on the number of threads.
 * Read as well: zstd frames without a table, LZ4 frames with linked blocks, and a u32 length before one raw
 * LZ4 block, as the original's readers expect it.
 *
 *     p = apr_packer_open(APR_PACK_ZSTD, pool, put, ctx); TRY(apr_packer_add(p, data, n, e));
 *     TRY(apr_packer_end(p, e)); apr_packer_close(p);
 */
#ifndef APR_PACK_H
#define APR_PACK_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "pool.h"

#define APR_PACK_BLOCK_BYTES ((size_t)4 << 20)

enum apr_pack { APR_PACK_NONE = 0, APR_PACK_LZ4, APR_PACK_ZSTD, APR_PACK_ZSTD_MAX };

/* "none", "lz4", "zstd", "zstd-max"; false when unknown. */
bool apr_pack_named(const char *name, enum apr_pack *kind);

/* ---- writing ---- */

struct apr_packer;
typedef void apr_pack_put_fn(void *ctx, const void *p, size_t n);
struct apr_packer *apr_packer_open(enum apr_pack kind, struct apr_pool *pool, apr_pack_put_fn *put,
                                   void *ctx);
APR_MUST_USE enum apr_code apr_packer_add(struct apr_packer *p, const void *data, size_t n,
                                          struct apr_err *e);
APR_MUST_USE enum apr_code apr_packer_end(struct apr_packer *p, struct apr_err *e);
void apr_packer_close(struct apr_packer *p); /* NULL is fine */
/* The most that n bytes of content can take: what does not shrink is stored as it is, with its framing. */
uint64_t apr_pack_bound(enum apr_pack kind, uint64_t n);

/* ---- reading in sequence ---- */

struct apr_unpacker;
/* Up to n bytes of the compressed stream; *n_got is 0 only at its end. */
typedef enum apr_code apr_pack_get_fn(void *ctx, void *dst, size_t n, size_t *n_got, struct apr_err *e);
struct apr_unpacker *apr_unpacker_open(enum apr_pack kind, const char *file, apr_pack_get_fn *get, void *ctx);
/* Up to n bytes; *n_got is 0 only at the end. Never decodes more than twice
 * what was asked for, or one block. */
APR_MUST_USE enum apr_code apr_unpacker_read(struct apr_unpacker *u, void *dst, size_t n, size_t *n_got,
                                             struct apr_err *e);
void apr_unpacker_close(struct apr_unpacker *u); /* NULL is fine */

/* ---- reading anywhere ---- */

/* Exactly n bytes of the file at off; must be safe to call from several threads. */
typedef enum apr_code apr_pack_at_fn(void *ctx, uint64_t off, void *dst, size_t n, struct apr_err *e);
struct apr_pack_in {
    enum apr_pack kind;
    const char *file;
    uint64_t off, n_bytes; /* the compressed stream: from here to the end of the file */
    apr_pack_at_fn *at;
    void *ctx;
};
struct apr_packed;
APR_MUST_USE enum apr_code apr_packed_open(struct apr_packed **out, const struct apr_pack_in *in,
                                           struct apr_err *e);
void apr_packed_close(struct apr_packed *z); /* NULL is fine */
/* Bytes of the content; UINT64_MAX when only decoding can tell and apr_packed_bound was not called yet. */
uint64_t apr_packed_size(const struct apr_packed *z);
/* No more than n_max may come: a larger content is refused. */
APR_MUST_USE enum apr_code apr_packed_bound(struct apr_packed *z, uint64_t n_max, struct apr_err *e);
/* Whole blocks inside the range are decoded on all threads, straight into dst. One caller at a time. */
APR_MUST_USE enum apr_code apr_packed_read(struct apr_packed *z, uint64_t off, void *dst, size_t n,
                                           const char *what, struct apr_err *e);

#endif

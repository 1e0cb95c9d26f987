/* Sources and sinks: the only callers of open, read, write, mmap and rename.
 *
 * struct apr_src is a file or standard input. It can be peeked without being consumed, read front to
 * back, and, when it is a regular file, read at an offset or mapped. struct apr_sink is a file that
 * appears only when it is complete, standard output, or memory; its error is sticky.
 */
#ifndef APR_IO_H
#define APR_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "err.h"
#include "hash.h"
#include "pack.h"

/* What a pipe is asked to hold, so that both sides work in pieces: what Linux lets anybody have. */
#define APR_PIPE_BYTES (1 << 20)

struct apr_src;

/* path "-" is standard input. Opens O_RDONLY|O_NONBLOCK|O_CLOEXEC, refuses directories (4), absent
 * files (3). A FIFO or pipe is accepted only as "-" or when it is a path like /dev/fd/N. */
APR_MUST_USE enum apr_code apr_src_open(struct apr_src **out, const char *path, struct apr_err *e);
void apr_src_close(struct apr_src *s);             /* NULL is fine; unmaps */
const char *apr_src_name(const struct apr_src *s); /* escaped; "standard input" for "-" */
bool apr_src_seekable(const struct apr_src *s);    /* regular file (also through "<"): pread and map work */
uint64_t apr_src_size(const struct apr_src *s);    /* UINT64_MAX when not known */
uint64_t apr_src_pos(const struct apr_src *s);     /* bytes consumed by read and skip */
/* Up to n <= 65536 bytes from the current position, not consumed; *n_got < n only at the end. */
APR_MUST_USE enum apr_code apr_src_peek(struct apr_src *s, size_t n, const uint8_t **p, size_t *n_got,
                                        struct apr_err *e);
/* Exactly n bytes, else APR_EFORMAT "... ends at byte N inside WHAT". */
APR_MUST_USE enum apr_code apr_src_read(struct apr_src *s, void *dst, size_t n, const char *what,
                                        struct apr_err *e);
/* Up to n bytes; *n_got is 0 only at the end. */
APR_MUST_USE enum apr_code apr_src_read_some(struct apr_src *s, void *dst, size_t n, size_t *n_got,
                                             struct apr_err *e);
/* Reading some now would not wait. */
bool apr_src_ready(const struct apr_src *s);
APR_MUST_USE enum apr_code apr_src_skip(struct apr_src *s, uint64_t n, const char *what, struct apr_err *e);
/* Seekable sources only. Does not move the position. */
APR_MUST_USE enum apr_code apr_src_pread(struct apr_src *s, uint64_t off, void *dst, size_t n,
                                         const char *what, struct apr_err *e);
/* Maps the whole file once, PROT_READ, MAP_PRIVATE; valid until apr_src_close. Seekable only. */
APR_MUST_USE enum apr_code apr_src_map(struct apr_src *s, const uint8_t **p, struct apr_err *e);
/* The n bytes at p, if they are of the map, are not needed for now: whole pages of them leave resident memory
 * until they are read again. No effect on content that was decoded into memory. */
void apr_src_forget(const struct apr_src *s, const void *p, size_t n);
/* Turns a pipe into a seekable source by copying it, already peeked bytes included, to an unlinked
 * temporary file (TMPDIR); the position must be 0. No effect on a seekable source. */
APR_MUST_USE enum apr_code apr_src_spool(struct apr_src *s, struct apr_err *e);
/* From the current position on the file is a compressed stream (pack.h); everything above now sees its
 * content, position and size included. The size of some forms is UINT64_MAX until apr_src_bound. */
APR_MUST_USE enum apr_code apr_src_unpack(struct apr_src *s, enum apr_pack kind, struct apr_err *e);
/* The content, what was read before it included, may have n_max bytes at most. No effect on a pipe. */
APR_MUST_USE enum apr_code apr_src_bound(struct apr_src *s, uint64_t n_max, struct apr_err *e);
bool apr_src_packed(const struct apr_src *s);
/* As pread, of the bytes on disk. */
APR_MUST_USE enum apr_code apr_src_pread_stored(struct apr_src *s, uint64_t off, void *dst, size_t n,
                                                const char *what, struct apr_err *e);
/* Which file this is and which state of it: false for pipes, spooled copies and unlinked files. */
struct apr_src_id {
    uint64_t device, inode, n_bytes;
    int64_t mtime_ns;
};
bool apr_src_identify(const struct apr_src *s, struct apr_src_id *id);
/* From now on every byte consumed by read and skip also goes into a CRC-32 (zlib's). */
void apr_src_crc_begin(struct apr_src *s);
uint32_t apr_src_crc(const struct apr_src *s);
/* From now on the bytes on disk are also hashed, as long as they are read front to back (gaps of a few MiB
 * are read for it). Position 0; before apr_src_unpack, which ends it. */
APR_MUST_USE enum apr_code apr_src_sha_begin(struct apr_src *s, struct apr_err *e);
/* The reader goes to and fro in this file: what it leaves out on the way is read for the hash, however much.
 */
void apr_src_sha_patient(struct apr_src *s);
/* While on, apr_src_pread leaves the hashing to the caller, who hands over what he read, in order: from any
 * thread, one at a time, also while another piece is read. */
void apr_src_sha_defer(struct apr_src *s, bool on);
void apr_src_sha_add(struct apr_src *s, uint64_t off, const void *p, size_t n);
/* *whole: all of it was read in order, and hex is its SHA-256. Reports what an add could not read. */
APR_MUST_USE enum apr_code apr_src_sha_end(struct apr_src *s, char hex[APR_SHA256_HEX], bool *whole,
                                           struct apr_err *e);
/* Reads a whole small file (<= max_bytes) into an initialised buffer. */
APR_MUST_USE enum apr_code apr_read_file(const char *path, size_t max_bytes, struct apr_buf *b,
                                         struct apr_err *e);

struct apr_sink;

/* path "-" is standard output (refused with 2 when it is a terminal). Otherwise a temporary beside
 * path; an existing path needs force. Checks that the directory exists and is writable. */
APR_MUST_USE enum apr_code apr_sink_open(struct apr_sink **out, const char *path, bool force,
                                         struct apr_err *e);
void apr_sink_mem(struct apr_sink **out, struct apr_buf *b); /* b outlives the sink */
void apr_sink_write(struct apr_sink *s, const void *p, size_t n);
void apr_sink_zeros(struct apr_sink *s, uint64_t n);
uint64_t apr_sink_pos(const struct apr_sink *s);
/* What follows the first off_plain bytes is compressed (pack.h). Position and checksum stay the content's;
 * pool outlives the sink. Before the first write. */
void apr_sink_pack(struct apr_sink *s, enum apr_pack kind, uint64_t off_plain, struct apr_pool *pool);
/* Would writing to s change the file that src reads? Only a redirected standard output can. */
bool apr_sink_is(const struct apr_sink *s, const struct apr_src *src);
uint64_t apr_sink_stored(const struct apr_sink *s); /* bytes written so far, as stored */
void apr_sink_crc_begin(struct apr_sink *s);        /* before the first write */
uint32_t apr_sink_crc(const struct apr_sink *s);    /* CRC-32 of every byte since then */
bool apr_sink_failed(const struct apr_sink *s);     /* stop early; the text comes from finish */
/* Fails with 7 unless the file system of path, or of the file that standard output is, has n bytes free. No
 * effect on pipes and devices; of a compressed output only the most it can need is known, and not refused. */
APR_MUST_USE enum apr_code apr_sink_need(struct apr_sink *s, uint64_t n_bytes, struct apr_err *e);
/* Flush, fsync, rename, fsync of the directory; reports the sticky error. Frees s in either case. */
APR_MUST_USE enum apr_code apr_sink_finish(struct apr_sink *s, struct apr_err *e);
void apr_sink_abort(struct apr_sink *s); /* removes the temporary; NULL is fine. Frees s */
/* After the last write: flush and fsync without publishing; what follows is quick. Sets of files are synced
 * one by one and then finished together. The error is sticky and comes from finish. */
void apr_sink_sync(struct apr_sink *s);
/* Removes the temporaries of unfinished sinks; async-signal-safe, for the handlers of tool.c. Runs at exit,
 * too. */
void apr_sink_cleanup(void);

/* A folder that appears only when it is complete: files are written into a temporary beside path, which
 * finish renames. An existing folder that is not empty needs force, and is replaced only when it holds
 * nothing but the files of a model. In io_dir.c. */
struct apr_dir;
APR_MUST_USE enum apr_code apr_dir_open(struct apr_dir **out, const char *path, bool force,
                                        struct apr_err *e);
const char *apr_dir_path(const struct apr_dir *d); /* the temporary; until finish */
APR_MUST_USE enum apr_code apr_dir_finish(struct apr_dir *d, struct apr_err *e); /* frees d in either case */
void apr_dir_abort(struct apr_dir *d); /* removes the temporary; NULL is fine. Frees d */
void apr_dir_cleanup(void);            /* called by apr_sink_cleanup, after the files */

#endif

/* What the steps of a conversion share: buffers, the writer, the verdict on the data, the hash of a tensor.
 *
 * Everything lies in the loop's arena; begin and end belong to convert.c.
 *
 *     TRY(apr_loop_read(l, src, off, l->in[0], n, e));
 *     apr_loop_hash_begin(l); TRY(apr_loop_emit(l, l->in[0], n, e)); apr_loop_hash_end(l, name);
 */
#ifndef APR_CONVERT_LOOP_H
#define APR_CONVERT_LOOP_H

#include <jansson.h>

#include "convert_piece.h"
#include "log.h"

enum { APR_LOOP_BUFFERS = 6 }; /* of APR_PIECE_ROOM */

struct apr_loop {
    const struct apr_convert *c;
    struct apr_sink *sink;
    struct apr_writer *w; /* owned by the format */
    struct apr_arena arena;
    uint8_t *in[3],
        *out[2];    /* [APR_PIECE_ROOM]; a piece is read while another is converted and one written */
    uint8_t *spare; /* [APR_PIECE_ROOM]; untouched memory costs nothing */
    float *scratch;
    struct apr_verdict verdict;
    struct apr_progress progress;
    json_t *hashes; /* name to XXH3-64 of the data, or NULL: not wanted; borrowed */
    struct apr_xxh3 *hash;
};

void apr_loop_init(struct apr_loop *l, const struct apr_convert *c, struct apr_sink *s, json_t *hashes);
void apr_loop_free(struct apr_loop *l);

/* The file that t lies in; NULL for tensors that are computed. */
struct apr_src *apr_loop_source(const struct apr_loop *l, const struct apr_tensor *t);
/* Reads on the caller's thread and hands what was read to the source's hash. */
APR_MUST_USE enum apr_code apr_loop_read(struct apr_loop *l, const struct apr_tensor *t, uint64_t off,
                                         void *dst, size_t n, struct apr_err *e);
/* Bytes of the current tensor, to hash and writer. */
APR_MUST_USE enum apr_code apr_loop_emit(struct apr_loop *l, const void *p, size_t n, struct apr_err *e);
void apr_loop_hash_begin(struct apr_loop *l);
void apr_loop_hash_end(struct apr_loop *l, const char *name);
/* What a converted piece shows, and at the end of a tensor all of it. stats: of the tensor, growing. */
APR_MUST_USE enum apr_code apr_loop_judge(struct apr_loop *l, const struct apr_piece *j,
                                          struct apr_stats *stats, struct apr_err *e);

#endif

/* A piece of a tensor on its way through a conversion: read, widened, judged, narrowed, written.
 *
 * The parts of convert.c's loop. A piece borrows its buffers from the loop; its chunks are independent tasks.
 *
 *     n = apr_piece_chunks(p); ... apr_piece_convert(p, i_chunk, i_thread) ... TRY(apr_piece_judge(p, &all,
 * e));
 */
#ifndef APR_CONVERT_PIECE_H
#define APR_CONVERT_PIECE_H

#include "convert.h"

/* All are multiples of every block length, so that no block straddles a border. */
#define APR_PIECE_ELEMS  ((size_t)1 << 20)  /* one read: at most 8 MiB even of F64 */
#define APR_CHUNK_ELEMS  ((size_t)32 << 10) /* one task */
#define APR_STRIP_ELEMS  ((size_t)4 << 10)  /* one step of a task: its floats stay in a core's first cache */
#define APR_PIECE_CHUNKS (APR_PIECE_ELEMS / APR_CHUNK_ELEMS)
#define APR_PIECE_ROOM   (APR_PIECE_ELEMS * sizeof(double)) /* bytes of its buffers */
_Static_assert(APR_PIECE_ROOM <= APR_PIECE_BYTES, "a piece exceeds its ceiling");
_Static_assert(APR_PIECE_ELEMS % APR_CHUNK_ELEMS == 0 && APR_CHUNK_ELEMS % APR_STRIP_ELEMS == 0,
               "no remainders");

struct apr_piece {
    const struct apr_convert *c;
    const struct apr_plan_tensor *plan;
    const struct apr_tensor *src;
    const struct apr_quant *from, *to;
    uint8_t *in;      /* as stored: n_elems of type from */
    uint8_t *out;     /* the same values of type to */
    uint64_t i_first; /* of the piece, in the tensor */
    size_t n_elems;
    float *scratch;          /* apr_piece_scratch_bytes: values and importance of a strip for each thread */
    const float *importance; /* [n_matrices, n_cols] of the tensor, or NULL */
    float from_scale, to_scale; /* of types whose scale stands once, in the tensor's head */
    bool narrows;               /* out is wanted; else only the statistics */
    struct apr_stats stats[APR_PIECE_CHUNKS];
};

/* A piece of p without values yet. */
struct apr_piece apr_piece_of(const struct apr_convert *c, const struct apr_plan_tensor *p, float *scratch);
size_t apr_piece_scratch_bytes(unsigned n_threads);
/* Bytes of n_elems values without the head; only the end of a flat tensor is no whole block. */
size_t apr_piece_bytes(const struct apr_quant *q, size_t n_elems);
/* Steps to the values from i_first on: whole rows, where rows are whole blocks and fit. */
void apr_piece_set(struct apr_piece *j, uint64_t i_first);
bool apr_piece_is_last(const struct apr_piece *j); /* of its tensor */
/* Bytes before the piece's in the tensor. */
uint64_t apr_piece_off(const struct apr_piece *j);
size_t apr_piece_chunks(const struct apr_piece *j);
void apr_piece_convert(struct apr_piece *j, size_t i_chunk, unsigned i_thread);
/* n values from the piece's value at on. */
void apr_piece_widen(const struct apr_piece *j, size_t at, float *x, size_t n);
/* Adds the chunks' statistics to *all. Refuses values that make the narrowing itself meaningless. */
APR_MUST_USE enum apr_code apr_piece_judge(const struct apr_piece *j, struct apr_stats *all,
                                           struct apr_err *e);

#endif

/* A named array on disk, and the one definition of axis order.
 *
 * dims[0] is the outermost dimension (Hugging Face order: [out, in] for a weight), dims[n_dims - 1]
 * the innermost one, which is contiguous and is what blocks run along ("columns"). GGUF writes the
 * reverse; fmt/gguf.c turns it round and nothing else does. Data is never transposed. (F-LAYOUT-001)
 */
#ifndef APR_TENSOR_H
#define APR_TENSOR_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "quant/quant.h"

#define APR_MAX_DIMS 8

/* How rows meet blocks. Everything written here is APR_ROWS; the others occur in .apr files of the original.
 */
enum apr_packing {
    APR_ROWS = 0,    /* a row is a whole number of blocks */
    APR_ROWS_PADDED, /* each row ends in a block filled with zeros */
    APR_FLAT,        /* blocks run on across the rows; the last one is filled with zeros */
};

/* One matrix of a stack that the files hold apart (experts of a checkpoint). */
struct apr_tensor_part {
    uint32_t i_file;
    uint64_t off_file;
    const uint8_t *data; /* NULL until apr_model_map */
};

struct apr_view;

struct apr_tensor {
    const char *name; /* Hugging Face name after load; borrowed from the model's arena */
    enum apr_type type;
    uint32_t n_dims; /* 0 = scalar */
    uint64_t dims[APR_MAX_DIMS];
    uint64_t n_bytes;
    enum apr_packing packing;
    uint32_t i_file;     /* index into apr_model.files */
    uint64_t off_file;   /* of the first data byte in that file; for a stream, from its start */
    const uint8_t *data; /* NULL until apr_model_map, and where parts are set: see apr_tensor_part */
    const struct apr_tensor_part
        *parts; /* [dims[0]], one after the other the tensor's data; NULL: all is at off_file */
    const struct apr_view *view; /* bytes are made from others' (view.h); NULL: they are in the file */
    bool is_turned; /* the file holds the matrix transposed; the tensor is as dims say. Not with parts */
};

/* Mapped bytes of matrix i of a stack [n, rows, cols], i < dims[0], wherever it lies; each has n_bytes /
 * dims[0]. */
const uint8_t *apr_tensor_part(const struct apr_tensor *t, uint64_t i);
uint64_t apr_tensor_cols(const struct apr_tensor *t); /* innermost dimension; 1 for a scalar */
uint64_t apr_tensor_rows(const struct apr_tensor *t); /* product of the others; sizes were checked on load */
uint64_t apr_tensor_elems(const struct apr_tensor *t);
/* Checked size from type and dims; fails on overflow or a row that is no whole number of blocks. */
APR_MUST_USE enum apr_code apr_tensor_bytes(enum apr_type type, uint32_t n_dims, const uint64_t *dims,
                                            uint64_t *n_bytes, struct apr_err *e);
/* Bytes of the same array packed in one of the original's ways. */
APR_MUST_USE enum apr_code apr_tensor_bytes_packed(enum apr_type type, enum apr_packing packing,
                                                   uint32_t n_dims, const uint64_t *dims, uint64_t *n_bytes,
                                                   struct apr_err *e);
/* Checked product of the dimensions: 1 for a scalar, 0 where one is 0. Overflow is an error even then. */
APR_MUST_USE enum apr_code apr_dims_elems(uint32_t n_dims, const uint64_t *dims, uint64_t *n_elems,
                                          struct apr_err *e);
/* "[4096, 256]" into out. */
const char *apr_tensor_shape(const struct apr_tensor *t, char *out, size_t n_out);

#endif

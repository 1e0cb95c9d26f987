/* Sizes and shapes of tensors. See tensor.h. */
#include "tensor.h"

#include <inttypes.h>
#include <stdio.h>

#include "ckd.h"

const uint8_t *apr_tensor_part(const struct apr_tensor *t, uint64_t i)
{
    return t->parts ? t->parts[i].data : t->data + i * (t->n_bytes / t->dims[0]);
}

uint64_t apr_tensor_cols(const struct apr_tensor *t)
{
    return t->n_dims ? t->dims[t->n_dims - 1] : 1;
}

uint64_t apr_tensor_rows(const struct apr_tensor *t)
{
    uint64_t n = 1;
    for (uint32_t i = 0; i + 1 < t->n_dims; i++) n *= t->dims[i];
    return n;
}

uint64_t apr_tensor_elems(const struct apr_tensor *t)
{
    return apr_tensor_rows(t) * apr_tensor_cols(t);
}

/* A product that overflows is refused even where a zero makes the whole product 0: readers that
 * multiply in another order would see another number. (CVE-2026-33298) */
enum apr_code apr_dims_elems(uint32_t n_dims, const uint64_t *dims, uint64_t *n_elems, struct apr_err *e)
{
    uint64_t n = 1;
    bool is_empty = false;
    if (n_dims > APR_MAX_DIMS)
        return apr_fail(e, APR_EFORMAT, "%" PRIu32 " dimensions, expected at most %d", n_dims, APR_MAX_DIMS);
    for (uint32_t i = 0; i < n_dims; i++) {
        if (dims[i] == 0) {
            is_empty = true;
            continue;
        }
        if (dims[i] > INT64_MAX || ckd_mul(&n, n, dims[i]) || n > INT64_MAX)
            return apr_fail(e, APR_EFORMAT,
                            "the product of the dimensions overflows at dimension %" PRIu32 " (%" PRIu64 ")",
                            i, dims[i]);
    }
    *n_elems = is_empty ? 0 : n;
    return APR_OK;
}

static enum apr_code rows_of(uint32_t n_dims, const uint64_t *dims, uint64_t *n_rows, uint64_t *n_cols,
                             struct apr_err *e)
{
    uint64_t n_elems;
    TRY(apr_dims_elems(n_dims, dims, &n_elems, e));
    *n_cols = n_dims ? dims[n_dims - 1] : 1;
    TRY(apr_dims_elems(n_dims ? n_dims - 1 : 0, dims, n_rows, e));
    return APR_OK;
}

enum apr_code apr_tensor_bytes(enum apr_type type, uint32_t n_dims, const uint64_t *dims, uint64_t *n_bytes,
                               struct apr_err *e)
{
    uint64_t n_rows, n_cols;
    TRY(rows_of(n_dims, dims, &n_rows, &n_cols, e));
    return apr_data_bytes(type, n_rows, n_cols, n_bytes, e);
}

enum apr_code apr_tensor_bytes_packed(enum apr_type type, enum apr_packing packing, uint32_t n_dims,
                                      const uint64_t *dims, uint64_t *n_bytes, struct apr_err *e)
{
    const struct apr_quant *q = apr_quant_of(type);
    uint64_t n_rows, n_cols, n_over;
    if (packing == APR_ROWS || !q) return apr_tensor_bytes(type, n_dims, dims, n_bytes, e);
    TRY(rows_of(n_dims, dims, &n_rows, &n_cols, e));
    if (packing == APR_FLAT) {
        n_cols *= n_rows; /* apr_dims_elems proved that it fits */
        n_rows = 1;
    }
    n_over = n_cols % q->block_elems;
    if (n_over && ckd_add(&n_cols, n_cols, q->block_elems - n_over))
        return apr_fail(e, APR_EFORMAT, "%" PRIu64 " columns overflow", n_cols);
    return apr_data_bytes(type, n_rows, n_cols, n_bytes, e);
}

const char *apr_tensor_shape(const struct apr_tensor *t, char *out, size_t n_out)
{
    size_t n = 0;
    int k = snprintf(out, n_out, "[");
    for (uint32_t i = 0; i < t->n_dims && k >= 0; i++) {
        n += (size_t)k;
        if (n >= n_out) return out;
        k = snprintf(out + n, n_out - n, i ? ", %" PRIu64 : "%" PRIu64, t->dims[i]);
    }
    if (k >= 0) n += (size_t)k;
    if (n < n_out) (void)snprintf(out + n, n_out - n, "]");
    return out;
}

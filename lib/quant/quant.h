/* Storage types: one row per type, in table.c; one file per type.
 *
 * Ids are GGML's (BF16 = 30). Ids >= 128 are ours: 128 and 129 are the APR-native types of .apr files,
 * the rest never reach a file of ours. Block structs and their _Static_asserts stand in blocks.h.
 * Source of the layouts: GGML's published block formats; .apr: the v2 format document.
 *
 * to_f32 is bit-exact as GGML defines it. from_f32 gives the same bytes on every machine: it is
 * compiled with -ffp-contract=off, sums run in a fixed order, ISA variants produce the same bytes.
 */
#ifndef APR_QUANT_H
#define APR_QUANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../err.h"

enum apr_type {
    APR_F32 = 0,
    APR_F16 = 1,
    APR_Q4_0 = 2,
    APR_Q4_1 = 3,
    APR_Q5_0 = 6,
    APR_Q5_1 = 7,
    APR_Q8_0 = 8,
    APR_Q8_1 = 9,
    APR_Q2_K = 10,
    APR_Q3_K = 11,
    APR_Q4_K = 12,
    APR_Q5_K = 13,
    APR_Q6_K = 14,
    APR_Q8_K = 15,
    APR_IQ2_XXS = 16,
    APR_IQ2_XS = 17,
    APR_IQ3_XXS = 18,
    APR_IQ1_S = 19,
    APR_IQ4_NL = 20,
    APR_IQ3_S = 21,
    APR_IQ2_S = 22,
    APR_IQ4_XS = 23,
    APR_I8 = 24,
    APR_I16 = 25,
    APR_I32 = 26,
    APR_I64 = 27,
    APR_F64 = 28,
    APR_IQ1_M = 29,
    APR_BF16 = 30,
    APR_TQ1_0 = 34,
    APR_TQ2_0 = 35,
    APR_MXFP4 = 39,
    APR_NATIVE_Q4 = 128, /* 32 values: f16 scale, 16 bytes of adjacent nibbles */
    APR_NATIVE_Q8 = 129, /* one f32 scale for the tensor, then int8 */
    APR_U8 = 130,        /* SafeTensors and .apr only */
    APR_N_TYPES = 131,   /* bound for arrays indexed by type; most slots are empty */
};

/* x: n_elems floats; blocks: n_elems / block_elems blocks at any alignment. n_elems is a multiple of
 * block_elems. Flat types are computed as whole tensors: blocks begins with the head, and n_elems is free. */
typedef void apr_to_f32_fn(const void *blocks, float *x, size_t n_elems);
/* One row (or a whole number of rows of equal length): n_elems values, weights NULL or n_elems importance
 * weights >= 0 (imatrix). Input must be finite: callers scan first. */
typedef void apr_from_f32_fn(const float *x, void *blocks, size_t n_elems, const float *weights);

struct apr_quant {
    enum apr_type type;
    const char *name;     /* "Q4_K": as GGML prints it */
    uint32_t block_elems; /* along the innermost dimension */
    uint32_t block_bytes;
    uint32_t head_bytes;       /* once per tensor, in front of the blocks (APR-native Q8: its scale) */
    bool is_quantized;         /* block format, as opposed to a plain number */
    bool is_flat;              /* blocks run over the whole tensor, rows unseen; the last one is padded */
    apr_to_f32_fn *to_f32;     /* NULL: can be carried, not computed with */
    apr_from_f32_fn *from_f32; /* NULL: cannot be written */
};

/* NULL when the id is unknown. */
const struct apr_quant *apr_quant_of(uint32_t type);
/* Case-insensitive: "Q4_K", "q4k", "bf16", "fp16". NULL when unknown. */
const struct apr_quant *apr_quant_named(const char *name);
/* i-th row of the table, NULL past the end: for help texts and the table-walking test. */
const struct apr_quant *apr_quant_at(size_t i);
/* "Q4_K", or "type 77" for an unknown id. */
const char *apr_type_name(uint32_t type);

/* Bytes of a row; fails when n_cols is not a multiple of the block or the product overflows. */
APR_MUST_USE enum apr_code apr_row_bytes(enum apr_type type, uint64_t n_cols, uint64_t *n_bytes,
                                         struct apr_err *e);

/* Bytes of a whole tensor of n_rows rows, any type; the one that tensor.c and readers of sizes use. */
APR_MUST_USE enum apr_code apr_data_bytes(enum apr_type type, uint64_t n_rows, uint64_t n_cols,
                                          uint64_t *n_bytes, struct apr_err *e);

/* IEEE half and bfloat16, round to nearest even, subnormals kept, NaN stays NaN (made quiet). */
float apr_f16_to_f32(uint16_t h);
uint16_t apr_f32_to_f16(float f);
float apr_bf16_to_f32(uint16_t h);
uint16_t apr_f32_to_bf16(float f);

/* APR-native Q8 in pieces: the scale that stores max_abs, and n values on either side of the head. */
float apr_native_q8_scale(float max_abs);
void apr_native_q8_to_f32(float scale, const int8_t *q, float *x, size_t n);
void apr_native_q8_from_f32(float scale, const float *x, int8_t *q, size_t n);

#endif

/* The table for x86-64 CPUs with AVX-512 (F, BW, DQ, VL, VNNI). What has no form of its own is named here as
 * the AVX2 one. */
#include "avx512.h"

#include "avx2.h"

#include "../quant/types.h"
#include "slots.h"

static const struct apr_matmul matmul[APR_N_TYPES] =
    APR_KERN_MATMUL_OF(apr_avx2, apr_avx512, apr_avx512, apr_avx2, apr_avx512);

const struct apr_kern apr_kern_avx512 = {.name = "avx512",
                                         .matmul = matmul,
                                         .to_f32 = apr_avx2_to_f32s,
                                         APR_KERN_VECTORS(apr_avx2),
                                         APR_KERN_ATTENTION(apr_avx512)};

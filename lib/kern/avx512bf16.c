/* The table for x86-64 CPUs with AVX-512 and AVX512-BF16: that of AVX-512, but for products of BF16 weights,
 * whose activations are rounded to BF16: about twice as fast, and less exact than the default promises. */
#include "avx512bf16.h"

#include "avx2.h"
#include "avx512.h"
#include "slots.h"

static const struct apr_matmul matmul[APR_N_TYPES] =
    APR_KERN_MATMUL_BF16(apr_avx2, apr_avx512, apr_avx2, apr_avx2, apr_avx512, apr_avx512bf16_rounded_bf16,
                         APR_ACT_SPLIT, apr_avx512_bf16);

const struct apr_kern apr_kern_avx512bf16 = {.name = "avx512bf16",
                                             .matmul = matmul,
                                             .to_f32 = apr_avx2_to_f32s,
                                             .split_bf16 = apr_avx2_split_bf16,
                                             APR_KERN_VECTORS(apr_avx2),
                                             APR_KERN_ATTENTION(apr_avx512)};

/* The table for WebAssembly with SIMD: the kernels of v128.h. Products of bytes stand in simd128_rows.c and
 * simd128_strips.c. */
#include "simd128_vec.h"

#include "slots.h"
#include "v128_act.h"
#include "v128_attn.h"
#include "v128_elem.h"
#include "v128_plain.h"

static const struct apr_matmul matmul[APR_N_TYPES] =
    APR_KERN_MATMUL_OF(apr_simd128, apr_simd128, apr_simd128, apr_scalar, apr_simd128);

const struct apr_kern apr_kern_simd128 = {
    .name = "simd128", .matmul = matmul, .to_f32 = apr_simd128_to_f32s, APR_KERN_SLOTS(apr_simd128)};

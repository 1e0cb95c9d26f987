/* The table for 64-bit ARM: the kernels of v128.h. Products of bytes stand in neon_rows.c and
 * neon_strips.c. */
#include "neon_vec.h"

#include "slots.h"
#include "v128_act.h"
#include "v128_attn.h"
#include "v128_elem.h"
#include "v128_plain.h"

static const struct apr_matmul matmul[APR_N_TYPES] =
    APR_KERN_MATMUL_OF(apr_neon, apr_neon, apr_neon, apr_scalar, apr_neon);

const struct apr_kern apr_kern_neon = {
    .name = "neon", .matmul = matmul, .to_f32 = apr_neon_to_f32s, APR_KERN_SLOTS(apr_neon)};

/* The table for 64-bit ARM with SDOT: NEON's, but for the products of bytes. */
#include "neon_vec.h"

#include "slots.h"
#include "v128_decl.h"

#define DOTPROD(name) apr_dotprod_##name
V_DECLARE_INTS(DOTPROD);

static const struct apr_matmul matmul[APR_N_TYPES] =
    APR_KERN_MATMUL_OF(apr_neon, apr_neon, apr_dotprod, apr_scalar, apr_dotprod);

const struct apr_kern apr_kern_dotprod = {
    .name = "dotprod", .matmul = matmul, .to_f32 = apr_neon_to_f32s, APR_KERN_SLOTS(apr_neon)};

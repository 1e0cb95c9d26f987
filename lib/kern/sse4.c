/* The table for x86-64 CPUs with SSE4.1 and SSSE3: the kernels of v128.h. Products of bytes stand in
 * sse4_rows.c and sse4_strips.c. */
#include "sse4_vec.h"

#include "slots.h"
#include "v128_act.h"
#include "v128_attn.h"
#include "v128_elem.h"
#include "v128_plain.h"

static const struct apr_matmul matmul[APR_N_TYPES] =
    APR_KERN_MATMUL_OF(apr_sse4, apr_sse4, apr_sse4, apr_scalar, apr_sse4);

const struct apr_kern apr_kern_sse4 = {
    .name = "sse4", .matmul = matmul, .to_f32 = apr_sse4_to_f32s, APR_KERN_SLOTS(apr_sse4)};

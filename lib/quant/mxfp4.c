/* MXFP4: 32 numbers of E2M1 with a common power of two (OCP microscaling formats 1.0), read only. */
#include "blocks.h"
#include "types.h"

#include <math.h>

/* Twice the value: 0, 1/2, 1, 3/2, 2, 3, 4, 6 and their negatives; there is no negative zero in GGML. */
static const float doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

void apr_mxfp4_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const struct apr_block_mxfp4 *b = blocks;
    for (; n_elems >= APR_QK; n_elems -= APR_QK, b++, x += APR_QK) {
        float d = ldexpf(1, b->e - 128);
        for (int j = 0; j < 16; j++) {
            x[j] = doubled[b->qs[j] & 15] * d;
            x[j + 16] = doubled[b->qs[j] >> 4] * d;
        }
    }
}

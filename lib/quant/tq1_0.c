/* TQ1_0: ternary values, five a byte, read only. */
#include "blocks.h"
#include "types.h"

/* n_bytes bytes of n_digits digits each: digit k of byte j is value k * n_bytes + j. */
static float *spread(const uint8_t *bytes, unsigned n_bytes, unsigned n_digits, float d, float *x)
{
    unsigned power = 1;
    for (unsigned k = 0; k < n_digits; k++, power *= 3) {
        for (unsigned j = 0; j < n_bytes; j++) {
            unsigned rest = bytes[j] * power & 255; /* what is left of the byte's fraction */
            *x++ = (float)((int)(rest * 3 >> 8) - 1) * d;
        }
    }
    return x;
}

void apr_tq1_0_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const struct apr_block_tq1_0 *b = blocks;
    for (; n_elems >= APR_QKK; n_elems -= APR_QKK, b++) {
        float d = apr_f16_to_f32(b->d);
        x = spread(b->qs, 32, 5, d, x);
        x = spread(b->qs + 32, 16, 5, d, x);
        x = spread(b->qh, 4, 4, d, x);
    }
}

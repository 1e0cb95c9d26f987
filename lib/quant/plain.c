/* Plain numbers: F32, F64 and I8. */
#include "types.h"

#include <string.h>

_Static_assert(sizeof(float) == 4 && sizeof(double) == 8, "IEEE sizes");

void apr_f32_to_f32(const void *blocks, float *x, size_t n_elems)
{
    memcpy(x, blocks, n_elems * sizeof *x);
}

void apr_f32_from_f32(const float *x, void *blocks, size_t n_elems, const float *weights)
{
    (void)weights;
    memcpy(blocks, x, n_elems * sizeof *x);
}

void apr_f64_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n_elems; i++) {
        double v;
        memcpy(&v, p + i * sizeof v, sizeof v);
        x[i] = (float)v;
    }
}

void apr_i8_to_f32(const void *blocks, float *x, size_t n_elems)
{
    const int8_t *q = blocks;
    for (size_t i = 0; i < n_elems; i++) x[i] = q[i];
}

/* The fit for AVX2: the same vectors in registers. */
#if defined(__x86_64__)
#include "fit.h"

#include <immintrin.h>

#include "grids.h"

typedef float v8 __attribute__((vector_size(32)));
typedef int32_t m8 __attribute__((vector_size(32)));

static inline v8 v8_select(m8 mask, v8 a, v8 b)
{
    return _mm256_blendv_ps(b, a, (__m256)mask);
}

static inline v8 v8_max(v8 a, v8 b)
{
    return _mm256_max_ps(a, b); /* a > b ? a : b, as in fit_base.c */
}

static inline v8 v8_min(v8 a, v8 b)
{
    return _mm256_min_ps(a, b);
}

static inline v8 v8_sqrt(v8 a)
{
    return _mm256_sqrt_ps(a);
}

#define FIT_NAME apr_fit_avx2
#define FIT_TEXT "avx2"
#include "fit_body.h"
#else
extern int apr_fit_avx2_absent; /* a translation unit may not be empty */
#endif

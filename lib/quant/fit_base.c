/* The fit for any CPU: vector extensions that the compiler lowers to what the baseline has. */
#include "fit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "grids.h"

typedef float v8 __attribute__((vector_size(32)));
typedef int32_t m8 __attribute__((vector_size(32)));

/* mask lanes are 0 or -1 */
static inline v8 v8_select(m8 mask, v8 a, v8 b)
{
    return (v8)((mask & (m8)a) | (~mask & (m8)b));
}

static inline v8 v8_max(v8 a, v8 b)
{
    return v8_select(a > b, a, b);
}

static inline v8 v8_min(v8 a, v8 b)
{
    return v8_select(a < b, a, b);
}

static inline v8 v8_sqrt(v8 a)
{
    for (int j = 0; j < APR_FIT_LANES; j++) a[j] = sqrtf(a[j]);
    return a;
}

#define FIT_NAME apr_fit_base
#define FIT_TEXT "scalar"
#include "fit_body.h"

bool apr_fit_in_range(const float *x, size_t n_elems)
{
    float max_abs = 0;
    for (size_t i = 0; i < n_elems; i++) max_abs = fabsf(x[i]) > max_abs ? fabsf(x[i]) : max_abs;
    return max_abs < APR_FIT_MAX;
}

const struct apr_fit *apr_fit_pick(void)
{
    const char *forced = getenv("APR_KERN");
    if (forced && strcmp(forced, "scalar") == 0) return &apr_fit_base;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) return &apr_fit_avx2;
#endif
    return &apr_fit_base;
}

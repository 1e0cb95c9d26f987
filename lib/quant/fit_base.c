/* The fit for any CPU: vector extensions that the compiler lowers to what the baseline has. */
#include "fit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../arch.h"
#include "../cpu.h"
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

static inline v8 v8_fma(v8 a, v8 b, v8 c)
{
    for (int j = 0; j < APR_FIT_LANES; j++) a[j] = fmaf(a[j], b[j], c[j]);
    return a;
}

/* Adding 1.5 * 2^23 leaves no bits for a fraction. */
static inline v8 v8_round(v8 a)
{
    return (a + 12582912.0F) - 12582912.0F;
}

static inline bool v8_any(m8 mask)
{
    int32_t any = 0;
    for (int j = 0; j < APR_FIT_LANES; j++) any |= mask[j];
    return any != 0;
}

static inline v8 v8_lookup(v8 table, m8 index)
{
    v8 found = {0};
    for (int j = 0; j < APR_FIT_LANES; j++) found[j] = table[index[j] & 7];
    return found;
}

static inline void v8_transpose(v8 *r)
{
    for (int i = 0; i < APR_FIT_LANES; i++) {
        for (int j = 0; j < i; j++) {
            float a = r[i][j];
            r[i][j] = r[j][i];
            r[j][i] = a;
        }
    }
}

#define FIT_NAME apr_fit_base
#define FIT_TEXT "scalar"
#include "fit_body.h"

static bool always(void)
{
    return true;
}

/* Slowest first: the last usable row is the default. */
static const struct {
    const struct apr_fit *fit;
    bool (*usable)(void);
} fits[] = {
    {&apr_fit_base, always},
    {APR_IF_X86_64(&apr_fit_avx2), APR_IF_X86_64(apr_cpu_has_avx2)},
};

const struct apr_fit *apr_fit_pick(void)
{
    const char *forced = getenv("APR_KERN");
    const struct apr_fit *best = &apr_fit_base;
    if (forced && strcmp(forced, apr_fit_base.name) == 0) return best;
    for (size_t i = 0; i < sizeof fits / sizeof fits[0]; i++)
        if (fits[i].fit && fits[i].usable()) best = fits[i].fit;
    return best;
}

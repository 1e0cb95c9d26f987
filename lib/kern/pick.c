/* Which table runs: by cpuid, or the one that APR_KERN names. */
#include "kern.h"

#include <cpuid.h>
#include <stdlib.h>
#include <string.h>

#include "avx2.h"
#include "plain_slices.h"

#define MAX_TABLES 8

static bool always(void)
{
    return true;
}

/* AVX2 implies that the system saves the registers; FMA and F16C have bits of their own in leaf 1, ecx. */
static bool has_avx2(void)
{
    unsigned a, b, c, d;
    if (!__builtin_cpu_supports("avx2") || !__get_cpuid(1, &a, &b, &c, &d)) return false;
    return (c & bit_FMA) && (c & bit_F16C);
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

/* Slowest first: the last usable row is the default. */
static const struct {
    const struct apr_kern *kern;
    bool (*usable)(void);
} tables[] = {
    {&apr_kern_scalar, always},
    {&apr_kern_avx2, has_avx2},
    {&apr_kern_avx512, has_avx512},
};
#define N_TABLES (sizeof tables / sizeof tables[0])
_Static_assert(N_TABLES <= MAX_TABLES, "names must fit");

/* A row of floats (scalar_plain.c; avx2_block*.c need less), or what panels and slices need at any width. */
size_t apr_kern_scratch_bytes(size_t n_cols)
{
    size_t row_bytes = (n_cols + 15) / 16 * 16 * sizeof(float);
    size_t fixed_bytes =
        sizeof(struct apr_slices) > APR_AVX2_PANEL_BYTES ? sizeof(struct apr_slices) : APR_AVX2_PANEL_BYTES;
    return row_bytes > fixed_bytes ? row_bytes : fixed_bytes;
}

const struct apr_kern *apr_kern_at(size_t i)
{
    for (size_t t = 0; t < N_TABLES; t++) {
        if (tables[t].usable() && i-- == 0) return tables[t].kern;
    }
    return NULL;
}

static const char *names(char out[MAX_TABLES * 16])
{
    char *p = out;
    for (size_t t = 0; t < N_TABLES; t++) {
        size_t n = strlen(tables[t].kern->name);
        if (t > 0) p = (char *)memcpy(p, ", ", 2) + 2;
        p = (char *)memcpy(p, tables[t].kern->name, n) + n;
    }
    *p = '\0';
    return out;
}

enum apr_code apr_kern_pick(const struct apr_kern **k, struct apr_err *e)
{
    const char *wanted = getenv("APR_KERN");
    bool any = !wanted || wanted[0] == '\0';
    *k = NULL;
    for (size_t t = N_TABLES; t-- > 0;) {
        if (!any && strcmp(tables[t].kern->name, wanted) != 0) continue;
        if (tables[t].usable()) {
            *k = tables[t].kern;
            return APR_OK;
        }
        if (!any) return apr_fail(e, APR_EUNAVAIL, "APR_KERN=%s: this CPU cannot run these kernels", wanted);
    }
    char list[MAX_TABLES * 16], shown[64];
    return apr_fail(e, APR_EUSAGE, "APR_KERN=%s: unknown kernels; known are: %s",
                    apr_escape(shown, sizeof shown, wanted, strlen(wanted)), names(list));
}

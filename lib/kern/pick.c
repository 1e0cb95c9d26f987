/* Which table runs: the best that this CPU can, or the one that APR_KERN names. */
#include "kern.h"

#include <stdlib.h>
#include <string.h>

#include "../arch.h"
#include "../cpu.h"
#include "../quant/blocks.h"
#include "avx2.h"
#include "plain_slices.h"

#define MAX_TABLES 8
#define MAX_NAME   16

static bool always(void)
{
    return true;
}

/* Slowest first within an architecture: the last usable row is the default. avx512bf16 is never it, since
 * whatever has it has avx512, too. A row of another architecture has no table here. */
static const struct {
    char name[MAX_NAME];
    const struct apr_kern *kern;
    bool (*usable)(void);
} tables[] = {
    {"scalar", &apr_kern_scalar, always},
    {"sse4", APR_IF_X86_64(&apr_kern_sse4), APR_IF_X86_64(apr_cpu_has_sse4)},
    {"avx2", APR_IF_X86_64(&apr_kern_avx2), APR_IF_X86_64(apr_cpu_has_avx2)},
    {"avx512bf16", APR_IF_X86_64(&apr_kern_avx512bf16), APR_IF_X86_64(apr_cpu_has_avx512bf16)},
    {"avx512", APR_IF_X86_64(&apr_kern_avx512), APR_IF_X86_64(apr_cpu_has_avx512)},
    {"neon", APR_IF_AARCH64(&apr_kern_neon), always},
    {"dotprod", APR_IF_AARCH64(&apr_kern_dotprod), APR_IF_AARCH64(apr_cpu_has_dotprod)},
    {"simd128", APR_IF_WASM32(&apr_kern_simd128), always},
};
#define N_TABLES (sizeof tables / sizeof tables[0])
_Static_assert(N_TABLES <= MAX_TABLES, "names must fit");

/* Rows of activations in int16 (avx2_wide8.c), which are more than a row of floats (scalar_plain.c) or a
 * strip (avx512_rows.c), or what panels and slices need at any width. */
_Static_assert(APR_AVX2_WIDE_TOKS *APR_AVX2_WIDE32_BYTES >= 32 * sizeof(float) &&
                   APR_AVX2_WIDE_TOKS * APR_AVX2_WIDE32_BYTES >= 16 * sizeof(struct apr_block_q8_0),
               "of 32 columns");
size_t apr_kern_scratch_bytes(size_t n_cols)
{
    size_t row_bytes = (n_cols + 31) / 32 * APR_AVX2_WIDE_TOKS * APR_AVX2_WIDE32_BYTES;
    size_t fixed_bytes =
        sizeof(struct apr_slices) > APR_AVX2_PANEL_BYTES ? sizeof(struct apr_slices) : APR_AVX2_PANEL_BYTES;
    return row_bytes > fixed_bytes ? row_bytes : fixed_bytes;
}

const struct apr_kern *apr_kern_at(size_t i)
{
    for (size_t t = 0; t < N_TABLES; t++) {
        if (tables[t].kern && tables[t].usable() && i-- == 0) return tables[t].kern;
    }
    return NULL;
}

static const char *names(char out[MAX_TABLES * MAX_NAME])
{
    char *p = out;
    for (size_t t = 0; t < N_TABLES; t++) {
        size_t n = strlen(tables[t].name);
        if (t > 0) p = (char *)memcpy(p, ", ", 2) + 2;
        p = (char *)memcpy(p, tables[t].name, n) + n;
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
        if (!any && strcmp(tables[t].name, wanted) != 0) continue;
        if (tables[t].kern && tables[t].usable()) {
            *k = tables[t].kern;
            return APR_OK;
        }
        if (!any) return apr_fail(e, APR_EUNAVAIL, "APR_KERN=%s: this CPU cannot run these kernels", wanted);
    }
    char list[MAX_TABLES * MAX_NAME], shown[64];
    return apr_fail(e, APR_EUSAGE, "APR_KERN=%s: unknown kernels; known are: %s",
                    apr_escape(shown, sizeof shown, wanted, strlen(wanted)), names(list));
}

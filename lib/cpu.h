/* What this CPU can run. One file per architecture answers, cpu_x86_64.c and so on; a function exists only
 * where its question makes sense (arch.h). No state, no ownership.
 *
 *     if (apr_cpu_has_avx2()) ...
 */
#ifndef APR_CPU_H
#define APR_CPU_H

#include <stdbool.h>

bool apr_cpu_has_sse4(void);       /* SSE4.1 and SSSE3 */
bool apr_cpu_has_avx2(void);       /* with FMA and F16C */
bool apr_cpu_has_avx512(void);     /* F, BW, DQ, VL and VNNI */
bool apr_cpu_has_avx512bf16(void); /* the former and AVX512-BF16 */
bool apr_cpu_has_dotprod(void);    /* aarch64: SDOT and UDOT */

#endif

/* 64-bit ARM: what the kernel says in the auxiliary vector. */
#include "cpu.h"

#include <sys/auxv.h>

#define HWCAP_DOTPROD (1UL << 20) /* Linux, arch/arm64/include/uapi/asm/hwcap.h: ASIMDDP */

bool apr_cpu_has_dotprod(void)
{
    return (getauxval(AT_HWCAP) & HWCAP_DOTPROD) != 0;
}

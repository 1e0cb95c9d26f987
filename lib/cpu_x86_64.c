/* x86-64: cpuid, and whether the system saves the registers. */
#include "cpu.h"

#include <cpuid.h>

bool apr_cpu_has_sse4(void)
{
    return __builtin_cpu_supports("sse4.1") && __builtin_cpu_supports("ssse3");
}

/* AVX2 implies that the system saves the registers; FMA and F16C have bits of their own in leaf 1, ecx. */
bool apr_cpu_has_avx2(void)
{
    unsigned a, b, c, d;
    if (!__builtin_cpu_supports("avx2") || !__get_cpuid(1, &a, &b, &c, &d)) return false;
    return (c & bit_FMA) && (c & bit_F16C);
}

bool apr_cpu_has_avx512(void)
{
    return apr_cpu_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

/* A bit of its own in subleaf 1 of leaf 7, eax. */
bool apr_cpu_has_avx512bf16(void)
{
    unsigned a, b, c, d;
    return apr_cpu_has_avx512() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & bit_AVX512BF16);
}

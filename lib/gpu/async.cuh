/* Copies that run beside the arithmetic, and launches that overlap: what kernels of several files need. */
#ifndef APR_ASYNC_CUH
#define APR_ASYNC_CUH

#include <stdint.h>

/* 16 bytes to shared memory; zeros where there is nothing. */
static __device__ __forceinline__ void copy16(void *to, const void *from, bool there)
{
    int n = there ? 16 : 0;
    asm volatile(
        "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((uint32_t)__cvta_generic_to_shared(to)),
        "l"(from), "r"(n));
}
/* ... of what is read once a token, and so is the first to leave the L2 cache, before code and results. */
static __device__ __forceinline__ uint64_t read_once()
{
    uint64_t policy;
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}
static __device__ __forceinline__ void copy16_once(void *to, const void *from, uint64_t policy)
{
    asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(to)),
                 "l"(from), "l"(policy));
}
static __device__ __forceinline__ void copies_commit()
{
    asm volatile("cp.async.commit_group;");
}
/* All but the last N groups have arrived. */
template <int N> static __device__ __forceinline__ void copies_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* The predecessor's results may be read behind this. */
static __device__ __forceinline__ void wait_for_input()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/* The successor may start, and load what depends on nothing. */
static __device__ __forceinline__ void let_next_start()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* c += a b: a [16, 16], b [16, 8], F16 with F32 sums (PTX: mma.m16n8k16 fragments). */
static __device__ __forceinline__ void mma16816(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#endif

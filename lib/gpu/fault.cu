/* A device that does not answer, and faults that are made on purpose: what resilience and its tests need. */
#include "async.cuh"
#include "plugin.cuh"

#include <stdlib.h>
#include <time.h>

static double now_s()
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

enum apr_gpu_status gpu_enter(struct apr_gpu_device *d, struct apr_gpu_err *e)
{
    CU(cudaSetDevice(d->i), "device");
    if (!d->is_late) return APR_GPU_OK;
    cudaError_t c = cudaStreamQuery(d->stream);
    if (c == cudaErrorNotReady)
        return gpu_fail(e, APR_GPU_LOST,
                        "the device is still busy with a step that began %g s ago or earlier", d->timeout_s);
    d->is_late = false;
    return gpu_cuda(c, "a late step", e);
}

/* Looks often at first, so that a step is not prolonged, and now and then when it takes long. */
enum apr_gpu_status gpu_wait(struct apr_gpu_device *d, const char *what, struct apr_gpu_err *e)
{
    const struct timespec nap = {0, 50000};
    const double t0 = now_s();
    cudaError_t c = cudaStreamQuery(d->stream);
    for (uint32_t i = 1; c == cudaErrorNotReady; i++) {
        if (i % 32 == 0) {
            double s = now_s() - t0;
            if (s > d->timeout_s) {
                d->is_late = true;
                return gpu_fail(e, APR_GPU_LOST, "%s: no answer in %g s", what, d->timeout_s);
            }
            if (s > 0.5) nanosleep(&nap, NULL);
        }
        c = cudaStreamQuery(d->stream);
    }
    return gpu_cuda(c, what, e);
}

/* ---- on purpose -------------------------------------------------------------------------------------------
 */

static __device__ void sleep_us(uint32_t us)
{
    uint64_t t0, t;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(t0));
    do asm volatile("mov.u64 %0, %globaltimer;" : "=l"(t));
    while (t - t0 < 1000ull * us);
}
static __global__ void trap_kernel()
{
    asm volatile("trap;");
}
static __global__ void spin_kernel()
{
    sleep_us(3000000);
}
#define SKEW_US      50u
#define RACE_THREADS 256u

static __global__ void skew_kernel()
{
    let_next_start();
    sleep_us(SKEW_US);
    wait_for_input();
}
/* A kernel that forgets to wait before it reads: what it writes is from before its predecessor. */
static __global__ void race_kernel(float *a, float *b, uint32_t n)
{
    const bool has_a = a && threadIdx.x < n, has_b = b && threadIdx.x < n;
    let_next_start();
    const float u = has_a ? __ldcg(a + threadIdx.x) : 0, v = has_b ? __ldcg(b + threadIdx.x) : 0;
    sleep_us(SKEW_US);
    wait_for_input();
    if (has_a) a[threadIdx.x] = u;
    if (has_b) b[threadIdx.x] = v;
}

/* Between a launch and its successor: the latter starts long before the former is done. */
void gpu_skew(const struct apr_gpu_device *d, cudaStream_t s)
{
    cudaLaunchConfig_t c = {};
    cudaLaunchAttribute at[1];
    if (d->fault != APR_GPU_FAULT_SKEW && d->fault != APR_GPU_FAULT_RACE) return;
    at[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    at[0].val.programmaticStreamSerializationAllowed = 1;
    c.gridDim = dim3(1), c.blockDim = dim3(RACE_THREADS), c.stream = s;
    c.attrs = at, c.numAttrs = d->sm >= 90 ? 1 : 0;
    if (d->fault == APR_GPU_FAULT_SKEW) /* an error of it is the next launch's */
        (void)cudaLaunchKernelEx(&c, skew_kernel);
    else
        (void)cudaLaunchKernelEx(&c, race_kernel, d->racy[0], d->racy[1], d->n_racy);
}

/* Ever smaller pieces, so that not even a small request is met. */
struct hoard {
    uint32_t n;
    void *at[1024];
};
void gpu_unhoard(struct apr_gpu_device *d)
{
    for (uint32_t i = 0; d->hoard && i < d->hoard->n; i++) cudaFree(d->hoard->at[i]);
    free(d->hoard);
    d->hoard = NULL;
}
static enum apr_gpu_status hoard(struct apr_gpu_device *d, struct apr_gpu_err *e)
{
    struct hoard *h = d->hoard = (struct hoard *)calloc(1, sizeof *h);
    if (!h) return gpu_fail(e, APR_GPU_MEMORY, "no memory for a list");
    for (uint64_t n = 1ull << 36; n >= 256; n /= 2)
        while (h->n < sizeof h->at / sizeof *h->at && cudaMalloc(&h->at[h->n], n) == cudaSuccess) h->n++;
    (void)cudaGetLastError();
    return APR_GPU_OK;
}

enum apr_gpu_status gpu_fault(struct apr_gpu_device *d, enum apr_gpu_fault what, struct apr_gpu_err *e)
{
    GPU_TRY(gpu_enter(d, e));
    gpu_unhoard(d);
    d->fault = what;
    if (what == APR_GPU_FAULT_MEMORY) return hoard(d, e);
    if (what == APR_GPU_FAULT_TRAP) {
        trap_kernel<<<1, 1, 0, d->stream>>>();
        (void)cudaStreamSynchronize(d->stream); /* the next call finds it */
    }
    if (what == APR_GPU_FAULT_SPIN) spin_kernel<<<d->n_sm, 32, 0, d->stream>>>();
    return APR_GPU_OK;
}

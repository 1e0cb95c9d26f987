/* The plugin's table, its devices, and what tests and profiles ask. */
#include "world.cuh"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum apr_gpu_status gpu_fail(struct apr_gpu_err *e, enum apr_gpu_status s, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    vsnprintf(e->text, sizeof e->text, format, ap);
    va_end(ap);
    return s;
}
/* Errors behind which every call of the process fails, as the runtime's manual says of each. */
static bool is_for_good(cudaError_t c)
{
    static const cudaError_t errors[] = {cudaErrorIllegalAddress,
                                         cudaErrorLaunchTimeout,
                                         cudaErrorLaunchFailure,
                                         cudaErrorHardwareStackError,
                                         cudaErrorIllegalInstruction,
                                         cudaErrorMisalignedAddress,
                                         cudaErrorInvalidAddressSpace,
                                         cudaErrorInvalidPc,
                                         cudaErrorAssert,
                                         cudaErrorECCUncorrectable,
                                         cudaErrorNvlinkUncorrectable,
                                         cudaErrorContextIsDestroyed,
                                         cudaErrorDevicesUnavailable,
                                         cudaErrorUnknown};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i] == c) return true;
    return false;
}
enum apr_gpu_status gpu_cuda(cudaError_t c, const char *what, struct apr_gpu_err *e)
{
    if (c == cudaSuccess) return APR_GPU_OK;
    (void)cudaGetLastError();
    const bool lost = is_for_good(c);
    return gpu_fail(e,
                    c == cudaErrorMemoryAllocation ? APR_GPU_MEMORY
                    : lost                         ? APR_GPU_LOST
                                                   : APR_GPU_FAILED,
                    "%s: %s%s", what, cudaGetErrorString(c), lost ? "; the device is lost" : "");
}

void gpu_overlap(const struct apr_gpu_device *d, cudaLaunchConfig_t *c, cudaLaunchAttribute at[1])
{
    at[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    at[0].val.programmaticStreamSerializationAllowed = 1;
    c->attrs = at;
    c->numAttrs = d->sm >= 90 && d->fault != APR_GPU_FAULT_SERIAL ? 1 : 0;
    gpu_skew(d, c->stream);
}
/* Never less than before: a graph takes its launches' shared memory only when it is made, and another launch
 * of the kernel may have asked for less in between (so may another thread, where ranks share a device). */
enum apr_gpu_status gpu_allow_smem(const void *kernel, uint32_t n_bytes, const char *what,
                                   struct apr_gpu_err *e)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    struct cudaFuncAttributes f;
    pthread_mutex_lock(&lock);
    cudaError_t c = cudaFuncGetAttributes(&f, kernel);
    if (c == cudaSuccess && f.maxDynamicSharedSizeBytes < (int)n_bytes)
        c = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)n_bytes);
    pthread_mutex_unlock(&lock);
    return gpu_cuda(c, what, e);
}

enum apr_gpu_status gpu_launch_at(const struct apr_gpu_device *d, const void *kernel, dim3 grid,
                                  uint32_t n_threads, uint32_t n_smem, void **args, cudaStream_t s,
                                  const char *what, struct apr_gpu_err *e, const char *file, uint32_t line)
{
    cudaLaunchConfig_t c = {};
    cudaLaunchAttribute at[1];
    if (n_smem > 48u << 10) GPU_TRY(gpu_allow_smem(kernel, n_smem, what, e));
    c.gridDim = grid;
    c.blockDim = dim3(n_threads);
    c.dynamicSmemBytes = n_smem;
    c.stream = s;
    gpu_overlap(d, &c, at);
    CU(cudaLaunchKernelExC(&c, kernel, args), what);
    gpu_mark_at(d, what, s, file, line);
    return APR_GPU_OK;
}

enum apr_gpu_status device_count(uint32_t *n, struct apr_gpu_err *e)
{
    int k = 0;
    cudaError_t c = cudaGetDeviceCount(&k);
    *n = 0;
    if (c == cudaErrorNoDevice || c == cudaErrorInsufficientDriver)
        return gpu_fail(e, APR_GPU_NONE, "no CUDA device: %s", cudaGetErrorString(c));
    GPU_TRY(gpu_cuda(c, "devices", e));
    *n = (uint32_t)k;
    return APR_GPU_OK;
}

static enum apr_gpu_status device_fill(struct apr_gpu_device *d, struct apr_gpu_err *e)
{
    struct cudaDeviceProp p;
    size_t n_free = 0, n_total = 0;
    CU(cudaSetDevice(d->i), "device");
    CU(cudaGetDeviceProperties(&p, d->i), "device");
    CU(cudaMemGetInfo(&n_free, &n_total), "free memory");
    d->n_sm = p.multiProcessorCount, d->sm = 10 * p.major + p.minor,
    d->max_smem = (int)p.sharedMemPerBlockOptin, d->sm_smem = (int)p.sharedMemPerMultiprocessor;
    snprintf(d->name, sizeof d->name, "%s, sm_%d, %d SM, %.1f GiB free", p.name, d->sm, d->n_sm,
             (double)n_free / 1073741824.0);
    if (d->sm < 80) return gpu_fail(e, APR_GPU_NONE, "%s is sm_%d, expected sm_80 or later", p.name, d->sm);
    CU(cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking), "stream");
    if (cublasLtCreate(&d->lt) != CUBLAS_STATUS_SUCCESS)
        return gpu_fail(e, APR_GPU_FAILED, "cuBLASLt cannot be started");
    d->plans = gpu_plans_new();
    if (!d->plans) return gpu_fail(e, APR_GPU_MEMORY, "no memory for plans");
    return gpu_cuda(cudaMalloc(&d->lt_work, LT_WORK_BYTES), "workspace", e);
}

void device_close(struct apr_gpu_device *d)
{
    if (!d) return;
    if (d->is_late) return free(d); /* every call would wait for what never ends */
    if (d->plans) gpu_plans_clear(d);
    free(d->plans);
    gpu_unhoard(d);
    cudaFree(d->lt_work);
    if (d->lt) cublasLtDestroy(d->lt);
    if (d->stream) cudaStreamDestroy(d->stream);
    free(d);
}

enum apr_gpu_status device_open(uint32_t i, struct apr_gpu_device **out, struct apr_gpu_err *e)
{
    uint32_t n;
    GPU_TRY(device_count(&n, e));
    if (i >= n) return gpu_fail(e, APR_GPU_NONE, "no CUDA device %u; %u found", i, n);
    struct apr_gpu_device *d = (struct apr_gpu_device *)calloc(1, sizeof *d);
    if (!d) return gpu_fail(e, APR_GPU_MEMORY, "no memory for a device");
    d->i = (int)i;
    d->timeout_s = GPU_TIMEOUT_S;
    enum apr_gpu_status s = device_fill(d, e);
    if (s != APR_GPU_OK) return device_close(d), s;
    *out = d;
    return APR_GPU_OK;
}
static const char *device_name(const struct apr_gpu_device *d)
{
    return d->name;
}

/* The context of the process on the device goes, and with it what an error has left of it. */
static enum apr_gpu_status device_reset(uint32_t i, struct apr_gpu_err *e)
{
    (void)cudaSetDevice((int)i); /* fails where the context is lost */
    (void)cudaGetLastError();
    CU(cudaDeviceReset(), "reset of the device");
    CU(cudaSetDevice((int)i), "device");
    return gpu_cuda(cudaFree(NULL), "device", e); /* a new context is made now */
}

static enum apr_gpu_status unpack_into(struct apr_gpu_device *d, const struct apr_gpu_mat *w, struct mat *m,
                                       float **dev, float *rows, struct apr_gpu_err *e)
{
    struct stage s = {};
    uint64_t n_bytes = 4ull * w->n_rows * w->n_cols;
    CU(cudaMalloc((void **)&m->tiles, repack_bytes(m->kind, w->n_rows, w->n_cols)), "tiles");
    CU(cudaMalloc((void **)dev, n_bytes), "rows");
    enum apr_gpu_status st = stage_open(&s, e);
    if (st == APR_GPU_OK) st = stage_mat(&s, w, m, d->stream, e);
    if (st == APR_GPU_OK) {
        unpack_f32(m, 0, w->n_rows, *dev, d->stream);
        st = gpu_cuda(cudaMemcpyAsync(rows, *dev, n_bytes, cudaMemcpyDeviceToHost, d->stream), "rows", e);
    }
    if (st == APR_GPU_OK) st = gpu_wait(d, "rows", e);
    stage_close(&s);
    return st;
}
enum apr_gpu_status unpack(struct apr_gpu_device *d, const struct apr_gpu_mat *w, float *rows,
                           struct apr_gpu_err *e)
{
    struct mat m = {};
    float *dev = NULL;
    GPU_TRY(gpu_enter(d, e));
    if (!repack_kind(w->type, &m.kind)) return gpu_fail(e, APR_GPU_UNSUPPORTED, "type %u", w->type);
    mat_shape(w, &m);
    enum apr_gpu_status s = unpack_into(d, w, &m, &dev, rows, e);
    cudaFree(m.tiles);
    cudaFree(dev);
    return s;
}

/* Plain reads, 16 bytes a load, 8 in flight a thread: what the memory gives. */
static __global__ void read_kernel(const uint4 *p, uint64_t n, uint4 *sink)
{
    uint4 v = make_uint4(0, 0, 0, 0);
    uint64_t step = (uint64_t)gridDim.x * blockDim.x, i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    for (; i + 7 * step < n; i += 8 * step) {
        uint4 w[8];
#pragma unroll
        for (int k = 0; k < 8; k++) w[k] = __ldcs(p + i + k * step);
#pragma unroll
        for (int k = 0; k < 8; k++) v.x ^= w[k].x, v.y ^= w[k].y, v.z ^= w[k].z, v.w ^= w[k].w;
    }
    if (v.x == 0x12345678u && v.y == 0x9abcdef0u) *sink = v;
}
enum apr_gpu_status bandwidth(struct apr_gpu_device *d, double *bytes_per_s, struct apr_gpu_err *e)
{
    const uint64_t n_bytes = 4ull << 30;
    uint4 *p = NULL;
    cudaEvent_t t0, t1;
    float best = 1e30f;
    GPU_TRY(gpu_enter(d, e));
    CU(cudaMalloc((void **)&p, n_bytes), "4 GiB to read");
    CU(cudaMemsetAsync(p, 0, n_bytes, d->stream), "memset");
    CU(cudaEventCreate(&t0), "event");
    CU(cudaEventCreate(&t1), "event");
    for (int i = 0; i < 8; i++) {
        float ms = 0;
        cudaEventRecord(t0, d->stream);
        read_kernel<<<2 * d->n_sm, 1024, 0, d->stream>>>(p, n_bytes / 16, p);
        cudaEventRecord(t1, d->stream);
        CU(cudaEventSynchronize(t1), "reading");
        CU(cudaEventElapsedTime(&ms, t0, t1), "reading");
        if (ms < best) best = ms;
    }
    cudaEventDestroy(t0);
    cudaEventDestroy(t1);
    cudaFree(p);
    *bytes_per_s = (double)n_bytes / (best * 1e-3);
    return APR_GPU_OK;
}

static const struct apr_gpu table = {APR_GPU_ABI,
                                     sizeof(struct apr_gpu),
                                     "cuda",
                                     device_count,
                                     device_open,
                                     world_open,
                                     world_close,
                                     device_name,
                                     world_is_late,
                                     world_model_plan,
                                     world_model_open,
                                     world_model_close,
                                     world_seq_open,
                                     world_seq_close,
                                     world_seq_pos,
                                     world_seq_truncate,
                                     world_seq_turn,
                                     world_forward,
                                     world_greedy,
                                     world_sample,
                                     world_step,
                                     world_logits,
                                     world_greedy_rows,
                                     world_sample_rows,
                                     world_profile,
                                     world_unpack,
                                     world_bandwidth,
                                     world_launch_cost,
                                     world_hidden,
                                     world_choose,
                                     world_fault,
                                     device_reset};

extern "C" __attribute__((visibility("default"))) const struct apr_gpu *apr_gpu_plugin(void)
{
    return &table;
}

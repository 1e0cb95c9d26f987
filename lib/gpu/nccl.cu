/* NCCL, found at run time: libnccl.so.2 is looked for only when several devices are asked for, and the plugin
 * is built without it. Functions, types and numbers are those of NCCL's published interface (2.x: User Guide,
 * "NCCL API").
 */
#include "comm.cuh"

#include <dlfcn.h>
#include <stdlib.h>

#define NCCL_SUCCESS 0
#define NCCL_FLOAT32 7
#define NCCL_SUM     0

struct nccl_api {
    int (*CommInitAll)(void **comm, int n, const int *devices);
    int (*CommDestroy)(void *comm);
    int (*CommAbort)(void *comm);
    const char *(*GetErrorString)(int result);
    int (*AllReduce)(const void *from, void *to, size_t n, int type, int op, void *comm, cudaStream_t s);
    int (*AllGather)(const void *from, void *to, size_t n_each, int type, void *comm, cudaStream_t s);
};
struct nccl {
    struct nccl_api api;
    void *comm[APR_GPU_DEVICES];
    uint32_t n;
    bool aborted;
};

static enum apr_gpu_status load(struct nccl_api *a, struct apr_gpu_err *e)
{
    const struct {
        const char *name;
        void **to;
    } all[] = {
        {"ncclCommInitAll", (void **)&a->CommInitAll}, {"ncclCommDestroy", (void **)&a->CommDestroy},
        {"ncclCommAbort", (void **)&a->CommAbort},     {"ncclGetErrorString", (void **)&a->GetErrorString},
        {"ncclAllReduce", (void **)&a->AllReduce},     {"ncclAllGather", (void **)&a->AllGather}};
    /* Sums in the switch have an order of their own, and steps are too short to win by them. NCCL reads this
     * when it is loaded. */
    setenv("NCCL_NVLS_ENABLE", "0", 0);
    void *so = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL); /* until the process ends */
    if (!so)
        return gpu_fail(e, APR_GPU_UNSUPPORTED,
                        "several devices need NCCL: %.120s (Debian, Ubuntu: package libnccl2)", dlerror());
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!(*all[i].to = dlsym(so, all[i].name)))
            return gpu_fail(e, APR_GPU_UNSUPPORTED, "libnccl.so.2 has no %s", all[i].name);
    return APR_GPU_OK;
}

static enum apr_gpu_status nccl(const struct nccl *c, int result, const char *what, struct apr_gpu_err *e)
{
    if (result == NCCL_SUCCESS) return APR_GPU_OK;
    return gpu_fail(e, APR_GPU_FAILED, "NCCL: %s: %s", what, c->api.GetErrorString(result));
}

enum apr_gpu_status nccl_open(struct apr_gpu_device *const *d, uint32_t n, struct nccl **out,
                              struct apr_gpu_err *e)
{
    int devices[APR_GPU_DEVICES];
    struct nccl *c = (struct nccl *)calloc(1, sizeof *c);
    if (!c) return gpu_fail(e, APR_GPU_MEMORY, "no memory for NCCL");
    for (uint32_t i = 0; i < n; i++) devices[i] = d[i]->i;
    enum apr_gpu_status s = load(&c->api, e);
    if (s == APR_GPU_OK) s = nccl(c, c->api.CommInitAll(c->comm, (int)n, devices), "start", e);
    if (s != APR_GPU_OK) return free(c), s;
    c->n = n;
    *out = c;
    return APR_GPU_OK;
}
void nccl_close(struct nccl *c)
{
    if (!c) return;
    for (uint32_t i = 0; i < c->n && !c->aborted; i++) (void)c->api.CommDestroy(c->comm[i]);
    free(c);
}
void nccl_abort(struct nccl *c)
{
    if (!c || c->aborted) return;
    c->aborted = true;
    for (uint32_t i = 0; i < c->n; i++) (void)c->api.CommAbort(c->comm[i]); /* nothing is left to be done */
}

enum apr_gpu_status nccl_sum(struct nccl *c, uint32_t i, float *x, uint64_t n, cudaStream_t s,
                             struct apr_gpu_err *e)
{
    return nccl(c, c->api.AllReduce(x, x, n, NCCL_FLOAT32, NCCL_SUM, c->comm[i], s), "sum", e);
}
enum apr_gpu_status nccl_gather(struct nccl *c, uint32_t i, const float *part, uint64_t n, float *all,
                                cudaStream_t s, struct apr_gpu_err *e)
{
    return nccl(c, c->api.AllGather(part, all, n, NCCL_FLOAT32, c->comm[i], s), "gathering", e);
}

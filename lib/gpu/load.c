/* The plugin by dlopen. See load.h. */
#include "load.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#include "../sibling.h"

bool apr_gpu_driver_found(void)
{
    return access("/dev/nvidiactl", F_OK) == 0 || access("/dev/dxg", F_OK) == 0;
}

enum apr_code apr_gpu_load(const struct apr_gpu **g, struct apr_err *e)
{
    char path[PATH_MAX];
    apr_gpu_plugin_fn *plugin;
    TRY(apr_sibling_path("apr-cuda.so", path, sizeof path, e));
    if (access(path, R_OK) != 0)
        return apr_fail(e, APR_EUNAVAIL, "%s is missing: this build has no CUDA plugin (make cuda)", path);
    void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!so) return apr_fail(e, APR_EUNAVAIL, "the CUDA plugin cannot be loaded: %s", dlerror());
    /* POSIX: a symbol of a function may be read through a pointer to an object pointer */
    *(void **)(void *)&plugin = dlsym(so, "apr_gpu_plugin");
    if (!plugin) return apr_fail(e, APR_EUNAVAIL, "%s: no symbol apr_gpu_plugin", path);
    *g = plugin();
    if ((*g)->abi != APR_GPU_ABI || (*g)->struct_bytes != sizeof **g)
        return apr_fail(e, APR_EUNAVAIL, "%s: interface %u of %u bytes, expected %u of %zu; build it anew",
                        path, (*g)->abi, (*g)->struct_bytes, APR_GPU_ABI, sizeof **g);
    return APR_OK;
}

enum apr_code apr_gpu_code(enum apr_gpu_status s, const struct apr_gpu_err *ge, struct apr_err *e)
{
    switch (s) {
    case APR_GPU_OK:
        return APR_OK;
    case APR_GPU_NONE:
    case APR_GPU_UNSUPPORTED:
        return apr_fail(e, APR_EUNAVAIL, "cuda: %s", ge->text);
    case APR_GPU_MEMORY:
        return apr_fail(e, APR_ELOAD, "cuda: %s", ge->text);
    case APR_GPU_FULL:
        return apr_fail(e, APR_EUSAGE, "cuda: %s", ge->text);
    case APR_GPU_FAILED:
    case APR_GPU_LOST:
    case APR_GPU_NOT_FINITE:
        break;
    }
    return apr_fail(e, APR_EINFER, "cuda: %s", ge->text);
}

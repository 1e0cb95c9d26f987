/* Finds and loads the GPU plugin (apr-cuda.so beside this executable); with nccl.cu the one caller of dlopen.
 *
 *     const struct apr_gpu *g; TRY(apr_gpu_load(&g, e));
 */
#ifndef APR_GPU_LOAD_H
#define APR_GPU_LOAD_H

#include "../err.h"
#include "gpu.h"

/* A driver is there: cheap, loads nothing. Without it no plugin can compute. */
bool apr_gpu_driver_found(void);
/* The plugin's table, until the process ends. Not built, not loadable, or of another ABI: APR_EUNAVAIL. */
APR_MUST_USE enum apr_code apr_gpu_load(const struct apr_gpu **g, struct apr_err *e);
/* The exit status and the line for what a call of the plugin answered. */
APR_MUST_USE enum apr_code apr_gpu_code(enum apr_gpu_status s, const struct apr_gpu_err *ge,
                                        struct apr_err *e);

#endif

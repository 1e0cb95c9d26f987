/* Faults of a device that are made on purpose, for tests of what becomes of the requests.
 *
 * APR_GPU_FAULT=KIND@FIRST[-[LAST]]: before calls FIRST to LAST (one call without a dash, all later ones
 * without LAST) of a process, counted from 1; KIND is memory (none is left), trap (the device is lost) or
 * spin (it is busy for three seconds). APR_GPU_TIMEOUT=S: a step that takes longer is a lost one.
 *
 *     TRY(apr_gpu_fault_parse(&plan, e)); s = apr_gpu_fault_due(&plan, gpu, device, &ge);
 */
#ifndef APR_INFER_GPU_FAULT_H
#define APR_INFER_GPU_FAULT_H

#include "err.h"
#include "gpu/gpu.h"

struct apr_gpu_fault_plan {
    enum apr_gpu_fault what; /* APR_GPU_FAULT_NONE: nothing is planned */
    uint64_t i_first, i_last, i_call;
};

APR_MUST_USE enum apr_code apr_gpu_fault_parse(struct apr_gpu_fault_plan *p, struct apr_err *e);
enum apr_gpu_status apr_gpu_fault_due(struct apr_gpu_fault_plan *p, const struct apr_gpu *gpu,
                                      struct apr_gpu_device *d, struct apr_gpu_err *ge);
/* Seconds of APR_GPU_TIMEOUT; 0: the plugin's own. */
APR_MUST_USE enum apr_code apr_gpu_timeout(double *s, struct apr_err *e);

#endif

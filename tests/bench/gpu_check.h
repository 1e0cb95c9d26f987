/* Every way of computing a step against the reference mode on small random models: a line each, and 1 when
 * one misses its bound, else 0.
 *
 *     return bench_check(g, dev, "");
 */
#ifndef APR_BENCH_GPU_CHECK_H
#define APR_BENCH_GPU_CHECK_H

#include "gpu/gpu.h"

int bench_check(const struct apr_gpu *g, struct apr_gpu_device *one,
                const char *only); /* "odd": these alone */
/* Several devices (gpu_rig.h: bench_on) against the first of them alone; and when the last one fails. */
int bench_check_world(const struct apr_gpu *g, struct apr_gpu_device *world);
int bench_fault_world(const struct apr_gpu *g);

#endif

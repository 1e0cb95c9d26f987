/* --device: which machine computes.
 *
 *     struct apr_devices d; TRY(apr_devices_parse("cuda:0,1", &d, e));
 */
#ifndef APR_INFER_DEVICES_H
#define APR_INFER_DEVICES_H

#include "err.h"
#include "gpu/gpu.h"

#define APR_DEVICES_HELP                                                                                     \
    "auto, cpu, cuda, cuda:N, cuda:N,M,... (one model on several) or cuda:all (default auto)"

enum apr_devices_kind { APR_DEVICES_AUTO, APR_DEVICES_CPU, APR_DEVICES_CUDA, APR_DEVICES_CUDA_ALL };
struct apr_devices {
    enum apr_devices_kind kind;
    uint32_t n, i[APR_GPU_DEVICES]; /* of APR_DEVICES_CUDA: in the order given, each once */
};

/* text: NULL is auto. Anything else than the forms above: APR_EUSAGE. */
APR_MUST_USE enum apr_code apr_devices_parse(const char *text, struct apr_devices *d, struct apr_err *e);

#endif

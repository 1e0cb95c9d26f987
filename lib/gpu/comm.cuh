/* What the devices of one model say to each other: sums, rows of a split matrix, and a meeting of the
 * threads.
 *
 * Every function takes a device and does nothing where it is alone. On several, all of them call the same
 * functions in the same order on their streams (also while capturing). Results have the same bits on every
 * device. comm.cu: short sums through each other's memory; nccl.cu: the rest.
 */
#ifndef APR_COMM_CUH
#define APR_COMM_CUH

#include "plugin.cuh"

struct comm_net; /* all ends */
struct comm {    /* one end; owned by the net */
    struct comm_net *net;
    uint32_t i, n;
};

/* Gives each of n devices its end. */
enum apr_gpu_status comm_open(struct apr_gpu_device *const *d, uint32_t n, enum apr_gpu_link link,
                              struct comm_net **net, struct apr_gpu_err *e);
void comm_close(struct comm_net *net); /* NULL is fine */
/* From any thread: what waits for another device ends, and everything later fails. */
void comm_abort(struct comm_net *net);

/* A sum is done with the first device's residual: the others leave their part alone in its place. */
static inline bool comm_adds(const struct apr_gpu_device *d)
{
    return !d->comm || d->comm->i == 0;
}
/* x: of all devices added up. */
enum apr_gpu_status comm_sum(struct apr_gpu_device *d, float *x, uint64_t n, struct apr_gpu_err *e);

/* Rows of n_all that a device has: the same number each, the last one what is left. */
static inline __host__ __device__ uint32_t comm_each(uint32_t n_all, uint32_t n)
{
    return (n_all + n - 1) / n;
}
uint32_t comm_share(const struct apr_gpu_device *d, uint32_t n_all);
/* part: [n_toks, rows of this device], with room for comm_each; all: room for those of all; out: [n_toks,
 * n_all]. */
enum apr_gpu_status comm_rows(struct apr_gpu_device *d, const float *part, uint32_t n_toks, uint32_t n_all,
                              float *all, float *out, struct apr_gpu_err *e);

/* All threads are here: nothing that waits for another device runs while memory is asked for or a graph is
 * made. */
enum apr_gpu_status comm_meet(struct apr_gpu_device *d, struct apr_gpu_err *e);

/* A graph that all devices launch. Ranks of one device share its queues: there a copy or a launch that stands
 * behind one that waits for another rank would hold up that rank; so they come to it together, with nothing
 * queued, and queue nothing before it is done. */
enum apr_gpu_status comm_launch(struct apr_gpu_device *d, cudaGraphExec_t graph, struct apr_gpu_err *e);

/* ---- nccl.cu ---- */
struct nccl;
enum apr_gpu_status nccl_open(struct apr_gpu_device *const *d, uint32_t n, struct nccl **out,
                              struct apr_gpu_err *e);
void nccl_close(struct nccl *c);
void nccl_abort(struct nccl *c);
enum apr_gpu_status nccl_sum(struct nccl *c, uint32_t i, float *x, uint64_t n, cudaStream_t s,
                             struct apr_gpu_err *e);
enum apr_gpu_status nccl_gather(struct nccl *c, uint32_t i, const float *part, uint64_t n, float *all,
                                cudaStream_t s, struct apr_gpu_err *e);

#endif

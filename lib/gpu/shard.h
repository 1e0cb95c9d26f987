/* One model over several devices (tensor parallel, as in Megatron-LM, arXiv 1909.08053): each device's share
 * of a description.
 *
 *     q, k, v, gate, up, head   rows: whole heads, whole blocks of the middle (of every expert), vocabulary
 *     o, down                   columns, cut between blocks; what the devices compute is added up
 *     k_b, v_b                  of latent attention: those of the device's heads; its cache is everywhere
 *     norms, embedding, router  all of it everywhere
 *
 * A share points into the same data; columns of a matrix have a stride. With more devices than KV heads a KV
 * head is computed by several. Biases behind a sum are the first device's alone. What cannot be shared in
 * whole heads and blocks is refused with its numbers (APR_EUNAVAIL).
 *
 *     struct apr_gpu_desc *share; TRY(apr_gpu_shard(&whole, 2, &arena, &share, e));
 */
#ifndef APR_GPU_SHARD_H
#define APR_GPU_SHARD_H

#include "../arena.h"
#include "gpu.h"

/* *out: [n_devices], in the arena; with one device the description itself. */
APR_MUST_USE enum apr_code apr_gpu_shard(const struct apr_gpu_desc *m, uint32_t n_devices,
                                         struct apr_arena *a, struct apr_gpu_desc **out, struct apr_err *e);

#endif

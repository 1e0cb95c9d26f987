/* The forward pass on a GPU: the bound weights as the plugin's description, sequences beside the caches.
 *
 * A cache stays the caller's handle for a sequence: its n_pos is the truth, its pages on the host stay
 * empty. What the plugin cannot compute is refused by name (APR_EUNAVAIL); nothing falls back to the CPU.
 *
 *     TRY(apr_offload_open(&o, "cuda:0", &fwd, model, n_ctx, e));
 *     TRY(apr_offload_run(o, &cache, ids, n, 1, logits, e)); apr_offload_close(o);
 */
#ifndef APR_INFER_OFFLOAD_H
#define APR_INFER_OFFLOAD_H

#include "cache.h"
#include "gpu/gpu.h"
#include "model.h"

struct apr_forward;
struct apr_offload;
struct apr_part;

/* device: as devices.h reads it. *o stays NULL where the CPU computes. */
APR_MUST_USE enum apr_code apr_offload_open(struct apr_offload **o, const char *device,
                                            const struct apr_forward *f, const struct apr_model *m,
                                            size_t n_ctx, struct apr_err *e);
void apr_offload_close(struct apr_offload *o); /* NULL is fine */
const char *apr_offload_name(const struct apr_offload *o);
/* Appends n tokens at cache->n_pos and advances it; logits: [n_rows, n_vocab] of the last n_rows of them. */
APR_MUST_USE enum apr_code apr_offload_run(struct apr_offload *o, struct apr_cache *cache, const int32_t *ids,
                                           size_t n, size_t n_rows, float *logits, struct apr_err *e);
/* Appends the parts' tokens in one step and advances their caches; then logits of any of its rows. */
APR_MUST_USE enum apr_code apr_offload_step(struct apr_offload *o, const struct apr_part *parts,
                                            size_t n_parts, struct apr_err *e);
APR_MUST_USE enum apr_code apr_offload_logits(struct apr_offload *o, size_t i_row, size_t n_rows,
                                              float *logits, struct apr_err *e);
#define APR_N_AHEAD 8u /* in one go: text still flows, and few tokens wait for the host */
/* How a device samples: sampler/device.h. */
struct apr_offload_draws {
    const struct apr_gpu_chain *chain; /* NULL, where several are told: greedily */
    const uint64_t *bits;              /* [n] */
};
/* Appends id and the tokens that follow it, n in all, drawn, or greedily where draws is NULL; out: what was
 * chosen after each. Ends early behind one of the stop tokens, and where the sequence turns otherwise: the
 * caller asks again. */
APR_MUST_USE enum apr_code apr_offload_ahead(struct apr_offload *o, struct apr_cache *cache, int32_t id,
                                             size_t n, const int32_t *stop, size_t n_stop,
                                             const struct apr_offload_draws *draws, int32_t *out,
                                             size_t *n_out, struct apr_err *e);
/* The same of several sequences side by side: parts of one token each; draws: [n_parts], or NULL where all go
 * on greedily; out: [n_parts, APR_N_AHEAD] chosen
 * after each, *n_out of every one, which are fewer than n where one turns otherwise. A model whose types have
 * no kernel for batches: APR_EUNAVAIL, and apr_offload_step does it. */
APR_MUST_USE enum apr_code apr_offload_ahead_rows(struct apr_offload *o, const struct apr_part *parts,
                                                  const struct apr_offload_draws *draws, size_t n_parts,
                                                  size_t n, int32_t *out, size_t *n_out, struct apr_err *e);

/* For reports: the plugin's own handles, until the next call; the sequence stands where the cache does. */
struct apr_offload_inside {
    const struct apr_gpu *gpu;
    struct apr_gpu_device *device;
    struct apr_gpu_model *model;
    struct apr_gpu_seq *seq;
};
APR_MUST_USE enum apr_code apr_offload_inside(struct apr_offload *o, const struct apr_cache *cache,
                                              struct apr_offload_inside *in, struct apr_err *e);

#endif

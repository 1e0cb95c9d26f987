/* Several devices as one: the functions of the plugin's table, which pass a call on to every device's thread.
 *
 * A handle of several devices has one of each inside (ranks); a handle of one device goes straight to the
 * code of the other files. Each device has a thread of its own that lives as long as the world; all get the
 * same calls in the same order. A call is done when all are; when one fails while others wait for it, they
 * are released (comm_abort) and the world answers no further step.
 */
#ifndef APR_WORLD_CUH
#define APR_WORLD_CUH

#include "model.cuh"

struct world; /* in apr_gpu_device: of a device that is several */

enum apr_gpu_status world_open(const uint32_t *i, uint32_t n, enum apr_gpu_link link,
                               struct apr_gpu_device **d, struct apr_gpu_err *e);
void world_close(struct apr_gpu_device *d); /* of one device, too */
bool world_is_late(const struct apr_gpu_device *d);

enum apr_gpu_status world_model_plan(struct apr_gpu_device *d, const struct apr_gpu_desc *m,
                                     const struct apr_gpu_opts *o, struct apr_gpu_plan *p,
                                     struct apr_gpu_err *e);
enum apr_gpu_status world_model_open(struct apr_gpu_device *d, const struct apr_gpu_desc *m,
                                     const struct apr_gpu_opts *o, void (*progress)(void *ctx, uint64_t n),
                                     void *ctx, struct apr_gpu_model **out, struct apr_gpu_err *e);
void world_model_close(struct apr_gpu_model *m);
enum apr_gpu_status world_seq_open(struct apr_gpu_model *m, uint32_t n_ctx, struct apr_gpu_seq **s,
                                   struct apr_gpu_err *e);
void world_seq_close(struct apr_gpu_seq *s);
uint32_t world_seq_pos(const struct apr_gpu_seq *s);
void world_seq_truncate(struct apr_gpu_seq *s, uint32_t n_pos);
void world_seq_turn(struct apr_gpu_seq *s, bool is_long);
enum apr_gpu_status world_forward(struct apr_gpu_model *m, struct apr_gpu_seq *s, const int32_t *ids,
                                  uint32_t n, uint32_t n_rows, float *logits, struct apr_gpu_err *e);
enum apr_gpu_status world_greedy(struct apr_gpu_model *m, struct apr_gpu_seq *s, int32_t id, uint32_t n,
                                 const int32_t *stop, uint32_t n_stop, int32_t *out, uint32_t *n_out,
                                 struct apr_gpu_err *e);
enum apr_gpu_status world_sample(struct apr_gpu_model *m, struct apr_gpu_seq *s,
                                 const struct apr_gpu_chain *chain, const uint64_t *bits, int32_t id,
                                 uint32_t n, const int32_t *stop, uint32_t n_stop, int32_t *out,
                                 uint32_t *n_out, struct apr_gpu_err *e);
enum apr_gpu_status world_choose(struct apr_gpu_device *d, const struct apr_gpu_chain *chains,
                                 const uint64_t *bits, const float *logits, uint32_t n_rows, uint32_t n_vocab,
                                 int32_t *out, double *s, struct apr_gpu_err *e);
enum apr_gpu_status world_step(struct apr_gpu_model *m, const struct apr_gpu_part *parts, uint32_t n_parts,
                               struct apr_gpu_err *e);
enum apr_gpu_status world_logits(struct apr_gpu_model *m, uint32_t i_row, uint32_t n_rows, float *logits,
                                 struct apr_gpu_err *e);
enum apr_gpu_status world_greedy_rows(struct apr_gpu_model *m, struct apr_gpu_seq *const *seqs,
                                      const int32_t *ids, uint32_t n_seqs, uint32_t n, int32_t *out,
                                      struct apr_gpu_err *e);
enum apr_gpu_status world_sample_rows(struct apr_gpu_model *m, struct apr_gpu_seq *const *seqs,
                                      const struct apr_gpu_chain *chains, const uint64_t *bits,
                                      const int32_t *ids, uint32_t n_seqs, uint32_t n, int32_t *out,
                                      struct apr_gpu_err *e);
enum apr_gpu_status world_profile(struct apr_gpu_model *m, const struct apr_gpu_part *parts, uint32_t n_parts,
                                  struct apr_gpu_time *out, uint32_t *n, struct apr_gpu_err *e);
enum apr_gpu_status world_hidden(struct apr_gpu_model *m, const struct apr_gpu_part *part, float *out,
                                 struct apr_gpu_err *e);
enum apr_gpu_status world_unpack(struct apr_gpu_device *d, const struct apr_gpu_mat *w, float *rows,
                                 struct apr_gpu_err *e);
enum apr_gpu_status world_bandwidth(struct apr_gpu_device *d, double *bytes_per_s, struct apr_gpu_err *e);
enum apr_gpu_status world_launch_cost(struct apr_gpu_device *d, uint32_t n, double *s, struct apr_gpu_err *e);
enum apr_gpu_status world_fault(struct apr_gpu_device *d, enum apr_gpu_fault what, struct apr_gpu_err *e);

/* ---- world.cu for world_calls.cu ---- */
/* What device i of a world does for a call. */
typedef enum apr_gpu_status rank_fn(uint32_t i, void *ctx, struct apr_gpu_err *e);
/* By all threads. is_step: they must stay alike, and after different answers the world is broken. */
enum apr_gpu_status world_ask(struct world *w, rank_fn *fn, void *ctx, bool is_step, struct apr_gpu_err *e);
uint32_t world_size(const struct world *w);
struct apr_gpu_device *world_device(const struct world *w, uint32_t i);

/* ---- plugin.cu for world.cu ---- */
enum apr_gpu_status device_open(uint32_t i, struct apr_gpu_device **out, struct apr_gpu_err *e);
void device_close(struct apr_gpu_device *d);
enum apr_gpu_status device_count(uint32_t *n, struct apr_gpu_err *e);
enum apr_gpu_status unpack(struct apr_gpu_device *d, const struct apr_gpu_mat *w, float *rows,
                           struct apr_gpu_err *e);
enum apr_gpu_status bandwidth(struct apr_gpu_device *d, double *bytes_per_s, struct apr_gpu_err *e);

#endif

/* What the tests of hazards share: the device, models on it, and how far rows of logits are apart.
 *
 *     struct rig r; rig_open(&r); struct apr_gpu_model *m = rig_model(&r, &toy, &(struct apr_gpu_opts){...});
 *     rig_feed(&r, m, q, ids, n, 1, logits); rig_far(&r, logits, reference, n_vocab) <= 1e-2
 */
#ifndef APR_TEST_GPU_RIG_H
#define APR_TEST_GPU_RIG_H

#include "toy.h"

struct rig {
    const struct apr_gpu *g;
    struct apr_gpu_device *dev;
    struct apr_gpu_err e;
    char note[200]; /* what was measured: printed behind the result */
};

/* A test, once as it is and once with a planted fault that it must notice. */
typedef bool hazard_fn(struct rig *r, bool bad);

void rig_must(const struct rig *r, enum apr_gpu_status s, const char *what); /* or the program ends */
void rig_note(struct rig *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
struct apr_gpu_model *rig_model(struct rig *r, const struct toy *t, bool exact, uint32_t n_ctx);
struct apr_gpu_seq *rig_seq(struct rig *r, struct apr_gpu_model *m, uint32_t n_ctx);
/* n tokens, n_step at a time; logits of the last: [n_vocab], or NULL. */
enum apr_gpu_status rig_try(struct rig *r, struct apr_gpu_model *m, struct apr_gpu_seq *q, const int32_t *ids,
                            uint32_t n, uint32_t n_step, float *logits);
void rig_feed(struct rig *r, struct apr_gpu_model *m, struct apr_gpu_seq *q, const int32_t *ids, uint32_t n,
              uint32_t n_step, float *logits);
int32_t *rig_ids(uint32_t n, uint32_t n_vocab); /* drawn; the caller frees */
float *rig_floats(size_t n);
double *rig_doubles(size_t n);
/* rms of the difference over rms of the reference; infinite where x is not finite */
double rig_far(const float *x, const double *reference, size_t n);
double rig_now(void);

hazard_fn hazard_k_bias, hazard_k_type, hazard_spikes, hazard_splits, hazard_blocks, hazard_contexts,
    hazard_windows, hazard_replay, hazard_overlap, hazard_counters, hazard_hang, hazard_neighbour,
    hazard_same, hazard_ties, hazard_sample, hazard_ahead, hazard_ahead_rows, hazard_unpack, hazard_types,
    hazard_kl, hazard_nan, hazard_memory, hazard_eviction, hazard_lost;
int rig_hold(struct rig *r);                    /* the neighbour: keeps the device busy */
int rig_alive(struct rig *r);                   /* writes the tokens that it chooses */
int rig_small(struct rig *r, const char *type); /* two layers in every way; NULL: all types and exact mode */

#endif

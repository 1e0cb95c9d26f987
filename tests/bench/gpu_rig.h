/* What the measurements of the GPU plugin work on: random weights of real and small shapes, and the devices
 * that were asked for. Everything lives until the process ends, and what fails ends it (exit 9).
 *
 *     argv = bench_options(&argc, argv); dev = bench_devices(g);
 *     bench_model(&bench_shapes[0], "q4_k_m", &d); g->model_open(dev, bench_shares(&d), ...);
 */
#ifndef APR_BENCH_GPU_RIG_H
#define APR_BENCH_GPU_RIG_H

#include "gpu/gpu.h"

struct bench_shape {
    const char *name;
    uint32_t n_layers, n_hidden, n_heads, n_heads_kv, head_dim, n_inter, n_vocab;
    bool tied;
};
enum { BENCH_7B, BENCH_1_5B, BENCH_0_5B, BENCH_SMALL, BENCH_ODD, BENCH_PAIR, BENCH_SHAPES };
extern const struct bench_shape bench_shapes[BENCH_SHAPES];

extern struct bench_on {
    bool is_world; /* asked for by -d */
    uint32_t n, i[APR_GPU_DEVICES];
    enum apr_gpu_link link;
} bench_on;
char **bench_options(int *argc, char **argv); /* -d LIST, -l LINK; the words behind them */
struct apr_gpu_device *bench_devices(const struct apr_gpu *g);
const struct apr_gpu_desc *bench_shares(const struct apr_gpu_desc *d); /* a description for each device */

void bench_model(const struct bench_shape *s, const char *recipe, struct apr_gpu_desc *d);
extern uint64_t bench_weight_bytes; /* of all models so far, what a token reads */

uint64_t bench_next(void); /* random */
double bench_now(void);    /* seconds */
void bench_must(enum apr_gpu_status s, const struct apr_gpu_err *e, const char *what);

#endif

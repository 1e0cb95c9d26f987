/* What the measurements of the GPU plugin work on. See gpu_rig.h. */
#include "gpu_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gpu/shard.h"
#include "quant/quant.h"

const struct bench_shape bench_shapes[BENCH_SHAPES] = {
    {"7b", 28, 3584, 28, 4, 128, 18944, 152064, false}, {"1.5b", 28, 1536, 12, 2, 128, 8960, 151936, true},
    {"0.5b", 24, 896, 14, 2, 64, 4864, 151936, true},   {"small", 2, 1792, 28, 4, 64, 2816, 4099, false},
    {"odd", 3, 320, 5, 1, 64, 672, 1000, true},         {"pair", 2, 1024, 8, 2, 128, 2816, 4099, true}};

static uint64_t state = 0x9e3779b97f4a7c15u;
uint64_t bench_next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}
double bench_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
void bench_must(enum apr_gpu_status s, const struct apr_gpu_err *e, const char *what)
{
    if (s == APR_GPU_OK) return;
    fprintf(stderr, "bench_gpu: %s: %s\n", what, e->text);
    exit(9);
}

/* ---- which devices ----------------------------------------------------------------------------------------
 */

struct bench_on bench_on = {.n = 1};

struct apr_gpu_device *bench_devices(const struct apr_gpu *g)
{
    struct apr_gpu_err e;
    struct apr_gpu_device *d;
    bench_must(bench_on.is_world ? g->devices_open(bench_on.i, bench_on.n, bench_on.link, &d, &e)
                                 : g->device_open(bench_on.i[0], &d, &e),
               &e, "device");
    return d;
}
const struct apr_gpu_desc *bench_shares(const struct apr_gpu_desc *d)
{
    static struct apr_arena arena;
    struct apr_gpu_desc *all;
    struct apr_err e;
    if (apr_gpu_shard(d, bench_on.n, &arena, &all, &e) == APR_OK) return all;
    fprintf(stderr, "bench_gpu: %s\n", e.text);
    exit(9);
}

char **bench_options(int *argc, char **argv)
{
    static const char *const links[] = {"any", "nccl", "same"};
    for (; *argc > 2 && argv[1][0] == '-'; *argc -= 2, argv += 2) {
        char *p = argv[2];
        if (argv[1][1] == 'd')
            for (bench_on.n = 0, bench_on.is_world = true; bench_on.n < APR_GPU_DEVICES && *p; p += *p == ',')
                bench_on.i[bench_on.n++] = (uint32_t)strtoul(p, &p, 10);
        for (size_t i = 0; argv[1][1] == 'l' && i < 3; i++)
            if (!strcmp(argv[2], links[i])) bench_on.link = (enum apr_gpu_link)i;
    }
    return argv;
}

uint64_t bench_weight_bytes;

static struct apr_gpu_mat random_mat(uint32_t type, uint32_t n_rows, uint32_t n_cols, bool streamed)
{
    const struct apr_quant *q = apr_quant_of((enum apr_type)type);
    uint64_t row_bytes = (uint64_t)n_cols / q->block_elems * q->block_bytes, n_bytes = row_bytes * n_rows;
    uint8_t *p = malloc(n_bytes + 8);
    if (!p) exit(6);
    const bool halves = type == APR_BF16; /* whose exponents keep sums finite */
    for (uint64_t i = 0; i < n_bytes; i += 8) {
        uint64_t v = bench_next();
        if (halves) v = (v & 0x80ff80ff80ff80ffu) | 0x3c003c003c003c00u;
        memcpy(p + i, &v, 8);
    }
    for (uint64_t i = 0; !halves && i < n_bytes; i += q->block_bytes) { /* and scales that do */
        static const uint8_t small[4] = {0x20, 0x05, 0x40, 0x10}, smaller[2] = {0x10, 0x02};
        if (type == APR_Q4_K) memcpy(p + i, small, 4);
        if (type == APR_Q6_K) memcpy(p + i + 208, smaller, 2);
        if (type == APR_Q8_0) memcpy(p + i, small, 2);
    }
    if (streamed) bench_weight_bytes += n_bytes;
    return (struct apr_gpu_mat){p, row_bytes, type, n_rows, n_cols, NULL, 0};
}
static float *ones(uint32_t n)
{
    float *p = malloc(n * sizeof *p);
    for (uint32_t i = 0; p && i < n; i++) p[i] = 1;
    return p;
}

static bool more_bits(uint32_t i, uint32_t n)
{
    return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

void bench_model(const struct bench_shape *s, const char *recipe, struct apr_gpu_desc *d)
{
    struct apr_gpu_layer *l = calloc(s->n_layers, sizeof *l);
    double *inv_freq = malloc(s->head_dim / 2 * sizeof *inv_freq);
    bool mix = !strcmp(recipe, "q4_k_m");
    uint32_t type = mix ? APR_Q4_K : !strcmp(recipe, "q8_0") ? APR_Q8_0 : APR_BF16;
    if (!l || !inv_freq) exit(6);
    for (uint32_t i = 0; i < s->head_dim / 2; i++) inv_freq[i] = 1.0 / (1 + (double)i * (double)i * 10);
    for (uint32_t i = 0; i < s->n_layers; i++) {
        uint32_t big = mix && more_bits(i, s->n_layers) ? APR_Q6_K : type, n_q = s->n_heads * s->head_dim,
                 n_kv = s->n_heads_kv * s->head_dim;
        l[i].q = random_mat(type, n_q, s->n_hidden, true);
        l[i].k = random_mat(type, n_kv, s->n_hidden, true);
        l[i].v = random_mat(big, n_kv, s->n_hidden, true);
        l[i].o = random_mat(type, s->n_hidden, n_q, true);
        l[i].gate = random_mat(type, s->n_inter, s->n_hidden, true);
        l[i].up = random_mat(type, s->n_inter, s->n_hidden, true);
        l[i].down = random_mat(big, s->n_hidden, s->n_inter, true);
        l[i].q.bias = ones(n_q), l[i].k.bias = ones(n_kv), l[i].v.bias = ones(n_kv);
        l[i].attn_norm.w = ones(s->n_hidden), l[i].ffn_norm.w = ones(s->n_hidden);
    }
    *d = (struct apr_gpu_desc){.struct_bytes = sizeof *d,
                               .n_layers = s->n_layers,
                               .n_hidden = s->n_hidden,
                               .n_heads = s->n_heads,
                               .n_heads_kv = s->n_heads_kv,
                               .head_dim = s->head_dim,
                               .n_inter = s->n_inter,
                               .n_vocab = s->n_vocab,
                               .norm_eps = 1e-6,
                               .embed_scale = 1,
                               .residual_scale = 1,
                               .attn_scale = 0.088388f,
                               .logit_scale = 1,
                               .ropes = {{.inv_freq = inv_freq, .n_half = s->head_dim / 2, .scale = 1}},
                               .head = random_mat(mix ? APR_Q6_K : type, s->n_vocab, s->n_hidden, true),
                               .final_norm = {ones(s->n_hidden), NULL},
                               .layers = l};
    d->embed = s->tied ? d->head : random_mat(type, s->n_vocab, s->n_hidden, false);
}

/* bench_gpu [7b|1.5b] [q4_k_m|q8_0|bf16] [resident]: the GPU plugin alone, on random weights of a real shape.
 *
 * No model file is needed: blocks are random bits with small scales. Prints a line a measurement: name,
 * value, unit, and for decoding the share of the memory's read bandwidth. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gpu/load.h"
#include "quant/quant.h"

struct shape {
    const char *name;
    uint32_t n_layers, n_hidden, n_heads, n_heads_kv, head_dim, n_inter, n_vocab;
    bool tied;
};
static const struct shape shapes[] = {{"7b", 28, 3584, 28, 4, 128, 18944, 152064, false},
                                      {"1.5b", 28, 1536, 12, 2, 128, 8960, 151936, true},
                                      {"0.5b", 24, 896, 14, 2, 64, 4864, 151936, true}};
#define N_CTX 20480u

static uint64_t state = 0x9e3779b97f4a7c15u;
static uint64_t next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
static void check(enum apr_gpu_status s, const struct apr_gpu_err *e, const char *what)
{
    if (s == APR_GPU_OK) return;
    fprintf(stderr, "bench_gpu: %s: %s\n", what, e->text);
    exit(9);
}

static uint64_t n_weight_bytes;

static struct apr_gpu_mat random_mat(uint32_t type, uint32_t n_rows, uint32_t n_cols, bool streamed)
{
    const struct apr_quant *q = apr_quant_of((enum apr_type)type);
    uint64_t row_bytes = (uint64_t)n_cols / q->block_elems * q->block_bytes, n_bytes = row_bytes * n_rows;
    uint8_t *p = malloc(n_bytes + 8);
    if (!p) exit(6);
    for (uint64_t i = 0; i < n_bytes; i += 8) {
        uint64_t v = next();
        memcpy(p + i, &v, 8);
    }
    for (uint64_t i = 0; i < n_bytes; i += q->block_bytes) { /* scales that keep sums finite */
        static const uint8_t small[4] = {0x20, 0x05, 0x40, 0x10}, smaller[2] = {0x10, 0x02};
        if (type == APR_Q4_K) memcpy(p + i, small, 4);
        if (type == APR_Q6_K) memcpy(p + i + 208, smaller, 2);
        if (type == APR_Q8_0) memcpy(p + i, small, 2);
        if (type == APR_BF16) p[i + 1] = (uint8_t)((p[i + 1] & 0x80) | 0x3c);
    }
    if (streamed) n_weight_bytes += n_bytes;
    return (struct apr_gpu_mat){p, row_bytes, type, n_rows, n_cols, NULL};
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

static void random_model(const struct shape *s, const char *recipe, struct apr_gpu_desc *d)
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
        l[i].attn_norm = ones(s->n_hidden), l[i].ffn_norm = ones(s->n_hidden);
    }
    *d = (struct apr_gpu_desc){sizeof *d,
                               s->n_layers,
                               s->n_hidden,
                               s->n_heads,
                               s->n_heads_kv,
                               s->head_dim,
                               s->n_inter,
                               s->n_vocab,
                               1e-6,
                               1.0f,
                               0.088388f,
                               false,
                               inv_freq,
                               1.0f,
                               {0},
                               random_mat(mix ? APR_Q6_K : type, s->n_vocab, s->n_hidden, true),
                               ones(s->n_hidden),
                               l};
    d->embed = s->tied ? d->head : random_mat(type, s->n_vocab, s->n_hidden, false);
}

struct run {
    const struct apr_gpu *g;
    struct apr_gpu_model *m;
    const struct shape *s;
    double bandwidth;
    bool resident;
};

static void decode(const struct run *r, uint32_t depth)
{
    struct apr_gpu_seq *q;
    struct apr_gpu_err e;
    static int32_t ids[N_CTX], out[N_CTX];
    const uint32_t n = 128;
    uint32_t n_out;
    double best = 1e9, all[5];
    check(r->g->seq_open(r->m, N_CTX, &q, &e), &e, "sequence");
    for (uint32_t i = 0; i < depth; i++) ids[i] = (int32_t)(next() % r->s->n_vocab);
    if (depth) check(r->g->forward(r->m, q, ids, depth, 0, NULL, &e), &e, "prompt");
    check(r->g->greedy(r->m, q, 7, 16, NULL, 0, out, &n_out, &e), &e, "warm-up");
    for (int i = 0; i < 5; i++) {
        r->g->seq_truncate(q, depth);
        double t = now();
        check(r->g->greedy(r->m, q, 7, n, NULL, 0, out, &n_out, &e), &e, "decode");
        all[i] = (now() - t) / n;
        if (all[i] < best) best = all[i];
    }
    const uint32_t n_mean = depth + n / 2; /* positions that a token sees, on average */
    double n_bytes =
        (double)n_weight_bytes + 4.0 * r->s->n_layers * r->s->n_heads_kv * r->s->head_dim * n_mean;
    printf("decode_d%u %.1f tok/s (%.1f at worst), %.1f %% of the read bandwidth\n", depth, 1 / best,
           1 / (all[0] > all[4] ? all[0] : all[4]), 100 * n_bytes / best / r->bandwidth);
    r->g->seq_close(q);
}

static void prompt(const struct run *r, uint32_t n)
{
    struct apr_gpu_seq *q;
    struct apr_gpu_err e;
    static int32_t ids[N_CTX];
    float *logits = malloc(r->s->n_vocab * sizeof *logits);
    double best = 1e9;
    check(r->g->seq_open(r->m, N_CTX, &q, &e), &e, "sequence");
    for (uint32_t i = 0; i < n; i++) ids[i] = (int32_t)(next() % r->s->n_vocab);
    for (int i = 0; i < 6; i++) {
        r->g->seq_truncate(q, 0);
        double t = now();
        check(r->g->forward(r->m, q, ids, n, 1, logits, &e), &e, "prompt");
        t = now() - t;
        if (i && t < best) best = t;
    }
    printf("pp%u%s %.0f tok/s, %.2f ms\n", n, r->resident ? "_resident" : "", n / best, 1e3 * best);
    free(logits);
    r->g->seq_close(q);
}

static void measure(struct run *r, struct apr_gpu_device *dev, const struct apr_gpu_desc *d, bool resident)
{
    struct apr_gpu_err e;
    struct apr_gpu_plan p;
    const struct apr_gpu_opts o = {false, resident, N_CTX, 2048};
    r->resident = resident;
    check(r->g->model_plan(dev, d, &o, &p, &e), &e, "plan");
    double t = now();
    check(r->g->model_open(dev, d, &o, NULL, NULL, &r->m, &e), &e, "model");
    printf("load %.2f s; memory MiB: weights %.0f resident %.0f cache %.0f work %.0f\n", now() - t,
           (double)p.weights / 1048576, (double)p.resident / 1048576, (double)p.cache / 1048576,
           (double)p.work / 1048576);
    if (!resident) {
        static const uint32_t depths[] = {0, 1024, 4096, 16384};
        for (size_t i = 0; i < 4; i++) decode(r, depths[i]);
    }
    prompt(r, 512);
    prompt(r, 2048);
    r->g->model_close(r->m);
}

int main(int argc, char **argv)
{
    const struct shape *s = &shapes[0];
    const char *recipe = argc > 2 ? argv[2] : "q4_k_m";
    struct run r = {0};
    struct apr_err err;
    struct apr_gpu_err e;
    struct apr_gpu_device *dev;
    struct apr_gpu_desc d;
    for (size_t i = 0; argc > 1 && i < sizeof shapes / sizeof *shapes; i++)
        if (!strcmp(argv[1], shapes[i].name)) s = &shapes[i];
    if (apr_gpu_load(&r.g, &err) != APR_OK) return fprintf(stderr, "bench_gpu: %s\n", err.text), 9;
    check(r.g->device_open(0, &dev, &e), &e, "device");
    check(r.g->bandwidth(dev, &r.bandwidth, &e), &e, "bandwidth");
    printf("%s\nshape %s, %s\nread bandwidth %.0f GB/s\n", r.g->device_name(dev), s->name, recipe,
           r.bandwidth * 1e-9);
    random_model(s, recipe, &d);
    r.s = s;
    measure(&r, dev, &d, false);
    if (argc > 3) measure(&r, dev, &d, true);
    r.g->device_close(dev);
    return 0;
}

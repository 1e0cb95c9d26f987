/* bench_gpu [-d 0,1] [-l any|nccl|same] [7b|1.5b|0.5b] [q4_k_m|q8_0|bf16] [resident]
 * [one|batch|times|prompt]: the GPU plugin alone, on random weights of a real shape; the last word: only
 * these measurements. bench_gpu check [odd]: small shapes, every way of computing a step against the
 * reference mode; exit 1 when one misses its bound. With -d one model is on all of these devices (one is
 * fine), and check compares them with the first of them alone; bench_gpu -d 0,1 fault: what becomes of the
 * others when the last one fails. -l: how they are linked (enum apr_gpu_link).
 *
 * No model file is needed: blocks are random bits with small scales. Prints a line a measurement: name,
 * value, unit, and for decoding the share of the memory's read bandwidth. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gpu/load.h"
#include "gpu/shard.h"
#include "quant/quant.h"

struct shape {
    const char *name;
    uint32_t n_layers, n_hidden, n_heads, n_heads_kv, head_dim, n_inter, n_vocab;
    bool tied;
};
static const struct shape shapes[] = {
    {"7b", 28, 3584, 28, 4, 128, 18944, 152064, false}, {"1.5b", 28, 1536, 12, 2, 128, 8960, 151936, true},
    {"0.5b", 24, 896, 14, 2, 64, 4864, 151936, true},   {"small", 2, 1792, 28, 4, 64, 2816, 4099, false},
    {"odd", 3, 320, 5, 1, 64, 672, 1000, true},         {"pair", 2, 1024, 8, 2, 128, 2816, 4099, true}};
#define N_CTX 36864u

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

/* ---- which devices ----------------------------------------------------------------------------------------
 */

static struct {
    bool is_world; /* asked for by -d */
    uint32_t n, i[APR_GPU_DEVICES];
    enum apr_gpu_link link;
} on = {.n = 1};

static struct apr_gpu_device *open_devices(const struct apr_gpu *g)
{
    struct apr_gpu_err e;
    struct apr_gpu_device *d;
    check(on.is_world ? g->devices_open(on.i, on.n, on.link, &d, &e) : g->device_open(on.i[0], &d, &e), &e,
          "device");
    return d;
}
/* A description for each device. */
static const struct apr_gpu_desc *shares(const struct apr_gpu_desc *d)
{
    static struct apr_arena arena;
    struct apr_gpu_desc *all;
    struct apr_err e;
    if (apr_gpu_shard(d, on.n, &arena, &all, &e) == APR_OK) return all;
    fprintf(stderr, "bench_gpu: %s\n", e.text);
    exit(9);
}

/* -d LIST, -l LINK; the words behind them. */
static char **take_options(int *argc, char **argv)
{
    static const char *const links[] = {"any", "nccl", "same"};
    for (; *argc > 2 && argv[1][0] == '-'; *argc -= 2, argv += 2) {
        char *p = argv[2];
        if (argv[1][1] == 'd')
            for (on.n = 0, on.is_world = true; on.n < APR_GPU_DEVICES && *p; p += *p == ',')
                on.i[on.n++] = (uint32_t)strtoul(p, &p, 10);
        for (size_t i = 0; argv[1][1] == 'l' && i < 3; i++)
            if (!strcmp(argv[2], links[i])) on.link = (enum apr_gpu_link)i;
    }
    return argv;
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
                               .ropes = {{inv_freq, s->head_dim / 2, 1}},
                               .head = random_mat(mix ? APR_Q6_K : type, s->n_vocab, s->n_hidden, true),
                               .final_norm = {ones(s->n_hidden), NULL},
                               .layers = l};
    d->embed = s->tied ? d->head : random_mat(type, s->n_vocab, s->n_hidden, false);
}

struct run {
    const struct apr_gpu *g;
    struct apr_gpu_model *m;
    const struct shape *s;
    double bandwidth;
    bool resident;
    const char *only;
};
static bool wanted(const struct run *r, const char *what)
{
    return !*r->only || !strcmp(r->only, what);
}

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

/* n_seqs sequences of depth positions each, 64 tokens more of every one. */
static void batch(const struct run *r, uint32_t n_seqs, uint32_t depth)
{
    struct apr_gpu_seq *q[APR_GPU_ROWS];
    struct apr_gpu_err e;
    const uint32_t n = 64;
    static int32_t ids[N_CTX], first[APR_GPU_ROWS], out[APR_GPU_ROWS * 64];
    double best = 1e9;
    for (uint32_t i = 0; i < depth; i++) ids[i] = (int32_t)(next() % r->s->n_vocab);
    for (uint32_t i = 0; i < n_seqs; i++) {
        check(r->g->seq_open(r->m, depth + n, &q[i], &e), &e, "sequence");
        check(r->g->forward(r->m, q[i], ids, depth, 0, NULL, &e), &e, "prompt");
        first[i] = (int32_t)(next() % r->s->n_vocab);
    }
    for (int i = 0; i < 4; i++) {
        for (uint32_t k = 0; k < n_seqs; k++) r->g->seq_truncate(q[k], depth);
        double t = now();
        check(r->g->greedy_rows(r->m, q, first, n_seqs, n, out, &e), &e, "batch");
        t = now() - t;
        if (i && t < best) best = t;
    }
    double n_bytes = (double)n_weight_bytes +
                     4.0 * r->s->n_layers * r->s->n_heads_kv * r->s->head_dim * (depth + n / 2.0) * n_seqs;
    printf("batch%u %.1f tok/s, %.3f ms a step, %.1f %% of the read bandwidth\n", n_seqs, n_seqs * n / best,
           1e3 * best / n, 100 * n_bytes / (best / n) / r->bandwidth);
    for (uint32_t i = 0; i < n_seqs; i++) r->g->seq_close(q[i]);
}

/* One step launch by launch, launches of one name together. */
static void times(const struct run *r, uint32_t n_seqs, uint32_t depth)
{
    static struct apr_gpu_time t[2048];
    static int32_t ids[N_CTX];
    struct apr_gpu_seq *q[APR_GPU_ROWS];
    struct apr_gpu_part parts[APR_GPU_ROWS];
    struct apr_gpu_err e;
    uint32_t n = 2048;
    double all = 0;
    for (uint32_t i = 0; i < depth; i++) ids[i] = (int32_t)(next() % r->s->n_vocab);
    for (uint32_t i = 0; i < n_seqs; i++) {
        check(r->g->seq_open(r->m, depth + 16, &q[i], &e), &e, "sequence");
        if (depth) check(r->g->forward(r->m, q[i], ids, depth, 0, NULL, &e), &e, "prompt");
        parts[i] = (struct apr_gpu_part){q[i], &ids[i], 1};
    }
    check(r->g->profile(r->m, parts, n_seqs, t, &n, &e), &e, "profile");
    for (uint32_t i = 0; i < n; i++) all += t[i].s;
    printf("times of %u at %u: %u launches, %.0f us:", n_seqs, depth, n, 1e6 * all);
    for (uint32_t i = 0; i < n; i++) {
        double sum = 0;
        uint32_t k = 0;
        for (uint32_t j = 0; j < n; j++)
            if (!strcmp(t[i].what, t[j].what)) sum += j < i ? -1e9 : t[j].s, k++;
        if (sum >= 0) printf(" %s %u x %.2f;", t[i].what, k, 1e6 * sum / k);
    }
    puts("");
    for (uint32_t i = 0; i < n; i++) /* the first layer as it was launched */
        if (t[i].layer <= 0)
            printf(
                "  %s:%u layer %d %s: %u x %s grid %u %u %u block %u %u %u, %u B shared, %u registers, %u B "
                "local, occupancy %.2f, %.2f us, %.0f GB/s\n",
                t[i].file, t[i].line, t[i].layer, t[i].what, t[i].n_kernels, t[i].kernel, t[i].grid[0],
                t[i].grid[1], t[i].grid[2], t[i].block[0], t[i].block[1], t[i].block[2], t[i].smem_bytes,
                t[i].n_regs, t[i].local_bytes, t[i].occupancy, 1e6 * t[i].s,
                1e-9 * (double)t[i].n_bytes / t[i].s);
    for (uint32_t i = 0; i < n_seqs; i++) r->g->seq_close(q[i]);
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
    const struct apr_gpu_opts o = {false, resident, N_CTX, 2048, 0};
    r->resident = resident;
    const struct apr_gpu_opts o4k = {false, resident, 4096, 2048, 0};
    d = shares(d);
    check(r->g->model_plan(dev, d, &o4k, &p, &e), &e, "plan");
    if (!resident) printf("vram_4k %.0f MiB at 4096 positions\n", (double)p.total / 1048576);
    check(r->g->model_plan(dev, d, &o, &p, &e), &e, "plan");
    double t = now();
    check(r->g->model_open(dev, d, &o, NULL, NULL, &r->m, &e), &e, "model");
    printf("load %.2f s; memory MiB: weights %.0f resident %.0f cache %.0f work %.0f\n", now() - t,
           (double)p.weights / 1048576, (double)p.resident / 1048576, (double)p.cache / 1048576,
           (double)p.work / 1048576);
    if (!resident) {
        static const uint32_t depths[] = {0, 1024, 4096, 16384};
        static const uint32_t batches[] = {2, 4, 8, 16, 32, 64};
        for (size_t i = 0; i < 4 && wanted(r, "one"); i++) decode(r, depths[i]);
        for (size_t i = 0; i < 6 && wanted(r, "batch"); i++)
            if (batches[i] * 1088 <= o.n_ctx) batch(r, batches[i], 1024);
    }
    if (!resident && wanted(r, "times"))
        times(r, 1, 128), times(r, 1, 4096), times(r, 1, 16384), times(r, 8, 1024), times(r, 32, 1024);
    if (wanted(r, "prompt")) prompt(r, 512), prompt(r, 2048);
    r->g->model_close(r->m);
}

/* ---- every way against the reference ----------------------------------------------------------------------
 */

#define N_CHECK 72 /* sequences */
struct pair {
    const struct apr_gpu *g;
    const struct shape *s;
    struct apr_gpu_model *m[2]; /* reference, default */
    struct apr_gpu_seq *q[2][N_CHECK];
    float *logits[2];
    double limit; /* of the difference's rms in that of the logits */
    bool bad;
};

/* One step of both; every row of the default one against the reference's. */
static void compare(struct pair *p, const uint32_t *n, uint32_t n_parts, const char *what)
{
    struct apr_gpu_err e;
    static int32_t ids[4096];
    struct apr_gpu_part parts[2][N_CHECK];
    uint32_t n_rows = 0;
    for (uint32_t i = 0; i < n_parts; i++) {
        for (uint32_t k = 0; k < n[i]; k++) ids[n_rows + k] = (int32_t)(next() % p->s->n_vocab);
        for (int w = 0; w < 2; w++) parts[w][i] = (struct apr_gpu_part){p->q[w][i], ids + n_rows, n[i]};
        n_rows += n[i];
    }
    for (int w = 0; w < 2; w++) {
        check(p->g->step(p->m[w], parts[w], n_parts, &e), &e, what);
        check(p->g->logits(p->m[w], 0, n_rows, p->logits[w], &e), &e, what);
    }
    double sum = 0, off = 0, worst = 0, kl = 0;
    for (uint32_t r = 0; r < n_rows; r++) {
        const float *x = p->logits[0] + (size_t)r * p->s->n_vocab,
                    *y = p->logits[1] + (size_t)r * p->s->n_vocab;
        double row_sum = 0, row_off = 0, zx = 0, zy = 0, d = 0;
        for (uint32_t i = 0; i < p->s->n_vocab; i++) {
            row_sum += (double)x[i] * x[i], row_off += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
            zx += exp(x[i]), zy += exp(y[i]);
        }
        for (uint32_t i = 0; i < p->s->n_vocab; i++)
            d += exp(x[i]) / zx * ((double)x[i] - y[i] - log(zx) + log(zy));
        sum += row_sum, off += row_off, kl += d / n_rows;
        double row = sqrt(row_off / row_sum);
        if (!(row <= worst)) worst = row;
    }
    bool ok = sqrt(off / sum) <= p->limit && worst <= 10.0 / 3 * p->limit;
    p->bad |= !ok;
    printf("%s %-28s rms of the difference %.2e (worst row %.2e), KL %.2e: %s\n", p->s->name, what,
           sqrt(off / sum), worst, kl, ok ? "ok" : "MISSED");
}

static void truncate_all(struct pair *p, uint32_t step)
{
    for (int w = 0; w < 2; w++)
        for (uint32_t i = 0; i < N_CHECK; i++)
            p->g->seq_truncate(p->q[w][i], i * step < p->g->seq_pos(p->q[w][i]) ? i * step : 0);
}

static void compare_all(struct pair *p)
{
    static const uint32_t batches[] = {1, 2, 3, 8, 9, 16, 17, 32, 33, 63, 64, 65, 72},
                          mixed[] = {1, 7, 1, 20, 3}, big[] = {1, 300, 2, 1, 65};
    uint32_t n[N_CHECK];
    char what[40];
    for (uint32_t i = 0; i < N_CHECK; i++) n[i] = i % 24 + 1;
    compare(p, n, N_CHECK, "prompts of 1 to 24");
    for (uint32_t i = 0; i < N_CHECK; i++) n[i] = 1;
    for (size_t i = 0; i < sizeof batches / sizeof *batches; i++) {
        snprintf(what, sizeof what, "one token of %u", batches[i]);
        compare(p, n, batches[i], what);
    }
    compare(p, mixed, 5, "mixed, 32 tokens");
    compare(p, big, 5, "mixed, 369 tokens");
    compare(p, n, 5, "one token of 5, long and short");
    for (uint32_t k = 2; k <= 64; k *= 2) {
        n[0] = k;
        snprintf(what, sizeof what, "%u tokens of one", k);
        compare(p, n, 1, what);
    }
    n[0] = 1;
    truncate_all(p, 1);
    compare(p, n, 64, "one of 64 at 0, 1, 2, ... 63");
}

/* Tokens chosen on the device for many sequences at once: the same 20 times, and those of the logits. */
static void compare_greedy(struct pair *p)
{
    struct apr_gpu_err e;
    enum { N = 11, STEPS = 40 };
    static int32_t first[N], out[21][N * STEPS];
    uint32_t n_same = 0, n_right = 0;
    for (int k = 0; k < 21; k++) {
        for (uint32_t i = 0; i < N; i++) p->g->seq_truncate(p->q[1][i], i), first[i] = (int32_t)(17 * i + 3);
        check(p->g->greedy_rows(p->m[1], p->q[1], first, N, STEPS, out[k], &e), &e, "greedy");
        n_same += !memcmp(out[k], out[0], sizeof out[0]);
    }
    for (uint32_t i = 0; i < N; i++) p->g->seq_truncate(p->q[1][i], i);
    for (uint32_t t = 0; t < STEPS; t++) {
        struct apr_gpu_part parts[N];
        for (uint32_t i = 0; i < N; i++)
            parts[i] = (struct apr_gpu_part){p->q[1][i], t ? &out[0][i * STEPS + t - 1] : &first[i], 1};
        check(p->g->step(p->m[1], parts, N, &e), &e, "greedy");
        check(p->g->logits(p->m[1], 0, N, p->logits[1], &e), &e, "greedy");
        for (uint32_t i = 0; i < N; i++) {
            const float *x = p->logits[1] + (size_t)i * p->s->n_vocab;
            int32_t top = 0;
            for (uint32_t v = 1; v < p->s->n_vocab; v++)
                if (x[v] > x[top]) top = (int32_t)v;
            n_right += top == out[0][i * STEPS + t];
        }
    }
    bool ok = n_same == 21 && n_right == N * STEPS;
    p->bad |= !ok;
    printf("%s greedy of %d: %u of 21 runs the same, %u of %d tokens right: %s\n", p->s->name, N, n_same,
           n_right, N * STEPS, ok ? "ok" : "MISSED");
}

/* dev: of the reference, and of what is compared; the reference is alone. scale: of what a block adds; other
 * than 1 it takes the general pass. */
static bool compare_shape(const struct apr_gpu *g, struct apr_gpu_device *const dev[2], const struct shape *s,
                          const char *recipe, bool exact, float scale)
{
    struct pair p = {.g = g, .s = s, .limit = exact ? 1e-4 : 3e-3};
    struct apr_gpu_desc d;
    struct apr_gpu_err e;
    random_model(s, recipe, &d);
    d.residual_scale = scale;
    for (int w = 0; w < 2; w++) {
        const struct apr_gpu_opts o = {w == 0 || exact, false, N_CHECK * 512, 1024, 0};
        check(g->model_open(dev[w], w ? shares(&d) : &d, &o, NULL, NULL, &p.m[w], &e), &e, "model");
        for (uint32_t i = 0; i < N_CHECK; i++)
            check(g->seq_open(p.m[w], 512, &p.q[w][i], &e), &e, "sequence");
        p.logits[w] = malloc(1024 * sizeof(float) * s->n_vocab);
        if (!p.logits[w]) exit(6);
    }
    printf("-- %s %s%s%s\n", s->name, recipe, exact ? ", reference mode" : "",
           scale == 1 ? "" : ", general pass");
    compare_all(&p);
    if (!exact) compare_greedy(&p);
    for (int w = 0; w < 2; w++) {
        for (uint32_t i = 0; i < N_CHECK; i++) g->seq_close(p.q[w][i]);
        g->model_close(p.m[w]);
        free(p.logits[w]);
    }
    return !p.bad;
}

static int check_all(const struct apr_gpu *g, struct apr_gpu_device *one, const char *only)
{
    static const char *const recipes[] = {"q4_k_m", "q8_0", "bf16"};
    struct apr_gpu_device *const dev[2] = {one, one};
    bool ok = true;
    for (size_t i = 0; i < 3 && strcmp(only, "odd") != 0; i++)
        ok &= compare_shape(g, dev, &shapes[3], recipes[i], false, 1);
    ok &= compare_shape(g, dev, &shapes[4], "q8_0", false, 1); /* rows of no whole 256 */
    ok &= compare_shape(g, dev, &shapes[4], "bf16", false, 1);
    puts(ok ? "check: ok" : "check: MISSED");
    return !ok;
}

/* ---- several devices --------------------------------------------------------------------------------------
 */

/* The whole world against its first device alone. */
static int check_world(const struct apr_gpu *g, struct apr_gpu_device *world)
{
    static const char *const recipes[] = {"q4_k_m", "q8_0", "bf16"};
    struct apr_gpu_device *dev[2] = {NULL, world};
    struct apr_gpu_err e;
    bool ok = true;
    check(g->device_open(on.i[0], &dev[0], &e), &e, "device");
    for (size_t i = 0; i < 3; i++)
        for (int exact = 1; exact >= 0; exact--)
            ok &= compare_shape(g, dev, &shapes[5], recipes[i], exact, 1);
    for (int exact = 1; exact >= 0; exact--) ok &= compare_shape(g, dev, &shapes[5], "q8_0", exact, 0.5f);
    g->device_close(dev[0]);
    puts(ok ? "check: ok" : "check: MISSED");
    return !ok;
}

static bool answered(const char *what, double t0, bool is_right, const char *text)
{
    printf("%s: %.1f s: %s: %s\n", what, now() - t0, text, is_right ? "ok" : "MISSED");
    return is_right;
}

/* A model on all devices, a sequence, and 64 tokens of it. */
struct opened {
    struct apr_gpu_device *dev;
    struct apr_gpu_model *m;
    struct apr_gpu_seq *q;
    int32_t out[64];
};
static void open_all(const struct apr_gpu *g, const struct apr_gpu_desc *d, struct opened *o)
{
    const struct apr_gpu_opts opts = {false, false, 4096, 512, 0};
    struct apr_gpu_err e;
    uint32_t n_out;
    o->dev = open_devices(g);
    check(g->model_open(o->dev, d, &opts, NULL, NULL, &o->m, &e), &e, "model");
    check(g->seq_open(o->m, 512, &o->q, &e), &e, "sequence");
    check(g->greedy(o->m, o->q, 3, 64, NULL, 0, o->out, &n_out, &e), &e, "greedy");
}
static void close_all(const struct apr_gpu *g, struct opened *o)
{
    g->seq_close(o->q);
    g->model_close(o->m);
    g->device_close(o->dev);
}

/* The last device has no memory: the call fails by its name, and goes well afterwards. Then it is lost in the
 * middle of steps: the call fails in seconds, so does the next, everything can be closed, and after a reset
 * the devices give the same tokens. */
static int fault_world(const struct apr_gpu *g)
{
    struct apr_gpu_desc d;
    const struct apr_gpu_desc *all;
    struct apr_gpu_err e;
    struct apr_gpu_seq *q;
    struct opened a = {.dev = NULL}, b = {.dev = NULL};
    int32_t out[64];
    uint32_t n_out;
    bool ok = true;
    char name[16];
    snprintf(name, sizeof name, "GPU %u: ", on.i[on.n - 1]);
    random_model(&shapes[5], "q8_0", &d);
    all = shares(&d);
    open_all(g, all, &a);
    check(g->fault(a.dev, APR_GPU_FAULT_MEMORY, &e), &e, "fault");
    double t = now();
    enum apr_gpu_status s = g->seq_open(a.m, 512, &q, &e);
    ok &= answered("no memory", t, s == APR_GPU_MEMORY && strstr(e.text, name), s ? e.text : "opened");
    check(g->fault(a.dev, APR_GPU_FAULT_NONE, &e), &e, "fault");
    check(g->seq_open(a.m, 512, &q, &e), &e, "sequence");
    check(g->greedy(a.m, q, 3, 64, NULL, 0, out, &n_out, &e), &e, "greedy after no memory");
    ok &= answered("and then", t, !memcmp(out, a.out, sizeof out), "the same tokens");
    g->seq_close(q);
    (void)g->fault(a.dev, APR_GPU_FAULT_TRAP, &e); /* its own answer is not looked at */
    t = now();
    s = g->greedy(a.m, a.q, 3, 64, NULL, 0, out, &n_out, &e);
    ok &= answered("a lost device", t, s == APR_GPU_LOST && strstr(e.text, name) && now() - t < 10,
                   s ? e.text : "went well");
    t = now();
    s = g->greedy(a.m, a.q, 3, 64, NULL, 0, out, &n_out, &e);
    ok &= answered("and then", t, s == APR_GPU_LOST && now() - t < 1, s ? e.text : "went well");
    t = now();
    close_all(g, &a);
    ok &= answered("closing", t, now() - t < 10, "done");
    for (uint32_t i = 0; i < on.n; i++) check(g->device_reset(on.i[i], &e), &e, "reset");
    open_all(g, all, &b);
    ok &= answered("opened again", t, !memcmp(a.out, b.out, sizeof a.out), "the same tokens");
    close_all(g, &b);
    puts(ok ? "fault: ok" : "fault: MISSED");
    return !ok;
}

int main(int argc, char **argv)
{
    argv = take_options(&argc, argv);
    const struct shape *s = &shapes[0];
    const char *recipe = argc > 2 ? argv[2] : "q4_k_m";
    struct run r = {.only = argc > 1 ? argv[argc - 1] : ""};
    struct apr_err err;
    struct apr_gpu_err e;
    struct apr_gpu_device *dev;
    struct apr_gpu_desc d;
    for (size_t i = 0; argc > 1 && i < sizeof shapes / sizeof *shapes; i++)
        if (!strcmp(argv[1], shapes[i].name)) s = &shapes[i];
    if (apr_gpu_load(&r.g, &err) != APR_OK) return fprintf(stderr, "bench_gpu: %s\n", err.text), 9;
    if (argc > 1 && !strcmp(argv[1], "fault")) return fault_world(r.g);
    dev = open_devices(r.g);
    if (argc > 1 && !strcmp(argv[1], "check")) {
        int status = on.is_world ? check_world(r.g, dev) : check_all(r.g, dev, r.only);
        r.g->device_close(dev);
        return status;
    }
    if (strcmp(r.only, "one") != 0 && strcmp(r.only, "batch") != 0 && strcmp(r.only, "prompt") != 0 &&
        strcmp(r.only, "times") != 0)
        r.only = "";
    check(r.g->bandwidth(dev, &r.bandwidth, &e), &e, "bandwidth");
    printf("%s\nshape %s, %s\nread bandwidth %.0f GB/s\n", r.g->device_name(dev), s->name, recipe,
           r.bandwidth * 1e-9);
    random_model(s, recipe, &d);
    r.s = s;
    measure(&r, dev, &d, false);
    for (int i = 3; i < argc; i++)
        if (!strcmp(argv[i], "resident")) measure(&r, dev, &d, true);
    r.g->device_close(dev);
    return 0;
}

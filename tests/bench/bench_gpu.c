/* bench_gpu [-d 0,1] [-l any|nccl|same] [7b|1.5b|0.5b] [q4_k_m|q8_0|bf16] [resident]
 * [one|batch|times|prompt]: the GPU plugin alone, on random weights of a real shape; the last word: only
 * these measurements. bench_gpu check [odd]: small shapes, every way of computing a step against the
 * reference mode; exit 1 when one misses its bound. With -d one model is on all of these devices (one is
 * fine), and check compares them with the first of them alone; bench_gpu -d 0,1 fault: what becomes of the
 * others when the last one fails. -l: how they are linked (enum apr_gpu_link).
 *
 * No model file is needed: blocks are random bits with small scales. Prints a line a measurement: name,
 * value, unit, and for decoding the share of the memory's read bandwidth. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/load.h"
#include "gpu_check.h"
#include "gpu_rig.h"

#define N_CTX 36864u

struct run {
    const struct apr_gpu *g;
    struct apr_gpu_model *m;
    const struct bench_shape *s;
    double bandwidth;
    bool resident;
    const char *only;
};
static bool wanted(const struct run *r, const char *what)
{
    return !*r->only || !strcmp(r->only, what);
}

#define N_DECODE 128u

/* Seconds a token, five times; greedily, or by a chain. Returns the least. */
static double decode_s(const struct run *r, struct apr_gpu_seq *q, uint32_t depth,
                       const struct apr_gpu_chain *chain, double all[5])
{
    struct apr_gpu_err e;
    static int32_t out[N_DECODE];
    uint64_t bits[N_DECODE];
    uint32_t n_out;
    double best = 1e9;
    for (uint32_t i = 0; i < N_DECODE; i++) bits[i] = bench_next() << 32 ^ bench_next();
    for (int i = -1; i < 5; i++) { /* the first one warms up */
        r->g->seq_truncate(q, depth);
        double t = bench_now();
        bench_must(chain ? r->g->sample(r->m, q, chain, bits, 7, N_DECODE, NULL, 0, out, &n_out, &e)
                         : r->g->greedy(r->m, q, 7, N_DECODE, NULL, 0, out, &n_out, &e),
                   &e, "decode");
        if (i < 0) continue;
        all[i] = (bench_now() - t) / N_DECODE;
        if (all[i] < best) best = all[i];
    }
    return best;
}

static struct apr_gpu_chain usual_chain(void)
{
    return (struct apr_gpu_chain){.top_k = 40,
                                  .t_before = 1,
                                  .n_picks = 3,
                                  .picks = {{APR_GPU_PICK_TOP_P, {0.95}},
                                            {APR_GPU_PICK_MIN_P, {-3}},
                                            {APR_GPU_PICK_TEMPERATURE, {0.8}}}};
}
/* The usual chain, one of as many candidates as a chain may have, and a temperature alone. */
static void sampled(const struct run *r, struct apr_gpu_seq *q, uint32_t depth, double greedy_s)
{
    static const uint32_t most[] = {40, APR_GPU_TOP_K, 0};
    double all[5];
    for (size_t i = 0; i < sizeof most / sizeof *most; i++) {
        struct apr_gpu_chain c = usual_chain();
        c.top_k = most[i];
        if (!c.top_k) c.n_picks = 0;
        const double s = decode_s(r, q, depth, &c, all);
        printf("sampled_k%u_d%u %.1f tok/s, %.1f us a token more than greedy\n", c.top_k, depth, 1 / s,
               1e6 * (s - greedy_s));
    }
}

static void decode(const struct run *r, uint32_t depth)
{
    struct apr_gpu_seq *q;
    struct apr_gpu_err e;
    static int32_t ids[N_CTX];
    double all[5];
    bench_must(r->g->seq_open(r->m, N_CTX, &q, &e), &e, "sequence");
    for (uint32_t i = 0; i < depth; i++) ids[i] = (int32_t)(bench_next() % r->s->n_vocab);
    if (depth) bench_must(r->g->forward(r->m, q, ids, depth, 0, NULL, &e), &e, "prompt");
    const double best = decode_s(r, q, depth, NULL, all);
    const uint32_t n_mean = depth + N_DECODE / 2; /* positions that a token sees, on average */
    double n_bytes =
        (double)bench_weight_bytes + 4.0 * r->s->n_layers * r->s->n_heads_kv * r->s->head_dim * n_mean;
    printf("decode_d%u %.1f tok/s (%.1f at worst), %.1f %% of the read bandwidth\n", depth, 1 / best,
           1 / (all[0] > all[4] ? all[0] : all[4]), 100 * n_bytes / best / r->bandwidth);
    if (depth == 0) sampled(r, q, depth, best);
    r->g->seq_close(q);
}

/* n_seqs sequences of depth positions each, 64 tokens more of every one. */
static void batch(const struct run *r, uint32_t n_seqs, uint32_t depth)
{
    struct apr_gpu_seq *q[APR_GPU_ROWS];
    struct apr_gpu_err e;
    const uint32_t n = 64;
    static int32_t ids[N_CTX], first[APR_GPU_ROWS], out[APR_GPU_ROWS * 64];
    static struct apr_gpu_chain chains[APR_GPU_ROWS];
    static uint64_t bits[APR_GPU_ROWS * 64];
    double best = 1e9;
    for (uint32_t i = 0; i < depth; i++) ids[i] = (int32_t)(bench_next() % r->s->n_vocab);
    for (uint32_t i = 0; i < n_seqs; i++) {
        bench_must(r->g->seq_open(r->m, depth + n, &q[i], &e), &e, "sequence");
        bench_must(r->g->forward(r->m, q[i], ids, depth, 0, NULL, &e), &e, "prompt");
        first[i] = (int32_t)(bench_next() % r->s->n_vocab);
    }
    for (int i = 0; i < 4; i++) {
        for (uint32_t k = 0; k < n_seqs; k++) r->g->seq_truncate(q[k], depth);
        double t = bench_now();
        bench_must(r->g->greedy_rows(r->m, q, first, n_seqs, n, out, &e), &e, "batch");
        t = bench_now() - t;
        if (i && t < best) best = t;
    }
    double n_bytes = (double)bench_weight_bytes +
                     4.0 * r->s->n_layers * r->s->n_heads_kv * r->s->head_dim * (depth + n / 2.0) * n_seqs;
    double sampled = 1e9;
    for (uint32_t i = 0; i < n_seqs; i++) chains[i] = usual_chain();
    for (uint32_t i = 0; i < n_seqs * n; i++) bits[i] = bench_next() << 32 ^ bench_next();
    for (int i = 0; i < 3; i++) {
        for (uint32_t k = 0; k < n_seqs; k++) r->g->seq_truncate(q[k], depth);
        double t = bench_now();
        bench_must(r->g->sample_rows(r->m, q, chains, bits, first, n_seqs, n, out, &e), &e, "batch");
        t = bench_now() - t;
        if (i && t < sampled) sampled = t;
    }
    printf("batch%u %.1f tok/s, %.3f ms a step, %.1f %% of the read bandwidth\n", n_seqs, n_seqs * n / best,
           1e3 * best / n, 100 * n_bytes / (best / n) / r->bandwidth);
    printf("sampled_batch%u %.1f us a step more than greedy\n", n_seqs, 1e6 * (sampled - best) / n);
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
    for (uint32_t i = 0; i < depth; i++) ids[i] = (int32_t)(bench_next() % r->s->n_vocab);
    for (uint32_t i = 0; i < n_seqs; i++) {
        bench_must(r->g->seq_open(r->m, depth + 16, &q[i], &e), &e, "sequence");
        if (depth) bench_must(r->g->forward(r->m, q[i], ids, depth, 0, NULL, &e), &e, "prompt");
        parts[i] = (struct apr_gpu_part){q[i], &ids[i], 1};
    }
    bench_must(r->g->profile(r->m, parts, n_seqs, t, &n, &e), &e, "profile");
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
    bench_must(r->g->seq_open(r->m, N_CTX, &q, &e), &e, "sequence");
    for (uint32_t i = 0; i < n; i++) ids[i] = (int32_t)(bench_next() % r->s->n_vocab);
    for (int i = 0; i < 6; i++) {
        r->g->seq_truncate(q, 0);
        double t = bench_now();
        bench_must(r->g->forward(r->m, q, ids, n, 1, logits, &e), &e, "prompt");
        t = bench_now() - t;
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
    d = bench_shares(d);
    bench_must(r->g->model_plan(dev, d, &o4k, &p, &e), &e, "plan");
    if (!resident) printf("vram_4k %.0f MiB at 4096 positions\n", (double)p.total / 1048576);
    bench_must(r->g->model_plan(dev, d, &o, &p, &e), &e, "plan");
    double t = bench_now();
    bench_must(r->g->model_open(dev, d, &o, NULL, NULL, &r->m, &e), &e, "model");
    printf("load %.2f s; memory MiB: weights %.0f resident %.0f cache %.0f work %.0f\n", bench_now() - t,
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

int main(int argc, char **argv)
{
    argv = bench_options(&argc, argv);
    const struct bench_shape *s = &bench_shapes[0];
    const char *recipe = argc > 2 ? argv[2] : "q4_k_m";
    struct run r = {.only = argc > 1 ? argv[argc - 1] : ""};
    struct apr_err err;
    struct apr_gpu_err e;
    struct apr_gpu_device *dev;
    struct apr_gpu_desc d;
    setvbuf(stdout, NULL, _IOLBF, 0); /* a run that is cut off keeps its lines */
    for (size_t i = 0; argc > 1 && i < BENCH_SHAPES; i++)
        if (!strcmp(argv[1], bench_shapes[i].name)) s = &bench_shapes[i];
    if (apr_gpu_load(&r.g, &err) != APR_OK) return fprintf(stderr, "bench_gpu: %s\n", err.text), 9;
    if (argc > 1 && !strcmp(argv[1], "fault")) return bench_fault_world(r.g);
    dev = bench_devices(r.g);
    if (argc > 1 && !strcmp(argv[1], "check")) {
        int status = bench_on.is_world ? bench_check_world(r.g, dev) : bench_check(r.g, dev, r.only);
        r.g->device_close(dev);
        return status;
    }
    if (strcmp(r.only, "one") != 0 && strcmp(r.only, "batch") != 0 && strcmp(r.only, "prompt") != 0 &&
        strcmp(r.only, "times") != 0)
        r.only = "";
    bench_must(r.g->bandwidth(dev, &r.bandwidth, &e), &e, "bandwidth");
    printf("%s\nshape %s, %s\nread bandwidth %.0f GB/s\n", r.g->device_name(dev), s->name, recipe,
           r.bandwidth * 1e-9);
    bench_model(s, recipe, &d);
    r.s = s;
    measure(&r, dev, &d, false);
    for (int i = 3; i < argc; i++)
        if (!strcmp(argv[i], "resident")) measure(&r, dev, &d, true);
    r.g->device_close(dev);
    return 0;
}

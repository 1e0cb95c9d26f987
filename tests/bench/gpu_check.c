/* Every way of a step against the reference mode. See gpu_check.h. */
#include "gpu_check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu_rig.h"

#define N_CHECK 72 /* sequences */
struct pair {
    const struct apr_gpu *g;
    const struct bench_shape *s;
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
        for (uint32_t k = 0; k < n[i]; k++) ids[n_rows + k] = (int32_t)(bench_next() % p->s->n_vocab);
        for (int w = 0; w < 2; w++) parts[w][i] = (struct apr_gpu_part){p->q[w][i], ids + n_rows, n[i]};
        n_rows += n[i];
    }
    for (int w = 0; w < 2; w++) {
        bench_must(p->g->step(p->m[w], parts[w], n_parts, &e), &e, what);
        bench_must(p->g->logits(p->m[w], 0, n_rows, p->logits[w], &e), &e, what);
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
        bench_must(p->g->greedy_rows(p->m[1], p->q[1], first, N, STEPS, out[k], &e), &e, "greedy");
        n_same += !memcmp(out[k], out[0], sizeof out[0]);
    }
    for (uint32_t i = 0; i < N; i++) p->g->seq_truncate(p->q[1][i], i);
    for (uint32_t t = 0; t < STEPS; t++) {
        struct apr_gpu_part parts[N];
        for (uint32_t i = 0; i < N; i++)
            parts[i] = (struct apr_gpu_part){p->q[1][i], t ? &out[0][i * STEPS + t - 1] : &first[i], 1};
        bench_must(p->g->step(p->m[1], parts, N, &e), &e, "greedy");
        bench_must(p->g->logits(p->m[1], 0, N, p->logits[1], &e), &e, "greedy");
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

/* Drawn by chains of every kind: the same each time, on all devices of several, and the largest logit where
 * nothing else may be drawn. */
static void compare_drawn(struct pair *p)
{
    enum { N = 11, STEPS = 40, RUNS = 6 };
    struct apr_gpu_err e;
    struct apr_gpu_chain chains[N];
    static uint64_t bits[N * STEPS];
    static int32_t first[N], greedy[N * STEPS], out[RUNS][N * STEPS];
    uint32_t n_same = 0, n_right = 0;
    for (uint32_t i = 0; i < N * STEPS; i++) bits[i] = bench_next() << 32 ^ bench_next();
    for (uint32_t i = 0; i < N; i++) {
        static const uint32_t most[] = {1, 40, 0};
        chains[i] = (struct apr_gpu_chain){.top_k = most[i % 3], .t_before = 0.8f};
        first[i] = (int32_t)(17 * i + 3);
    }
    for (int k = -1; k < RUNS; k++) {
        for (uint32_t i = 0; i < N; i++) p->g->seq_truncate(p->q[1][i], i);
        bench_must(k < 0 ? p->g->greedy_rows(p->m[1], p->q[1], first, N, STEPS, greedy, &e)
                         : p->g->sample_rows(p->m[1], p->q[1], chains, bits, first, N, STEPS, out[k], &e),
                   &e, "sampling");
        n_same += k >= 0 && !memcmp(out[k], out[0], sizeof out[0]);
    }
    for (uint32_t i = 0; i < N * STEPS; i++) n_right += i / STEPS % 3 == 0 && out[0][i] == greedy[i];
    bool ok = n_same == RUNS && n_right == 4 * STEPS && memcmp(greedy, out[0], sizeof greedy) != 0;
    p->bad |= !ok;
    printf("%s drawn of %d: %u of %d runs the same, %u of %d tokens that cannot differ right: %s\n",
           p->s->name, N, n_same, RUNS, n_right, 4 * STEPS, ok ? "ok" : "MISSED");
}

/* dev: of the reference, and of what is compared; the reference is alone. scale: of what a block adds; other
 * than 1 it takes the general pass. */
static bool compare_shape(const struct apr_gpu *g, struct apr_gpu_device *const dev[2],
                          const struct bench_shape *s, const char *recipe, bool exact, float scale)
{
    struct pair p = {.g = g, .s = s, .limit = exact ? 1e-4 : 3e-3};
    struct apr_gpu_desc d;
    struct apr_gpu_err e;
    bench_model(s, recipe, &d);
    d.residual_scale = scale;
    for (int w = 0; w < 2; w++) {
        const struct apr_gpu_opts o = {w == 0 || exact, false, N_CHECK * 512, 1024, 0};
        bench_must(g->model_open(dev[w], w ? bench_shares(&d) : &d, &o, NULL, NULL, &p.m[w], &e), &e,
                   "model");
        for (uint32_t i = 0; i < N_CHECK; i++)
            bench_must(g->seq_open(p.m[w], 512, &p.q[w][i], &e), &e, "sequence");
        p.logits[w] = malloc(1024 * sizeof(float) * s->n_vocab);
        if (!p.logits[w]) exit(6);
    }
    printf("-- %s %s%s%s\n", s->name, recipe, exact ? ", reference mode" : "",
           scale == 1 ? "" : ", general pass");
    compare_all(&p);
    if (!exact) compare_greedy(&p), compare_drawn(&p);
    for (int w = 0; w < 2; w++) {
        for (uint32_t i = 0; i < N_CHECK; i++) g->seq_close(p.q[w][i]);
        g->model_close(p.m[w]);
        free(p.logits[w]);
    }
    return !p.bad;
}

int bench_check(const struct apr_gpu *g, struct apr_gpu_device *one, const char *only)
{
    static const char *const recipes[] = {"q4_k_m", "q8_0", "bf16"};
    struct apr_gpu_device *const dev[2] = {one, one};
    bool ok = true;
    for (size_t i = 0; i < 3 && strcmp(only, "odd") != 0; i++)
        ok &= compare_shape(g, dev, &bench_shapes[BENCH_SMALL], recipes[i], false, 1);
    ok &= compare_shape(g, dev, &bench_shapes[BENCH_ODD], "q8_0", false, 1); /* rows of no whole 256 */
    ok &= compare_shape(g, dev, &bench_shapes[BENCH_ODD], "bf16", false, 1);
    puts(ok ? "check: ok" : "check: MISSED");
    return !ok;
}

/* ---- several devices --------------------------------------------------------------------------------------
 */

/* The whole world against its first device alone. */
int bench_check_world(const struct apr_gpu *g, struct apr_gpu_device *world)
{
    static const char *const recipes[] = {"q4_k_m", "q8_0", "bf16"};
    struct apr_gpu_device *dev[2] = {NULL, world};
    struct apr_gpu_err e;
    bool ok = true;
    bench_must(g->device_open(bench_on.i[0], &dev[0], &e), &e, "device");
    for (size_t i = 0; i < 3; i++)
        for (int exact = 1; exact >= 0; exact--)
            ok &= compare_shape(g, dev, &bench_shapes[BENCH_PAIR], recipes[i], exact, 1);
    for (int exact = 1; exact >= 0; exact--)
        ok &= compare_shape(g, dev, &bench_shapes[BENCH_PAIR], "q8_0", exact, 0.5f);
    g->device_close(dev[0]);
    puts(ok ? "check: ok" : "check: MISSED");
    return !ok;
}

static bool answered(const char *what, double t0, bool is_right, const char *text)
{
    printf("%s: %.1f s: %s: %s\n", what, bench_now() - t0, text, is_right ? "ok" : "MISSED");
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
    o->dev = bench_devices(g);
    bench_must(g->model_open(o->dev, d, &opts, NULL, NULL, &o->m, &e), &e, "model");
    bench_must(g->seq_open(o->m, 512, &o->q, &e), &e, "sequence");
    bench_must(g->greedy(o->m, o->q, 3, 64, NULL, 0, o->out, &n_out, &e), &e, "greedy");
}
static void close_all(const struct apr_gpu *g, struct opened *o)
{
    g->seq_close(o->q);
    g->model_close(o->m);
    g->device_close(o->dev);
}

/* The last device is late at every launch: the same tokens. It has no memory: the call fails by its name, and
 * goes well afterwards. It is lost in the middle of steps: the call fails in seconds, so does the next,
 * everything can be closed, and after a reset the devices give the same tokens. */
int bench_fault_world(const struct apr_gpu *g)
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
    snprintf(name, sizeof name, "GPU %u: ", bench_on.i[bench_on.n - 1]);
    bench_model(&bench_shapes[BENCH_PAIR], "q8_0", &d);
    all = bench_shares(&d);
    open_all(g, all, &a);
    bench_must(g->fault(a.dev, APR_GPU_FAULT_SKEW, &e), &e, "fault");
    double t = bench_now();
    bench_must(g->seq_open(a.m, 512, &q, &e), &e, "sequence");
    bench_must(g->greedy(a.m, q, 3, 64, NULL, 0, out, &n_out, &e), &e, "greedy of a late device");
    ok &= answered("a late device", t, !memcmp(out, a.out, sizeof out), "the same tokens");
    g->seq_close(q);
    bench_must(g->fault(a.dev, APR_GPU_FAULT_MEMORY, &e), &e, "fault");
    t = bench_now();
    enum apr_gpu_status s = g->seq_open(a.m, 512, &q, &e);
    ok &= answered("no memory", t, s == APR_GPU_MEMORY && strstr(e.text, name), s ? e.text : "opened");
    bench_must(g->fault(a.dev, APR_GPU_FAULT_NONE, &e), &e, "fault");
    bench_must(g->seq_open(a.m, 512, &q, &e), &e, "sequence");
    bench_must(g->greedy(a.m, q, 3, 64, NULL, 0, out, &n_out, &e), &e, "greedy after no memory");
    ok &= answered("and then", t, !memcmp(out, a.out, sizeof out), "the same tokens");
    g->seq_close(q);
    (void)g->fault(a.dev, APR_GPU_FAULT_TRAP, &e); /* its own answer is not looked at */
    t = bench_now();
    s = g->greedy(a.m, a.q, 3, 64, NULL, 0, out, &n_out, &e);
    ok &= answered("a lost device", t, s == APR_GPU_LOST && strstr(e.text, name) && bench_now() - t < 10,
                   s ? e.text : "went well");
    t = bench_now();
    s = g->greedy(a.m, a.q, 3, 64, NULL, 0, out, &n_out, &e);
    ok &= answered("and then", t, s == APR_GPU_LOST && bench_now() - t < 1, s ? e.text : "went well");
    t = bench_now();
    close_all(g, &a);
    ok &= answered("closing", t, bench_now() - t < 10, "done");
    for (uint32_t i = 0; i < bench_on.n; i++) bench_must(g->device_reset(bench_on.i[i], &e), &e, "reset");
    open_all(g, all, &b);
    ok &= answered("opened again", t, !memcmp(a.out, b.out, sizeof a.out), "the same tokens");
    close_all(g, &b);
    puts(ok ? "fault: ok" : "fault: MISSED");
    return !ok;
}

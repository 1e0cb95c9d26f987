/* Speed of every kernel of every table: GB/s of weights at one token, GMAC/s for more, and the vector
 * slots. Times are of the CPU, since the machine may be shared; prints a line per kernel and never judges.
 *
 *     bench_kern [TABLE [TYPE | vectors | pages]]     best of several short runs, one thread
 *     bench_kern TABLE TYPE widths                    what a step of 1, 2 .. 16 tokens costs, from cache
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kern/kern.h"
#include "kern/page.h"

#define STREAM_BYTES ((size_t)160 << 20) /* weights for one token: more than any cache */
#define TILE_ROWS    64                  /* weights for several tokens: a thread's chunk, in cache */
#define N_COLS       1536
#define MAX_TOKS     128
#define MAX_STEP     16

static double now_s(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static uint32_t random_u32(void)
{
    static uint64_t state = 88172645463325252U;
    state = state * 6364136223846793005U + 1442695040888963407U;
    return (uint32_t)(state >> 32);
}

static void *must_alloc(size_t n_bytes)
{
    void *p = aligned_alloc(64, (n_bytes + 63) / 64 * 64);
    if (!p) {
        (void)fprintf(stderr, "bench_kern: no memory for %zu bytes\n", n_bytes);
        exit(6);
    }
    return p;
}

/* Random weights; every 16-bit word is made a small half or bfloat so that no scale is NaN or huge. */
static void fill_weights(uint8_t *w, size_t n_bytes)
{
    for (size_t i = 0; i + 2 <= n_bytes; i += 2) {
        uint16_t v = (uint16_t)(random_u32() & 0xbfffU);
        memcpy(w + i, &v, sizeof v);
    }
}

struct setup {
    const struct apr_kern *kern;
    uint8_t *weights;
    float *x;  /* [MAX_TOKS, N_COLS] */
    void *act; /* the same in the layout that the kernel wants */
    float *y;  /* [MAX_TOKS, rows] */
    void *scratch;
};

static size_t act_bytes(enum apr_act act)
{
    if (act == APR_ACT_Q8_32) return N_COLS / 32 * sizeof(struct apr_act32);
    if (act == APR_ACT_Q8_256) return N_COLS / 256 * sizeof(struct apr_act256);
    return N_COLS * sizeof(float); /* two BF16, too */
}

static void make_act(const struct setup *s, enum apr_act act)
{
    for (size_t t = 0; t < MAX_TOKS; t++) {
        uint8_t *a = (uint8_t *)s->act + t * act_bytes(act);
        const float *x = s->x + t * N_COLS;
        if (act == APR_ACT_Q8_32) s->kern->to_act32(x, (void *)a, N_COLS);
        if (act == APR_ACT_Q8_256) s->kern->to_act256(x, (void *)a, N_COLS);
        uint16_t *high = (void *)a;
        if (act == APR_ACT_SPLIT) s->kern->split_bf16(x, high, high + N_COLS, N_COLS);
        if (act == APR_ACT_F32) memcpy(a, x, N_COLS * sizeof *x);
    }
}

static double best_s(const struct setup *s, apr_matmul_fn *fn, enum apr_act act, size_t row_bytes,
                     size_t n_rows, size_t n_toks)
{
    double best = INFINITY, begin = now_s();
    for (int i = 0; i < 20 && (i < 2 || now_s() - begin < 0.15); i++) {
        double t = now_s();
        fn(s->weights, row_bytes, n_rows, N_COLS, s->act, act_bytes(act), n_toks, s->y, n_rows, s->scratch);
        t = now_s() - t;
        best = t < best ? t : best;
    }
    return best;
}

static void bench_matmul(const struct setup *s, const struct apr_quant *q, const char *form,
                         apr_matmul_fn *fn, enum apr_act act)
{
    size_t row_bytes = N_COLS / q->block_elems * q->block_bytes, n_rows = STREAM_BYTES / row_bytes;
    bool slow = strcmp(s->kern->name, "scalar") == 0;
    n_rows -= n_rows % APR_STRIP_ROWS;
    make_act(s, act);
    if (slow) n_rows = n_rows / 1024 * APR_STRIP_ROWS;
    double sec = best_s(s, fn, act, row_bytes, n_rows, 1);
    double sec4 = best_s(s, fn, act, row_bytes, n_rows, 4);
    (void)printf("%-6s %-6s %-6s %6.2f GB/s, 4 tokens %5.2f | GMAC/s by tokens:", s->kern->name, q->name,
                 form, (double)(n_rows * row_bytes) / sec * 1e-9, (double)(n_rows * row_bytes) / sec4 * 1e-9);
    static const size_t toks[] = {1, 2, 4, 8, 12, 16, 32, 128};
    for (size_t i = 0; i < sizeof toks / sizeof toks[0] && !(slow && i > 2); i++) {
        sec = best_s(s, fn, act, row_bytes, TILE_ROWS, toks[i]);
        (void)printf(" %zu: %.1f", toks[i], (double)(TILE_ROWS * N_COLS * toks[i]) / sec * 1e-9);
    }
    (void)printf("\n");
    (void)fflush(stdout);
}

/* Picoseconds a weight of a step of 1 .. MAX_STEP tokens: what rises in jumps is left over by the tiles. */
static void bench_widths(const struct setup *s, const struct apr_quant *q, const char *form,
                         apr_matmul_fn *fn, enum apr_act act)
{
    const size_t row_bytes = N_COLS / q->block_elems * q->block_bytes;
    double best[MAX_STEP];
    make_act(s, act);
    for (size_t t = 0; t < MAX_STEP; t++) best[t] = INFINITY;
    for (int round = 0; round < 4; round++) {
        for (size_t t = 0; t < MAX_STEP; t++) {
            double sec = best_s(s, fn, act, row_bytes, TILE_ROWS, t + 1);
            best[t] = sec < best[t] ? sec : best[t];
        }
    }
    (void)printf("%-6s %-6s %-6s ps a weight by tokens:", s->kern->name, q->name, form);
    for (size_t t = 0; t < MAX_STEP; t++)
        (void)printf(" %zu: %.1f", t + 1, best[t] / (double)(TILE_ROWS * N_COLS) * 1e12);
    (void)printf("\n");
    (void)fflush(stdout);
}

/* GB/s of making strips from rows. */
static void bench_to_strips(const struct setup *s, const struct apr_quant *q)
{
    size_t row_bytes = N_COLS / q->block_elems * q->block_bytes;
    size_t n_rows = STREAM_BYTES / 2 / row_bytes / APR_STRIP_ROWS * APR_STRIP_ROWS;
    double best = INFINITY;
    for (int i = 0; i < 3; i++) {
        double t = now_s();
        s->kern->matmul[q->type].to_strips(s->weights, row_bytes, n_rows, N_COLS,
                                           s->weights + STREAM_BYTES / 2);
        t = now_s() - t;
        best = t < best ? t : best;
    }
    (void)printf("%-6s %-6s to strips %6.2f GB/s\n", s->kern->name, q->name,
                 (double)(n_rows * row_bytes) / best * 1e-9);
}

static void bench_type(const struct setup *s, const struct apr_quant *q)
{
    const struct apr_matmul *m = &s->kern->matmul[q->type];
    bench_matmul(s, q, "fast", m->fast, m->act);
    if (m->strips) bench_matmul(s, q, "strips", m->strips, m->act);
    if (m->fast != m->exact) bench_matmul(s, q, "exact", m->exact, APR_ACT_F32);
    if (m->to_strips) bench_to_strips(s, q);
}

static void bench_steps(const struct setup *s, const struct apr_quant *q)
{
    const struct apr_matmul *m = &s->kern->matmul[q->type];
    bench_widths(s, q, "fast", m->fast, m->act);
    if (m->strips) bench_widths(s, q, "strips", m->strips, m->act);
}

static void report(const struct setup *s, const char *what, double n, double sec, const char *unit)
{
    (void)printf("%-6s %-16s %8.2f %s\n", s->kern->name, what, n / sec * 1e-9, unit);
    (void)fflush(stdout);
}

#define BENCH(what, n, unit, call)                                                                           \
    do {                                                                                                     \
        double best = INFINITY, begin = now_s();                                                             \
        for (int run = 0; run < 40 && (run < 2 || now_s() - begin < 0.1); run++) {                           \
            double t0 = now_s();                                                                             \
            for (int rep = 0; rep < 16; rep++) {                                                             \
                call;                                                                                        \
            }                                                                                                \
            double t1 = (now_s() - t0) / 16;                                                                 \
            best = t1 < best ? t1 : best;                                                                    \
        }                                                                                                    \
        report(s, what, n, best, unit);                                                                      \
    } while (0)

/* A cache of 4096 positions of 128 page by page, 6 query heads. */
static void pages(const struct setup *s, const struct apr_page_type *t, size_t row_bytes, bool is_keys)
{
    const size_t n_dim = 128, n_q = 6, n_pos = 4096;
    for (size_t p = 0; p < n_pos; p += APR_PAGE_POS) {
        const struct apr_page page = {s->weights + p * row_bytes, row_bytes, APR_PAGE_POS, n_dim};
        if (is_keys)
            t->scores(s->kern, &page, s->x, n_q, 0.1f, s->y + p, n_pos, s->scratch);
        else
            t->values(s->kern, &page, s->y + p, n_pos, n_q, s->x, s->scratch);
    }
}

static void bench_pages(const struct setup *s)
{
    const struct apr_page_type *t;
    const double macs = 4096.0 * 128 * 6;
    for (size_t i = 0; (t = apr_page_type_at(i)) != NULL; i++) {
        const struct apr_quant *q = apr_quant_of(t->type);
        const size_t row_bytes = 128 / q->block_elems * q->block_bytes;
        char what[32];
        (void)snprintf(what, sizeof what, "page_scores_%s", t->name);
        BENCH(what, macs, "GMAC/s", pages(s, t, row_bytes, true));
        (void)snprintf(what, sizeof what, "page_values_%s", t->name);
        BENCH(what, macs, "GMAC/s", pages(s, t, row_bytes, false));
        (void)snprintf(what, sizeof what, "page_store_%s", t->name);
        BENCH(what, 4096, "G values/s",
              for (size_t r = 0; r < 32; r++)
                  t->store(s->kern, s->x + r * 128, (uint8_t *)s->act + r * row_bytes, 128));
    }
}

static void bench_vectors(const struct setup *s)
{
    const struct apr_kern *k = s->kern;
    const size_t n = N_COLS * 16; /* 96 KiB of f32 */
    float *x = s->x, *y = s->y, *z = s->x + n;
    struct apr_stats stats;
    size_t i_max;
    apr_stats_init(&stats);
    BENCH("to_act32", (double)n, "G values/s", k->to_act32(x, s->act, n));
    BENCH("to_act256", (double)n, "G values/s", k->to_act256(x, s->act, n));
    BENCH("rmsnorm", (double)n, "G values/s", k->rmsnorm(x, z, 1e-5f, y, n));
    BENCH("silu_mul", (double)n, "G values/s", k->silu_mul(x, z, y, n));
    BENCH("softmax", (double)n, "G values/s", k->softmax(y, n));
    BENCH("exps", (double)n, "G values/s", k->exps(y, 1, n));
    BENCH("max", (double)n, "G values/s", k->max(x, n, &i_max));
    BENCH("f32_to_f16", (double)n, "G values/s", k->f32_to_f16(x, s->act, n));
    BENCH("stats", (double)n * 4, "GB/s", k->stats(x, n, &stats));
    /* a cache of 4096 positions of 128, from memory or L2, 6 query heads */
    const size_t n_pos = 4096, n_dim = 128, n_q = 6;
    const void *all = s->weights;
    const uint16_t *cache = all;
    const float *cache32 = all;
    double macs = (double)(n_pos * n_dim * n_q);
    BENCH("attn_scores_f16", macs, "GMAC/s",
          k->attn_scores_f16(x, n_q, cache, n_dim, n_pos, n_dim, 0.1f, y, n_pos));
    BENCH("attn_values_f16", macs, "GMAC/s",
          k->attn_values_f16(y, n_pos, n_q, cache, n_dim, n_pos, n_dim, x));
    BENCH("attn_scores_f32", macs, "GMAC/s",
          k->attn_scores_f32(x, n_q, cache32, n_dim, n_pos, n_dim, 0.1f, y, n_pos));
    BENCH("attn_values_f32", macs, "GMAC/s",
          k->attn_values_f32(y, n_pos, n_q, cache32, n_dim, n_pos, n_dim, x));
}

static void bench_read(const struct setup *s)
{
    double best = INFINITY;
    volatile uint64_t sink = 0;
    for (int run = 0; run < 4; run++) {
        double t = now_s();
        uint64_t sum[4] = {0};
        const uint64_t *p = (const void *)s->weights;
        for (size_t i = 0; i < STREAM_BYTES / 8; i += 8) {
            sum[0] += p[i] ^ p[i + 1];
            sum[1] += p[i + 2] ^ p[i + 3];
            sum[2] += p[i + 4] ^ p[i + 5];
            sum[3] += p[i + 6] ^ p[i + 7];
        }
        sink = sink + sum[0] + sum[1] + sum[2] + sum[3];
        t = now_s() - t;
        best = t < best ? t : best;
    }
    (void)printf("plain read of %zu MiB: %.2f GB/s\n", STREAM_BYTES >> 20,
                 (double)STREAM_BYTES / best * 1e-9);
}

int main(int argc, char **argv)
{
    struct setup s = {.weights = must_alloc(STREAM_BYTES),
                      .x = must_alloc(MAX_TOKS * N_COLS * sizeof(float)),
                      .act = must_alloc(MAX_TOKS * N_COLS * sizeof(float)),
                      .y = must_alloc(STREAM_BYTES / 64 * sizeof(float)),
                      .scratch = must_alloc(apr_kern_scratch_bytes(N_COLS))};
    fill_weights(s.weights, STREAM_BYTES);
    for (size_t i = 0; i < MAX_TOKS * N_COLS; i++) s.x[i] = (float)(random_u32() >> 8) * 0x1p-23f - 1;
    bench_read(&s);
    for (size_t i = 0; (s.kern = apr_kern_at(i)) != NULL; i++) {
        if (argc > 1 && strcmp(argv[1], s.kern->name) != 0) continue;
        const struct apr_quant *q;
        for (size_t j = 0; (q = apr_quant_at(j)) != NULL; j++) {
            if (argc > 2 && strcmp(argv[2], q->name) != 0) continue;
            if (!s.kern->matmul[q->type].fast || q->type == APR_NATIVE_Q8) continue;
            if (argc > 3)
                bench_steps(&s, q);
            else
                bench_type(&s, q);
        }
        if (argc <= 2 || strcmp(argv[2], "vectors") == 0) bench_vectors(&s);
        if (argc <= 2 || strcmp(argv[2], "pages") == 0) bench_pages(&s);
    }
    free(s.weights);
    free(s.x);
    free(s.act);
    free(s.y);
    free(s.scratch);
    return 0;
}

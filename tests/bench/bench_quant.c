/* Speed and error of every quantizer: MB/s of BF16 source for one thread, with the kernels that APR_KERN
 * names or this CPU's best, and the relative squared error on normal values. Prints a line per type, never
 * judges.
 *
 *     bench_quant [TYPE]
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <time.h>

#include "quant/quant.h"

#define N_ELEMS ((size_t)1 << 16) /* a chunk of convert.c */
#define N_RUNS  5
#define MIN_NS  40000000

static double now_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return 1e9 * (double)t.tv_sec + (double)t.tv_nsec;
}

/* Nearly normal: the sum of twelve uniform numbers. */
static float random_normal(void)
{
    static uint64_t state = 88172645463325252U;
    double sum = -6;
    for (int i = 0; i < 12; i++) {
        state = state * 6364136223846793005U + 1442695040888963407U;
        sum += (double)(state >> 40) * 0x1p-24;
    }
    return apr_bf16_to_f32(apr_f32_to_bf16((float)sum * 0.02F));
}

/* Best of N_RUNS, ns a pass over x. */
static double time_of(const struct apr_quant *q, const float *x, const float *weights, void *blocks)
{
    double best = INFINITY;
    for (int run = 0; run < N_RUNS; run++) {
        int n = 0;
        double begin = now_ns(), end;
        do {
            q->from_f32(x, blocks, N_ELEMS, weights);
            n++;
        } while ((end = now_ns()) < begin + MIN_NS);
        best = fmin(best, (end - begin) / n);
    }
    return best;
}

static double error_of(const struct apr_quant *q, const float *x, const void *blocks, float *y)
{
    double error = 0, energy = 0;
    q->to_f32(blocks, y, N_ELEMS);
    for (size_t i = 0; i < N_ELEMS; i++) {
        double off = (double)x[i] - (double)y[i];
        error += off * off;
        energy += (double)x[i] * (double)x[i];
    }
    return error / energy;
}

int main(int argc, char **argv)
{
    static float x[N_ELEMS], y[N_ELEMS], weights[N_ELEMS];
    static uint8_t blocks[N_ELEMS * sizeof(float) + 64];
    const struct apr_quant *q;
    for (size_t i = 0; i < N_ELEMS; i++) x[i] = random_normal();
    for (size_t i = 0; i < N_ELEMS; i++) weights[i] = expf(50 * random_normal());
    printf("%-10s %10s %14s %12s\n", "type", "MB/s", "with imatrix", "error");
    for (size_t i = 0; (q = apr_quant_at(i)) != NULL; i++) {
        if (!q->from_f32 || (argc > 1 && strcasecmp(argv[1], q->name) != 0)) continue;
        double with = time_of(q, x, weights, blocks), ns = time_of(q, x, NULL, blocks);
        printf("%-10s %10.0f %14.0f %12.4g\n", q->name, 2e3 * (double)N_ELEMS / ns,
               2e3 * (double)N_ELEMS / with, error_of(q, x, blocks, y));
    }
    return 0;
}

/* bench_pool [THREADS [PROCESSES [REGION_US]]]: the pool, alone and with others on the same CPUs.
 *
 * A token of a language model is about 140 parallel regions with a short serial step after each. So many
 * regions of REGION_US microseconds of work a thread are run, by one process, by PROCESSES one after the
 * other, and by PROCESSES at once. Prints a line a measurement: name, value, unit. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pool.h"

enum { CHUNKS_A_THREAD = 16, REGIONS = 2000, SERIAL_PARTS = 40 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static _Thread_local volatile uint32_t sink; /* keeps the work from being left out */

static void work(uint64_t n_steps)
{
    uint32_t x = 1;
    for (uint64_t i = 0; i < n_steps; i++) x = x * 1664525u + 1013904223u;
    sink = x;
}

static void task(void *ctx, size_t begin, size_t end, unsigned i_thread)
{
    const uint64_t *n_steps = ctx;
    (void)i_thread;
    for (size_t i = begin; i < end; i++) work(*n_steps);
}

static void run(unsigned n_threads, uint64_t n_chunk_steps)
{
    struct apr_pool *p = apr_pool_open(n_threads);
    for (int i = 0; i < REGIONS; i++) {
        apr_parallel_for(p, (size_t)CHUNKS_A_THREAD * apr_pool_threads(p), 1, task, &n_chunk_steps);
        work(n_chunk_steps * CHUNKS_A_THREAD / SERIAL_PARTS);
    }
    apr_pool_close(p);
}

/* Seconds of n processes, n_at_once of them at the same time. */
static double processes(unsigned n, unsigned n_at_once, unsigned n_threads, uint64_t n_steps)
{
    double start = now();
    for (unsigned i = 0; i < n; i += n_at_once) {
        for (unsigned k = 0; k < n_at_once; k++)
            if (fork() == 0) {
                run(n_threads, n_steps);
                _exit(0);
            }
        while (wait(NULL) > 0) continue;
    }
    return now() - start;
}

int main(int argc, char **argv)
{
    unsigned n_threads = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 2;
    unsigned n = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 2;
    double region_us = argc > 3 ? strtod(argv[3], NULL) : 250, start = now();
    work(20000000);
    double steps_a_us = 20000000 / (now() - start) * 1e-6;
    uint64_t n_steps = (uint64_t)(region_us / CHUNKS_A_THREAD * steps_a_us);
    double one = processes(1, 1, n_threads, n_steps);
    printf("one process        %8.3f s (%.1f us a region, %.1f of work)\n", one, one / REGIONS * 1e6,
           region_us * (1 + 1.0 / SERIAL_PARTS));
    if (n < 2) return 0;
    double in_turn = processes(n, 1, n_threads, n_steps), at_once = processes(n, n, n_threads, n_steps);
    printf("%u one by one       %8.3f s\n%u at once           %8.3f s (%.2f of one by one)\n", n, in_turn, n,
           at_once, at_once / in_turn);
    return 0;
}

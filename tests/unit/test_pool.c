/* The pool: every index once, borders that do not depend on threads, no lost wake-up. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cpus.h"
#include "log.h"
#include "pool.h"

#define MAX_N 5000

struct job {
    size_t n, n_chunk;
    unsigned n_threads;
    uint8_t hits[MAX_N];
    size_t begin_of[MAX_N]; /* where the chunk of an index began */
    atomic_uint n_bad;
};

static void mark(void *ctx, size_t begin, size_t end, unsigned i_thread)
{
    struct job *j = ctx;
    if (begin % j->n_chunk || end <= begin || end > j->n || end - begin > j->n_chunk ||
        i_thread >= j->n_threads)
        atomic_fetch_add(&j->n_bad, 1);
    for (size_t i = begin; i < end; i++) {
        j->hits[i]++;
        j->begin_of[i] = begin;
    }
}

static void every_index_once(void **state)
{
    (void)state;
    static struct job j;
    static const size_t sizes[] = {0, 1, 2, 7, 64, 1000, MAX_N}, chunks[] = {1, 3, 64, MAX_N, 2 * MAX_N};
    for (unsigned n_threads = 1; n_threads <= 8; n_threads++) {
        struct apr_pool *p = apr_pool_open(n_threads);
        assert_int_equal(apr_pool_threads(p), n_threads);
        for (size_t a = 0; a < sizeof sizes / sizeof *sizes; a++)
            for (size_t b = 0; b < sizeof chunks / sizeof *chunks; b++) {
                memset(&j, 0, sizeof j);
                j.n = sizes[a];
                j.n_chunk = chunks[b];
                j.n_threads = n_threads;
                apr_parallel_for(p, j.n, j.n_chunk, mark, &j);
                assert_int_equal(j.n_bad, 0);
                for (size_t i = 0; i < j.n; i++) {
                    assert_int_equal(j.hits[i], 1);
                    assert_int_equal(j.begin_of[i], i / j.n_chunk * j.n_chunk);
                }
            }
        apr_pool_close(p);
    }
}

struct sum {
    const uint32_t *from;
    uint32_t *to;
};

static void step(void *ctx, size_t begin, size_t end, unsigned i_thread)
{
    (void)i_thread;
    const struct sum *s = ctx;
    for (size_t i = begin; i < end; i++) s->to[i] = s->from[i] * 3 + (uint32_t)i;
}

/* Each task reads what the one before wrote: a late or early worker would show. */
static void tasks_follow_each_other(void **state)
{
    (void)state;
    enum { N = 96, N_TASKS = 20000 };
    static uint32_t buf[2][N], want[N];
    for (unsigned n_threads = 1; n_threads <= 8; n_threads += n_threads == 1 ? 1 : 3) {
        struct apr_pool *p = apr_pool_open(n_threads);
        memset(buf, 0, sizeof buf);
        memset(want, 0, sizeof want);
        for (size_t t = 0; t < N_TASKS; t++) {
            struct sum s = {buf[t % 2], buf[1 - t % 2]};
            apr_parallel_for(p, N, t % 5 + 1, step, &s);
            if (t % 5000 == 0) usleep(300); /* the workers fall asleep */
        }
        for (size_t t = 0; t < N_TASKS; t++)
            for (size_t i = 0; i < N; i++) want[i] = want[i] * 3 + (uint32_t)i;
        assert_memory_equal(buf[N_TASKS % 2], want, sizeof want);
        apr_pool_close(p);
    }
}

struct far {
    const uint32_t *from; /* the next task's */
    size_t n_bytes;
    atomic_bool is_alive;
    atomic_uint n_asked, n_late;
};

static struct apr_ahead look_ahead(void *ctx, unsigned i_thread)
{
    struct far *f = ctx;
    atomic_fetch_add(&f->n_asked, 1);
    if (!atomic_load(&f->is_alive)) atomic_fetch_add(&f->n_late, 1);
    return (struct apr_ahead){f->from + i_thread, f->n_bytes};
}

static void touch(void *ctx, size_t begin, size_t end, unsigned i_thread)
{
    struct far *f = ctx;
    (void)begin;
    (void)end;
    (void)i_thread;
    if (!atomic_load(&f->is_alive)) atomic_fetch_add(&f->n_late, 1);
}

/* Who looks ahead does so while the task lives, though what he is told to fetch may be anything. */
static void ahead_is_asked_in_time(void **state)
{
    (void)state;
    static const uint32_t some[64];
    static const size_t sizes[] = {0, 1, 64, 65, sizeof some, (size_t)1 << 20};
    for (unsigned n_threads = 1; n_threads <= 8; n_threads += n_threads == 1 ? 1 : 3) {
        struct apr_pool *p = apr_pool_open(n_threads);
        for (size_t t = 0; t < 3000; t++) {
            struct far f = {.from = some, .n_bytes = sizes[t % 6], .is_alive = true};
            apr_parallel_for_ahead(p, 2 + t % 40, 1, touch, look_ahead, &f);
            atomic_store(&f.is_alive, false);
            assert_int_equal(f.n_late, 0);
            assert_true(f.n_asked <= n_threads && (n_threads == 1 || f.n_asked >= 1));
        }
        apr_pool_close(p);
    }
}

static void opens_and_closes_unused(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 200; i++) apr_pool_close(apr_pool_open(i % 9));
    apr_pool_close(NULL);
}

struct where {
    atomic_uint n_in; /* threads that reached the task */
    unsigned n_threads;
    int cpu_of[64];
};

/* Each thread takes one index and waits for the others, so that all of them are seen. */
static void note_cpu(void *ctx, size_t begin, size_t end, unsigned i_thread)
{
    struct where *w = ctx;
    (void)begin;
    (void)end;
    atomic_fetch_add(&w->n_in, 1);
    while (atomic_load(&w->n_in) < w->n_threads) sched_yield();
    w->cpu_of[i_thread] = sched_getcpu();
}

static void pinned_threads_stay_apart(void **state)
{
    (void)state;
    cpu_set_t before, after;
    struct apr_err e = {0};
    unsigned n_cpus = apr_cpus_usable();
    unsigned n = n_cpus > 64 ? 64 : n_cpus;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    struct apr_pool *p = apr_pool_open(n);
    assert_int_equal(apr_pool_pin(p, &e), APR_OK);
    for (int round = 0; round < 3; round++) {
        struct where w = {.n_threads = n};
        apr_parallel_for(p, n, 1, note_cpu, &w);
        for (unsigned i = 0; i < n; i++)
            for (unsigned k = 0; k < i; k++) assert_int_not_equal(w.cpu_of[i], w.cpu_of[k]);
    }
    apr_pool_close(p);
    assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
    assert_true(CPU_EQUAL(&before, &after));

    unsigned cpus[APR_MAX_CPUS];
    unsigned n_many = (unsigned)apr_cpus_list(cpus, APR_MAX_CPUS) + 1;
    p = apr_pool_open(n_many);
    if (apr_pool_threads(p) == n_many) assert_int_equal(apr_pool_pin(p, &e), APR_EUSAGE);
    apr_pool_close(p);
}

static void spend(void *ctx, size_t begin, size_t end, unsigned i_thread)
{
    atomic_uint *sink = ctx;
    uint32_t x = (uint32_t)begin;
    (void)i_thread;
    for (size_t i = begin; i < end; i++)
        for (int k = 0; k < 3000; k++) x = x * 1664525u + 1013904223u;
    atomic_store(sink, x);
}

static int64_t spend_ns(unsigned n_threads)
{
    atomic_uint sink;
    struct apr_pool *p = apr_pool_open(n_threads);
    int64_t ns = apr_now_ns();
    for (int i = 0; i < 200; i++) apr_parallel_for(p, 128, 1, spend, &sink);
    ns = apr_now_ns() - ns;
    apr_pool_close(p);
    return ns;
}

/* Four threads a CPU take at most half as long again as one; others use this machine too, so the best of
 * some. */
static void more_threads_than_cpus(void **state)
{
    (void)state;
    unsigned n = apr_cpus_usable();
    double ratio = 1e9;
    for (int i = 0; i < 10 && ratio > 1.5; i++) {
        double right = (double)spend_ns(n), many = (double)spend_ns(4 * n);
        if (many / right < ratio) ratio = many / right;
    }
    assert_true(ratio <= 1.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_index_once),        cmocka_unit_test(tasks_follow_each_other),
        cmocka_unit_test(opens_and_closes_unused), cmocka_unit_test(pinned_threads_stay_apart),
        cmocka_unit_test(more_threads_than_cpus),  cmocka_unit_test(ahead_is_asked_in_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

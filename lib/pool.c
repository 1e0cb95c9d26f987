/* One task at a time; its chunks are handed out by a counter, so which thread runs a chunk is open, what the
 * chunk is is not.
 *
 * A worker enters (n_inside), and only then looks whether the task is still open. The caller closes the task,
 * and only then looks whether somebody is inside. So a worker that sleeps through a task delays nobody, and
 * nobody reads a task that is being replaced.
 */
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "arena.h"
#include "cpus.h"
#include "log.h"

#define MAX_THREADS 1024u
#define SPIN_NS     50000 /* longer than the serial steps between two matrices of a forward pass */
#define SPINS_LOOK  64    /* pauses between two looks at the clock */
#define MASK_BYTES  (APR_MAX_CPUS / 8)

struct worker {
    struct apr_pool *pool;
    unsigned i_thread;
    pthread_t thread;
};

struct apr_pool {
    struct apr_arena arena; /* owns this struct and the workers */
    unsigned n_threads;
    int64_t spin_ns;        /* 0 when there are more threads than CPUs */
    struct worker *workers; /* [n_threads - 1] */
    cpu_set_t *before;      /* the caller's CPUs before it was pinned; NULL: it is not */

    apr_task_fn *fn; /* the task; written only while it is closed and nobody is inside */
    void *ctx;
    size_t n, n_chunk, n_chunks;

    _Alignas(64) atomic_size_t next;
    _Alignas(64) atomic_uint n_inside;
    _Alignas(64) atomic_uint epoch; /* one more for every task */
    atomic_bool open, stop, caller_waits;
    atomic_uint n_asleep;
    pthread_mutex_t lock;
    pthread_cond_t wake, left;
};

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

static void run_chunks(struct apr_pool *p, unsigned i_thread)
{
    size_t i;
    while ((i = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed)) < p->n_chunks) {
        size_t begin = i * p->n_chunk, n_left = p->n - begin;
        p->fn(p->ctx, begin, begin + (n_left < p->n_chunk ? n_left : p->n_chunk), i_thread);
    }
}

static bool has_news(struct apr_pool *p, unsigned seen)
{
    return atomic_load(&p->epoch) != seen || atomic_load(&p->stop);
}

static void await_task(struct apr_pool *p, unsigned seen)
{
    int64_t ns_end = p->spin_ns ? apr_now_ns() + p->spin_ns : 0;
    do
        for (int i = 0; i < SPINS_LOOK; i++) {
            if (has_news(p, seen)) return;
            relax();
        }
    while (p->spin_ns && apr_now_ns() < ns_end);
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->n_asleep, 1);
    while (!has_news(p, seen)) pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->n_asleep, 1);
    pthread_mutex_unlock(&p->lock);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct apr_pool *p = w->pool;
    for (unsigned seen = 0;;) {
        await_task(p, seen);
        if (atomic_load(&p->stop)) return NULL;
        seen = atomic_load(&p->epoch);
        atomic_fetch_add(&p->n_inside, 1);
        if (atomic_load(&p->open)) run_chunks(p, w->i_thread);
        if (atomic_fetch_sub(&p->n_inside, 1) == 1 && atomic_load(&p->caller_waits)) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->left);
            pthread_mutex_unlock(&p->lock);
        }
    }
}

static void await_workers(struct apr_pool *p)
{
    int64_t ns_end = p->spin_ns ? apr_now_ns() + p->spin_ns : 0;
    do
        for (int i = 0; i < SPINS_LOOK; i++) {
            if (!atomic_load(&p->n_inside)) return;
            relax();
        }
    while (p->spin_ns && apr_now_ns() < ns_end);
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->caller_waits, true);
    while (atomic_load(&p->n_inside)) pthread_cond_wait(&p->left, &p->lock);
    atomic_store(&p->caller_waits, false);
    pthread_mutex_unlock(&p->lock);
}

struct apr_pool *apr_pool_open(unsigned n_threads)
{
    struct apr_arena arena;
    unsigned n_usable = apr_cpus_usable();
    if (n_threads == 0) n_threads = n_usable;
    if (n_threads > MAX_THREADS) n_threads = MAX_THREADS;
    apr_arena_init(&arena);
    struct apr_pool *p = apr_arena_get(&arena, sizeof *p);
    p->workers = apr_arena_get(&arena, n_threads * sizeof *p->workers);
    p->arena = arena;
    p->n_threads = 1;
    p->spin_ns = n_threads <= n_usable ? SPIN_NS : 0;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->left, NULL);
    for (unsigned i = 1; i < n_threads; i++) {
        struct worker *w = &p->workers[i - 1];
        *w = (struct worker){.pool = p, .i_thread = i};
        /* Fewer threads than wanted compute the same results. */
        if (pthread_create(&w->thread, NULL, worker_main, w)) break;
        p->n_threads = i + 1;
    }
    return p;
}

void apr_pool_close(struct apr_pool *p)
{
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->stop, true);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 1; i < p->n_threads; i++) pthread_join(p->workers[i - 1].thread, NULL);
    pthread_cond_destroy(&p->left);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    if (p->before) (void)pthread_setaffinity_np(pthread_self(), MASK_BYTES, p->before);
    struct apr_arena arena = p->arena;
    apr_arena_free(&arena);
}

unsigned apr_pool_threads(const struct apr_pool *p)
{
    return p->n_threads;
}

static int pin(pthread_t thread, unsigned cpu)
{
    cpu_set_t set[MASK_BYTES / sizeof(cpu_set_t)];
    CPU_ZERO_S(sizeof set, set);
    CPU_SET_S(cpu, sizeof set, set);
    return pthread_setaffinity_np(thread, sizeof set, set);
}

enum apr_code apr_pool_pin(struct apr_pool *p, struct apr_err *e)
{
    unsigned *cpus = apr_arena_get(&p->arena, APR_MAX_CPUS * sizeof *cpus);
    cpu_set_t *before = apr_arena_get(&p->arena, MASK_BYTES);
    size_t n = apr_cpus_list(cpus, APR_MAX_CPUS);
    if (n < p->n_threads)
        return apr_fail(e, APR_EUSAGE, "%u threads cannot be pinned to %zu CPUs", p->n_threads, n);
    int error = pthread_getaffinity_np(pthread_self(), MASK_BYTES, before);
    if (!error) error = pin(pthread_self(), cpus[0]);
    if (!error) p->before = before;
    for (unsigned i = 1; i < p->n_threads && !error; i++) error = pin(p->workers[i - 1].thread, cpus[i]);
    if (error) return apr_fail(e, APR_EUNAVAIL, "threads cannot be pinned to CPUs: %s", strerror(error));
    return APR_OK;
}

void apr_parallel_for(struct apr_pool *p, size_t n, size_t n_chunk, apr_task_fn *fn, void *ctx)
{
    if (n == 0) return;
    if (n_chunk == 0) n_chunk = 1;
    p->fn = fn;
    p->ctx = ctx;
    p->n = n;
    p->n_chunk = n_chunk;
    p->n_chunks = n / n_chunk + (n % n_chunk != 0);
    atomic_store(&p->next, 0);
    if (p->n_threads == 1 || p->n_chunks == 1) {
        run_chunks(p, 0);
        return;
    }
    atomic_store(&p->open, true);
    atomic_fetch_add(&p->epoch, 1);
    if (atomic_load(&p->n_asleep)) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
    run_chunks(p, 0);
    atomic_store(&p->open, false);
    await_workers(p);
}

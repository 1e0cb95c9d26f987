/* One task at a time. Its chunks are dealt out in turn, chunk i to thread i mod T, and who is done with his
 * own takes over those of others: which thread runs a chunk is open, what the chunk is is not.
 *
 * No line of memory is written by all threads: a region of a forward pass takes microseconds, in which a
 * counter would travel through all cores several times. Every thread has a seat, a line that says how many of
 * its chunks are taken, by itself or by others, with the number of the task, so that it need not be reset.
 * The task has a number that is odd while it is being replaced; who reads it looks whether the number is
 * still the same afterwards.
 *
 * The caller returns when all chunks are taken and nobody is inside. Who takes a chunk has said before that
 * he is inside, so whoever sees the chunk taken sees that, too. A worker that sleeps through a task delays
 * nobody: others take its chunks, and it finds none.
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
#define LINE_BYTES  64u
#define FETCH_LINES 4u  /* between two looks for a task */
#define MOST_VISITS 16u /* seats without a chunk left that a worker looks at before it gives up */
#define TAKEN_BITS  24u
#define NUMBER_BITS (64u - TAKEN_BITS)
#define MOST_TAKEN  (((uint64_t)1 << TAKEN_BITS) - 1)

struct seat {
    _Alignas(LINE_BYTES) atomic_uint_least64_t taken; /* task number << TAKEN_BITS | takes of its chunks */
    atomic_bool is_inside;
    _Alignas(LINE_BYTES) uint8_t apart[LINE_BYTES]; /* lines are fetched in pairs */
};

struct worker {
    struct apr_pool *pool;
    unsigned i_thread;
    pthread_t thread;
};

/* What threads know of a task. */
struct task {
    uint64_t number; /* of NUMBER_BITS */
    apr_task_fn *fn;
    apr_ahead_fn *ahead;
    void *ctx;
    size_t n, n_chunk, n_chunks;
    size_t n_take; /* chunks that are taken at once: 1, unless a thread has more than MOST_TAKEN */
};

struct apr_pool {
    struct apr_arena arena; /* owns this struct, seats and workers */
    unsigned n_threads;
    int64_t spin_ns;        /* 0 when there are more threads than CPUs */
    struct seat *seats;     /* [n_threads]; 0 is the caller's */
    struct worker *workers; /* [n_threads - 1] */
    cpu_set_t *before;      /* the caller's CPUs before it was pinned; NULL: it is not */

    /* Written by the caller alone, read by all: one line. */
    _Alignas(LINE_BYTES) uint8_t apart[LINE_BYTES];
    _Alignas(LINE_BYTES) atomic_uint_least64_t epoch; /* twice the number of the task; odd: it is replaced */
    _Atomic(apr_task_fn *) fn;
    _Atomic(apr_ahead_fn *) ahead_fn;
    _Atomic(void *) ctx;
    atomic_size_t n, n_chunk;
    atomic_bool stop;

    _Alignas(LINE_BYTES) atomic_bool caller_waits;
    atomic_uint n_asleep;
    pthread_mutex_t lock;
    pthread_cond_t wake, left;

    _Alignas(LINE_BYTES) struct apr_ahead ahead; /* the caller's */
};

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

/* A little of what the thread will read next, or a pause. */
static void pass_time(struct apr_ahead *a)
{
    if (!a->n_bytes) {
        relax();
        return;
    }
    size_t n = a->n_bytes < FETCH_LINES * LINE_BYTES ? a->n_bytes : FETCH_LINES * LINE_BYTES;
    for (size_t i = 0; i < n; i += LINE_BYTES) __builtin_prefetch((const uint8_t *)a->at + i, 0, 2);
    a->at = (const uint8_t *)a->at + n;
    a->n_bytes -= n;
}

/* ---- chunks ------------------------------------------------------------------------------------------- */

/* Takes of a thread's own chunks. */
static size_t n_takes(const struct apr_pool *p, const struct task *t, unsigned i_seat)
{
    size_t n = i_seat < t->n_chunks ? (t->n_chunks - i_seat - 1) / p->n_threads + 1 : 0;
    return n / t->n_take + (n % t->n_take != 0);
}

/* One more of the seat's takes; false: there is none left. */
static bool take(struct seat *s, const struct task *t, size_t n, size_t *k)
{
    uint64_t seen = atomic_load_explicit(&s->taken, memory_order_acquire), now;
    do {
        uint64_t number = seen >> TAKEN_BITS;
        *k = number == t->number ? (size_t)(seen & MOST_TAKEN) : 0;
        bool is_newer = (number - t->number) << TAKEN_BITS >> 63 == 0 && number != t->number;
        if (is_newer || *k >= n) return false;
        now = t->number << TAKEN_BITS | (*k + 1);
    } while (!atomic_compare_exchange_weak_explicit(&s->taken, &seen, now, memory_order_acq_rel,
                                                    memory_order_acquire));
    return true;
}

static void run_take(const struct apr_pool *p, const struct task *t, size_t i_seat, size_t k,
                     unsigned i_thread)
{
    for (size_t i = k * t->n_take; i < (k + 1) * t->n_take; i++) {
        size_t i_chunk = i_seat + i * p->n_threads;
        if (i_chunk >= t->n_chunks) return;
        size_t begin = i_chunk * t->n_chunk, n_left = t->n - begin;
        t->fn(t->ctx, begin, begin + (n_left < t->n_chunk ? n_left : t->n_chunk), i_thread);
    }
}

/* The own chunks, then those of others; the caller looks at all of them. false: all were taken. */
static bool run_chunks(struct apr_pool *p, const struct task *t, unsigned i_thread)
{
    bool has_run = false;
    unsigned n_visits = 0;
    for (unsigned i = 0; i < p->n_threads && (n_visits < MOST_VISITS || i_thread == 0); i++) {
        unsigned i_seat = i_thread + i < p->n_threads ? i_thread + i : i_thread + i - p->n_threads;
        size_t n = n_takes(p, t, i_seat), k;
        for (n_visits++; take(&p->seats[i_seat], t, n, &k); n_visits = 0) {
            run_take(p, t, i_seat, k, i_thread);
            has_run = true;
        }
    }
    return has_run;
}

/* ---- workers ------------------------------------------------------------------------------------------ */

static void count_chunks(const struct apr_pool *p, uint64_t epoch, struct task *t)
{
    t->number = (epoch / 2) & (((uint64_t)1 << NUMBER_BITS) - 1);
    t->n_chunks = t->n / t->n_chunk + (t->n % t->n_chunk != 0);
    t->n_take = 1 + t->n_chunks / p->n_threads / MOST_TAKEN;
}

/* false: it is being replaced. */
static bool read_task(struct apr_pool *p, uint64_t epoch, struct task *t)
{
    t->fn = atomic_load_explicit(&p->fn, memory_order_acquire);
    t->ahead = atomic_load_explicit(&p->ahead_fn, memory_order_acquire);
    t->ctx = atomic_load_explicit(&p->ctx, memory_order_acquire);
    t->n = atomic_load_explicit(&p->n, memory_order_acquire);
    t->n_chunk = atomic_load_explicit(&p->n_chunk, memory_order_acquire);
    if (epoch % 2 || atomic_load_explicit(&p->epoch, memory_order_relaxed) != epoch) return false;
    count_chunks(p, epoch, t);
    return true;
}

static bool has_news(struct apr_pool *p, uint64_t seen)
{
    return atomic_load(&p->epoch) != seen || atomic_load(&p->stop);
}

static void await_task(struct apr_pool *p, uint64_t seen, struct apr_ahead *ahead)
{
    int64_t ns_end = p->spin_ns ? apr_now_ns() + p->spin_ns : 0;
    do
        for (int i = 0; i < SPINS_LOOK; i++) {
            if (has_news(p, seen)) return;
            pass_time(ahead);
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
    struct seat *own = &p->seats[w->i_thread];
    struct apr_ahead ahead = {0};
    struct task t;
    for (uint64_t seen = 0;;) {
        await_task(p, seen, &ahead);
        if (atomic_load(&p->stop)) return NULL;
        uint64_t epoch = atomic_load(&p->epoch);
        if (!read_task(p, epoch, &t)) continue;
        seen = epoch;
        atomic_store_explicit(&own->is_inside, true, memory_order_relaxed); /* take releases it */
        if (run_chunks(p, &t, w->i_thread) && t.ahead) ahead = t.ahead(t.ctx, w->i_thread);
        atomic_store(&own->is_inside, false);
        if (atomic_load(&p->caller_waits)) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->left);
            pthread_mutex_unlock(&p->lock);
        }
    }
}

/* The first seat from i on whose thread is inside; n_threads: there is none. */
static unsigned find_inside(struct apr_pool *p, unsigned i)
{
    while (i < p->n_threads && !atomic_load(&p->seats[i].is_inside)) i++;
    return i;
}

static void await_workers(struct apr_pool *p)
{
    int64_t ns_end = 0;
    unsigned i = find_inside(p, 1); /* who has left does not come back */
    for (int k = 1; i < p->n_threads; i = find_inside(p, i), k++) {
        pass_time(&p->ahead);
        if (k % SPINS_LOOK) continue;
        int64_t ns = apr_now_ns();
        if (!ns_end) ns_end = ns + p->spin_ns;
        if (ns >= ns_end) break;
    }
    if (i == p->n_threads) return;
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->caller_waits, true);
    while ((i = find_inside(p, i)) < p->n_threads) pthread_cond_wait(&p->left, &p->lock);
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
    p->seats = apr_arena_get(&arena, n_threads * sizeof *p->seats);
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

/* Between two numbers, so that nobody takes a mixture for a task. */
static void publish(struct apr_pool *p, struct task *t)
{
    uint64_t epoch = atomic_load_explicit(&p->epoch, memory_order_relaxed);
    atomic_store_explicit(&p->epoch, epoch + 1, memory_order_relaxed);
    atomic_store_explicit(&p->fn, t->fn, memory_order_release);
    atomic_store_explicit(&p->ahead_fn, t->ahead, memory_order_release);
    atomic_store_explicit(&p->ctx, t->ctx, memory_order_release);
    atomic_store_explicit(&p->n, t->n, memory_order_release);
    atomic_store_explicit(&p->n_chunk, t->n_chunk, memory_order_release);
    atomic_store(&p->epoch, epoch + 2);
    count_chunks(p, epoch + 2, t);
    if (!atomic_load(&p->n_asleep)) return;
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

void apr_parallel_for_ahead(struct apr_pool *p, size_t n, size_t n_chunk, apr_task_fn *fn,
                            apr_ahead_fn *ahead, void *ctx)
{
    struct task t = {.fn = fn, .ahead = ahead, .ctx = ctx, .n = n, .n_chunk = n_chunk ? n_chunk : 1};
    if (n == 0) return;
    if (p->n_threads == 1 || n <= t.n_chunk) {
        for (size_t i = 0; i < n; i += t.n_chunk) fn(ctx, i, n - i < t.n_chunk ? n : i + t.n_chunk, 0);
        return;
    }
    publish(p, &t);
    run_chunks(p, &t, 0);
    if (ahead) p->ahead = ahead(ctx, 0);
    await_workers(p);
}

void apr_parallel_for(struct apr_pool *p, size_t n, size_t n_chunk, apr_task_fn *fn, void *ctx)
{
    apr_parallel_for_ahead(p, n, n_chunk, fn, NULL, ctx);
}

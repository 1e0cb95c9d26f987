/* Threads. The only user of <pthread.h>.
 *
 * apr_parallel_for splits [0, n) into contiguous chunks whose borders depend on n and n_chunk only,
 * never on the number of threads, so that results cannot. Workers spin shortly, then sleep.
 * One pool per program; calls must not nest.
 */
#ifndef APR_POOL_H
#define APR_POOL_H

#include <stddef.h>

#include "err.h"

struct apr_pool;
/* i_thread < apr_pool_threads: for per-thread scratch. */
typedef void apr_task_fn(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread);

/* n_threads 0: the number of CPUs this process may use (cpus.h). */
struct apr_pool *apr_pool_open(unsigned n_threads);
void apr_pool_close(struct apr_pool *p);
unsigned apr_pool_threads(const struct apr_pool *p);
/* Every thread, the caller's too, stays on a CPU of its own from now on, one a core as far as there are
 * cores; the caller's mask is put back by apr_pool_close. Only on request: two programs that pin meet on the
 * same CPUs. More threads than CPUs: APR_EUSAGE; refused by the system: APR_EUNAVAIL. */
APR_MUST_USE enum apr_code apr_pool_pin(struct apr_pool *p, struct apr_err *e);
/* Runs fn over all chunks of n_chunk (>= 1) indices and returns when all are done. The caller works too.
 * Chunk i is thread i mod apr_pool_threads's, unless another thread is done before. */
void apr_parallel_for(struct apr_pool *p, size_t n, size_t n_chunk, apr_task_fn *fn, void *ctx);

/* Memory that a thread will read: it may be fetched, at whatever time, and need not be there any more. */
struct apr_ahead {
    const void *at;
    size_t n_bytes; /* 0: nothing */
};
typedef struct apr_ahead apr_ahead_fn(void *ctx, unsigned i_thread);
/* The same; a thread that is done asks ahead (while ctx lives) what it will read first in a task to come, and
 * fetches it into its cache while it waits. */
void apr_parallel_for_ahead(struct apr_pool *p, size_t n, size_t n_chunk, apr_task_fn *fn,
                            apr_ahead_fn *ahead, void *ctx);

#endif

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
/* Runs fn over all chunks of n_chunk (>= 1) indices and returns when all are done. The caller works too. */
void apr_parallel_for(struct apr_pool *p, size_t n, size_t n_chunk, apr_task_fn *fn, void *ctx);

#endif

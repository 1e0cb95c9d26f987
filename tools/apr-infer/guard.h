/* What keeps a failing backend from being asked again and again: a circuit breaker, retries that wait ever
 * longer, and a bulkhead. Clocks are given, so that tests need not wait.
 *
 * The breaker opens at the fifth failure in a row and refuses everything; after 30 s it lets calls through
 * again and closes at the second success, or opens again at the first failure. A retry waits 100 ms, 200 ms,
 * 400 ms ... (at most 30 s), ten percent more or less. A bulkhead has so many places and refuses at once when
 * all are taken.
 *
 *     if (!apr_breaker_allows(&b, apr_now_ns())) ...; try it; apr_breaker_note(&b, ok, apr_now_ns());
 *     nanosleep(apr_backoff_ns(i_retry, &random));
 *     if (!apr_bulkhead_take(&h)) ...; apr_bulkhead_give(&h);
 */
#ifndef APR_INFER_GUARD_H
#define APR_INFER_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define APR_BREAKER_FAILURES  5u
#define APR_BREAKER_SUCCESSES 2u
#define APR_BREAKER_NS        INT64_C(30000000000)
#define APR_RETRIES           3u
#define APR_BACKOFF_NS        INT64_C(100000000)
#define APR_BACKOFF_MAX_NS    INT64_C(30000000000)

enum apr_breaker_state { APR_BREAKER_CLOSED = 0, APR_BREAKER_OPEN, APR_BREAKER_HALF_OPEN };

struct apr_breaker { /* zeros: closed */
    enum apr_breaker_state state;
    unsigned n_failures;  /* in a row */
    unsigned n_successes; /* since it is half open */
    int64_t ns_opened;
};

/* false: refuse without trying. */
bool apr_breaker_allows(struct apr_breaker *b, int64_t ns_now);
void apr_breaker_note(struct apr_breaker *b, bool ok, int64_t ns_now);
/* Until it lets calls through; 0: now. */
int64_t apr_breaker_wait_ns(const struct apr_breaker *b, int64_t ns_now);

/* i_retry: 0 before the first one. random: state of the jitter, any value but 0. */
int64_t apr_backoff_ns(unsigned i_retry, uint64_t *random);

struct apr_bulkhead {
    size_t n_places, n_taken;
};
bool apr_bulkhead_take(struct apr_bulkhead *h);
void apr_bulkhead_give(struct apr_bulkhead *h);

#endif

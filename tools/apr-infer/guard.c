/* See guard.h. */
#include "guard.h"

#include <assert.h>

bool apr_breaker_allows(struct apr_breaker *b, int64_t ns_now)
{
    if (b->state == APR_BREAKER_OPEN && ns_now - b->ns_opened >= APR_BREAKER_NS) {
        b->state = APR_BREAKER_HALF_OPEN;
        b->n_successes = 0;
    }
    return b->state != APR_BREAKER_OPEN;
}

void apr_breaker_note(struct apr_breaker *b, bool ok, int64_t ns_now)
{
    if (ok) {
        b->n_failures = 0;
        if (b->state == APR_BREAKER_HALF_OPEN && ++b->n_successes == APR_BREAKER_SUCCESSES)
            b->state = APR_BREAKER_CLOSED;
        return;
    }
    b->n_failures++;
    if (b->state == APR_BREAKER_CLOSED && b->n_failures < APR_BREAKER_FAILURES) return;
    b->state = APR_BREAKER_OPEN;
    b->ns_opened = ns_now;
}

int64_t apr_breaker_wait_ns(const struct apr_breaker *b, int64_t ns_now)
{
    int64_t ns = b->ns_opened + APR_BREAKER_NS - ns_now;
    return b->state == APR_BREAKER_OPEN && ns > 0 ? ns : 0;
}

int64_t apr_backoff_ns(unsigned i_retry, uint64_t *random)
{
    int64_t ns = APR_BACKOFF_NS;
    for (unsigned i = 0; i < i_retry && ns < APR_BACKOFF_MAX_NS; i++) ns *= 2;
    if (ns > APR_BACKOFF_MAX_NS) ns = APR_BACKOFF_MAX_NS;
    *random ^= *random << 13; /* xorshift64 (Marsaglia 2003) */
    *random ^= *random >> 7;
    *random ^= *random << 17;
    ns += ns / 1000 * ((int64_t)(*random % 201) - 100); /* 10 percent more or less */
    return ns < APR_BACKOFF_MAX_NS ? ns : APR_BACKOFF_MAX_NS;
}

bool apr_bulkhead_take(struct apr_bulkhead *h)
{
    if (h->n_taken == h->n_places) return false;
    h->n_taken++;
    return true;
}

void apr_bulkhead_give(struct apr_bulkhead *h)
{
    assert(h->n_taken > 0);
    h->n_taken--;
}

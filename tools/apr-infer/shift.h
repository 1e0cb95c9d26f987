/* Context shift: a full sequence goes on without its middle.
 *
 * The first n_keep tokens stay, of the rest the newer half; what moved is computed again at its new
 * positions. The sequence is then, to the last bit, what a fresh prompt of these tokens would be: nothing of
 * what was dropped lives on in the cache.
 *
 *     if (cache.n_pos == cache.n_max) TRY(apr_shift_cache(&fwd, &cache, n_keep, e));
 */
#ifndef APR_INFER_SHIFT_H
#define APR_INFER_SHIFT_H

#include "forward.h"

struct apr_shift {
    bool is_on;
    size_t n_keep;
};

/* n_keep and one more token do not fill a context of n_ctx: else APR_EUSAGE. */
APR_MUST_USE enum apr_code apr_shift_check(size_t n_keep, size_t n_ctx, struct apr_err *e);
/* Tokens that stay of n, the first n_keep among them: fewer than n for n > n_keep. */
size_t apr_shift_n_left(size_t n, size_t n_keep);
/* cache holds more than n_keep tokens. */
APR_MUST_USE enum apr_code apr_shift_cache(struct apr_forward *f, struct apr_cache *cache, size_t n_keep,
                                           struct apr_err *e);

#endif

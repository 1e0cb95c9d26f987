/* Moving the newer half of a sequence to behind what is kept. */
#include "shift.h"

#include <assert.h>
#include <string.h>

enum apr_code apr_shift_check(size_t n_keep, size_t n_ctx, struct apr_err *e)
{
    if (n_ctx > 1 && n_keep < n_ctx - 1) return APR_OK;
    return apr_fail(e, APR_EUSAGE,
                    "--context-shift: %zu tokens to keep in a context of %zu positions leave none to shift",
                    n_keep, n_ctx);
}

size_t apr_shift_n_left(size_t n, size_t n_keep)
{
    return n > n_keep ? n_keep + (n - n_keep) / 2 : n;
}

enum apr_code apr_shift_cache(struct apr_forward *f, struct apr_cache *cache, size_t n_keep,
                              struct apr_err *e)
{
    size_t n = cache->n_pos, n_moved = apr_shift_n_left(n, n_keep) - n_keep;
    struct apr_arena arena;
    int32_t *ids = NULL;
    assert(n > n_keep);
    apr_arena_init(&arena);
    enum apr_code code = apr_arena_try(&arena, &ids, n_moved, sizeof *ids, "tokens to shift", e);
    if (code == APR_OK) {
        memcpy(ids, cache->ids + n - n_moved, n_moved * sizeof *ids);
        apr_cache_truncate(cache, n_keep);
        if (n_moved) code = apr_forward_prompt(f, cache, ids, n_moved, e);
    }
    apr_arena_free(&arena);
    return code;
}

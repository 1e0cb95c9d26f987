/* Data in plan order. See writer.h. */
#include "writer.h"

#include <inttypes.h>
#include <string.h>
#include <utf8proc.h>

static uint64_t padding(uint64_t n, uint32_t alignment)
{
    return (alignment - n % alignment) % alignment;
}

struct apr_writer *apr_writer_new(const struct apr_plan *p, struct apr_sink *s)
{
    struct apr_arena arena;
    struct apr_writer *w;
    apr_arena_init(&arena);
    w = apr_arena_get(&arena, sizeof *w);
    *w = (struct apr_writer){.arena = arena, .plan = p, .sink = s};
    return w;
}

void apr_writer_free(struct apr_writer *w)
{
    struct apr_arena arena = w->arena;
    apr_arena_free(&arena);
}

/* Steps over every tensor that has all its bytes. */
static void advance(struct apr_writer *w)
{
    while (w->i_tensor < w->plan->n_tensors && w->off == w->plan->tensors[w->i_tensor].n_bytes) {
        apr_sink_zeros(w->sink, padding(w->off, w->plan->alignment));
        w->i_tensor++;
        w->off = 0;
    }
}

enum apr_code apr_writer_data(struct apr_writer *w, const void *p, size_t n, struct apr_err *e)
{
    const uint8_t *at = p;
    advance(w);
    while (n) {
        uint64_t n_now;
        if (w->i_tensor == w->plan->n_tensors)
            return apr_fail(e, APR_EFORMAT, "%zu bytes more than the plan of the output holds", n);
        n_now = w->plan->tensors[w->i_tensor].n_bytes - w->off;
        if (n_now > n) n_now = n;
        apr_sink_write(w->sink, at, (size_t)n_now);
        at += n_now;
        n -= (size_t)n_now;
        w->off += n_now;
        advance(w);
    }
    return APR_OK;
}

enum apr_code apr_writer_full(struct apr_writer *w, struct apr_err *e)
{
    advance(w);
    if (w->i_tensor == w->plan->n_tensors || apr_sink_failed(w->sink)) return APR_OK;
    return apr_fail(e, APR_EFORMAT, "tensor \"%s\": %" PRIu64 " of %" PRIu64 " bytes were produced",
                    w->plan->tensors[w->i_tensor].name, w->off, w->plan->tensors[w->i_tensor].n_bytes);
}

static bool is_utf8(const char *s, size_t n)
{
    while (n) {
        utf8proc_int32_t c;
        utf8proc_ssize_t k = utf8proc_iterate((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, &c);
        if (k <= 0) return false;
        s += k;
        n -= (size_t)k;
    }
    return true;
}

enum apr_code apr_writer_check(const struct apr_plan *p, size_t max_name_bytes, struct apr_err *e)
{
    for (uint64_t i = 0; i < p->n_tensors; i++) {
        const struct apr_plan_tensor *t = &p->tensors[i];
        size_t n = strlen(t->name);
        uint64_t n_bytes;
        char shown[256];
        if (n == 0 || n > max_name_bytes || !is_utf8(t->name, n))
            return apr_fail(e, APR_ELOAD, "tensor \"%s\": a name of %zu bytes, expected 1 to %zu of UTF-8",
                            apr_escape(shown, sizeof shown, t->name, n), n, max_name_bytes);
        if (t->src && t->src->type == t->type && t->src->packing != APR_ROWS) {
            n_bytes = t->src->n_bytes; /* the original's packing, carried as it is */
        } else {
            TRY(apr_tensor_bytes(t->type, t->n_dims, t->dims, &n_bytes, e));
        }
        if (n_bytes != t->n_bytes)
            return apr_fail(e, APR_EFORMAT,
                            "tensor \"%s\": %" PRIu64 " bytes planned, type and shape need %" PRIu64,
                            apr_escape(shown, sizeof shown, t->name, n), t->n_bytes, n_bytes);
    }
    return APR_OK;
}

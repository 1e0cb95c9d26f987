/* Chunks of zeroed memory in a list; the newest is filled from its front. */
#include "arena.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ckd.h"

#define ALIGN_BYTES     ((size_t)64)
#define MIN_CHUNK_BYTES ((size_t)4096)
#define MAX_CHUNK_BYTES ((size_t)1 << 20)

#if defined(__SANITIZE_ADDRESS__)
#define ONE_EACH 1 /* every allocation is its own chunk, so that the sanitizer sees its end */
#else
#define ONE_EACH 0
#endif

struct apr_arena_chunk {
    struct apr_arena_chunk *next;
    void *block; /* owned: what calloc returned */
    size_t cap_bytes, used_bytes;
    uint8_t *data; /* aligned */
};

void apr_arena_init(struct apr_arena *a)
{
    *a = (struct apr_arena){0};
}

void apr_arena_free(struct apr_arena *a)
{
    struct apr_arena_chunk *c = a->head;
    while (c) {
        struct apr_arena_chunk *next = c->next;
        free(c->block);
        c = next;
    }
    apr_arena_init(a);
}

/* calloc leaves large blocks to the kernel's lazily zeroed pages. With ONE_EACH the block ends where the data
 * ends. */
static struct apr_arena_chunk *chunk_new(size_t n_bytes)
{
    size_t n_total;
    const size_t n_head = (sizeof(struct apr_arena_chunk) + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    if (ckd_add(&n_total, n_bytes, n_head + (ONE_EACH ? 0 : ALIGN_BYTES))) return NULL;
    void *block = NULL;
    if (ONE_EACH) {
        if (posix_memalign(&block, ALIGN_BYTES, n_total)) return NULL;
        memset(block, 0, n_total);
    } else {
        block = calloc(1, n_total);
    }
    if (!block) return NULL;
    uint8_t *data = (uint8_t *)block + n_head;
    data += (ALIGN_BYTES - (uintptr_t)data % ALIGN_BYTES) % ALIGN_BYTES;
    struct apr_arena_chunk *c = (void *)(data - n_head);
    *c = (struct apr_arena_chunk){.block = block, .cap_bytes = n_bytes, .data = data};
    return c;
}

static void *take(struct apr_arena *a, size_t n_bytes)
{
    struct apr_arena_chunk *c = a->head;
    if (n_bytes == 0) n_bytes = 1;
    if (c && c->cap_bytes - c->used_bytes >= n_bytes) {
        void *p = c->data + c->used_bytes;
        size_t n_step = (n_bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
        size_t n_left = c->cap_bytes - c->used_bytes;
        c->used_bytes += n_step < n_left ? n_step : n_left;
        a->n_bytes += n_bytes;
        return p;
    }
    size_t n_chunk = c ? 2 * c->cap_bytes : MIN_CHUNK_BYTES;
    if (n_chunk > MAX_CHUNK_BYTES) n_chunk = MAX_CHUNK_BYTES;
    bool own = ONE_EACH || n_bytes > n_chunk / 2;
    struct apr_arena_chunk *fresh = chunk_new(own ? n_bytes : n_chunk);
    if (!fresh) return NULL;
    if (own && c) { /* the newest chunk keeps being filled */
        fresh->used_bytes = n_bytes;
        fresh->next = c->next;
        c->next = fresh;
        a->n_bytes += n_bytes;
        return fresh->data;
    }
    fresh->next = c;
    a->head = fresh;
    return take(a, n_bytes);
}

_Noreturn void apr_memory_exhausted(size_t n_bytes)
{
    char line[128];
    int n = snprintf(line, sizeof line, "%s: out of memory (%zu bytes wanted)\n",
                     program_invocation_short_name, n_bytes);
    if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0) exit(APR_EIO);
    exit(APR_ELOAD);
}

void *apr_arena_get(struct apr_arena *a, size_t n_bytes)
{
    void *p = take(a, n_bytes);
    if (!p) apr_memory_exhausted(n_bytes);
    return p;
}

void *apr_heap_get(size_t n_bytes)
{
    void *p = malloc(n_bytes ? n_bytes : 1);
    if (!p) apr_memory_exhausted(n_bytes);
    return p;
}

void *apr_heap_resize(void *p, size_t n_bytes)
{
    if (n_bytes == 0) {
        free(p);
        return NULL;
    }
    void *q = realloc(p, n_bytes);
    if (!q) apr_memory_exhausted(n_bytes);
    return q;
}

void apr_heap_free(void *p)
{
    free(p);
}

enum apr_code apr_arena_try(struct apr_arena *a, void *out_ptr, size_t n, size_t n_each, const char *what,
                            struct apr_err *e)
{
    size_t n_bytes;
    void *p = ckd_mul(&n_bytes, n, n_each) ? NULL : take(a, n_bytes);
    memcpy(out_ptr, &p, sizeof p);
    if (p) return APR_OK;
    return apr_fail(e, APR_ELOAD, "%s: cannot allocate %zu times %zu bytes", what, n, n_each);
}

char *apr_arena_strdup(struct apr_arena *a, const char *s)
{
    return apr_arena_strndup(a, s, strlen(s));
}

char *apr_arena_strndup(struct apr_arena *a, const char *s, size_t n_bytes)
{
    size_t n_total;
    if (ckd_add(&n_total, n_bytes, (size_t)1)) n_total = SIZE_MAX;
    char *p = apr_arena_get(a, n_total);
    if (n_bytes) memcpy(p, s, n_bytes);
    return p;
}

char *apr_arena_printf(struct apr_arena *a, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    size_t n_total = n < 0 ? 1 : (size_t)n + 1;
    char *p = apr_arena_get(a, n_total);
    if (n > 0) vsnprintf(p, n_total, format, again);
    va_end(again);
    return p;
}

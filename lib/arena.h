/* Lifetimes: an arena owns everything allocated from it and frees it in one call.
 *
 * Use apr_arena_try for sizes that come from a file or a request; apr_arena_get for our own sizes
 * (it ends the program with status 6 when memory is exhausted: the one exit in lib besides tool.c).
 * Memory is zeroed and aligned to 64.
 */
#ifndef APR_ARENA_H
#define APR_ARENA_H

#include <stddef.h>

#include "err.h"

struct apr_arena_chunk;
struct apr_arena {
    struct apr_arena_chunk *head; /* owned */
    size_t n_bytes;               /* handed out so far */
};

void apr_arena_init(struct apr_arena *a);
void apr_arena_free(struct apr_arena *a);
void *apr_arena_get(struct apr_arena *a, size_t n_bytes) __attribute__((returns_nonnull, malloc));
/* *out is NULL on failure. n_each * n is checked. what names the thing in the message. */
APR_MUST_USE enum apr_code apr_arena_try(struct apr_arena *a, void *out_ptr, size_t n, size_t n_each,
                                         const char *what, struct apr_err *e);
/* For libraries that allocate themselves and whose callers would not notice a failure. */
void *apr_heap_get(size_t n_bytes) __attribute__((returns_nonnull));
void *apr_heap_resize(void *p, size_t n_bytes); /* n_bytes 0 frees, and is NULL */
void apr_heap_free(void *p);
_Noreturn void apr_memory_exhausted(size_t n_bytes); /* how apr_arena_get and apr_heap_get end the program */
char *apr_arena_strdup(struct apr_arena *a, const char *s);
char *apr_arena_strndup(struct apr_arena *a, const char *s, size_t n_bytes); /* NUL added */
char *apr_arena_printf(struct apr_arena *a, const char *format, ...) APR_PRINTF(2, 3);

#endif

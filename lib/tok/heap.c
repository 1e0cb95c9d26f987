/* See heap.h: a binary heap. */
#include "heap.h"

enum apr_code apr_heap_push(struct apr_buf *heap, struct apr_candidate c, struct apr_err *e)
{
    TRY(apr_buf_append(heap, &c, sizeof c, e));
    struct apr_candidate *at = (struct apr_candidate *)(void *)heap->data;
    size_t i = heap->n_bytes / sizeof c - 1;
    for (; i > 0 && at[(i - 1) / 2].key > c.key; i = (i - 1) / 2) at[i] = at[(i - 1) / 2];
    at[i] = c;
    return APR_OK;
}

struct apr_candidate apr_heap_pop(struct apr_buf *heap)
{
    struct apr_candidate *at = (struct apr_candidate *)(void *)heap->data;
    struct apr_candidate top = at[0];
    heap->n_bytes -= sizeof top;
    size_t n = heap->n_bytes / sizeof top;
    struct apr_candidate last = at[n];
    size_t i = 0;
    for (size_t kid = 1; kid < n; kid = 2 * i + 1) {
        if (kid + 1 < n && at[kid + 1].key < at[kid].key) kid++;
        if (at[kid].key >= last.key) break;
        at[i] = at[kid];
        i = kid;
    }
    at[i] = last;
    return top;
}

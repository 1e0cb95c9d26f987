/* Candidates for a merge, least key first, in memory that lives as long as the text is worked on.
 *
 *     TRY(apr_heap_push(&heap, (struct apr_candidate){key, what}, e)); while (heap.n_bytes) c =
 * apr_heap_pop(&heap);
 */
#ifndef APR_TOK_HEAP_H
#define APR_TOK_HEAP_H

#include "../buf.h"

struct apr_candidate {
    uint64_t key; /* rank in the upper half, place of the left symbol in the lower: a total order */
    uint64_t what;
};

APR_MUST_USE enum apr_code apr_heap_push(struct apr_buf *heap, struct apr_candidate c, struct apr_err *e);
struct apr_candidate apr_heap_pop(struct apr_buf *heap); /* not empty */

#endif

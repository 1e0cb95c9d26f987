/* See memo.h. */
#include "memo.h"

enum { MIN_TEXT_BYTES = 4096, MIN_BITS = 9, MAX_BITS = 15 };

enum apr_code apr_memo_init(struct apr_memo *c, size_t n_text_bytes, struct apr_err *e)
{
    *c = (struct apr_memo){0};
    apr_buf_init(&c->mem, SIZE_MAX);
    if (n_text_bytes < MIN_TEXT_BYTES) return APR_OK;
    uint32_t bits = MIN_BITS;
    while (bits < MAX_BITS && (size_t)1 << bits < n_text_bytes / 8) bits++;
    size_t n_bytes = ((size_t)1 << bits) * sizeof *c->slots;
    uint8_t *room;
    TRY(apr_buf_reserve(&c->mem, n_bytes, &room, e));
    memset(room, 0, n_bytes);
    c->slots = (struct apr_memo_slot *)(void *)room;
    c->shift = 64 - bits;
    return APR_OK;
}

void apr_memo_free(struct apr_memo *c)
{
    apr_buf_free(&c->mem);
    c->slots = NULL;
}

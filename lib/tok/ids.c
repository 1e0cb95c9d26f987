/* struct apr_ids of tok.h: a growable list over apr_buf's memory. */
#include "tok.h"

static struct apr_buf as_buf(const struct apr_ids *ids)
{
    struct apr_buf b;
    apr_buf_init(&b, SIZE_MAX);
    b.data = (uint8_t *)ids->at;
    b.n_bytes = ids->n * sizeof *ids->at;
    b.cap_bytes = ids->cap;
    return b;
}

void apr_ids_free(struct apr_ids *ids)
{
    struct apr_buf b = as_buf(ids);
    apr_buf_free(&b);
    *ids = (struct apr_ids){0};
}

static enum apr_code grow(struct apr_ids *ids, size_t n, struct apr_err *e)
{
    struct apr_buf b = as_buf(ids);
    uint8_t *room;
    TRY(apr_buf_reserve(&b, n * sizeof *ids->at, &room, e));
    ids->at = (int32_t *)(void *)b.data;
    ids->cap = b.cap_bytes;
    return APR_OK;
}

enum apr_code apr_ids_push_all(struct apr_ids *ids, const int32_t *at, size_t n, struct apr_err *e)
{
    if ((ids->n + n) * sizeof *at >= ids->cap) TRY(grow(ids, n, e));
    for (size_t i = 0; i < n; i++) ids->at[ids->n + i] = at[i];
    ids->n += n;
    return APR_OK;
}

enum apr_code apr_ids_push(struct apr_ids *ids, int32_t id, struct apr_err *e)
{
    /* cap is apr_buf's, in bytes, one of which is its final NUL. */
    if ((ids->n + 1) * sizeof *ids->at >= ids->cap) TRY(grow(ids, 1, e));
    ids->at[ids->n++] = id;
    return APR_OK;
}

/* The ring of tokens and the breakers in their text. */
#include "history.h"

#include <string.h>

#define MAX_PIECE_BYTES (1u << 20)

enum apr_code apr_history_init(struct apr_history *h, size_t n_max, size_t n_vocab, const struct apr_tok *tok,
                               const struct apr_strs *breakers, struct apr_arena *arena, struct apr_err *e)
{
    *h = (struct apr_history){.tok = tok, .n_vocab = n_vocab, .n_max = n_max, .breakers = breakers};
    if (!n_max) return APR_OK;
    TRY(apr_arena_try(arena, &h->ring, n_max, sizeof *h->ring, "last tokens", e));
    TRY(apr_arena_try(arena, &h->breaks, n_max, sizeof *h->breaks, "sequence breaks", e));
    TRY(apr_arena_try(arena, &h->ids, n_max, sizeof *h->ids, "distinct tokens", e));
    TRY(apr_arena_try(arena, &h->back, n_max, sizeof *h->back, "last tokens", e));
    TRY(apr_arena_try(arena, &h->lengths, n_max, sizeof *h->lengths, "repetitions", e));
    TRY(apr_arena_try(arena, &h->counts, n_vocab, sizeof *h->counts, "token counts", e));
    return apr_arena_try(arena, &h->round, n_vocab, sizeof *h->round, "token counts", e);
}

/* Whether a breaker ends in the last n_new bytes of text. */
static bool ends_breaker(const struct apr_history *h, const uint8_t *text, size_t n_text, size_t n_new)
{
    for (size_t i = 0; i < h->breakers->n; i++) {
        size_t n = strlen(h->breakers->at[i]), n_old = n_text - n_new;
        size_t from = n_old >= n ? n_old - n + 1 : 0; /* the earliest that ends after the old bytes */
        if (n && memmem(text + from, n_text - from, h->breakers->at[i], n)) return true;
    }
    return false;
}

/* Text so far, as much of it as a breaker can reach back, and the piece of the new token. */
static enum apr_code breaks_at(struct apr_history *h, int32_t id, bool *breaks, struct apr_err *e)
{
    struct apr_buf text;
    *breaks = false;
    if (!h->tok || !h->breakers || !h->breakers->n) return APR_OK;
    apr_buf_init(&text, MAX_PIECE_BYTES);
    enum apr_code code = apr_buf_append(&text, h->tail, h->n_tail, e);
    if (code == APR_OK) code = apr_tok_piece(h->tok, id, true, &text, e);
    if (code == APR_OK) {
        *breaks = ends_breaker(h, text.data, text.n_bytes, text.n_bytes - h->n_tail);
        h->n_tail = text.n_bytes < sizeof h->tail ? text.n_bytes : sizeof h->tail;
        memcpy(h->tail, text.data + text.n_bytes - h->n_tail, h->n_tail);
    }
    apr_buf_free(&text);
    return code;
}

enum apr_code apr_history_add(struct apr_history *h, int32_t id, struct apr_err *e)
{
    if (!h->n_max || id < 0 || (size_t)id >= h->n_vocab) return APR_OK;
    size_t i = h->n_seen % h->n_max;
    h->ring[i] = id;
    TRY(breaks_at(h, id, &h->breaks[i], e));
    h->n_seen++;
    return APR_OK;
}

static size_t n_there(const struct apr_history *h, size_t n)
{
    size_t n_kept = h->n_seen < h->n_max ? h->n_seen : h->n_max;
    return n < n_kept ? n : n_kept;
}

void apr_history_round(struct apr_history *h)
{
    if (++h->i_round) return;
    memset(h->round, 0, h->n_vocab * sizeof *h->round); /* wrapped */
    h->i_round = 1;
}

bool apr_history_touched(struct apr_history *h, int32_t id)
{
    if (h->round[id] == h->i_round) return true;
    h->round[id] = h->i_round;
    h->counts[id] = 0;
    return false;
}

size_t apr_history_counts(struct apr_history *h, size_t n)
{
    size_t n_ids = 0;
    n = n_there(h, n);
    apr_history_round(h);
    for (size_t i = 0; i < n; i++) {
        int32_t id = h->ring[(h->n_seen - 1 - i) % h->n_max];
        if (!apr_history_touched(h, id)) h->ids[n_ids++] = id;
        h->counts[id]++;
    }
    return n_ids;
}

size_t apr_history_back(struct apr_history *h, size_t n)
{
    n = n_there(h, n);
    for (size_t i = 0; i < n; i++) h->back[i] = h->ring[(h->n_seen - 1 - i) % h->n_max];
    return n;
}

size_t apr_history_unbroken(const struct apr_history *h)
{
    size_t n = n_there(h, h->n_max), i = 0;
    while (i < n && !h->breaks[(h->n_seen - 1 - i) % h->n_max]) i++;
    return i;
}

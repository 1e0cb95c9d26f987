/* Matrices laid out anew for the kernels, when it pays.
 *
 * A matrix is computed from the rows of the mapped file at first, so that the first token waits for nothing.
 * Once enough tokens have passed through it, it is copied into strips (kern.h), and the pages of the rows are
 * given back: resident memory stays that of the model. Strips give the bits of rows, so the change is nowhere
 * visible but in time. Without memory for them, rows go on serving.
 *
 *     const uint8_t *at = apr_strips_of(c->strips, c->pool, w, n_toks); // NULL: rows
 */
#ifndef APR_INFER_STRIPS_H
#define APR_INFER_STRIPS_H

#include "linear.h"
#include "model.h"

struct apr_strip_slot;

struct apr_strips {
    const struct apr_model *model; /* borrowed; its files hold the rows */
    struct apr_arena *arena;       /* borrowed; of the table */
    struct apr_strip_slot *slots;  /* [n_slots], a power of two, by address and rows of the matrix */
    size_t n_slots, n_slots_used;
    uint8_t *room; /* owned; address space for as many bytes as the files have */
    size_t room_bytes, room_used_bytes;
    bool is_full; /* no room, or no memory to fill it */
};

/* So many tokens, in whatever steps, or so many steps have to pass through a matrix before it is copied. The
 * copy, most of it the kernel's clearing of new pages, costs what 100 tokens of a prompt or 20 to 50 single
 * ones do: a process that answers in a word does without. */
#define APR_STRIPS_AFTER_TOKS  128
#define APR_STRIPS_AFTER_STEPS 16

void apr_strips_init(struct apr_strips *s, const struct apr_model *m, struct apr_arena *arena);
void apr_strips_close(struct apr_strips *s);
/* The strips of rows 0 .. n_rows - n_rows % APR_STRIP_ROWS of w, which n_toks tokens are about to pass
 * through; NULL while its rows serve. Not from inside a parallel region. s may be NULL. */
const uint8_t *apr_strips_of(struct apr_strips *s, struct apr_pool *pool, const struct apr_mat *w,
                             size_t n_toks);
/* The strips that w has now, or NULL: for who wants to know where it lies. */
const uint8_t *apr_strips_made(const struct apr_strips *s, const struct apr_mat *w);

#endif

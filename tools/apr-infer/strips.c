/* Which matrices have strips, and making them. */
#include "strips.h"

#include "log.h"
#include "room.h"

#define FIRST_SLOTS    512u
#define TASK_BYTES     (256u << 10)
#define PIECE_BYTES    (16u << 20) /* copied before its rows are given back: what is there twice */
#define FORGET_EVERY   64u /* uses: a tied embedding is read from the rows of a matrix that has strips */
#define RESERVE_DIVIDE 8   /* this part of the memory that is available is left to others */
#define ALIGN_BYTES    ((size_t)64)

struct apr_strip_slot {
    const uint8_t *rows; /* NULL: free */
    size_t n_rows;
    uint8_t *at;            /* NULL: none yet */
    size_t n_toks, n_steps; /* passed through the rows */
    size_t n_uses;          /* of the strips */
};

void apr_strips_init(struct apr_strips *s, const struct apr_model *m, struct apr_arena *arena)
{
    *s = (struct apr_strips){.model = m, .arena = arena};
}

void apr_strips_close(struct apr_strips *s)
{
    apr_room_close(s->room, s->room_bytes);
    *s = (struct apr_strips){0};
}

static struct apr_strip_slot *find(struct apr_strip_slot *slots, size_t n_slots, const struct apr_mat *w)
{
    size_t i = (size_t)(((uintptr_t)w->data ^ w->n_rows << 20) * 0x9e3779b97f4a7c15U >> 32) & (n_slots - 1);
    while (slots[i].rows && (slots[i].rows != w->data || slots[i].n_rows != w->n_rows))
        i = (i + 1) & (n_slots - 1);
    return &slots[i];
}

/* Twice as many slots once half of them are used. NULL: no memory. */
static struct apr_strip_slot *slot_of(struct apr_strips *s, const struct apr_mat *w)
{
    if (2 * s->n_slots_used >= s->n_slots) {
        struct apr_err why = {0};
        struct apr_strip_slot *slots;
        size_t n = s->n_slots ? 2 * s->n_slots : FIRST_SLOTS;
        if (apr_arena_try(s->arena, &slots, n, sizeof *slots, "strips", &why) != APR_OK) return NULL;
        for (size_t i = 0; i < s->n_slots; i++) {
            const struct apr_mat key = {.data = s->slots[i].rows, .n_rows = s->slots[i].n_rows};
            if (key.data) *find(slots, n, &key) = s->slots[i];
        }
        s->slots = slots;
        s->n_slots = n;
    }
    struct apr_strip_slot *slot = find(s->slots, s->n_slots, w);
    if (slot->rows) return slot;
    *slot = (struct apr_strip_slot){.rows = w->data, .n_rows = w->n_rows};
    s->n_slots_used++;
    return slot;
}

/* Address space is reserved once, for all that the files hold; it becomes memory as it is filled. */
static uint8_t *take_room(struct apr_strips *s, size_t n_bytes)
{
    if (s->is_full) return NULL;
    if (!s->room) {
        for (uint64_t i = 0; i < s->model->n_tensors; i++)
            s->room_bytes += (size_t)s->model->tensors[i].n_bytes + ALIGN_BYTES;
        uint64_t n_free = apr_memory_available();
        bool fits = n_free - n_free / RESERVE_DIVIDE > s->room_bytes;
        if (fits) s->room = apr_room_open(s->room_bytes);
        s->is_full = !s->room;
        if (s->is_full) {
            apr_note("%s: no memory to lay %zu bytes of weights out anew; generation is slower",
                     s->model->name, s->room_bytes);
            return NULL;
        }
    }
    n_bytes = (n_bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    if (n_bytes > s->room_bytes - s->room_used_bytes) return NULL;
    uint8_t *p = s->room + s->room_used_bytes;
    s->room_used_bytes += n_bytes;
    return p;
}

struct job {
    const struct apr_mat *w;
    const uint8_t *from; /* rows of w */
    uint8_t *to;
};

static void copy_task(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    const struct job *j = ctx;
    size_t off = i_begin * APR_STRIP_ROWS * j->w->row_bytes;
    (void)i_thread;
    j->w->mm->to_strips(j->from + off, j->w->row_bytes, (i_end - i_begin) * APR_STRIP_ROWS, j->w->n_cols,
                        j->to + off);
}

/* Piece by piece, so that rows and strips of a large matrix are not in memory at the same time. */
static void copy_rows(const struct apr_model *m, struct apr_pool *pool, const struct apr_mat *w, uint8_t *to,
                      size_t n_strips)
{
    const size_t n_strip = APR_STRIP_ROWS * w->row_bytes;
    const size_t n_piece = n_strip < PIECE_BYTES ? PIECE_BYTES / n_strip : 1;
    for (size_t i = 0; i < n_strips; i += n_piece) {
        size_t n = n_strips - i < n_piece ? n_strips - i : n_piece;
        struct job j = {.w = w, .from = w->data + i * n_strip, .to = to + i * n_strip};
        apr_parallel_for(pool, n, n_strip < TASK_BYTES ? TASK_BYTES / n_strip : 1, copy_task, &j);
        apr_model_forget(m, j.from, n * n_strip);
    }
}

const uint8_t *apr_strips_of(struct apr_strips *s, struct apr_pool *pool, const struct apr_mat *w,
                             size_t n_toks)
{
    if (!s || !w->mm->strips || w->n_rows < APR_STRIP_ROWS) return NULL;
    struct apr_strip_slot *slot = slot_of(s, w);
    if (!slot) return NULL;
    size_t n_strips = w->n_rows / APR_STRIP_ROWS, n_strip = APR_STRIP_ROWS * w->row_bytes;
    if (slot->at) {
        if (++slot->n_uses % FORGET_EVERY == 0) apr_model_forget(s->model, w->data, n_strips * n_strip);
        return slot->at;
    }
    slot->n_toks += n_toks;
    slot->n_steps++;
    if (slot->n_toks < APR_STRIPS_AFTER_TOKS && slot->n_steps < APR_STRIPS_AFTER_STEPS) return NULL;
    slot->at = take_room(s, n_strips * n_strip);
    if (!slot->at) return NULL;
    copy_rows(s->model, pool, w, slot->at, n_strips);
    return slot->at;
}

const uint8_t *apr_strips_made(const struct apr_strips *s, const struct apr_mat *w)
{
    return s && s->n_slots ? find(s->slots, s->n_slots, w)->at : NULL;
}

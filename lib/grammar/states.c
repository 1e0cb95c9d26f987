/* Closures, interning, tidying. */
#include "states.h"

#include <stdlib.h>
#include <string.h>

#define MAX_STATES  16384u
#define MAX_PLACES  (1u << 19)
#define MAX_FRAMES  (1u << 17)
#define MAX_AT_ONCE 512u  /* places of one state */
#define MAX_VISITS  4096u /* visited while one state is made; its hash has twice the room */

static inline uint32_t mix(uint32_t a, uint32_t b)
{
    uint64_t z = ((uint64_t)a << 32 | b) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(z >> 32);
}

static inline uint32_t sum(uint32_t x, uint32_t y)
{
    return x > APR_GRAMMAR_INFINITE - 1 - y ? APR_GRAMMAR_INFINITE : x + y;
}

/* The frame of node over below; UINT32_MAX where it must not be. */
static uint32_t frame_of(struct apr_states *s, uint32_t node, uint32_t below)
{
    uint32_t least = sum(s->a->least[node], s->frames[below].least);
    if (least == APR_GRAMMAR_INFINITE || s->frames[below].depth >= s->a->max_depth) return UINT32_MAX;
    uint32_t i = mix(node, below) & (2 * MAX_FRAMES - 1);
    for (; s->frame_slots[i]; i = (i + 1) & (2 * MAX_FRAMES - 1)) {
        const struct apr_frame *f = &s->frames[s->frame_slots[i]];
        if (f->node == node && f->below == below) return s->frame_slots[i];
    }
    if (s->n_frames == MAX_FRAMES) {
        s->full = true;
        return UINT32_MAX;
    }
    s->frames[s->n_frames] = (struct apr_frame){node, below, least, s->frames[below].depth + 1};
    return s->frame_slots[i] = s->n_frames++;
}

static void visit(struct apr_states *s, uint32_t node, uint32_t frame)
{
    if (sum(s->a->least[node], s->frames[frame].least) == APR_GRAMMAR_INFINITE) return;
    uint32_t i = mix(node, frame ^ 0x55555555u) & (2 * MAX_VISITS - 1);
    for (; s->seen_round[i] == s->round; i = (i + 1) & (2 * MAX_VISITS - 1))
        if (s->seen[i].node == node && s->seen[i].frame == frame) return;
    if (s->n_todo == MAX_VISITS) return;
    s->seen_round[i] = s->round;
    s->seen[i] = s->todo[s->n_todo++] = (struct apr_place){node, frame};
}

static void begin(struct apr_states *s)
{
    s->n_todo = s->n_found = 0;
    s->accepts = false;
    if (++s->round) return;
    memset(s->seen_round, 0, 2 * MAX_VISITS * sizeof *s->seen_round);
    s->round = 1;
}

/* From everything in todo to the bytes that can come. */
static void close_over(struct apr_states *s)
{
    for (uint32_t i = 0; i < s->n_todo; i++) {
        const struct apr_place p = s->todo[i];
        const struct apr_node *n = &s->a->nodes[p.node];
        switch ((enum apr_node_kind)n->kind) {
        case APR_NODE_BYTE:
            s->found[s->n_found++] = p;
            break;
        case APR_NODE_SPLIT:
            visit(s, n->next, p.frame);
            visit(s, n->arg, p.frame);
            break;
        case APR_NODE_CALL: {
            /* A call at the end of its rule returns to where that one returns to: no frame of its own. */
            uint32_t frame = n->next ? frame_of(s, n->next, p.frame) : p.frame;
            if (frame != UINT32_MAX) visit(s, n->arg, frame);
            break;
        }
        case APR_NODE_END:
            if (p.frame)
                visit(s, s->frames[p.frame].node, s->frames[p.frame].below);
            else
                s->accepts = true;
            break;
        }
    }
}

static uint32_t least_of(const struct apr_states *s, struct apr_place p)
{
    return sum(s->a->least[p.node], s->frames[p.frame].least);
}

static int by_place(const void *a_, const void *b_)
{
    const struct apr_place *a = a_, *b = b_;
    if (a->node != b->node) return a->node < b->node ? -1 : 1;
    return (a->frame > b->frame) - (a->frame < b->frame);
}

/* Keeps the places nearest to an end: those below a bar that at most MAX_AT_ONCE reach, then the first ones
 * at the bar. */
static void thin_out(struct apr_states *s)
{
    if (s->n_found <= MAX_AT_ONCE) return;
    uint32_t lo = 0, hi = APR_GRAMMAR_INFINITE - 1;
    while (lo < hi) { /* the largest bar with at most MAX_AT_ONCE places under it */
        uint32_t mid = lo + (hi - lo + 1) / 2, n = 0;
        for (uint32_t i = 0; i < s->n_found; i++) n += least_of(s, s->found[i]) < mid;
        if (n <= MAX_AT_ONCE)
            lo = mid;
        else
            hi = mid - 1;
    }
    uint32_t n_under = 0, n = 0;
    for (uint32_t i = 0; i < s->n_found; i++) n_under += least_of(s, s->found[i]) < lo;
    uint32_t n_more = MAX_AT_ONCE - n_under;
    for (uint32_t i = 0; i < s->n_found; i++) {
        uint32_t least = least_of(s, s->found[i]);
        if (least < lo || (least == lo && n_more && n_more--)) s->found[n++] = s->found[i];
    }
    s->n_found = n;
}

static bool same(const struct apr_states *s, const struct apr_state *st)
{
    return st->n == s->n_found && st->accepts == s->accepts &&
           !memcmp(s->places + st->off, s->found, s->n_found * sizeof *s->found);
}

/* The number of the state that found and accepts make. */
static uint32_t intern(struct apr_states *s)
{
    thin_out(s);
    if (!s->n_found && !s->accepts) return APR_DEAD;
    qsort(s->found, s->n_found, sizeof *s->found, by_place);
    uint32_t h = s->accepts, least = s->accepts ? 0 : APR_GRAMMAR_INFINITE;
    for (uint32_t i = 0; i < s->n_found; i++) {
        h = mix(h ^ s->found[i].node, s->found[i].frame);
        if (least_of(s, s->found[i]) < least) least = least_of(s, s->found[i]);
    }
    uint32_t i = h & (2 * MAX_STATES - 1);
    for (; s->state_slots[i]; i = (i + 1) & (2 * MAX_STATES - 1))
        if (same(s, &s->states[s->state_slots[i]])) return s->state_slots[i];
    if (s->n_states == MAX_STATES || s->n_found > MAX_PLACES - s->n_places) {
        s->full = true;
        return APR_DEAD;
    }
    struct apr_state st = {.off = s->n_places, .n = s->n_found, .least = least, .accepts = s->accepts};
    if (s->n_found) memcpy(s->places + s->n_places, s->found, s->n_found * sizeof *s->found);
    s->n_places += s->n_found;
    s->states[s->n_states] = st;
    return s->state_slots[i] = s->n_states++;
}

static void clear(struct apr_states *s)
{
    memset(s->trans, 0, (size_t)s->n_states * s->a->n_classes * sizeof *s->trans);
    memset(s->frame_slots, 0, 2 * MAX_FRAMES * sizeof *s->frame_slots);
    memset(s->state_slots, 0, 2 * MAX_STATES * sizeof *s->state_slots);
    s->frames[0] = (struct apr_frame){0};
    s->states[APR_DEAD] = (struct apr_state){.least = APR_GRAMMAR_INFINITE};
    s->n_frames = s->n_states = 1;
    s->n_places = 0;
    s->full = false;
}

enum apr_code apr_states_init(struct apr_states *s, const struct apr_automaton *a, struct apr_arena *arena,
                              struct apr_err *e)
{
    *s = (struct apr_states){.a = a};
    const char *what = "grammar states";
    TRY(apr_arena_try(arena, &s->frames, MAX_FRAMES, sizeof *s->frames, what, e));
    TRY(apr_arena_try(arena, &s->frame_slots, 2 * MAX_FRAMES, sizeof *s->frame_slots, what, e));
    TRY(apr_arena_try(arena, &s->places, MAX_PLACES, sizeof *s->places, what, e));
    TRY(apr_arena_try(arena, &s->states, MAX_STATES, sizeof *s->states, what, e));
    TRY(apr_arena_try(arena, &s->state_slots, 2 * MAX_STATES, sizeof *s->state_slots, what, e));
    TRY(apr_arena_try(arena, &s->trans, (size_t)MAX_STATES * a->n_classes, sizeof *s->trans, what, e));
    TRY(apr_arena_try(arena, &s->todo, MAX_VISITS, sizeof *s->todo, what, e));
    TRY(apr_arena_try(arena, &s->found, MAX_VISITS, sizeof *s->found, what, e));
    TRY(apr_arena_try(arena, &s->seen, 2 * MAX_VISITS, sizeof *s->seen, what, e));
    TRY(apr_arena_try(arena, &s->seen_round, 2 * MAX_VISITS, sizeof *s->seen_round, what, e));
    clear(s);
    begin(s);
    visit(s, a->root, 0);
    close_over(s);
    s->start = intern(s);
    if (s->start == APR_DEAD)
        return apr_fail(e, APR_EUSAGE, "the grammar's first text is deeper than %u calls", a->max_depth);
    return APR_OK;
}

uint32_t apr_states_next(struct apr_states *s, uint32_t state, uint8_t byte)
{
    const struct apr_automaton *a = s->a;
    uint32_t *known = &s->trans[(size_t)state * a->n_classes + a->class_of[byte]];
    if (*known) return *known - 1;
    const struct apr_state st = s->states[state];
    begin(s);
    for (uint32_t i = 0; i < st.n; i++) {
        const struct apr_place p = s->places[st.off + i];
        const struct apr_node *n = &a->nodes[p.node];
        if (byte >= n->lo && byte <= n->hi) visit(s, n->next, p.frame);
    }
    close_over(s);
    uint32_t next = intern(s);
    if (!s->full) *known = next + 1; /* what did not fit is asked again after tidying */
    return next;
}

/* The frames that the found places need, as frames of the emptied table. A frame stands after the one below.
 */
static void move_frames(struct apr_states *s, const struct apr_frame *old, uint32_t n_old, uint32_t *moved)
{
    for (uint32_t i = 0; i < s->n_found; i++)
        for (uint32_t f = s->found[i].frame; f && !moved[f]; f = old[f].below) moved[f] = 1;
    for (uint32_t f = 1; f < n_old; f++)
        if (moved[f]) moved[f] = frame_of(s, old[f].node, moved[old[f].below]);
    for (uint32_t i = 0; i < s->n_found; i++) s->found[i].frame = moved[s->found[i].frame];
}

uint32_t apr_states_tidy(struct apr_states *s, uint32_t state, bool *forgot)
{
    *forgot = s->full || s->n_states > MAX_STATES / 2 || s->n_frames > MAX_FRAMES / 2 ||
              s->n_places > MAX_PLACES / 2;
    if (!*forgot) return state;
    struct apr_arena arena;
    const struct apr_state st = s->states[state];
    apr_arena_init(&arena);
    struct apr_frame *old = apr_arena_get(&arena, s->n_frames * sizeof *old);
    uint32_t *moved = apr_arena_get(&arena, s->n_frames * sizeof *moved);
    uint32_t n_old = s->n_frames;
    memcpy(old, s->frames, n_old * sizeof *old);
    memcpy(s->found, s->places + st.off, st.n * sizeof *s->found);
    clear(s);
    s->n_found = st.n;
    move_frames(s, old, n_old, moved);
    s->accepts = st.accepts;
    apr_arena_free(&arena);
    return intern(s);
}

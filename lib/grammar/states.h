/* The states of a matcher: sets of places, their transitions, and the stacks they share.
 *
 * A stack is a frame: where to return to, and the frame below; equal stacks are one frame, so equal states
 * are one number. Tables have fixed room; when it is used up, apr_states_next says dead, and apr_states_tidy
 * begins anew with one state kept.
 *
 *     TRY(apr_states_init(&s, a, arena, e)); id = s.start; id = apr_states_next(&s, id, byte);
 */
#ifndef APR_GRAMMAR_STATES_H
#define APR_GRAMMAR_STATES_H

#include "automaton.h"

#define APR_DEAD 0u /* the state without places */

struct apr_frame {
    uint32_t node, below;  /* return to node, with the stack below; frame 0 is the empty stack */
    uint32_t least, depth; /* fewest bytes from here to the end of the text */
};

struct apr_place {
    uint32_t node, frame; /* node is a BYTE */
};

struct apr_state {
    uint32_t off, n; /* places */
    uint32_t least;
    bool accepts;
};

struct apr_states {
    const struct apr_automaton *a;
    uint32_t start;
    struct apr_frame *frames;
    uint32_t n_frames;
    uint32_t *frame_slots; /* hash: index, 0 = free */
    struct apr_place *places;
    uint32_t n_places;
    struct apr_state *states;
    uint32_t n_states;
    uint32_t *state_slots;
    uint32_t *trans; /* [states, n_classes] state + 1, 0 = not known yet */
    /* Scratch of one step. */
    struct apr_place *todo, *found;
    uint32_t n_todo, n_found;
    struct apr_place *seen; /* hash of what was in todo */
    uint32_t *seen_round, round;
    bool accepts, full;
};

APR_MUST_USE enum apr_code apr_states_init(struct apr_states *s, const struct apr_automaton *a,
                                           struct apr_arena *arena, struct apr_err *e);
uint32_t apr_states_next(struct apr_states *s, uint32_t state, uint8_t byte);
/* When the tables are half full: forgets all states but this one, whose new number is returned. Numbers of
 * others are void then; *forgot tells. */
uint32_t apr_states_tidy(struct apr_states *s, uint32_t state, bool *forgot);

#endif

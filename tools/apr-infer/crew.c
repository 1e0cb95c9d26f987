/* Who gets how much of each step, and what becomes of the logits. */
#include "crew.h"

#include <string.h>

enum apr_code apr_crew_open(struct apr_crew *c, const struct apr_engine *engine, size_t n_seats,
                            struct apr_err *e)
{
    *c = (struct apr_crew){.engine = engine};
    apr_arena_init(&c->arena);
    TRY(apr_arena_try(&c->arena, &c->seats, n_seats, sizeof *c->seats, "sequences", e));
    TRY(apr_arena_try(&c->arena, &c->turns, n_seats, sizeof *c->turns, "sequences", e));
    TRY(apr_arena_try(&c->arena, &c->turn_seat, n_seats, sizeof *c->turn_seat, "sequences", e));
    TRY(apr_arena_try(&c->arena, &c->chosen, n_seats, (engine->n_ahead + 1) * sizeof *c->chosen, "tokens",
                      e));
    TRY(apr_arena_try(&c->arena, &c->bits, n_seats, (engine->n_ahead + 1) * sizeof *c->bits, "tokens", e));
    TRY(apr_arena_try(&c->arena, &c->chains, n_seats, sizeof *c->chains, "sequences", e));
    c->n_seats = n_seats;
    return APR_OK;
}

void apr_crew_close(struct apr_crew *c)
{
    for (size_t i = 0; i < c->n_seats; i++)
        if (c->seats[i].is_taken) apr_crew_leave(c, &c->seats[i]);
    apr_arena_free(&c->arena);
}

/* A sequence takes whole pages. */
static size_t whole_pages(size_t n_pos)
{
    return (n_pos + APR_PAGE_POS - 1) / APR_PAGE_POS * APR_PAGE_POS;
}

bool apr_crew_has_room(const struct apr_crew *c, size_t n_need)
{
    n_need = whole_pages(n_need);
    if (c->n_taken == c->n_seats) return false;
    return !c->n_taken || (n_need <= c->engine->n_positions && c->n_need <= c->engine->n_positions - n_need);
}

struct apr_seat *apr_crew_take(struct apr_crew *c)
{
    for (size_t i = 0; i < c->n_seats; i++) {
        struct apr_seat *s = &c->seats[i];
        if (s->is_taken) continue;
        *s = (struct apr_seat){.is_taken = true, .i_seat = i};
        apr_arena_init(&s->arena);
        c->n_taken++;
        return s;
    }
    return NULL;
}

enum apr_code apr_crew_admit(struct apr_crew *c, struct apr_seat *seat, size_t n_need, struct apr_err *e)
{
    TRY(apr_reply_prompt(&seat->reply, seat->ids.at, seat->ids.n, e));
    seat->is_running = true;
    seat->i_age = c->i_age++;
    seat->n_need = whole_pages(n_need);
    c->n_need += seat->n_need;
    c->n_running++;
    return APR_OK;
}

void apr_crew_leave(struct apr_crew *c, struct apr_seat *seat)
{
    if (seat->is_running) {
        if (seat->is_open) c->engine->close(c->engine->ctx, &seat->cache);
        c->n_need -= seat->n_need;
        c->n_running--;
    }
    apr_limit_close(&seat->limit);
    apr_reply_free(&seat->reply);
    apr_logprobs_free(&seat->logprobs);
    apr_ids_free(&seat->ids);
    apr_arena_free(&seat->arena);
    seat->is_taken = seat->is_running = seat->is_open = false;
    c->n_taken--;
}

/* ---- a step ------------------------------------------------------------------------------------------- */

static bool is_answering(const struct apr_seat *s)
{
    return s->n_fed == s->ids.n;
}

/* An older prompt that is not computed yet begins with more of the same tokens than can be had now. */
static bool waits_for(const struct apr_seat *s, const struct apr_seat *older)
{
    if (!older->is_running || older->is_over || is_answering(older) || older->i_age >= s->i_age) return false;
    size_t n = (older->n_shared / APR_PAGE_POS + 1) * APR_PAGE_POS;
    return n < s->ids.n && n <= older->ids.n && !memcmp(s->ids.at, older->ids.at, n * sizeof *s->ids.at);
}

/* false: not now, or it has failed. */
static bool open_seat(struct apr_crew *c, struct apr_seat *s)
{
    if (s->is_open) return true;
    for (size_t i = 0; c->engine->keep && i < c->n_seats; i++)
        if (waits_for(s, &c->seats[i])) return false;
    s->is_open = true;
    s->code = c->engine->open(c->engine->ctx, &s->cache, s->ids.at, s->ids.n, &s->err);
    s->is_over = s->code != APR_OK;
    s->n_fed = s->n_shared = s->cache.n_pos;
    c->n_shared_toks += s->n_shared;
    return !s->is_over;
}

static void add_turn(struct apr_crew *c, size_t *n_turns, struct apr_seat *s, const int32_t *ids, size_t n,
                     size_t n_later)
{
    c->turn_seat[*n_turns] = s->i_seat;
    c->turns[*n_turns] = (struct apr_turn){
        .cache = &s->cache, .ids = ids, .n = n, .n_later = n_later, .wants_logits = !n_later};
    ++*n_turns;
}

/* The seat that waits longest of those whose prompt is not computed and that are younger than i_age. */
static struct apr_seat *next_prompt(struct apr_crew *c, size_t i_age)
{
    struct apr_seat *best = NULL;
    for (size_t i = 0; i < c->n_seats; i++) {
        struct apr_seat *s = &c->seats[i];
        if (!s->is_running || s->is_over || is_answering(s) || s->i_age < i_age) continue;
        if (!best || s->i_age < best->i_age) best = s;
    }
    return best;
}

static size_t plan(struct apr_crew *c)
{
    size_t n_turns = 0, n_free = c->engine->n_batch;
    for (size_t i = 0; i < c->n_seats; i++) {
        struct apr_seat *s = &c->seats[i];
        if (!s->is_running || s->is_over || !is_answering(s) || !n_free) continue;
        add_turn(c, &n_turns, s, &s->next, 1, 0);
        n_free--;
        c->n_reply_toks++;
    }
    struct apr_seat *s = next_prompt(c, 0);
    for (; s && n_free; s = next_prompt(c, s->i_age + 1)) {
        if (!open_seat(c, s)) continue;
        size_t n = s->ids.n - s->n_fed;
        if (n > n_free) n = n_free;
        add_turn(c, &n_turns, s, s->ids.at + s->n_fed, n, s->ids.n - s->n_fed - n);
        n_free -= n;
        c->n_prompt_toks += n;
    }
    return n_turns;
}

static enum apr_code end_seat(struct apr_seat *s, struct apr_err *e)
{
    s->is_over = true;
    return apr_reply_end(&s->reply, e);
}

static enum apr_code choose(const struct apr_crew *c, const struct apr_turn *t, struct apr_seat *s)
{
    size_t n_room = c->engine->n_ctx - s->cache.n_pos;
    if (t->code != APR_OK) return s->err = t->err, t->code;
    TRY(apr_reply_next(&s->reply, t->logits, n_room, &s->next, &s->err));
    if (s->has_logprobs) TRY(apr_logprobs_add(&s->logprobs, t->logits, c->engine->n_vocab, s->next, &s->err));
    return s->reply.is_over || !n_room ? end_seat(s, &s->err) : APR_OK;
}

static void take_logits(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    struct apr_crew *c = ctx;
    (void)i_thread;
    for (size_t i = i_begin; i < i_end; i++) {
        struct apr_seat *s = &c->seats[c->turn_seat[i]];
        if (!c->turns[i].wants_logits) continue;
        s->code = choose(c, &c->turns[i], s);
        if (s->code != APR_OK) s->is_over = true;
    }
}

static void fail_turns(struct apr_crew *c, size_t n_turns, enum apr_code code, const struct apr_err *e)
{
    for (size_t i = 0; i < n_turns; i++) {
        struct apr_seat *s = &c->seats[c->turn_seat[i]];
        s->code = code;
        s->err = *e;
        s->is_over = true;
    }
}

/* The engine can choose as this turn's sampler does, and is told how. */
static bool tell_chain(struct apr_crew *c, size_t i_turn)
{
    const struct apr_seat *s = &c->seats[c->turn_seat[i_turn]];
    uint64_t *bits = c->bits + i_turn * c->engine->n_ahead;
    if (!is_answering(s) || s->has_logprobs) return false;
    const enum apr_sampler_place place = apr_sampler_device(&s->sampler, &c->chains[i_turn]);
    if (place == APR_CHOSEN_HERE) return false;
    if (place == APR_CHOSEN_GREEDILY) return true;
    apr_sampler_bits(&s->sampler, bits, c->engine->n_ahead);
    c->turns[i_turn].chain = &c->chains[i_turn];
    c->turns[i_turn].bits = bits;
    return true;
}

/* Tokens that the engine may choose by itself: 0 where a prompt is among the turns, or somebody looks at
 * logits. Nobody gets more than are left to it. */
static size_t n_by_itself(struct apr_crew *c, size_t n_turns)
{
    size_t n = c->engine->go_on ? c->engine->n_ahead : 0;
    for (size_t i = 0; i < n_turns && n; i++) {
        const struct apr_seat *s = &c->seats[c->turn_seat[i]];
        size_t n_left = apr_reply_n_left(&s->reply, c->engine->n_ctx - s->cache.n_pos - 1);
        if (!tell_chain(c, i)) return 0;
        if (n_left < n) n = n_left;
    }
    return n;
}

/* What is behind an end is not taken: the seat leaves with it. */
static enum apr_code take_chosen(const struct apr_crew *c, struct apr_seat *s, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n && !s->reply.is_over; i++) {
        s->next = ids[i];
        apr_sampler_was_chosen(&s->sampler);
        TRY(apr_reply_take(&s->reply, ids[i], &s->err));
    }
    return s->reply.is_over || s->cache.n_pos == c->engine->n_ctx ? end_seat(s, &s->err) : APR_OK;
}

static enum apr_code go_on(struct apr_crew *c, size_t n_turns, size_t n, struct apr_err *e)
{
    TRY(c->engine->go_on(c->engine->ctx, c->turns, n_turns, n, c->chosen, &n, e));
    for (size_t i = 0; i < n_turns; i++) {
        struct apr_seat *s = &c->seats[c->turn_seat[i]];
        size_t n_before = s->reply.ids.n;
        s->code = take_chosen(c, s, c->chosen + i * c->engine->n_ahead, n);
        if (s->code != APR_OK) s->is_over = true;
        c->n_reply_toks += s->reply.ids.n - n_before;
    }
    c->n_reply_toks -= n_turns; /* as planned */
    c->n_steps += n;
    return APR_OK;
}

enum apr_code apr_crew_step(struct apr_crew *c, struct apr_err *e)
{
    size_t n_turns = plan(c), n = n_by_itself(c, n_turns);
    if (!n_turns) return APR_OK;
    enum apr_code code = n ? go_on(c, n_turns, n, e) : APR_EUNAVAIL;
    if (code == APR_OK) return APR_OK;
    if (code == APR_EUNAVAIL) code = c->engine->step(c->engine->ctx, c->turns, n_turns, e);
    if (code != APR_OK && c->engine->recovers) return fail_turns(c, n_turns, code, e), APR_OK;
    TRY(code);
    c->n_steps++;
    for (size_t i = 0; i < n_turns; i++) {
        struct apr_seat *s = &c->seats[c->turn_seat[i]];
        if (is_answering(s)) continue;
        s->n_fed += c->turns[i].n;
        if (is_answering(s) && c->engine->keep) TRY(c->engine->keep(c->engine->ctx, &s->cache, c->n_need, e));
    }
    if (c->engine->pool && n_turns > 1)
        apr_parallel_for(c->engine->pool, n_turns, 1, take_logits, c);
    else
        take_logits(c, 0, n_turns, 0);
    return APR_OK;
}

struct apr_seat *apr_crew_finished(struct apr_crew *c)
{
    for (size_t i = 0; i < c->n_seats; i++)
        if (c->seats[i].is_running && c->seats[i].is_over) return &c->seats[i];
    return NULL;
}

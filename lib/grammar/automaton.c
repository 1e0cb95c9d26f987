/* Expressions to nodes, from the end backwards: emit gets the node that follows and returns the first. */
#include "automaton.h"

#include <string.h>

#define MAX_DEPTH_EXPR 1000 /* nested expressions; parsers refuse deeper ones before */

struct build {
    struct apr_automaton *a;
    uint32_t cap;
    struct apr_arena *arena;
    bool full;
};

static uint32_t add(struct build *b, struct apr_node node)
{
    struct apr_automaton *a = b->a;
    if (a->n_nodes >= APR_GRAMMAR_MAX_NODES) {
        b->full = true;
        return 0;
    }
    if (a->n_nodes == b->cap) {
        b->cap = b->cap ? 2 * b->cap : 256;
        struct apr_node *at = apr_arena_get(b->arena, b->cap * sizeof *at);
        if (a->n_nodes) memcpy(at, a->nodes, a->n_nodes * sizeof *at);
        a->nodes = at;
    }
    a->nodes[a->n_nodes] = node;
    return a->n_nodes++;
}

static uint32_t add_byte(struct build *b, unsigned lo, unsigned hi, uint32_t next)
{
    return add(b,
               (struct apr_node){.kind = APR_NODE_BYTE, .lo = (uint8_t)lo, .hi = (uint8_t)hi, .next = next});
}

static uint32_t add_split(struct build *b, uint32_t next, uint32_t other)
{
    return add(b, (struct apr_node){.kind = APR_NODE_SPLIT, .next = next, .arg = other});
}

/* Classes: code points as UTF-8. tails[k]: k continuation bytes of any value, then what follows. */
struct utf8 {
    struct build *b;
    uint32_t tails[4];
    uint32_t first; /* of the alternatives so far */
    bool any;
};

static void add_choice(struct utf8 *u, uint32_t node)
{
    u->first = u->any ? add_split(u->b, node, u->first) : node;
    u->any = true;
}

static unsigned n_units(uint32_t c)
{
    return c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
}

/* Unit i (0 = last) of a code point in n units. */
static unsigned unit(uint32_t c, unsigned i, unsigned n)
{
    static const uint8_t marks[] = {0, 0, 0xc0, 0xe0, 0xf0};
    if (i + 1 < n) return 0x80u | (c >> (6 * i) & 0x3f);
    return marks[n] | c >> (6 * i);
}

/* The last i + 1 units of lo .. hi, which agree in all units before. */
static uint32_t units(struct utf8 *u, uint32_t lo, uint32_t hi, unsigned i, unsigned n)
{
    uint32_t mask = i ? (1u << (6 * i)) - 1 : 0;
    unsigned a = unit(lo, i, n), b = unit(hi, i, n);
    if (a == b && i) return add_byte(u->b, a, a, units(u, lo, hi, i - 1, n));
    if ((lo & mask) == 0 && (hi & mask) == mask) return add_byte(u->b, a, b, u->tails[i]);
    /* Ragged ends: first value up to the end of its block, whole blocks, last block. */
    uint32_t low_end = lo | mask, high_start = hi & ~mask;
    uint32_t head = (lo & mask) ? units(u, lo, low_end, i, n) : 0;
    uint32_t tail = (hi & mask) != mask ? units(u, high_start, hi, i, n) : 0;
    uint32_t from = (lo & mask) ? low_end + 1 : lo, to = (hi & mask) != mask ? high_start : hi + 1;
    uint32_t middle = from < to ? units(u, from, to - 1, i, n) : 0;
    uint32_t all = 0;
    const uint32_t parts[] = {tail, middle, head};
    for (size_t k = 0; k < 3; k++)
        if (parts[k]) all = all ? add_split(u->b, parts[k], all) : parts[k];
    return all;
}

static uint32_t emit_class(struct build *b, const struct apr_expr *x, uint32_t next)
{
    struct utf8 u = {.b = b, .tails = {next}};
    for (size_t i = 1; i < 4; i++) u.tails[i] = add_byte(b, 0x80, 0xbf, u.tails[i - 1]);
    static const uint32_t ends[] = {0x7f, 0x7ff, 0xffff, APR_MAX_CODE};
    for (size_t i = 0; i < x->n; i++) {
        uint32_t lo = x->ranges[i].lo;
        for (size_t k = 0; k < 4; k++) {
            uint32_t hi = x->ranges[i].hi < ends[k] ? x->ranges[i].hi : ends[k];
            if (lo > hi) continue;
            add_choice(&u, units(&u, lo, hi, n_units(lo) - 1, n_units(lo)));
            lo = hi + 1;
        }
    }
    /* No code point at all: a byte that never comes leads nowhere. */
    return u.any ? u.first : add_byte(b, 1, 0, next);
}

static uint32_t emit(struct build *b, const struct apr_expr *x, uint32_t next, int depth);

static uint32_t emit_repeat(struct build *b, const struct apr_expr *x, uint32_t next, int depth)
{
    uint32_t first = next;
    if (x->max == APR_NO_LIMIT) {
        first = add_split(b, 0, next);
        uint32_t body = emit(b, x->parts[0], first, depth);
        b->a->nodes[first].next = body;
    } else {
        for (uint32_t i = x->min; i < x->max && !b->full; i++) {
            uint32_t body = emit(b, x->parts[0], first, depth);
            if (body == first) return next; /* only the empty text */
            first = add_split(b, body, next);
        }
    }
    for (uint32_t i = 0; i < x->min && !b->full; i++) {
        uint32_t body = emit(b, x->parts[0], first, depth);
        if (body == first) break;
        first = body;
    }
    return first;
}

static uint32_t emit(struct build *b, const struct apr_expr *x, uint32_t next, int depth)
{
    uint32_t first = next;
    if (b->full || ++depth > MAX_DEPTH_EXPR) {
        b->full = true;
        return 0;
    }
    switch (x->kind) {
    case APR_EX_BYTES:
        for (size_t i = x->n; i-- > 0;) first = add_byte(b, x->bytes[i], x->bytes[i], first);
        return first;
    case APR_EX_CLASS:
        return emit_class(b, x, next);
    case APR_EX_SEQ:
        for (size_t i = x->n; i-- > 0;) first = emit(b, x->parts[i], first, depth);
        return first;
    case APR_EX_ALT:
        first = emit(b, x->parts[x->n - 1], next, depth);
        for (size_t i = x->n - 1; i-- > 0;) first = add_split(b, emit(b, x->parts[i], next, depth), first);
        return first;
    case APR_EX_REPEAT:
        return emit_repeat(b, x, next, depth);
    case APR_EX_RULE:
        return add(b, (struct apr_node){.kind = APR_NODE_CALL, .next = next, .arg = x->rule});
    }
    return next;
}

/* Bytes between which no node draws a border are one class. */
static void make_classes(struct apr_automaton *a)
{
    bool border[257] = {true};
    for (uint32_t i = 0; i < a->n_nodes; i++) {
        const struct apr_node *n = &a->nodes[i];
        if (n->kind != APR_NODE_BYTE || n->lo > n->hi) continue;
        border[n->lo] = border[n->hi + 1] = true;
    }
    a->n_classes = 0;
    for (unsigned i = 0; i < 256; i++) {
        if (border[i]) a->byte_of[a->n_classes++] = (uint8_t)i;
        a->class_of[i] = (uint8_t)(a->n_classes - 1);
    }
}

/* A CALL's arg is the rule until all rules have their first node. */
static void link_calls(struct apr_automaton *a, const uint32_t *start)
{
    for (uint32_t i = 0; i < a->n_nodes; i++)
        if (a->nodes[i].kind == APR_NODE_CALL) a->nodes[i].arg = start[a->nodes[i].arg];
}

static enum apr_code check(const struct apr_automaton *a, const struct apr_rules *rules, uint32_t root,
                           const uint32_t *start, struct apr_arena *scratch, const char *file,
                           struct apr_err *e)
{
    uint32_t left = apr_automaton_left(a, start, rules->n, scratch);
    if (left != UINT32_MAX)
        return apr_fail(e, APR_EFORMAT, "%s: rule \"%s\" is left-recursive: it can begin with itself", file,
                        rules->at[left].name);
    if (a->least[a->root] == APR_GRAMMAR_INFINITE)
        return apr_fail(e, APR_EFORMAT, "%s: rule \"%s\" has no text of finite length", file,
                        rules->at[root].name);
    return APR_OK;
}

enum apr_code apr_automaton_build(struct apr_automaton *a, const struct apr_rules *rules, uint32_t root,
                                  struct apr_arena *arena, const char *file, struct apr_err *e)
{
    struct apr_arena scratch;
    struct build b = {.a = a, .arena = arena};
    uint32_t *start = apr_arena_get(arena, (rules->n + 1) * sizeof *start);
    add(&b, (struct apr_node){.kind = APR_NODE_END});
    for (uint32_t i = 0; i < rules->n && !b.full; i++) {
        if (!rules->at[i].body)
            return apr_fail(e, APR_EFORMAT, "%s: line %u: rule \"%s\" is not defined", file,
                            rules->at[i].line, rules->at[i].name);
        start[i] = emit(&b, rules->at[i].body, 0, 0);
    }
    if (b.full)
        return apr_fail(e, APR_EFORMAT, "%s: the grammar expands to more than %u nodes", file,
                        APR_GRAMMAR_MAX_NODES);
    link_calls(a, start);
    a->root = start[root];
    make_classes(a);
    apr_arena_init(&scratch);
    a->least = apr_arena_get(arena, a->n_nodes * sizeof *a->least);
    apr_automaton_least(a, &scratch);
    enum apr_code code = check(a, rules, root, start, &scratch, file, e);
    apr_arena_free(&scratch);
    return code;
}

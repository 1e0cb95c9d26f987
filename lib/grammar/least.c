/* The fewest bytes from each node to the end of its rule: Knuth, A Generalization of Dijkstra's Algorithm,
 * 1977. Nodes get their value in ascending order; a call waits for both its rule and what follows it. */
#include "automaton.h"

#include <string.h>

struct item {
    uint32_t value, node;
};

struct search {
    struct apr_automaton *a;
    struct item *heap; /* least value first */
    size_t n;
    uint32_t *first, *preds; /* nodes that lead to node i: preds[first[i] .. first[i + 1]) */
    uint8_t *waits;          /* parts that have no value yet */
    bool *done;
};

static void push(struct search *s, uint32_t value, uint32_t node)
{
    size_t i = s->n++;
    for (; i && s->heap[(i - 1) / 2].value > value; i = (i - 1) / 2) s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = (struct item){value, node};
}

static struct item pop(struct search *s)
{
    struct item top = s->heap[0], last = s->heap[--s->n];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < s->n; i = child) {
        if (child + 1 < s->n && s->heap[child + 1].value < s->heap[child].value) child++;
        if (s->heap[child].value >= last.value) break;
        s->heap[i] = s->heap[child];
    }
    if (s->n) s->heap[i] = last;
    return top;
}

/* 1 for BYTE, 2 for SPLIT and CALL. */
static unsigned successors(const struct apr_node *n, uint32_t to[2])
{
    to[0] = n->next;
    to[1] = n->arg;
    if (n->kind == APR_NODE_END || (n->kind == APR_NODE_BYTE && n->lo > n->hi)) return 0;
    return n->kind == APR_NODE_BYTE ? 1 : 2;
}

static void make_preds(struct search *s)
{
    const struct apr_automaton *a = s->a;
    uint32_t to[2];
    for (uint32_t i = 0; i < a->n_nodes; i++)
        for (unsigned k = successors(&a->nodes[i], to); k-- > 0;) s->first[to[k] + 1]++;
    for (uint32_t i = 0; i < a->n_nodes; i++) s->first[i + 1] += s->first[i];
    uint32_t *fill = s->first + a->n_nodes + 1; /* the second half: where to put the next */
    memcpy(fill, s->first, a->n_nodes * sizeof *fill);
    for (uint32_t i = 0; i < a->n_nodes; i++)
        for (unsigned k = successors(&a->nodes[i], to); k-- > 0;) s->preds[fill[to[k]]++] = i;
}

static uint32_t sum(uint32_t x, uint32_t y)
{
    return x > APR_GRAMMAR_INFINITE - 1 - y ? APR_GRAMMAR_INFINITE : x + y;
}

/* node has its value: what leads to it may have one now. */
static void tell(struct search *s, uint32_t node)
{
    struct apr_automaton *a = s->a;
    for (uint32_t i = s->first[node]; i < s->first[node + 1]; i++) {
        uint32_t p = s->preds[i], value = a->least[node];
        const struct apr_node *n = &a->nodes[p];
        if (s->done[p]) continue;
        if (n->kind == APR_NODE_BYTE) value = sum(value, 1);
        if (n->kind == APR_NODE_CALL) {
            if (--s->waits[p]) continue;
            value = sum(a->least[n->next], a->least[n->arg]);
        }
        if (value != APR_GRAMMAR_INFINITE) push(s, value, p);
    }
}

void apr_automaton_least(struct apr_automaton *a, struct apr_arena *scratch)
{
    size_t n = a->n_nodes;
    struct search s = {.a = a};
    s.heap = apr_arena_get(scratch, (2 * n + 1) * sizeof *s.heap);
    s.first = apr_arena_get(scratch, 2 * (n + 1) * sizeof *s.first);
    s.preds = apr_arena_get(scratch, (2 * n + 1) * sizeof *s.preds);
    s.waits = apr_arena_get(scratch, n);
    s.done = apr_arena_get(scratch, n * sizeof *s.done);
    memset(s.waits, 2, n);
    for (size_t i = 0; i < n; i++) a->least[i] = APR_GRAMMAR_INFINITE;
    make_preds(&s);
    push(&s, 0, 0);
    while (s.n) {
        struct item it = pop(&s);
        if (s.done[it.node]) continue;
        s.done[it.node] = true;
        a->least[it.node] = it.value;
        tell(&s, it.node);
    }
}

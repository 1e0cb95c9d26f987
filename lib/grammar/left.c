/* Left recursion: rule A leads to rule B when A can call B before it has read a byte. A cycle is refused,
 * because the stack of such a rule has no bound. Found by taking away rules that none of the remaining ones
 * leads to. */
#include "automaton.h"

struct graph {
    const struct apr_automaton *a;
    uint32_t *rule_at; /* [n_nodes] rule + 1 that begins here */
    uint32_t *seen;    /* [n_nodes] rule + 1 that came by last */
    uint32_t *todo;    /* [n_nodes] */
    uint32_t *to, *n_in;
    uint32_t n_edges;
};

/* Rules that begin at the same node as rule i is told by the last of them: all behave alike. */
static void visit(struct graph *g, uint32_t i_rule, uint32_t start)
{
    uint32_t n = 0;
    g->todo[n++] = start;
    g->seen[start] = i_rule + 1;
    while (n) {
        const struct apr_node *node = &g->a->nodes[g->todo[--n]];
        uint32_t next[2] = {0, 0};
        unsigned n_next = 0;
        if (node->kind == APR_NODE_SPLIT || (node->kind == APR_NODE_CALL && !g->a->least[node->arg]))
            next[n_next++] = node->next;
        if (node->kind == APR_NODE_SPLIT) next[n_next++] = node->arg;
        if (node->kind == APR_NODE_CALL && g->rule_at[node->arg])
            g->to[g->n_edges++] = g->rule_at[node->arg] - 1;
        for (unsigned k = 0; k < n_next; k++) {
            if (g->seen[next[k]] == i_rule + 1) continue;
            g->seen[next[k]] = i_rule + 1;
            g->todo[n++] = next[k];
        }
    }
}

uint32_t apr_automaton_left(const struct apr_automaton *a, const uint32_t *start, uint32_t n_rules,
                            struct apr_arena *scratch)
{
    struct graph g = {.a = a};
    uint32_t *first = apr_arena_get(scratch, (n_rules + 1) * sizeof *first);
    uint32_t *free_rules = apr_arena_get(scratch, (n_rules + 1) * sizeof *free_rules), n_free = 0, n_out = 0;
    g.rule_at = apr_arena_get(scratch, a->n_nodes * sizeof *g.rule_at);
    g.seen = apr_arena_get(scratch, a->n_nodes * sizeof *g.seen);
    g.todo = apr_arena_get(scratch, a->n_nodes * sizeof *g.todo);
    g.to = apr_arena_get(scratch, (a->n_nodes + 1) * sizeof *g.to);
    g.n_in = apr_arena_get(scratch, (n_rules + 1) * sizeof *g.n_in);
    for (uint32_t i = 0; i < n_rules; i++)
        if (start[i]) g.rule_at[start[i]] = i + 1;
    for (uint32_t i = 0; i < n_rules; i++) {
        first[i] = g.n_edges;
        if (start[i] && g.rule_at[start[i]] == i + 1) visit(&g, i, start[i]);
    }
    first[n_rules] = g.n_edges;
    for (uint32_t i = 0; i < g.n_edges; i++) g.n_in[g.to[i]]++;
    for (uint32_t i = 0; i < n_rules; i++)
        if (!g.n_in[i]) free_rules[n_free++] = i;
    while (n_free) {
        uint32_t i = free_rules[--n_free];
        n_out++;
        for (uint32_t k = first[i]; k < first[i + 1]; k++)
            if (--g.n_in[g.to[k]] == 0) free_rules[n_free++] = g.to[k];
    }
    if (n_out == n_rules) return UINT32_MAX;
    /* One that is on a cycle: each rule that remains has one before it that remains too. */
    uint32_t *before = free_rules, at = 0;
    for (uint32_t i = 0; i < n_rules; i++)
        for (uint32_t k = first[i]; k < first[i + 1] && g.n_in[i]; k++) before[g.to[k]] = i;
    while (!g.n_in[at]) at++;
    for (uint32_t step = 0; step < n_rules; step++) at = before[at];
    return at;
}

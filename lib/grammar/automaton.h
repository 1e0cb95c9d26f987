/* The compiled form: nodes of a recursive transition network over bytes.
 *
 *   BYTE   lo..hi -> next        SPLIT  next or arg, for nothing
 *   CALL   the rule that begins at arg, then next        END   of a rule
 *
 * Node 0 is the one END. least[i]: the fewest bytes from node i to the end of its rule.
 *
 *     struct apr_automaton a; TRY(apr_automaton_build(&a, &rules, root, arena, file, e));
 */
#ifndef APR_GRAMMAR_AUTOMATON_H
#define APR_GRAMMAR_AUTOMATON_H

#include "expr.h"
#include "grammar.h"

enum apr_node_kind { APR_NODE_END = 0, APR_NODE_BYTE, APR_NODE_SPLIT, APR_NODE_CALL };

struct apr_node {
    uint32_t next, arg;
    uint8_t kind, lo, hi;
};

struct apr_automaton {
    struct apr_node *nodes; /* in the arena, as all below */
    uint32_t n_nodes;
    uint32_t root;         /* first node */
    uint32_t *least;       /* [n_nodes] */
    uint8_t class_of[256]; /* bytes that no node tells apart share a class */
    uint8_t byte_of[256];  /* one byte of a class */
    uint32_t n_classes;
    uint32_t max_depth; /* of calls that have to return */
};

struct apr_grammar {
    struct apr_automaton a;
    struct apr_arena arena; /* owned */
};

/* Refuses undefined rules, left recursion, and a root without a text: APR_EFORMAT. */
APR_MUST_USE enum apr_code apr_automaton_build(struct apr_automaton *a, const struct apr_rules *rules,
                                               uint32_t root, struct apr_arena *arena, const char *file,
                                               struct apr_err *e);
/* Its two parts that stand in files of their own: least.c, left.c. start: [n rules] first nodes. */
void apr_automaton_least(struct apr_automaton *a, struct apr_arena *scratch);
/* A rule that can call itself before it has read a byte, or UINT32_MAX. */
uint32_t apr_automaton_left(const struct apr_automaton *a, const uint32_t *start, uint32_t n_rules,
                            struct apr_arena *scratch);

#endif

/* Grammar rules as trees of expressions: what the readers of GBNF and JSON Schema make and compile.c takes.
 *
 * Everything lives in the arena of struct apr_rules; expressions are never changed after they are made and
 * may be used in several places.
 *
 *     struct apr_rules r = {.arena = &arena}; i = apr_rules_name(&r, "root", 4);
 *     r.at[i].body = apr_ex_seq2(&r, apr_ex_text(&r, "a"), apr_ex_rule(&r, i));
 */
#ifndef APR_GRAMMAR_EXPR_H
#define APR_GRAMMAR_EXPR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../arena.h"

#define APR_MAX_RULES 65536u
#define APR_NO_LIMIT  UINT32_MAX /* of a repetition */
#define APR_MAX_CODE  0x10ffffu

enum apr_expr_kind { APR_EX_BYTES, APR_EX_CLASS, APR_EX_SEQ, APR_EX_ALT, APR_EX_REPEAT, APR_EX_RULE };

/* Code points lo .. hi. */
struct apr_range {
    uint32_t lo, hi;
};

struct apr_expr {
    enum apr_expr_kind kind;
    uint32_t n;                     /* bytes, ranges or parts; no bytes and no parts of SEQ: the empty text */
    uint32_t min, max;              /* REPEAT; max APR_NO_LIMIT = any number */
    uint32_t rule;                  /* RULE */
    const uint8_t *bytes;           /* BYTES */
    const struct apr_range *ranges; /* CLASS: ascending, apart, without surrogates; none: matches nothing */
    const struct apr_expr *const *parts; /* SEQ, ALT; REPEAT has one */
};

struct apr_rule {
    const char *name;            /* NUL-terminated */
    const struct apr_expr *body; /* NULL: not defined */
    uint32_t line;               /* where it is first named; 0 = not from a text */
};

struct apr_rules {
    struct apr_arena *arena; /* borrowed */
    struct apr_rule *at;
    uint32_t n, cap;
    uint32_t *slots; /* hash by name: index + 1 */
    uint32_t n_slots;
};

/* The rule of this name, made where there is none; UINT32_MAX: too many rules. */
uint32_t apr_rules_name(struct apr_rules *r, const char *name, size_t n_bytes);
/* A rule that no name finds. */
uint32_t apr_rules_add(struct apr_rules *r, const char *name, const struct apr_expr *body);

const struct apr_expr *apr_ex_bytes(struct apr_rules *r, const void *p, size_t n);
const struct apr_expr *apr_ex_text(struct apr_rules *r, const char *s);
const struct apr_expr *apr_ex_empty(struct apr_rules *r);
/* ranges in any order, overlapping or not; surrogates are taken out. */
const struct apr_expr *apr_ex_class(struct apr_rules *r, const struct apr_range *ranges, size_t n,
                                    bool negated);
/* parts are copied. */
const struct apr_expr *apr_ex_seq(struct apr_rules *r, const struct apr_expr *const *parts, size_t n);
const struct apr_expr *apr_ex_seq2(struct apr_rules *r, const struct apr_expr *a, const struct apr_expr *b);
const struct apr_expr *apr_ex_alt(struct apr_rules *r, const struct apr_expr *const *parts, size_t n);
const struct apr_expr *apr_ex_alt2(struct apr_rules *r, const struct apr_expr *a, const struct apr_expr *b);
const struct apr_expr *apr_ex_repeat(struct apr_rules *r, const struct apr_expr *of, uint32_t min,
                                     uint32_t max);
/* One of n texts, beginnings they share taken together; at is sorted in place. */
struct apr_word {
    const uint8_t *p;
    size_t n;
};
const struct apr_expr *apr_ex_words(struct apr_rules *r, struct apr_word *at, size_t n);
const struct apr_expr *apr_ex_rule(struct apr_rules *r, uint32_t rule);

/* A growing list in the arena, for parsers. */
struct apr_ex_list {
    const struct apr_expr **at;
    size_t n, cap;
};
void apr_ex_push(struct apr_rules *r, struct apr_ex_list *list, const struct apr_expr *x);

#endif

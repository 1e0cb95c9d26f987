/* Making rules and expressions. */
#include "expr.h"

#include <stdlib.h>
#include <string.h>

#define SURROGATES_LO  0xd800u
#define SURROGATES_HI  0xdfffu
#define MAX_WORD_DEPTH 64

static uint32_t hash(const char *s, size_t n)
{
    uint32_t h = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < n; i++) h = (h ^ (uint8_t)s[i]) * 16777619u;
    return h;
}

static uint32_t *slot_of(const struct apr_rules *r, const char *name, size_t n)
{
    uint32_t i = hash(name, n) & (r->n_slots - 1);
    while (r->slots[i]) {
        const char *s = r->at[r->slots[i] - 1].name;
        if (!strncmp(s, name, n) && !s[n]) break;
        i = (i + 1) & (r->n_slots - 1);
    }
    return &r->slots[i];
}

/* At most half full. */
static void grow_slots(struct apr_rules *r)
{
    if (r->n_slots && 2 * r->n < r->n_slots) return;
    uint32_t *old = r->slots, n_old = r->n_slots;
    r->n_slots = n_old ? 4 * n_old : 64;
    r->slots = apr_arena_get(r->arena, r->n_slots * sizeof *r->slots);
    for (uint32_t i = 0; i < n_old; i++)
        if (old[i]) *slot_of(r, r->at[old[i] - 1].name, strlen(r->at[old[i] - 1].name)) = old[i];
}

uint32_t apr_rules_add(struct apr_rules *r, const char *name, const struct apr_expr *body)
{
    if (r->n >= APR_MAX_RULES) return UINT32_MAX;
    if (r->n == r->cap) {
        r->cap = r->cap ? 2 * r->cap : 32;
        struct apr_rule *at = apr_arena_get(r->arena, r->cap * sizeof *at);
        if (r->n) memcpy(at, r->at, r->n * sizeof *at);
        r->at = at;
    }
    r->at[r->n] = (struct apr_rule){.name = name, .body = body};
    return r->n++;
}

uint32_t apr_rules_name(struct apr_rules *r, const char *name, size_t n_bytes)
{
    grow_slots(r);
    uint32_t *slot = slot_of(r, name, n_bytes);
    if (*slot) return *slot - 1;
    uint32_t i = apr_rules_add(r, apr_arena_strndup(r->arena, name, n_bytes), NULL);
    if (i != UINT32_MAX) *slot = i + 1;
    return i;
}

static struct apr_expr *new_expr(struct apr_rules *r, enum apr_expr_kind kind, size_t n)
{
    struct apr_expr *x = apr_arena_get(r->arena, sizeof *x);
    *x = (struct apr_expr){.kind = kind, .n = (uint32_t)n};
    return x;
}

const struct apr_expr *apr_ex_bytes(struct apr_rules *r, const void *p, size_t n)
{
    struct apr_expr *x = new_expr(r, APR_EX_BYTES, n);
    x->bytes = (const uint8_t *)apr_arena_strndup(r->arena, p, n);
    return x;
}

const struct apr_expr *apr_ex_text(struct apr_rules *r, const char *s)
{
    return apr_ex_bytes(r, s, strlen(s));
}

const struct apr_expr *apr_ex_empty(struct apr_rules *r)
{
    return new_expr(r, APR_EX_SEQ, 0);
}

static int by_lo(const void *a_, const void *b_)
{
    const struct apr_range *a = a_, *b = b_;
    return (a->lo > b->lo) - (a->lo < b->lo);
}

/* Sorted, merged. Returns how many remain. */
static size_t merge(struct apr_range *at, size_t n)
{
    size_t m = 0;
    if (n > 1) qsort(at, n, sizeof *at, by_lo);
    for (size_t i = 0; i < n; i++) {
        if (m && at[i].lo <= at[m - 1].hi + 1) {
            if (at[i].hi > at[m - 1].hi) at[m - 1].hi = at[i].hi;
        } else {
            at[m++] = at[i];
        }
    }
    return m;
}

/* What the n merged ranges leave of 0 .. APR_MAX_CODE. */
static size_t complement(const struct apr_range *at, size_t n, struct apr_range *out)
{
    size_t m = 0;
    uint32_t next = 0;
    for (size_t i = 0; i < n; i++) {
        if (at[i].lo > next) out[m++] = (struct apr_range){next, at[i].lo - 1};
        next = at[i].hi + 1;
    }
    if (next <= APR_MAX_CODE) out[m++] = (struct apr_range){next, APR_MAX_CODE};
    return m;
}

const struct apr_expr *apr_ex_class(struct apr_rules *r, const struct apr_range *ranges, size_t n,
                                    bool negated)
{
    struct apr_range *a = apr_arena_get(r->arena, (n + 4) * sizeof *a);
    struct apr_range *b = apr_arena_get(r->arena, (n + 4) * sizeof *b);
    if (n) memcpy(a, ranges, n * sizeof *a);
    /* Twice the complement: the surrogates join the ranges that are left out in between. */
    n = merge(a, n);
    if (!negated) {
        n = complement(a, n, b);
        memcpy(a, b, n * sizeof *a);
    }
    a[n++] = (struct apr_range){SURROGATES_LO, SURROGATES_HI};
    n = complement(a, merge(a, n), b);
    struct apr_expr *x = new_expr(r, APR_EX_CLASS, n);
    x->ranges = b;
    return x;
}

static const struct apr_expr *list(struct apr_rules *r, enum apr_expr_kind kind,
                                   const struct apr_expr *const *parts, size_t n)
{
    if (n == 1) return parts[0];
    struct apr_expr *x = new_expr(r, kind, n);
    const struct apr_expr **at = apr_arena_get(r->arena, (n + 1) * sizeof *at);
    if (n) memcpy(at, parts, n * sizeof *at);
    x->parts = at;
    return x;
}

const struct apr_expr *apr_ex_seq(struct apr_rules *r, const struct apr_expr *const *parts, size_t n)
{
    return list(r, APR_EX_SEQ, parts, n);
}

const struct apr_expr *apr_ex_seq2(struct apr_rules *r, const struct apr_expr *a, const struct apr_expr *b)
{
    return list(r, APR_EX_SEQ, (const struct apr_expr *const[]){a, b}, 2);
}

const struct apr_expr *apr_ex_alt(struct apr_rules *r, const struct apr_expr *const *parts, size_t n)
{
    return list(r, APR_EX_ALT, parts, n);
}

const struct apr_expr *apr_ex_alt2(struct apr_rules *r, const struct apr_expr *a, const struct apr_expr *b)
{
    return list(r, APR_EX_ALT, (const struct apr_expr *const[]){a, b}, 2);
}

const struct apr_expr *apr_ex_repeat(struct apr_rules *r, const struct apr_expr *of, uint32_t min,
                                     uint32_t max)
{
    struct apr_expr *x = new_expr(r, APR_EX_REPEAT, 1);
    const struct apr_expr **at = apr_arena_get(r->arena, sizeof *at);
    at[0] = of;
    x->parts = at;
    x->min = min;
    x->max = max;
    return x;
}

const struct apr_expr *apr_ex_rule(struct apr_rules *r, uint32_t rule)
{
    struct apr_expr *x = new_expr(r, APR_EX_RULE, 0);
    x->rule = rule;
    return x;
}

static int by_bytes(const void *a_, const void *b_)
{
    const struct apr_word *a = a_, *b = b_;
    int order = memcmp(a->p, b->p, a->n < b->n ? a->n : b->n);
    return order ? order : (a->n > b->n) - (a->n < b->n);
}

/* at[0 .. n) are sorted and agree in their first `from` bytes. */
static const struct apr_expr *words_from(struct apr_rules *r, const struct apr_word *at, size_t n,
                                         size_t from, int depth)
{
    size_t same = from;
    while (same < at[0].n && same < at[n - 1].n && at[0].p[same] == at[n - 1].p[same]) same++;
    const struct apr_expr *head = apr_ex_bytes(r, at[0].p + from, same - from);
    struct apr_ex_list alts = {0};
    size_t i = 0;
    while (i < n && at[i].n == same) i++;
    if (i) apr_ex_push(r, &alts, apr_ex_empty(r));
    for (size_t j; i < n; i = j) {
        for (j = i + 1; j < n && at[j].p[same] == at[i].p[same];) j++;
        /* Very deep ones are written out, so that expressions never nest too deeply. */
        if (depth < MAX_WORD_DEPTH)
            apr_ex_push(r, &alts, words_from(r, at + i, j - i, same, depth + 1));
        else
            for (; i < j; i++) apr_ex_push(r, &alts, apr_ex_bytes(r, at[i].p + same, at[i].n - same));
    }
    return apr_ex_seq2(r, head, apr_ex_alt(r, alts.at, alts.n));
}

const struct apr_expr *apr_ex_words(struct apr_rules *r, struct apr_word *at, size_t n)
{
    qsort(at, n, sizeof *at, by_bytes);
    return words_from(r, at, n, 0, 0);
}

void apr_ex_push(struct apr_rules *r, struct apr_ex_list *l, const struct apr_expr *x)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 8;
        const struct apr_expr **at = apr_arena_get(r->arena, l->cap * sizeof *at);
        if (l->n) memcpy(at, l->at, l->n * sizeof *at);
        l->at = at;
    }
    l->at[l->n++] = x;
}

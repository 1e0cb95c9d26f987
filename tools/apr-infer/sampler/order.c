/* Quickselect and quicksort with the median of three; where the pivots are bad a heap sort takes over
 * (introsort: Musser, Introspective Sorting and Selection Algorithms, 1997). */
#include "order.h"

#define FEW 16u /* ranges that insertion sorts */

static inline bool before(const struct apr_cand *a, const struct apr_cand *b, enum apr_order by)
{
    if (by == APR_BY_SCORE && a->p != b->p) return a->p < b->p;
    if (by == APR_BY_LOGIT && a->logit != b->logit) return a->logit > b->logit;
    return a->id < b->id;
}

static inline void swap(struct apr_cand *a, struct apr_cand *b)
{
    struct apr_cand t = *a;
    *a = *b;
    *b = t;
}

static void insertion(struct apr_cand *at, size_t n, enum apr_order by)
{
    for (size_t i = 1; i < n; i++) {
        struct apr_cand x = at[i];
        size_t j = i;
        for (; j && before(&x, &at[j - 1], by); j--) at[j] = at[j - 1];
        at[j] = x;
    }
}

/* Lets at[i] sink in the heap whose root comes last in order. */
static void sink(struct apr_cand *at, size_t i, size_t n, enum apr_order by)
{
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before(&at[child], &at[child + 1], by)) child++;
        if (!before(&at[i], &at[child], by)) return;
        swap(&at[i], &at[child]);
    }
}

static void heap_sort(struct apr_cand *at, size_t n, enum apr_order by)
{
    for (size_t i = n / 2; i-- > 0;) sink(at, i, n, by);
    for (size_t i = n; i-- > 1;) {
        swap(&at[0], &at[i]);
        sink(at, 0, i, by);
    }
}

/* Splits at[0 .. n) so that the first part is not after the pivot and the rest not before it; both parts are
 * smaller than n. */
static size_t split(struct apr_cand *at, size_t n, enum apr_order by)
{
    struct apr_cand *a = &at[0], *b = &at[n / 2], *c = &at[n - 1];
    if (before(b, a, by)) swap(a, b);
    if (before(c, b, by)) swap(b, c);
    if (before(b, a, by)) swap(a, b);
    const struct apr_cand pivot = *b;
    size_t i = 0, j = n - 1;
    for (;;) {
        while (before(&at[i], &pivot, by)) i++;
        while (before(&pivot, &at[j], by)) j--;
        if (i >= j) break;
        swap(&at[i++], &at[j--]);
    }
    return i == j ? i + 1 : i;
}

static unsigned depth_of(size_t n)
{
    unsigned depth = 4;
    for (; n > 1; n /= 2) depth += 2;
    return depth;
}

void apr_order_select(struct apr_cand *at, size_t n, size_t k, enum apr_order by)
{
    for (unsigned left = depth_of(n); n > FEW && k < n; left--) {
        if (!left) {
            heap_sort(at, n, by);
            return;
        }
        size_t i = split(at, n, by);
        if (k < i) {
            n = i;
        } else {
            at += i;
            n -= i;
            k -= i;
        }
    }
    if (k < n) insertion(at, n, by);
}

static void sort(struct apr_cand *at, size_t n, unsigned left, enum apr_order by)
{
    while (n > FEW) {
        if (!left--) {
            heap_sort(at, n, by);
            return;
        }
        size_t i = split(at, n, by);
        if (i < n - i) { /* the smaller part by recursion */
            sort(at, i, left, by);
            at += i;
            n -= i;
        } else {
            sort(at + i, n - i, left, by);
            n = i;
        }
    }
    insertion(at, n, by);
}

void apr_order_sort_first(struct apr_cand *at, size_t n, size_t k, enum apr_order by)
{
    if (k < n) apr_order_select(at, n, k, by);
    sort(at, k, depth_of(k), by);
}

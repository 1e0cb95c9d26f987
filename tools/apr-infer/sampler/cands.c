/* Lists, selection and probabilities. */
#include "cands.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "order.h"

#define BLOCK  64u    /* logits that are looked at together */
#define WEIGHT 0x1p43 /* of the likeliest; a block's sum is exact in double */
#define WHOLE  0x1p52 /* a double between it and twice that is an integer */

enum apr_code apr_cands_init(struct apr_cands *c, size_t n_vocab, const struct apr_kern *kern,
                             struct apr_arena *arena, struct apr_err *e)
{
    *c = (struct apr_cands){.kern = kern, .n_vocab = n_vocab};
    TRY(apr_arena_try(arena, &c->logits, n_vocab, sizeof *c->logits, "logits", e));
    TRY(apr_arena_try(arena, &c->at, n_vocab, sizeof *c->at, "candidates", e));
    TRY(apr_arena_try(arena, &c->where, n_vocab, sizeof *c->where, "places of candidates", e));
    TRY(apr_arena_try(arena, &c->sums, n_vocab / BLOCK + 1, sizeof *c->sums, "probabilities", e));
    return apr_arena_try(arena, &c->scratch, n_vocab, sizeof *c->scratch, "probabilities", e);
}

void apr_cands_begin(struct apr_cands *c, const float *logits)
{
    memcpy(c->logits, logits, c->n_vocab * sizeof *logits);
    c->is_list = false;
    apr_cands_changed(c);
}

void apr_cands_changed(struct apr_cands *c)
{
    c->n_sorted = 0;
    c->has_p = c->has_where = false;
}

static void put(struct apr_cands *c, size_t id)
{
    c->at[c->n++] = (struct apr_cand){.logit = c->logits[id], .id = (int32_t)id};
}

/* The first i >= from whose block has a logit >= bar, or n_vocab. Most blocks have none: without a branch for
 * each logit the compiler compares many at once. */
static size_t next_block(const struct apr_cands *c, size_t from, float bar)
{
    for (; from + BLOCK <= c->n_vocab; from += BLOCK) {
        const float *x = c->logits + from;
        unsigned any = 0;
        for (size_t i = 0; i < BLOCK; i++) any |= x[i] >= bar;
        if (any) return from;
    }
    return from;
}

static size_t block_end(const struct apr_cands *c, size_t from)
{
    return c->n_vocab - from < BLOCK ? c->n_vocab : from + BLOCK;
}

/* The list from the logits that are >= least. */
static void list_from(struct apr_cands *c, float least)
{
    c->n = 0;
    for (size_t i = next_block(c, 0, least); i < c->n_vocab; i = next_block(c, i, least))
        for (const size_t end = block_end(c, i); i < end; i++)
            if (c->logits[i] >= least) put(c, i);
    c->is_list = true;
    apr_cands_changed(c);
}

void apr_cands_list(struct apr_cands *c)
{
    if (!c->is_list) list_from(c, -FLT_MAX);
}

float *apr_cands_logit(struct apr_cands *c, int32_t id)
{
    if (!c->is_list) return &c->logits[id];
    if (!c->has_where) {
        for (size_t i = 0; i < c->n; i++) c->where[c->at[i].id] = (uint32_t)i;
        c->has_where = true;
    }
    size_t i = c->where[id];
    return i < c->n && c->at[i].id == id ? &c->at[i].logit : NULL;
}

size_t apr_cands_n(const struct apr_cands *c)
{
    return c->is_list ? c->n : c->n_vocab;
}

float apr_cands_max(const struct apr_cands *c)
{
    size_t i_max;
    if (!c->is_list) return c->kern->max(c->logits, c->n_vocab, &i_max);
    float max = c->at[0].logit;
    for (size_t i = 1; i < c->n && !c->n_sorted; i++)
        if (c->at[i].logit > max) max = c->at[i].logit;
    return max;
}

/* A full list is cut to its first k; the bar is their last one. */
static float raise_bar(struct apr_cands *c, size_t k)
{
    apr_order_select(c->at, c->n, k, APR_BY_LOGIT);
    c->n = k;
    float bar = c->at[0].logit;
    for (size_t j = 1; j < k; j++) bar = fminf(bar, c->at[j].logit);
    return bar;
}

/* The first k from all logits in one scan: what can still be among them is gathered above the bar. */
static void scan_first(struct apr_cands *c, size_t k)
{
    size_t room = 4 * k < c->n_vocab ? 4 * k : c->n_vocab;
    float bar = -FLT_MAX;
    c->n = 0;
    for (size_t i = 0; i < c->n_vocab; i = next_block(c, i, bar))
        for (const size_t end = block_end(c, i); i < end; i++) {
            if (!(c->logits[i] >= bar)) continue;
            if (c->n == room) bar = raise_bar(c, k);
            if (c->logits[i] >= bar) put(c, i);
        }
    c->is_list = true;
    apr_cands_changed(c);
}

void apr_cands_first(struct apr_cands *c, size_t k)
{
    if (!c->is_list && k < c->n_vocab / 8) scan_first(c, k);
    apr_cands_list(c);
    apr_cands_sort(c, k);
    if (k < c->n) apr_cands_cut(c, k);
}

void apr_cands_at_least(struct apr_cands *c, double least)
{
    /* A float >= a double: the smallest float that is. */
    float bar = least <= -(double)FLT_MAX ? -FLT_MAX : (float)least;
    if ((double)bar < least) bar = nextafterf(bar, INFINITY);
    if (!c->is_list) {
        list_from(c, bar);
        return;
    }
    size_t n = 0, n_sorted = 0;
    for (size_t i = 0; i < c->n; i++) {
        if (!(c->at[i].logit >= bar)) continue;
        if (i < c->n_sorted) n_sorted++;
        c->at[n++] = c->at[i];
    }
    apr_cands_changed(c);
    c->n = n;
    c->n_sorted = n_sorted;
}

void apr_cands_likely(struct apr_cands *c, double least)
{
    float max = apr_cands_max(c);
    size_t n = 0, n_sorted = 0;
    for (size_t i = 0; i < c->n; i++) {
        if (c->at[i].p < least && c->at[i].logit < max) continue;
        if (i < c->n_sorted) n_sorted++;
        c->at[n++] = c->at[i];
    }
    if (n == c->n) return;
    apr_cands_changed(c);
    c->n = n;
    c->n_sorted = n_sorted;
}

void apr_cands_probs(struct apr_cands *c)
{
    apr_cands_list(c);
    if (c->has_p) return;
    if (c->n >= APR_CANDS_MANY) {
        for (size_t i = 0; i < c->n; i++) c->scratch[i] = c->at[i].logit;
        c->kern->softmax(c->scratch, c->n);
        for (size_t i = 0; i < c->n; i++) c->at[i].p = (double)c->scratch[i];
    } else {
        double max = (double)apr_cands_max(c), sum = 0;
        for (size_t i = 0; i < c->n; i++) sum += c->at[i].p = exp((double)c->at[i].logit - max);
        for (size_t i = 0; i < c->n; i++) c->at[i].p /= sum;
    }
    c->has_p = true;
}

/* An integer. */
static inline double weight(float e)
{
    return ((double)e * WEIGHT + WHOLE) - WHOLE;
}

/* Sums of blocks one beside the other: eight at a time do not wait for each other. */
static uint64_t block_sums(const struct apr_cands *c)
{
    uint64_t all = 0;
    size_t n = 0;
    for (size_t i = 0; i < c->n_vocab; i += BLOCK) {
        const size_t end = block_end(c, i);
        double s[8] = {0};
        size_t k = i;
        for (; k + 8 <= end; k += 8)
            for (size_t j = 0; j < 8; j++) s[j] += weight(c->logits[k + j]);
        for (; k < end; k++) s[0] += weight(c->logits[k]);
        c->sums[n] = (uint64_t)(((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7])));
        all += c->sums[n++];
    }
    return all;
}

bool apr_cands_draw_all(struct apr_cands *c, double u, int32_t *id, double *p)
{
    if (c->is_list || c->n_vocab < APR_CANDS_MANY || c->n_vocab > APR_CANDS_MOST) return false;
    c->kern->exps(c->logits, apr_cands_max(c), c->n_vocab);
    const uint64_t all = block_sums(c);
    uint64_t left = (uint64_t)((unsigned __int128)(uint64_t)(u * 0x1p53) * all >> 53); /* less than all */
    size_t i = 0;
    for (; left >= c->sums[i / BLOCK]; i += BLOCK) left -= c->sums[i / BLOCK];
    for (; left >= (uint64_t)weight(c->logits[i]); i++) left -= (uint64_t)weight(c->logits[i]);
    *id = (int32_t)i;
    *p = weight(c->logits[i]) / (double)all;
    return true;
}

double apr_cands_entropy(const struct apr_cands *c)
{
    double h = 0;
    for (size_t i = 0; i < c->n; i++)
        if (c->at[i].p > 0) h -= c->at[i].p * log(c->at[i].p);
    return h;
}

void apr_cands_sort(struct apr_cands *c, size_t k)
{
    apr_cands_list(c);
    if (k > c->n) k = c->n;
    if (k <= c->n_sorted) return;
    size_t done = c->n_sorted;
    apr_order_sort_first(c->at + done, c->n - done, k - done, APR_BY_LOGIT);
    c->n_sorted = k;
    c->has_where = false;
}

void apr_cands_sort_scores(struct apr_cands *c, size_t k)
{
    apr_order_sort_first(c->at, c->n, k < c->n ? k : c->n, APR_BY_SCORE);
    apr_cands_changed(c);
}

void apr_cands_cut(struct apr_cands *c, size_t n)
{
    c->n = n;
    if (c->n_sorted > n) c->n_sorted = n;
    c->has_p = false;
}

/* In blocks of a length that the compiler knows: it divides many at once. */
static void divide(float *x, size_t n, float by)
{
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (size_t k = 0; k < BLOCK; k++) x[i + k] /= by;
    for (; i < n; i++) x[i] /= by;
}

void apr_cands_temper(struct apr_cands *c, double t)
{
    float by = (float)t;
    if (by <= 0 || !isfinite(apr_cands_max(c) / by)) {
        apr_cands_first(c, 1);
        return;
    }
    size_t n = apr_cands_n(c);
    if (c->is_list)
        for (size_t i = 0; i < n; i++) c->at[i].logit /= by;
    else
        divide(c->logits, n, by);
    c->has_p = false;
}

/* TIES: trim, elect sign, disjoint merge.
 *
 * Yadav et al. 2023, "TIES-Merging: resolving interference when merging models" (arXiv 2306.01708), algorithm
 * 1, per tensor: trim    of each delta x_k - base the fraction --density with the largest magnitudes is kept,
 * the rest is 0; elect   the sign of the weighted sum of the trimmed deltas; where it is 0 the base stays;
 *     merge   the weighted mean of those deltas that have the elected sign; out = base + lambda * mean.
 * All values as large as the smallest one kept are kept too, as in the authors' program.
 */
#include <math.h>
#include <string.h>

#include "merge.h"

/* The k-th largest magnitude is found by counting bit patterns of |delta| as F32, which order as the numbers
 * do: first by the upper 16 of 31 bits, then by the lower 15 of those that share the upper ones. */
#define LOW_BITS  15u
#define N_BINS    ((size_t)1 << 16)
#define N_BINS_LO ((size_t)1 << LOW_BITS)

struct count {
    uint64_t *bins; /* [threads][N_BINS] */
    size_t i_input;
    uint32_t upper; /* second pass: only patterns with these upper bits */
    bool is_second;
};

static uint32_t magnitude_bits(float x, float base)
{
    float d = (float)fabs((double)x - (double)base);
    uint32_t bits;
    memcpy(&bits, &d, sizeof bits);
    return bits;
}

static void count_chunk(struct merge_chunk *c)
{
    const struct count *count = c->ctx;
    const float *x = c->x[count->i_input];
    uint64_t *bins = count->bins + c->i_thread * N_BINS;
    for (size_t i = 0; i < c->n; i++) {
        uint32_t bits = magnitude_bits(x[i], c->base[i]);
        if (!count->is_second)
            bins[bits >> LOW_BITS]++;
        else if (bits >> LOW_BITS == count->upper)
            bins[bits & (N_BINS_LO - 1)]++;
    }
}

/* Counts, and finds the bin that holds the n_keep-th largest; *n_keep becomes its rank inside that bin. */
static enum apr_code find_bin(struct merge *g, struct count *count, uint64_t *n_keep, uint32_t *bin,
                              struct apr_err *e)
{
    unsigned n_threads = apr_pool_threads(g->pool);
    memset(count->bins, 0, n_threads * N_BINS * sizeof *count->bins);
    TRY(merge_pass(g, 0, g->now.n_elems, count->i_input, NULL, count_chunk, count, e));
    for (size_t b = N_BINS; b-- > 0;) {
        uint64_t n = 0;
        for (unsigned i = 0; i < n_threads; i++) n += count->bins[i * N_BINS + b];
        *bin = (uint32_t)b;
        if (n >= *n_keep) return APR_OK;
        *n_keep -= n;
    }
    return APR_OK; /* not reached: all values together are at least n_keep */
}

static enum apr_code find_least(struct merge *g, struct count *count, uint32_t *least, struct apr_err *e)
{
    double wanted = floor(g->params.density * (double)g->now.n_elems + 0.5);
    uint64_t n_keep = wanted < 1 ? 1 : (uint64_t)wanted;
    uint32_t lower;
    *least = 0;
    if (n_keep >= g->now.n_elems) return APR_OK;
    count->is_second = false;
    TRY(find_bin(g, count, &n_keep, &count->upper, e));
    count->is_second = true;
    TRY(find_bin(g, count, &n_keep, &lower, e));
    *least = count->upper << LOW_BITS | lower;
    return APR_OK;
}

enum apr_code merge_ties_prepare(struct merge *g, struct apr_err *e)
{
    struct apr_arena arena;
    struct count count = {.i_input = 0};
    apr_arena_init(&arena);
    enum apr_code code = apr_arena_try(&arena, &count.bins, apr_pool_threads(g->pool),
                                       N_BINS * sizeof *count.bins, "counts of magnitudes", e);
    for (size_t k = 0; code == APR_OK && k < g->n_inputs; k++) {
        count.i_input = k;
        code = find_least(g, &count, &g->now.least_bits[k], e);
    }
    apr_arena_free(&arena);
    return code;
}

uint64_t merge_ties_bytes(uint64_t n_elems, unsigned n_threads)
{
    (void)n_elems;
    return (uint64_t)n_threads * N_BINS * sizeof(uint64_t);
}

double merge_elect(const double *d, const double *weights, size_t n)
{
    double total = 0, sum = 0, weight = 0;
    for (size_t k = 0; k < n; k++) total += weights[k] * d[k];
    for (size_t k = 0; k < n; k++) {
        if (!(total > 0 ? d[k] > 0 : d[k] < 0)) continue;
        sum += weights[k] * d[k];
        weight += weights[k];
    }
    return (total > 0 || total < 0) && weight > 0 ? sum / weight : 0;
}

void merge_ties_mix(struct merge_chunk *c)
{
    const struct merge *g = c->g;
    double d[MERGE_MAX_INPUTS];
    for (size_t i = 0; i < c->n; i++) {
        for (size_t k = 0; k < g->n_inputs; k++) {
            bool kept = magnitude_bits(c->x[k][i], c->base[i]) >= g->now.least_bits[k];
            d[k] = kept ? (double)c->x[k][i] - (double)c->base[i] : 0;
        }
        c->out[i] =
            (float)((double)c->base[i] + g->params.lambda * merge_elect(d, g->params.weights, g->n_inputs));
    }
}

/* A sampler's chain over the few candidates that top_k has left, by one warp: tools/apr-infer/sampler, step
 * by step, with the same operations in double in the same order.
 *
 * Sums go from the first candidate to the last, computed by every lane for itself; products that are added
 * are rounded in between. So all that can differ from the host is the last bit of exp, log and pow, and a
 * token only where such a bit decides: about once in 1e14 draws. The candidates are the block's, in shared
 * memory: 24 bytes each, and as many again to sort them.
 */
#ifndef APR_CHAIN_CUH
#define APR_CHAIN_CUH

#include "sample.cuh"

struct cands {
    double p[APR_GPU_TOP_K]; /* what p is of the host's candidates: a probability, or a score */
    double q[APR_GPU_TOP_K]; /* terms of a sum */
    float logit[APR_GPU_TOP_K];
    int32_t id[APR_GPU_TOP_K];
    struct {
        double p[APR_GPU_TOP_K];
        float logit[APR_GPU_TOP_K];
        int32_t id[APR_GPU_TOP_K];
    } sorted; /* before it goes back */
};
/* What every lane knows. */
struct chain {
    struct cands *c;
    uint32_t lane, n;
    bool in_order; /* larger logits first, equal ones by id */
    bool has_p;
    uint64_t bits; /* of this token: rng.h */
};

/* rng.c's: the uniforms of a token beside the first. */
static __device__ double chain_uniform(uint64_t bits, uint64_t use)
{
    if (use) {
        uint64_t z = bits + use * 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        bits = z ^ z >> 31;
    }
    return (double)(bits >> 11) * 0x1p-53;
}

static __device__ double chain_max(const struct chain *k)
{
    float max = k->c->logit[0];
    for (uint32_t i = 1; i < k->n && !k->in_order; i++) max = k->c->logit[i] > max ? k->c->logit[i] : max;
    return (double)max;
}
static __device__ double sum_of(const double *x, uint32_t n)
{
    double sum = 0;
#pragma unroll 8
    for (uint32_t i = 0; i < n; i++) sum += x[i];
    return sum;
}

/* q[i] = x[0] + ... + x[i]; x may be q. */
static __device__ void chain_runs(struct chain *k, const double *x)
{
    double run = 0, *q = k->c->q;
    __syncwarp();
    if (k->lane == 0) {
#pragma unroll 8
        for (uint32_t i = 0; i < k->n; i++) q[i] = run += x[i];
    }
    __syncwarp();
}
/* The first of n places from i on at which q is more than v, or as much where that will do; n where none is.
 */
static __device__ uint32_t chain_over(const struct chain *k, uint32_t i, uint32_t n, double v,
                                      bool equal_will_do)
{
    const double *q = k->c->q;
    unsigned over = 0;
    for (; i < n && !over; i += 32) {
        const uint32_t j = i + k->lane;
        over = __ballot_sync(~0u, j < n && (equal_will_do ? q[j] >= v : q[j] > v));
    }
    __syncwarp(); /* q may be written now */
    return over ? i - 32 + (uint32_t)__ffs((int)over) - 1 : n;
}

static __device__ void chain_probs(struct chain *k)
{
    struct cands *c = k->c;
    if (k->has_p) return;
    const double max = chain_max(k);
    for (uint32_t i = k->lane; i < k->n; i += 32) c->p[i] = exp((double)c->logit[i] - max);
    __syncwarp();
    const double sum = sum_of(c->p, k->n);
    __syncwarp();
    for (uint32_t i = k->lane; i < k->n; i += 32) c->p[i] /= sum;
    __syncwarp();
    k->has_p = true;
}
/* Nats; p is there. */
static __device__ double chain_entropy(struct chain *k)
{
    struct cands *c = k->c;
    double h = 0;
    for (uint32_t i = k->lane; i < k->n; i += 32) c->q[i] = c->p[i] > 0 ? c->p[i] * log(c->p[i]) : 0;
    __syncwarp();
#pragma unroll 8
    for (uint32_t i = 0; i < k->n; i++) h -= c->q[i];
    __syncwarp();
    return h;
}

static __device__ void chain_cut(struct chain *k, uint32_t n)
{
    k->n = n;
    k->has_p = false;
}
/* Keeps those whose q is not 0, in their order; never none. */
static __device__ void chain_keep(struct chain *k)
{
    struct cands *c = k->c;
    uint32_t n = 0;
    for (uint32_t first = 0; first < k->n; first += 32) {
        const uint32_t i = first + k->lane;
        const bool stays = i < k->n && c->q[i] != 0;
        const double p = stays ? c->p[i] : 0;
        const float logit = stays ? c->logit[i] : 0;
        const int32_t id = stays ? c->id[i] : 0;
        const unsigned mask = __ballot_sync(~0u, stays);
        const uint32_t to = n + __popc(mask & ((1u << k->lane) - 1)); /* <= i */
        __syncwarp();
        if (stays) c->p[to] = p, c->logit[to] = logit, c->id[to] = id;
        n += __popc(mask);
        __syncwarp();
    }
    k->n = n ? n : 1;
}
static __device__ void keep_logits(struct chain *k, double least)
{
    for (uint32_t i = k->lane; i < k->n; i += 32) k->c->q[i] = (double)k->c->logit[i] >= least;
    __syncwarp();
    chain_keep(k);
    k->has_p = false;
}
/* And the likeliest in any case. */
static __device__ void keep_likely(struct chain *k, double least)
{
    const double max = chain_max(k);
    const uint32_t n = k->n;
    for (uint32_t i = k->lane; i < n; i += 32)
        k->c->q[i] = !(k->c->p[i] < least && (double)k->c->logit[i] < max);
    __syncwarp();
    chain_keep(k);
    if (k->n != n) k->has_p = false;
}

/* The bits of what orders candidates: smaller first, all of them comparable. */
static __device__ uint64_t order_of(const struct cands *c, uint32_t i, bool by_score)
{
    if (by_score) return (uint64_t)__double_as_longlong(c->p[i]); /* never negative */
    return 0xffffffffu - key_order(c->logit[i]);
}
/* By logit, or by score (p, the smallest first); equal ones by id. Each finds its place by counting. */
static __device__ void chain_sort(struct chain *k, bool by_score)
{
    struct cands *c = k->c;
    for (uint32_t i = k->lane; i < k->n; i += 32) {
        const uint64_t mine = order_of(c, i, by_score);
        uint32_t to = 0;
        for (uint32_t j = 0; j < k->n; j++) {
            const uint64_t other = order_of(c, j, by_score);
            to += other < mine || (other == mine && c->id[j] < c->id[i]);
        }
        c->sorted.p[to] = c->p[i], c->sorted.logit[to] = c->logit[i], c->sorted.id[to] = c->id[i];
    }
    __syncwarp();
    for (uint32_t i = k->lane; i < k->n; i += 32)
        c->p[i] = c->sorted.p[i], c->logit[i] = c->sorted.logit[i], c->id[i] = c->sorted.id[i];
    __syncwarp();
    k->in_order = !by_score;
}

/* ---- steps ------------------------------------------------------------------------------------------------
 */

static __device__ void top_p(struct chain *k, const double *v)
{
    chain_probs(k);
    if (!k->in_order) {
        const double least = __dmul_rn(1 - v[0], 0.999);
        for (uint32_t i = k->lane; i < k->n; i += 32)
            k->c->q[i] = !(__dmul_rn(k->c->p[i], (double)k->n) < least);
        __syncwarp();
        chain_keep(k);
        chain_sort(k, false);
    }
    chain_runs(k, k->c->p);
    const uint32_t last = chain_over(k, 0, k->n, v[0], true);
    chain_cut(k, last < k->n ? last + 1 : k->n);
}
static __device__ void min_p(struct chain *k, const double *v)
{
    keep_logits(k, chain_max(k) + v[0]);
}
static __device__ void typical(struct chain *k, const double *v)
{
    struct cands *c = k->c;
    chain_probs(k);
    const double h = chain_entropy(k), max = chain_max(k);
    for (uint32_t i = k->lane; i < k->n; i += 32) c->q[i] = exp((double)c->logit[i] - max);
    __syncwarp();
    const double z = sum_of(c->q, k->n), log_z = log(fmax(z, 1.0));
    for (uint32_t i = k->lane; i < k->n; i += 32) c->p[i] = fabs(log_z + max - (double)c->logit[i] - h);
    __syncwarp();
    chain_sort(k, true);
    for (uint32_t i = k->lane; i < k->n; i += 32) c->q[i] = exp((double)c->logit[i] - max) / z;
    __syncwarp();
    chain_runs(k, c->q);
    const uint32_t last = chain_over(k, 0, k->n, v[0], false);
    chain_cut(k, last < k->n ? last + 1 : k->n);
}
static __device__ void tail_free(struct chain *k, const double *v)
{
    struct cands *c = k->c;
    chain_probs(k);
    if (k->n < 3) return;
    if (!k->in_order) chain_sort(k, false);
    const uint32_t n = k->n - 2;
    for (uint32_t i = k->lane; i < n; i += 32)
        c->q[i] = fabs((c->p[i] - c->p[i + 1]) - (c->p[i + 1] - c->p[i + 2]));
    __syncwarp();
    const double sum = sum_of(c->q, n);
    __syncwarp();
    for (uint32_t i = k->lane; i < n; i += 32) c->q[i] = sum > 1e-6 ? c->q[i] / sum : 1 / (double)n;
    __syncwarp();
    chain_runs(k, c->q); /* and two more, which nobody looks at */
    const uint32_t flat = chain_over(k, 1, n, v[0], false);
    if (flat < n) chain_cut(k, flat);
}
static __device__ void top_n_sigma(struct chain *k, const double *v)
{
    const double max = chain_max(k);
    double sum = 0, sum_sq = 0;
    uint32_t n = 0;
    for (uint32_t i = 0; i < k->n; i++) {
        const double below = (double)k->c->logit[i] - max;
        if (isinf(below)) continue;
        n++;
        sum += below;
        sum_sq = __dadd_rn(sum_sq, __dmul_rn(below, below));
    }
    const double mean = sum / (double)n,
                 variance = fmax(0.0, __dsub_rn(sum_sq / (double)n, __dmul_rn(mean, mean)));
    __syncwarp();
    keep_logits(k, __dsub_rn(max, __dmul_rn(v[0], sqrt(variance))));
}
static __device__ void eta(struct chain *k, const double *v)
{
    chain_probs(k);
    keep_likely(k, fmin(v[0], sqrt(v[0]) * exp(-chain_entropy(k))));
}
static __device__ void epsilon(struct chain *k, const double *v)
{
    chain_probs(k);
    keep_likely(k, v[0]);
}
/* v: probability, threshold. Where the order is not that of logits, the host sorts the first 64; here there
 * are fewer then (gpu.h). */
static __device__ void xtc(struct chain *k, const double *v)
{
    if (chain_uniform(k->bits, 1) >= v[0]) return;
    chain_probs(k);
    if (!k->in_order) chain_sort(k, false);
    uint32_t n_top = 0;
    while (n_top < k->n && k->c->p[n_top] >= v[1]) n_top++;
    if (n_top < 2) return;
    for (uint32_t i = k->lane; i < k->n; i += 32) k->c->q[i] = i >= n_top - 1;
    __syncwarp();
    chain_keep(k);
    k->has_p = false;
}
static __device__ void divide(struct chain *k, double t)
{
    const float by = (float)t;
    if (by <= 0 || !isfinite(__fdiv_rn((float)chain_max(k), by))) {
        if (!k->in_order) chain_sort(k, false);
        chain_cut(k, 1);
        return;
    }
    __syncwarp();
    for (uint32_t i = k->lane; i < k->n; i += 32) k->c->logit[i] = __fdiv_rn(k->c->logit[i], by);
    __syncwarp();
    k->has_p = false;
}
static __device__ void temperature(struct chain *k, const double *v)
{
    divide(k, v[0]);
}
/* v: temperature, range, exponent. */
static __device__ void dynatemp(struct chain *k, const double *v)
{
    chain_probs(k);
    if (k->n < 2) return;
    const double lo = fmax(0.0, v[0] - v[1]), h = chain_entropy(k) / log((double)k->n),
                 bent = pow(fmin(fmax(h, 0.0), 1.0), v[2]);
    divide(k, __dadd_rn(lo, __dmul_rn(v[0] + v[1] - lo, bent)));
}

static __device__ void chain_step(struct chain *k, const struct apr_gpu_pick *s)
{
    switch ((enum apr_gpu_pick_kind)s->kind) {
    case APR_GPU_PICK_TOP_P:
        return top_p(k, s->v);
    case APR_GPU_PICK_MIN_P:
        return min_p(k, s->v);
    case APR_GPU_PICK_TYPICAL:
        return typical(k, s->v);
    case APR_GPU_PICK_TAIL_FREE:
        return tail_free(k, s->v);
    case APR_GPU_PICK_TOP_N_SIGMA:
        return top_n_sigma(k, s->v);
    case APR_GPU_PICK_ETA:
        return eta(k, s->v);
    case APR_GPU_PICK_EPSILON:
        return epsilon(k, s->v);
    case APR_GPU_PICK_XTC:
        return xtc(k, s->v);
    case APR_GPU_PICK_TEMPERATURE:
        return temperature(k, s->v);
    case APR_GPU_PICK_DYNATEMP:
        return dynatemp(k, s->v);
    case APR_GPU_N_PICKS:
        return;
    }
}
/* The place of the token. */
static __device__ uint32_t chain_draw(struct chain *k)
{
    chain_probs(k);
    chain_runs(k, k->c->p);
    const double below = chain_uniform(k->bits, 0) * k->c->q[k->n - 1]; /* u < 1: less than that */
    const uint32_t i = chain_over(k, 0, k->n, below, false);
    return i < k->n ? i : k->n - 1;
}

#endif

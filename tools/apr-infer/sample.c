/* The sampling chain. Every step narrows cands[0 .. n_cands); probabilities are computed where a step needs
 * them, in double, from logits relative to the largest. */
#include "sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t rotl(uint64_t x, unsigned k)
{
    return x << k | x >> (64 - k);
}

/* xoshiro256**, Blackman and Vigna. */
static uint64_t rng_next(uint64_t s[4])
{
    uint64_t result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

/* splitmix64 spreads any seed, 0 included, over the state. */
static void rng_seed(uint64_t s[4], uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        seed += 0x9e3779b97f4a7c15u;
        uint64_t z = (seed ^ seed >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        s[i] = z ^ z >> 31;
    }
}

/* Larger logits first; equal ones by id. */
static bool before(struct apr_cand a, struct apr_cand b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static int compare(const void *a, const void *b)
{
    return before(*(const struct apr_cand *)a, *(const struct apr_cand *)b) ? -1 : 1;
}

/* Brings the first k of the order to the front, unsorted among themselves (quickselect, median of three). */
static void select_first(struct apr_cand *c, size_t n, size_t k)
{
    size_t lo = 0, hi = n; /* the border at k lies in [lo, hi) */
    while (hi - lo > 16) {
        struct apr_cand x = c[lo], y = c[lo + (hi - lo) / 2], z = c[hi - 1];
        struct apr_cand pivot = before(x, y) ? (before(y, z)   ? y
                                                : before(x, z) ? z
                                                               : x)
                                             : (before(x, z)   ? x
                                                : before(y, z) ? z
                                                               : y);
        size_t i = lo, j = hi - 1;
        for (;;) {
            while (before(c[i], pivot)) i++;
            while (before(pivot, c[j])) j--;
            if (i >= j) break;
            struct apr_cand t = c[i];
            c[i++] = c[j];
            c[j--] = t;
        }
        /* c[lo .. i) is not after the pivot, c[i .. hi) is not before it; both are smaller than before. */
        if (i == j) i++;
        if (k < i)
            hi = i;
        else
            lo = i;
    }
    qsort(c + lo, hi - lo, sizeof *c, compare);
}

static void sort_first(struct apr_cand *c, size_t n, size_t k)
{
    if (k < n) select_first(c, n, k);
    qsort(c, k, sizeof *c, compare);
}

/* Repetition penalty, once for each distinct token of the window. */
static void penalise(struct apr_sampler *s, float *logits)
{
    if (s->opts.repeat_penalty == 1.0) return;
    size_t n = s->n_seen < s->n_recent_max ? s->n_seen : s->n_recent_max;
    float penalty = (float)s->opts.repeat_penalty;
    if (++s->round == 0) { /* wrapped */
        memset(s->mark, 0, s->n_vocab * sizeof *s->mark);
        s->round = 1;
    }
    for (size_t i = 0; i < n; i++) {
        size_t id = (size_t)s->recent[i];
        if (s->mark[id] == s->round) continue;
        s->mark[id] = s->round;
        logits[id] = logits[id] > 0 ? logits[id] / penalty : logits[id] * penalty;
    }
}

static void top_k(struct apr_sampler *s)
{
    if (s->opts.top_k <= 0 || (uint64_t)s->opts.top_k >= s->n_cands) return;
    sort_first(s->cands, s->n_cands, (size_t)s->opts.top_k);
    s->n_cands = (size_t)s->opts.top_k;
}

static float max_logit(const struct apr_sampler *s)
{
    float max = s->cands[0].logit;
    for (size_t i = 1; i < s->n_cands; i++)
        if (s->cands[i].logit > max) max = s->cands[i].logit;
    return max;
}

static double sum_exp(const struct apr_sampler *s, float max)
{
    double sum = 0;
    for (size_t i = 0; i < s->n_cands; i++) sum += exp((double)s->cands[i].logit - (double)max);
    return sum;
}

/* The smallest prefix of the sorted candidates whose mass reaches p; at least one. Sorts only as far as
 * needed: in steps of 64, 512, 4096 ... candidates. */
static void top_p(struct apr_sampler *s)
{
    if (s->opts.top_p >= 1.0) return;
    float max = max_logit(s);
    double need = s->opts.top_p * sum_exp(s, max), sum = 0;
    size_t i = 0;
    for (size_t k = 64; i < s->n_cands; k *= 8) {
        if (k > s->n_cands) k = s->n_cands;
        sort_first(s->cands, s->n_cands, k);
        for (; i < k; i++) {
            sum += exp((double)s->cands[i].logit - (double)max);
            if (sum >= need) {
                s->n_cands = i + 1;
                return;
            }
        }
    }
}

/* p >= min_p * p_max, which is logit >= max + ln(min_p). */
static void min_p(struct apr_sampler *s)
{
    if (s->opts.min_p <= 0.0) return;
    double least = (double)max_logit(s) + log(s->opts.min_p);
    size_t n = 0;
    for (size_t i = 0; i < s->n_cands; i++)
        if ((double)s->cands[i].logit >= least) s->cands[n++] = s->cands[i];
    s->n_cands = n;
}

static void temper(struct apr_sampler *s)
{
    float t = (float)s->opts.temperature;
    for (size_t i = 0; i < s->n_cands; i++) s->cands[i].logit /= t;
}

static int32_t draw(struct apr_sampler *s)
{
    float max = max_logit(s);
    double u = (double)(rng_next(s->rng) >> 11) * 0x1p-53 * sum_exp(s, max), sum = 0;
    for (size_t i = 0; i < s->n_cands; i++) {
        sum += exp((double)s->cands[i].logit - (double)max);
        if (u < sum) return s->cands[i].id;
    }
    return s->cands[s->n_cands - 1].id;
}

void apr_sample_defaults(struct apr_sample_opts *o)
{
    *o = (struct apr_sample_opts){.top_p = 1, .repeat_penalty = 1, .repeat_last_n = 64};
}

void apr_sample_from_model(struct apr_sample_opts *o, const struct apr_generation *g)
{
    if (g->has_temperature) o->temperature = g->temperature;
    if (g->has_top_k) o->top_k = g->top_k;
    if (g->has_top_p) o->top_p = g->top_p;
    if (g->has_min_p) o->min_p = g->min_p;
    if (g->has_repetition_penalty) o->repeat_penalty = g->repetition_penalty;
    if (!g->has_temperature && g->do_sample) o->temperature = 1;
    if (!g->do_sample) o->temperature = 0;
}

enum apr_code apr_sample_check(const struct apr_sample_opts *o, struct apr_err *e)
{
    const struct {
        const char *name, *range;
        double v;
        bool ok;
    } rows[] = {
        {"--temperature", "0 to 100", o->temperature, o->temperature >= 0 && o->temperature <= 100},
        {"--top-p", "more than 0, at most 1", o->top_p, o->top_p > 0 && o->top_p <= 1},
        {"--min-p", "0 to 1", o->min_p, o->min_p >= 0 && o->min_p <= 1},
        {"--repeat-penalty", "more than 0, at most 100", o->repeat_penalty,
         o->repeat_penalty > 0 && o->repeat_penalty <= 100},
        {"--repeat-last-n", "-1 or more", (double)o->repeat_last_n, o->repeat_last_n >= -1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!rows[i].ok)
            return apr_fail(e, APR_EUSAGE, "%s: found %g, expected %s", rows[i].name, rows[i].v,
                            rows[i].range);
    return APR_OK;
}

enum apr_code apr_sampler_init(struct apr_sampler *s, const struct apr_sample_opts *o, size_t n_vocab,
                               size_t n_ctx, const struct apr_kern *kern, struct apr_arena *arena,
                               struct apr_err *e)
{
    *s = (struct apr_sampler){.opts = *o, .kern = kern, .n_vocab = n_vocab};
    rng_seed(s->rng, o->seed);
    if (o->temperature <= 0) return APR_OK;
    s->n_recent_max =
        o->repeat_last_n < 0 || (uint64_t)o->repeat_last_n > n_ctx ? n_ctx : (size_t)o->repeat_last_n;
    TRY(apr_arena_try(arena, &s->cands, n_vocab, sizeof *s->cands, "candidates", e));
    TRY(apr_arena_try(arena, &s->mark, n_vocab, sizeof *s->mark, "penalty marks", e));
    return apr_arena_try(arena, &s->recent, s->n_recent_max + 1, sizeof *s->recent, "penalty window", e);
}

void apr_sampler_accept(struct apr_sampler *s, int32_t id)
{
    if (!s->n_recent_max || id < 0 || (size_t)id >= s->n_vocab) return;
    s->recent[s->n_seen++ % s->n_recent_max] = id;
}

void apr_sampler_chain(struct apr_sampler *s, float *logits)
{
    penalise(s, logits);
    for (size_t i = 0; i < s->n_vocab; i++) s->cands[i] = (struct apr_cand){logits[i], (int32_t)i};
    s->n_cands = s->n_vocab;
    top_k(s);
    top_p(s);
    min_p(s);
    temper(s);
}

void apr_sampler_probs(const struct apr_sampler *s, double *p)
{
    float max = max_logit(s);
    double sum = sum_exp(s, max);
    for (size_t i = 0; i < s->n_cands; i++) p[i] = exp((double)s->cands[i].logit - (double)max) / sum;
}

int32_t apr_sampler_next(struct apr_sampler *s, float *logits)
{
    if (s->opts.temperature <= 0) {
        size_t i_max;
        s->kern->max(logits, s->n_vocab, &i_max);
        return (int32_t)i_max;
    }
    apr_sampler_chain(s, logits);
    return draw(s);
}

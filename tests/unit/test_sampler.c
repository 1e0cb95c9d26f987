/* Every step of the chain against its definition, written down again in double precision without any of the
 * chain's means (full sorts, direct sums), on 10 000 random distributions each. Draws: test_sampler_draws.c.
 *
 * Where a value of the definition is within 1e-9 of a border, rounding may decide otherwise: such a case is
 * skipped, and few may be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../tools/apr-infer/sampler/sampler.h"

#define N_CASES 10000
#define N_MOST  120u
#define NEAR    1e-9

static uint64_t random_state;

static double uniform(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 11) * 0x1p-53;
}

static size_t below(size_t n)
{
    return (size_t)(uniform() * (double)n);
}

/* One distribution: what the definition keeps, with logits. */
struct ref {
    size_t n;
    float logits[N_MOST];
    double x[N_MOST], p[N_MOST]; /* x: logits as the step leaves them */
    bool keep[N_MOST];
    size_t by_p[N_MOST]; /* likeliest first, equal ones by id */
    int32_t past[N_MOST];
    size_t n_past;
    bool near; /* too near a border to tell */
    double mu;
};

static const struct ref *sorting;

static int by_x(const void *a, const void *b)
{
    size_t i = *(const size_t *)a, k = *(const size_t *)b;
    if (sorting->x[i] != sorting->x[k]) return sorting->x[i] > sorting->x[k] ? -1 : 1;
    return (i > k) - (i < k);
}

static void softmax(struct ref *r)
{
    double max = r->x[0], sum = 0;
    for (size_t i = 0; i < r->n; i++) max = fmax(max, r->x[i]);
    for (size_t i = 0; i < r->n; i++) sum += r->p[i] = exp(r->x[i] - max);
    for (size_t i = 0; i < r->n; i++) r->p[i] /= sum;
    for (size_t i = 0; i < r->n; i++) r->by_p[i] = i;
    sorting = r;
    qsort(r->by_p, r->n, sizeof *r->by_p, by_x);
}

static double entropy(const struct ref *r)
{
    double h = 0;
    for (size_t i = 0; i < r->n; i++) h -= r->p[i] > 0 ? r->p[i] * log(r->p[i]) : 0;
    return h;
}

static void near(struct ref *r, double a, double b)
{
    if (fabs(a - b) <= NEAR * fmax(1, fabs(b))) r->near = true;
}

static void keep_first(struct ref *r, size_t n)
{
    for (size_t k = 0; k < r->n; k++) r->keep[r->by_p[k]] = k < n;
}

static void keep_likely(struct ref *r, double least)
{
    for (size_t i = 0; i < r->n; i++) {
        r->keep[i] = r->p[i] >= least || i == r->by_p[0];
        if (i != r->by_p[0]) near(r, r->p[i] / least, 1);
    }
}

/* ---- definitions ---- */

static void ref_top_k(struct ref *r, const struct apr_sample_opts *o)
{
    keep_first(r, (size_t)o->top_k);
}

static void ref_top_p(struct ref *r, const struct apr_sample_opts *o)
{
    size_t n = 0;
    for (double sum = 0; n < r->n && sum < o->top_p; n++) near(r, sum += r->p[r->by_p[n]], o->top_p);
    keep_first(r, n);
}

static void ref_min_p(struct ref *r, const struct apr_sample_opts *o)
{
    keep_likely(r, o->min_p * r->p[r->by_p[0]]);
}

static void ref_typical(struct ref *r, const struct apr_sample_opts *o)
{
    double h = entropy(r), sum = 0;
    bool taken[N_MOST] = {false};
    while (sum <= o->typical_p) {
        size_t best = r->n;
        double least = INFINITY;
        for (size_t i = 0; i < r->n; i++) {
            double score = fabs(-log(r->p[i]) - h);
            if (taken[i]) continue;
            if (best < r->n) near(r, score, least);
            if (score < least) {
                least = score;
                best = i;
            }
        }
        if (best == r->n) break;
        taken[best] = true;
        near(r, sum += r->p[best], o->typical_p);
    }
    memcpy(r->keep, taken, sizeof taken);
}

static void ref_tail_free(struct ref *r, const struct apr_sample_opts *o)
{
    double second[N_MOST], sum = 0, run = 0;
    size_t n = r->n - 2, keep = r->n;
    for (size_t i = 0; i < n; i++) {
        const double a = r->p[r->by_p[i]], b = r->p[r->by_p[i + 1]], c = r->p[r->by_p[i + 2]];
        sum += second[i] = fabs((a - b) - (b - c));
    }
    for (size_t i = 0; i < n; i++) {
        run += second[i] / sum;
        near(r, run, o->tail_free);
        if (run > o->tail_free && i) {
            keep = i;
            break;
        }
    }
    keep_first(r, keep);
}

static void ref_eta(struct ref *r, const struct apr_sample_opts *o)
{
    keep_likely(r, fmin(o->eta_cutoff, sqrt(o->eta_cutoff) * exp(-entropy(r))));
}

static void ref_epsilon(struct ref *r, const struct apr_sample_opts *o)
{
    keep_likely(r, o->epsilon_cutoff);
}

static void ref_top_n_sigma(struct ref *r, const struct apr_sample_opts *o)
{
    double mean = 0, variance = 0;
    for (size_t i = 0; i < r->n; i++) mean += r->x[i] / (double)r->n;
    for (size_t i = 0; i < r->n; i++) variance += (r->x[i] - mean) * (r->x[i] - mean) / (double)r->n;
    double least = r->x[r->by_p[0]] - o->top_n_sigma * sqrt(variance);
    for (size_t i = 0; i < r->n; i++) {
        r->keep[i] = r->x[i] >= least;
        near(r, r->x[i], least);
    }
}

static void ref_xtc(struct ref *r, const struct apr_sample_opts *o)
{
    size_t n = 0;
    while (n < r->n && r->p[r->by_p[n]] >= o->xtc_threshold) n++;
    for (size_t i = 0; i < r->n; i++) near(r, r->p[i], o->xtc_threshold);
    for (size_t k = 0; k + 1 < n; k++) r->keep[r->by_p[k]] = false;
}

static void ref_temperature(struct ref *r, const struct apr_sample_opts *o)
{
    double t = o->temperature;
    if (o->dynatemp_range > 0) {
        double lo = fmax(0, t - o->dynatemp_range), hi = t + o->dynatemp_range;
        t = lo + (hi - lo) * pow(entropy(r) / log((double)r->n), o->dynatemp_exponent);
    }
    for (size_t i = 0; i < r->n; i++) r->x[i] /= t;
}

static void ref_mirostat(struct ref *r, const struct apr_sample_opts *o)
{
    (void)o;
    for (size_t i = 0; i < r->n; i++) {
        r->keep[i] = -log2(r->p[i]) <= r->mu || i == r->by_p[0];
        if (i != r->by_p[0]) near(r, -log2(r->p[i]), r->mu);
    }
}

static size_t first_in_window(const struct ref *r, int64_t last_n)
{
    return last_n < 0 || (size_t)last_n >= r->n_past ? 0 : r->n_past - (size_t)last_n;
}

static void ref_penalties(struct ref *r, const struct apr_sample_opts *o)
{
    for (size_t i = 0; i < r->n; i++) {
        size_t count = 0;
        for (size_t k = first_in_window(r, o->repeat_last_n); k < r->n_past; k++)
            count += r->past[k] == (int32_t)i;
        if (!count) continue;
        r->x[i] = r->x[i] > 0 ? r->x[i] / o->repeat_penalty : r->x[i] * o->repeat_penalty;
        r->x[i] -= o->presence_penalty + (double)count * o->frequency_penalty;
    }
}

/* For each token: the longest end of the text that also stands before an earlier occurrence of the token. */
static void ref_dry(struct ref *r, const struct apr_sample_opts *o)
{
    size_t first = first_in_window(r, o->dry_last_n);
    for (size_t i = 0; i < r->n; i++) {
        size_t longest = 0;
        for (size_t at = first + 1; at < r->n_past; at++) {
            size_t len = 0;
            if (r->past[at] != (int32_t)i) continue;
            while (len < at - first && r->past[at - 1 - len] == r->past[r->n_past - 1 - len]) len++;
            if (len > longest) longest = len;
        }
        if (longest < (size_t)o->dry_allowed_length || !longest) continue;
        r->x[i] -= o->dry_multiplier * pow(o->dry_base, (double)longest - (double)o->dry_allowed_length);
    }
}

/* ---- random values for the options of each step ---- */

static void set_top_k(struct apr_sample_opts *o, size_t n)
{
    o->top_k = 1 + (int64_t)below(n + 3);
}
static void set_top_p(struct apr_sample_opts *o, size_t n)
{
    (void)n;
    o->top_p = 0.001 + 0.998 * uniform();
}
static void set_min_p(struct apr_sample_opts *o, size_t n)
{
    (void)n;
    o->min_p = 0.001 + 0.9 * uniform();
}
static void set_typical(struct apr_sample_opts *o, size_t n)
{
    (void)n;
    o->typical_p = 0.01 + 0.98 * uniform();
}
static void set_tail_free(struct apr_sample_opts *o, size_t n)
{
    (void)n;
    o->tail_free = 0.05 + 0.94 * uniform();
}
static void set_eta(struct apr_sample_opts *o, size_t n)
{
    (void)n;
    o->eta_cutoff = pow(10, -4 * uniform()) * 0.9;
}
static void set_epsilon(struct apr_sample_opts *o, size_t n)
{
    (void)n;
    o->epsilon_cutoff = pow(10, -4 * uniform()) * 0.9;
}
static void set_top_n_sigma(struct apr_sample_opts *o, size_t n)
{
    (void)n;
    o->top_n_sigma = 0.05 + 3 * uniform();
}
static void set_xtc(struct apr_sample_opts *o, size_t n)
{
    (void)n;
    o->xtc_probability = 1;
    o->xtc_threshold = 0.5 * uniform();
}
static void set_temperature(struct apr_sample_opts *o, size_t n)
{
    (void)n;
    o->temperature = 0.2 + 2 * uniform();
    if (uniform() < 0.5) o->dynatemp_range = (o->temperature - 0.1) * uniform();
    if (o->dynatemp_range > 0) o->dynatemp_exponent = 0.5 + uniform();
}
static void set_mirostat(struct apr_sample_opts *o, size_t n)
{
    (void)n;
    o->mirostat = 2;
    o->mirostat_tau = 4 * uniform();
}
static void set_penalties(struct apr_sample_opts *o, size_t n)
{
    (void)n;
    o->repeat_penalty = 0.8 + uniform();
    o->presence_penalty = uniform() - 0.3;
    o->frequency_penalty = uniform() - 0.3;
    o->repeat_last_n = (int64_t)below(80) - 1;
}
static void set_dry(struct apr_sample_opts *o, size_t n)
{
    (void)n;
    o->dry_multiplier = 0.1 + uniform();
    o->dry_base = 1 + uniform();
    o->dry_allowed_length = 1 + (int64_t)below(4);
    o->dry_last_n = (int64_t)below(100) - 1;
}

static const struct row {
    const char *name;
    void (*set)(struct apr_sample_opts *o, size_t n);
    void (*define)(struct ref *r, const struct apr_sample_opts *o);
} rows[] = {
    {"top_k", set_top_k, ref_top_k},
    {"top_p", set_top_p, ref_top_p},
    {"min_p", set_min_p, ref_min_p},
    {"typical", set_typical, ref_typical},
    {"tail_free", set_tail_free, ref_tail_free},
    {"eta", set_eta, ref_eta},
    {"epsilon", set_epsilon, ref_epsilon},
    {"top_n_sigma", set_top_n_sigma, ref_top_n_sigma},
    {"xtc", set_xtc, ref_xtc},
    {"temperature", set_temperature, ref_temperature},
    {"mirostat", set_mirostat, ref_mirostat},
    {"penalties", set_penalties, ref_penalties},
    {"dry", set_dry, ref_dry},
};

static void random_case(struct ref *r)
{
    double scale = 0.3 + 6 * uniform();
    memset(r, 0, sizeof *r);
    r->n = 3 + below(N_MOST - 3);
    for (size_t i = 0; i < r->n; i++) {
        r->logits[i] = (float)(scale * (uniform() + uniform() + uniform() + uniform() - 2));
        r->x[i] = (double)r->logits[i];
        r->keep[i] = true;
    }
    if (uniform() < 0.1) r->logits[below(r->n)] = -INFINITY; /* taken out by a bias */
    r->n_past = below(N_MOST);
    size_t period = 1 + below(9); /* so that there is something to repeat */
    for (size_t i = 0; i < r->n_past; i++)
        r->past[i] =
            i >= period && uniform() < 0.8 ? r->past[i - period] : (int32_t)below(r->n < 8 ? r->n : 8);
}

static void compare(const struct row *row, const struct ref *r, const struct apr_sampler *s, int i_case)
{
    double sum = 0;
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++) {
        if (r->keep[i]) sum += exp(r->x[i]);
        n += r->keep[i];
    }
    if (n != s->c.n) fail_msg("%s, case %d: keeps %zu, the definition %zu", row->name, i_case, s->c.n, n);
    for (size_t k = 0; k < s->c.n; k++) {
        size_t i = (size_t)s->c.at[k].id;
        /* Logits are floats: relative errors of a few 6e-8, magnified by |logit| in the exponent. */
        double want = exp(r->x[i]) / sum, tolerance = 2e-6 * (1 + fabs(r->x[i])) * want + 1e-12;
        if (!r->keep[i] || fabs(s->c.at[k].p - want) > tolerance)
            fail_msg("%s, case %d: token %zu: p %.12g, the definition %s %.12g", row->name, i_case, i,
                     s->c.at[k].p, r->keep[i] ? "keeps it at" : "drops it", want);
    }
}

static void definition(void **state)
{
    const struct row *row = *state;
    int n_near = 0;
    random_state = (uint64_t)(row - rows) + 1;
    for (int i_case = 0; i_case < N_CASES; i_case++) {
        struct ref r;
        struct apr_err e = {0};
        struct apr_sampler s;
        struct apr_sample_opts o;
        struct apr_arena scratch;
        random_case(&r);
        apr_sample_defaults(&o);
        o.temperature = 1;
        row->set(&o, r.n);
        o.samplers = row->name;
        const struct apr_sampler_site site = {.n_vocab = r.n, .n_ctx = N_MOST, .kern = &apr_kern_scalar};
        apr_arena_init(&scratch);
        assert_int_equal(apr_sample_check(&o, &e), APR_OK);
        assert_int_equal(apr_sampler_init(&s, &o, &site, &scratch, &e), APR_OK);
        for (size_t i = 0; i < r.n_past; i++) assert_int_equal(apr_sampler_accept(&s, r.past[i], &e), APR_OK);
        assert_int_equal(apr_sampler_chain(&s, r.logits, &e), APR_OK);
        r.mu = s.mu;
        size_t n_in = 0, ids[N_MOST];
        struct ref in = r; /* without the token that was taken out */
        for (size_t i = 0; i < r.n; i++)
            if (r.logits[i] > -INFINITY) ids[n_in++] = i;
        if (n_in < r.n && r.n_past) { /* ids in the text would have to move too */
            apr_arena_free(&scratch);
            continue;
        }
        for (size_t i = 0; i < n_in; i++) in.x[i] = (double)r.logits[ids[i]];
        in.n = n_in;
        softmax(&in);
        row->define(&in, &o);
        for (size_t k = 0; k < s.c.n; k++)
            for (size_t i = 0; i < n_in; i++)
                if (ids[i] == (size_t)s.c.at[k].id) {
                    s.c.at[k].id = (int32_t)i;
                    break;
                }
        n_near += in.near;
        if (!in.near) compare(row, &in, &s, i_case);
        apr_arena_free(&scratch);
    }
    assert_true(n_near < N_CASES / 100);
}

int main(void)
{
    struct CMUnitTest tests[sizeof rows / sizeof *rows];
    const size_t n = sizeof rows / sizeof *rows;
    for (size_t i = 0; i < n; i++)
        tests[i] = (struct CMUnitTest){
            .name = rows[i].name, .test_func = definition, .initial_state = (void *)(uintptr_t)&rows[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Sampling on the device against the sampler of the host: the same logits, chain and seed give the same
 * token.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../tools/apr-infer/sampler/device.h"
#include "../../tools/apr-infer/sampler/step.h"
#include "rig.h"

static double uniform(void)
{
    return (double)(toy_random() >> 11) * 0x1p-53;
}
static uint32_t below(uint32_t n)
{
    return (uint32_t)(toy_random() % n);
}

/* ---- logits and chains ------------------------------------------------------------------------------------
 */

enum { NORMAL, QUARTERS, EQUAL, PEAKED, FALLING, RISING, ZEROS, HUGE, N_KINDS };

static float logit_of(uint32_t kind, float scale, uint32_t i, uint32_t n)
{
    const float x = toy_normal() * scale;
    switch (kind) {
    case NORMAL:
        return x;
    case QUARTERS:
        return floorf(x * 4) / 4; /* many are equal */
    case EQUAL:
        return -3.5f;
    case PEAKED:
        return below(n) < 20 ? 20 + x : x;
    case FALLING:
        return (float)(n - i) * 1e-3f; /* the largest share their warps */
    case RISING:
        return (float)i * 1e-3f;
    case ZEROS:
        return below(2) ? -0.0f : 0.0f;
    case HUGE:
        return x * 1e6f;
    }
    abort();
}
static void draw_logits(float *x, uint32_t n)
{
    const uint32_t kind = below(3) ? below(2) * PEAKED : below(N_KINDS); /* mostly like a model's */
    const float scale = 1 + 7 * (float)uniform();
    for (uint32_t i = 0; i < n; i++) x[i] = logit_of(kind, scale, i, n);
}

static double sometimes(double v, double neutral)
{
    return below(3) ? neutral : v;
}
/* Steps in the default order or another, each on now and then. */
static void draw_opts(struct apr_sample_opts *o, char *list, size_t n_list)
{
    static const char *const names[] = {"typical", "tail_free", "top_p", "min_p",
                                        "eta",     "epsilon",   "xtc",   "top_n_sigma"};
    enum { N = sizeof names / sizeof *names };
    uint32_t at[N];
    apr_sample_defaults(o);
    o->temperature = below(4) ? 0.05 + 2 * uniform() : 1;
    o->top_k = 1 + (int64_t)floor(pow(512, uniform()) * 0.9999);
    if (o->top_k > (int64_t)APR_GPU_TOP_K) o->top_k = APR_GPU_TOP_K;
    o->top_p = sometimes(0.3 + 0.7 * uniform(), 1), o->min_p = sometimes(0.3 * uniform(), 0);
    o->typical_p = sometimes(0.3 + 0.7 * uniform(), 1), o->tail_free = sometimes(0.5 + 0.5 * uniform(), 1);
    o->top_n_sigma = sometimes(3 * uniform(), 0), o->eta_cutoff = sometimes(0.1 * uniform(), 0);
    o->epsilon_cutoff = sometimes(0.1 * uniform(), 0), o->xtc_probability = sometimes(uniform(), 0);
    o->xtc_threshold = 0.5 * uniform();
    if (below(6) == 0) o->dynatemp_range = uniform(), o->dynatemp_exponent = 0.5 + uniform();
    if (below(5) == 0) { /* from all tokens, with nothing but a temperature */
        const double t = o->temperature;
        apr_sample_defaults(o);
        o->temperature = t;
    }
    o->seed = toy_random();
    const bool early = o->dynatemp_range <= 0 && below(5) == 0;
    int n = snprintf(list, n_list, early ? "temperature;top_k" : "top_k");
    for (uint32_t i = 0; i < N; i++) at[i] = i;
    for (uint32_t i = N; i-- > 1;) {
        const uint32_t j = below(i + 1), t = at[i];
        at[i] = at[j], at[j] = t;
    }
    for (uint32_t i = 0; i < N; i++) {
        n += snprintf(list + n, n_list - (size_t)n, ";%s", names[at[i]]);
        if (!early && i == N / 2) n += snprintf(list + n, n_list - (size_t)n, ";temperature");
    }
    if (below(3)) o->top_n_sigma = 0, list = NULL; /* the default chain: on the device without that one */
    o->samplers = list;
}

/* ---- the same choices -------------------------------------------------------------------------------------
 */

struct bout {
    uint32_t n_rows, n_same, n_here;
    char first[120]; /* what differed first */
};

/* The host's choice and what the device is to be told; false: this chain stays on the host. */
static bool ask_host(struct rig *r, const float *x, uint32_t n_vocab, struct apr_gpu_chain *chain,
                     uint64_t *bits, int32_t *id)
{
    const struct apr_sampler_site site = {.n_vocab = n_vocab, .n_ctx = 16, .kern = &apr_kern_scalar};
    struct apr_arena arena;
    struct apr_sampler s;
    struct apr_sample_opts o;
    struct apr_err e;
    char list[200];
    draw_opts(&o, list, sizeof list);
    apr_arena_init(&arena);
    enum apr_code code = apr_sampler_init(&s, &o, &site, &arena, &e);
    const bool goes = code == APR_OK && apr_sampler_device(&s, chain) == APR_CHOSEN_BY_CHAIN;
    apr_sampler_bits(&s, bits, 1);
    if (goes) code = apr_sampler_next(&s, x, id, &e);
    apr_arena_free(&arena);
    if (code != APR_OK) snprintf(r->e.text, sizeof r->e.text, "%.200s", e.text);
    rig_must(r, code == APR_OK ? APR_GPU_OK : APR_GPU_FAILED, "the host's sampler");
    return goes;
}

/* n_rows choices of n_vocab logits each. */
static void compete(struct rig *r, uint32_t n_rows, uint32_t n_vocab, bool bad, struct bout *b)
{
    float *x = rig_floats((size_t)n_rows * n_vocab);
    struct apr_gpu_chain chains[APR_GPU_ROWS];
    uint64_t bits[APR_GPU_ROWS];
    int32_t here[APR_GPU_ROWS] = {0}, there[APR_GPU_ROWS];
    double s;
    for (uint32_t i = 0; i < n_rows; i++) {
        float *row = x + (size_t)i * n_vocab;
        draw_logits(row, n_vocab);
        while (!ask_host(r, row, n_vocab, &chains[i], &bits[i], &here[i])) b->n_here++;
        if (bad && chains[i].n_picks) chains[i].picks[0].v[0] *= 0.98;
        if (bad && !chains[i].top_k) chains[i].t_before *= 0.98f;
    }
    rig_must(r, r->g->choose(r->dev, chains, bits, x, n_rows, n_vocab, there, &s, &r->e), "a choice");
    for (uint32_t i = 0; i < n_rows; i++) {
        const struct apr_gpu_chain *c = &chains[i];
        b->n_rows++;
        b->n_same += here[i] == there[i];
        if (here[i] != there[i] && !b->first[0])
            snprintf(b->first, sizeof b->first, "; first %d for %d of %u, top_k %u, %u steps, %u and %u",
                     there[i], here[i], n_vocab, c->top_k, c->n_picks, c->picks[0].kind, c->picks[1].kind);
    }
    free(x);
}

/* Or of all tokens, which has no steps. */
static struct apr_gpu_chain usual_chain(uint32_t top_k)
{
    struct apr_gpu_chain c = {.top_k = top_k,
                              .t_before = 1,
                              .n_picks = 4,
                              .picks = {{APR_GPU_PICK_TOP_P, {0.95}},
                                        {APR_GPU_PICK_TOP_N_SIGMA, {3}},
                                        {APR_GPU_PICK_MIN_P, {-3}},
                                        {APR_GPU_PICK_TEMPERATURE, {0.8}}}};
    if (!top_k) c.n_picks = 0;
    return c;
}

/* Rows with one bad logit, or nothing else, are errors wherever they stand; beside them all are equal. */
static bool finds_bad(struct rig *r)
{
    enum { N = 40000 };
    static const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
    static const uint32_t places[] = {0, 1, 31, 12345, N - 1};
    const struct apr_gpu_chain chains[] = {usual_chain(40), usual_chain(APR_GPU_TOP_K), usual_chain(0)};
    const uint64_t bits[2] = {toy_random(), toy_random()};
    float *x = rig_floats(2 * N);
    int32_t out[2];
    bool found = true;
    double s;
    for (uint32_t i = 0; i < 4 * 3; i++) {
        const struct apr_gpu_chain both[2] = {chains[0], chains[i % 3]};
        for (size_t k = 0; k < sizeof places / sizeof *places; k++) {
            x[N + places[k]] = bad[i / 3];
            found &= r->g->choose(r->dev, both, bits, x, 2, N, out, &s, &r->e) == APR_GPU_NOT_FINITE;
            x[N + places[k]] = 0;
        }
        for (uint32_t k = 0; k < N; k++) x[N + k] = bad[i / 3];
        found &= r->g->choose(r->dev, both, bits, x, 2, N, out, &s, &r->e) == APR_GPU_NOT_FINITE;
        memset(x + N, 0, N * sizeof *x);
        found &= r->g->choose(r->dev, both, bits, x, 2, N, out, &s, &r->e) == APR_GPU_OK;
    }
    free(x);
    return found;
}

/* Seconds of one choice from a vocabulary of 152064 by the usual chain, or from all: the least of 20. */
static double choice_s(struct rig *r, uint32_t top_k)
{
    const struct apr_gpu_chain chain = usual_chain(top_k);
    enum { N = 152064 };
    float *x = rig_floats(N);
    double least = 1;
    for (uint32_t i = 0; i < N; i++) x[i] = toy_normal() * 2;
    for (int i = 0; i < 20; i++) {
        const uint64_t bits = toy_random();
        int32_t id;
        double s;
        rig_must(r, r->g->choose(r->dev, &chain, &bits, x, 1, N, &id, &s, &r->e), "a choice");
        least = s < least ? s : least;
    }
    free(x);
    return least;
}

/* 20 000 distributions and chains. Planted: a value of the chain is 2 % less on the device. */
bool hazard_sample(struct rig *r, bool bad)
{
    static const uint32_t sizes[] = {1, 2, 31, 100, 257, 1000, 5000, 20011};
    struct bout b = {0};
    const uint32_t n_all = bad ? 2000 : 20000;
    while (b.n_rows < n_all)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) compete(r, APR_GPU_ROWS, sizes[i], bad, &b);
    for (uint32_t i = 0; i < 8; i++) compete(r, 16, i % 2 ? 152064 : 262144, bad, &b);
    const bool found = finds_bad(r);
    const double s40 = choice_s(r, 40), s512 = choice_s(r, APR_GPU_TOP_K), s0 = choice_s(r, 0);
    rig_note(r,
             "%u of %u tokens are the host's (%u chains stay there), NaN is %s, %.1f us (top_k 512: %.1f, "
             "all: %.1f)%s",
             b.n_same, b.n_rows, b.n_here, found ? "found" : "NOT found", 1e6 * s40, 1e6 * s512, 1e6 * s0,
             b.first);
    return b.n_same == b.n_rows && found;
}

/* ---- in a text --------------------------------------------------------------------------------------------
 */

/* Sampler i of a batch: greedy, few candidates, all tokens. */
static void open_host(struct apr_sampler *s, uint32_t i, uint32_t n_vocab, struct apr_arena *arena,
                      struct rig *r)
{
    const struct apr_sampler_site site = {.n_vocab = n_vocab, .n_ctx = 16, .kern = &apr_kern_scalar};
    struct apr_sample_opts o;
    struct apr_err e;
    apr_sample_defaults(&o);
    o.temperature = 2, o.seed = 7 + i;
    if (i % 3 == 0) o.top_k = 60, o.top_p = 0.98, o.min_p = 0.01;
    if (i % 3 == 2) o.top_k = 1;
    rig_must(r, apr_sampler_init(s, &o, &site, arena, &e) == APR_OK ? APR_GPU_OK : APR_GPU_FAILED, "sampler");
}
static void draw_host(struct apr_sampler *s, const float *x, int32_t *id, const struct rig *r)
{
    struct apr_err e;
    rig_must(r, apr_sampler_next(s, x, id, &e) == APR_OK ? APR_GPU_OK : APR_GPU_FAILED, "draw");
}
static struct toy text_toy(void)
{
    struct toy t = {.n_layers = 2,
                    .n_hidden = 512,
                    .n_heads = 8,
                    .n_heads_kv = 2,
                    .head_dim = 64,
                    .n_inter = 1024,
                    .n_vocab = 5000,
                    .type = APR_Q8_0};
    toy_draw(&t);
    toy_seal(&t);
    return t;
}

/* N tokens behind the first, step by step with the host's choice, and then by the device in pieces, more and
 * fewer than it queues at a time. Planted: the second piece begins with the first one's bits. */
bool hazard_ahead(struct rig *r, bool bad)
{
    enum { N = 100, FIRST = 45, CTX = 128 };
    struct toy t = text_toy();
    struct apr_arena arena;
    struct apr_sampler host;
    struct apr_gpu_chain chain;
    int32_t here[N], there[N];
    uint64_t bits[N];
    uint32_t n_out, n_same = 0;
    float *x = rig_floats(t.n_vocab);
    apr_arena_init(&arena);
    open_host(&host, 0, t.n_vocab, &arena, r);
    const bool goes = apr_sampler_device(&host, &chain) == APR_CHOSEN_BY_CHAIN;
    apr_sampler_bits(&host, bits, N);
    struct apr_gpu_model *m = rig_model(r, &t, false, CTX);
    struct apr_gpu_seq *q = rig_seq(r, m, CTX);
    for (uint32_t i = 0; i < N; i++) {
        rig_feed(r, m, q, i ? &here[i - 1] : &(int32_t){5}, 1, 1, x);
        draw_host(&host, x, &here[i], r);
    }
    r->g->seq_truncate(q, 0);
    rig_must(r, r->g->sample(m, q, &chain, bits, 5, FIRST, NULL, 0, there, &n_out, &r->e), "sampling");
    rig_must(r,
             r->g->sample(m, q, &chain, bits + (bad ? 0 : FIRST), there[FIRST - 1], N - FIRST, NULL, 0,
                          there + FIRST, &n_out, &r->e),
             "sampling");
    for (uint32_t i = 0; i < N; i++) n_same += here[i] == there[i];
    r->g->seq_close(q);
    r->g->model_close(m);
    apr_arena_free(&arena);
    toy_free(&t);
    free(x);
    rig_note(r, "%u of %u tokens of a text are those that the host draws step by step", n_same, (uint32_t)N);
    return goes && n_same == N;
}

/* The same of 11 sequences side by side, each with its own chain. Planted: two have each other's bits. */
bool hazard_ahead_rows(struct rig *r, bool bad)
{
    enum { N = 40, SEQS = 11, CTX = 64 };
    struct toy t = text_toy();
    struct apr_arena arena;
    struct apr_sampler host[SEQS];
    struct apr_gpu_chain chains[SEQS];
    struct apr_gpu_seq *q[SEQS];
    struct apr_gpu_part parts[SEQS];
    static uint64_t bits[SEQS][N];
    static int32_t here[SEQS][N + 1], first[SEQS], there[SEQS][N];
    uint32_t n_same = 0, n_go = 0;
    float *x = rig_floats((size_t)SEQS * t.n_vocab);
    struct apr_gpu_model *m = rig_model(r, &t, false, SEQS * CTX);
    apr_arena_init(&arena);
    for (uint32_t i = 0; i < SEQS; i++) {
        open_host(&host[i], i, t.n_vocab, &arena, r);
        n_go += apr_sampler_device(&host[i], &chains[i]) == APR_CHOSEN_BY_CHAIN;
        apr_sampler_bits(&host[i], bits[bad && i < 2 ? 1 - i : i], N);
        q[i] = rig_seq(r, m, CTX);
        first[i] = here[i][0] = (int32_t)(20 + i);
    }
    for (uint32_t k = 0; k < N; k++) {
        for (uint32_t i = 0; i < SEQS; i++) parts[i] = (struct apr_gpu_part){q[i], &here[i][k], 1};
        rig_must(r, r->g->step(m, parts, SEQS, &r->e), "step");
        rig_must(r, r->g->logits(m, 0, SEQS, x, &r->e), "logits");
        for (uint32_t i = 0; i < SEQS; i++)
            draw_host(&host[i], x + (size_t)i * t.n_vocab, &here[i][k + 1], r);
    }
    for (uint32_t i = 0; i < SEQS; i++) r->g->seq_truncate(q[i], 0);
    rig_must(r, r->g->sample_rows(m, q, chains, bits[0], first, SEQS, N, there[0], &r->e), "sampling");
    for (uint32_t i = 0; i < SEQS; i++)
        for (uint32_t k = 0; k < N; k++) n_same += here[i][k + 1] == there[i][k];
    for (uint32_t i = 0; i < SEQS; i++) r->g->seq_close(q[i]);
    r->g->model_close(m);
    apr_arena_free(&arena);
    toy_free(&t);
    free(x);
    rig_note(r, "%u of %u tokens of texts side by side are those that the host draws step by step", n_same,
             (uint32_t)(SEQS * N));
    return n_go == SEQS && n_same == SEQS * N;
}

/* Hazards of order: graphs replayed, launches that overlap, counters that wrap, sums that come in any order.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rig.h"

static struct toy ordinary(uint32_t type)
{
    struct toy t = {.n_layers = 2,
                    .n_hidden = 512,
                    .n_heads = 8,
                    .n_heads_kv = 2,
                    .head_dim = 64,
                    .n_inter = 1024,
                    .n_vocab = 1500,
                    .type = type,
                    .type_down = type == APR_Q4_K ? APR_Q6_K : 0};
    toy_draw(&t);
    toy_seal(&t);
    return t;
}

static bool is_edge(uint32_t i, uint32_t n)
{
    return i % 16 < 2 || i % 16 == 15 || i % 256 < 3 || i + 3 > n;
}

/* 8: a graph captured at one position serves all others: 600 tokens across pages, with a sequence of another
 * length in between; the logits are those of the same step without a graph, bit by bit. Planted: one token of
 * the other history differs. */
bool hazard_replay(struct rig *r, bool bad)
{
    const uint32_t n = 600;
    struct toy t = ordinary(APR_Q4_K);
    int32_t *ids = rig_ids(n, t.n_vocab), *other = rig_ids(n, t.n_vocab);
    float *x = rig_floats(t.n_vocab), *y = rig_floats(t.n_vocab),
          *states = rig_floats((size_t)(t.n_layers + 1) * t.n_hidden);
    struct apr_gpu_model *m = rig_model(r, &t, false, 2048);
    struct apr_gpu_seq *a = rig_seq(r, m, 640), *b = rig_seq(r, m, 700), *c = rig_seq(r, m, 640);
    uint32_t n_same = 0, n_all = 0;
    rig_feed(r, m, b, other, 37, 37, NULL);
    for (uint32_t i = 0; i < n; i++) {
        bool look = is_edge(i, n);
        int32_t id = bad && i == 300 ? (ids[i] + 1) % (int32_t)t.n_vocab : ids[i];
        const struct apr_gpu_part eager = {c, &id, 1};
        rig_feed(r, m, a, ids + i, 1, 1, look ? x : NULL);
        if (i % 3) rig_feed(r, m, b, other + i, 1, 1, NULL);
        rig_must(r, r->g->hidden(m, &eager, states, &r->e), "a step without a graph");
        if (!look) continue;
        rig_must(r, r->g->logits(m, 0, 1, y, &r->e), "logits");
        n_same += !memcmp(x, y, t.n_vocab * sizeof *x), n_all++;
    }
    r->g->seq_close(a), r->g->seq_close(b), r->g->seq_close(c);
    r->g->model_close(m);
    toy_free(&t);
    free(ids), free(other), free(x), free(y), free(states);
    rig_note(r, "%u of %u rows at edges are the bits of a step without a graph", n_same, n_all);
    return n_same == n_all;
}

/* ---- greedy runs and their hashes -------------------------------------------------------------------------
 */

static uint64_t hash_of(uint64_t h, const void *p, size_t n_bytes)
{
    const uint8_t *b = p;
    for (size_t i = 0; i < n_bytes; i++) h = (h ^ b[i]) * 0x100000001b3u; /* FNV-1a */
    return h;
}

/* n tokens of one sequence, a context's worth at a time. */
static uint64_t run_one(struct rig *r, struct apr_gpu_model *m, uint32_t n, int32_t first)
{
    enum { CTX = 512 };
    static int32_t out[CTX];
    uint64_t h = 0xcbf29ce484222325u;
    struct apr_gpu_seq *q = rig_seq(r, m, CTX);
    for (uint32_t done = 0, n_out; done < n; done += n_out) {
        uint32_t k = n - done < CTX - 1 ? n - done : CTX - 1;
        r->g->seq_truncate(q, 0);
        enum apr_gpu_status s = r->g->greedy(m, q, first, k, NULL, 0, out, &n_out, &r->e);
        if (s == APR_GPU_NOT_FINITE) return r->g->seq_close(q), 0; /* what a race may read */
        rig_must(r, s, "greedy");
        h = hash_of(h, out, k * sizeof *out);
        first = out[k - 1];
    }
    r->g->seq_close(q);
    return h;
}

/* n tokens of each of 11 sequences side by side. */
static uint64_t run_rows(struct rig *r, struct apr_gpu_model *m, uint32_t n, int32_t first)
{
    enum { N = 11, CTX = 128 };
    static int32_t out[N * CTX];
    struct apr_gpu_seq *q[N];
    int32_t ids[N];
    uint64_t h = 0xcbf29ce484222325u;
    for (int i = 0; i < N; i++) q[i] = rig_seq(r, m, CTX), ids[i] = first + i;
    for (uint32_t done = 0, k; done < n; done += k) {
        k = n - done < CTX - 16 ? n - done : CTX - 16;
        for (int i = 0; i < N; i++) r->g->seq_truncate(q[i], 0);
        enum apr_gpu_status s = r->g->greedy_rows(m, q, ids, N, k, out, &r->e);
        if (s != APR_GPU_NOT_FINITE) rig_must(r, s, "batch");
        h = hash_of(h, &s, sizeof s);
        h = hash_of(h, out, N * k * sizeof *out);
        for (uint32_t i = 0; i < N; i++) ids[i] = out[i * k + k - 1];
    }
    for (int i = 0; i < N; i++) r->g->seq_close(q[i]);
    return h;
}

/* Both, on a model opened while the fault holds: graphs are captured anew. */
static void run_under(struct rig *r, const struct toy *t, enum apr_gpu_fault fault, uint32_t n_one,
                      uint32_t n_rows, int32_t first, uint64_t h[2])
{
    rig_must(r, r->g->fault(r->dev, fault, &r->e), "fault");
    struct apr_gpu_model *m = rig_model(r, t, false, 4096);
    h[0] = run_one(r, m, n_one, first);
    h[1] = run_rows(r, m, n_rows, first);
    r->g->model_close(m);
    rig_must(r, r->g->fault(r->dev, APR_GPU_FAULT_NONE, &r->e), "fault");
}

/* 9: no kernel reads before its predecessor has written, however early it starts. Planted: the kernel in
 * between reads the residual before its predecessor has written it; that must show in both runs. */
bool hazard_overlap(struct rig *r, bool bad)
{
    const uint32_t n_one = 6000, n_rows = 400;
    struct toy t = ordinary(APR_Q4_K);
    uint64_t plain[2], serial[2], skewed[2];
    run_under(r, &t, APR_GPU_FAULT_NONE, n_one, n_rows, 3, plain);
    run_under(r, &t, APR_GPU_FAULT_SERIAL, n_one, n_rows, 3, serial);
    run_under(r, &t, bad ? APR_GPU_FAULT_RACE : APR_GPU_FAULT_SKEW, n_one, n_rows, 3, skewed);
    toy_free(&t);
    bool same = plain[0] == serial[0] && plain[1] == serial[1];
    int n_off = (skewed[0] != serial[0]) + (skewed[1] != serial[1]);
    rig_note(r,
             "%u steps of one and %u of eleven: overlapping %s, and delayed by 50 us a launch %d of 2 differ",
             n_one, n_rows, same ? "the same" : "DIFFERENT", n_off);
    return same && n_off < (bad ? 2 : 1);
}

/* 10: arrival counters are as they were after every step: long runs give what serial launches give. Planted:
 * another first token. */
bool hazard_counters(struct rig *r, bool bad)
{
    const uint32_t n_one = bad ? 2000 : 100000, n_rows = bad ? 200 : 5000;
    struct toy t = ordinary(APR_Q8_0);
    uint64_t a[2], b[2];
    run_under(r, &t, APR_GPU_FAULT_NONE, n_one, n_rows, 3, a);
    run_under(r, &t, APR_GPU_FAULT_SERIAL, n_one, n_rows, bad ? 4 : 3, b);
    toy_free(&t);
    rig_note(r, "%u tokens of one sequence %s, %u of eleven %s those of serial launches", n_one,
             a[0] == b[0] ? "are" : "are NOT", n_rows, a[1] == b[1] ? "are" : "are NOT");
    return a[0] == b[0] && a[1] == b[1];
}

/* 13: twenty runs, each on a model loaded anew every fifth time. Planted: the last run begins elsewhere. */
bool hazard_same(struct rig *r, bool bad)
{
    static const uint32_t types[] = {APR_Q4_K, APR_BF16};
    uint32_t n_same = 0, n_all = 0;
    for (int k = 0; k < 2; k++) {
        struct toy t = ordinary(types[k]);
        struct apr_gpu_model *m = NULL;
        uint64_t first[2] = {0}, h[2];
        for (int i = 0; i < 20; i++) {
            if (i % 5 == 0) r->g->model_close(m), m = rig_model(r, &t, false, 4096);
            h[0] = run_one(r, m, 300, bad && i == 19 ? 6 : 5);
            h[1] = run_rows(r, m, 100, 5);
            if (i == 0) memcpy(first, h, sizeof h);
            n_same += h[0] == first[0] && h[1] == first[1], n_all++;
        }
        r->g->model_close(m);
        toy_free(&t);
    }
    rig_note(r, "%u of %u runs, alone and eleven side by side, chose the same tokens", n_same, n_all);
    return n_same == n_all;
}

/* ---- for sanitizers ---------------------------------------------------------------------------------------
 */

static void small_of(struct rig *r, uint32_t type, bool exact, uint32_t window)
{
    enum { N = 66 };
    static const struct apr_gpu_chain all_picks = {.top_k = 50,
                                                   .t_before = 1.5f,
                                                   .n_picks = APR_GPU_N_PICKS,
                                                   .picks = {{APR_GPU_PICK_TYPICAL, {0.99}},
                                                             {APR_GPU_PICK_TAIL_FREE, {0.99}},
                                                             {APR_GPU_PICK_TOP_P, {0.99}},
                                                             {APR_GPU_PICK_MIN_P, {-7}},
                                                             {APR_GPU_PICK_TOP_N_SIGMA, {3}},
                                                             {APR_GPU_PICK_ETA, {1e-4}},
                                                             {APR_GPU_PICK_EPSILON, {1e-4}},
                                                             {APR_GPU_PICK_XTC, {0.5, 0.1}},
                                                             {APR_GPU_PICK_TEMPERATURE, {0.8}},
                                                             {APR_GPU_PICK_DYNATEMP, {1, 0.5, 1}}}};
    const struct apr_gpu_chain both[2] = {all_picks, {.top_k = 0, .t_before = 1.5f}};
    uint64_t bits[6];
    for (uint32_t i = 0; i < 6; i++) bits[i] = toy_random();
    struct toy t = {.n_layers = 2,
                    .n_hidden = 256,
                    .n_heads = 8,
                    .n_heads_kv = 1,
                    .head_dim = 32,
                    .n_inter = 256,
                    .n_vocab = 67,
                    .type = type,
                    .type_down = type == APR_Q4_K ? APR_Q6_K : 0,
                    .window = window};
    toy_draw(&t);
    toy_seal(&t);
    int32_t *ids = rig_ids(N, t.n_vocab), out[16];
    float *x = rig_floats((size_t)N * t.n_vocab);
    uint32_t n_out;
    struct apr_gpu_model *m = rig_model(r, &t, exact, 256);
    struct apr_gpu_seq *q[3] = {rig_seq(r, m, 80), rig_seq(r, m, 80), rig_seq(r, m, 80)};
    const struct apr_gpu_part mixed[3] = {{q[0], ids, 1}, {q[1], ids, 9}, {q[2], ids, 1}};
    rig_feed(r, m, q[0], ids, N, N, x); /* a prompt */
    rig_feed(r, m, q[1], ids, 9, 9, x); /* a batch's kernels */
    rig_feed(r, m, q[2], ids, 2, 1, x); /* one token's */
    rig_must(r, r->g->step(m, mixed, 3, &r->e), "mixed");
    rig_must(r, r->g->logits(m, 0, 11, x, &r->e), "mixed");
    if (!exact) {
        rig_must(r, r->g->greedy(m, q[0], 5, 3, NULL, 0, out, &n_out, &r->e), "greedy");
        rig_must(r, r->g->greedy_rows(m, q, ids, 3, 3, out, &r->e), "rows");
        rig_must(r, r->g->sample(m, q[0], &all_picks, bits, 5, 3, NULL, 0, out, &n_out, &r->e), "sampling");
        rig_must(r, r->g->sample_rows(m, q, both, bits, ids, 2, 3, out, &r->e), "sampled rows");
    }
    for (int i = 0; i < 3; i++) r->g->seq_close(q[i]);
    r->g->model_close(m);
    toy_free(&t);
    free(ids), free(x);
}

int rig_small(struct rig *r, const char *type)
{
    static const uint32_t types[] = {APR_Q4_K, APR_Q8_0, APR_BF16};
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        if (type && strcmp(type, apr_type_name(types[k])) != 0) continue;
        small_of(r, types[k], false, 0);
        if (!type) small_of(r, types[k], true, 0);
        printf("small: %s done\n", apr_type_name(types[k]));
    }
    if (!type || !strcmp(type, "window")) small_of(r, APR_Q8_0, false, 24), puts("small: window done");
    return 0;
}

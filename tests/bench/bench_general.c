/* bench_general [NAME...]: decoders of real shapes that the GPU computes by its general pass
 * (gpu/general.cuh), and types that it decodes where they are used; random blocks with small scales, no file.
 *
 * A line a shape: bytes of weights that one token reads, decoding at depth 0 and 1024 with the share of the
 * memory's read bandwidth, eight sequences side by side, a prompt of 512. Layers of the large ones are fewer:
 * times are for what is there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "config.h"
#include "gpu/load.h"
#include "quant/quant.h"

struct shape {
    const char *name;
    enum apr_type type;
    uint32_t n_layers, n_hidden, n_heads, n_heads_kv, head_dim, n_inter, n_vocab;
    uint32_t n_experts, n_used, n_inter_expert, n_inter_shared;
    uint32_t kv_rank, n_nope, n_rope, n_value;
    uint32_t window; /* of every other layer, with soft caps and norms behind the blocks */
};
static const struct shape shapes[] = {
    {"dense7b_q5_k", APR_Q5_K, 28, 3584, 28, 4, 128, 18944, 152064, 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {"dense7b_q2_k", APR_Q2_K, 28, 3584, 28, 4, 128, 18944, 152064, 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {"dense7b_iq4_xs", APR_IQ4_XS, 28, 3584, 28, 4, 128, 18944, 152064, 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {"gemma2_9b", APR_Q4_K, 42, 3584, 16, 8, 256, 14336, 256000, 0, 0, 0, 0, 0, 0, 0, 0, 4096},
    {"qwen3_30b_a3b/4", APR_Q4_K, 12, 2048, 32, 4, 128, 6144, 151936, 128, 8, 768, 0, 0, 0, 0, 0, 0},
    {"deepseek_v2_lite/2", APR_Q4_K, 13, 2048, 16, 1, 192, 10944, 102400, 64, 6, 1536, 2816, 512, 128, 64,
     128, 0}};
#define N_CTX 16384u

static uint64_t n_token_bytes; /* of weights that a token reads */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
static void check(enum apr_gpu_status s, const struct apr_gpu_err *e, const char *what)
{
    if (s == APR_GPU_OK) return;
    fprintf(stderr, "bench_general: %s: %s\n", what, e->text);
    exit(9);
}
static void *room(size_t n_bytes)
{
    void *p = calloc(1, n_bytes);
    if (!p) exit(6);
    return p;
}

/* share: of its bytes, that one token reads, in 1/1000 */
static struct apr_gpu_mat mat(uint32_t type, uint32_t n_rows, uint32_t n_cols, uint32_t share)
{
    static const struct {
        uint32_t type, off;
    } halves[] = {{APR_Q4_K, 0},  {APR_Q4_K, 2},  {APR_Q5_K, 0},   {APR_Q5_K, 2},
                  {APR_Q2_K, 80}, {APR_Q2_K, 82}, {APR_IQ4_XS, 0}, {APR_F16, 0}};
    static const uint8_t small[2] = {0x20, 0x05};
    const struct apr_quant *q = apr_quant_of(type);
    uint64_t row_bytes = (uint64_t)n_cols / q->block_elems * q->block_bytes, n = row_bytes * n_rows;
    static uint64_t x = 88172645463325252u;
    uint8_t *p = room(n + 8);
    for (uint64_t i = 0; i < n; i += 8) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        memcpy(p + i, &x, 8);
    }
    for (uint64_t i = 0; i < n; i += q->block_bytes)
        for (size_t k = 0; k < sizeof halves / sizeof *halves; k++)
            if (halves[k].type == type) memcpy(p + i + halves[k].off, small, 2);
    n_token_bytes += n * share / 1000;
    return (struct apr_gpu_mat){p, row_bytes, type, n_rows, n_cols, NULL, 0};
}
/* One matrix n times: the device has a copy of each. */
static const struct apr_gpu_mat *same(uint32_t type, uint32_t n_rows, uint32_t n_cols, uint32_t n,
                                      uint32_t share)
{
    struct apr_gpu_mat *m = room(n * sizeof *m);
    m[0] = mat(type, n_rows, n_cols, share);
    for (uint32_t i = 1; i < n; i++) m[i] = m[0];
    return m;
}
static const float *ones(uint32_t n)
{
    float *p = room(n * sizeof *p);
    for (uint32_t i = 0; i < n; i++) p[i] = 1;
    return p;
}

static void attention(const struct shape *s, struct apr_gpu_layer *l)
{
    const uint32_t t = s->type, n = s->n_hidden, n_q = s->n_heads * s->head_dim;
    l->q = mat(t, n_q, n, 1000);
    if (s->kv_rank) {
        l->latent.kv_a = mat(t, s->kv_rank + s->n_rope, n, 1000);
        l->latent.kv_a_norm = ones(s->kv_rank);
        l->latent.k_b = same(APR_F16, s->kv_rank, s->n_nope, s->n_heads, 1000 * s->n_heads);
        l->latent.v_b = same(APR_F16, s->n_value, s->kv_rank, s->n_heads, 1000 * s->n_heads);
        l->o = mat(t, n, s->n_heads * s->n_value, 1000);
        return;
    }
    l->k = mat(t, s->n_heads_kv * s->head_dim, n, 1000);
    l->v = mat(t, s->n_heads_kv * s->head_dim, n, 1000);
    l->o = mat(t, n, n_q, 1000);
}
static void feed_forward(const struct shape *s, struct apr_gpu_layer *l)
{
    const uint32_t t = s->type, n = s->n_hidden, used = 1000 * s->n_used;
    struct apr_gpu_experts *x = &l->experts;
    if (!s->n_experts) {
        l->gate = mat(t, s->n_inter, n, 1000);
        l->up = mat(t, s->n_inter, n, 1000);
        l->down = mat(t, n, s->n_inter, 1000);
        return;
    }
    x->router = mat(APR_F16, s->n_experts, n, 1000);
    x->gate = same(t, s->n_inter_expert, n, s->n_experts, used);
    x->up = same(t, s->n_inter_expert, n, s->n_experts, used);
    x->down = same(t, n, s->n_inter_expert, s->n_experts, used);
    if (!s->n_inter_shared) return;
    x->shared_gate = mat(t, s->n_inter_shared, n, 1000);
    x->shared_up = mat(t, s->n_inter_shared, n, 1000);
    x->shared_down = mat(t, n, s->n_inter_shared, 1000);
}

static struct apr_gpu_desc describe(const struct shape *s)
{
    struct apr_gpu_layer *l = room(s->n_layers * sizeof *l), one = {.window = 0};
    double *inv_freq = room(s->head_dim / 2 * sizeof *inv_freq);
    const uint32_t n_turn = s->kv_rank ? s->n_rope : s->head_dim;
    const bool caps = s->window != 0;
    n_token_bytes = 0;
    for (uint32_t i = 0; i < n_turn / 2; i++) inv_freq[i] = 1.0 / (1 + (double)i * (double)i * 10);
    attention(s, &one);
    feed_forward(s, &one);
    one.attn_norm.w = one.ffn_norm.w = ones(s->n_hidden);
    if (caps) one.post_attn_norm = one.post_ffn_norm = one.attn_norm.w;
    for (uint32_t i = 0; i < s->n_layers; i++) {
        l[i] = one;
        l[i].window = i % 2 ? 0 : s->window;
    }
    n_token_bytes *= s->n_layers;
    return (struct apr_gpu_desc){.struct_bytes = sizeof(struct apr_gpu_desc),
                                 .n_layers = s->n_layers,
                                 .n_hidden = s->n_hidden,
                                 .n_heads = s->n_heads,
                                 .n_heads_kv = s->n_heads_kv,
                                 .head_dim = s->head_dim,
                                 .n_inter = s->n_inter,
                                 .n_vocab = s->n_vocab,
                                 .norm_eps = 1e-6,
                                 .activation = caps ? APR_GELU_TANH : APR_SILU,
                                 .embed_scale = 1,
                                 .residual_scale = 1,
                                 .logit_scale = 1,
                                 .attn_scale = 0.08f,
                                 .attn_softcap = caps ? 50 : 0,
                                 .logit_softcap = caps ? 30 : 0,
                                 .ropes = {{.inv_freq = inv_freq, .n_half = n_turn / 2, .scale = 1}},
                                 .embed = mat(s->type, s->n_vocab, s->n_hidden, 0),
                                 .head = mat(s->type, s->n_vocab, s->n_hidden, 1000),
                                 .final_norm = {ones(s->n_hidden), NULL},
                                 .layers = l,
                                 .kv_rank = s->kv_rank,
                                 .n_nope = s->n_nope,
                                 .n_rope = s->n_rope,
                                 .n_value = s->n_value,
                                 .n_experts = s->n_experts,
                                 .n_used = s->n_used,
                                 .n_inter_expert = s->n_inter_expert,
                                 .n_inter_shared = s->n_inter_shared,
                                 .expert_scale = 1};
}

static double decode(const struct apr_gpu *g, struct apr_gpu_model *m, uint32_t depth)
{
    enum { N = 64 };
    static int32_t ids[2048], out[N];
    struct apr_gpu_seq *q;
    struct apr_gpu_err e;
    uint32_t n_out;
    double best = 1e9;
    for (uint32_t i = 0; i < depth; i++) ids[i] = (int32_t)(i * 7919 % 50000);
    check(g->seq_open(m, 2048, &q, &e), &e, "sequence");
    if (depth) check(g->forward(m, q, ids, depth, 0, NULL, &e), &e, "prompt");
    for (int i = 0; i < 4; i++) {
        g->seq_truncate(q, depth);
        double t = now();
        check(g->greedy(m, q, 7, N, NULL, 0, out, &n_out, &e), &e, "decode");
        t = (now() - t) / N;
        if (i && t < best) best = t;
    }
    g->seq_close(q);
    return best;
}
static double batch(const struct apr_gpu *g, struct apr_gpu_model *m)
{
    enum { N = 32, SEQS = 8 };
    static int32_t first[SEQS], out[SEQS * N];
    struct apr_gpu_seq *q[SEQS];
    struct apr_gpu_err e;
    double best = 1e9;
    for (int32_t i = 0; i < SEQS; i++) {
        check(g->seq_open(m, 512, &q[i], &e), &e, "sequence");
        first[i] = 100 * i + 1;
    }
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < SEQS; k++) g->seq_truncate(q[k], 0);
        double t = now();
        check(g->greedy_rows(m, q, first, SEQS, N, out, &e), &e, "batch");
        t = (now() - t) / N;
        if (i && t < best) best = t;
    }
    for (int i = 0; i < SEQS; i++) g->seq_close(q[i]);
    return SEQS / best;
}
static double prompt(const struct apr_gpu *g, struct apr_gpu_model *m, float *logits)
{
    enum { N = 512 };
    static int32_t ids[N];
    struct apr_gpu_seq *q;
    struct apr_gpu_err e;
    double best = 1e9;
    for (uint32_t i = 0; i < N; i++) ids[i] = (int32_t)(i * 7919 % 50000);
    check(g->seq_open(m, N, &q, &e), &e, "sequence");
    for (int i = 0; i < 3; i++) {
        g->seq_truncate(q, 0);
        double t = now();
        check(g->forward(m, q, ids, N, 1, logits, &e), &e, "prompt");
        t = now() - t;
        if (i && t < best) best = t;
    }
    g->seq_close(q);
    return N / best;
}

static void measure(const struct apr_gpu *g, struct apr_gpu_device *dev, const struct shape *s,
                    double bandwidth)
{
    const struct apr_gpu_opts o = {.n_ctx = N_CTX, .n_chunk = 1024};
    const struct apr_gpu_desc d = describe(s);
    struct apr_gpu_model *m;
    struct apr_gpu_err e;
    float *logits = room(s->n_vocab * sizeof *logits);
    check(g->model_open(dev, &d, &o, NULL, NULL, &m, &e), &e, s->name);
    double t0 = decode(g, m, 0), t1 = decode(g, m, 1024);
    printf(
        "%s: %.2f GB a token, decode %.1f tok/s (%.1f %% of the read bandwidth), at 1024 %.1f, eight %.1f, "
        "pp512 %.0f\n",
        s->name, 1e-9 * (double)n_token_bytes, 1 / t0, 100 * (double)n_token_bytes / t0 / bandwidth, 1 / t1,
        batch(g, m), prompt(g, m, logits));
    fflush(stdout);
    g->model_close(m);
    free(logits);
}

int main(int argc, char **argv)
{
    const struct apr_gpu *g;
    struct apr_gpu_device *dev;
    struct apr_err err;
    struct apr_gpu_err e;
    double bandwidth = 1;
    if (apr_gpu_load(&g, &err) != APR_OK) return fprintf(stderr, "bench_general: %s\n", err.text), 9;
    check(g->device_open(0, &dev, &e), &e, "device");
    check(g->bandwidth(dev, &bandwidth, &e), &e, "bandwidth");
    printf("%s, read bandwidth %.0f GB/s\n", g->device_name(dev), 1e-9 * bandwidth);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        bool wanted = argc < 2;
        for (int k = 1; k < argc; k++) wanted |= !strncmp(argv[k], shapes[i].name, strlen(argv[k]));
        if (wanted) measure(g, dev, &shapes[i], bandwidth);
    }
    g->device_close(dev);
    return 0;
}

/* The demonstration model in every type that the peer wrote: reference mode against the forward pass in
 * double over the same blocks, and against the peer's own logits (whose activations are quantized). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../tools/apr-infer/forward.h"
#include "json.h"
#include "load.h"
#include "ref_forward.h"

static const char *const types[] = {"bf16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K"};
static const char *const prompts[] = {"0", "13"};
#define MAX_TOKS 64u

static const char *shared(void)
{
    const char *dir = getenv("APR_SHARED");
    return dir ? dir : "../shared";
}

struct prompt {
    int32_t ids[MAX_TOKS];
    size_t n;
};

static struct prompt read_prompt(const json_t *index, const char *name)
{
    struct prompt p = {0};
    const json_t *list = json_object_get(json_object_get(index, "prompts"), name);
    p.n = json_array_size(list);
    assert_in_range(p.n, 1, MAX_TOKS);
    for (size_t i = 0; i < p.n; i++) p.ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return p;
}

struct rows {
    float *at;
    size_t n_vocab;
};

static enum apr_code take(void *ctx, size_t i_tok, size_t n_rows, const float *logits, struct apr_err *e)
{
    struct rows *r = ctx;
    (void)e;
    memcpy(r->at + i_tok * r->n_vocab, logits, n_rows * r->n_vocab * sizeof *logits);
    return APR_OK;
}

static void compute(struct apr_model *m, const struct prompt *p, bool exact, float *out)
{
    struct apr_forward f;
    struct apr_blocks blocks;
    struct apr_cache cache;
    struct apr_err e = {0};
    const struct apr_kern *kern;
    struct apr_checked_model checked = {.model = m};
    struct apr_pool *pool = apr_pool_open(2);
    struct rows rows = {out, m->config.n_vocab};
    assert_int_equal(apr_kern_pick(&kern, &e), APR_OK);
    if (apr_forward_open(&f, &checked, kern, pool, exact, 32, &e) != APR_OK) fail_msg("%s", e.text);
    assert_int_equal(apr_blocks_init(&blocks, &m->config, apr_cache_plain(exact), MAX_TOKS, &e), APR_OK);
    assert_int_equal(apr_cache_init(&cache, &blocks, MAX_TOKS, &e), APR_OK);
    assert_int_equal(apr_forward_all_logits(&f, &cache, p->ids, p->n, take, &rows, &e), APR_OK);
    apr_cache_free(&cache);
    apr_blocks_free(&blocks);
    apr_forward_close(&f);
    apr_pool_close(pool);
}

/* KL(peer | ours) of one row, in double; *same_argmax where the peer's margin is above 2. */
static double divergence(const float *peer, const float *ours, size_t n, bool *same_argmax)
{
    double max_p = -INFINITY, second = -INFINITY, max_q = -INFINITY, sum_p = 0, sum_q = 0, kl = 0;
    size_t i_p = 0, i_q = 0;
    for (size_t i = 0; i < n; i++) {
        double p = (double)peer[i], q = (double)ours[i];
        if (p > max_p) {
            second = max_p;
            max_p = p;
            i_p = i;
        } else if (p > second) {
            second = p;
        }
        if (q > max_q) {
            max_q = q;
            i_q = i;
        }
    }
    for (size_t i = 0; i < n; i++) {
        sum_p += exp((double)peer[i] - max_p);
        sum_q += exp((double)ours[i] - max_q);
    }
    for (size_t i = 0; i < n; i++) {
        double log_p = (double)peer[i] - max_p - log(sum_p), log_q = (double)ours[i] - max_q - log(sum_q);
        kl += exp(log_p) * (log_p - log_q);
    }
    *same_argmax = max_p - second <= 2 || i_p == i_q;
    return kl;
}

/* The last rows of ours against a peer file, which holds the last row or all of them. */
static void against_peer(const char *type, const char *prompt, const float *ours, size_t n_toks,
                         size_t n_vocab, const char *mode)
{
    char path[512];
    struct apr_buf b;
    struct apr_err e = {0};
    apr_buf_init(&b, 1 << 24);
    snprintf(path, sizeof path, "%s/fixtures/gguf/peer-logits/demo-%s-%s.f32", shared(), type, prompt);
    assert_int_equal(apr_read_file(path, 1 << 24, &b, &e), APR_OK);
    size_t n_rows = b.n_bytes / (n_vocab * sizeof(float));
    assert_true(n_rows >= 1 && n_rows <= n_toks && b.n_bytes == n_rows * n_vocab * sizeof(float));
    double sum = 0;
    for (size_t r = 0; r < n_rows; r++) {
        bool same;
        const float *peer = (const float *)(const void *)b.data + r * n_vocab;
        sum += divergence(peer, ours + (n_toks - n_rows + r) * n_vocab, n_vocab, &same);
        if (!same) fail_msg("%s, prompt %s, row %zu: another argmax than the peer", type, prompt, r);
    }
    print_message("  %-7s prompt %-2s %-7s mean KL to the peer %.2e (%zu rows)\n", type, prompt, mode,
                  sum / (double)n_rows, n_rows);
    assert_true(sum / (double)n_rows <= 1e-2);
    apr_buf_free(&b);
}

static void one_file(const char *type, const json_t *index)
{
    char path[512];
    struct apr_model *m;
    struct apr_err e = {0};
    snprintf(path, sizeof path, "%s/fixtures/gguf/demo-%s.gguf", shared(), type);
    if (apr_load_model(path, APR_LOAD_RANDOM, &m, &e) != APR_OK) fail_msg("%s", e.text);
    for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++) {
        struct prompt p = read_prompt(index, prompts[i]);
        size_t n_vocab = m->config.n_vocab, n = p.n * n_vocab;
        float *ours = calloc(n, sizeof *ours);
        double *want = ref_forward(m, p.ids, p.n), worst = 0;
        compute(m, &p, true, ours);
        for (size_t k = 0; k < n; k++) worst = fmax(worst, fabs((double)ours[k] - want[k]));
        print_message("  %-7s prompt %-2s exact   largest difference to double %.2e\n", type, prompts[i],
                      worst);
        assert_true(worst <= 1e-3);
        against_peer(type, prompts[i], ours, p.n, n_vocab, "exact");
        compute(m, &p, false, ours);
        against_peer(type, prompts[i], ours, p.n, n_vocab, "default");
        free(want);
        free(ours);
    }
    apr_model_close(m);
}

static void every_type_of_the_peer(void **state)
{
    (void)state;
    char path[512];
    json_t *index;
    struct apr_err e = {0};
    snprintf(path, sizeof path, "%s/fixtures/gguf/peer-logits/index.json", shared());
    if (apr_json_load(path, 1 << 20, &index, &e) != APR_OK) {
        print_message("SKIP: %s (set APR_SHARED)\n", e.text);
        skip();
    }
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) one_file(types[i], index);
    json_decref(index);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_type_of_the_peer)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

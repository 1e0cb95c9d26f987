/* The forward pass on a small random model: against the double-precision reference for every type that can be
 * written, and the same bits for any chunk, thread count and kernel table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../tools/apr-infer/forward.h"
#include "ref_forward.h"
#include "toy.h"

#define N_TOKS 37u /* more than two pages, no whole number of them */

static const struct apr_config config = {.n_layers = 2,
                                         .n_hidden = 256,
                                         .n_heads = 4,
                                         .n_heads_kv = 1,
                                         .head_dim = 64,
                                         .n_inter = 256,
                                         .n_vocab = 99,
                                         .n_ctx_train = 64,
                                         .rope_theta = 10000,
                                         .rope = {.theta = 10000, .n_dims = 64},
                                         .qkv_bias = true,
                                         .is_gated = true,
                                         .norm_eps = 1e-6};
static int32_t ids[N_TOKS];

static struct apr_model *model_make(enum apr_type type, bool tied)
{
    struct apr_config c = config;
    c.tied = tied;
    return toy_model_of("qwen2", &c, type);
}

struct how {
    const struct apr_kern *kern;
    unsigned n_threads;
    size_t n_batch;
    bool exact;
};

static float logits[N_TOKS * 99];

static enum apr_code take(void *ctx, size_t i_tok, size_t n_rows, const float *rows, struct apr_err *e)
{
    (void)ctx, (void)e;
    memcpy(logits + i_tok * config.n_vocab, rows, n_rows * config.n_vocab * sizeof *rows);
    return APR_OK;
}

static void compute(struct apr_model *m, const struct how *how)
{
    struct apr_forward f;
    struct apr_blocks blocks;
    struct apr_cache cache;
    struct apr_err e = {0};
    struct apr_checked_model checked = {.model = m};
    struct apr_pool *pool = apr_pool_open(how->n_threads);
    if (apr_forward_open(&f, &checked, how->kern, pool, how->exact, how->n_batch, &e) != APR_OK)
        fail_msg("%s", e.text);
    assert_int_equal(apr_blocks_init(&blocks, &m->config, apr_cache_plain(how->exact), 64, &e), APR_OK);
    assert_int_equal(apr_cache_init(&cache, &blocks, 64, &e), APR_OK);
    memset(logits, 0, sizeof logits);
    assert_int_equal(apr_forward_all_logits(&f, &cache, ids, N_TOKS, take, NULL, &e), APR_OK);
    apr_cache_free(&cache);
    apr_blocks_free(&blocks);
    apr_forward_close(&f);
    apr_pool_close(pool);
}

static const enum apr_type types[] = {APR_F32,  APR_F16,  APR_BF16,      APR_Q8_0,
                                      APR_Q4_K, APR_Q6_K, APR_NATIVE_Q4, APR_NATIVE_Q8};

static bool writable(enum apr_type type)
{
    return apr_quant_of(type) && apr_quant_of(type)->from_f32;
}

static void exact_equals_the_reference(void **state)
{
    (void)state;
    unsigned n_done = 0;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (!writable(types[i])) continue;
        struct apr_model *m = model_make(types[i], i % 2 == 1);
        double *want = ref_forward(m, ids, N_TOKS), worst = 0, largest = 0;
        compute(m, &(struct how){&apr_kern_scalar, 2, 16, true});
        for (size_t k = 0; k < N_TOKS * config.n_vocab; k++) {
            worst = fmax(worst, fabs((double)logits[k] - want[k]));
            largest = fmax(largest, fabs(want[k]));
        }
        /* f32 sums of up to 512 terms through two layers, logits of a few units */
        if (worst > 2e-5 * fmax(1, largest))
            fail_msg("%s: %g of %g", apr_type_name(types[i]), worst, largest);
        free(want);
        apr_model_close(m);
        n_done++;
    }
    assert_true(n_done >= 4);
}

static bool same_bits(const void *a, const void *b, size_t n_bytes)
{
    return memcmp(a, b, n_bytes) == 0;
}

/* For a table with an order of sums of its own (kern.h) the first split is the measure, for all others
 * scalar's. */
static void bits_do_not_depend_on_the_split(void **state)
{
    (void)state;
    static float first[2][sizeof logits / sizeof *logits];
    static const struct {
        unsigned n_threads;
        size_t n_batch;
    } splits[] = {{1, 64}, {1, 1}, {2, 5}, {2, 37}, {3, 16}, {7, 36}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (!writable(types[i])) continue;
        struct apr_model *m = model_make(types[i], false);
        for (int exact = 0; exact < 2; exact++) {
            const struct apr_kern *k;
            for (size_t i_kern = 0; (k = apr_kern_at(i_kern)) != NULL; i_kern++)
                for (size_t s = 0; s < sizeof splits / sizeof *splits; s++) {
                    bool own = !exact && k->matmul[types[i]].act != apr_kern_scalar.matmul[types[i]].act;
                    compute(m, &(struct how){k, splits[s].n_threads, splits[s].n_batch, exact});
                    if (s == 0 && (own || i_kern == 0)) memcpy(first[own], logits, sizeof logits);
                    if (!same_bits(first[own], logits, sizeof logits))
                        fail_msg("%s, %s, exact %d, %u threads, chunk %zu: other bits",
                                 apr_type_name(types[i]), k->name, exact, splits[s].n_threads,
                                 splits[s].n_batch);
                }
        }
        apr_model_close(m);
    }
}

/* Position p's logits must not depend on what follows it. */
static void later_tokens_do_not_matter(void **state)
{
    (void)state;
    static float first[sizeof logits / sizeof *logits];
    struct apr_model *m = model_make(APR_F32, false);
    compute(m, &(struct how){&apr_kern_scalar, 2, 64, false});
    memcpy(first, logits, sizeof logits);
    int32_t last = ids[N_TOKS - 1];
    ids[N_TOKS - 1] = (last + 1) % (int32_t)config.n_vocab;
    compute(m, &(struct how){&apr_kern_scalar, 2, 64, false});
    ids[N_TOKS - 1] = last;
    size_t n_same = (N_TOKS - 1) * config.n_vocab;
    assert_memory_equal(first, logits, n_same * sizeof *first);
    assert_memory_not_equal(first + n_same, logits + n_same, config.n_vocab * sizeof *first);
    apr_model_close(m);
}

static void bad_models_and_tokens_are_refused(void **state)
{
    (void)state;
    struct apr_model *m = model_make(APR_F32, false);
    struct apr_forward f;
    struct apr_blocks blocks;
    struct apr_cache cache;
    struct apr_err e = {0};
    struct apr_checked_model checked = {.model = m};
    struct apr_pool *pool = apr_pool_open(1);
    assert_int_equal(apr_forward_open(&f, &checked, &apr_kern_scalar, pool, false, 8, &e), APR_OK);
    assert_int_equal(apr_blocks_init(&blocks, &m->config, apr_cache_plain(false), 8, &e), APR_OK);
    assert_int_equal(apr_cache_init(&cache, &blocks, 8, &e), APR_OK);
    const int32_t outside[] = {99, -1};
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(apr_forward_chunk(&f, &cache, &outside[i], 1, &e), APR_EUSAGE);
    assert_int_equal(apr_forward_prompt(&f, &cache, ids, 9, &e), APR_EUSAGE);
    apr_cache_free(&cache);
    apr_blocks_free(&blocks);
    apr_forward_close(&f);

    struct apr_tensor *t = (struct apr_tensor *)(uintptr_t)apr_model_role(m, APR_ROLE_DOWN, 1);
    t->dims[0]--;
    assert_int_equal(apr_forward_open(&f, &checked, &apr_kern_scalar, pool, false, 8, &e), APR_ELOAD);
    assert_non_null(strstr(e.text, "mlp.down_proj.weight"));
    apr_forward_close(&f);
    t->dims[0]++;
    t->type = APR_Q8_K;
    assert_int_equal(apr_forward_open(&f, &checked, &apr_kern_scalar, pool, false, 8, &e), APR_ELOAD);
    apr_forward_close(&f);
    apr_pool_close(pool);
    apr_model_close(m);
}

/* A NaN that the contract was told to ignore must not become a token. */
static void nan_is_an_error_with_its_position(void **state)
{
    (void)state;
    struct apr_model *m = model_make(APR_F32, false);
    struct apr_forward f;
    struct apr_blocks blocks;
    struct apr_cache cache;
    struct apr_err e = {0};
    struct apr_checked_model checked = {.model = m};
    struct apr_pool *pool = apr_pool_open(2);
    float *embed = (float *)(uintptr_t)apr_model_role(m, APR_ROLE_EMBED, 0)->data;
    embed[5 * config.n_hidden + 3] = NAN;
    int32_t seq[] = {1, 2, 5};
    assert_int_equal(apr_forward_open(&f, &checked, &apr_kern_scalar, pool, false, 8, &e), APR_OK);
    assert_int_equal(apr_blocks_init(&blocks, &m->config, apr_cache_plain(false), 8, &e), APR_OK);
    assert_int_equal(apr_cache_init(&cache, &blocks, 8, &e), APR_OK);
    assert_int_equal(apr_forward_all_logits(&f, &cache, seq, 3, take, NULL, &e), APR_EINFER);
    assert_non_null(strstr(e.text, "token 2"));
    apr_cache_free(&cache);
    apr_blocks_free(&blocks);
    apr_forward_close(&f);
    apr_pool_close(pool);
    apr_model_close(m);
}

int main(void)
{
    uint64_t seed = 9;
    for (size_t i = 0; i < N_TOKS; i++) ids[i] = (int32_t)((toy_noise(&seed) + 1) * 49);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_equals_the_reference),
        cmocka_unit_test(bits_do_not_depend_on_the_split),
        cmocka_unit_test(later_tokens_do_not_matter),
        cmocka_unit_test(bad_models_and_tokens_are_refused),
        cmocka_unit_test(nan_is_an_error_with_its_position),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

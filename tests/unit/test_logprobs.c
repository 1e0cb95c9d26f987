/* Log-probabilities against their definition in long double, and the likeliest tokens against a full sort. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>

#include "../../tools/apr-infer/logprobs.h"

#define N 1000u

static float logits[N];

static int by_logit(const void *a, const void *b)
{
    float x = logits[*(const int32_t *)a], y = logits[*(const int32_t *)b];
    return x != y ? (x < y) - (x > y) : *(const int32_t *)a - *(const int32_t *)b;
}

static void as_defined(void **state)
{
    (void)state;
    struct apr_err e;
    uint32_t seed = 1;
    for (size_t n_top = 0; n_top <= APR_MAX_LOGPROBS; n_top += 4) {
        struct apr_logprobs l;
        int32_t order[N];
        long double sum = 0;
        for (int32_t i = 0; i < (int32_t)N; i++) {
            seed = seed * 1664525u + 1013904223u;
            logits[i] = (float)(seed >> 20) / 64.0f; /* many are equal */
            order[i] = i;
            sum += expl((long double)logits[i]);
        }
        qsort(order, N, sizeof *order, by_logit);
        apr_logprobs_init(&l, n_top);
        for (int32_t id = 0; id < 5; id++)
            assert_int_equal(apr_logprobs_add(&l, logits, N, id * 199, &e), APR_OK);
        assert_int_equal(l.n_toks, 5);
        for (size_t i = 0; i < 5; i++) {
            const struct apr_logprob *row = apr_logprobs_at(&l, i);
            assert_int_equal(row[0].id, 199 * (int32_t)i);
            for (size_t k = 0; k <= n_top; k++) {
                if (k) assert_int_equal(row[k].id, order[k - 1]);
                /* a sum of 1000 doubles: relative 1e-13, of values up to 70 */
                assert_true(fabs(row[k].v - (double)((long double)logits[row[k].id] - logl(sum))) < 1e-11);
            }
        }
        apr_logprobs_free(&l);
    }
}

static void a_small_vocabulary(void **state)
{
    (void)state;
    struct apr_err e;
    struct apr_logprobs l;
    const float two[2] = {-1e30f, 3};
    apr_logprobs_init(&l, 4);
    assert_int_equal(apr_logprobs_add(&l, two, 2, 1, &e), APR_OK);
    const struct apr_logprob *row = apr_logprobs_at(&l, 0);
    assert_true(row[0].v == 0 && row[1].id == 1 && row[2].id == 0 && row[3].id == -1 && row[4].id == -1);
    apr_logprobs_free(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_defined), cmocka_unit_test(a_small_vocabulary)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

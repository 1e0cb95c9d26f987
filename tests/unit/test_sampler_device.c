/* Which chains a device is given, in which numbers, and where the generator goes on behind its tokens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../../tools/apr-infer/sampler/device.h"
#include "../../tools/apr-infer/sampler/step.h"

#define N_VOCAB 3000u

static struct apr_arena arena;

static int setup(void **state)
{
    (void)state;
    apr_arena_init(&arena);
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    apr_arena_free(&arena);
    return 0;
}

static struct apr_sample_opts of_top_k(int64_t k)
{
    struct apr_sample_opts o;
    apr_sample_defaults(&o);
    o.temperature = 0.8;
    o.top_k = k;
    return o;
}
static struct apr_sampler open_sampler_of(const struct apr_sample_opts *o, size_t n_vocab)
{
    struct apr_sampler s;
    struct apr_err e = {0};
    const struct apr_sampler_site site = {.n_vocab = n_vocab, .n_ctx = 64, .kern = &apr_kern_scalar};
    assert_int_equal(apr_sampler_init(&s, o, &site, &arena, &e), APR_OK);
    return s;
}
static struct apr_sampler open_sampler(const struct apr_sample_opts *o)
{
    return open_sampler_of(o, N_VOCAB);
}
static enum apr_sampler_place place_of(const struct apr_sample_opts *o, struct apr_gpu_chain *c)
{
    const struct apr_sampler s = open_sampler(o);
    return apr_sampler_device(&s, c);
}

static void chain_is_told_in_order(void **state)
{
    (void)state;
    struct apr_gpu_chain c;
    struct apr_sample_opts o = of_top_k(40);
    o.top_p = 0.95, o.min_p = 0.05, o.xtc_probability = 0.5, o.xtc_threshold = 0.2, o.typical_p = 0.9;
    assert_int_equal(place_of(&o, &c), APR_CHOSEN_BY_CHAIN);
    static const uint32_t kinds[] = {APR_GPU_PICK_TYPICAL, APR_GPU_PICK_TOP_P, APR_GPU_PICK_MIN_P,
                                     APR_GPU_PICK_XTC, APR_GPU_PICK_TEMPERATURE};
    const double first[] = {0.9, 0.95, log(0.05), 0.5, 0.8};
    assert_int_equal(c.top_k, 40);
    assert_true(c.t_before == 1);
    assert_int_equal(c.n_picks, 5);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(c.picks[i].kind, kinds[i]);
        assert_true(c.picks[i].v[0] == first[i]);
    }
    assert_true(c.picks[3].v[1] == 0.2);
    o.dynatemp_range = 0.3, o.dynatemp_exponent = 2;
    assert_int_equal(place_of(&o, &c), APR_CHOSEN_BY_CHAIN);
    assert_int_equal(c.picks[4].kind, APR_GPU_PICK_DYNATEMP);
    assert_true(c.picks[4].v[0] == 0.8 && c.picks[4].v[1] == 0.3 && c.picks[4].v[2] == 2);
}

static void temperature_may_come_first(void **state)
{
    (void)state;
    struct apr_gpu_chain c;
    struct apr_sample_opts o = of_top_k(5);
    o.samplers = "temperature;top_k";
    assert_int_equal(place_of(&o, &c), APR_CHOSEN_BY_CHAIN);
    assert_true(c.t_before == 0.8f);
    assert_int_equal(c.n_picks, 0);
    o.temperature = 1e-30; /* logits could become infinite before there are few */
    assert_int_equal(place_of(&o, &c), APR_CHOSEN_HERE);
    o.temperature = 0.8, o.dynatemp_range = 0.1;
    assert_int_equal(place_of(&o, &c), APR_CHOSEN_HERE);
    o.temperature = 1, o.dynatemp_range = 0; /* no step at all */
    assert_int_equal(place_of(&o, &c), APR_CHOSEN_BY_CHAIN);
    assert_true(c.t_before == 1);
}

/* Every step of the table: it is the device's, or it keeps its chain here. */
static void every_step_has_its_place(void **state)
{
    (void)state;
    static const char *const here[] = {"penalties", "dry", "mirostat"};
    for (size_t i = 0; apr_steps[i]; i++) {
        struct apr_sample_opts o = of_top_k(40);
        struct apr_gpu_chain c;
        char list[64];
        bool stays = false;
        o.top_p = 0.9, o.min_p = 0.1, o.typical_p = 0.9, o.tail_free = 0.9, o.top_n_sigma = 1;
        o.eta_cutoff = 0.01, o.epsilon_cutoff = 0.01, o.xtc_probability = 0.5, o.repeat_penalty = 1.1;
        o.dry_multiplier = 1, o.mirostat = 2;
        assert_true(apr_steps[i]->active(&o));
        if (apr_steps[i] == &apr_step_top_k) continue;
        snprintf(list, sizeof list, "top_k;%s", apr_steps[i]->name);
        o.samplers = list;
        for (size_t k = 0; k < sizeof here / sizeof *here; k++) stays |= !strcmp(apr_steps[i]->name, here[k]);
        assert_int_equal(place_of(&o, &c), stays ? APR_CHOSEN_HERE : APR_CHOSEN_BY_CHAIN);
        assert_int_equal(c.n_picks, !stays);
    }
}

static void what_stays_here(void **state)
{
    (void)state;
    struct apr_gpu_chain c;
    struct apr_sample_opts o = of_top_k(0);
    assert_int_equal(place_of(&o, &c), APR_CHOSEN_HERE); /* all logits, but few */
    o.top_k = APR_GPU_TOP_K + 1;
    assert_int_equal(place_of(&o, &c), APR_CHOSEN_HERE);
    o.top_k = APR_GPU_TOP_K;
    assert_int_equal(place_of(&o, &c), APR_CHOSEN_BY_CHAIN);
    o.top_n_sigma = 1; /* before top_k in the default chain */
    assert_int_equal(place_of(&o, &c), APR_CHOSEN_HERE);
    o.top_n_sigma = 0, o.typical_p = 0.9, o.xtc_probability = 0.5; /* not in order for xtc */
    assert_int_equal(place_of(&o, &c), APR_CHOSEN_HERE);
    o.top_p = 0.9;
    assert_int_equal(place_of(&o, &c), APR_CHOSEN_BY_CHAIN);
    o.temperature = 0;
    assert_int_equal(place_of(&o, &c), APR_CHOSEN_GREEDILY);
    struct apr_sampler s = open_sampler(&o);
    s.n_bias = 1;
    assert_int_equal(apr_sampler_device(&s, &c), APR_CHOSEN_HERE);
    struct apr_limit limit = {.n_left = 1};
    s.n_bias = 0, s.limit = &limit;
    assert_int_equal(apr_sampler_device(&s, &c), APR_CHOSEN_HERE);
}

static void a_temperature_alone_is_of_all_tokens(void **state)
{
    (void)state;
    struct apr_gpu_chain c;
    struct apr_sample_opts o = of_top_k(0);
    struct apr_sampler s = open_sampler_of(&o, APR_CANDS_MANY);
    assert_int_equal(apr_sampler_device(&s, &c), APR_CHOSEN_BY_CHAIN);
    assert_int_equal(c.top_k, 0);
    assert_int_equal(c.n_picks, 0);
    assert_true(c.t_before == 0.8f);
    o.temperature = 1; /* no step at all */
    s = open_sampler_of(&o, APR_CANDS_MANY);
    assert_int_equal(apr_sampler_device(&s, &c), APR_CHOSEN_BY_CHAIN);
    assert_true(c.t_before == 1);
    o.min_p = 0.1;
    s = open_sampler_of(&o, APR_CANDS_MANY);
    assert_int_equal(apr_sampler_device(&s, &c), APR_CHOSEN_HERE);
}

/* A draw from all: the likeliest has weight 2^43, and tokens come by the sums of weights in their order. */
static void all_tokens_are_drawn_from_by_weight(void **state)
{
    (void)state;
    enum { N = 5003, N_EVEN = 2502 };
    struct apr_cands c;
    struct apr_err e = {0};
    static float logits[N];
    const double other = rint(exp(-8) * 0x1p43), all = 0x1p43 + N_EVEN * other;
    const struct {
        double u;
        int32_t id;
    } draws[] = {{0, 0},
                 {other / all * (1 - 1e-5), 0},
                 {other / all * (1 + 1e-5), 2},
                 {2161 * other / all * (1 - 1e-6), 4320},
                 {2161 * other / all * (1 + 1e-6), 4321},
                 {1 - 0x1p-53, N - 1}};
    assert_int_equal(apr_cands_init(&c, N, &apr_kern_scalar, &arena, &e), APR_OK);
    for (size_t i = 0; i < N; i++) logits[i] = i == 4321 ? 3 : i % 2 ? -200 : -5; /* odd ones weigh nothing */
    for (size_t k = 0; k < sizeof draws / sizeof *draws; k++) {
        int32_t id;
        double p;
        apr_cands_begin(&c, logits);
        assert_true(apr_cands_draw_all(&c, draws[k].u, &id, &p));
        assert_int_equal(id, draws[k].id);
        assert_true(fabs(p * all / (id == 4321 ? 0x1p43 : other) - 1) < 1e-6);
    }
    apr_cands_begin(&c, logits);
    apr_cands_list(&c);
    assert_false(apr_cands_draw_all(&c, 0, &(int32_t){0}, &(double){0}));
}

/* What the sampler would draw from is what the device gets, wherever the text stands. */
static void bits_are_those_of_the_next_tokens(void **state)
{
    (void)state;
    const struct apr_sample_opts o = of_top_k(40);
    struct apr_sampler s = open_sampler(&o), there = s;
    struct apr_err e = {0};
    float logits[N_VOCAB] = {0};
    uint64_t bits[8];
    int32_t id;
    for (int i = 0; i < 20; i++) {
        apr_sampler_bits(&there, bits, 8);
        for (int k = 0; k < 1 + i % 8; k++) { /* so many of the eight are taken */
            assert_int_equal(apr_sampler_next(&s, logits, &id, &e), APR_OK);
            assert_true(s.rng.bits == bits[k]);
            apr_sampler_was_chosen(&there);
        }
        assert_memory_equal(&s.rng, &there.rng, sizeof s.rng);
    }
}

/* A temperature that would make the largest logit infinite is greedy, not what is left of the list. */
static void hardly_any_temperature_is_greedy(void **state)
{
    (void)state;
    struct apr_sample_opts o = of_top_k(40);
    float logits[N_VOCAB] = {0};
    struct apr_err e = {0};
    int32_t id;
    logits[77] = 5;
    o.temperature = 1e-40;
    for (o.top_k = 0; o.top_k <= 40; o.top_k += 40) {
        struct apr_sampler s = open_sampler(&o);
        assert_int_equal(apr_sampler_next(&s, logits, &id, &e), APR_OK);
        assert_int_equal(id, 77);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(chain_is_told_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(temperature_may_come_first, setup, teardown),
        cmocka_unit_test_setup_teardown(every_step_has_its_place, setup, teardown),
        cmocka_unit_test_setup_teardown(what_stays_here, setup, teardown),
        cmocka_unit_test_setup_teardown(a_temperature_alone_is_of_all_tokens, setup, teardown),
        cmocka_unit_test_setup_teardown(all_tokens_are_drawn_from_by_weight, setup, teardown),
        cmocka_unit_test_setup_teardown(bits_are_those_of_the_next_tokens, setup, teardown),
        cmocka_unit_test_setup_teardown(hardly_any_temperature_is_greedy, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

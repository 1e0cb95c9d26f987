/* A crew over an engine that only counts: who gets how much of a step, and that neighbours change nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "../../tools/apr-infer/crew.h"

#define N_VOCAB 61u
#define N_CTX   400u
#define MAX_SEQ 12u

#define MAX_KEPT 32u

/* The next token is told by all tokens so far; the last one of the vocabulary ends the answer. */
struct fake {
    struct apr_engine engine;
    struct {
        const struct apr_cache *cache;
        uint64_t hash;
        int32_t ids[N_CTX + 1];
    } seqs[MAX_SEQ];
    struct {
        int32_t ids[N_CTX];
        size_t n;
    } kept[MAX_KEPT];
    size_t n_kept, n_computed; /* tokens */
    float logits[MAX_SEQ][N_VOCAB];
    size_t n_open, n_steps, n_mixed; /* n_mixed: steps with answers and parts of prompts */
    size_t n_most_answers;           /* answers that one step went on with */
    int fail_at_hash_bits;           /* logits of such a sequence are wrong; 0: none */
    bool is_broken, has_no_way;
    size_t n_gone_on; /* calls */
    size_t n_drawn;   /* tokens of these by a chain */
};

static uint64_t mix(uint64_t hash, int32_t id)
{
    hash = (hash ^ (uint64_t)(uint32_t)id) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ hash >> 29;
}

static void logits_of(uint64_t hash, float *logits)
{
    for (size_t i = 0; i < N_VOCAB; i++) logits[i] = (float)(mix(hash, (int32_t)i) >> 40);
}

static enum apr_code fake_open(void *ctx, struct apr_cache *cache, const int32_t *ids, size_t n,
                               struct apr_err *e)
{
    struct fake *f = ctx;
    (void)e;
    *cache = (struct apr_cache){0};
    size_t i = 0;
    while (f->seqs[i].cache) assert_in_range(++i, 0, MAX_SEQ - 1);
    f->seqs[i].cache = cache;
    f->seqs[i].hash = 1;
    for (size_t k = 0; k < f->n_kept; k++)
        for (size_t n_same = f->kept[k].n; n_same > cache->n_pos; n_same -= APR_PAGE_POS)
            if (n_same < n && !memcmp(ids, f->kept[k].ids, n_same * sizeof *ids)) cache->n_pos = n_same;
    for (size_t k = 0; k < cache->n_pos; k++) f->seqs[i].hash = mix(f->seqs[i].hash, ids[k]);
    memcpy(f->seqs[i].ids, ids, cache->n_pos * sizeof *ids);
    f->n_open++;
    return APR_OK;
}

static size_t find(const struct fake *f, const struct apr_cache *cache)
{
    size_t i = 0;
    while (f->seqs[i].cache != cache) assert_in_range(++i, 0, MAX_SEQ - 1);
    return i;
}

static void fake_close(void *ctx, struct apr_cache *cache)
{
    struct fake *f = ctx;
    f->seqs[find(f, cache)].cache = NULL;
    f->n_open--;
}

static enum apr_code fake_keep(void *ctx, struct apr_cache *cache, size_t n_need, struct apr_err *e)
{
    struct fake *f = ctx;
    (void)e;
    assert_true(n_need >= cache->n_pos);
    assert_in_range(f->n_kept, 0, MAX_KEPT - 1);
    f->kept[f->n_kept].n = cache->n_pos / APR_PAGE_POS * APR_PAGE_POS;
    memcpy(f->kept[f->n_kept++].ids, f->seqs[find(f, cache)].ids, cache->n_pos * sizeof(int32_t));
    return APR_OK;
}

static enum apr_code fake_step(void *ctx, struct apr_turn *turns, size_t n_turns, struct apr_err *e)
{
    struct fake *f = ctx;
    size_t n_all = 0, n_answers = 0;
    if (f->is_broken) return apr_fail(e, APR_EINFER, "broken");
    for (size_t i = 0; i < n_turns; i++) {
        struct apr_turn *t = &turns[i];
        for (size_t k = 0; k < i; k++) assert_ptr_not_equal(turns[k].cache, t->cache);
        assert_true(t->n >= 1);
        n_all += t->n;
        n_answers += t->n == 1 && t->wants_logits;
        size_t i_seq = find(f, t->cache);
        uint64_t *hash = &f->seqs[i_seq].hash;
        assert_true(t->cache->n_pos + t->n <= N_CTX);
        for (size_t k = 0; k < t->n; k++) *hash = mix(*hash, t->ids[k]);
        memcpy(f->seqs[i_seq].ids + t->cache->n_pos, t->ids, t->n * sizeof *t->ids);
        t->cache->n_pos += t->n;
        f->n_computed += t->n;
        if (!t->wants_logits) continue;
        logits_of(*hash, f->logits[i]);
        t->logits = f->logits[i];
        if (f->fail_at_hash_bits && !(mix(*hash, 99) >> (64 - f->fail_at_hash_bits)))
            t->code = apr_fail(&t->err, APR_EINFER, "no good");
    }
    assert_in_range(n_all, 1, f->engine.n_batch);
    f->n_steps++;
    f->n_mixed += n_answers && n_answers < n_turns;
    if (n_answers > f->n_most_answers) f->n_most_answers = n_answers;
    return APR_OK;
}

/* The chain of this test, top_k and a temperature, from its definition. */
static int32_t draw(const float *logits, const struct apr_gpu_chain *c, uint64_t bits)
{
    bool taken[N_VOCAB] = {false};
    int32_t ids[N_VOCAB] = {0};
    double p[N_VOCAB], sum = 0, run = 0;
    assert_int_equal(c->n_picks, 1);
    assert_int_equal(c->picks[0].kind, APR_GPU_PICK_TEMPERATURE);
    for (uint32_t k = 0; k < c->top_k; k++) {
        int32_t best = -1;
        for (int32_t i = 0; i < (int32_t)N_VOCAB; i++)
            if (!taken[i] && (best < 0 || logits[i] > logits[best])) best = i;
        taken[ids[k] = best] = true;
        const float t = (float)c->picks[0].v[0], top = logits[ids[0]] / t;
        sum += p[k] = exp((double)(logits[best] / t) - (double)top);
    }
    const double u = (double)(bits >> 11) * 0x1p-53 * sum;
    for (uint32_t k = 0; k < c->top_k; k++)
        if ((run += p[k]) > u) return ids[k];
    return ids[c->top_k - 1];
}

/* Goes on by itself; every third call makes fewer tokens than it may, and some models have no way to. */
static enum apr_code fake_go_on(void *ctx, const struct apr_turn *turns, size_t n_turns, size_t n,
                                int32_t *out, size_t *n_out, struct apr_err *e)
{
    struct fake *f = ctx;
    float logits[N_VOCAB];
    assert_in_range(n, 1, f->engine.n_ahead);
    if (f->has_no_way) return apr_fail(e, APR_EUNAVAIL, "no way");
    if (++f->n_gone_on % 3 == 0 && n > 1) n--;
    for (size_t i = 0; i < n_turns; i++) {
        const struct apr_turn *t = &turns[i];
        uint64_t *hash = &f->seqs[find(f, t->cache)].hash;
        int32_t id = t->ids[0];
        assert_int_equal(t->n, 1);
        assert_true(t->cache->n_pos + n <= N_CTX);
        for (size_t k = 0; k < n; k++) {
            *hash = mix(*hash, id);
            logits_of(*hash, logits);
            id = 0;
            for (int32_t v = 1; v < (int32_t)N_VOCAB; v++)
                if (logits[v] > logits[id]) id = v;
            if (t->chain) id = draw(logits, t->chain, t->bits[k]);
            f->n_drawn += t->chain != NULL;
            out[i * f->engine.n_ahead + k] = id;
        }
        t->cache->n_pos += n;
    }
    return *n_out = n, APR_OK;
}

static void fake_init(struct fake *f, size_t n_batch)
{
    *f = (struct fake){0};
    f->engine = (struct apr_engine){.ctx = f,
                                    .n_batch = n_batch,
                                    .n_vocab = N_VOCAB,
                                    .n_ctx = N_CTX,
                                    .n_positions = 1u << 20,
                                    .open = fake_open,
                                    .close = fake_close,
                                    .step = fake_step};
}

static const struct apr_generation ends = {.n_eos = 1, .eos_ids = {N_VOCAB - 1}};

/* A sequence of the test: prompt of n tokens made from its number. */
struct wish {
    size_t n_prompt, n_max;
    int64_t top_k; /* 0: the largest logit */
    size_t n_same; /* the prompt begins with so many tokens that are those of others */
    struct apr_ids answer;
    const char *finish;
    enum apr_code code;
};

static int32_t prompt_tok(const struct wish *w, size_t i_wish, size_t i)
{
    return (int32_t)(mix(i < w->n_same ? 3 : i_wish + 7, (int32_t)i) % (N_VOCAB - 1));
}

static void seat_wish(struct apr_crew *c, struct wish *w, size_t i_wish)
{
    struct apr_err e;
    struct apr_sample_opts o;
    apr_sample_defaults(&o);
    if (w->top_k) o.temperature = 3e6, o.top_k = w->top_k, o.seed = i_wish; /* logits go up to 2^24 */
    const struct apr_sampler_site site = {.n_vocab = N_VOCAB, .n_ctx = N_CTX, .kern = &apr_kern_scalar};
    struct apr_seat *s = apr_crew_take(c);
    assert_non_null(s);
    s->tag = w;
    for (size_t i = 0; i < w->n_prompt; i++)
        assert_int_equal(apr_ids_push(&s->ids, prompt_tok(w, i_wish, i), &e), APR_OK);
    assert_int_equal(apr_sampler_init(&s->sampler, &o, &site, &s->arena, &e), APR_OK);
    apr_reply_init(&s->reply, &(struct apr_reply_opts){.n_max = w->n_max},
                   &(struct apr_reply_site){.sampler = &s->sampler, .ends = &ends});
    assert_int_equal(apr_crew_admit(c, s, w->n_prompt + w->n_max, &e), APR_OK);
}

static void take_finished(struct apr_crew *c)
{
    struct apr_seat *s;
    while ((s = apr_crew_finished(c))) {
        struct wish *w = s->tag;
        w->answer = s->reply.ids;
        s->reply.ids = (struct apr_ids){0};
        w->finish = s->reply.finish;
        w->code = s->code;
        apr_crew_leave(c, s);
    }
}

/* All wishes through a crew of n_seats. */
static void run_all(struct fake *f, struct wish *w, size_t n, size_t n_seats)
{
    struct apr_crew c;
    struct apr_err e;
    size_t i = 0;
    assert_int_equal(apr_crew_open(&c, &f->engine, n_seats, &e), APR_OK);
    while (i < n || c.n_taken) {
        for (; i < n && apr_crew_has_room(&c, w[i].n_prompt + w[i].n_max); i++) seat_wish(&c, &w[i], i);
        assert_int_equal(apr_crew_step(&c, &e), APR_OK);
        take_finished(&c);
    }
    assert_int_equal(f->n_open, 0);
    apr_crew_close(&c);
}

/* What a sequence says, told directly. */
static void check_answer(const struct wish *w, size_t i_wish)
{
    uint64_t hash = 1;
    float logits[N_VOCAB];
    bool ended = false;
    size_t n = 0, n_room = N_CTX - w->n_prompt;
    for (size_t i = 0; i < w->n_prompt; i++) hash = mix(hash, prompt_tok(w, i_wish, i));
    while (n < w->n_max && !ended && n <= n_room) {
        size_t best = 0;
        logits_of(hash, logits);
        for (size_t i = 1; i < N_VOCAB; i++)
            if (logits[i] > logits[best]) best = i;
        assert_true(n < w->answer.n);
        assert_int_equal(w->answer.at[n++], best);
        hash = mix(hash, (int32_t)best);
        ended = best == N_VOCAB - 1;
    }
    assert_int_equal(w->answer.n, n);
    assert_string_equal(w->finish, ended ? "stop" : "length");
    assert_int_equal(w->code, APR_OK);
}

static const struct wish wishes[] = {
    {.n_prompt = 5, .n_max = 40},   {.n_prompt = 390, .n_max = 900}, {.n_prompt = 1, .n_max = 1},
    {.n_prompt = 33, .n_max = 100}, {.n_prompt = 200, .n_max = 3},   {.n_prompt = 400, .n_max = 5},
    {.n_prompt = 2, .n_max = 77},   {.n_prompt = 64, .n_max = 64},   {.n_prompt = 7, .n_max = 9},
    {.n_prompt = 100, .n_max = 10}, {.n_prompt = 1, .n_max = 399},
};
#define N_WISHES (sizeof wishes / sizeof *wishes)

static void neighbours_change_nothing(void **state)
{
    (void)state;
    static const size_t seats[] = {1, 2, 3, 8, 11}, batches[] = {11, 16, 64, 512};
    for (size_t i = 0; i < 5; i++)
        for (size_t k = 0; k < 4; k++) {
            struct wish w[N_WISHES];
            struct fake f;
            memcpy(w, wishes, sizeof w);
            fake_init(&f, batches[k]);
            run_all(&f, w, N_WISHES, seats[i]);
            for (size_t j = 0; j < N_WISHES; j++) {
                check_answer(&w[j], j);
                apr_ids_free(&w[j].answer);
            }
            assert_true(f.n_most_answers <= seats[i]);
            if (seats[i] == 8) assert_true(f.n_mixed > 0);
        }
}

static void an_engine_that_goes_on_changes_nothing(void **state)
{
    (void)state;
    static const size_t seats[] = {1, 3, 11}, ahead[] = {1, 2, 8, 32};
    for (size_t i = 0; i < 3 * 4 * 2; i++) {
        struct wish w[N_WISHES];
        struct fake f;
        memcpy(w, wishes, sizeof w);
        fake_init(&f, 64);
        f.engine.go_on = fake_go_on;
        f.engine.n_ahead = ahead[i % 4];
        f.has_no_way = i >= 12;
        run_all(&f, w, N_WISHES, seats[i / 4 % 3]);
        for (size_t j = 0; j < N_WISHES; j++) {
            check_answer(&w[j], j);
            apr_ids_free(&w[j].answer);
        }
        assert_true(f.has_no_way == !f.n_gone_on);
    }
}

/* What is drawn by the engine is what the sampler would have drawn, whoever is beside it. */
static void an_engine_that_draws_changes_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct wish w[N_WISHES], alone[N_WISHES];
        struct fake f, stepped;
        size_t n_other = 0;
        memcpy(w, wishes, sizeof w);
        for (size_t j = 0; j < N_WISHES; j++) w[j].top_k = j % 3 == i % 3 ? 0 : (int64_t)j + 1;
        memcpy(alone, w, sizeof w);
        fake_init(&stepped, 64);
        run_all(&stepped, alone, N_WISHES, 1);
        fake_init(&f, 64);
        f.engine.go_on = fake_go_on;
        f.engine.n_ahead = 2 * i + 2;
        run_all(&f, w, N_WISHES, 3 * i + 1);
        assert_true(f.n_drawn > 0);
        for (size_t j = 0; j < N_WISHES; j++) {
            assert_int_equal(w[j].answer.n, alone[j].answer.n);
            assert_memory_equal(w[j].answer.at, alone[j].answer.at, w[j].answer.n * sizeof(int32_t));
            if (!w[j].top_k) check_answer(&w[j], j);
            n_other += w[j].answer.n;
            apr_ids_free(&w[j].answer);
            apr_ids_free(&alone[j].answer);
        }
        assert_true(n_other > f.n_drawn);
    }
}

/* Who samples from all tokens of so few wants to see the logits, and so do the others then. */
static void who_samples_gets_every_logit(void **state)
{
    (void)state;
    struct wish w[2] = {{.n_prompt = 3, .n_max = 30}, {.n_prompt = 4, .n_max = 10}};
    struct fake f;
    struct apr_crew c;
    struct apr_err e;
    fake_init(&f, 64);
    f.engine.go_on = fake_go_on;
    f.engine.n_ahead = 8;
    assert_int_equal(apr_crew_open(&c, &f.engine, 2, &e), APR_OK);
    seat_wish(&c, &w[0], 0);
    seat_wish(&c, &w[1], 1);
    c.seats[1].sampler.opts.temperature = 1;
    while (c.n_taken == 2) {
        assert_int_equal(apr_crew_step(&c, &e), APR_OK);
        assert_int_equal(f.n_gone_on, 0);
        take_finished(&c);
    }
    while (c.n_taken) {
        assert_int_equal(apr_crew_step(&c, &e), APR_OK);
        take_finished(&c);
    }
    check_answer(&w[0], 0);
    assert_true(f.n_gone_on > 0 || w[0].answer.n <= 10);
    assert_int_equal(c.n_reply_toks + 2, w[0].answer.n + w[1].answer.n);
    apr_ids_free(&w[0].answer);
    apr_ids_free(&w[1].answer);
    apr_crew_close(&c);
}

/* A long prompt takes many steps; those who answer get a token in each of them. */
static void a_long_prompt_delays_nobody(void **state)
{
    (void)state;
    struct wish w[2] = {{.n_prompt = 3, .n_max = 30}, {.n_prompt = 390, .n_max = 2}};
    struct fake f;
    struct apr_crew c;
    struct apr_err e;
    fake_init(&f, 11);
    assert_int_equal(apr_crew_open(&c, &f.engine, 2, &e), APR_OK);
    seat_wish(&c, &w[0], 0);
    assert_int_equal(apr_crew_step(&c, &e), APR_OK); /* the short prompt */
    seat_wish(&c, &w[1], 1);
    for (size_t i = 0; i < 20; i++) {
        size_t n_before = c.seats[0].reply.ids.n, n_fed = c.seats[1].n_fed;
        assert_int_equal(apr_crew_step(&c, &e), APR_OK);
        if (c.seats[0].is_over) break;
        assert_int_equal(c.seats[0].reply.ids.n, n_before + 1);
        assert_int_equal(c.seats[1].n_fed, n_fed + 10); /* the rest of the step */
    }
    apr_crew_close(&c);
}

static void what_is_wrong_with_one_concerns_no_other(void **state)
{
    (void)state;
    struct wish w[N_WISHES];
    struct fake f;
    size_t n_failed = 0;
    memcpy(w, wishes, sizeof w);
    fake_init(&f, 64);
    f.fail_at_hash_bits = 6; /* one of 64 */
    run_all(&f, w, N_WISHES, 4);
    for (size_t i = 0; i < N_WISHES; i++) {
        n_failed += w[i].code == APR_EINFER;
        if (w[i].code == APR_OK) check_answer(&w[i], i);
        apr_ids_free(&w[i].answer);
    }
    assert_in_range(n_failed, 1, N_WISHES - 1);
}

/* Eight prompts with the same 100 tokens in front: these are computed once, and nobody says anything else. */
static void what_begins_the_same_is_computed_once(void **state)
{
    (void)state;
    struct wish w[8];
    struct fake f;
    size_t n_prompts = 0;
    for (size_t n_batch = 16; n_batch <= 512; n_batch *= 2) {
        fake_init(&f, n_batch);
        f.engine.keep = fake_keep;
        n_prompts = 0;
        for (size_t i = 0; i < 8; i++) {
            w[i] = (struct wish){.n_prompt = 105 + 11 * i, .n_max = 1, .n_same = 100};
            n_prompts += w[i].n_prompt;
        }
        run_all(&f, w, 8, 5);
        assert_int_equal(f.n_computed, n_prompts - 7 * 96); /* whole blocks of 16 */
        for (size_t i = 0; i < 8; i++) {
            check_answer(&w[i], i);
            apr_ids_free(&w[i].answer);
        }
    }
}

static void positions_are_bounded_but_one_always_runs(void **state)
{
    (void)state;
    struct wish w[2] = {{.n_prompt = 50, .n_max = 60}, {.n_prompt = 50, .n_max = 60}};
    struct fake f;
    struct apr_crew c;
    struct apr_err e;
    fake_init(&f, 64);
    f.engine.n_positions = 100;
    assert_int_equal(apr_crew_open(&c, &f.engine, 4, &e), APR_OK);
    assert_true(apr_crew_has_room(&c, 110));
    seat_wish(&c, &w[0], 0);
    assert_false(apr_crew_has_room(&c, 110));
    assert_false(apr_crew_has_room(&c, 1));
    while (!apr_crew_finished(&c)) assert_int_equal(apr_crew_step(&c, &e), APR_OK);
    take_finished(&c);
    apr_ids_free(&w[0].answer);
    assert_true(apr_crew_has_room(&c, 110));
    seat_wish(&c, &w[1], 1);
    f.is_broken = true;
    assert_int_equal(apr_crew_step(&c, &e), APR_EINFER);
    apr_crew_close(&c);
    assert_int_equal(f.n_open, 0);
}

static void a_failed_step_ends_those_who_were_in_it(void **state)
{
    (void)state;
    struct wish w[3] = {
        {.n_prompt = 20, .n_max = 6}, {.n_prompt = 30, .n_max = 6}, {.n_prompt = 20, .n_max = 6}};
    struct fake f;
    struct apr_crew c;
    struct apr_err e;
    struct apr_seat *s;
    size_t n_failed = 0;
    fake_init(&f, 64);
    f.engine.recovers = true;
    assert_int_equal(apr_crew_open(&c, &f.engine, 2, &e), APR_OK);
    seat_wish(&c, &w[0], 0);
    seat_wish(&c, &w[1], 1);
    assert_int_equal(apr_crew_step(&c, &e), APR_OK);
    f.is_broken = true;
    assert_int_equal(apr_crew_step(&c, &e), APR_OK);
    for (; (s = apr_crew_finished(&c)); n_failed++) {
        assert_int_equal(s->code, APR_EINFER);
        assert_string_equal(s->err.text, "broken");
        apr_crew_leave(&c, s);
    }
    assert_int_equal(n_failed, 2);
    f.is_broken = false;
    seat_wish(&c, &w[2], 2);
    while (!apr_crew_finished(&c)) assert_int_equal(apr_crew_step(&c, &e), APR_OK);
    take_finished(&c);
    check_answer(&w[2], 2);
    apr_ids_free(&w[2].answer);
    apr_crew_close(&c);
    assert_int_equal(f.n_open, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neighbours_change_nothing),
        cmocka_unit_test(an_engine_that_goes_on_changes_nothing),
        cmocka_unit_test(an_engine_that_draws_changes_nothing),
        cmocka_unit_test(who_samples_gets_every_logit),
        cmocka_unit_test(a_long_prompt_delays_nobody),
        cmocka_unit_test(what_is_wrong_with_one_concerns_no_other),
        cmocka_unit_test(what_begins_the_same_is_computed_once),
        cmocka_unit_test(positions_are_bounded_but_one_always_runs),
        cmocka_unit_test(a_failed_step_ends_those_who_were_in_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

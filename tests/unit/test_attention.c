/* Attention over the paged cache: against plain loops in double for groups, windows, soft caps and shared
 * latents, and the same bits for any split of the tokens among calls and threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../tools/apr-infer/attention.h"

#define N_POS 53u /* three pages and a part */
#define LAYER 1u

static const struct {
    uint32_t n_heads, n_heads_kv, k_dim, v_dim;
    bool v_in_k;
    size_t window;
    float softcap;
} cases[] = {
    {4, 4, 8, 8, false, 0, 0},    {6, 2, 24, 24, false, 0, 0},    {4, 1, 64, 64, false, 0, 0},
    {4, 2, 16, 16, false, 1, 0},  {4, 2, 16, 16, false, 15, 0},   {4, 2, 16, 16, false, 16, 0},
    {4, 2, 16, 16, false, 17, 0}, {4, 2, 16, 16, false, 40, 5},   {4, 2, 16, 16, false, 1000, 0},
    {3, 3, 10, 10, false, 0, 3},  {4, 1, 24, 16, true, 0, 0},     {40, 1, 24, 16, true, 0, 0},
    {40, 1, 8, 8, false, 20, 0},  {40, 1, 24, 16, true, 9, 2.5f}, {6, 2, 32, 32, false, 0, 0},
    {4, 2, 64, 64, false, 19, 3}, {40, 1, 96, 64, true, 0, 0},
};
#define N_CASES (sizeof cases / sizeof cases[0])
static const enum apr_type types[] = {APR_F32, APR_F16, APR_Q8_0, APR_Q4_0};
#define N_TYPES (sizeof types / sizeof types[0])

static bool is_possible(size_t i_case, enum apr_type type)
{
    uint32_t n_block = apr_quant_of(type)->block_elems;
    return cases[i_case].k_dim % n_block == 0 && cases[i_case].v_dim % n_block == 0;
}

struct room {
    struct apr_attn_shape shape;
    struct apr_blocks blocks;
    struct apr_cache cache;
    float *q;     /* [N_POS, n_heads, k_dim] */
    float *k, *v; /* [N_POS, n_heads_kv, dim] as stored */
    float *out;   /* [N_POS, n_heads, v_dim] */
    double *want;
};

static float noise(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(*seed >> 40) / (float)(1 << 23) - 1.0f;
}

static float *floats(struct apr_arena *arena, size_t n, uint64_t *seed)
{
    float *x = apr_arena_get(arena, n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = 2 * noise(seed);
    return x;
}

/* x becomes what the cache made of it. */
static void store(struct apr_cache *c, enum apr_cache_part part, uint32_t i_head, size_t pos, float *x,
                  size_t n)
{
    const struct apr_page_type *t = c->blocks->types.at[part];
    uint8_t *page = apr_cache_page(c, part, LAYER, i_head, pos / APR_PAGE_POS);
    uint8_t *row = page + pos % APR_PAGE_POS * c->blocks->row_bytes[part];
    t->store(apr_kern_at(0), x, row, n);
    apr_quant_of(t->type)->to_f32(row, x, n);
    if (t->is_turned) apr_page_turn(x, n);
}

static void fill(struct room *r, size_t i_case, enum apr_type type, struct apr_arena *arena)
{
    struct apr_attn_shape *s = &r->shape;
    struct apr_err e = {0};
    uint64_t seed = i_case + 1;
    struct apr_config cfg = {.n_layers = 2,
                             .n_heads = cases[i_case].n_heads,
                             .n_heads_kv = cases[i_case].n_heads_kv,
                             .head_dim = cases[i_case].k_dim,
                             .attn_softcap = (double)cases[i_case].softcap};
    if (cases[i_case].v_in_k) {
        cfg.mla.kv_rank = cases[i_case].v_dim;
        cfg.mla.n_rope = cases[i_case].k_dim - cases[i_case].v_dim;
    }
    *s = apr_attn_shape_of(&cfg);
    assert_int_equal(s->k_dim, cases[i_case].k_dim);
    assert_int_equal(s->v_dim, cases[i_case].v_dim);
    const struct apr_page_type *t = apr_page_type_of(type);
    const struct apr_cache_types both = {{t, t}};
    assert_int_equal(apr_blocks_init(&r->blocks, &cfg, both, N_POS, &e), APR_OK);
    assert_int_equal(apr_cache_init(&r->cache, &r->blocks, N_POS, &e), APR_OK);
    assert_int_equal(apr_cache_reserve(&r->cache, N_POS, &e), APR_OK);
    r->q = floats(arena, N_POS * s->n_heads * s->k_dim, &seed);
    r->k = floats(arena, N_POS * s->n_heads_kv * s->k_dim, &seed);
    r->v = floats(arena, N_POS * s->n_heads_kv * s->v_dim, &seed);
    r->out = floats(arena, N_POS * s->n_heads * s->v_dim, &seed);
    r->want = apr_arena_get(arena, N_POS * s->n_heads * s->v_dim * sizeof *r->want);
    for (size_t p = 0; p < N_POS; p++)
        for (uint32_t h = 0; h < s->n_heads_kv; h++) {
            float *v = r->v + (p * s->n_heads_kv + h) * s->v_dim;
            float *k = r->k + (p * s->n_heads_kv + h) * s->k_dim;
            store(&r->cache, APR_CACHE_K, h, p, k, s->k_dim);
            if (s->v_in_k) memcpy(v, k, s->v_dim * sizeof *v);
            if (!s->v_in_k) store(&r->cache, APR_CACHE_V, h, p, v, s->v_dim);
        }
}

static void reference(struct room *r, size_t window)
{
    const struct apr_attn_shape *s = &r->shape;
    uint32_t n_group = s->n_heads / s->n_heads_kv;
    double p[N_POS];
    for (size_t t = 0; t < N_POS; t++)
        for (uint32_t h = 0; h < s->n_heads; h++) {
            const float *q = r->q + (t * s->n_heads + h) * s->k_dim;
            size_t first = window && t + 1 > window ? t + 1 - window : 0;
            double max = -INFINITY, sum = 0;
            for (size_t i = first; i <= t; i++) {
                const float *k = r->k + (i * s->n_heads_kv + h / n_group) * s->k_dim;
                p[i] = 0;
                for (uint32_t d = 0; d < s->k_dim; d++) p[i] += (double)q[d] * (double)k[d];
                p[i] *= (double)s->scale;
                if (s->softcap > 0) p[i] = (double)s->softcap * tanh(p[i] / (double)s->softcap);
                max = fmax(max, p[i]);
            }
            for (size_t i = first; i <= t; i++) sum += p[i] = exp(p[i] - max);
            for (uint32_t d = 0; d < s->v_dim; d++) {
                double y = 0;
                for (size_t i = first; i <= t; i++)
                    y += p[i] / sum * (double)r->v[(i * s->n_heads_kv + h / n_group) * s->v_dim + d];
                r->want[(t * s->n_heads + h) * s->v_dim + d] = y;
            }
        }
}

/* All tokens, n_chunk at a time. */
static void run_wide(struct room *r, size_t window, unsigned n_threads, size_t n_chunk, size_t n_pos_wide)
{
    struct apr_pool *pool = apr_pool_open(n_threads);
    const struct apr_kern *kern;
    struct apr_err e = {0};
    struct apr_arena arena;
    apr_arena_init(&arena);
    assert_int_equal(apr_kern_pick(&kern, &e), APR_OK);
    struct apr_compute c = {.kern = kern, .pool = pool};
    struct apr_attn_room room = {.arena = &arena, .n_pos_wide = n_pos_wide};
    for (size_t t = 0; t < N_POS; t += n_chunk) {
        size_t n = N_POS - t < n_chunk ? N_POS - t : n_chunk;
        struct apr_attn_span span = {.cache = &r->cache, .row0 = t, .pos0 = t, .n_toks = n};
        assert_int_equal(apr_attention_room(&room, &c, &r->shape, t + n, &e), APR_OK);
        apr_attention(&room, &c, &r->shape, &(struct apr_attn_call){LAYER, window, &span, 1, r->q, r->out});
    }
    apr_arena_free(&arena);
    apr_pool_close(pool);
}

static void run(struct room *r, size_t window, unsigned n_threads, size_t n_chunk)
{
    run_wide(r, window, n_threads, n_chunk, 0);
}

static void equals_plain_loops(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_TYPES * N_CASES; i++) {
        const size_t i_case = i / N_TYPES;
        const enum apr_type type = types[i % N_TYPES];
        struct room r;
        struct apr_arena arena;
        double worst = 0;
        if (!is_possible(i_case, type)) continue;
        apr_arena_init(&arena);
        fill(&r, i_case, type, &arena);
        reference(&r, cases[i_case].window);
        run(&r, cases[i_case].window, 2, N_POS);
        for (size_t k = 0; k < N_POS * r.shape.n_heads * r.shape.v_dim; k++)
            worst = fmax(worst, fabs((double)r.out[k] - r.want[k]));
        if (worst > 1e-5) fail_msg("case %zu, %s: %g", i_case, apr_type_name(type), worst);
        apr_cache_free(&r.cache);
        apr_blocks_free(&r.blocks);
        apr_arena_free(&arena);
    }
}

static void bits_do_not_depend_on_the_split(void **state)
{
    (void)state;
    static const struct {
        unsigned n_threads;
        size_t n_chunk, n_pos_wide; /* from n_pos_wide on, threads share tiles */
    } how[] = {{1, 1, 0},     {2, 1, 0}, {1, 7, 0},  {3, 8, 0},   {2, 16, 0}, {2, 29, 0},
               {5, N_POS, 0}, {5, 1, 1}, {16, 1, 1}, {16, 5, 17}, {16, 8, 1}, {9, 13, 40}};
    for (size_t i = 0; i < N_TYPES * N_CASES; i++) {
        const size_t i_case = i / N_TYPES;
        struct room r;
        struct apr_arena arena;
        if (!is_possible(i_case, types[i % N_TYPES])) continue;
        apr_arena_init(&arena);
        fill(&r, i_case, types[i % N_TYPES], &arena);
        size_t n_bytes = N_POS * r.shape.n_heads * r.shape.v_dim * sizeof *r.out;
        run(&r, cases[i_case].window, 1, N_POS);
        float *want = apr_arena_get(&arena, n_bytes);
        memcpy(want, r.out, n_bytes);
        for (size_t j = 0; j < sizeof how / sizeof how[0]; j++) {
            memset(r.out, 0xff, n_bytes);
            run_wide(&r, cases[i_case].window, how[j].n_threads, how[j].n_chunk, how[j].n_pos_wide);
            if (memcmp(want, r.out, n_bytes) != 0) fail_msg("case %zu, way %zu", i_case, j);
        }
        apr_cache_free(&r.cache);
        apr_blocks_free(&r.blocks);
        apr_arena_free(&arena);
    }
}

/* What a token does not see may be anything: infinities after it and before its window leave no trace. */
static void the_unseen_does_not_matter(void **state)
{
    (void)state;
    struct room r;
    struct apr_arena arena;
    const size_t i_case = 4, window = 15, t = 40; /* sees 26 .. 40 */
    apr_arena_init(&arena);
    fill(&r, i_case, APR_F32, &arena);
    run(&r, window, 1, N_POS);
    size_t n = (size_t)r.shape.n_heads * r.shape.v_dim;
    float *want = apr_arena_get(&arena, n * sizeof *want), bad[16];
    memcpy(want, r.out + t * n, n * sizeof *want);
    for (size_t d = 0; d < 16; d++) bad[d] = d % 2 ? INFINITY : NAN;
    for (size_t p = 0; p < N_POS; p++)
        for (uint32_t h = 0; h < r.shape.n_heads_kv && (p < 26 || p > 40); h++) {
            store(&r.cache, APR_CACHE_K, h, p, bad, 16);
            store(&r.cache, APR_CACHE_V, h, p, bad, 16);
        }
    run(&r, window, 2, 16);
    assert_memory_equal(want, r.out + t * n, n * sizeof *want);
    apr_cache_free(&r.cache);
    apr_blocks_free(&r.blocks);
    apr_arena_free(&arena);
}

/* Attention of the last N_LAST of N_LONG tokens, n_chunk at a time, into out. */
#define N_LONG     517u /* three blocks of positions, two banks of pages */
#define N_LAST     9u   /* some of them in the last block but one */
#define LONG_HEADS 6u   /* in two groups */
#define LONG_DIM   32u
static void attend_last(const struct apr_cache *c, const struct apr_attn_shape *shape, size_t window,
                        unsigned n_threads, size_t n_chunk, const float *q, float *out)
{
    struct apr_compute compute = {.pool = apr_pool_open(n_threads)};
    struct apr_err e = {0};
    struct apr_arena arena;
    apr_arena_init(&arena);
    assert_int_equal(apr_kern_pick(&compute.kern, &e), APR_OK);
    struct apr_attn_room room = {.arena = &arena};
    assert_int_equal(apr_attention_room(&room, &compute, shape, N_LONG, &e), APR_OK);
    for (size_t t = 0; t < N_LAST; t += n_chunk) {
        size_t n = N_LAST - t < n_chunk ? N_LAST - t : n_chunk;
        struct apr_attn_span span = {.cache = c, .pos0 = N_LONG - N_LAST + t, .n_toks = n};
        const struct apr_attn_call call = {
            LAYER, window, &span, 1, q + t * LONG_HEADS * LONG_DIM, out + t * LONG_HEADS * LONG_DIM};
        apr_attention(&room, &compute, shape, &call);
    }
    apr_pool_close(compute.pool);
    apr_arena_free(&arena);
}

/* The furthest that out is from plain loops in double. kv: [part][N_LONG][2][LONG_DIM] */
static double furthest(const struct apr_attn_shape *shape, size_t window, const float *q, const float *kv,
                       const float *out)
{
    double worst = 0, p[N_LONG];
    const float *v = kv + (size_t)N_LONG * 2 * LONG_DIM;
    for (size_t r = 0; r < (size_t)N_LAST * LONG_HEADS; r++) {
        size_t pos = N_LONG - N_LAST + r / LONG_HEADS, i_kv = r % LONG_HEADS / 3;
        size_t first = window && pos + 1 > window ? pos + 1 - window : 0;
        double max = -INFINITY, sum = 0;
        for (size_t i = first; i <= pos; i++) {
            p[i] = 0;
            for (size_t d = 0; d < LONG_DIM; d++)
                p[i] += (double)q[r * LONG_DIM + d] * (double)kv[(i * 2 + i_kv) * LONG_DIM + d];
            max = fmax(max, p[i] *= (double)shape->scale);
        }
        for (size_t i = first; i <= pos; i++) sum += p[i] = exp(p[i] - max);
        for (size_t d = 0; d < LONG_DIM; d++) {
            double y = 0;
            for (size_t i = first; i <= pos; i++) y += p[i] / sum * (double)v[(i * 2 + i_kv) * LONG_DIM + d];
            worst = fmax(worst, fabs(y - (double)out[r * LONG_DIM + d]));
        }
    }
    return worst;
}

/* Sequences that grow by turns have every other block of a bank; one alone has them side by side. kv becomes
 * what the cache made of it. */
static void grow_by_turns(struct apr_cache *c, float *kv)
{
    struct apr_err e = {0};
    float same[LONG_DIM];
    for (size_t pos = 0; pos < N_LONG; pos++) {
        for (size_t k = 0; k < 3; k++) assert_int_equal(apr_cache_reserve(&c[k], pos + 1, &e), APR_OK);
        for (uint32_t h = 0; h < 2; h++)
            for (size_t part = 0; part < 2; part++) {
                float *x = kv + ((part * N_LONG + pos) * 2 + h) * LONG_DIM;
                memcpy(same, x, sizeof same);
                store(&c[0], (enum apr_cache_part)part, h, pos, x, LONG_DIM);
                store(&c[2], (enum apr_cache_part)part, h, pos, same, LONG_DIM);
            }
    }
    assert_int_equal(apr_cache_run(&c[0], LAYER, 0, 4), 1);
    assert_int_equal(apr_cache_run(&c[2], LAYER, 1, 4), 4);
    assert_int_equal(apr_cache_run(&c[2], LAYER, 14, 4), 2); /* to the end of the first bank */
}

/* Several blocks of positions, wherever their pages are and whoever computes them. */
static void long_sequences_in_any_pages(void **state)
{
    (void)state;
    static const size_t windows[] = {0, 1, 100, 256, 300};
    const struct apr_config cfg = {
        .n_layers = 2, .n_heads = LONG_HEADS, .n_heads_kv = 2, .head_dim = LONG_DIM};
    const struct apr_attn_shape shape = apr_attn_shape_of(&cfg);
    for (size_t i = 0; i < N_TYPES; i++) {
        const struct apr_page_type *t = apr_page_type_of(types[i]);
        const struct apr_cache_types both = {{t, t}};
        struct apr_blocks blocks, other;
        struct apr_cache c[3]; /* two by turns, one alone */
        struct apr_err e = {0};
        struct apr_arena arena;
        uint64_t seed = 3;
        apr_arena_init(&arena);
        assert_int_equal(apr_blocks_init(&blocks, &cfg, both, 2 * N_LONG + 16, &e), APR_OK);
        assert_int_equal(apr_blocks_init(&other, &cfg, both, N_LONG, &e), APR_OK);
        for (size_t k = 0; k < 3; k++)
            assert_int_equal(apr_cache_init(&c[k], k < 2 ? &blocks : &other, N_LONG, &e), APR_OK);
        float *kv = floats(&arena, (size_t)2 * N_LONG * 2 * LONG_DIM, &seed);
        float *q = floats(&arena, (size_t)N_LAST * LONG_HEADS * LONG_DIM, &seed);
        float want[N_LAST * LONG_HEADS * LONG_DIM], got[N_LAST * LONG_HEADS * LONG_DIM];
        grow_by_turns(c, kv);
        for (size_t w = 0; w < sizeof windows / sizeof *windows; w++) {
            attend_last(&c[2], &shape, windows[w], 1, N_LAST, q, want);
            assert_true(furthest(&shape, windows[w], q, kv, want) < 1e-5);
            for (unsigned n_threads = 1; n_threads <= 16; n_threads += 5)
                for (size_t k = 0; k < 6; k++) {
                    memset(got, 0xff, sizeof got);
                    attend_last(&c[k % 2 * 2], &shape, windows[w], n_threads, 1 + 4 * (k / 2), q, got);
                    assert_memory_equal(want, got, sizeof want);
                }
        }
        for (size_t k = 0; k < 3; k++) apr_cache_free(&c[k]);
        apr_blocks_free(&blocks);
        apr_blocks_free(&other);
        apr_arena_free(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_plain_loops),
        cmocka_unit_test(bits_do_not_depend_on_the_split),
        cmocka_unit_test(the_unseen_does_not_matter),
        cmocka_unit_test(long_sequences_in_any_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

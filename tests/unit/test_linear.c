/* Many maps in one parallel region, columns and rows of activations, gates: each as one product alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../tools/apr-infer/linear.h"

#define N_COLS 256u
#define N_ROWS 37u
#define N_TOKS 11u
#define N_MATS 5u

struct set {
    struct apr_arena arena;
    struct apr_compute c;
    struct apr_mat mats[N_MATS];
    struct apr_acts x; /* [N_TOKS, 2 * N_COLS] */
    float *bias;
};

static float noise(void)
{
    static uint64_t seed = 5;
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(seed >> 40) / (float)(1 << 23) - 1.0f;
}

static void open_set(struct set *s, enum apr_type type, bool exact, unsigned n_threads)
{
    struct apr_err e = {0};
    const struct apr_quant *q = apr_quant_of(type);
    float row[N_COLS];
    *s = (struct set){.c = {.pool = apr_pool_open(n_threads), .exact = exact}};
    apr_arena_init(&s->arena);
    assert_int_equal(apr_kern_pick(&s->c.kern, &e), APR_OK);
    s->c.scratch_bytes = (apr_kern_scratch_bytes(2 * N_COLS) + 63) / 64 * 64;
    s->c.scratch = apr_arena_get(&s->arena, s->c.scratch_bytes * n_threads);
    s->bias = apr_arena_get(&s->arena, N_ROWS * sizeof *s->bias);
    for (size_t i = 0; i < N_ROWS; i++) s->bias[i] = noise();
    for (size_t m = 0; m < N_MATS; m++) {
        size_t row_bytes = N_COLS / q->block_elems * q->block_bytes;
        uint8_t *data = apr_arena_get(&s->arena, N_ROWS * row_bytes);
        for (size_t r = 0; r < N_ROWS; r++) {
            for (size_t i = 0; i < N_COLS; i++) row[i] = noise() / 8;
            q->from_f32(row, data + r * row_bytes, N_COLS, NULL);
        }
        s->mats[m] = (struct apr_mat){.data = data,
                                      .mm = &s->c.kern->matmul[type],
                                      .type = type,
                                      .n_rows = N_ROWS,
                                      .n_cols = N_COLS,
                                      .row_bytes = row_bytes,
                                      .bias = m % 2 ? s->bias : NULL};
    }
    assert_int_equal(apr_acts_alloc(&s->x, N_TOKS, 2 * N_COLS, exact, &s->arena, &e), APR_OK);
    s->x.n_toks = N_TOKS;
    for (size_t i = 0; i < N_TOKS * 2 * N_COLS; i++) s->x.f32[i] = noise();
    for (size_t t = 0; t < N_TOKS; t++) apr_acts_pack(&s->c, &s->x, apr_mat_wants(&s->mats[0], exact), t);
}

static void close_set(struct set *s)
{
    apr_pool_close(s->c.pool);
    apr_arena_free(&s->arena);
}

/* y = W x of one row of f32 activations, by the kernel alone. */
static void alone(struct set *s, const struct apr_mat *w, const float *x, float *y)
{
    struct apr_err e = {0};
    struct apr_acts one;
    assert_int_equal(apr_acts_alloc(&one, 1, N_COLS, s->c.exact, &s->arena, &e), APR_OK);
    one.n_toks = 1;
    memcpy(one.f32, x, N_COLS * sizeof *x);
    apr_acts_pack(&s->c, &one, apr_mat_wants(w, s->c.exact), 0);
    apr_linear(&s->c, &one, &(struct apr_product){w, y}, 1);
}

static const enum apr_type types[] = {APR_F32, APR_BF16, APR_Q8_0, APR_Q4_K};
#define N_WAYS (2 * sizeof types / sizeof types[0])

/* Maps over columns and rows of one input, outputs side by side as heads are. */
static void maps_equal_products(void **state)
{
    (void)state;
    static float y[N_TOKS * N_MATS * N_ROWS], want[N_ROWS];
    for (size_t way = 0; way < N_WAYS; way++) {
        struct set s;
        struct apr_acts views[N_MATS];
        struct apr_map maps[N_MATS] = {0};
        open_set(&s, types[way / 2], way % 2, 3);
        for (size_t m = 0; m < N_MATS; m++) {
            struct apr_acts rows = apr_acts_rows(&s.x, m, N_TOKS - m);
            views[m] = apr_acts_cols(&rows, m % 2 * N_COLS, N_COLS);
            maps[m] = (struct apr_map){
                .w = &s.mats[m], .x = &views[m], .y = y + m * N_ROWS, .y_stride = N_MATS * N_ROWS};
        }
        apr_linear_each(&s.c, maps, N_MATS);
        for (size_t m = 0; m < N_MATS; m++)
            for (size_t t = 0; t < N_TOKS - m; t++) {
                alone(&s, &s.mats[m], s.x.f32 + (m + t) * 2 * N_COLS + m % 2 * N_COLS, want);
                assert_memory_equal(want, y + (t * N_MATS + m) * N_ROWS, sizeof want);
            }
        close_set(&s);
    }
}

/* [N_TOKS, N_ROWS]: how often a row was handed out, and what it was then. */
struct seen {
    uint8_t n[N_TOKS * N_ROWS];
    float y[N_TOKS * N_ROWS];
};

static void see_rows(void *ctx, size_t i_tok, size_t row0, float *y, size_t n)
{
    struct seen *s = ctx;
    for (size_t i = i_tok * N_ROWS + row0; n--; i++, y++) {
        s->n[i]++;
        s->y[i] = *y;
        *y = -*y;
    }
}

/* Every row of every token is handed out once, computed, and what is made of it stays. */
static void rows_are_seen_once(void **state)
{
    (void)state;
    static float y[N_TOKS * N_ROWS], want[N_TOKS * N_ROWS];
    for (unsigned n_threads = 1; n_threads < 6; n_threads++) {
        struct set s;
        struct seen seen = {0};
        open_set(&s, APR_Q8_0, false, n_threads);
        struct apr_acts x = apr_acts_cols(&s.x, 0, N_COLS);
        struct apr_map map = {.w = &s.mats[0], .x = &x, .y = want};
        apr_linear_each(&s.c, &map, 1);
        map = (struct apr_map){.w = &s.mats[0], .x = &x, .y = y, .then = see_rows, .then_ctx = &seen};
        s.c.next = (struct apr_next){{&s.mats[1], &s.mats[2]}, 2};
        apr_linear_each(&s.c, &map, 1);
        assert_memory_equal(seen.y, want, sizeof want);
        for (size_t i = 0; i < N_TOKS * N_ROWS; i++) {
            assert_int_equal(seen.n[i], 1);
            assert_true(y[i] == -want[i]);
        }
        close_set(&s);
    }
}

static void gates_equal_their_steps(void **state)
{
    (void)state;
    static float y[N_TOKS * N_ROWS], gate[N_TOKS * N_ROWS], w[N_ROWS], g[N_ROWS];
    for (unsigned a = APR_SILU; a <= APR_RELU; a++)
        for (size_t i = 0; i < 4; i++) { /* with and without gate, with and without biases */
            struct set s;
            open_set(&s, APR_BF16, false, 2);
            struct apr_acts x = apr_acts_cols(&s.x, 0, N_COLS);
            struct apr_map map = {.w = &s.mats[i % 2], .x = &x, .y = y};
            if (i / 2) {
                map.gate = &s.mats[2 + i % 2];
                map.gate_y = gate;
            }
            apr_linear_act(&s.c, &map, 1, (enum apr_activation)a);
            for (size_t t = 0; t < N_TOKS; t++) {
                alone(&s, map.w, s.x.f32 + t * 2 * N_COLS, w);
                if (map.w->bias) s.c.kern->add(w, map.w->bias, N_ROWS);
                if (map.gate) {
                    alone(&s, map.gate, s.x.f32 + t * 2 * N_COLS, g);
                    if (map.gate->bias) s.c.kern->add(g, map.gate->bias, N_ROWS);
                    apr_activate(s.c.kern, (enum apr_activation)a, g, g, N_ROWS);
                    s.c.kern->mul(w, g, N_ROWS);
                } else {
                    apr_activate(s.c.kern, (enum apr_activation)a, w, w, N_ROWS);
                }
                for (size_t r = 0; r < N_ROWS; r++)
                    assert_true(fabsf(w[r] - y[t * N_ROWS + r]) <= 1e-6f * fabsf(w[r]));
            }
            close_set(&s);
        }
}

static void copies_keep_every_layout(void **state)
{
    (void)state;
    struct set s;
    struct apr_acts to;
    struct apr_err e = {0};
    open_set(&s, APR_Q8_0, false, 1);
    unsigned all = 1u << APR_ACT_F32 | 1u << APR_ACT_Q8_32 | 1u << APR_ACT_Q8_256;
    if (s.c.kern->split_bf16) all |= 1u << APR_ACT_SPLIT;
    for (size_t t = 0; t < N_TOKS; t++) apr_acts_pack(&s.c, &s.x, all, t);
    assert_int_equal(apr_acts_alloc(&to, 3, 2 * N_COLS, false, &s.arena, &e), APR_OK);
    apr_acts_copy(&to, 2, &s.x, 7, all);
    assert_memory_equal(to.f32 + 2 * 2 * N_COLS, s.x.f32 + 7 * 2 * N_COLS, 2 * N_COLS * sizeof(float));
    assert_memory_equal(to.q32 + 2 * 2 * N_COLS / 32, s.x.q32 + 7 * 2 * N_COLS / 32,
                        2 * N_COLS / 32 * sizeof *to.q32);
    assert_memory_equal(to.q256 + 2 * 2 * N_COLS / 256, s.x.q256 + 7 * 2 * N_COLS / 256,
                        2 * N_COLS / 256 * sizeof *to.q256);
    if (s.c.kern->split_bf16)
        assert_memory_equal(to.split + 2 * 4 * N_COLS, s.x.split + 7 * 4 * N_COLS,
                            4 * N_COLS * sizeof *to.split);
    close_set(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(maps_equal_products),
        cmocka_unit_test(rows_are_seen_once),
        cmocka_unit_test(gates_equal_their_steps),
        cmocka_unit_test(copies_keep_every_layout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

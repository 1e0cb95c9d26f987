/* Strips: every table makes the scalar one's bytes from rows, and computes from them the bits that the scalar
 * table computes from the rows. */
#include "kern_data.h"

#include "kern/strips.h"

#define MAX_COLS 1280
#define MAX_ROWS 160
#define MAX_TOKS 17

static uint8_t random_byte(void)
{
    return (uint8_t)(kern_data_u32() >> 13);
}
static float random_d(void)
{
    return kern_data_f32(0.5f);
}
static uint8_t all_ones(void)
{
    return 0xff;
}
static uint8_t top_bit(void)
{
    return 0x80;
}
static float one(void)
{
    return 1.0f;
}

static uint8_t *w_end, *x_end, *strips_end; /* guard pages */
static float *x;                            /* [MAX_TOKS, MAX_COLS] */
static void *scratch;

static int make_buffers(void **state)
{
    (void)state;
    size_t w_bytes = (size_t)MAX_ROWS * MAX_COLS * 2, x_bytes = (size_t)MAX_TOKS * MAX_COLS * 4;
    w_end = (uint8_t *)kern_data_guarded(w_bytes) + w_bytes;
    strips_end = (uint8_t *)kern_data_guarded(w_bytes) + w_bytes;
    x_end = (uint8_t *)kern_data_guarded(x_bytes) + x_bytes;
    x = kern_data_guarded((size_t)MAX_TOKS * MAX_COLS * sizeof *x);
    scratch = kern_data_guarded((apr_kern_scratch_bytes(MAX_COLS) + 63) / 64 * 64);
    return 0;
}

struct problem {
    const struct kern_data_type *t;
    size_t n_cols, n_rows, n_toks;
    size_t row_bytes, act_bytes;
    uint8_t *w, *x;
    uint8_t *strips; /* made by the scalar table */
};

static const struct apr_matmul *row_of(const struct apr_kern *k, const struct problem *p)
{
    return &k->matmul[p->t->type];
}

/* Every buffer ends where a page ends that nobody may touch. */
static struct problem problem(const struct kern_data_type *t, size_t n_cols, size_t n_rows, size_t n_toks,
                              uint8_t (*byte_of)(void), float (*d_of)(void))
{
    struct problem p = {.t = t, .n_cols = n_cols, .n_rows = n_rows, .n_toks = n_toks};
    const struct apr_matmul *m = &apr_kern_scalar.matmul[t->type];
    p.row_bytes = kern_data_row_bytes(t->type, n_cols);
    p.act_bytes = kern_data_act_bytes(m->act, n_cols);
    p.w = w_end - n_rows * p.row_bytes;
    p.x = x_end - n_toks * p.act_bytes;
    /* strips are aligned to 64, so there may be 32 bytes between their end and the page's */
    p.strips = strips_end - (n_rows * p.row_bytes + 63) / 64 * 64;
    for (size_t r = 0; r < n_rows; r++) kern_data_row(t, p.w + r * p.row_bytes, n_cols, byte_of, d_of);
    for (size_t i = 0; i < n_toks; i++)
        kern_data_act(m->act, x + i * MAX_COLS, p.x + i * p.act_bytes, n_cols);
    m->to_strips(p.w, p.row_bytes, n_rows, n_cols, p.strips);
    return p;
}

static void expect_same_bytes(const struct problem *p)
{
    static _Alignas(64) uint8_t got[(size_t)MAX_ROWS * MAX_COLS * 2];
    const struct apr_kern *k;
    for (size_t i = 1; (k = apr_kern_at(i)) != NULL; i++) {
        memset(got, 0x5a, sizeof got);
        row_of(k, p)->to_strips(p->w, p->row_bytes, p->n_rows, p->n_cols, got);
        if (memcmp(got, p->strips, p->n_rows * p->row_bytes) != 0 || got[p->n_rows * p->row_bytes] != 0x5a)
            fail_msg("%s %s: strips of %zu rows of %zu differ from scalar", k->name,
                     apr_type_name(p->t->type), p->n_rows, p->n_cols);
    }
}

/* y has a column and a row of guards: a kernel writes its rows and nothing else. */
static void expect_same_products(const struct problem *p)
{
    enum { N = (MAX_TOKS + 1) * (MAX_ROWS + 1) };
    static float want[N], got[N];
    const struct apr_kern *k;
    for (size_t i = 0; i < N; i++) want[i] = -12345;
    row_of(&apr_kern_scalar, p)
        ->fast(p->w, p->row_bytes, p->n_rows, p->n_cols, p->x, p->act_bytes, p->n_toks, want, p->n_rows + 1,
               scratch);
    for (size_t i = 0; (k = apr_kern_at(i)) != NULL; i++) {
        for (size_t j = 0; j < N; j++) got[j] = -12345;
        row_of(k, p)->strips(p->strips, p->row_bytes, p->n_rows, p->n_cols, p->x, p->act_bytes, p->n_toks,
                             got, p->n_rows + 1, scratch);
        if (!kern_data_same(want, got, N))
            fail_msg("%s %s: %zu columns, %zu rows, %zu tokens from strips differ from scalar rows", k->name,
                     apr_type_name(p->t->type), p->n_cols, p->n_rows, p->n_toks);
    }
}

static void random_x(void)
{
    for (size_t i = 0; i < (size_t)MAX_TOKS * MAX_COLS; i++) x[i] = kern_data_f32(i % 7 == 0 ? 30.0f : 1.0f);
}

static void every_shape(void **state)
{
    (void)state;
    size_t n_types = 0;
    random_x();
    for (size_t i = 0; i < KERN_DATA_N_TYPES; i++) {
        const struct kern_data_type *t = &kern_data_types[i];
        if (!apr_kern_scalar.matmul[t->type].to_strips) continue;
        const size_t n_block = apr_quant_of(t->type)->block_elems;
        const size_t cols[] = {n_block, 3 * n_block, 5 * n_block};
        n_types++;
        for (size_t c = 0; c < sizeof cols / sizeof *cols; c++) {
            for (size_t n_rows = 16; n_rows <= 48; n_rows += 16) {
                for (size_t n_toks = 1; n_toks <= MAX_TOKS; n_toks++) {
                    struct problem p = problem(t, cols[c], n_rows, n_toks, random_byte, random_d);
                    if (n_toks == 1) expect_same_bytes(&p);
                    expect_same_products(&p);
                }
            }
        }
    }
    assert_int_equal(n_types, 10);
}

/* More rows and columns than a kernel takes at a time. */
static void several_pieces(void **state)
{
    (void)state;
    static const size_t toks[] = {2, 3, 8, 9, MAX_TOKS};
    random_x();
    for (size_t i = 0; i < KERN_DATA_N_TYPES; i++) {
        const struct kern_data_type *t = &kern_data_types[i];
        if (!apr_kern_scalar.matmul[t->type].to_strips) continue;
        size_t n_cols = MAX_COLS - apr_quant_of(t->type)->block_elems;
        for (size_t j = 0; j < sizeof toks / sizeof *toks; j++) {
            struct problem p = problem(t, n_cols, MAX_ROWS, toks[j], random_byte, random_d);
            expect_same_products(&p);
        }
    }
}

/* All quants at their largest and smallest against activations of +-127: every partial sum that a kernel
 * keeps in few bits is as large as it can be. */
static void extremes(void **state)
{
    (void)state;
    static uint8_t (*const bytes[])(void) = {all_ones, top_bit};
    for (size_t i = 0; i < KERN_DATA_N_TYPES; i++) {
        const struct kern_data_type *t = &kern_data_types[i];
        if (!apr_kern_scalar.matmul[t->type].to_strips) continue;
        for (int sign = 0; sign < 3; sign++) {
            for (size_t j = 0; j < (size_t)MAX_TOKS * MAX_COLS; j++)
                x[j] = sign == 2 ? (j % 2 ? 1.0f : -1.0f) : sign ? -1.0f : 1.0f;
            for (size_t b = 0; b < sizeof bytes / sizeof *bytes; b++) {
                struct problem p = problem(t, 1280, 16, 15, bytes[b], one);
                expect_same_products(&p);
            }
        }
    }
}

/* Largest quants with the most negative scale, where a type has signed scales. */
static void extreme_scales(void **state)
{
    (void)state;
    for (size_t j = 0; j < (size_t)MAX_TOKS * MAX_COLS; j++) x[j] = 1.0f;
    for (int scale = -128; scale < 128; scale += 255) {
        struct problem p =
            problem(&(const struct kern_data_type){APR_Q6_K, offsetof(struct apr_block_q6_k, d), -1}, 1280,
                    16, 9, all_ones, one);
        for (size_t i = 0; i < 16 * 5; i++) {
            struct apr_block_q6_k *b = (struct apr_block_q6_k *)(void *)p.w + i;
            memset(b->scales, scale, sizeof b->scales);
        }
        row_of(&apr_kern_scalar, &p)->to_strips(p.w, p.row_bytes, p.n_rows, p.n_cols, p.strips);
        expect_same_products(&p);
    }
}

/* What a strip says of a row is that row. */
static void round_trip(void **state)
{
    (void)state;
    for (size_t i = 0; i < KERN_DATA_N_TYPES; i++) {
        const struct kern_data_type *t = &kern_data_types[i];
        const struct apr_strip_plan *plan = apr_strip_plan_of(t->type);
        assert_int_equal(plan != NULL, apr_kern_scalar.matmul[t->type].to_strips != NULL);
        if (!plan) continue;
        const struct apr_quant *q = apr_quant_of(t->type);
        assert_int_equal(plan->block_bytes, q->block_bytes);
        assert_int_equal(2 * plan->n_halves + 4 * plan->n_words, q->block_bytes);
        struct problem p = problem(t, 3 * q->block_elems, 16, 1, random_byte, random_d);
        for (size_t b = 0; b < 3 * 16; b++) {
            uint8_t block[256] = {0};
            apr_strip_read(plan, p.strips + b / 16 * 16 * q->block_bytes, b % 16, block);
            assert_memory_equal(block, p.w + b % 16 * p.row_bytes + b / 16 * q->block_bytes, q->block_bytes);
        }
    }
}

/* Bit 4 i + b stands in bit i of byte b. */
static void fifth_bits(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 8; i++)
        for (unsigned b = 0; b < 4; b++)
            assert_int_equal(apr_strip_fifths(1U << (4 * i + b)), 1U << (8 * b + i));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fifth_bits),     cmocka_unit_test(round_trip), cmocka_unit_test(every_shape),
        cmocka_unit_test(extreme_scales), cmocka_unit_test(extremes),   cmocka_unit_test(several_pieces),
    };
    return cmocka_run_group_tests(tests, make_buffers, NULL);
}

/* Bounds of tensors hold against their statistics, whatever the blocks are; a tensor that surely passes does.
 */
#include "kern_data.h"

#include "contract_bounds.h"

#define MAX_ELEMS ((size_t)536 * 256) /* more than a task takes */

static uint8_t any(void)
{
    return (uint8_t)(kern_data_u32() >> 13);
}
/* Mostly the byte of a zero in one of the types. */
static uint8_t mostly_zero(void)
{
    return kern_data_u32() % 8 ? 0 : any();
}
static uint8_t mostly_eights(void)
{
    return kern_data_u32() % 8 ? 0x88 : any();
}
static float small(void)
{
    return kern_data_f32(0.01f);
}
static float tiny(void)
{
    return (float)(kern_data_u32() % 4) * 0x1p-24f;
}
static float one(void)
{
    return 1;
}

static struct apr_pool *pool;
static uint8_t *data;
static float *x;

static int setup(void **state)
{
    (void)state;
    pool = apr_pool_open(3);
    data = kern_data_guarded(MAX_ELEMS * sizeof(float));
    x = kern_data_guarded(MAX_ELEMS * sizeof *x);
    return pool ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    apr_pool_close(pool);
    return 0;
}

/* A matrix of 256 columns that ends where nobody may read on. */
static struct apr_tensor tensor_of(const struct kern_data_type *t, size_t n_elems, uint8_t (*byte_of)(void),
                                   float (*d_of)(void))
{
    size_t n_bytes = kern_data_row_bytes(t->type, n_elems);
    uint8_t *at = data + MAX_ELEMS * sizeof(float) - n_bytes;
    kern_data_row(t, at, n_elems, byte_of, d_of);
    return (struct apr_tensor){.name = "blk.0.ffn_up.weight",
                               .type = t->type,
                               .packing = APR_ROWS,
                               .n_dims = 2,
                               .dims = {n_elems / 256, 256},
                               .n_bytes = n_bytes,
                               .data = at};
}

static struct apr_stats stats_of(const struct apr_tensor *t, size_t n)
{
    struct apr_stats s;
    apr_stats_init(&s);
    apr_kern_scalar.to_f32[t->type](t->data, x, n);
    apr_kern_scalar.stats(x, n, &s);
    return s;
}

static void expect_bounds(const struct apr_tensor *t, size_t n)
{
    const struct apr_stats s = stats_of(t, n);
    struct apr_bounds b;
    const char *name = apr_type_name(t->type);
    struct apr_arena arena;
    struct apr_verdict v;
    if (!apr_bounds_of(t, &apr_kern_scalar, pool, &b)) fail_msg("%s: no bounds", name);
    assert_int_equal(b.n, n);
    if (s.n_zero > b.n_zero_most)
        fail_msg("%s: %lu zeros, at most %lu", name, (unsigned long)s.n_zero, (unsigned long)b.n_zero_most);
    if (s.n_nan + s.n_inf > 0) {
        assert_true(b.abs_most >= INFINITY);
    } else if (fmax((double)s.max, -(double)s.min) > b.abs_most) {
        fail_msg("%s: values are %g .. %g, at most %g", name, (double)s.min, (double)s.max, b.abs_most);
    }
    assert_true(isnan(b.l2_least) || sqrt(s.sum_sq) >= b.l2_least * (1 - 1e-12));
    assert_true((double)s.max - (double)s.min >= b.range_least);
    if (!apr_contract_surely(t, &b)) return;
    apr_arena_init(&arena);
    apr_verdict_init(&v, &arena);
    apr_contract_tensor(NULL, t, &s, &v);
    assert_int_equal(v.n, 0);
    apr_arena_free(&arena);
}

static const struct kern_data_type *row_of(enum apr_type type)
{
    for (size_t i = 0; i < KERN_DATA_N_TYPES; i++)
        if (kern_data_types[i].type == type) return &kern_data_types[i];
    return NULL;
}

static const enum apr_type types[] = {APR_F16, APR_BF16, APR_Q4_0, APR_Q8_0, APR_Q4_K, APR_Q5_K, APR_Q6_K};
#define N_TYPES (sizeof types / sizeof *types)

static void random_blocks(void **state)
{
    (void)state;
    static uint8_t (*const bytes[])(void) = {any, mostly_zero, mostly_eights};
    static float (*const ds[])(void) = {small, tiny, one};
    static const size_t sizes[] = {4096, 4096 + 256, MAX_ELEMS};
    for (size_t i = 0; i < N_TYPES * 27; i++) {
        size_t n = sizes[i % 3];
        struct apr_tensor t = tensor_of(row_of(types[i / 27]), n, bytes[i / 3 % 3], ds[i / 9 % 3]);
        expect_bounds(&t, n);
    }
}

/* What the rules let pass is sure to, but for rare cases: else the bounds would be of no use. */
static void usual_weights_are_sure(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_TYPES; i++) {
        struct apr_bounds b;
        struct apr_tensor t = tensor_of(row_of(types[i]), MAX_ELEMS, any, small);
        if (apr_quant_of(types[i])->block_elems == 1) { /* random bits are no weights */
            for (size_t j = 0; j < MAX_ELEMS; j++) {
                uint16_t v = types[i] == APR_F16 ? apr_f32_to_f16(small()) : apr_f32_to_bf16(small());
                memcpy((uint8_t *)(uintptr_t)t.data + 2 * j, &v, sizeof v);
            }
        }
        assert_true(apr_bounds_of(&t, &apr_kern_scalar, pool, &b));
        if (!apr_contract_surely(&t, &b)) fail_msg("%s: not sure", apr_type_name(types[i]));
        assert_true(b.n_zero_most < b.n / 4);
    }
}

/* One scale that is no number, first, in the middle or last. */
static void one_bad_scale(void **state)
{
    (void)state;
    static const uint16_t halves[] = {0x7c00, 0xfc00, 0x7e01, 0xffff};
    for (size_t i = 0; i < N_TYPES * 3 * 4; i++) {
        const struct kern_data_type *k = row_of(types[i / 12]);
        const struct apr_quant *q = apr_quant_of(k->type);
        const size_t n_blocks = MAX_ELEMS / q->block_elems, at[] = {0, n_blocks / 2 + 1, n_blocks - 1};
        struct apr_tensor t = tensor_of(k, MAX_ELEMS, mostly_zero, small);
        uint8_t *block = (uint8_t *)(uintptr_t)t.data + at[i % 3] * q->block_bytes;
        uint16_t bad = k->type == APR_BF16 ? (uint16_t)(halves[i / 3 % 4] | 0x7f80U) : halves[i / 3 % 4];
        struct apr_bounds b;
        memcpy(block + (k->off_d < 0 ? 0 : k->off_d), &bad, sizeof bad);
        assert_true(apr_bounds_of(&t, &apr_kern_scalar, pool, &b));
        assert_true(b.abs_most >= INFINITY);
        assert_false(apr_contract_surely(&t, &b));
        if (k->off_dmin < 0) continue;
        t = tensor_of(k, MAX_ELEMS, mostly_zero, small);
        memcpy(block + k->off_dmin, &bad, sizeof bad);
        assert_true(apr_bounds_of(&t, &apr_kern_scalar, pool, &b));
        assert_true(b.abs_most >= INFINITY);
    }
}

/* Other forms and sizes are left to the statistics. */
static void others_have_none(void **state)
{
    (void)state;
    struct apr_bounds b;
    struct apr_tensor t = tensor_of(row_of(APR_Q8_0), 4096, any, small);
    assert_true(apr_bounds_of(&t, &apr_kern_scalar, pool, &b));
    t.n_bytes--;
    assert_false(apr_bounds_of(&t, &apr_kern_scalar, pool, &b));
    t.n_bytes++;
    t.packing = APR_ROWS_PADDED;
    assert_false(apr_bounds_of(&t, &apr_kern_scalar, pool, &b));
    t = tensor_of(row_of(APR_Q8_0), 4096 - 256, any, small);
    assert_false(apr_bounds_of(&t, &apr_kern_scalar, pool, &b));
    t = tensor_of(row_of(APR_F32), 4096, any, small);
    assert_false(apr_bounds_of(&t, &apr_kern_scalar, pool, &b));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_blocks),
        cmocka_unit_test(usual_weights_are_sure),
        cmocka_unit_test(one_bad_scale),
        cmocka_unit_test(others_have_none),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

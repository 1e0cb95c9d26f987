/* Types that the GPU decodes where it uses them: its functions, compiled for the CPU, give the bits of
 * lib/quant for random blocks; and every type that the CPU computes with has tiles or such a function. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above */
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "gpu/raw.cuh"

typedef void raw_fn(const uint8_t *b, int j, float *x);
struct raw {
    const char *name;
    enum apr_type type;
    uint32_t n_block, n_bytes, n_head;
    raw_fn *fn;
};
#define ROW(name, type, n_block, n_bytes, n_head) {#name, type, n_block, n_bytes, n_head, raw_##name},
static const struct raw raws[] = {RAW_TYPES(ROW)};
#define N_RAWS (sizeof raws / sizeof *raws)

static uint64_t state = 88172645463325252u;
static uint64_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static bool differ(const float *x, const float *y)
{
    for (int i = 0; i < 256; i++)
        if (bits_of(x[i]) != bits_of(y[i])) return true;
    return false;
}

/* Of 256 columns; the first rounds have exponents of ordinary numbers in the places of halves. */
static void compare(const struct raw *r, int round)
{
    uint8_t row[4 + 256 * 4];
    float x[256], y[256];
    size_t n_bytes = r->n_head + 256 / r->n_block * r->n_bytes;
    assert_true(n_bytes <= sizeof row);
    for (size_t i = 0; i < n_bytes; i++) row[i] = (uint8_t)(draw() >> 24);
    if (round == 1) memset(row, 0, n_bytes);
    if (round == 2) memset(row, 0xff, n_bytes);
    apr_quant_of(r->type)->to_f32(row, x, 256);
    for (int j = 0; j < 8; j++) r->fn(row, j, y + 32 * j);
    for (int i = 0; i < 256; i++) {
        if (x[i] != x[i] && y[i] != y[i]) continue; /* which NaN is not the type's business */
        if (bits_of(x[i]) != bits_of(y[i]))
            fail_msg("%s, round %d, value %d: found %a, expected %a", r->name, round, i, (double)y[i],
                     (double)x[i]);
    }
}

static void same_bits_as_the_type(void **s)
{
    (void)s;
    for (size_t k = 0; k < N_RAWS; k++)
        for (int round = 0; round < 3000; round++) compare(&raws[k], round);
}

static void sizes_are_the_types(void **s)
{
    (void)s;
    for (size_t k = 0; k < N_RAWS; k++) {
        const struct apr_quant *q = apr_quant_of(raws[k].type);
        assert_non_null(q);
        assert_int_equal(q->block_elems, raws[k].n_block);
        assert_int_equal(q->block_bytes, raws[k].n_bytes);
        assert_int_equal(q->head_bytes, raws[k].n_head);
    }
}

/* A damaged byte changes values: what a comparison of unpacked rows must be able to see. Scales of 1 and
 * thereabouts, so that no block is NaN or zero throughout. */
static void a_changed_byte_is_seen(void **s)
{
    (void)s;
    for (size_t k = 0; k < N_RAWS; k++) {
        uint8_t row[4 + 256 * 4];
        float x[256], y[256];
        const struct raw *r = &raws[k];
        size_t n_bytes = r->n_head + 256 / r->n_block * r->n_bytes, n_seen = 0;
        for (size_t i = 0; i < n_bytes; i++) row[i] = (uint8_t)(0x30 | (draw() >> 24 & 0xf));
        for (int j = 0; j < 8; j++) r->fn(row, j, x + 32 * j);
        for (size_t i = 0; i < n_bytes; i++) {
            row[i] ^= 0x05;
            for (int j = 0; j < 8; j++) r->fn(row, j, y + 32 * j);
            n_seen += differ(x, y);
            row[i] ^= 0x05;
        }
        if (10 * n_seen < 9 * n_bytes) fail_msg("%s: %zu of %zu bytes matter", r->name, n_seen, n_bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_the_types),
        cmocka_unit_test(same_bits_as_the_type),
        cmocka_unit_test(a_changed_byte_is_seen),
    };
    return cmocka_run_group_tests_name("gpu_raw", tests, NULL, NULL);
}

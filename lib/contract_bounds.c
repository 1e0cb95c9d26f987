/* Bounds of mapped tensors, on the pool. See contract_bounds.h. */
#include "contract_bounds.h"

#include <math.h>
#include <string.h>

#include "quant/blocks.h"

#define CHUNK_BLOCKS 4096u /* of a task */
#define SAMPLE_ELEMS 4096u /* whose statistics bound the norm and the range from below */
#define HALF_INF     0x7c00U
#define BF16_INF     0x7f80U
#define BF16_ZERO    0x2edbU /* the largest one below 1e-10, which statistics count as zero; 2^-24 is more */

typedef uint8_t u8x16 __attribute__((vector_size(16)));
typedef int8_t i8x16 __attribute__((vector_size(16)));
typedef int16_t i16x8 __attribute__((vector_size(16)));

/* Of the values of one task. */
struct part {
    uint64_t n_zero; /* at most so many are below 1e-10 */
    double abs;      /* none is larger; infinity where one may not be finite */
};
typedef void part_fn(const uint8_t *blocks, size_t n_blocks, struct part *p);

static u8x16 bytes16(const void *p)
{
    u8x16 v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* The bytes of v that are true in a comparison are -1. */
static uint64_t counted(i8x16 v)
{
    uint64_t n = 0;
    for (int i = 0; i < 16; i++) n += (uint64_t)-v[i];
    return n;
}

static uint16_t magnitude(uint16_t half)
{
    return half & 0x7fffU;
}

static double largest(uint16_t half, double times)
{
    return half < HALF_INF ? (double)apr_f16_to_f32(half) * times : INFINITY;
}

/* d * q. Those of a zero d are counted twice, if at all: it is a bound. */
static void part_q8_0(const uint8_t *blocks, size_t n_blocks, struct part *p)
{
    const struct apr_block_q8_0 *b = (const void *)blocks;
    uint16_t d_most = 0;
    for (size_t i = 0; i < n_blocks;) {
        i8x16 n = {0};
        for (size_t end = n_blocks - i < 32 ? n_blocks : i + 32; i < end; i++) { /* lanes count to 64 */
            uint16_t d = magnitude(b[i].d);
            d_most = d > d_most ? d : d_most;
            p->n_zero += d ? 0 : APR_QK;
            n += (i8x16)(bytes16(b[i].qs) == 0) + (i8x16)(bytes16(b[i].qs + 16) == 0);
        }
        p->n_zero += counted(n);
    }
    p->abs = largest(d_most, 128);
}

/* d * (q - 8) */
static void part_q4_0(const uint8_t *blocks, size_t n_blocks, struct part *p)
{
    const struct apr_block_q4_0 *b = (const void *)blocks;
    uint16_t d_most = 0;
    for (size_t i = 0; i < n_blocks;) {
        i8x16 n = {0};
        for (size_t end = n_blocks - i < 32 ? n_blocks : i + 32; i < end; i++) {
            uint16_t d = magnitude(b[i].d);
            u8x16 v = bytes16(b[i].qs);
            d_most = d > d_most ? d : d_most;
            p->n_zero += d ? 0 : APR_QK;
            n += (i8x16)((v & 15) == 8) + (i8x16)((v & 0xf0) == 0x80);
        }
        p->n_zero += counted(n);
    }
    p->abs = largest(d_most, 8);
}

/* d * scale * q - dmin * min is near zero for one q at most, and for none unless (dmin * min) / (d * scale)
 * is near a whole number: then all of the sub-block may be. */
static uint64_t zeros_with_min(uint16_t d_bits, uint16_t dmin_bits, const uint8_t *scales)
{
    const float d = apr_f16_to_f32(d_bits), dmin = apr_f16_to_f32(dmin_bits);
    uint64_t n = 0;
#pragma GCC unroll 8
    for (unsigned s = 0; s < 8; s++) {
        unsigned scale, min;
        apr_q4_k_scale_min(scales, s, &scale, &min);
        float step = fabsf(d * (float)scale), at = dmin * (float)min;
        if (step >= 1e-6f) {
            float q = at / step;
            n += fabsf(q - rintf(q)) < 1e-3f;
        } else {
            n += step > 0 || at == 0; /* a half is 6e-8 at least */
        }
    }
    return 32 * n;
}

static void part_q4_k(const uint8_t *blocks, size_t n_blocks, struct part *p)
{
    const struct apr_block_q4_k *b = (const void *)blocks;
    uint16_t d_most = 0, dmin_most = 0;
    for (size_t i = 0; i < n_blocks; i++) {
        uint16_t d = magnitude(b[i].d), dmin = magnitude(b[i].dmin);
        d_most = d > d_most ? d : d_most;
        dmin_most = dmin > dmin_most ? dmin : dmin_most;
        p->n_zero += zeros_with_min(b[i].d, b[i].dmin, b[i].scales);
    }
    p->abs = largest(d_most, 63 * 15) + largest(dmin_most, 63);
}

static void part_q5_k(const uint8_t *blocks, size_t n_blocks, struct part *p)
{
    const struct apr_block_q5_k *b = (const void *)blocks;
    uint16_t d_most = 0, dmin_most = 0;
    for (size_t i = 0; i < n_blocks; i++) {
        uint16_t d = magnitude(b[i].d), dmin = magnitude(b[i].dmin);
        d_most = d > d_most ? d : d_most;
        dmin_most = dmin > dmin_most ? dmin : dmin_most;
        p->n_zero += zeros_with_min(b[i].d, b[i].dmin, b[i].scales);
    }
    p->abs = largest(d_most, 63 * 31) + largest(dmin_most, 63);
}

/* d * scale * (q - 32): zero where the low bits are 0 and the high ones 2 */
static void part_q6_k(const uint8_t *blocks, size_t n_blocks, struct part *p)
{
    const struct apr_block_q6_k *b = (const void *)blocks;
    uint16_t d_most = 0;
    for (size_t i = 0; i < n_blocks; i++) {
        uint16_t d = magnitude(b[i].d);
        i8x16 n = {0};
        for (int j = 0; j < 8; j++) { /* 16 bytes of ql beside those of qh; quarters of 32 values */
            u8x16 low = bytes16(b[i].ql + 16 * j), high = bytes16(b[i].qh + 16 * (j / 4 * 2 + j % 2));
            u8x16 first = j % 4 < 2 ? high & 3 : high >> 2 & 3,
                  second = j % 4 < 2 ? high >> 4 & 3 : high >> 6;
            n += (i8x16)(((low & 15) | (first ^ 2)) == 0) + (i8x16)((low >> 4 | (second ^ 2)) == 0);
        }
        d_most = d > d_most ? d : d_most;
        p->n_zero += d ? counted(n) + 16 * counted((i8x16)(bytes16(b[i].scales) == 0)) : APR_QKK;
    }
    p->abs = largest(d_most, 128 * 32);
}

/* n values of 16 bits, of which those up to zero are below 1e-10; the largest magnitude */
static int16_t part_16(const uint8_t *values, size_t n, int16_t zero, struct part *p)
{
    i16x8 most = {0};
    int16_t result = 0;
    for (size_t i = 0; i < n;) {
        size_t end = n - i < 8192 ? n : i + 8192; /* lanes count to 1024 */
        i16x8 n_zero = {0};
        for (; i + 8 <= end; i += 8) {
            i16x8 v;
            memcpy(&v, values + 2 * i, sizeof v);
            v &= 0x7fff;
            i16x8 more = v > most;
            most = (v & more) | (most & ~more);
            n_zero += v <= zero;
        }
        for (int j = 0; j < 8; j++) p->n_zero += (uint64_t)-n_zero[j];
        for (; i < end; i++) {
            int16_t v;
            memcpy(&v, values + 2 * i, sizeof v);
            v &= 0x7fff;
            result = v > result ? v : result;
            p->n_zero += v <= zero;
        }
    }
    for (int j = 0; j < 8; j++) result = most[j] > result ? most[j] : result;
    return result;
}

static void part_f16(const uint8_t *values, size_t n, struct part *p)
{
    p->abs = largest((uint16_t)part_16(values, n, 0, p), 1);
}

static void part_bf16(const uint8_t *values, size_t n, struct part *p)
{
    uint16_t most = (uint16_t)part_16(values, n, BF16_ZERO, p);
    p->abs = most < BF16_INF ? (double)apr_bf16_to_f32(most) : INFINITY;
}

static part_fn *const parts[APR_N_TYPES] = {
    [APR_F16] = part_f16,   [APR_BF16] = part_bf16, [APR_Q4_0] = part_q4_0, [APR_Q8_0] = part_q8_0,
    [APR_Q4_K] = part_q4_k, [APR_Q5_K] = part_q5_k, [APR_Q6_K] = part_q6_k,
};

struct job {
    const struct apr_tensor *t;
    size_t block_bytes, n_blocks, n_chunk;
    struct part *parts; /* [a chunk] */
};

static void run_chunks(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    const struct job *j = ctx;
    (void)i_thread;
    for (size_t c = i_begin; c < i_end; c++) {
        size_t at = c * j->n_chunk, n = j->n_blocks - at < j->n_chunk ? j->n_blocks - at : j->n_chunk;
        j->parts[c] = (struct part){0};
        parts[j->t->type](j->t->data + at * j->block_bytes, n, &j->parts[c]);
    }
}

bool apr_bounds_of(const struct apr_tensor *t, const struct apr_kern *k, struct apr_pool *pool,
                   struct apr_bounds *b)
{
    const struct apr_quant *q = apr_quant_of(t->type);
    struct apr_arena arena;
    struct apr_stats s;
    struct apr_err why = {0};
    float x[SAMPLE_ELEMS];
    const uint64_t n = apr_tensor_elems(t);
    if (!q || !parts[t->type] || !k->to_f32[t->type] || !t->data || t->parts || t->packing != APR_ROWS ||
        n < SAMPLE_ELEMS || n % q->block_elems || n / q->block_elems * q->block_bytes != t->n_bytes)
        return false;
    struct job j = {.t = t, .block_bytes = q->block_bytes, .n_blocks = (size_t)(n / q->block_elems)};
    j.n_chunk = CHUNK_BLOCKS * APR_QK / q->block_elems;
    const size_t n_chunks = (j.n_blocks + j.n_chunk - 1) / j.n_chunk,
                 n_sample = SAMPLE_ELEMS / q->block_elems;
    apr_arena_init(&arena);
    bool ok = apr_arena_try(&arena, &j.parts, n_chunks, sizeof *j.parts, "bounds", &why) == APR_OK;
    if (ok) {
        apr_parallel_for(pool, n_chunks, 1, run_chunks, &j);
        apr_stats_init(&s);
        k->to_f32[t->type](t->data + (j.n_blocks - n_sample) / 2 * q->block_bytes, x, SAMPLE_ELEMS);
        k->stats(x, SAMPLE_ELEMS, &s);
        *b = (struct apr_bounds){
            .n = n, .l2_least = sqrt(s.sum_sq), .range_least = (double)s.max - (double)s.min};
        for (size_t c = 0; c < n_chunks; c++) {
            b->n_zero_most += j.parts[c].n_zero;
            b->abs_most = fmax(b->abs_most, j.parts[c].abs);
        }
    }
    apr_arena_free(&arena);
    return ok;
}

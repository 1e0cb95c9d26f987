/* The types of a cache. */
#include "page.h"

#include <string.h>

#include "../quant/blocks.h"
#include "../quant/types.h"

#define HALF_NAN 0x7e00u
#define ANY_POS  SIZE_MAX /* read in place */
#define N_FIT    8u       /* blocks that lib/quant fits side by side */

static void store_f32(const struct apr_kern *k, const float *x, void *row, size_t n_dim)
{
    (void)k;
    memcpy(row, x, n_dim * sizeof *x);
}

static void scores_f32(const struct apr_kern *k, const struct apr_page *p, const float *q, size_t n_q,
                       float scale, float *scores, size_t s_stride, float *room)
{
    (void)room;
    k->attn_scores_f32(q, n_q, p->rows, p->row_bytes / sizeof(float), p->n_pos, p->n_dim, scale, scores,
                       s_stride);
}

static void values_f32(const struct apr_kern *k, const struct apr_page *p, const float *weights,
                       size_t w_stride, size_t n_q, float *out, float *room)
{
    (void)room;
    k->attn_values_f32(weights, w_stride, n_q, p->rows, p->row_bytes / sizeof(float), p->n_pos, p->n_dim,
                       out);
}

static void store_f16(const struct apr_kern *k, const float *x, void *row, size_t n_dim)
{
    k->f32_to_f16(x, row, n_dim);
}

static void scores_f16(const struct apr_kern *k, const struct apr_page *p, const float *q, size_t n_q,
                       float scale, float *scores, size_t s_stride, float *room)
{
    (void)room;
    k->attn_scores_f16(q, n_q, p->rows, p->row_bytes / sizeof(uint16_t), p->n_pos, p->n_dim, scale, scores,
                       s_stride);
}

static void values_f16(const struct apr_kern *k, const struct apr_page *p, const float *weights,
                       size_t w_stride, size_t n_q, float *out, float *room)
{
    (void)room;
    k->attn_values_f16(weights, w_stride, n_q, p->rows, p->row_bytes / sizeof(uint16_t), p->n_pos, p->n_dim,
                       out);
}

/* Five steps of sums and differences, then 1 / sqrt(32). */
static void turn_block(float *x)
{
    for (int h = 1; h < APR_QK; h *= 2)
        for (int i = 0; i < APR_QK; i += 2 * h)
            for (int j = i; j < i + h; j++) {
                float a = x[j], b = x[j + h];
                x[j] = a + b;
                x[j + h] = a - b;
            }
    for (int i = 0; i < APR_QK; i++) x[i] *= 0.176776695F;
}

void apr_page_turn(float *x, size_t n)
{
    for (size_t i = 0; i < n; i += APR_QK) turn_block(x + i);
}

/* Exponents all ones somewhere. */
static bool has_no_number(const float *x)
{
    uint32_t bits[APR_QK], bad = 0;
    memcpy(bits, x, sizeof bits);
    for (int i = 0; i < APR_QK; i++) bad |= (bits[i] & 0x7f800000u) == 0x7f800000u;
    return bad;
}

static void store_q8_0(const struct apr_kern *k, const float *x, void *row, size_t n_dim)
{
    (void)k;
    struct apr_block_q8_0 *b = row;
    float turned[APR_QK];
    for (size_t i = 0; i < n_dim; i += APR_QK, b++) {
        memcpy(turned, x + i, sizeof turned);
        turn_block(turned);
        if (has_no_number(turned))
            *b = (struct apr_block_q8_0){.d = HALF_NAN};
        else
            apr_q8_0_from_f32(turned, b, APR_QK, NULL);
    }
}

static void store_q4_0(const struct apr_kern *k, const float *x, void *row, size_t n_dim)
{
    (void)k;
    struct apr_block_q4_0 *b = row;
    float turned[N_FIT * APR_QK], even[N_FIT * APR_QK]; /* all values count alike */
    for (size_t i = 0; i < N_FIT * APR_QK; i++) even[i] = 1;
    for (size_t i = 0; i < n_dim; i += N_FIT * APR_QK) {
        size_t n = n_dim - i < N_FIT * APR_QK ? n_dim - i : N_FIT * APR_QK;
        bool bad[N_FIT] = {false};
        memcpy(turned, x + i, n * sizeof *x);
        apr_page_turn(turned, n);
        for (size_t j = 0; j < n; j += APR_QK) {
            bad[j / APR_QK] = has_no_number(turned + j);
            if (bad[j / APR_QK]) memset(turned + j, 0, APR_QK * sizeof *turned);
        }
        apr_q4_0_from_f32(turned, b, n, even);
        for (size_t j = 0; j < n; j += APR_QK, b++)
            if (bad[j / APR_QK]) b->d = HALF_NAN;
    }
}

/* The page as f32, [n_pos, n_dim]. */
static void widen(const struct apr_kern *k, enum apr_type type, const struct apr_page *p, float *room)
{
    const uint8_t *row = p->rows;
    for (size_t i = 0; i < p->n_pos; i++, row += p->row_bytes)
        k->to_f32[type](row, room + i * p->n_dim, p->n_dim);
}

static void widened_scores(const struct apr_kern *k, enum apr_type type, const struct apr_page *p,
                           const float *q, size_t n_q, float scale, float *scores, size_t s_stride,
                           float *room)
{
    widen(k, type, p, room);
    k->attn_scores_f32(q, n_q, room, p->n_dim, p->n_pos, p->n_dim, scale, scores, s_stride);
}

static void widened_values(const struct apr_kern *k, enum apr_type type, const struct apr_page *p,
                           const float *weights, size_t w_stride, size_t n_q, float *out, float *room)
{
    widen(k, type, p, room);
    k->attn_values_f32(weights, w_stride, n_q, room, p->n_dim, p->n_pos, p->n_dim, out);
}

#define BLOCKS(lower, type)                                                                                  \
    static void scores_##lower(const struct apr_kern *k, const struct apr_page *p, const float *q,           \
                               size_t n_q, float scale, float *scores, size_t s_stride, float *room)         \
    {                                                                                                        \
        widened_scores(k, type, p, q, n_q, scale, scores, s_stride, room);                                   \
    }                                                                                                        \
    static void values_##lower(const struct apr_kern *k, const struct apr_page *p, const float *weights,     \
                               size_t w_stride, size_t n_q, float *out, float *room)                         \
    {                                                                                                        \
        widened_values(k, type, p, weights, w_stride, n_q, out, room);                                       \
    }
BLOCKS(q8_0, APR_Q8_0)
BLOCKS(q4_0, APR_Q4_0)

static const struct apr_page_type types[] = {
    {APR_F16, "f16", false, ANY_POS, store_f16, scores_f16, values_f16},
    {APR_Q8_0, "q8_0", true, APR_PAGE_POS, store_q8_0, scores_q8_0, values_q8_0},
    {APR_Q4_0, "q4_0", true, APR_PAGE_POS, store_q4_0, scores_q4_0, values_q4_0},
    {APR_F32, "f32", false, ANY_POS, store_f32, scores_f32, values_f32},
};
#define N_TYPES (sizeof types / sizeof types[0])

size_t apr_page_room_floats(size_t n_dim)
{
    return APR_PAGE_POS * n_dim;
}

const struct apr_page_type *apr_page_type_at(size_t i)
{
    return i < N_TYPES ? &types[i] : NULL;
}

const struct apr_page_type *apr_page_type_of(enum apr_type type)
{
    for (size_t i = 0; i < N_TYPES; i++)
        if (types[i].type == type) return &types[i];
    return NULL;
}

const struct apr_page_type *apr_page_type_named(const char *name)
{
    for (size_t i = 0; i < N_TYPES; i++)
        if (!strcmp(types[i].name, name)) return &types[i];
    return NULL;
}

/* Matrix products, split into row chunks of about 64 KiB of weights that threads take as they come. */
#include "linear.h"

#include <assert.h>

/* Small enough to balance threads of unequal speed, large enough to amortise handing out a chunk. */
#define CHUNK_BYTES       (64u << 10)
#define ROWS_MULTIPLE     16u /* kernels work on tiles of 4, 8 or 16 rows */
#define CHUNKS_PER_THREAD 4u

struct job {
    const struct apr_compute *c;
    const struct apr_acts *x;
    const struct apr_product *products;
    size_t n_products;
    size_t n_rows_chunk[APR_MAX_PRODUCTS];
    size_t i_first_chunk[APR_MAX_PRODUCTS + 1];
};

static size_t rows_per_chunk(const struct apr_compute *c, const struct apr_mat *w, size_t n_bytes_row)
{
    size_t n_share = w->n_rows / (CHUNKS_PER_THREAD * apr_pool_threads(c->pool));
    size_t n_rows = CHUNK_BYTES / n_bytes_row;
    if (n_rows > n_share) n_rows = n_share;
    n_rows -= n_rows % ROWS_MULTIPLE;
    return n_rows ? n_rows : ROWS_MULTIPLE;
}

static size_t n_chunks_of(size_t n_rows, size_t n_rows_chunk)
{
    return n_rows / n_rows_chunk + (n_rows % n_rows_chunk != 0);
}

/* Rows [r0, r1) of one product, all tokens. */
static void product_rows(const struct apr_compute *c, const struct apr_acts *x, const struct apr_product *p,
                         size_t r0, size_t r1, unsigned i_thread)
{
    const struct apr_mat *w = p->w;
    enum apr_act act = c->exact ? APR_ACT_F32 : w->mm->act;
    const struct {
        const void *rows;
        size_t row_bytes;
    } in[] = {
        [APR_ACT_F32] = {x->f32, x->n_cols * sizeof(float)},
        [APR_ACT_Q8_32] = {x->q32, x->n_cols / 32 * sizeof(struct apr_act32)},
        [APR_ACT_Q8_256] = {x->q256, x->n_cols / 256 * sizeof(struct apr_act256)},
    };
    apr_matmul_fn *fn = c->exact ? w->mm->exact : w->mm->fast;
    fn(w->data + r0 * w->row_bytes, w->row_bytes, r1 - r0, w->n_cols, in[act].rows, in[act].row_bytes,
       x->n_toks, p->y + r0, w->n_rows, c->scratch + i_thread * c->scratch_bytes);
}

static void linear_task(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    const struct job *j = ctx;
    for (size_t i = i_begin; i < i_end; i++) {
        size_t i_product = 0;
        while (i >= j->i_first_chunk[i_product + 1]) i_product++;
        const struct apr_product *p = &j->products[i_product];
        size_t r0 = (i - j->i_first_chunk[i_product]) * j->n_rows_chunk[i_product];
        size_t r1 = r0 + j->n_rows_chunk[i_product];
        if (r1 > p->w->n_rows) r1 = p->w->n_rows;
        product_rows(j->c, j->x, p, r0, r1, i_thread);
    }
}

static void swiglu_task(void *ctx, size_t i_begin, size_t i_end, unsigned i_thread)
{
    const struct job *j = ctx;
    const struct apr_product *gate = &j->products[0], *up = &j->products[1];
    size_t n_rows = gate->w->n_rows;
    for (size_t i = i_begin; i < i_end; i++) {
        size_t r0 = i * j->n_rows_chunk[0], r1 = r0 + j->n_rows_chunk[0];
        if (r1 > n_rows) r1 = n_rows;
        product_rows(j->c, j->x, gate, r0, r1, i_thread);
        product_rows(j->c, j->x, up, r0, r1, i_thread);
        for (size_t t = 0; t < j->x->n_toks; t++) {
            float *g = gate->y + t * n_rows + r0;
            j->c->kern->silu_mul(g, up->y + t * n_rows + r0, g, r1 - r0);
        }
    }
}

unsigned apr_mat_wants(const struct apr_mat *w, bool exact)
{
    return 1u << (exact ? APR_ACT_F32 : w->mm->act);
}

void apr_acts_pack(const struct apr_compute *c, const struct apr_acts *x, unsigned wants, size_t i_tok)
{
    const float *row = x->f32 + i_tok * x->n_cols;
    if (wants & 1u << APR_ACT_Q8_32) c->kern->to_act32(row, x->q32 + i_tok * (x->n_cols / 32), x->n_cols);
    if (wants & 1u << APR_ACT_Q8_256) c->kern->to_act256(row, x->q256 + i_tok * (x->n_cols / 256), x->n_cols);
}

static void tap(const struct apr_compute *c, const struct apr_acts *x, const struct apr_product *products,
                size_t n_products)
{
    for (size_t i = 0; i < n_products; i++) c->tap(c->tap_ctx, products[i].w, x);
}

void apr_linear(const struct apr_compute *c, const struct apr_acts *x, const struct apr_product *products,
                size_t n_products)
{
    assert(n_products <= APR_MAX_PRODUCTS);
    if (c->tap) tap(c, x, products, n_products);
    struct job j = {.c = c, .x = x, .products = products, .n_products = n_products};
    for (size_t i = 0; i < n_products; i++) {
        const struct apr_mat *w = products[i].w;
        assert(w->n_cols == x->n_cols);
        j.n_rows_chunk[i] = rows_per_chunk(c, w, w->row_bytes);
        j.i_first_chunk[i + 1] = j.i_first_chunk[i] + n_chunks_of(w->n_rows, j.n_rows_chunk[i]);
    }
    apr_parallel_for(c->pool, j.i_first_chunk[n_products], 1, linear_task, &j);
}

void apr_linear_swiglu(const struct apr_compute *c, const struct apr_acts *x, const struct apr_mat *gate,
                       const struct apr_mat *up, float *y, float *up_y)
{
    assert(gate->n_rows == up->n_rows && gate->n_cols == x->n_cols && up->n_cols == x->n_cols);
    struct apr_product products[] = {{gate, y}, {up, up_y}};
    if (c->tap) tap(c, x, products, 2);
    struct job j = {.c = c, .x = x, .products = products, .n_products = 2};
    j.n_rows_chunk[0] = rows_per_chunk(c, gate, gate->row_bytes + up->row_bytes);
    apr_parallel_for(c->pool, n_chunks_of(gate->n_rows, j.n_rows_chunk[0]), 1, swiglu_task, &j);
}
